"""Closed-form timing of the element unit: cycles of SCALE, ELEMENT, POOL and NORMALIZE from `start` to `done`.

A group of `vector_lanes` lanes passes a pipeline; groups follow each other at the rate of the busiest memory port.
STATE, OUTPUT and RESIDUAL have one port, an accumulator half one for reads and one for writes. Into ACTIVATION, whose
words have `rows` bytes, a group is as wide as the largest power of lanes that always falls into one word:
gcd(vector_lanes, rows). Serial divisions and square roots take a bit a cycle.

The constants are the stages of the unit as it is specified (`dse.program.tile.isa_element`); there is no RTL of it
yet to hold them to.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from dse.program.tile.footprint_element import destination_rows, element_accesses, looked_up
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import RECIPROCAL_BITS, ROOT_BITS, Normalize, Pool
from dse.program.tile.program import Machine
from dse.program.tile.timing_vector import (
    REQUANTIZE_CYCLES,
    VECTOR_READ_CYCLES,
    VECTOR_SELECT_CYCLES,
    VECTOR_START_CYCLES,
)

IntArray = npt.NDArray[np.int64]

#: From a scratchpad read to operands in their lanes.
FRONT_CYCLES = VECTOR_READ_CYCLES + VECTOR_SELECT_CYCLES
#: Subtract zero points, two multiplications in a row (three stages each), round, add, saturate: one stage each.
ARITHMETIC_CYCLES = 1 + 3 + 3 + 1 + 1 + 1
#: From an index to its table entry: address and a two-cycle read, then saturation.
LOOK_UP_CYCLES = 4
#: Adding up, or the maximum, over the lanes of a group in a tree, and the register behind it.
REDUCE_CYCLES = 4
#: Serial quotient (the multiplier's 24 bits and those it is widened by) and serial square root of 64 bits and the
#: root's fraction, a result bit a cycle.
DIVIDE_CYCLES = 24 + RECIPROCAL_BITS + ROOT_BITS
ROOT_CYCLES = 32 + ROOT_BITS


def stream_cycles(groups: npt.ArrayLike, per_group: npt.ArrayLike, latency: npt.ArrayLike) -> IntArray:
    """Cycles of descriptors whose groups follow each other through one pipeline.

    Parameters
    ----------
    groups, per_group, latency : integers, shapes that broadcast
        Groups of lanes, cycles from one to the next, and cycles from `start` to the write of the first; >= 1.

    Returns
    -------
    int64, the broadcast shape: cycles.

    Raises
    ------
    ValueError: a number is below 1.
    """
    count, rate, first = (np.asarray(value, np.int64) for value in (groups, per_group, latency))
    if min(int(value.min(initial=1)) for value in (count, rate, first)) < 1:
        raise ValueError("groups, cycles a group and latency of a vector descriptor are at least 1")
    return np.asarray((count - 1) * rate + first, np.int64)


def written_lanes(into: MemoryId, machine: Machine) -> int:
    """Lanes that a cycle writes into a memory."""
    return math.gcd(machine.vector_lanes, machine.rows) if into == MemoryId.ACTIVATION else machine.vector_lanes


def port_cycles(d: Descriptor, machine: Machine) -> int:
    """Cycles from one group to the next: accesses of the busiest memory port."""
    used: Counter[MemoryId] = Counter()
    for access in element_accesses(d, machine):
        # parameters come once a block into registers beside, tables have a copy in every lane
        if access.memory is None or access.memory in (MemoryId.PARAMETER, MemoryId.TABLE):
            continue
        if access.memory == MemoryId.ACCUMULATOR:
            used[access.memory] += access.reads  # writes have a port of their own
        else:
            used[access.memory] += access.reads + access.writes
    return max(1, *used.values())


def element_cycles(d: Descriptor, machine: Machine) -> int:
    """Cycles of one descriptor of the element unit.

    Raises
    ------
    ValueError: another opcode, or a count below 1.
    """
    into = MemoryId(d["dst_memory"])
    rows = destination_rows(d)
    groups = d["n_blocks"] * rows * (machine.columns // written_lanes(into, machine))
    look_up = LOOK_UP_CYCLES if looked_up(d) else 0
    if d.op == Opcode.SCALE:
        latency = VECTOR_START_CYCLES + FRONT_CYCLES + REQUANTIZE_CYCLES[machine.requantize] + look_up
        return int(stream_cycles(groups, 1, latency))
    if d.op == Opcode.ELEMENT:
        latency = VECTOR_START_CYCLES + FRONT_CYCLES + ARITHMETIC_CYCLES + look_up
        return int(stream_cycles(groups, port_cycles(d, machine), latency))
    if d.op == Opcode.POOL:
        window = d["kernel_rows"] * d["kernel_columns"]
        behind = ARITHMETIC_CYCLES if d["function"] == Pool.AVERAGE else 1
        # the group's reads, one a cycle, and its write where both use one port
        shared = d["a_memory"] == into and into != MemoryId.ACCUMULATOR
        latency = VECTOR_START_CYCLES + FRONT_CYCLES + window - 1 + behind
        return int(stream_cycles(groups, window + shared, latency))
    if d.op == Opcode.NORMALIZE:
        return _normalize_cycles(d, machine, into)
    raise ValueError(f"{d.op.name} is no opcode of the element unit")


def _normalize_cycles(d: Descriptor, machine: Machine, into: MemoryId) -> int:
    """Row by row: a pass for each reduction, the serial arithmetic, and the pass that writes."""
    read = d["n_blocks"] * (machine.columns // machine.vector_lanes)
    written = d["n_blocks"] * (machine.columns // written_lanes(into, machine)) * port_cycles(d, machine)
    if d["function"] == Normalize.SOFTMAX:
        largest = read + FRONT_CYCLES + REDUCE_CYCLES
        total = read + FRONT_CYCLES + LOOK_UP_CYCLES + REDUCE_CYCLES
        out = written + FRONT_CYCLES + LOOK_UP_CYCLES + ARITHMETIC_CYCLES
        row = largest + total + DIVIDE_CYCLES + out
    else:
        sums = read + FRONT_CYCLES + ARITHMETIC_CYCLES + REDUCE_CYCLES
        out = written + FRONT_CYCLES + ARITHMETIC_CYCLES
        row = sums + ROOT_CYCLES + DIVIDE_CYCLES + out
    return VECTOR_START_CYCLES + d["rows_count"] * row
