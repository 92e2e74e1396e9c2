"""Tilings cover their layers, reductions keep every product, and the chooser picks near the true optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from builders import random_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.systolic import chooser, lower
from accelerators.systolic.chooser import choose, tile_sizes
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.layer import Layer, layer_of
from accelerators.systolic.partition import partition
from accelerators.systolic.reduction import direct, direct_runs, gather, gather_runs, weight_blocks
from accelerators.systolic.tiling import ORDERS, Tiling, grid, split
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, UsageError
from dse.sim import simulate_a


@given(st.integers(1, 200), st.integers(1, 220), st.booleans(), st.booleans())
def test_segments_cover_the_extent_once(extent: int, tile: int, first: bool, last: bool) -> None:
    covered = []
    index = 0
    for segment in split(extent, tile, peel_first=first, peel_last=last):
        assert segment.first == index
        for i in range(segment.count):
            start = segment.start + i * segment.size
            covered += range(start, start + segment.size)
        index += segment.count
    assert covered == list(range(extent))
    if index > 1 and first:
        assert split(extent, tile, peel_first=first, peel_last=last)[0].count == 1


@given(st.integers(1, 3000))
def test_tile_sizes_hold_the_whole_and_the_single(extent: int) -> None:
    sizes = tile_sizes(extent)
    assert sizes[0] == 1
    assert sizes[-1] == extent
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("seed", range(60))
def test_reduction_words_times_weight_words_are_the_convolution(seed: int) -> None:
    """Words built from the load runs, times the packed weights, give each output of a plain convolution."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["conv", "conv", "grouped"]))
    graph = random_layer(rng, kind=kind)
    layer = layer_of(graph, graph.ops[0], "x")
    rows, columns = int(rng.integers(2, 20)), int(rng.integers(2, 9))
    weights = graph["w"].data
    assert weights is not None
    top, left, bottom, right = layer.pads
    image = rng.integers(-128, 128, (layer.height, layer.width, layer.in_channels)).astype(np.int64)
    padded = np.pad(image, ((top, bottom + 4), (left, right + 4), (0, 0)))
    pitch = padded.shape[1] * layer.in_channels
    flat = padded.ravel()
    for reduction in (direct(layer, rows), gather(layer, rows)):
        if reduction is None:
            continue
        blocks = weight_blocks(layer, reduction, weights, columns).astype(np.int64)
        runs = (gather_runs if reduction.gather else direct_runs)(layer, rows, 0, reduction.words)
        for y, x in itertools.product(range(layer.out_height), range(layer.out_width)):
            total = np.zeros((blocks.shape[0], columns), np.int64)
            for r, s in itertools.product(range(reduction.kernel[0]), range(reduction.kernel[1])):
                row = y * layer.strides[0] + (0 if reduction.gather else r * layer.dilations[0])
                column = x * layer.strides[1] + (0 if reduction.gather else s * layer.dilations[1])
                words = rng.integers(-128, 128, (reduction.words, rows))  # junk where no run writes
                for run in runs:
                    for i in range(run.words):
                        line = run.kernel_row + i * run.row_step
                        at = (row + line) * pitch + column * layer.in_channels + run.source + i * run.source_step
                        words[run.first + i, run.byte_offset : run.byte_offset + run.bytes] = flat[at : at + run.bytes]
                total += np.einsum("wr,nwrc->nc", words, blocks[:, r, s])
            expected = _convolve_at(layer, weights.astype(np.int64), padded, y, x)
            np.testing.assert_array_equal(total.ravel()[: layer.out_channels], expected)
            assert not total.ravel()[layer.out_channels :].any()


