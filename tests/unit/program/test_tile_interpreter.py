"""The interpreter does what the instruction set says, in every legal order, and refuses what is not legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import HALT, loop, mutated, op, pipeline, slow_matmul, slow_vector, small_machine, step

from dse.ir.requantize import encode_scale
from dse.program.tile.errors import TileProgramError
from dse.program.tile.interpreter import run_program, run_step
from dse.program.tile.isa import PARAMETER_BYTES, Descriptor, MemoryId, Opcode
from dse.program.tile.kernels import Scratchpads, channel_parameters, kernel, unpack_weights
from dse.program.tile.program import HostStep, Machine, TileProgram

seeds = st.integers(0, 2**32 - 1)


def small(rng: np.random.Generator, top: int) -> int:
    return int(rng.integers(1, top + 1))


def based(values: dict[str, int], rng: np.random.Generator, machine: Machine, reach: dict[str, tuple[MemoryId, int]]):
    """Random bases such that every operand ends inside its memory; also the addresses by operand."""
    addresses = {
        name: int(rng.integers(0, machine.words[memory] - extent + 1)) for name, (memory, extent) in reach.items()
    }
    return {**values, **{f"{name}_base": base for name, base in addresses.items()}}, addresses


# -- single descriptors against scalar oracles ---------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(seeds)
def test_matmul_equals_the_scalar_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine = small_machine(
        rows=small(rng, 4), columns=small(rng, 5), lanes=1, weight_bits=int(rng.choice([4, 8])), words=160
    )
    values = {"n_blocks": small(rng, 2), "n_rows": small(rng, 2), "n_columns": small(rng, 3),
              "n_channels": small(rng, 2), "height": small(rng, 3), "width": small(rng, 3),
              "accumulate": int(rng.integers(0, 2))}  # fmt: skip
    values |= {f"a_stride_{dim}": int(rng.integers(0, 9)) for dim in "nrsyx"}
    sizes = {"n": "n_blocks", "r": "n_rows", "s": "n_columns", "y": "height", "x": "width"}
    a_reach = sum((values[size] - 1) * values[f"a_stride_{dim}"] for dim, size in sizes.items()) + values["n_channels"]
    w_reach = values["n_blocks"] * values["n_rows"] * values["n_columns"] * values["n_channels"] * machine.rows
    acc_reach = values["n_blocks"] * values["height"] * values["width"]
    reach = {
        "a": (MemoryId.ACTIVATION, a_reach),
        "w": (MemoryId.WEIGHT, w_reach),
        "acc": (MemoryId.ACCUMULATOR, acc_reach),
    }
    values, addresses = based(values, rng, machine, reach)
    d = Descriptor(Opcode.MATMUL, values)
    pads = Scratchpads.fresh(machine, rng)  # accumulators of any magnitude: sums wrap at 32 bits
    expected = pads.accumulators().copy()
    slow_matmul(d, machine, pads.int8(MemoryId.ACTIVATION), pads.bytes[MemoryId.WEIGHT], expected)
    kernel(d, pads, np.zeros(1, np.uint8))(addresses)
    np.testing.assert_array_equal(pads.accumulators(), expected)


def test_matmul_is_exact_at_the_largest_sums() -> None:
    # 40 folds of 64 rows of -128 * -128: 41,943,040, beyond what float32 counts
    machine = small_machine(rows=64, columns=2, lanes=1, words=2600)
    pads = Scratchpads.fresh(machine, None)
    pads.bytes[MemoryId.ACTIVATION][:] = 0x80
    pads.bytes[MemoryId.WEIGHT][:] = 0x80
    pads.bytes[MemoryId.ACTIVATION][0, 0] = 1
    values = {"n_blocks": 1, "n_rows": 1, "n_columns": 1, "n_channels": 40, "height": 1, "width": 1}
    kernel(Descriptor(Opcode.MATMUL, values), pads, np.zeros(1, np.uint8))({"a": 0, "w": 0, "acc": 0})
    assert pads.accumulators()[0].tolist() == [2559 * 128 * 128 - 128] * 2


@settings(max_examples=120, deadline=None)
@given(seeds)
def test_vector_equals_the_definition_lane_by_lane(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lanes, columns = small(rng, 3), 0
    columns = lanes * small(rng, 3)
    machine = small_machine(columns=columns, lanes=lanes, requantize=str(rng.choice(["ort", "q31"])))
    groups = columns // lanes
    low, high = sorted(int(v) for v in rng.integers(-128, 128, 2))
    values = {"n_blocks": small(rng, 3), "rows_count": small(rng, 4), "zero_point": int(rng.integers(-128, 128)),
              "low": low, "high": high}  # fmt: skip
    if machine.requantize == "q31" and rng.random() < 0.7:
        values |= {"add": 1, "zero_point_res": int(rng.integers(-128, 128)),
                   "zero_point_add": int(rng.integers(-128, 128)),
                   "multiplier_y": int(rng.integers(0, 2**24)), "multiplier_res": int(rng.integers(0, 2**24)),
                   "add_shift": int(rng.integers(20, 27))}  # fmt: skip
    rows = values["n_blocks"] * values["rows_count"]
    reach = {"acc": (MemoryId.ACCUMULATOR, rows), "out": (MemoryId.OUTPUT, rows), "res": (MemoryId.RESIDUAL, rows),
             "param": (MemoryId.PARAMETER, values["n_blocks"] * groups)}  # fmt: skip
    values, addresses = based(values, rng, machine, reach)
    d = Descriptor(Opcode.VECTOR, values)
    pads = Scratchpads.fresh(machine, rng)
    pads.accumulators()[:] >>= 8
    shape = (machine.words[MemoryId.PARAMETER], lanes)
    multiplier, shift = encode_scale(2.0 ** rng.uniform(-18, -12, shape), machine.requantize)
    channels = np.zeros((*shape, PARAMETER_BYTES), np.uint8)
    channels[..., :4] = rng.integers(-(2**20), 2**20, shape).astype("<i4")[..., None].view(np.uint8)
    channels[..., 4:8] = multiplier.astype("<u4")[..., None].view(np.uint8)
    channels[..., 8] = shift
    pads.bytes[MemoryId.PARAMETER][:] = channels.reshape(shape[0], -1)
    expected = pads.int8(MemoryId.OUTPUT).copy()
    slow_vector(d, machine, pads.accumulators(), pads.bytes[MemoryId.PARAMETER], pads.int8(MemoryId.RESIDUAL), expected)
    kernel(d, pads, np.zeros(1, np.uint8))(addresses)
    np.testing.assert_array_equal(pads.int8(MemoryId.OUTPUT), expected)


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from([Opcode.LOAD, Opcode.STORE]))
def test_transfers_move_run_after_run_even_when_they_overlap(seed: int, opcode: Opcode) -> None:
    rng = np.random.default_rng(seed)
    machine = small_machine(rows=small(rng, 6), columns=small(rng, 6), lanes=1)
    local = MemoryId(int(rng.integers(0, 4))) if opcode == Opcode.LOAD else MemoryId.OUTPUT
    word = machine.word_bytes[local]
    run = small(rng, word)
    offset = int(rng.integers(0, word - run + 1)) if opcode == Opcode.LOAD else 0
    sizes = [small(rng, 3) for _ in range(3)]
    external = [int(rng.integers(0, 12)) for _ in range(3)]
    inside = [int(rng.integers(0, 7)) for _ in range(3)]
    values = {"run_bytes": run, "byte_offset": offset, **{f"n{i}": n for i, n in enumerate(sizes)},
              **{f"ext_stride{i}": s for i, s in enumerate(external)},
              **{f"local_stride{i}": s for i, s in enumerate(inside)}}  # fmt: skip
    values |= {"memory": int(local)} if opcode == Opcode.LOAD else {}
    pads = Scratchpads.fresh(machine, rng)
    memory = rng.integers(0, 256, 120).astype(np.uint8)
    pad_words, memory_bytes = pads.bytes[local].copy(), memory.copy()
    ext, dst = int(rng.integers(0, 20)), int(rng.integers(0, 10))
    for index in np.ndindex(*sizes):
        at = ext + sum(i * s for i, s in zip(index, external, strict=True))
        into = dst + sum(i * s for i, s in zip(index, inside, strict=True))
        for byte in range(run):
            if opcode == Opcode.LOAD:
                pad_words[into, offset + byte] = memory_bytes[at + byte]
            else:
                memory_bytes[at + byte] = pad_words[into, byte]
    kernel(Descriptor(opcode, values), pads, memory)({"ext": ext, "local": dst})
    np.testing.assert_array_equal(pads.bytes[local], pad_words)
    np.testing.assert_array_equal(memory, memory_bytes)


@given(seeds)
def test_four_bit_weights_unpack_low_nibble_first_with_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = small(rng, 9)
    weights = rng.integers(-8, 8, (5, columns))
    words = [sum((int(v) & 15) << (4 * j) for j, v in enumerate(row)) for row in weights]
    width = (columns + 1) // 2
    packed = np.frombuffer(b"".join(word.to_bytes(width, "little") for word in words), np.uint8).reshape(5, width)
    np.testing.assert_array_equal(unpack_weights(packed, columns, 4), weights)


def test_unused_channels_give_the_zero_point_and_unset_shifts_are_refused() -> None:
    words = np.zeros((2, 2 * PARAMETER_BYTES), np.uint8)
    assert channel_parameters(words, 1)[2].ravel().tolist() == [1, 1, 1, 1]
    for shift in (63, 200):
        words[1, 8] = shift
        with pytest.raises(TileProgramError, match=r"shift of (63|-56); 1 to 62 are valid"):
            channel_parameters(words, 1)


# -- whole steps ---------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 2**31), min_size=3, max_size=3))
def test_every_legal_order_gives_the_reference(seed: int, orders: list[int]) -> None:
    sample = pipeline(seed)
    for order in (None, *orders):
        memory = sample.memory.copy()
        run_step(sample.step, sample.machine, memory, order_seed=order)
        np.testing.assert_array_equal(memory, sample.expected)


@pytest.mark.parametrize(
    ("engine", "position", "changes"),
    [
        ("matmul", 4, {"wait0_amount": 0}),  # activations not awaited
        ("matmul", 4, {"wait1_amount": 0}),  # accumulators overwritten
        ("vector", 3, {"wait0_amount": 0}),  # accumulators not awaited
        ("vector", 3, {"wait1_amount": 0}),  # outputs overwritten
        ("store", 3, {"wait0_amount": 0}),  # outputs not awaited
        ("load", 4, {"wait0_amount": 0}),  # activations overwritten
    ],
)
def test_a_missing_wait_shows_in_some_order(engine: str, position: int, changes: dict[str, int]) -> None:
    sample = pipeline(5, blocks=3, tiles=4)
    broken = mutated(sample.step, engine, position, **changes)
    assert broken.queues[engine][position].values != sample.step.queues[engine][position].values

    def differs(order: int) -> bool:
        memory = sample.memory.copy()
        try:
            run_step(broken, sample.machine, memory, order_seed=order)
        except TileProgramError:
            return True
        return not np.array_equal(memory, sample.expected)

    assert any(differs(order) for order in range(40))


def test_scratchpads_start_with_seeded_noise_or_zeros() -> None:
    machine = small_machine()
    store = op(Opcode.STORE, {"n0": 1, "n1": 1, "n2": 4, "run_bytes": 4, "ext_stride2": 4, "local_stride2": 1})
    contents = []
    for order in (None, 1, 1, 2):
        memory = np.full(16, 7, np.uint8)
        run_step(step(store=(store,)), machine, memory, order_seed=order)
        contents.append(memory.tolist())
    assert contents[0] == [0] * 16
    assert contents[1] == contents[2] != contents[3]


def test_deadlock_names_descriptors_and_semaphores() -> None:
    sample = pipeline(1, blocks=2, tiles=3)
    broken = mutated(sample.step, "store", 0, signal0_amount=0)
    stands = r"deadlock: .*vector\[3\] VECTOR at loop indices \[0, 0, 0, 0\] waits for semaphore 7 \(needs 1, holds 0\)"
    for order in (None, 3):
        with pytest.raises(TileProgramError, match=stands):
            run_step(broken, sample.machine, sample.memory.copy(), order_seed=order)


def test_semaphore_overflow_is_an_error() -> None:
    give = op(Opcode.SYNC, signal_a_free=128)
    with pytest.raises(TileProgramError, match=r"load\[1\] SYNC .* semaphore 1 overflows to 256; the limit is 255"):
        run_step(step(load=loop(2, give)), small_machine(), np.zeros(4, np.uint8))


LOAD_ALL = {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 3, "memory": 0}


@pytest.mark.parametrize(
    ("engine", "descriptor", "message"),
    [
        ("load", op(Opcode.LOAD, {**LOAD_ALL, "ext_base": 98}), "ext reaches bytes 98 to 100 .* memory has 100 bytes"),
        ("load", op(Opcode.LOAD, {**LOAD_ALL, "local_base": 64}), "local reaches words 64 to 64 .* has 64 words"),
        ("load", op(Opcode.LOAD, {**LOAD_ALL, "local_base": 40, "local_phase": 1}), "local reaches words 72 to 72"),
        ("load", op(Opcode.LOAD, {**LOAD_ALL, "byte_offset": 1}), "a run ends at byte 4 of a word .* of 3 bytes"),
        ("load", op(Opcode.LOAD, {**LOAD_ALL, "n1": 0}), "n1 is 0; the least is 1"),
        ("load", op(Opcode.LOAD, {**LOAD_ALL, "memory": 5}), "LOAD into memory 5"),
        ("store", op(Opcode.LOAD, LOAD_ALL), "LOAD does not belong into the store queue"),
        ("load", op(Opcode.SYNC, {"layer": 4096}), "layer is 4096; its field holds 0 to 4095"),
        ("load", op(Opcode.SYNC, {"wait0_amount": 1, "wait1_amount": 1}), "semaphore 0 is named twice among the waits"),
        ("vector", op(Opcode.VECTOR, {"n_blocks": 1, "rows_count": 1, "add": 1}), "add_shift is 0; 1 to 62"),
        ("vector", op(Opcode.VECTOR, {"n_blocks": 1, "rows_count": 1, "low": 2}), "clamp bounds 2 to 0"),
        ("store", op(Opcode.STORE, {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 1, "byte_offset": 1}), "byte_offset is 1"),
    ],
)
def test_illegal_descriptors_are_refused_before_anything_runs(
    engine: str, descriptor: Descriptor, message: str
) -> None:
    memory = np.arange(100, dtype=np.uint8)
    with pytest.raises(TileProgramError, match=rf"sample: {engine}\[0\] .*{message}"):
        run_step(step(**{engine: (descriptor,)}), small_machine(), memory)
    np.testing.assert_array_equal(memory, np.arange(100))


def test_an_address_is_checked_for_every_loop_iteration() -> None:
    body = op(Opcode.LOAD, {**LOAD_ALL, "ext_inc0": 30})
    run_step(step(load=loop(3, body)), small_machine(), np.zeros(63, np.uint8))
    with pytest.raises(TileProgramError, match="ext reaches bytes 60 to 62 in its execution 2; the memory has 62"):
        run_step(step(load=loop(3, body)), small_machine(), np.zeros(62, np.uint8))


def test_residual_add_needs_the_mode_that_has_an_adder() -> None:
    add = op(Opcode.VECTOR, {"n_blocks": 1, "rows_count": 1, "add": 1, "add_shift": 3})
    with pytest.raises(TileProgramError, match="needs requantization mode 'q31'; the machine has 'ort'"):
        run_step(step(vector=(add,)), small_machine(requantize="ort"), np.zeros(4, np.uint8))


@pytest.mark.parametrize("memory", [np.zeros(4, np.int8), np.zeros((2, 2), np.uint8), np.zeros(8, np.uint8)[::2]])
def test_memory_of_another_form_is_refused(memory: np.ndarray) -> None:
    with pytest.raises(TileProgramError, match="contiguous, writable row of uint8"):
        run_step(step(), small_machine(), memory)


def test_a_program_runs_its_steps_in_order_and_hands_host_steps_out() -> None:
    sample = pipeline(2)
    host = HostStep("invert", "invert", "elementwise", 1, 1, 1)
    program = TileProgram(sample.machine, (sample.step, host, sample.step), {}, sample.memory.size, sample.memory)
    calls = []

    def invert(given: HostStep, memory: np.ndarray) -> None:
        np.testing.assert_array_equal(memory, sample.expected)
        memory[-1] ^= 255
        calls.append(given.name)

    for order in (None, 9):
        memory = sample.memory.copy()
        run_program(program, memory, invert, order_seed=order)
        np.testing.assert_array_equal(memory, sample.expected)  # the second step writes the byte again
    assert calls == ["invert", "invert"]
    with pytest.raises(TileProgramError, match=f"needs {sample.memory.size} bytes of memory"):
        run_program(replace(program, steps=()), np.zeros(3, np.uint8), invert)


def test_an_idle_step_leaves_memory_alone() -> None:
    memory = np.arange(9, dtype=np.uint8)
    run_step(step(), small_machine(), memory, order_seed=4)
    assert memory.tolist() == list(range(9))
    with pytest.raises(TileProgramError, match="sample: vector: a queue ends with its only HALT"):
        run_step(replace(step(), queues={**step().queues, "vector": (HALT, HALT)}), small_machine(), memory)
