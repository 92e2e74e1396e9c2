"""The task graph of a sequence of kernels: launches on a front end, waves of thread blocks on every SM."""

from __future__ import annotations

import numpy as np

from accelerators.gpu.estimate import GRID
from accelerators.gpu.gemm_kernel import FloatArray, IntArray
from accelerators.gpu.waves import blocks_by_sm
from dse.program.taskgraph import TaskGraph, Timeline

#: A launch and the report of the SMs are each seen one cycle later, so that no kernel has a shorter launch.
LEAST_LAUNCH_CYCLES = 3
KINDS = ("launch", "full waves", "last wave", "kernel", "done")
_OCCUPANCY, _BLOCKS = GRID.index("occupancy"), GRID.index("blocks")


def wave_tasks(cycles: IntArray, sm_cycles: IntArray, grid: FloatArray, sms: int) -> TaskGraph:
    """Kernels one after the other: a launch, then every SM with thread blocks works on its share of them.

    Parameters
    ----------
    cycles, sm_cycles
        int64 (kernels,): cycles of each kernel, and those of them in which its busiest SM works.
    grid
        float64 (kernels, 6), columns of `GRID`; a kernel without thread blocks of its own keeps all SMs busy.
    sms
        Streaming multiprocessors, an engine each behind engine 0, the front end.

    All full waves of an SM are one task, its last wave another.
    """
    rows: list[IntArray] = []  # engine, duration, layer, kind
    waits: list[IntArray] = []
    signals: list[IntArray] = []
    base, active = 0, np.zeros(0, np.int64)
    for layer, (whole, busy) in enumerate(zip(cycles.tolist(), sm_cycles.tolist(), strict=True)):
        waits.append(_rows(np.full(active.size, base), sms + active))
        full, last = _shares(busy, grid[layer], sms)
        kept = np.flatnonzero(full + last)
        signals.append(_rows(np.full(kept.size, base), kept))
        rows.append(np.array([[0, whole - busy - 2, layer, 0]], np.int64))
        base += 1
        for share, kind in ((full, 1), (last, 2 if grid[layer, _BLOCKS] else 3)):
            mine = np.flatnonzero(share)
            tasks = base + np.arange(mine.size)
            columns = (1 + mine, share[mine], np.full(mine.size, layer), np.full(mine.size, kind))
            rows.append(np.stack(columns, axis=1).astype(np.int64))
            first = np.ones(mine.size, bool) if kind == 1 else full[mine] == 0
            ends = last[mine] == 0 if kind == 1 else np.ones(mine.size, bool)
            waits.append(_rows(tasks[first], mine[first]))
            signals.append(_rows(tasks[ends], sms + mine[ends]))
            base += mine.size
        active = kept
    waits.append(_rows(np.full(active.size, base), sms + active))
    rows.append(np.array([[0, 0, len(cycles) - 1, KINDS.index("done")]], np.int64))
    engine, duration, layer_of, kind_of = np.concatenate(rows).T
    zeros = np.zeros(engine.size, np.int64)
    return TaskGraph(
        engines=("front end", *(f"SM {sm}" for sm in range(sms))),
        engine=engine,
        issue_cycles=zeros,
        duration_cycles=duration,
        waits=np.concatenate(waits),
        signals=np.concatenate(signals),
        initial=np.zeros(2 * sms, np.int64),
        layer=layer_of,
        kind=kind_of,
        kinds=KINDS,
        resource=zeros - 1,
        service_cycles=zeros,
        resources=(),
        final_cycles=np.zeros(1 + sms, np.int64),
    )


def kernel_begins(timeline: Timeline, kernels: int) -> IntArray:
    """Cycle at which each kernel's launch starts, and the end of the last: int64 (kernels + 1,)."""
    graph = timeline.graph
    launches = np.flatnonzero((graph.engine == 0) & (graph.kind == 0))
    assert launches.size == kernels
    return np.concatenate([timeline.start[launches], [timeline.total_cycles]]).astype(np.int64)


def _shares(busy: int, grid: FloatArray, sms: int) -> tuple[IntArray, IntArray]:
    """Cycles of every SM's full waves and of its last one, so that the busiest SM works `busy` cycles."""
    blocks, slots = int(grid[_BLOCKS]), int(grid[_OCCUPANCY])
    if not blocks:
        return np.zeros(sms, np.int64), np.full(sms, busy, np.int64)
    mine = blocks_by_sm(blocks, sms, slots)
    most = int(mine.max())
    ends = busy * mine // most
    full = np.full(sms, busy * (blocks // (sms * slots) * slots) // most, np.int64)
    return full, ends - full


def _rows(tasks: IntArray, semaphores: IntArray) -> IntArray:
    """Rows of waits or signals, one unit each: int64 (n, 3)."""
    columns = (tasks, semaphores, np.ones(len(tasks), np.int64))
    return np.stack([np.asarray(column, np.int64) for column in columns], axis=1)
