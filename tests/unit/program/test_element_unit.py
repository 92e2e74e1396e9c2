"""The element unit equals its text, touches what its footprint says, and refuses what is not its own."""

from __future__ import annotations

import numpy as np
import pytest
from element_oracle import put, slow_element, slow_normalize, slow_pool
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import packed_channels, small_machine, step

from dse.ir.requantize import add_q31, encode_add, encode_scale, scale_accumulator
from dse.program.tile.errors import TileProgramError
from dse.program.tile.footprint import bounds_problems, descriptor_problems
from dse.program.tile.footprint_element import element_accesses
from dse.program.tile.interpreter import run_step
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import DESTINATIONS, SOURCES, Function, Normalize, Pool
from dse.program.tile.kernels import kernel
from dse.program.tile.pads import Scratchpads
from dse.program.tile.program import Machine

seeds = st.integers(0, 2**32 - 1)
NOTHING = np.zeros(0, np.uint8)


def machine_of(rng: np.random.Generator) -> Machine:
    return small_machine(
        rows=int(rng.integers(1, 6)), lanes=int(rng.choice([1, 2, 4])), requantize=str(rng.choice(["ort", "q31"])),
        words=160,
    )  # fmt: skip


def executed(d: Descriptor, pads: Scratchpads) -> None:
    """The kernel at the descriptor's own base addresses."""
    names = {name.removesuffix("_base") for name in ("acc_base", "a_base", "b_base", "dst_base", "param_base")}
    kernel(d, pads, NOTHING)({name: d[f"{name}_base"] for name in names})


def copies(pads: Scratchpads) -> dict[MemoryId, np.ndarray]:
    return {memory: data.copy() for memory, data in pads.bytes.items()}


def assert_memories_equal(pads: Scratchpads, wanted: dict[MemoryId, np.ndarray]) -> None:
    for memory, data in wanted.items():
        np.testing.assert_array_equal(pads.bytes[memory], data, err_msg=memory.name)


def random_element(rng: np.random.Generator) -> Descriptor:
    """An ELEMENT with sources and destination apart, in every memory and with every option."""
    function = Function(int(rng.integers(0, 8)))
    memories = [m for m in DESTINATIONS if m != MemoryId.ACTIVATION or function not in (4, 5)]
    large = function in (Function.COPY, Function.ADD, Function.SUB, Function.MUL)
    return Descriptor(Opcode.ELEMENT, {
        "n_blocks": int(rng.integers(1, 4)), "rows_count": int(rng.integers(1, 4)), "function": function,
        "a_base": int(rng.integers(0, 10)), "b_base": int(rng.integers(10, 20)), "dst_base": int(rng.integers(30, 34)),
        "a_memory": int(rng.choice(SOURCES)), "b_memory": int(rng.choice(SOURCES)),
        "dst_memory": int(rng.choice(memories)), "a_spread": int(rng.integers(0, 4)),
        "b_spread": int(rng.integers(0, 4)),
        "zero_a": int(rng.choice([0, 32768, -7])), "zero_b": int(rng.choice([0, 5, -128])),
        "multiplier_a": int(rng.integers(1, 1 << 10)) if large else 0,
        "multiplier_b": int(rng.integers(1, 1 << 10)) if function in (1, 2) else 0,
        "shift": int(rng.choice([0, 1, 7, 15, 24])), "rounding": int(rng.integers(0, 3)),
        "zero_point": int(rng.choice([0, 3, -100])), "narrow": int(rng.integers(0, 2)),
        "look_up": int(rng.integers(0, 2)), "table_base": int(rng.integers(0, 6)),
    })  # fmt: skip


def random_pool(rng: np.random.Generator) -> Descriptor:
    return Descriptor(Opcode.POOL, {
        "n_blocks": int(rng.integers(1, 3)), "height": int(rng.integers(1, 4)), "width": int(rng.integers(1, 4)),
        "kernel_rows": int(rng.integers(1, 4)), "kernel_columns": int(rng.integers(1, 4)), "a_base": 1,
        "dst_base": 2 + 30 * int(rng.integers(0, 2)), "a_stride_n": int(rng.integers(0, 8)),
        "a_stride_r": int(rng.integers(0, 4)), "a_stride_s": int(rng.integers(0, 4)),
        "a_stride_y": int(rng.integers(0, 4)), "a_stride_x": int(rng.integers(0, 4)),
        "a_memory": MemoryId.OUTPUT, "dst_memory": int(rng.choice([MemoryId.ACTIVATION, MemoryId.STATE])),
        "function": int(rng.integers(0, 2)), "zero_a": int(rng.choice([0, -128, 9])),
        "multiplier_a": int(rng.integers(1, 1 << 20)), "shift": int(rng.integers(10, 24)),
        "rounding": int(rng.integers(0, 3)), "zero_point": int(rng.choice([0, -5])),
    })  # fmt: skip


