"""Level B: compiled event loop for graphs whose engines share resources; equal to level C, task by task.

Semaphores are resolved into precedences beforehand (`dse.program.dependences`), so engines run ahead on their own
until a task has transfers; only these go through the event queue. An event is the start of such a task or the end
of a piece of service. All events of a cycle are taken before any resource of that cycle chooses: service lasts a
cycle or more, so nothing that a choice leads to falls into its own cycle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from dse.program.dependences import FROM_START
from dse.program.taskgraph import POLICIES, TaskGraph, Timeline
from dse.sim.precedence import finish_cycle, grouped, standing_error, waits_by_task
from dse.sim.wellformed import check_graph

IntArray = npt.NDArray[np.int64]

_FIFO, _ROUND_ROBIN = POLICIES.index("fifo"), POLICIES.index("round_robin")
#: Columns of the table of rules.
_POLICY, _CHUNK, _WINDOW, _SWITCH = range(4)


def simulate_b(graph: TaskGraph) -> Timeline:
    """Times of every task of a graph, in cycles, shared resources included.

    Returns
    -------
    Timeline of level "B", with the service of every shared resource.

    Raises
    ------
    InvariantError: the graph is malformed or deadlocks (the standing tasks are named).

    Source: equal to the independent level C in every start, end and piece of service (tests/property/test_sharing.py).
    """
    check_graph(graph)
    task_order, engine_begin = grouped(graph.engine, len(graph.engines))
    filled_by, wait_begin = waits_by_task(graph)
    transfers = graph.all_transfers()
    rules = _rules(graph, int(transfers[:, 2].max(initial=0)) + 1)
    pieces = int((-(-transfers[:, 2] // rules[transfers[:, 1], _CHUNK])).sum())
    start, end, position, served = _run(
        task_order,
        engine_begin,
        np.ascontiguousarray(graph.issue_cycles, np.int64),
        np.ascontiguousarray(graph.duration_cycles, np.int64),
        filled_by,
        wait_begin,
        transfers,
        grouped(transfers[:, 0], graph.tasks)[1],
        rules,
        pieces,
    )
    if (position < engine_begin[1:]).any():
        standing = [int(task_order[p]) for p in position[position < engine_begin[1:]]]
        raise standing_error(graph, end, standing)
    served = served[grouped(served[:, 0], len(graph.resources))[0]]
    return Timeline(graph, start, end, finish_cycle(graph, end, task_order, engine_begin), "B", service=served)


def _rules(graph: TaskGraph, longest: int) -> IntArray:
    """Arbitrations as a table: int64, shape (resources, 4); "all" and "in one piece" as numbers large enough."""
    engines = len(graph.engines)
    rules = [graph.rule(number) for number in range(len(graph.resources))]
    rows = [(POLICIES.index(r.policy), r.chunk_cycles or longest, r.window or engines, r.switch_cycles) for r in rules]
    return np.array(rows, np.int64).reshape(-1, 4)


@njit(cache=True)
def _push(heap: IntArray, size: int, key: int) -> int:
    """Adds a key to a binary heap in `heap[:size]`; returns the new size."""
    place = size
    while place > 0 and heap[(place - 1) >> 1] > key:
        heap[place] = heap[(place - 1) >> 1]
        place = (place - 1) >> 1
    heap[place] = key
    return size + 1


@njit(cache=True)
def _pop(heap: IntArray, size: int) -> int:
    """Drops the least key of a binary heap; returns the new size."""
    size -= 1
    key = heap[size]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key
    return size


@njit(cache=True)
def _join(resource: int, engine: int, now: int, queue: IntArray, queued: IntArray, since: IntArray) -> None:
    """Puts an engine's request into a resource's queue, which is kept oldest first."""
    place = queued[resource]
    while place > 0 and queue[resource, place - 1] > engine and since[resource, queue[resource, place - 1]] == now:
        queue[resource, place] = queue[resource, place - 1]
        place -= 1
    queue[resource, place] = engine
    since[resource, engine] = now
    queued[resource] += 1


@njit(cache=True)
def _take(resource: int, queue: IntArray, queued: IntArray, rules: IntArray, last_engine: int) -> int:
    """Removes the request to serve next from a resource's queue; returns its engine."""
    policy, chosen = rules[resource, _POLICY], 0
    if policy != _FIFO:
        best, engines = np.int64(-1), queue.shape[1]
        for place in range(min(queued[resource], rules[resource, _WINDOW])):
            rank = queue[resource, place]
            if policy == _ROUND_ROBIN:
                rank -= last_engine + 1
                rank += engines if rank < 0 else 0
            if best < 0 or rank < best:
                best, chosen = rank, place
    engine = int(queue[resource, chosen])
    queued[resource] -= 1
    for place in range(chosen, queued[resource]):
        queue[resource, place] = queue[resource, place + 1]
    return engine


