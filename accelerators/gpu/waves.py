"""Waves of thread blocks over SMs: event by event for blocks of any size, in closed form when they are alike.

An SM works on up to `slots` thread blocks at once and shares its time evenly among them; a free slot takes the next
block of the grid, on the SM with the fewest residents.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from accelerators.gpu.gemm_kernel import IntArray


def simulate_waves(work: Sequence[int], sms: int, slots: int) -> IntArray:
    """Run a grid event by event.

    Parameters
    ----------
    work
        Cycles that each thread block would need with an SM to itself, in the order they are dealt; > 0.
    sms, slots
        SMs, and thread blocks that one of them holds at once.

    Returns
    -------
    int64, shape (sms,): the cycle at which each SM is done; 0 where it got nothing.
    """
    left: list[list[int]] = [[] for _ in range(sms)]
    since, done = [0] * sms, np.zeros(sms, np.int64)
    queue = iter(work)
    free = [(0, sm) for sm in range(sms)]
    events: list[tuple[int, int]] = []
    now, waiting = 0, next(queue, None)
    while True:
        while waiting is not None and free:
            residents, sm = heapq.heappop(free)
            left[sm].append(waiting)
            if residents + 1 < slots:
                heapq.heappush(free, (residents + 1, sm))
            waiting = next(queue, None)
        for sm in range(sms):
            if left[sm] and since[sm] == now and not any(entry[1] == sm for entry in events):
                heapq.heappush(events, (now + min(left[sm]) * len(left[sm]), sm))
        if not events:
            return done
        now = events[0][0]
        while events and events[0][0] == now:
            _, sm = heapq.heappop(events)
            progress = (now - since[sm]) // len(left[sm])
            left[sm] = [rest - progress for rest in left[sm] if rest > progress]
            since[sm], done[sm] = now, now
        free = [(len(left[sm]), sm) for sm in range(sms) if len(left[sm]) < slots and since[sm] == now]
        heapq.heapify(free)


def blocks_by_sm(blocks: int, sms: int, slots: int) -> IntArray:
    """Thread blocks that each SM executes when all are alike: int64, shape (sms,)."""
    rounds, rest = divmod(blocks, sms * slots)
    return rounds * slots + rest // sms + (np.arange(sms) < rest % sms).astype(np.int64)


def equal_waves(blocks: int, work: int, sms: int, slots: int) -> IntArray:
    """`simulate_waves` of `blocks` blocks of equal work, in closed form.

    Source: equal, SM by SM, to the event loop (tests/unit/gpu/test_gpu_waves.py).
    """
    return blocks_by_sm(blocks, sms, slots) * work


def split_k_work(m: int, n: int, k: int, batch: int, tile: tuple[int, int, int], split: int) -> IntArray:
    """Work of each thread block of a GEMM, in multiplications over `tile` rows x columns: int64 (blocks,).

    Parts of the reduction are cut in whole steps of the tile's depth, so the last one may be shorter.
    """
    rows, columns, depth = tile
    edges = split_edges(k, depth, split)
    grid = -(-m // rows) * -(-n // columns) * batch
    steps = np.array([-(-(end - begin) // depth) * depth for begin, end in edges], np.int64)
    return np.tile(steps[steps > 0], grid)


def split_edges(k: int, depth: int, split: int) -> list[tuple[int, int]]:
    """Begin and end of every split-K part: as equal as whole steps of the depth allow, empty parts left out."""
    steps = -(-k // depth)
    each = -(-steps // split)
    return [(first * depth, min(k, (first + each) * depth)) for first in range(0, steps, each)]
