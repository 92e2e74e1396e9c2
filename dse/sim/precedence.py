"""What the compiled levels share: tasks grouped by engine, when all engines have reported, who stands in a deadlock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from dse.core.errors import InvariantError
from dse.program.dependences import FROM_START, NEVER, filling_tasks
from dse.program.taskgraph import TaskGraph
from dse.sim.wellformed import deadlock

IntArray = npt.NDArray[np.int64]


@njit(cache=True)
def grouped(group: IntArray, groups: int) -> tuple[IntArray, IntArray]:
    """Rows sorted by group, stably, and where each group begins: int64, shapes (rows,), (groups + 1,)."""
    begin = np.zeros(groups + 1, np.int64)
    for value in group:
        begin[value + 1] += 1
    for number in range(groups):
        begin[number + 1] += begin[number]
    place, order = begin[:-1].copy(), np.empty(group.shape[0], np.int64)
    for row in range(group.shape[0]):
        order[place[group[row]]] = row
        place[group[row]] += 1
    return order, begin


def waits_by_task(graph: TaskGraph) -> tuple[IntArray, IntArray]:
    """Which task fills each wait, the waits by task.

    Returns
    -------
    int64, shape (waits,): the filling task, `FROM_START` or `NEVER`; int64, shape (tasks + 1,): where each task's
    waits begin.

    Source: equal to `dse.program.dependences.filling_tasks`, which does it without compiled code
    (tests/property/test_sharing.py).
    """
    waits, signals = (np.ascontiguousarray(table, np.int64) for table in (graph.waits, graph.signals))
    return _filling(waits, signals, np.ascontiguousarray(graph.initial, np.int64), graph.tasks)


@njit(cache=True)
def _filling(waits: IntArray, signals: IntArray, initial: IntArray, tasks: int) -> tuple[IntArray, IntArray]:
    by_task, wait_begin = grouped(waits[:, 0], tasks)
    waits = waits[by_task]
    signals = signals[grouped(signals[:, 0], tasks)[0]]
    wait_order, first_wait = grouped(waits[:, 1], initial.shape[0])
    signal_order, first_signal = grouped(signals[:, 1], initial.shape[0])
    filled = np.empty(waits.shape[0], np.int64)
    for semaphore in range(initial.shape[0]):
        offered, needed, source = initial[semaphore], 0, FROM_START
        given, end = first_signal[semaphore], first_signal[semaphore + 1]
        for row in wait_order[first_wait[semaphore] : first_wait[semaphore + 1]]:
            needed += waits[row, 2]
            while offered < needed and given < end:
                offered += signals[signal_order[given], 2]
                source = signals[signal_order[given], 0]
                given += 1
            filled[row] = source if offered >= needed else NEVER
    return filled, wait_begin


def finish_cycle(graph: TaskGraph, end: IntArray, task_order: IntArray, engine_begin: IntArray) -> int:
    """The last engine's report: its last task's end (or cycle 0) plus its `final_cycles`."""
    used = engine_begin[1:] > engine_begin[:-1]
    last = np.zeros(len(graph.engines), np.int64)
    last[used] = end[task_order[engine_begin[1:][used] - 1]]
    return int((last + graph.final_cycles).max(initial=0))


def standing_error(graph: TaskGraph, end: IntArray, tasks: Sequence[int]) -> InvariantError:
    """The error of a deadlock.

    Parameters
    ----------
    end : int64, shape (tasks,)
        -1 for tasks that did not end.
    tasks
        The first task that could not start of each engine that stands.
    """
    filled_by = filling_tasks(graph.waits, graph.signals, graph.initial)
    stuck = []
    for task in tasks:
        rows = np.flatnonzero(graph.waits[:, 0] == task)
        missing = [r for r in rows if filled_by[r] != FROM_START and (filled_by[r] < 0 or end[filled_by[r]] < 0)]
        stuck.append((task, [int(graph.waits[r, 1]) for r in missing]))
    return deadlock(graph, stuck)