@njit(cache=True)
def _run(
    task_order: IntArray,
    engine_begin: IntArray,
    issue: IntArray,
    duration: IntArray,
    filled_by: IntArray,
    wait_begin: IntArray,
    transfers: IntArray,
    transfer_begin: IntArray,
    rules: IntArray,
    pieces: int,
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Plays all events. One function, because calls with many arrays cost more than the events themselves.

    Returns start, end (-1: never reached), per engine the place in `task_order` where it stands, rows of service.
    """
    tasks, engines, resources = issue.shape[0], engine_begin.shape[0] - 1, rules.shape[0]
    start, end = np.full(tasks, -1, np.int64), np.full(tasks, -1, np.int64)
    position, previous_end = engine_begin[:-1].copy(), np.zeros(engines, np.int64)
    # engines that wait for a task form a list: `waiter` is its head, `following` links it
    waiter, following = np.full(tasks, -1, np.int64), np.full(engines, -1, np.int64)
    ready, depth = np.arange(engines - 1, -1, -1), engines
    open_transfers = np.zeros(engines, np.int64)
    # requests: engines in `queue[resource, :queued[resource]]`, oldest first; since when, cycles left
    queue, queued = np.zeros((resources, engines), np.int64), np.zeros(resources, np.int64)
    since, left = np.zeros((resources, engines), np.int64), np.zeros((resources, engines), np.int64)
    serving, piece = np.full(resources, -1, np.int64), np.zeros(resources, np.int64)
    last_engine, last_row = np.full(resources, -1, np.int64), np.full(resources, -1, np.int64)
    served, rows = np.zeros((pieces, 4), np.int64), 0
    # events as time << bits | actor: engine (its task starts) or engines + resource (its piece ends)
    bits = 0
    while (1 << bits) < engines + resources:
        bits += 1
    heap, size, now = np.zeros(engines + resources + 1, np.int64), 0, np.int64(0)
    while True:
        while depth > 0:  # engines run ahead until they wait, request transfers or are at their end
            depth -= 1
            engine = ready[depth]
            while position[engine] < engine_begin[engine + 1]:
                task = task_order[position[engine]]
                if end[task] < 0:
                    time = previous_end[engine] + issue[task]
                    blocked = False
                    for row in range(wait_begin[task], wait_begin[task + 1]):
                        source = filled_by[row]
                        if source == FROM_START:
                            continue
                        if source < 0 or end[source] < 0:
                            blocked = True
                            if source >= 0:
                                following[engine], waiter[source] = waiter[source], engine
                            break
                        time = max(time, end[source] + 1)
                    if blocked:
                        break
                    start[task] = time
                    if transfer_begin[task + 1] > transfer_begin[task]:
                        size = _push(heap, size, (time << bits) | engine)
                        break
                    end[task] = time + duration[task]
                previous_end[engine] = end[task]
                position[engine] += 1
                woken = waiter[task]
                while woken >= 0:
                    ready[depth] = woken
                    depth += 1
                    woken = following[woken]
        # behind the last event of a cycle the resources choose
        settled = size == 0 or (heap[0] >> bits) > now
        for resource in range(resources if settled else 0):
            if serving[resource] >= 0 or queued[resource] == 0:
                continue
            engine = _take(resource, queue, queued, rules, last_engine[resource])
            chunk, begin = rules[resource, _CHUNK], now
            if last_engine[resource] >= 0 and last_engine[resource] != engine:
                begin += rules[resource, _SWITCH]
            piece[resource] = min(left[resource, engine], chunk)
            if queued[resource] == 0 and left[resource, engine] > chunk:
                # alone until the next event: the pieces that end before it follow each other, so they are one
                alone = True
                for other in range(resource + 1, resources):
                    alone = alone and (serving[other] >= 0 or queued[other] == 0)
                if alone:
                    ends_before = ((heap[0] >> bits) - 1 - begin) // chunk if size > 0 else left[resource, engine]
                    piece[resource] = min(left[resource, engine], max(1, 1 + ends_before) * chunk)
            finish = begin + piece[resource]
            serving[resource], last_engine[resource] = engine, engine
            task, row = task_order[position[engine]], last_row[resource]
            if row >= 0 and served[row, 1] == task and served[row, 3] == now:
                served[row, 3] = finish
            else:
                served[rows, 0], served[rows, 1], served[rows, 2], served[rows, 3] = resource, task, now, finish
                last_row[resource] = rows
                rows += 1
            size = _push(heap, size, (finish << bits) | (engines + resource))
        if size == 0:
            return start, end, position, served[:rows]
        now, actor = heap[0] >> bits, heap[0] & ((1 << bits) - 1)
        size = _pop(heap, size)
        if actor < engines:
            task = task_order[position[actor]]
            open_transfers[actor] = transfer_begin[task + 1] - transfer_begin[task]
            for row in range(transfer_begin[task], transfer_begin[task + 1]):
                resource = transfers[row, 1]
                left[resource, actor] = transfers[row, 2]
                _join(resource, actor, now, queue, queued, since)
        else:
            resource = actor - engines
            engine = serving[resource]
            serving[resource] = -1
            left[resource, engine] -= piece[resource]
            if left[resource, engine] > 0:
                _join(resource, engine, now, queue, queued, since)
            else:
                open_transfers[engine] -= 1
                if open_transfers[engine] == 0:
                    task = task_order[position[engine]]
                    longest = 0
                    for row in range(transfer_begin[task], transfer_begin[task + 1]):
                        longest = max(longest, transfers[row, 2])
                    end[task] = now + duration[task] - longest
                    ready[0], depth = engine, 1
