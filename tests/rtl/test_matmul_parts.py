"""Each part of the matmul engine does what its docstring says, by itself."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.systolic.rtl.accumulate import Accumulate, DrainedRows, StreamedRows
from accelerators.systolic.rtl.agu import Countdown, FoldWalker, PixelWalker, WeightWalker
from accelerators.systolic.rtl.array_os import OutputStationaryArray
from accelerators.systolic.rtl.array_ws import WeightStationaryArray
from accelerators.systolic.rtl.skew import deskewed, skewed
from accelerators.systolic.rtl.transposer import SkewedTransposer
from accelerators.systolic.timing import WS_MIN_FOLD_CYCLES

Cycle = Mapping[str, Any]
few = settings(max_examples=50, deadline=None, derandomize=True)
small = st.integers(1, 4)


def run(part: wiring.Component, cycles: Sequence[Cycle], outputs: Sequence[str]) -> list[dict[str, Any]]:
    """Set the inputs of each cycle (absent ones return to zero) and read the outputs within the same cycle."""
    seen: list[dict[str, Any]] = []
    names = sorted({name for inputs in cycles for name in inputs})
    simulator = Simulator(part)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        resting = {name: ctx.get(getattr(part, name)) for name in names}
        for inputs in cycles:
            for name in names:
                ctx.set(getattr(part, name), inputs.get(name, resting[name]))
            seen.append({name: ctx.get(getattr(part, name)) for name in outputs})
            await ctx.tick()

    simulator.add_testbench(bench)
    simulator.run()
    return seen


def packed(elements: Sequence[int], bits: int) -> int:
    """Elements side by side, the first in the lowest bits."""
    return sum((int(value) & ((1 << bits) - 1)) << (bits * index) for index, value in enumerate(elements))


def unpacked(word: int, bits: int, count: int) -> list[int]:
    """`count` signed elements of `bits` bits, lowest first."""
    elements = [(word >> (bits * index)) & ((1 << bits) - 1) for index in range(count)]
    return [value - (1 << bits) if value >> (bits - 1) else value for value in elements]


class SkewThenDeskew(wiring.Component):
    """Four values that are skewed and deskewed again."""

    def __init__(self) -> None:
        super().__init__({"word": In(32), "same": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = skewed(m, [self.word.word_select(index, 8) for index in range(4)], "in")
        m.d.comb += self.same.eq(Cat(deskewed(m, values, "out")))
        return m


def test_deskew_undoes_skew() -> None:
    words = np.random.default_rng(1).integers(0, 1 << 32, 20).tolist()
    seen = run(SkewThenDeskew(), [{"word": word} for word in words], ["same"])
    assert [cycle["same"] for cycle in seen[3:]] == words[:-3]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_countdown_flags_exactly_the_last_round(count: int) -> None:
    idle = {"step": 0}
    cycles: list[Cycle] = [{"load": 1, "count": count}]
    for _ in range(count):
        cycles += [idle, {"step": 1}]
    seen = run(Countdown(3), cycles, ["left", "last"])
    rounds = [(cycle["left"], cycle["last"]) for cycle in seen[1:]]
    assert rounds[::2] == [(left, int(left == 1)) for left in range(count, 0, -1)]
    assert rounds[1::2] == rounds[::2]


@few
@given(
    counts=st.tuples(small, small, small, small),
    strides=st.tuples(*[st.integers(0, 1 << 15)] * 3),
    base=st.integers(0, (1 << 16) - 1),
    rounds=st.integers(1, 3),
)
def test_fold_walker_visits_the_folds_of_a_block_as_often_as_asked(
    counts: tuple[int, ...], strides: tuple[int, ...], base: int, rounds: int
) -> None:
    """n outermost, then `rounds` pixel blocks, then r, s, c; addresses modulo 2**16."""
    n_count, r_count, s_count, c_count = counts
    static = {f"{level}_count": count for level, count in zip("nrsc", counts, strict=True)}
    static |= {f"{level}_stride": stride for level, stride in zip("nrs", strides, strict=True)}
    folds = list(itertools.product(range(r_count), range(s_count), range(c_count)))
    wanted = []
    cycles: list[Cycle] = [{**static, "start": 1, "base": base}]
    for n, again, (r, s, c) in itertools.product(range(n_count), range(rounds, 0, -1), folds):
        address = base + n * strides[0] + r * strides[1] + s * strides[2] + c
        last_fold = (r, s, c) == folds[-1]
        wanted.append({"address": address % (1 << 16), "last_fold": last_fold, "last_block": n == n_count - 1})
        cycles.append({**static, "step": 1, "again": int(again > 1)})
    assert run(FoldWalker(), cycles, ["address", "last_fold", "last_block"])[1:] == wanted


@few
@given(
    height=small,
    width=small,
    y_stride=st.integers(0, 99),
    x_stride=st.integers(0, 99),
    block=st.integers(1, 5),
    folds=st.integers(1, 3),
)
def test_pixel_walker_replays_each_block_of_pixels(
    height: int, width: int, y_stride: int, x_stride: int, block: int, folds: int
) -> None:
    """Blocks of consecutive pixels, each walked `folds` times; the last block may be partial."""
    static = {"height": height, "width": width, "y_stride": y_stride, "x_stride": x_stride}
    offsets = [y * y_stride + x * x_stride for y, x in itertools.product(range(height), range(width))]
    cycles: list[Cycle] = [{**static, "origin": 1}]
    wanted: list[tuple[int, int] | None] = []
    for first in range(0, len(offsets), block):
        pixels = list(range(first, min(first + block, len(offsets))))
        for fold in range(folds):
            for index in pixels:
                ends = index == pixels[-1] and len(pixels) == block
                goes_on = index + 1 < len(offsets)
                rewind, keep = ends and fold < folds - 1, ends and fold == folds - 1 and goes_on
                cycles.append({**static, "step": 1, "rewind": int(rewind), "keep": int(keep)})
                wanted.append((offsets[index], int(index == len(offsets) - 1)))
            if len(pixels) < block:
                cycles.append({**static, "rewind": int(fold < folds - 1)})
                wanted.append(None)
    seen = run(PixelWalker(keeps_place=True), cycles, ["offset", "last", "exhausted"])[1:]
    for cycle, want in zip(seen, wanted, strict=True):
        assert cycle["exhausted"] == (want is None)
        if want is not None:
            assert (cycle["offset"], cycle["last"]) == want


def test_pixel_walker_starts_over_after_every_origin() -> None:
    static = {"height": 2, "width": 2, "y_stride": 10, "x_stride": 3}
    cycles = [{**static, "origin": 1}, *[{**static, "step": 1, "origin": int(i % 4 == 3)} for i in range(12)]]
    seen = run(PixelWalker(keeps_place=False), cycles, ["offset", "last"])[1:]
    assert [cycle["offset"] for cycle in seen] == [0, 3, 10, 13] * 3
    assert [cycle["last"] for cycle in seen] == [0, 0, 0, 1] * 3


def test_weight_walker_repeats_a_block_and_goes_on_behind_it() -> None:
    step = {"step": 1}
    block = [step, step, {"step": 1, "again": 1}, {"step": 0}, step, step, {"step": 1, "keep": 1}]
    seen = run(WeightWalker(), [{"start": 1, "base": 65534}, *block, *block, step], ["address"])
    addresses = [cycle["address"] for cycle in seen[1:]]
    first, second = [65534, 65535, 0], [1, 2, 3]
    assert addresses == [*first, 65534, *first, *second, 1, *second, 4]


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_transposer_streams_each_row_skewed_through_back_to_back_folds(rows: int) -> None:
    rng = np.random.default_rng(rows)
    folds = rng.integers(-128, 128, (4, rows, rows))
    starts = [0, rows, 2 * rows, 3 * rows + 2]  # the last one after a pause
    length = starts[-1] + 2 * rows + 2
    cycles: list[dict[str, int]] = [{"word": int(rng.integers(0, 1 << 16)), "fold": 0} for _ in range(length)]
    for start, fold in zip(starts, folds, strict=True):
        cycles[start]["fold"] = 1
        for i in range(rows):
            cycles[start + i]["word"] = packed(fold[i], 8)
    seen = run(SkewedTransposer(rows), cycles, ["streams"])
    for start, fold in zip(starts, folds, strict=True):
        for i, k in itertools.product(range(rows), range(rows)):
            assert seen[start + 1 + i + k]["streams"][i] == fold[i, k]


@pytest.mark.parametrize("weight_bits", [4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 4), (5, 2)])
def test_weight_stationary_folds_follow_each_other_without_a_gap(rows: int, columns: int, weight_bits: int) -> None:
    """Folds exactly as long as their pixels or their weight rows; the results come at the stated latency."""
    rng = np.random.default_rng(10 * rows + columns)
    array = WeightStationaryArray(rows, columns, weight_bits)
    low = -(1 << (weight_bits - 1))
    wanted: dict[int, list[int]] = {}
    cycles: list[dict[str, int]] = []
    for pixels in (1, rows, rows + 3, 2, 1):
        weights = rng.integers(low, -low, (rows, columns))
        activations = rng.integers(-128, 128, (max(pixels, rows), rows))
        for step, word in enumerate(activations):
            row = weights[step] if step < rows else rng.integers(low, -low, columns)
            if step < pixels:
                wanted[len(cycles) + array.latency] = (word @ weights).tolist()
            cycles.append({"pixel": packed(word, 8), "weights": packed(row, weight_bits), "fold": int(step == 0)})
    seen = run(array, cycles + [{}] * (array.latency + 1), ["psums"])
    for cycle, sums in wanted.items():
        assert unpacked(seen[cycle]["psums"], array.psum_bits, columns) == sums


@pytest.mark.parametrize("weight_bits", [4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 4), (5, 2)])
def test_output_stationary_blocks_of_one_fold_drain_without_a_gap(rows: int, columns: int, weight_bits: int) -> None:
    """One fold a block is the fastest a drain must follow; longer blocks between them must not disturb it."""
    rng = np.random.default_rng(10 * rows + columns)
    array = OutputStationaryArray(rows, columns, weight_bits)
    low = -(1 << (weight_bits - 1))
    blocks = (1, 1, 2, 1, 3, 1)
    length = sum(blocks) * rows + array.latency + rows + 2
    cycles: list[dict[str, int]] = [{} for _ in range(length)]
    wanted: dict[int, list[int]] = {}
    start = 0
    for folds in blocks:
        cycles[start]["swap"] = 1
        total = np.zeros((rows, columns), dtype=np.int64)
        for _ in range(folds):
            activations, weights = rng.integers(-128, 128, (rows, rows)), rng.integers(low, -low, (rows, columns))
            total += activations @ weights
            cycles[start]["fold"] = 1
            for step in range(rows):
                cycles[start + step]["word"] = packed(activations[step], 8)
                cycles[start + step + 1]["weights"] = packed(weights[step], weight_bits)
            start += rows
        for step in range(rows):
            wanted[start + array.latency + step] = total[rows - 1 - step].tolist()
    cycles[start]["swap"] = 1
    seen = run(array, cycles, ["sums"])
    for cycle, sums in wanted.items():
        assert unpacked(seen[cycle]["sums"], 32, columns) == sums


class AccumulatorMemory(wiring.Component):
    """`Accumulate` on a memory of two words with a scratchpad's read latency: the word, then a register."""

    def __init__(self) -> None:
        super().__init__({"valid": In(1), "address": In(1), "result": In(16), "first": Out(32), "second": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accumulate = accumulate = Accumulate(1, 16)
        words = [self.first, self.second]
        captured = Signal(32)
        m.d.comb += [
            accumulate.row.valid.eq(self.valid),
            accumulate.row.add.eq(1),
            accumulate.row.address.eq(self.address),
            accumulate.results.eq(self.result),
        ]
        for index, word in enumerate(words):
            with m.If(accumulate.read.en & (accumulate.read.addr == index)):
                m.d.sync += captured.eq(word)
            with m.If(accumulate.write.en & (accumulate.write.addr == index)):
                m.d.sync += word.eq(accumulate.write.data)
        m.d.sync += accumulate.read.data.eq(captured)
        return m


@pytest.mark.parametrize("distance", [WS_MIN_FOLD_CYCLES - 1, WS_MIN_FOLD_CYCLES])
def test_the_fold_distance_is_the_least_that_keeps_every_sum(distance: int) -> None:
    """The same row announced three times: at the distance all three count, a cycle sooner one is lost."""
    cycles: list[dict[str, int]] = [{} for _ in range(3 * distance + 6)]
    for index, value in enumerate((5, -7, 100)):
        cycles[index * distance] |= {"valid": 1, "address": 1}
        cycles[index * distance + 2]["result"] = value & 0xFFFF
    final = run(AccumulatorMemory(), cycles, ["first", "second"])[-1]
    total = unpacked(final["second"], 32, 1)[0]
    assert final["first"] == 0
    assert (total == 98) == (distance == WS_MIN_FOLD_CYCLES)


@few
@given(
    blocks=small, folds=small, pixels=small, accumulate=st.booleans(), pauses=st.lists(st.integers(0, 2), max_size=4)
)
def test_streamed_rows_revisit_a_block_in_each_of_its_folds(
    blocks: int, folds: int, pixels: int, accumulate: bool, pauses: list[int]
) -> None:
    cycles: list[Cycle] = [{"start": 1, "base": 65530, "accumulate": int(accumulate)}]
    wanted: list[dict[str, int] | None] = []
    for n, fold, pixel in itertools.product(range(blocks), range(folds), range(pixels)):
        fold_last = pixel == pixels - 1
        block_last = fold_last and fold == folds - 1
        final = block_last and n == blocks - 1
        tag = {"valid": 1, "fold_last": int(fold_last), "block_last": int(block_last), "final": int(final)}
        cycles.append({"tag": tag, "accumulate": int(accumulate)})
        row = (65530 + n * pixels + pixel) % (1 << 16)
        wanted.append({"address": row, "add": int(accumulate or fold > 0), "final": int(final)})
        for _ in range(pauses[pixel] if fold_last and pixel < len(pauses) else 0):
            cycles.append({"accumulate": int(accumulate)})
            wanted.append(None)
    for cycle, want in zip(run(StreamedRows(), cycles, ["row"])[1:], wanted, strict=True):
        assert cycle["row"].valid == (want is not None)
        if want is not None:
            assert {name: cycle["row"][name] for name in want} == want


@few
@given(rows=st.integers(2, 6), blocks=small, pixels=st.integers(1, 14), accumulate=st.booleans(), gap=st.integers(0, 5))
def test_drained_rows_name_each_pixel_once_backwards_by_block(
    rows: int, blocks: int, pixels: int, accumulate: bool, gap: int
) -> None:
    """Any gap between blocks; the rows a partial block lacks pass by without effect."""
    static = {"accumulate": int(accumulate), "tail": (pixels - 1) % rows + 1}
    cycles: list[Cycle] = [{**static, "start": 1, "base": 100}]
    wanted: dict[int, dict[str, int]] = {}
    for n, first in itertools.product(range(blocks), range(0, pixels, rows)):
        n_last = first + rows >= pixels
        final = n_last and n == blocks - 1
        tag_cycle = len(cycles)
        for pixel in range(first, min(first + rows, pixels)):
            row = {"address": 100 + n * pixels + pixel, "add": int(accumulate)}
            wanted[tag_cycle + rows - (pixel - first)] = row | {"final": int(final and pixel == first)}
        cycles.append({**static, "tag": {"valid": 1, "n_last": int(n_last), "final": int(final)}})
        cycles += [static] * (rows - 1 + gap)
    cycles += [static] * (rows + 2)
    for index, cycle in enumerate(run(DrainedRows(rows), cycles, ["row"])):
        assert cycle["row"].valid == (index in wanted)
        if index in wanted:
            assert {name: cycle["row"][name] for name in wanted[index]} == wanted[index]
