"""Resizing by interpolation, one axis after the other, as ONNX Resize defines it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.ir.windows import Array

FloatArray = npt.NDArray[np.float32]
F32 = np.float32

#: Where output position x lies in the input, from (x, input size, output size, scale), all float32 as in onnxruntime.
COORDINATES: dict[str, Callable[[FloatArray, int, int, np.float32], FloatArray]] = {
    "half_pixel": lambda x, before, after, scale: (x + F32(0.5)) / scale - F32(0.5),
    "half_pixel_symmetric": lambda x, before, after, scale: (
        F32(before / 2) * (F32(1) - F32(after) / (scale * F32(before))) + (x + F32(0.5)) / scale - F32(0.5)
    ),
    "pytorch_half_pixel": lambda x, before, after, scale: (
        (x + F32(0.5)) / scale - F32(0.5) if after > 1 else np.zeros_like(x)
    ),
    "align_corners": lambda x, before, after, scale: (
        x * F32(before - 1) / F32(after - 1) if after > 1 else np.zeros_like(x)
    ),
    "asymmetric": lambda x, before, after, scale: x / scale,
}

#: Which input element "nearest" means.
ROUNDINGS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - F32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + F32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
MODES = ("nearest", "linear", "cubic")


def resize(x: Array, sizes: tuple[int, ...], attributes: Mapping[str, Any]) -> Array:
    """`x` resized to `sizes` (one per axis) by the attributes of a `resize` op."""
    for axis, (after, scale) in enumerate(zip(sizes, attributes["scales"], strict=True)):
        before = x.shape[axis]
        if after == before and scale == 1:
            continue
        at = COORDINATES[attributes["coordinates"]](np.arange(after, dtype=F32), before, after, F32(scale))
        if attributes["mode"] == "nearest":
            chosen = ROUNDINGS[attributes["rounding"]](at)
            x = np.take(x, np.clip(chosen, 0, before - 1).astype(np.int64), axis=axis)
        else:
            x = _interpolate(x, axis, *_taps(at, before, attributes))
    return x


def _taps(at: FloatArray, size: int, attributes: Mapping[str, Any]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Input positions and weights of each output position, shapes (outputs, taps)."""
    if attributes["mode"] == "linear":
        at = np.clip(at, 0, size - 1)
        low = np.floor(at).astype(np.int64)
        share = (at - low.astype(F32)).astype(F32)
        return np.stack([low, np.minimum(low + 1, size - 1)], 1), np.stack([1 - share, share], 1)
    low = np.floor(at).astype(np.int64)
    distance = np.abs((at - low)[:, None] - np.arange(-1, 3, dtype=F32))
    positions = low[:, None] + np.arange(-1, 3)
    weights = _cubic(distance, float(attributes["cubic_a"]))
    if attributes["exclude_outside"]:
        weights = np.where((positions < 0) | (positions >= size), F32(0), weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(positions, 0, size - 1), weights.astype(F32)


def _cubic(distance: FloatArray, a: float) -> FloatArray:
    """The cubic convolution kernel (Keys) with parameter a."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.asarray(np.where(distance <= 1, near, np.where(distance < 2, far, 0)), F32)


def _interpolate(x: Array, axis: int, positions: npt.NDArray[np.int64], weights: FloatArray) -> Array:
    last = np.moveaxis(x, axis, -1)
    result = sum(last[..., positions[:, tap]] * weights[:, tap] for tap in range(positions.shape[1]))
    return np.moveaxis(np.asarray(result, x.dtype), -1, axis)
