"""Unrolled loops equal a walk through the queue, addresses equal the formula of the instruction set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import HALT, executed, loop, random_descriptor, slow_address, small_machine

from dse.program.tile import expand as expansion
from dse.program.tile.errors import TileProgramError
from dse.program.tile.expand import effective, expand, operands
from dse.program.tile.isa import Descriptor, MemoryId, Opcode

TASKS = [Opcode.SYNC, Opcode.LOAD, Opcode.STORE, Opcode.MATMUL, Opcode.VECTOR]


def bodies(levels: int) -> st.SearchStrategy[tuple[Descriptor, ...]]:
    """Loop bodies nested at most `levels` deep, of plain SYNCs."""
    plain = st.just((Descriptor(Opcode.SYNC),))
    if levels == 0:
        return st.lists(plain, min_size=1, max_size=3).map(lambda parts: sum(parts, ()))
    nested = st.builds(lambda count, body: loop(count, *body), st.integers(1, 3), bodies(levels - 1))
    return st.lists(plain | nested, min_size=1, max_size=3).map(lambda parts: sum(parts, ()))


@settings(max_examples=200, deadline=None)
@given(bodies(4))
def test_expansion_equals_a_walk_through_the_queue(body: tuple[Descriptor, ...]) -> None:
    queue = (*body, HALT)
    expected = list(executed(queue))
    found = expand(queue)
    assert found.instances == len(expected)
    assert found.descriptor.tolist() == [entry[0] for entry in expected]
    assert [tuple(row) for row in found.index.tolist()] == [entry[1] for entry in expected]
    assert found.loops_before.tolist() == [entry[2] for entry in expected]


def test_inner_loops_are_fetched_again_on_every_outer_iteration() -> None:
    sync = Descriptor(Opcode.SYNC)
    found = expand((*loop(2, *loop(3, sync)), sync, HALT))
    assert found.loops_before.tolist() == [2, 0, 0, 1, 0, 0, 0]


def test_an_idle_queue_executes_nothing() -> None:
    found = expand((HALT,))
    assert found.instances == 0
    assert found.index.shape == (0, 4)


SYNC = Descriptor(Opcode.SYNC)


def raw_loop(count: int, body: int) -> Descriptor:
    return Descriptor(Opcode.LOOP, {"count": count, "body": body})


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        ((raw_loop(0, 1), SYNC, HALT), "LOOP at 0 has count 0"),
        ((raw_loop(2, 0), SYNC, HALT), "LOOP at 0 has a body of 0"),
        ((SYNC, raw_loop(2, 2), SYNC, HALT), "LOOP at 1 has a body of 2 descriptors, but only 1 follow"),
        ((raw_loop(2, 2), raw_loop(2, 2), SYNC, SYNC, HALT), "LOOP at 1 has a body of 2 descriptors, but only 1"),
        ((*loop(1, *loop(1, *loop(1, *loop(1, *loop(1, SYNC))))), HALT), "LOOP at 4 nests to depth 5"),
        ((SYNC,), "ends with its only HALT; this one of 1 descriptors has none"),
        ((), "this one of 0 descriptors has none"),
        ((*loop(2, HALT), HALT), r"HALT at \[1, 2\]"),
        ((*loop(60000, *loop(60000, SYNC)), HALT), "executes 3600000000 descriptors"),
    ],
)
def test_malformed_queues_are_refused(queue: Sequence[Descriptor], message: str) -> None:
    with pytest.raises(TileProgramError, match=message):
        expand(queue)


def test_the_limit_is_on_executed_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion, "MAX_INSTANCES", 12)
    assert expand((*loop(3, *loop(4, SYNC)), HALT)).instances == 12
    with pytest.raises(TileProgramError, match="executes 13 descriptors; the limit is 12"):
        expand((SYNC, *loop(3, *loop(4, SYNC)), HALT))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TASKS), st.integers(0, 2**32 - 1), bodies(3))
def test_addresses_equal_the_formula(opcode: Opcode, seed: int, body: tuple[Descriptor, ...]) -> None:
    rng = np.random.default_rng(seed)
    machine = small_machine()
    queue = []
    for d in body:
        item = random_descriptor(rng, opcode) if d.op == Opcode.SYNC else d
        memory = {"memory": int(rng.integers(0, 4))} if item.op == Opcode.LOAD else {}
        queue.append(Descriptor(item.op, {**item.values, **memory}))
    queue.append(HALT)
    found = effective(expand(queue), queue, machine)
    lists: list[dict[str, list[int]]] = [{item.name: [] for item in operands(d)} for d in queue]
    for position, index, _ in executed(queue):
        d = queue[position]
        for item in operands(d):
            half = machine.half(item.memory) if item.memory is not None else 0
            lists[position][item.name].append(slow_address(d, item.name, item.increments, half, index))
    assert [{name: column.tolist() for name, column in columns.items()} for columns in found] == lists


def test_operands_live_where_the_instruction_set_says() -> None:
    where = {op: {item.name: item.memory for item in operands(Descriptor(op, {"memory": 3}))} for op in TASKS}
    assert where == {
        Opcode.SYNC: {},
        Opcode.LOAD: {"ext": None, "local": MemoryId.RESIDUAL},
        Opcode.STORE: {"ext": None, "local": MemoryId.OUTPUT},
        Opcode.MATMUL: {"a": MemoryId.ACTIVATION, "w": MemoryId.WEIGHT, "acc": MemoryId.ACCUMULATOR},
        Opcode.VECTOR: {
            "acc": MemoryId.ACCUMULATOR,
            "out": MemoryId.OUTPUT,
            "param": MemoryId.PARAMETER,
            "res": MemoryId.RESIDUAL,
        },
    }  # fmt: skip


@pytest.mark.parametrize("memory", [4, 5])
def test_load_into_a_memory_it_cannot_write_is_refused(memory: int) -> None:
    with pytest.raises(TileProgramError, match=f"LOAD into memory {memory}; it can fill 0 ACTIVATION"):
        operands(Descriptor(Opcode.LOAD, {"memory": memory}))
