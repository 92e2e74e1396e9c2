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

from dse.program.taskgraph import Arbitration, TaskGraph, Timeline
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


class _Request:
    """A transfer that a resource has still to serve; `done` comes when it is through."""

    def __init__(self, env: simpy.Environment, engine: int, task: int, cycles: int) -> None:
        self.engine, self.task, self.left, self.since = engine, task, cycles, 0
        self.done = env.event()


class _SharedResource:
    """Serves one request at a time, piece by piece, and chooses anew behind each piece."""

    def __init__(self, env: simpy.Environment, rule: Arbitration, engines: int) -> None:
        self._env, self._rule, self._engines = env, rule, engines
        self._waiting: list[_Request] = []
        self._busy = self._called = False
        self._last_engine = -1
        self.served: list[list[int]] = []

    def request(self, engine: int, task: int, cycles: int) -> simpy.Event:
        """An event that comes when a transfer has been served."""
        request = _Request(self._env, engine, task, cycles)
        self._join(request)
        return request.done

    def _join(self, request: _Request) -> None:
        request.since = int(self._env.now)
        self._waiting.append(request)
        self._call_arbiter()

    def _call_arbiter(self) -> None:
        if self._called:
            return
        self._called = True
        arbitration = self._env.event()
        arbitration._ok = True
        arbitration._value = None
        arbitration.callbacks.append(self._arbitrate)
        self._env.schedule(arbitration, priority=_LAST_IN_CYCLE)

    def _arbitrate(self, _: simpy.Event) -> None:
        self._called = False
        if self._busy or not self._waiting:
            return
        by_age = sorted(self._waiting, key=lambda request: (request.since, request.engine))
        seen = by_age[: self._rule.window] if self._rule.window else by_age
        if self._rule.policy == "fifo":
            chosen = seen[0]
        elif self._rule.policy == "priority":
            chosen = min(seen, key=lambda request: request.engine)
        else:
            chosen = min(seen, key=lambda request: (request.engine - self._last_engine - 1) % self._engines)
        self._waiting.remove(chosen)
        self._busy = True
        self._env.process(self._serve(chosen))

    def _serve(self, request: _Request) -> Process:
        piece = min(request.left, self._rule.chunk_cycles) if self._rule.chunk_cycles else request.left
        switched = self._last_engine >= 0 and self._last_engine != request.engine
        self._last_engine = request.engine
        begin = int(self._env.now)
        yield self._env.timeout(piece + (self._rule.switch_cycles if switched else 0))
        self._note(request.task, begin, int(self._env.now))
        self._busy = False
        request.left -= piece
        if request.left:
            self._join(request)
        else:
            request.done.succeed()
            self._call_arbiter()

    def _note(self, task: int, begin: int, end: int) -> None:
        if self.served and self.served[-1][0] == task and self.served[-1][2] == begin:
            self.served[-1][2] = end
        else:
            self.served.append([task, begin, end])


class _Run:
    """A simulation under way: the graph's tables by task, and the times found."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.env = simpy.Environment(initial_time=0)
        self.semaphores = [_Semaphore(self.env, int(count)) for count in graph.initial]
        self.resources = [
            _SharedResource(self.env, graph.rule(number), len(graph.engines)) for number in range(len(graph.resources))
        ]
        self.transfers: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for task, resource, cycles in graph.all_transfers().tolist():
            self.transfers[task].append((resource, cycles))
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
        """The duration of a task; its transfers come first, side by side."""
        duration, mine = int(self.graph.duration_cycles[task]), self.transfers[task]
        if not mine:
            yield self.env.timeout(duration)
            return
        yield self.env.all_of([self.resources[number].request(engine, task, cycles) for number, cycles in mine])
        yield self.env.timeout(duration - max(cycles for _, cycles in mine))

    def signal(self, task: int) -> Process:
        """Signals given at a task's end are seen one cycle later."""
        yield self.env.timeout(1)
        for semaphore, amount in self.signals[task]:
            self.semaphores[semaphore].add(amount)


def simulate_c(graph: TaskGraph) -> Timeline:
    """Times of every task of a graph, in cycles, shared resources included.

    A task with transfers starts when its semaphores hold, requests them all, and ends its remaining cycles after the
    last was served.

    Returns
    -------
    Timeline of level "C", with the service of every shared resource.

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
    served = [(number, *row) for number, resource in enumerate(run.resources) for row in resource.served]
    service = np.array(served, np.int64).reshape(-1, 4)
    return Timeline(graph, run.start, run.end, run.total, "C", service=service)