def _convolve_at(layer: Layer, weights: np.ndarray, padded: np.ndarray, y: int, x: int) -> np.ndarray:
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    result = np.zeros(layer.out_channels, np.int64)
    for o in range(layer.out_channels):
        low = o // per_out * per_in
        for r, s in itertools.product(range(layer.kernel[0]), range(layer.kernel[1])):
            pixel = padded[y * layer.strides[0] + r * layer.dilations[0], x * layer.strides[1] + s * layer.dilations[1]]
            result[o] += int(pixel[low : low + per_in] @ weights[o, :, r, s])
    return result


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("seed", range(6))
def test_chooser_is_near_the_exact_optimum_of_its_space(
    seed: int, dataflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against simulating every candidate exactly: at most 8 % slower than the best."""
    rng = np.random.default_rng(seed)
    graph = random_layer(rng, kind="conv")
    hw = SystolicHardware(
        rows=4, columns=4, dataflow=dataflow, activation_kib=0.5, weight_kib=0.5, accumulator_kib=0.25,
        vector_lanes=2, memory_bytes_per_cycle=4, descriptors=4096, requantize="ort",
    )  # fmt: skip
    target = machine(hw)
    layer = partition(graph, fuse_residual=False).work[0]
    assert isinstance(layer, Layer)
    chosen = choose(layer, target, "latency", True)
    best = None
    for reduction in filter(None, (direct(layer, 4), gather(layer, 4))):
        sizes = [
            tile_sizes(extent)
            for extent in (-(-layer.out_channels // 4), layer.out_height, layer.out_width, reduction.words)
        ]
        for order, (n, y, x, k) in itertools.product(ORDERS, itertools.product(*sizes)):
            tiling = Tiling(reduction, order, n, y, x, k)
            cycles = _exact_cycles(graph, hw, tiling, monkeypatch)
            if cycles is not None and (best is None or cycles < best):
                best = cycles
    assert best is not None
    picked = _exact_cycles(graph, hw, chosen, monkeypatch)
    assert picked is not None
    assert picked <= 1.08 * best


def _exact_cycles(graph, hw: SystolicHardware, tiling: Tiling, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Level A of a layer under a forced tiling; None when it does not fit."""
    target = machine(hw)
    layer = partition(graph, fuse_residual=False).work[0]
    assert isinstance(layer, Layer)
    tiles = grid(layer, tiling, target.rows, target.columns)
    size = tuple(np.array([v], np.int64) for v in (tiling.n, tiling.y, tiling.x, tiling.k))
    loads = [np.array([tiles.loads(name)], np.int64) for name in ("w", "a", "out")]
    fits = chooser._fits(layer, target, tiling.reduction, size, *loads)
    if not fits[0] or max(tiles.reuse("a"), tiles.reuse("w")) > chooser.MAX_REUSE:
        return None
    monkeypatch.setattr(lower, "choose", lambda *_: tiling)
    executable = SystolicExecutable(graph, hw, Decisions(), lower.lower(graph, hw, Decisions()))
    return simulate_a(executable.task_graph()).total_cycles


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_more_memory_never_slows_the_chosen_tiling_by_its_own_estimate(seed: int) -> None:
    """The space of a larger scratchpad contains that of a smaller one."""
    rng = np.random.default_rng(seed)
    graph = random_layer(rng)
    layer = layer_of(graph, graph.ops[0], "x")
    small = SystolicHardware(rows=4, columns=4, activation_kib=1, weight_kib=1, accumulator_kib=0.25)
    large = small.model_copy(update={"activation_kib": 4.0, "weight_kib": 4.0, "accumulator_kib": 1.0})
    scores = []
    for hw in (small, large):
        target = machine(hw)
        found = [
            chooser._best_of(layer, target, reduction, order, "latency")
            for reduction in filter(None, (direct(layer, 4), gather(layer, 4)))
            for order in ORDERS
        ]
        feasible = [item[0] for item in found if item is not None]
        scores.append(min(feasible) if feasible else float("inf"))
    assert scores[1] <= scores[0]


def test_infeasible_layers_say_which_memory_and_by_how_much() -> None:
    graph = random_layer(np.random.default_rng(0), kind="conv")
    hw = SystolicHardware(rows=8, columns=8, weight_kib=0.03, activation_kib=8)
    with pytest.raises(InfeasibleError, match="weight_kib") as caught:
        lower.lower(graph, hw, Decisions())
    assert caught.value.violations[0].excess > 0


def test_unknown_decisions_are_refused_with_the_nearest_name() -> None:
    graph = random_layer(np.random.default_rng(0))
    with pytest.raises(UsageError, match="did you mean 'gather'"):
        lower.lower(graph, SystolicHardware(), Decisions({"gathr": True}))
    with pytest.raises(UsageError, match="mapping_objective 'speed'"):
        lower.lower(graph, SystolicHardware(), Decisions({"mapping_objective": "speed"}))
