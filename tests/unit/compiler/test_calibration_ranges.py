"""Calibration: which part of what was seen the codes span, against slow and obvious oracles."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.compiler import (
    METHODS,
    Recipe,
    accuracy,
    calibrate,
    calibration_batches,
    calibration_images,
    observe_ranges,
    prepare,
    quantize,
)
from dse.compiler.calibration_ranges import histograms, mse_range, percentile_range, squared_error
from dse.core.errors import UsageError
from dse.ir import Graph, Op, Tensor
from dse.ir.reference import run_float
from workloads.zoo import ZooFrontend


def network() -> Graph:
    return prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))


def histogram(values: npt.NDArray[np.float64], bins: int = 512) -> tuple[npt.NDArray[np.int64], float, float]:
    low, high = float(values.min()), float(values.max())
    return np.histogram(values, bins, (low, high))[0], low, high


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([60.0, 90.0, 99.0, 99.9, 100.0]),
    st.sampled_from(["normal", "uniform", "exponential"]),
)
def test_percentile_cuts_where_sorting_would_to_within_two_bins(seed: int, percentile: float, law: str) -> None:
    rng = np.random.default_rng(seed)
    values = getattr(rng, law)(size=5000)
    counts, low, high = histogram(values)
    bin_width = (high - low) / len(counts)
    got_low, got_high = percentile_range(counts, low, high, percentile)
    ordered = np.sort(values)
    cut = int(np.floor(len(values) * (100 - percentile) / 100))
    assert got_low - 1e-9 <= ordered[cut] <= got_low + 2 * bin_width
    assert got_high + 1e-9 >= ordered[-1 - cut] >= got_high - 2 * bin_width
    assert (values < got_low - 1e-9).sum() <= cut
    assert (values > got_high + 1e-9).sum() <= cut


def test_percentile_of_one_value_in_two_far_clusters_keeps_a_range() -> None:
    counts = np.zeros(100, np.int64)
    counts[[0, 99]] = 1
    low, high = percentile_range(counts, -1.0, 1.0, 50.1)
    assert low < high


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.0, 30.0]))
@settings(max_examples=25)
def test_mse_is_never_worse_than_the_whole_range_and_near_the_best_of_a_grid(seed: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(size=4000), tail * rng.normal(size=8)])
    counts, low, high = histogram(values)
    edges = np.linspace(low, high, len(counts) + 1)
    centres, weights = (edges[1:] + edges[:-1]) / 2, counts.astype(np.float64)
    found = squared_error(centres, weights, *mse_range(counts, low, high))
    assert found <= squared_error(centres, weights, min(low, 0), max(high, 0))
    shares = np.linspace(0.05, 1, 20)
    best = min(squared_error(centres, weights, low * a, high * b) for a, b in itertools.product(shares, shares))
    assert found <= best * 1.05


def test_mse_gives_up_a_lone_extreme_and_percentile_too() -> None:
    values = np.append(np.random.default_rng(0).normal(size=1_000_000), 30.0)
    counts, low, high = histogram(values, 4096)
    # 30 codes too wide for a million values cost more than one value cut to half
    assert mse_range(counts, low, high)[1] < 25
    assert percentile_range(counts, low, high, 99.99)[1] < 5


def test_squared_error_is_that_of_the_quantizer() -> None:
    values = np.random.default_rng(1).uniform(-2, 5, 1000)
    low, high = -1.0, 3.0
    step = (high - low) / 255
    codes = [min(max(round(v / step), round(low / step)), round(low / step) + 255) for v in values]
    slow = sum((v - c * step) ** 2 for v, c in zip(values, codes, strict=True))
    assert squared_error(values, np.ones(1000), low, high) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_calibration_does_not_depend_on_how_the_samples_are_cut(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    images = calibration_images(graph, 7, 2)
    whole = calibrate(graph, images, method, 99.0)
    monkeypatch.setattr(calibration_batches, "_BATCH_ELEMENTS", 20_000)
    parts = calibrate(graph, images, method, 99.0)
    assert whole.keys() == parts.keys()
    for name, (low, high) in whole.items():
        # a last digit of a float32 may move a value across the edge of a bin, and a bound by a bin or a share
        np.testing.assert_allclose(parts[name], (low, high), atol=0.03 * (high - low))


def test_methods_narrow_ranges_and_never_widen_them_beyond_zero() -> None:
    graph = network()
    images = calibration_images(graph, 16, 3)
    seen = observe_ranges(graph, images)
    for method in ("percentile", "mse"):
        ranges = calibrate(graph, images, method, 99.0)
        assert any(ranges[name] != seen[name] for name in seen)
        for name, (low, high) in ranges.items():
            assert min(seen[name][0], 0) - 1e-6 <= low <= high <= max(seen[name][1], 0) + 1e-6


def test_histograms_hold_every_value() -> None:
    graph = network()
    images = calibration_images(graph, 5, 4)
    counts = histograms(graph, images, observe_ranges(graph, images))
    values = run_float(graph, images, keep=True)
    assert {name: int(item.sum()) for name, item in counts.items()} == {
        name: array.size for name, array in values.items() if array.min() < array.max()
    }


def test_constant_and_unusable_tensors_keep_what_was_seen() -> None:
    tensors = {
        "x": Tensor("x", (1, 2)), "y": Tensor("y", (1, 1)), "w": Tensor("w", (1, 2), data=np.zeros((1, 2), np.float32)),
    }  # fmt: skip
    graph = Graph("net", tensors, (Op("layer", "gemm", ("x", "w"), ("y",), {"activation": "none"}),), ("x",), ("y",))
    ranges = calibrate(graph, {"x": np.array([[1, 2], [3, 4]], np.float32)}, "mse")
    assert ranges["y"] == (0, 0)
    bad = {"x": np.array([[1, np.nan], [3, 4]], np.float32)}
    assert np.isnan(calibrate(graph, bad, "percentile")["x"]).any()


def test_outliers_in_calibration_cost_min_max_much_and_percentile_little() -> None:
    graph = network()
    images = {name: array.copy() for name, array in calibration_images(graph, 32, 5).items()}
    name = next(iter(images))
    test = calibration_images(graph, 16, 6)
    images[name][0].flat[:3] = 40.0
    wide, cut = (
        accuracy(graph, quantize(graph, images, recipe), "ort", test)["sqnr_db"]
        for recipe in (Recipe(), Recipe("percentile", 99.9))
    )
    assert cut > wide + 3


def test_refusals_name_the_nearest_choice() -> None:
    graph = network()
    images = calibration_images(graph, 2, 0)
    with pytest.raises(UsageError, match=r"'percentil' is not a calibration method; did you mean 'percentile'"):
        calibrate(graph, images, "percentil")
    for percentile in (50, 101, float("nan")):
        with pytest.raises(UsageError, match="percentile must lie above 50"):
            calibrate(graph, images, "percentile", percentile)
    with pytest.raises(UsageError, match="at least 1 sample"):
        calibrate(graph, {"input": np.zeros((0, 1, 8, 8), np.float32)})
    with pytest.raises(UsageError, match="as many samples each"):
        calibrate(graph, {"a": np.zeros((1, 2)), "b": np.zeros((2, 2))})
