"""Level A: start and end of every task by a compiled max-plus recurrence, one visit a task.

Semaphores with one producer and one consumer resolve into precedences beforehand (`dse.program.dependences`), so
nothing is left of time but additions and maxima. Shared resources are taken as free: exact when each resource has
one engine, a lower bound otherwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from dse.program.dependences import FROM_START
from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim.precedence import finish_cycle, grouped, standing_error, waits_by_task
from dse.sim.wellformed import check_graph

IntArray = npt.NDArray[np.int64]


def simulate_a(graph: TaskGraph) -> Timeline:
    """Times of every task of a graph, in cycles.

    Returns
    -------
    Timeline of level "A"; `total_cycles` is the last engine's report: its last task's end (or cycle 0) plus its
    `final_cycles`.

    Raises
    ------
    InvariantError: the graph is malformed or deadlocks (the standing tasks are named).

    Source: equal, task by task, to the independent level C (tests/property/test_levels.py).
    """
    check_graph(graph)
    task_order, engine_begin = grouped(graph.engine, len(graph.engines))
    filled_by, wait_begin = waits_by_task(graph)
    start, end, position = _recurrence(
        task_order,
        engine_begin,
        np.ascontiguousarray(graph.issue_cycles, np.int64),
        np.ascontiguousarray(graph.duration_cycles, np.int64),
        filled_by,
        wait_begin,
    )
    if (position < engine_begin[1:]).any():
        standing = [int(task_order[p]) for p in position[position < engine_begin[1:]]]
        raise standing_error(graph, end, standing)
    return Timeline(graph, start, end, finish_cycle(graph, end, task_order, engine_begin), "A")


@njit(cache=True)
def _recurrence(
    task_order: IntArray,
    engine_begin: IntArray,
    issue: IntArray,
    duration: IntArray,
    filled_by: IntArray,
    wait_begin: IntArray,
) -> tuple[IntArray, IntArray, IntArray]:
    """Runs each engine until a task waits for one that has not ended; the end of that one resumes it.

    Returns start, end (-1: never reached), and per engine the place in `task_order` where it stands.
    """
    tasks, engines = issue.shape[0], engine_begin.shape[0] - 1
    start = np.full(tasks, -1, np.int64)
    end = np.full(tasks, -1, np.int64)
    position = engine_begin[:-1].copy()
    previous_end = np.zeros(engines, np.int64)
    # engines that wait for a task form a list: `waiter` is its head, `following` links it
    waiter = np.full(tasks, -1, np.int64)
    following = np.full(engines, -1, np.int64)
    ready = np.arange(engines - 1, -1, -1)
    depth = engines
    while depth > 0:
        depth -= 1
        engine = ready[depth]
        running = True
        while running and position[engine] < engine_begin[engine + 1]:
            task = task_order[position[engine]]
            time = previous_end[engine] + issue[task]
            for row in range(wait_begin[task], wait_begin[task + 1]):
                source = filled_by[row]
                if source == FROM_START:
                    continue
                if source < 0 or end[source] < 0:
                    running = False
                    if source >= 0:
                        following[engine] = waiter[source]
                        waiter[source] = engine
                    break
                time = max(time, end[source] + 1)
            if not running:
                break
            start[task] = time
            end[task] = time + duration[task]
            previous_end[engine] = end[task]
            position[engine] += 1
            woken = waiter[task]
            while woken >= 0:
                ready[depth] = woken
                depth += 1
                woken = following[woken]
    return start, end, position
