# amaranth: UnusedElaboratable=no
"""The vector engine's output words and durations equal the instruction set's semantics and the closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.sim import Simulator

from dse.core.errors import DseError
from dse.ir.requantize import add_q31, encode_scale, requantize
from dse.program.tile.isa import MemoryId, Opcode, fields
from dse.program.tile.program import Machine
from dse.program.tile.timing_vector import VECTOR_READ_CYCLES, vector_cycles, vector_latency
from dse.rtl.interfaces import READ_LATENCY
from dse.rtl.vector import VectorEngine

IntArray = npt.NDArray[np.int64]
WORDS = 256
UNTOUCHED = -86


def machine(columns: int, lanes: int, mode: str) -> Machine:
    """A machine of which only columns, lanes, mode and memory sizes matter here."""
    word_bytes = dict(zip(list(MemoryId)[:6], (4, columns, 9 * lanes, columns, 4 * columns, columns), strict=True))
    words = dict.fromkeys(MemoryId, WORDS)
    return Machine(4, columns, "ws", 8, lanes, mode, 8, 4, words, word_bytes, 16)


@dataclass(frozen=True)
class Case:
    """One VECTOR descriptor: field values and effective addresses."""

    values: dict[str, int]
    acc: int
    out: int
    param: int
    res: int


@dataclass(frozen=True)
class Memories:
    """Contents of the scratchpads: rows of columns; parameters per word and lane."""

    acc: IntArray
    bias: IntArray
    multiplier: IntArray
    shift: IntArray
    res: IntArray


def raw(values: dict[str, int]) -> int:
    """The descriptor's 512 bits, packed field by field from the lowest."""
    word, position = 0, 0
    for item in fields(Opcode.VECTOR):
        value = int(Opcode.VECTOR) if item.name == "op" else values.get(item.name, 0)
        word |= (value & ((1 << item.bits) - 1)) << position
        position += item.bits
    return word