def random_normalize(rng: np.random.Generator, machine: Machine) -> Descriptor:
    blocks = int(rng.integers(1, 4))
    return Descriptor(Opcode.NORMALIZE, {
        "n_blocks": blocks, "rows_count": int(rng.integers(1, 4)),
        "channels": int(rng.integers(1, blocks * machine.columns + 1)), "a_base": int(rng.integers(0, 5)),
        "dst_base": 30, "a_memory": int(rng.choice([MemoryId.RESIDUAL, MemoryId.OUTPUT, MemoryId.STATE])),
        "dst_memory": int(rng.choice([MemoryId.ACTIVATION, MemoryId.OUTPUT, MemoryId.STATE])),
        "function": int(rng.integers(0, 2)), "table_base": 2, "multiplier_a": int(rng.integers(1, 1 << 20)),
        "shift": int(rng.integers(20, 40)), "epsilon": int(rng.integers(0, 1 << 10)),
        "epsilon_shift": int(rng.integers(0, 8)), "zero_point": int(rng.choice([0, -128])),
    })  # fmt: skip


def filled(rng: np.random.Generator, machine: Machine) -> Scratchpads:
    """Random memories; tables hold no negative exponentials, so that their sums divide."""
    pads = Scratchpads.fresh(machine, rng)
    tables = pads.bytes[MemoryId.TABLE].view("<i2")
    tables[2] = np.sort(rng.integers(0, 32768, 256))[::-1]
    return pads


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_element_equals_its_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine, d = machine_of(rng), random_element(rng)
    assert descriptor_problems(d, "vector", machine) == []
    pads = filled(rng, machine)
    wanted = copies(pads)
    slow_element(d, machine, wanted)
    executed(d, pads)
    assert_memories_equal(pads, wanted)


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_pool_equals_its_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine, d = machine_of(rng), random_pool(rng)
    assert descriptor_problems(d, "vector", machine) == []
    pads = filled(rng, machine)
    wanted = copies(pads)
    slow_pool(d, machine, wanted)
    executed(d, pads)
    assert_memories_equal(pads, wanted)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_normalize_equals_its_text(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine = machine_of(rng)
    d = random_normalize(rng, machine)
    assert descriptor_problems(d, "vector", machine) == []
    pads = filled(rng, machine)
    wanted = copies(pads)
    slow_normalize(d, machine, wanted)
    executed(d, pads)
    assert_memories_equal(pads, wanted)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_scale_requantizes_every_channel_by_its_own_parameters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine = machine_of(rng)
    blocks, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    look_up = int(rng.integers(0, 2))
    d = Descriptor(Opcode.SCALE, {
        "n_blocks": blocks, "rows_count": rows, "acc_base": 2, "dst_base": 40, "param_base": 3, "look_up": look_up,
        "table_base": 1, "dst_memory": int(rng.choice([m for m in DESTINATIONS if m != MemoryId.ACCUMULATOR])),
        "zero_point": int(rng.integers(-50, 50)), "low": -30000, "high": int(rng.integers(-3, 30000)),
    })  # fmt: skip
    assert descriptor_problems(d, "vector", machine) == []
    pads = filled(rng, machine)
    sums = rng.integers(-(1 << 20), 1 << 20, (blocks, rows, machine.columns))
    pads.accumulators()[2 : 2 + blocks * rows] = sums.reshape(blocks * rows, -1)
    bias = rng.integers(-999, 999, blocks * machine.columns)
    multiplier, shift = encode_scale(2.0 ** rng.uniform(-9, -1, bias.size), machine.requantize)
    groups = blocks * (machine.columns // machine.vector_lanes)
    pads.bytes[MemoryId.PARAMETER][3 : 3 + groups] = packed_channels(bias, multiplier, shift).reshape(groups, -1)
    wanted = copies(pads)
    for n, m, j in np.ndindex(blocks, rows, machine.columns):
        channel = n * machine.columns + j
        scaled = scale_accumulator(
            np.int64(sums[n, m, j] + bias[channel]), multiplier[channel], shift[channel], machine.requantize
        )
        value = min(max(int(scaled) + d["zero_point"], d["low"]), d["high"])
        put(wanted, d, machine, (n, m, j), value)
    executed(d, pads)
    assert_memories_equal(pads, wanted)


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([Opcode.ELEMENT, Opcode.POOL, Opcode.NORMALIZE]))
def test_footprints_hold_what_is_read_and_written(seed: int, opcode: Opcode) -> None:
    rng = np.random.default_rng(seed)
    machine = machine_of(rng)
    d = {Opcode.ELEMENT: random_element, Opcode.POOL: random_pool}.get(opcode, lambda r: random_normalize(r, machine))(
        rng
    )
    touched = {memory: np.zeros(machine.words[memory], bool) for memory in MemoryId}
    written = {memory: np.zeros(machine.words[memory], bool) for memory in MemoryId}
    for access in element_accesses(d, machine):
        base = d[f"{access.operand}_base"]
        touched[access.memory][base : base + access.extent] = True
        if access.writes:
            written[access.memory][base : base + access.extent] = True
    pads, other = filled(rng, machine), filled(rng, machine)
    for memory in MemoryId:
        other.bytes[memory][touched[memory]] = pads.bytes[memory][touched[memory]]
    before = copies(pads)
    executed(d, pads)
    executed(d, other)
    for memory in MemoryId:
        # bytes of the last word of an activation record may be left as they are
        np.testing.assert_array_equal(pads.bytes[memory][touched[memory]], other.bytes[memory][touched[memory]])
        np.testing.assert_array_equal(pads.bytes[memory][~written[memory]], before[memory][~written[memory]])


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_element_add_is_the_residual_add_of_q31(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine = small_machine(rows=4)
    scales = rng.uniform(0.01, 0.1, 3)
    zeros = [int(v) for v in rng.integers(-128, 128, 3)]
    first, second, shift = encode_add(*scales)
    if max(first, second) >= 1 << 24:
        return
    pads = filled(rng, machine)
    a, b = pads.int8(MemoryId.RESIDUAL)[:3].copy(), pads.int8(MemoryId.RESIDUAL)[7:10].copy()
    d = Descriptor(Opcode.ELEMENT, {
        "n_blocks": 1, "rows_count": 3, "function": Function.ADD, "a_memory": MemoryId.RESIDUAL, "b_base": 7,
        "b_memory": MemoryId.RESIDUAL, "dst_memory": MemoryId.OUTPUT, "zero_a": zeros[0], "zero_b": zeros[1],
        "multiplier_a": first, "multiplier_b": second, "shift": shift, "zero_point": zeros[2],
    })  # fmt: skip
    executed(d, pads)
    wanted = add_q31(a, b, zeros[0], zeros[1], (first, second, shift), zeros[2], -128, 127)
    np.testing.assert_array_equal(pads.int8(MemoryId.OUTPUT)[:3], wanted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a_memory": MemoryId.WEIGHT}, "a lies in WEIGHT; ELEMENT reads RESIDUAL, ACCUMULATOR, OUTPUT, STATE"),
        ({"dst_memory": MemoryId.RESIDUAL}, "dst lies in RESIDUAL; it can be ACTIVATION"),
        ({"function": Function.MULADD, "dst_memory": MemoryId.ACTIVATION}, "MULADD reads its destination"),
        ({"rounding": 3}, "rounding is 3; 0 HALF_UP, 1 FLOOR, 2 HALF_EVEN"),
        ({"shift": 63}, "shift is 63; at most 62"),
        ({"n_blocks": 0}, "n_blocks is 0; the least is 1"),
    ],
)
def test_invalid_elements_are_refused(values: dict[str, int], message: str) -> None:
    good = {"n_blocks": 1, "rows_count": 1, "a_memory": MemoryId.STATE, "b_memory": MemoryId.STATE,
            "dst_memory": MemoryId.STATE, "function": Function.MUL}  # fmt: skip
    assert descriptor_problems(Descriptor(Opcode.ELEMENT, good), "vector", small_machine()) == []
    found = descriptor_problems(Descriptor(Opcode.ELEMENT, {**good, **values}), "vector", small_machine())
    assert any(message in text for text in found), found


def test_a_machine_without_an_element_unit_refuses_its_opcodes() -> None:
    machine = small_machine()
    v1 = Machine(**{**vars(machine), "words": {m: w for m, w in machine.words.items() if m < MemoryId.STATE},
                    "word_bytes": {m: w for m, w in machine.word_bytes.items() if m < MemoryId.STATE}})  # fmt: skip
    d = Descriptor(Opcode.ELEMENT, {"n_blocks": 1, "rows_count": 1, "a_memory": 5, "dst_memory": 5})
    assert "was made without an element unit" in descriptor_problems(d, "vector", v1)[0]
    with pytest.raises(TileProgramError, match="without an element unit"):
        run_step(step(load=[Descriptor(Opcode.LOAD, {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 1, "memory": 6})]), v1,
                 np.zeros(8, np.uint8))  # fmt: skip


def test_sources_may_be_replaced_word_for_word_but_not_shifted() -> None:
    machine = small_machine()
    base = {"n_blocks": 1, "rows_count": 4, "a_memory": MemoryId.STATE, "dst_memory": MemoryId.STATE, "a_base": 5,
            "multiplier_a": 1}  # fmt: skip

    def found(**changes: int) -> list[str]:
        d = Descriptor(Opcode.ELEMENT, {**base, **changes})
        addresses = {name: np.array([d[f"{name}_base"]]) for name in ("a", "dst", "table")}
        return list(bounds_problems(d, addresses, machine, 0))

    assert found(dst_base=5) == []
    assert found(dst_base=9) == []
    assert found(dst_base=1) == []
    assert found(dst_base=6) == ["a at word 5 and dst at word 6 of the state scratchpad overlap in its execution 0"]
    assert "overlap" in found(dst_base=5, a_spread=1)[0]


@pytest.mark.parametrize("function", [Normalize.SOFTMAX, Normalize.CENTRE])
def test_normalize_is_as_close_to_the_real_function_as_its_output_can_be(function: Normalize) -> None:
    """Softmax of int8 scores within 1 of 256; layer norm of int8 values within 2 of 2**-12 of a deviation."""
    machine, rng = small_machine(rows=4), np.random.default_rng(3)
    pads = filled(rng, machine)
    scale, rows, channels = 0.06, 8, 14
    table = np.rint(32767 * np.exp(-scale * np.arange(256))).astype("<i2")
    pads.bytes[MemoryId.TABLE].view("<i2")[2] = table
    d = Descriptor(Opcode.NORMALIZE, {
        "n_blocks": 4, "rows_count": rows, "channels": channels, "a_memory": MemoryId.RESIDUAL, "function": function,
        "dst_memory": MemoryId.STATE, "table_base": 2, "multiplier_a": 1 << 16, "shift": 32 if function == 0 else 28,
    })  # fmt: skip
    values = pads.int8(MemoryId.RESIDUAL)[: 4 * rows].reshape(4, rows, 4).transpose(1, 0, 2).reshape(rows, 16)[:, :14]
    real = values.astype(np.float64)
    executed(d, pads)
    got = pads.bytes[MemoryId.STATE].view("<i2")[: 4 * rows].reshape(4, rows, 4).transpose(1, 0, 2).reshape(rows, 16)
    if function == Normalize.SOFTMAX:
        powers = np.exp(scale * (real - real.max(axis=1, keepdims=True)))
        wanted = 256 * powers / powers.sum(axis=1, keepdims=True)
        assert np.abs(got[:, :14] - wanted).max() <= 1
    else:
        centred = real - real.mean(axis=1, keepdims=True)
        wanted = 4096 * centred / real.std(axis=1, keepdims=True)
        assert np.abs(got[:, :14] - wanted).max() <= 2
    assert (got[:, 14:] == 0).all()


def test_pools_are_named_for_what_they_do() -> None:
    assert [item.name for item in Pool] == ["LARGEST", "AVERAGE"]
