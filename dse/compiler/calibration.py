"""Seeded synthetic inputs to calibrate and judge a quantization with, where a user gives none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.core.errors import UsageError
from dse.ir.graph import Graph

FloatArray = npt.NDArray[np.float32]


def calibration_images(graph: Graph, count: int = 32, seed: int = 0) -> dict[str, FloatArray]:
    """Seeded synthetic inputs, float32, shape (count, ...) for every input of `graph`.

    Feature maps are smooth noise: random fields at 2, 4, 8, ... cells a side, bilinearly enlarged and added with
    amplitude falling as 1 / cells (the spectrum of natural images), with a contrast and an offset per image and a
    tint per channel, squashed into -1 .. 1 by tanh. Independent pixels would average out in every pool and
    understate the ranges. Inputs of other ranks are standard normal.

    Raises
    ------
    UsageError: count is not positive.
    """
    if count < 1:
        raise UsageError(f"calibration needs at least 1 image, got {count}")
    rng = np.random.default_rng(seed)
    images: dict[str, FloatArray] = {}
    for name in graph.inputs:
        shape = (count, *graph[name].shape[1:])
        images[name] = _smooth_noise(rng, shape) if len(shape) == 4 else rng.standard_normal(shape, np.float32)
    return images


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    count, channels, height, width = shape
    field = np.zeros(shape, np.float32)
    cells = 2
    while cells <= 2 * max(height, width):
        coarse = rng.standard_normal((count, channels, cells, cells), np.float32) / np.float32(cells)
        field += _enlarge(_enlarge(coarse, height, 2), width, 3)
        cells *= 2
    field /= field.std(axis=(1, 2, 3), keepdims=True) + np.float32(1e-6)
    contrast = rng.uniform(0.5, 1.5, (count, 1, 1, 1)).astype(np.float32)
    offset = rng.normal(0, 0.3, (count, 1, 1, 1)) + rng.normal(0, 0.2, (count, channels, 1, 1))
    # pixels are bounded: without this, rare extremes of unseen images would saturate
    return np.asarray(np.tanh(field * contrast + offset.astype(np.float32)), np.float32)


def _enlarge(field: FloatArray, size: int, axis: int) -> FloatArray:
    """Linear interpolation along `axis` to `size` samples."""
    cells = field.shape[axis]
    at = np.linspace(0, cells - 1, size, dtype=np.float32)
    low = np.minimum(at.astype(np.int64), cells - 2)
    share = (at - low).astype(np.float32).reshape([-1 if index == axis else 1 for index in range(field.ndim)])
    return np.asarray(np.take(field, low, axis) * (1 - share) + np.take(field, low + 1, axis) * share)