def expected_output(case: Case, memories: Memories, m: Machine) -> IntArray:
    """The semantics of VECTOR row by row and lane by lane, from the text of the instruction set."""
    v, groups = case.values, m.columns // m.vector_lanes
    out = np.full((WORDS, m.columns), UNTOUCHED, np.int64)
    for n in range(v["n_blocks"]):
        for row in range(v["rows_count"]):
            index = n * v["rows_count"] + row
            for j in range(m.columns):
                channel = (case.param + n * groups + j // m.vector_lanes, j % m.vector_lanes)
                total = memories.acc[case.acc + index, j] + memories.bias[channel]
                low, high = (-128, 127) if v["add"] else (v["low"], v["high"])
                scale = (memories.multiplier[channel], memories.shift[channel])
                y = requantize(total, *scale, v["zero_point"], low, high, m.requantize)
                if v["add"]:
                    residual = np.int8(memories.res[case.res + index, j])
                    factors = (v["multiplier_y"], v["multiplier_res"], v["add_shift"])
                    zeros = (v["zero_point"], v["zero_point_res"])
                    y = add_q31(y, residual, *zeros, factors, v["zero_point_add"], v["low"], v["high"])
                out[case.out + index, j] = y
    return out


def packed(rows: IntArray, bits: int) -> list[int]:
    """Each row as one integer, element 0 in the lowest bits."""
    mask = (1 << bits) - 1
    return [sum((int(value) & mask) << (bits * j) for j, value in enumerate(row)) for row in rows]


def run_engine(m: Machine, cases: list[Case], memories: Memories) -> tuple[list[IntArray], list[int], int]:
    """Run descriptors one after the other: output memory and duration of each, and how many residuals were read."""
    engine = VectorEngine(m)
    parameters = memories.bias & 0xFFFFFFFF | memories.multiplier << 32
    stored = {
        "acc": packed(memories.acc, 32),
        "res": packed(memories.res, 8),
        "param": packed(parameters.astype(object) | memories.shift.astype(object) << 64, 72),
    }
    ports = {name: getattr(engine, name) for name in stored}
    outputs: list[IntArray] = []
    durations: list[int] = []
    residual_reads = 0

    async def bench(ctx: Any) -> None:
        nonlocal residual_reads
        reading = {name: [0] * READ_LATENCY for name in stored}
        for case in cases:
            ctx.set(engine.control.descriptor, raw(case.values))
            for index, address in enumerate((case.acc, case.out, case.param, case.res)):
                ctx.set(engine.control.address[index], address)
            out = np.full((WORDS, m.columns), UNTOUCHED, np.int64)
            cycle, done = 0, False
            while not done:
                ctx.set(engine.control.start, cycle == 0)
                for name, port in ports.items():
                    ctx.set(port.data, reading[name].pop(0))
                    enabled = ctx.get(port.en)
                    reading[name].append(stored[name][ctx.get(port.addr)] if enabled else 0)
                    residual_reads += enabled if name == "res" else 0
                enable = ctx.get(engine.out.en)
                if enable:
                    write(out, enable, ctx.get(engine.out.addr), ctx.get(engine.out.data))
                done = bool(ctx.get(engine.control.done))
                await ctx.tick()
                cycle += 1
                assert cycle < 5000, "the engine never ends"
            outputs.append(out)
            durations.append(cycle - 1)

    def write(out: IntArray, enable: int, address: int, word: int) -> None:
        for j in range(m.columns):
            if enable >> (j // m.vector_lanes) & 1:
                out[address, j] = (word >> (8 * j) & 0xFF ^ 0x80) - 0x80

    simulator = Simulator(engine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return outputs, durations, residual_reads


def random_memories(m: Machine, rng: np.random.Generator) -> Memories:
    """Accumulators of every magnitude and scales that bring most of them near int8."""
    acc = rng.integers(-(2**30), 2**30, (WORDS, m.columns)) >> rng.integers(4, 20, (WORDS, 1))
    shape = (WORDS, m.vector_lanes)
    multiplier, shift = encode_scale(2.0 ** rng.uniform(-18, -6, shape), m.requantize)
    return Memories(
        acc=acc,
        bias=rng.integers(-20000, 20000, shape),
        multiplier=multiplier,
        shift=shift,
        res=rng.integers(-128, 128, (WORDS, m.columns)),
    )


def random_case(m: Machine, rng: np.random.Generator, *, add: bool) -> Case:
    """A descriptor whose operands stay inside the memories; clamps wide and narrow."""
    blocks, rows = int(rng.integers(1, 4)), int(rng.integers(1, 9))
    low, high = sorted(int(v) for v in rng.integers(-128, 128, 2))
    values = {
        "n_blocks": blocks,
        "rows_count": rows,
        "zero_point": int(rng.integers(-128, 128)),
        "low": low if rng.random() < 0.4 else -128,
        "high": high if rng.random() < 0.4 else 127,
        "add": int(add),
        "zero_point_res": int(rng.integers(-128, 128)),
        "zero_point_add": int(rng.integers(-128, 128)),
        "multiplier_y": int(rng.integers(1, 2**24)),
        "multiplier_res": int(rng.integers(1, 2**24)),
        "add_shift": int(rng.integers(22, 26)),
    }
    top = WORDS - blocks * rows
    param = int(rng.integers(0, WORDS - blocks * (m.columns // m.vector_lanes)))
    return Case(values, *(int(rng.integers(0, top)) for _ in range(2)), param, int(rng.integers(0, top)))


@pytest.mark.parametrize("mode", ["q31", "ort"])
@pytest.mark.parametrize(("columns", "lanes"), [(4, 1), (4, 2), (4, 4), (3, 1), (6, 3), (8, 2), (2, 2)])
def test_outputs_and_durations_equal_the_isa_and_the_closed_form(columns: int, lanes: int, mode: str) -> None:
    m = machine(columns, lanes, mode)
    rng = np.random.default_rng(100 * columns + lanes)
    memories = random_memories(m, rng)
    cases = [random_case(m, rng, add=mode == "q31" and index % 2 == 0) for index in range(6)]
    outputs, durations, _ = run_engine(m, cases, memories)
    for case, output in zip(cases, outputs, strict=True):
        assert np.array_equal(output, expected_output(case, memories, m)), case
    blocks, rows = ([case.values[name] for case in cases] for name in ("n_blocks", "rows_count"))
    assert durations == vector_cycles(blocks, rows, m).tolist()


@pytest.mark.parametrize("mode", ["q31", "ort"])
def test_single_row_and_single_group_descriptors_follow_each_other_without_residue(mode: str) -> None:
    m = machine(4, 4, mode)
    rng = np.random.default_rng(5)
    memories = random_memories(m, rng)
    cases = []
    for blocks, rows in [(1, 1), (1, 1), (3, 1), (1, 5), (2, 2), (1, 1)]:
        case = random_case(m, rng, add=False)
        cases.append(Case({**case.values, "n_blocks": blocks, "rows_count": rows}, 7, 9, 11, 13))
    outputs, durations, _ = run_engine(m, cases, memories)
    for case, output in zip(cases, outputs, strict=True):
        assert np.array_equal(output, expected_output(case, memories, m))
    assert durations == [vector_latency(mode) + extra for extra in (0, 0, 2, 4, 3, 0)]


def test_residual_port_is_read_once_a_group_and_only_when_adding() -> None:
    m = machine(4, 2, "q31")
    rng = np.random.default_rng(6)
    memories = random_memories(m, rng)
    plain, adding = (random_case(m, rng, add=add) for add in (False, True))
    assert run_engine(m, [plain], memories)[2] == 0
    groups = 2 * adding.values["n_blocks"] * adding.values["rows_count"]
    assert run_engine(m, [adding], memories)[2] == groups


def test_add_saturates_to_int8_before_it_adds_and_clamps_after() -> None:
    m = machine(2, 2, "q31")
    rng = np.random.default_rng(8)
    memories = random_memories(m, rng)
    # far beyond int8 before the add: a clamp to [0, 10] there, or none, would show in the sum
    memories.acc[:] = 2**30
    case = random_case(m, rng, add=True)
    halves = {"multiplier_y": 2**23, "multiplier_res": 2**23, "add_shift": 24, "zero_point_add": 0}
    zeros = {"zero_point": 0, "zero_point_res": 0, "low": 0, "high": 100}
    case = Case({**case.values, **halves, **zeros}, case.acc, case.out, case.param, case.res)
    (output,), _, _ = run_engine(m, [case], memories)
    rows = case.values["n_blocks"] * case.values["rows_count"]
    written = output[case.out : case.out + rows]
    residual = memories.res[case.res : case.res + rows]
    assert np.array_equal(written, np.clip((127 + residual + 1) >> 1, 0, 100))


def test_closed_form_is_vectorised_over_descriptors_and_rejects_empty_ones() -> None:
    m = machine(8, 2, "ort")
    cycles = vector_cycles(np.array([[1], [3]]), np.array([1, 65535]), m)
    assert cycles.dtype == np.int64
    assert (cycles - vector_latency("ort")).tolist() == [[3, 4 * 65535 - 1], [11, 12 * 65535 - 1]]
    with pytest.raises(ValueError, match="at least 1"):
        vector_cycles([1, 0], [1, 1], m)
    with pytest.raises(ValueError, match="not a requantization mode"):
        vector_latency("float")
    assert VECTOR_READ_CYCLES == READ_LATENCY


def test_lanes_that_do_not_divide_the_columns_are_refused_with_the_choices() -> None:
    with pytest.raises(DseError, match=r"vector_lanes must divide 8 columns.*1, 2, 4, 8"):
        VectorEngine(machine(8, 3, "q31"))
