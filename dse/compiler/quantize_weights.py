"""Scales and integers of constant weights and biases: symmetric, per output channel or for a whole tensor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

#: Largest weight by weight bits: symmetric, so that the most negative code is never used.
WEIGHT_LIMITS = {8: 127, 4: 7}
#: Biases and sums of products each stay below half the int32 range, so that accumulators fit int32.
ACCUMULATOR_HALF = 1 << 30
#: Largest right shift that requantization encodes is 62 (`dse.ir.requantize`): scales down to 2**-30 are safe.
_SMALLEST_SCALE = 2.0**-30
#: Shares of the largest weight that method "mse" tries as the largest code; 4-bit optima lie between 0.5 and 0.9.
_SHARES = np.linspace(1, 0.3, 36)


def weight_scales(weight: Reals, bits: int, *, per_channel: bool, least_error: bool) -> Reals:
    """Scale of each output channel, before the floors of `bearable_scales`; the same for all unless `per_channel`.

    Parameters
    ----------
    weight : float64, shape (M, ...)
    bits
        A key of `WEIGHT_LIMITS`.
    least_error
        Choose the scale with the smallest squared error among 36 from 0.3 to 1 times that of the largest weight;
        otherwise the largest weight gets the largest code.

    Returns
    -------
    float64, shape (M,); 0 for a channel of zeros.
    """
    limit = WEIGHT_LIMITS[bits]
    rows = weight.reshape(len(weight), -1)
    groups = rows if per_channel else rows.reshape(1, -1)
    scales = np.abs(groups).max(axis=1) / limit
    if least_error:
        scales = _least_error(groups, scales, limit)
    return np.broadcast_to(scales, (len(weight),)).copy()


def _least_error(groups: Reals, widest: Reals, limit: int) -> Reals:
    best, least = widest.copy(), np.full(len(groups), np.inf)
    for share in _SHARES:
        scales = widest * share
        columns = np.where(scales > 0, scales, 1.0)[:, None]
        error = np.square(np.clip(np.rint(groups / columns), -limit, limit) * columns - groups).sum(axis=1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def bearable_scales(
    scales: Reals, bias: Reals | None, scale_x: float, scale_y: float, *, per_channel: bool
) -> npt.NDArray[np.float32]:
    """Scales raised where a channel of (nearly) no weights would overflow its bias or the requantizer's shift.

    Parameters
    ----------
    scales : float64, shape (M,)
    bias : float64, shape (M,), or None
    scale_x, scale_y
        Scales of the layer's input and output.

    Returns
    -------
    float32, shape (M,).
    """
    floor = np.full_like(scales, _SMALLEST_SCALE * scale_y / scale_x)
    if bias is not None:
        floor = np.maximum(floor, np.abs(bias) / scale_x / ACCUMULATOR_HALF)
    raised = np.maximum(scales, floor)
    return (raised if per_channel else np.full_like(raised, raised.max())).astype(np.float32)


def weight_integers(weight: Reals, scales: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.int8]:
    """Weights in units of their scale, rounded half to even and clipped to the range of `bits`."""
    limit = WEIGHT_LIMITS[bits]
    columns = scales.reshape((-1,) + (1,) * (weight.ndim - 1)).astype(np.float64)
    return np.clip(np.rint(weight / columns), -limit, limit).astype(np.int8)


def bias_integers(bias: Reals, scales: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Biases in units of their scale (input scale times weight scale), saturated to int32."""
    wide = np.rint(bias / scales.astype(np.float64))
    return np.clip(wide, -(1 << 31), (1 << 31) - 1).astype(np.int32)
