"""The ranges a network's tensors take on calibration samples, and which part of them int8 codes should span.

`minmax` spans everything that was seen. `percentile` cuts the rare extremes of both ends. `mse` spans what makes the
mean squared error of quantization smallest: saturating a few extremes against rounding all others finer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.compiler.calibration_batches import batches
from dse.compiler.quantize_recurrent import observe_recurrent
from dse.core.errors import UsageError, nearest
from dse.ir.graph import Graph
from dse.ir.kinds import RECURRENT_KINDS
from dse.ir.reference import run_float

Ranges = dict[str, tuple[float, float]]
Counts = npt.NDArray[np.int64]

METHODS = ("minmax", "percentile", "mse")
#: Share of the values (percent) that `percentile` keeps below its upper and above its lower bound.
DEFAULT_PERCENTILE = 99.99
#: Codes of an int8 tensor, less one.
STEPS = 255
#: Bins of a histogram: 16 a code of the widest range, so that a range cut to a quarter still has 4 a code.
_BINS = 16 * (STEPS + 1)
#: Bounds that `mse` tries for each end, as shares of what was seen.
_SHARES = np.linspace(1, 0.02, 50)
#: Rounds of its search over one end after the other; a third never changed a range of our networks.
_ROUNDS = 2


def calibrate(
    graph: Graph,
    inputs: Mapping[str, npt.NDArray[Any]],
    method: str = "minmax",
    percentile: float = DEFAULT_PERCENTILE,
    wide: Collection[str] = (),
) -> Ranges:
    """The range of every non-constant tensor that int8 codes should span, by one of `METHODS`.

    Parameters
    ----------
    inputs
        Samples by input name, shape (samples, ...).
    percentile
        Read by method "percentile" alone; above 50, at most 100.
    wide
        Tensors of 16 bits: method "mse" leaves them everything that was seen, since rounding costs next to nothing.

    Raises
    ------
    UsageError: unknown method, percentile out of bounds, no samples.
    """
    check_method(method, percentile)
    ranges = observe_ranges(graph, inputs)
    if method == "minmax":
        return ranges
    counts = histograms(graph, inputs, ranges)
    for name, (low, high) in ranges.items():
        if name in counts:
            if method == "percentile":
                ranges[name] = percentile_range(counts[name], low, high, percentile)
            elif name not in wide:
                ranges[name] = mse_range(counts[name], low, high)
    return ranges


def check_method(method: str, percentile: float) -> None:
    """Nothing when both can be used.

    Raises
    ------
    UsageError: unknown method, or percentile not in (50, 100].
    """
    if method not in METHODS:
        raise UsageError(f"{method!r} is not a calibration method{nearest(method, METHODS)}")
    if not 50 < percentile <= 100:
        raise UsageError(f"percentile must lie above 50 and be at most 100, not {percentile:g}; such as 99.99")


def observe_ranges(graph: Graph, inputs: Mapping[str, npt.NDArray[Any]]) -> Ranges:
    """Smallest and largest value of every non-constant tensor over all samples, and of what is inside recurrent
    layers (`dse.compiler.quantize_recurrent.inner_name`)."""
    ranges: Ranges = {}
    for part in batches(graph, inputs):
        found = run_float(graph, {key: array[part] for key, array in inputs.items()}, keep=True)
        seen = {name: (float(values.min()), float(values.max())) for name, values in found.items()}
        for op in graph.ops:
            if op.kind in RECURRENT_KINDS:
                operands = [found.get(name, graph[name].data) if name else None for name in op.inputs]
                seen |= {name: (-most, most) for name, most in observe_recurrent(op, operands).items()}
        for name, (low, high) in seen.items():
            lowest, highest = ranges.get(name, (math.inf, -math.inf))
            # np.minimum, unlike min, hands on what is not a number
            ranges[name] = float(np.minimum(low, lowest)), float(np.maximum(high, highest))
    return ranges


def histograms(graph: Graph, inputs: Mapping[str, npt.NDArray[Any]], ranges: Ranges) -> dict[str, Counts]:
    """How often each tensor takes values in each of `_BINS` equal parts of its range, int64, shape (_BINS,).

    Tensors of one single value, or of values not finite, have no histogram.
    """
    found: dict[str, Counts] = {}
    usable = {name for name, (low, high) in ranges.items() if np.isfinite(high - low) and high - low > 1e-30}
    for part in batches(graph, inputs):
        for name, values in run_float(graph, {key: array[part] for key, array in inputs.items()}, keep=True).items():
            if name in usable:
                counts = np.histogram(values, _BINS, ranges[name])[0]
                found[name] = found.get(name, np.zeros(_BINS, np.int64)) + counts
    return found


def percentile_range(counts: Counts, low: float, high: float, percentile: float) -> tuple[float, float]:
    """The narrowest range of whole bins with at least `percentile` percent of the values on the inner side of each end.

    Parameters
    ----------
    counts : int64, shape (bins,)
        Histogram over [low, high].
    """
    edges = np.linspace(low, high, len(counts) + 1)
    # one sample less than the share, so that rounding of the share never cuts one too many
    cut = math.floor(int(counts.sum()) * (100 - percentile) / 100)
    first = int(np.searchsorted(np.cumsum(counts), cut, side="right"))
    last = len(counts) - int(np.searchsorted(np.cumsum(counts[::-1]), cut, side="right"))
    return (float(edges[first]), float(edges[last])) if first < last else (low, high)


def mse_range(counts: Counts, low: float, high: float) -> tuple[float, float]:
    """The range whose int8 quantization has the smallest squared error over a histogram.

    Each end moves towards zero through 50 shares of what was seen, one end after the other.

    Parameters
    ----------
    counts : int64, shape (bins,)
        Histogram over [low, high].
    """
    edges = np.linspace(low, high, len(counts) + 1)
    occupied = counts > 0
    centres, weights = ((edges[1:] + edges[:-1]) / 2)[occupied], counts[occupied].astype(np.float64)
    best_low, best_high = min(low, 0.0), max(high, 0.0)
    least = squared_error(centres, weights, best_low, best_high)
    for _ in range(_ROUNDS):
        for share in _SHARES:
            for bounds in ((best_low, max(high, 0.0) * share), (min(low, 0.0) * share, best_high)):
                error = squared_error(centres, weights, *bounds) if bounds[0] < bounds[1] else math.inf
                if error < least:
                    least, (best_low, best_high) = error, bounds
    return best_low, best_high


def squared_error(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], low: float, high: float) -> float:
    """Weighted sum of squared errors of values quantized to 256 codes over [low, high], which holds 0."""
    step = (high - low) / STEPS
    codes = np.clip(np.rint(values / step), np.rint(low / step), np.rint(low / step) + STEPS)
    return float((weights * np.square(values - codes * step)).sum())
