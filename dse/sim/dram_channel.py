"""A DRAM part as the channel of a task graph: its service times in place of the port's fixed bandwidth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from dse.core.errors import UsageError
from dse.program.taskgraph import Arbitration, TaskGraph
from dse.sim.dram_parts import DramPart
from dse.sim.dram_service import stream_cycles_per_burst, turnaround_ns


def on_dram(graph: TaskGraph, part: DramPart, *, port_bytes: int, clock_mhz: float, run_bytes: int | None = None,
            writes: Collection[str] = ("memory_write",)) -> TaskGraph:  # fmt: skip
    """The graph with every transfer served by a channel of `part`.

    A transfer of s port cycles moves s * `port_bytes` bytes. It occupies the channel for the time that the part takes
    for them; the task grows longer when that is more than the port needs, and stays as it was otherwise.

    Parameters
    ----------
    port_bytes, clock_mhz
        Bytes that one service cycle stands for, and the clock of the graph's cycles.
    run_bytes
        Contiguous bytes of a transfer; None: all of it.
    writes
        Names of the resources that write; the others read.

    Raises
    ------
    UsageError: the port or the clock is not positive.
    """
    if port_bytes < 1 or clock_mhz <= 0:
        raise UsageError(f"a port of {port_bytes} bytes at {clock_mhz:g} MHz; both must be positive")
    if len(graph.transfers):
        raise UsageError("a graph whose tasks use several resources at once states its service times itself")
    service = graph.service_cycles.copy()
    for number, name in enumerate(graph.resources):
        mine = (graph.resource == number) & (service > 0)
        spacing = stream_cycles_per_burst(part, run_bytes, write=name in writes)
        bursts = -(-service[mine] * port_bytes // part.burst_bytes)
        nanoseconds = bursts * spacing * part.clock_ns
        service[mine] = np.ceil(nanoseconds * clock_mhz * 1e-3 - 1e-9).astype(np.int64)
    longer = np.maximum(service, graph.service_cycles) - graph.service_cycles
    return replace(graph, service_cycles=service, duration_cycles=graph.duration_cycles + longer)


def dram_arbitration(part: DramPart, clock_mhz: float, *, chunk_bytes: int = 4096) -> Arbitration:
    """Oldest request first in pieces of `chunk_bytes`; another engine's piece costs a row miss in the same bank.

    Raises
    ------
    UsageError: the clock or the piece is not positive.
    """
    if clock_mhz <= 0 or chunk_bytes < 1:
        raise UsageError(f"pieces of {chunk_bytes} bytes at {clock_mhz:g} MHz; both must be positive")
    cycles = chunk_bytes / part.burst_bytes * stream_cycles_per_burst(part) * part.clock_ns * clock_mhz * 1e-3
    switch = round(turnaround_ns(part) * clock_mhz * 1e-3)
    return Arbitration("fifo", chunk_cycles=max(1, round(cycles)), switch_cycles=switch)
