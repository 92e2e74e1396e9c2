"""Which task fills which wait: counting semaphores resolved into plain precedences.

With one producing and one consuming engine a semaphore is a FIFO of tokens: the order of its signals and the order
of its waits are the programs' own, so the task whose signal completes a wait is known before anything runs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

#: In place of a task: the initial count is enough; no signal of the program is.
FROM_START = -1
NEVER = -2


def filling_tasks(waits: IntArray, signals: IntArray, initial: IntArray) -> IntArray:
    """The task whose signal completes each wait.

    Parameters
    ----------
    waits, signals : int64, shape (n, 3)
        Task, semaphore, amount (> 0). Tasks of one engine ascend in program order; each semaphore has one
        consuming and one producing engine.
    initial : int64, shape (semaphores,)
        Initial counts.

    Returns
    -------
    int64, shape (waits,): task, `FROM_START` or `NEVER`, in the order of `waits`.
    """
    result = np.full(len(waits), FROM_START, np.int64)
    order = _by_semaphore_and_task(waits)
    given = signals[_by_semaphore_and_task(signals)]
    # one search for all semaphores: each has a range of values of its own
    span = int(waits[:, 2].sum() + signals[:, 2].sum() + initial.sum()) + 1
    needed = _running(waits[order, 1], waits[order, 2]) - initial[waits[order, 1]]
    offered = _running(given[:, 1], given[:, 2])
    key = given[:, 1] * span + offered
    place = np.searchsorted(key, waits[order, 1] * span + needed)
    inside = place < len(given)
    inside[inside] = given[place[inside], 1] == waits[order, 1][inside]
    filled = np.full(len(waits), NEVER, np.int64)
    filled[inside] = given[place[inside], 0]
    result[order] = np.where(needed > 0, filled, FROM_START)
    return result


def _by_semaphore_and_task(rows: IntArray) -> IntArray:
    tasks = int(rows[:, 0].max(initial=0)) + 1
    return np.argsort(rows[:, 1] * tasks + rows[:, 0], kind="stable")


def _running(group: IntArray, amount: IntArray) -> IntArray:
    """Inclusive running sum of `amount` within each run of equal `group`."""
    total = np.cumsum(amount)
    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(group) else np.zeros(0, np.int64)
    before = np.repeat(total[first] - amount[first], np.diff(np.r_[first, len(group)]))
    return np.asarray(total - before, np.int64)
