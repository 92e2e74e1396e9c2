"""Cycles of the element unit: a pipeline played group by group gives the closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import small_machine

from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import DESTINATIONS, SOURCES, Function
from dse.program.tile.program import Machine
from dse.program.tile.timing_element import (
    DIVIDE_CYCLES,
    LOOK_UP_CYCLES,
    ROOT_CYCLES,
    element_cycles,
    stream_cycles,
)

_ARITHMETIC = 12


def machine_of(rng: np.random.Generator) -> Machine:
    return small_machine(rows=int(rng.integers(1, 9)), columns=4, lanes=int(rng.choice([1, 2, 4])))


def played(groups: int, reads: list[MemoryId], depth: int) -> int:
    """Cycles until the last of some groups is written: a memory answers one read a cycle, a group computes when its
    last word has come, `depth` cycles behind that read the result is written."""
    cycle = done = 0
    for _ in range(groups):
        waiting = list(reads)
        while waiting:
            # in a cycle one read of every memory that still has some
            for memory in set(waiting):
                waiting.remove(memory)
            done = cycle + depth
            cycle += 1
    return done


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_element_takes_as_long_as_its_groups_played_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine = machine_of(rng)
    function = Function(int(rng.integers(0, 8)))
    reads_old = function in (Function.MULADD, Function.MULSUB)
    into = MemoryId(int(rng.choice([m for m in DESTINATIONS if m != MemoryId.ACTIVATION or not reads_old])))
    a, b = (MemoryId(int(v)) for v in rng.choice(SOURCES, 2))
    blocks, rows, look_up = int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.integers(0, 2))
    d = Descriptor(Opcode.ELEMENT, {
        "n_blocks": blocks, "rows_count": rows, "function": function, "a_memory": a, "b_memory": b,
        "dst_memory": into, "look_up": look_up,
    })  # fmt: skip
    lanes = math.gcd(machine.vector_lanes, machine.rows) if into == MemoryId.ACTIVATION else machine.vector_lanes
    reads = [a] + ([b] if function != Function.COPY else []) + ([into] if reads_old else [])
    # 1 to start, 3 from read to lanes, 1 to the port
    depth = 5 + _ARITHMETIC + (LOOK_UP_CYCLES if look_up else 0)
    assert element_cycles(d, machine) == played(blocks * rows * 4 // lanes, reads, depth)


@pytest.mark.parametrize(("mode", "stages"), [("q31", 9), ("ort", 15)])
def test_scale_takes_a_group_a_cycle_behind_its_requantizer(mode: str, stages: int) -> None:
    machine = small_machine(rows=4, lanes=2, requantize=mode)
    for blocks, rows, look_up in ((1, 1, 0), (2, 3, 1), (4, 5, 0)):
        d = Descriptor(Opcode.SCALE, {"n_blocks": blocks, "rows_count": rows, "dst_memory": 6, "look_up": look_up})
        groups = blocks * rows * 2
        assert element_cycles(d, machine) == 5 + stages + LOOK_UP_CYCLES * look_up + groups - 1


def test_rows_of_normalize_follow_each_other() -> None:
    machine = small_machine(rows=4, lanes=2)
    values = {"n_blocks": 3, "channels": 12, "a_memory": MemoryId.RESIDUAL, "dst_memory": MemoryId.OUTPUT}
    for function, serial in ((0, DIVIDE_CYCLES), (1, DIVIDE_CYCLES + ROOT_CYCLES)):
        one, four = (
            element_cycles(Descriptor(Opcode.NORMALIZE, {**values, "function": function, "rows_count": rows}), machine)
            for rows in (1, 4)
        )
        assert four - 1 == 4 * (one - 1)
        # every pass takes a cycle a group, and the serial arithmetic waits for the last of them
        assert one > serial + (3 if function == 0 else 2) * 6


def test_a_pool_reads_a_word_a_cycle() -> None:
    machine = small_machine(rows=4, lanes=4)
    base = {"n_blocks": 1, "height": 2, "width": 2, "a_memory": MemoryId.OUTPUT, "dst_memory": MemoryId.STATE}
    cycles = [
        element_cycles(Descriptor(Opcode.POOL, {**base, "kernel_rows": side, "kernel_columns": side}), machine)
        for side in (1, 2, 3)
    ]
    assert [b - a for a, b in itertools.pairwise(cycles)] == [3 * 4, 5 * 4]


def test_streams_need_at_least_one_of_everything() -> None:
    np.testing.assert_array_equal(stream_cycles([1, 5], 3, [10, 11]), [10, 23])
    with pytest.raises(ValueError, match="at least 1"):
        stream_cycles(0, 1, 1)
    with pytest.raises(ValueError, match="MATMUL is no opcode"):
        element_cycles(Descriptor(Opcode.MATMUL), small_machine())
