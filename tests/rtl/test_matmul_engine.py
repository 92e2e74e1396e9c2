"""The matmul engine's accumulators, writes and durations equal the instruction set's semantics and the closed form.

Scratchpads are modelled by the test itself: exact two-cycle reads, noise on the data wires whenever nothing was
read, so that an engine which looks at a word it did not ask for is found out.
"""

from __future__ import annotations

import gc
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from accelerators.systolic.rtl import MatmulEngine
from accelerators.systolic.timing import matmul_cycles
from dse.core.errors import DseError
from dse.program.tile.isa import MemoryId, Opcode, fields
from dse.program.tile.program import Machine
from dse.rtl.interfaces import READ_LATENCY

IntArray = npt.NDArray[np.int64]
ACTIVATION_WORDS, WEIGHT_WORDS, ACCUMULATOR_WORDS = 1024, 512, 256
DATAFLOWS = ("ws", "os")
#: Ragged, square, smaller than the accumulator's read-modify-write, wide and tall.
SHAPES = ((2, 2), (2, 3), (3, 2), (3, 5), (4, 4), (5, 3), (2, 8), (8, 2), (6, 7), (7, 4), (8, 8), (4, 6))


def machine(rows: int, columns: int, dataflow: str, weight_bits: int = 8) -> Machine:
    """A machine of which only the array and the width of a weight word matter here."""
    weight_word = (columns * weight_bits + 7) // 8
    word_bytes = dict(zip(list(MemoryId)[:6], (rows, weight_word, 9, columns, 4 * columns, columns), strict=True))
    return Machine(rows, columns, dataflow, weight_bits, 1, "q31", 8, 4, dict.fromkeys(MemoryId, 1024), word_bytes, 16)


@dataclass(frozen=True)
class Case:
    """One MATMUL: field values and effective addresses."""

    values: dict[str, int]
    a: int
    w: int
    acc: int

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    @property
    def folds(self) -> int:
        return self["n_rows"] * self["n_columns"] * self["n_channels"]

    @property
    def pixels(self) -> int:
        return self["height"] * self["width"]

    @property
    def weight_words(self) -> int:
        """Words per row of the array: `rows` times this many are read."""
        return self["n_blocks"] * self.folds


@dataclass
class Memories:
    """Scratchpad contents as integers: activations (words, rows), weights (words, columns), accumulators."""

    a: IntArray
    w: IntArray
    acc: IntArray
    written: list[int] = field(default_factory=list)


def raw(values: dict[str, int], noise: np.random.Generator) -> int:
    """The descriptor's 512 bits; what the engine has no business with (header, bases, increments) is noise."""
    word, position = 0, 0
    for item in fields(Opcode.MATMUL):
        value = values[item.name] if item.name in values else int(noise.integers(0, 1 << item.bits))
        word |= value << position
        position += item.bits
    return word


def packed(elements: IntArray, bits: int) -> int:
    """One scratchpad word, element 0 in the lowest bits."""
    return sum((int(value) & ((1 << bits) - 1)) << (bits * index) for index, value in enumerate(elements))


def unpacked(word: int, count: int) -> list[int]:
    """`count` int32 out of an accumulator word."""
    lanes = [(word >> (32 * index)) & 0xFFFFFFFF for index in range(count)]
    return [lane - (1 << 32) if lane >> 31 else lane for lane in lanes]


def expected(case: Case, memories: Memories, rows: int) -> tuple[IntArray, set[int]]:
    """Accumulators and written words by the instruction set's docstring, loop by loop."""
    acc = memories.acc.copy()
    touched: set[int] = set()
    fold = 0
    for n in range(case["n_blocks"]):
        kernel = itertools.product(range(case["n_rows"]), range(case["n_columns"]), range(case["n_channels"]))
        for number, (r, s, c) in enumerate(kernel):
            weights = memories.w[case.w + fold * rows : case.w + (fold + 1) * rows]
            for y, x in itertools.product(range(case["height"]), range(case["width"])):
                row = case.acc + (n * case["height"] + y) * case["width"] + x
                word = case.a + n * case["a_stride_n"] + r * case["a_stride_r"] + s * case["a_stride_s"] + c
                word += y * case["a_stride_y"] + x * case["a_stride_x"]
                old = acc[row] if case["accumulate"] or number else 0
                acc[row] = (old + memories.a[word] @ weights + (1 << 31)) % (1 << 32) - (1 << 31)
                touched.add(row)
            fold += 1
    return acc, touched


