"""Closed-form timing of the element unit: cycles of SCALE, ELEMENT, POOL and NORMALIZE from `start` to `done`.

A group of `vector_lanes` lanes passes a pipeline; groups follow each other at the rate of the busiest read port:
every memory is read and written once a cycle. Into ACTIVATION, whose words have `rows` bytes, a group goes in parts,
of gcd(vector_lanes, rows) lanes so that each falls into one word, and is read again for each. Serial divisions and
square roots take a bit a cycle.

SCALE, ELEMENT and POOL equal the emitted RTL, descriptor by descriptor (tests/rtl/test_element_unit_rtl.py). NORMALIZE
has no RTL yet: its constants are its stages as specified (`dse.program.tile.isa_element`).
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from dse.program.tile.footprint_element import destination_rows, element_accesses, looked_up
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import RECIPROCAL_BITS, ROOT_BITS, Normalize
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
#: Subtract zero points, two multiplications in a row (three stages each), sum, shift in two steps, saturate, add the
#: zero point.
ARITHMETIC_CYCLES = 1 + 3 + 3 + 1 + 2 + 1 + 1
#: Saturation for the destination; it is written in the cycle behind.
PUT_CYCLES = 1
#: From an index to its table entry: a two-cycle read, then saturation.
LOOK_UP_CYCLES = 3
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
    """Cycles from one group to the next: reads of the busiest memory."""
    used: Counter[MemoryId] = Counter()
    for access in element_accesses(d, machine):
        # parameters come once a block into registers beside, tables have a copy in every lane
        if access.memory is not None and access.memory not in (MemoryId.PARAMETER, MemoryId.TABLE):
            used[access.memory] += access.reads
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
        latency = VECTOR_START_CYCLES + FRONT_CYCLES + REQUANTIZE_CYCLES[machine.requantize] + PUT_CYCLES + look_up
        return int(stream_cycles(groups, 1, latency))
    if d.op == Opcode.ELEMENT:
        rate = port_cycles(d, machine)
        # a group computes when the last of its words has come
        latency = VECTOR_START_CYCLES + (rate - 1) + FRONT_CYCLES + ARITHMETIC_CYCLES + PUT_CYCLES + look_up
        return int(stream_cycles(groups, rate, latency))
    if d.op == Opcode.POOL:
        window = d["kernel_rows"] * d["kernel_columns"]
        latency = VECTOR_START_CYCLES + (window - 1) + FRONT_CYCLES + ARITHMETIC_CYCLES + PUT_CYCLES
        return int(stream_cycles(groups, window, latency))
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
