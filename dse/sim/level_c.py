"""Level C: the readable reference. One SimPy process an engine, semaphores as counters with a bell, shared resources.

Written apart from level A and sharing no computation with it: what both agree on is taken for true.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy
from simpy.events import EventPriority
from simpy.resources.resource import Request

from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim.wellformed import check_graph, deadlock

Process = Generator[simpy.Event, Any, None]

#: SimPy runs events of a cycle by priority (1 is normal): arbitration comes after all else of its cycle.
_LAST_IN_CYCLE = EventPriority(2)


class _Semaphore:
    """A count, and an event that the next signal rings."""

    def __init__(self, env: simpy.Environment, count: int) -> None:
        self._env, self.count = env, count
        self.bell = env.event()

    def add(self, amount: int) -> None:
        self.count += amount
        self.bell.succeed()
        self.bell = self._env.event()


class _SharedResource:
    """A resource that serves one task at a time: older requests first, in the same cycle the lower engine."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env, self._resource = env, simpy.Resource(env)
        self._asked: list[tuple[int, simpy.Event]] = []

    def granted(self, engine: int) -> simpy.Event:
        """An event that comes with the resource's request as value once the engine may use it."""
        grant = self._env.event()
        if not self._asked:
            arbitration = self._env.event()
            arbitration._ok = True
            arbitration._value = None
            arbitration.callbacks.append(self._arbitrate)
            self._env.schedule(arbitration, priority=_LAST_IN_CYCLE)
        self._asked.append((engine, grant))
        return grant

    def _arbitrate(self, _: simpy.Event) -> None:
        asked, self._asked = sorted(self._asked, key=lambda entry: entry[0]), []
        for _engine, grant in asked:
            self._env.process(self._queue(grant))

    def _queue(self, grant: simpy.Event) -> Process:
        request = self._resource.request()
        yield request
        grant.succeed(request)

    def release(self, request: Request) -> None:
        self._resource.release(request)


class _Run:
    """A simulation under way: the graph's tables by task, and the times found."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.env = simpy.Environment(initial_time=0)
        self.semaphores = [_Semaphore(self.env, int(count)) for count in graph.initial]
        self.resources = [_SharedResource(self.env) for _ in graph.resources]
        self.waits: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.signals: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for table, rows in ((self.waits, graph.waits), (self.signals, graph.signals)):
            for task, semaphore, amount in rows.tolist():
                table[task].append((semaphore, amount))
        self.start = np.full(graph.tasks, -1, np.int64)
        self.end = np.full(graph.tasks, -1, np.int64)
        self.standing: dict[int, int] = {}
        self.total = 0

    def engine(self, number: int) -> Process:
        """The life of an engine: its tasks in program order, then its report."""
        graph = self.graph
        for task in np.flatnonzero(graph.engine == number).tolist():
            self.standing[number] = task
            yield self.env.timeout(int(graph.issue_cycles[task]))
            while missing := self.missing(task):
                yield self.semaphores[missing[0]].bell
            for semaphore, amount in self.waits[task]:
                self.semaphores[semaphore].count -= amount
            self.start[task] = self.env.now
            yield from self.execute(number, task)
            self.end[task] = self.env.now
            if self.signals[task]:
                self.env.process(self.signal(task))
        self.standing.pop(number, None)
        yield self.env.timeout(int(graph.final_cycles[number]))
        self.total = max(self.total, int(self.env.now))

    def missing(self, task: int) -> list[int]:
        """Semaphores that do not yet hold what a task awaits."""
        return [semaphore for semaphore, amount in self.waits[task] if self.semaphores[semaphore].count < amount]

    def execute(self, engine: int, task: int) -> Process:
        """The duration of a task; its service comes first, once the shared resource is granted."""
        duration, service = int(self.graph.duration_cycles[task]), int(self.graph.service_cycles[task])
        number = int(self.graph.resource[task])
        if number < 0 or service == 0:
            yield self.env.timeout(duration)
            return
        request = yield self.resources[number].granted(engine)
        yield self.env.timeout(service)
        self.resources[number].release(request)
        yield self.env.timeout(duration - service)

    def signal(self, task: int) -> Process:
        """Signals given at a task's end are seen one cycle later."""
        yield self.env.timeout(1)
        for semaphore, amount in self.signals[task]:
            self.semaphores[semaphore].add(amount)


def simulate_c(graph: TaskGraph) -> Timeline:
    """Times of every task of a graph, in cycles, shared resources included.

    A task on a shared resource starts when its semaphores hold, is served for `service_cycles` once the resource
    is its own, and ends its remaining cycles later.

    Returns
    -------
    Timeline of level "C".

    Raises
    ------
    InvariantError: the graph is malformed or deadlocks (the standing tasks are named).
    """
    check_graph(graph)
    run = _Run(graph)
    for number in range(len(graph.engines)):
        run.env.process(run.engine(number))
    run.env.run()
    if run.standing:
        raise deadlock(graph, [(task, run.missing(task)) for task in run.standing.values()])
    return Timeline(graph, run.start, run.end, run.total, "C")
