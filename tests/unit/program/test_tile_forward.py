"""FORWARD: what the vector unit writes back for the next layer, and when two tasks really meet there."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import op, small_machine, step

from dse.ir.requantize import encode_scale, requantize
from dse.program.tile.checker import check
from dse.program.tile.footprint import accesses, descriptor_problems
from dse.program.tile.interpreter import run_step
from dse.program.tile.isa import PARAMETER_BYTES, Descriptor, MemoryId, Opcode
from dse.program.tile.kernels import Scratchpads, kernel
from dse.program.tile.overlap import ActivationWords, activation_offsets
from dse.program.tile.program import Machine, TileStep

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> tuple[np.random.Generator, Machine, dict[str, int]]:
    """A machine and fields of a FORWARD whose pixels may lie in any stride."""
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 7)), int(rng.integers(1, 7))
    lanes = [lane for lane in range(1, 7) if rows % lane == 0 and columns % lane == 0]
    machine = small_machine(rows=rows, columns=columns, lanes=int(rng.choice(lanes)), words=200)
    values = {
        "n_blocks": int(rng.integers(1, 4)),
        "height": int(rng.integers(1, 4)),
        "width": int(rng.integers(1, 4)),
        "out_stride_y": int(rng.integers(0, 12)),
        "out_stride_x": int(rng.integers(0, 8)),
        "zero_point": int(rng.integers(-128, 128)),
        "low": int(rng.integers(-128, 0)),
        "high": int(rng.integers(0, 128)),
    }
    return rng, machine, values


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_forward_equals_the_scalar_definition_and_stays_inside_its_footprint(seed: int) -> None:
    rng, machine, values = drawn(seed)
    d = Descriptor(Opcode.FORWARD, values)
    blocks, height, width, columns = values["n_blocks"], values["height"], values["width"], machine.columns
    pads = Scratchpads.fresh(machine, rng)
    channels = blocks * columns
    multiplier, shift = encode_scale(rng.uniform(1e-4, 1e-2, channels).astype(np.float32), machine.requantize)
    table = np.zeros(channels, np.dtype([("bias", "<i4"), ("multiplier", "<u4"), ("shift", "i1")]))
    table["bias"], table["multiplier"], table["shift"] = rng.integers(-999, 999, channels), multiplier, shift
    words = table.view(np.uint8).reshape(-1, machine.vector_lanes * PARAMETER_BYTES)
    pads.bytes[MemoryId.PARAMETER][: len(words)] = words
    pads.accumulators()[:] = rng.integers(-(10**6), 10**6, pads.accumulators().shape)
    expected = pads.int8(MemoryId.ACTIVATION).copy().ravel()
    base = int(rng.integers(0, 20))
    for n in range(blocks):
        for y in range(height):
            for x in range(width):
                row = pads.accumulators()[(n * height + y) * width + x]
                for lane in range(columns):
                    channel = n * columns + lane
                    total = np.array([int(row[lane]) + int(table["bias"][channel])])
                    value = requantize(
                        total, np.array([int(multiplier[channel])]), np.array([int(shift[channel])]),
                        values["zero_point"], values["low"], values["high"], machine.requantize,
                    )  # fmt: skip
                    word = base + y * values["out_stride_y"] + x * values["out_stride_x"] + channel // machine.rows
                    expected[word * machine.rows + channel % machine.rows] = value[0]
    kernel(d, pads, np.zeros(1, np.uint8))({"acc": 0, "out": base, "param": 0})
    found = pads.int8(MemoryId.ACTIVATION).ravel()
    np.testing.assert_array_equal(found, expected)
    reach = {access.operand: access.extent for access in accesses(d, machine)}
    offsets = activation_offsets(d, machine)
    assert reach["out"] == int(offsets.max()) + 1
    assert (reach["acc"], reach["param"]) == (blocks * height * width, len(words))


def test_a_group_of_lanes_must_not_straddle_two_activation_words() -> None:
    d = op(Opcode.FORWARD, {"n_blocks": 1, "height": 1, "width": 1})
    assert descriptor_problems(d, "vector", small_machine(rows=4, columns=4, lanes=2)) == []
    problems = descriptor_problems(d, "vector", small_machine(rows=3, columns=4, lanes=2))
    assert any("vector_lanes must divide rows" in problem for problem in problems)


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_words_are_shared_exactly_when_the_sets_of_words_meet(seed: int) -> None:
    rng, machine, values = drawn(seed)
    forward = Descriptor(Opcode.FORWARD, values)
    counts = {name: int(rng.integers(1, 3)) for name in ("n_blocks", "n_rows", "n_columns", "height", "width")}
    strides = {f"a_stride_{dim}": int(rng.integers(0, 9)) for dim in "nrsyx"}
    matmul = Descriptor(Opcode.MATMUL, {**counts, **strides, "n_channels": int(rng.integers(1, 3))})
    bases = [int(rng.integers(0, 30)) for _ in range(2)]
    written = {
        bases[0] + y * values["out_stride_y"] + x * values["out_stride_x"] + channel // machine.rows
        for y in range(values["height"])
        for x in range(values["width"])
        for channel in range(values["n_blocks"] * machine.columns)
    }
    read = set()
    for n, r, s, y, x in np.ndindex(*(counts[name] for name in ("n_blocks", "n_rows", "n_columns", "height", "width"))):
        start = bases[1] + sum(i * strides[f"a_stride_{dim}"] for dim, i in zip("nrsyx", (n, r, s, y, x), strict=True))
        read |= {start + c for c in range(matmul["n_channels"])}
    words = ActivationWords(machine)
    assert words.shared(forward, bases[0], matmul, bases[1]) == bool(written & read)
    assert words.shared(matmul, bases[1], forward, bases[0]) == bool(written & read)


def test_the_checker_orders_a_forward_against_the_matmul_that_reads_it() -> None:
    machine = small_machine(rows=2, columns=2, lanes=1)
    forward = {"n_blocks": 1, "height": 1, "width": 1, "high": 1}
    matmul = {"n_blocks": 1, "n_rows": 1, "n_columns": 1, "n_channels": 1, "height": 1, "width": 1, "acc_phase": 1}

    def program(waits: dict[str, int], signals: dict[str, int], at: int) -> TileStep:
        return step(
            matmul=[Descriptor(Opcode.MATMUL, {**matmul, "a_base": at, **waits})],
            vector=[Descriptor(Opcode.FORWARD, {**forward, **signals})],
        )

    ordered = program({"wait0_id": 4, "wait0_amount": 1}, {"signal0_id": 4, "signal0_amount": 1}, 0)
    assert check(ordered, machine, 8) == []
    run_step(ordered, machine, np.zeros(8, np.uint8))
    assert any("activation scratchpad" in problem for problem in check(program({}, {}, 0), machine, 8))
    assert check(program({}, {}, 1), machine, 8) == []