class ReadModel:
    """A scratchpad's read port: `data` belongs to the address presented with `en` two cycles earlier."""

    def __init__(self, port: Any, width: int, word: Callable[[int], int], noise: np.random.Generator) -> None:
        self.port, self.width, self.word, self.noise = port, width, word, noise
        self.coming: deque[int] = deque([0] * (READ_LATENCY - 1))
        self.reads = 0

    def drive(self, ctx: Any) -> None:
        """At the beginning of a cycle: the word asked for two cycles ago."""
        ctx.set(self.port.data, self.coming.popleft())

    def observe(self, ctx: Any) -> None:
        """At the end of a cycle: take the request; without one, noise will come."""
        if ctx.get(self.port.en):
            self.reads += 1
            self.coming.append(self.word(ctx.get(self.port.addr)))
        else:
            self.coming.append(int.from_bytes(self.noise.bytes((self.width + 7) // 8), "little") % (1 << self.width))


@dataclass(frozen=True)
class Outcome:
    """What one descriptor did: cycles from start to done, and the reads on each port."""

    cycles: int
    a_reads: int
    w_reads: int
    acc_reads: int


def simulate(
    target: Machine, memories: Memories, cases: list[Case], gaps: list[int], noise: np.random.Generator
) -> Iterator[tuple[Case, Outcome, Memories]]:
    """Run descriptors one after the other, each `gap` cycles behind the `done` before; yields each one's effects."""
    engine = MatmulEngine(target)
    simulator = Simulator(engine)
    simulator.add_clock(1e-6)
    results: list[tuple[Case, Outcome, Memories]] = []
    weight_bits, columns = target.weight_bits, target.columns
    weight_word = 8 * target.word_bytes[MemoryId.WEIGHT]
    ports = [
        ReadModel(engine.a, 8 * target.rows, lambda address: packed(memories.a[address], 8), noise),
        ReadModel(engine.w, weight_word, lambda address: packed(memories.w[address], weight_bits), noise),
        ReadModel(engine.acc_read, 32 * columns, lambda address: packed(memories.acc[address], 32), noise),
    ]

    def observe(ctx: Any) -> None:
        for port in ports:
            port.observe(ctx)
        if ctx.get(engine.acc_write.en):
            address = ctx.get(engine.acc_write.addr)
            memories.acc[address] = unpacked(ctx.get(engine.acc_write.data), columns)
            memories.written.append(address)

    async def cycle(ctx: Any) -> None:
        observe(ctx)
        await ctx.tick()
        for port in ports:
            port.drive(ctx)

    async def bench(ctx: Any) -> None:
        for case, gap in zip(cases, gaps, strict=True):
            for _ in range(gap):
                assert not ctx.get(engine.control.done)
                await cycle(ctx)
            ctx.set(engine.control.start, 1)
            ctx.set(engine.control.descriptor, raw(case.values, noise))
            for index, address in enumerate((case.a, case.w, case.acc)):
                ctx.set(engine.control.address[index], address)
            before = [port.reads for port in ports]
            limit = int(matmul_cycles(case["n_blocks"], case.folds, case.pixels, target)) + 8
            duration = 0
            while not ctx.get(engine.control.done):
                assert duration < limit, f"{case} has not ended after {limit} cycles"
                await cycle(ctx)
                ctx.set(engine.control.start, 0)
                duration += 1
            await cycle(ctx)  # the closing edge of `done` commits the last write
            reads = [port.reads - count for port, count in zip(ports, before, strict=True)]
            snapshot = Memories(memories.a, memories.w, memories.acc.copy(), list(memories.written))
            results.append((case, Outcome(duration, *reads), snapshot))
            memories.written.clear()
        for _ in range(4 * (target.rows + target.columns)):
            assert not ctx.get(engine.control.done)
            await cycle(ctx)
        assert not memories.written, "written after the last done"

    simulator.add_testbench(bench)
    simulator.run()
    yield from results


def random_memories(target: Machine, rng: np.random.Generator) -> Memories:
    """Full-range contents, a tenth of the operands at the most negative value."""
    low = -(1 << (target.weight_bits - 1))
    a = rng.integers(-128, 128, (ACTIVATION_WORDS, target.rows))
    w = rng.integers(low, -low, (WEIGHT_WORDS, target.columns))
    a[rng.random(a.shape) < 0.1] = -128
    w[rng.random(w.shape) < 0.1] = low
    return Memories(a, w, rng.integers(-(1 << 31), 1 << 31, (ACCUMULATOR_WORDS, target.columns)))


def random_case(rng: np.random.Generator, rows: int, *, single_fold: bool = False) -> Case:
    """A MATMUL that stays inside the memories: 1 to 40 pixels, up to 3 blocks of up to 8 folds."""
    while True:
        values = {name: int(rng.integers(1, 4)) for name in ("n_blocks", "n_rows", "n_columns", "n_channels")}
        if single_fold:
            values |= {"n_rows": 1, "n_columns": 1, "n_channels": 1}
        values["height"], values["width"] = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        values["accumulate"] = int(rng.integers(0, 2))
        values |= {f"a_stride_{dim}": int(rng.integers(0, 30)) for dim in ("n", "r", "s", "y", "x")}
        case = Case(values, 0, 0, 0)
        reach = values["n_channels"] + sum(
            (values[size] - 1) * values[f"a_stride_{dim}"]
            for size, dim in (("n_blocks", "n"), ("n_rows", "r"), ("n_columns", "s"), ("height", "y"), ("width", "x"))
        )
        slack = (
            ACTIVATION_WORDS - reach,
            WEIGHT_WORDS - case.weight_words * rows,
            ACCUMULATOR_WORDS - values["n_blocks"] * case.pixels,
        )
        if min(slack) >= 0 and case.pixels <= 40 and case.folds <= 8:
            return Case(values, *(int(rng.integers(0, room + 1)) for room in slack))


def check(target: Machine, memories: Memories, cases: list[Case], gaps: list[int], seed: int) -> list[Outcome]:
    """Every descriptor: accumulators bit for bit, exactly the expected rows written, duration by closed form."""
    before = memories.acc.copy()
    outcomes = []
    results = simulate(target, memories, cases, gaps, np.random.default_rng(seed))
    for case, outcome, after in results:
        reference = Memories(memories.a, memories.w, before)
        wanted, touched = expected(case, reference, target.rows)
        np.testing.assert_array_equal(after.acc, wanted, err_msg=str(case))
        assert set(after.written) == touched
        assert outcome.cycles == int(matmul_cycles(case["n_blocks"], case.folds, case.pixels, target)), case
        before = after.acc
        outcomes.append(outcome)
    assert len(outcomes) == len(cases)
    return outcomes


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_random_descriptors_give_the_semantics_in_the_predicted_cycles(shape: tuple[int, int], dataflow: str) -> None:
    seed = 100 * shape[0] + 10 * shape[1] + DATAFLOWS.index(dataflow)
    rng = np.random.default_rng(seed)
    target = machine(*shape, dataflow, weight_bits=int(rng.choice([4, 8])))
    cases = [random_case(rng, target.rows, single_fold=index == 0) for index in range(4)]
    check(target, random_memories(target, rng), cases, [int(rng.integers(1, 6)) for _ in cases], seed)


@pytest.mark.parametrize("weight_bits", [4, 8])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_small_pixel_count_hits_the_closed_form(dataflow: str, weight_bits: int) -> None:
    """One to nine pixels on three rows: below, at and above the accumulator hazard, every partial block."""
    target = machine(3, 2, dataflow, weight_bits)
    rng = np.random.default_rng(weight_bits)
    sizes = {"n_blocks": 2, "n_rows": 1, "n_columns": 2, "n_channels": 1}
    strides = {"a_stride_n": 40, "a_stride_r": 0, "a_stride_s": 11, "a_stride_y": 0, "a_stride_x": 1}
    cases = [
        Case({**sizes, **strides, "height": 1, "width": pixels, "accumulate": pixels % 2}, 5, 7, 9)
        for pixels in range(1, 10)
    ]
    check(target, random_memories(target, rng), cases, [1] * len(cases), 7)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_descriptor_started_right_behind_another_finds_its_sums_complete(dataflow: str) -> None:
    """The second accumulates on the first's rows and starts in the cycle after its `done`."""
    target = machine(4, 3, dataflow)
    rng = np.random.default_rng(11)
    first = random_case(rng, target.rows)
    chain = [Case({**first.values, "accumulate": step > 0}, first.a, first.w, first.acc) for step in range(3)]
    check(target, random_memories(target, rng), chain, [0] * len(chain), 11)


@pytest.mark.parametrize("weight_bits", [4, 8])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_most_negative_operands_sum_up_without_overflow(dataflow: str, weight_bits: int) -> None:
    """The largest product, -128 * -128 or -128 * -8, in every element of every fold: the widest partial sums."""
    target = machine(5, 2, dataflow, weight_bits)
    low = -(1 << (weight_bits - 1))
    memories = Memories(
        np.full((ACTIVATION_WORDS, 5), -128), np.full((WEIGHT_WORDS, 2), low), np.zeros((ACCUMULATOR_WORDS, 2), int)
    )
    sizes = {"n_blocks": 1, "n_rows": 3, "n_columns": 3, "n_channels": 2, "height": 2, "width": 3}
    strides = {"a_stride_n": 0, "a_stride_r": 6, "a_stride_s": 2, "a_stride_y": 12, "a_stride_x": 2}
    check(target, memories, [Case({**sizes, **strides, "accumulate": 0}, 0, 0, 4)], [1], 3)
    assert (memories.acc[4:10] == -128 * low * 5 * 18).all()


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_accumulators_wrap_at_32_bits(dataflow: str) -> None:
    target = machine(2, 2, dataflow)
    memories = Memories(
        np.full((ACTIVATION_WORDS, 2), 127),
        np.tile([127, -127], (WEIGHT_WORDS, 1)),
        np.tile([(1 << 31) - 1, -(1 << 31)], (ACCUMULATOR_WORDS, 1)),
    )
    sizes = dict.fromkeys(("n_blocks", "n_rows", "n_columns", "n_channels", "height", "width", "accumulate"), 1)
    strides = dict.fromkeys(("a_stride_n", "a_stride_r", "a_stride_s", "a_stride_y", "a_stride_x"), 0)
    check(target, memories, [Case({**sizes, **strides}, 0, 0, 0)], [1], 3)
    assert memories.acc[0].tolist() == [-(1 << 31) + 2 * 127 * 127 - 1, (1 << 31) - 2 * 127 * 127]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_scratchpads_are_read_as_often_as_the_dataflow_needs(dataflow: str) -> None:
    """Activations once per fold and pixel; weights once (ws) or once per pixel block (os); old sums when added."""
    target = machine(3, 2, dataflow)
    rng = np.random.default_rng(23)
    cases = [random_case(rng, target.rows) for _ in range(4)]
    outcomes = check(target, random_memories(target, rng), cases, [2] * len(cases), 23)
    for case, outcome in zip(cases, outcomes, strict=True):
        folds = case["n_blocks"] * case.folds
        pixel_blocks = -(-case.pixels // target.rows)
        added = case["n_blocks"] * case.pixels * (case.folds - 1 + case["accumulate"])
        assert outcome.a_reads == folds * case.pixels
        assert outcome.w_reads == folds * target.rows * (pixel_blocks if dataflow == "os" else 1)
        assert outcome.acc_reads == (case["n_blocks"] * case.pixels * case["accumulate"] if dataflow == "os" else added)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_processing_element_keeps_its_name_in_the_netlist(dataflow: str) -> None:
    """Netlist and timing reports name elements by row and column."""
    text = rtlil.convert(MatmulEngine(machine(3, 2, dataflow)))
    for i, j in itertools.product(range(3), range(2)):
        assert f"pe_{i}_{j}" in text
    assert "pe_3_0" not in text


def test_addresses_wrap_at_16_bits() -> None:
    """Strides are modulo 2**16, so a stride of -1 is 65535."""
    target = machine(2, 2, "ws")
    memories = random_memories(target, np.random.default_rng(5))
    sizes = {"n_blocks": 1, "n_rows": 1, "n_columns": 1, "n_channels": 1, "height": 1, "width": 5, "accumulate": 0}
    strides = dict.fromkeys(("a_stride_n", "a_stride_r", "a_stride_s", "a_stride_y"), 0)
    backwards = Case({**sizes, **strides, "a_stride_x": 65535}, 20, 3, 0)
    results = simulate(target, memories, [backwards], [1], np.random.default_rng(1))
    (_, _, after), *_ = results
    np.testing.assert_array_equal(after.acc[:5], memories.a[[20, 19, 18, 17, 16]] @ memories.w[3:5])


def test_closed_form_is_vectorised_and_monotone_in_every_count() -> None:
    counts = np.arange(1, 30)
    for dataflow in DATAFLOWS:
        target = machine(5, 3, dataflow)
        for arguments in ((counts, 3, 7), (2, counts, 7), (2, 3, counts)):
            cycles = matmul_cycles(*arguments, target)
            assert cycles.dtype == np.int64
            assert cycles.shape == counts.shape
            assert (np.diff(cycles) >= 0).all()
            for index, cycle in enumerate(cycles):
                scalar = [int(np.broadcast_to(value, counts.shape)[index]) for value in arguments]
                assert int(matmul_cycles(*scalar, target)) == cycle


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, 0, 1), (1, 1, [3, 0])])
def test_closed_form_refuses_empty_descriptors(counts: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ValueError, match="is 0, but a MATMUL has at least 1"):
        matmul_cycles(*counts, machine(2, 2, "ws"))


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_an_array_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(DseError, match="rows: 1 elements against a bound of 2"):
        MatmulEngine(machine(1, 4, "ws"))
    with pytest.raises(DseError, match=r"weight_bits: 5 bits .*4 or 8"):
        MatmulEngine(machine(4, 4, "os", weight_bits=5))
    with pytest.raises(ValueError, match="'is' is not a dataflow"):
        MatmulEngine(machine(4, 4, "is"))
    with pytest.raises(ValueError, match="'is' is not a dataflow"):
        matmul_cycles(1, 1, 1, machine(4, 4, "is"))
    gc.collect()  # the refused components go now, while Amaranth's warning about unused ones is off
