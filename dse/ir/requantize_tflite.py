"""Integer arithmetic of TFLite's reference kernels (mode `tflite`), vectorised.

Every rule is the one of LiteRT run with `BUILTIN_REF` kernels and is held to them bit for bit
(tests/conformance/test_litert_ops.py). A scale becomes a 31-bit multiplier and an exponent, and a product is rounded
twice: once when its upper half is taken, once when that half is shifted right (a dense layer rounds once). LiteRT's
optimised kernels and XNNPACK round elsewhere and may differ by some units in the last place.

All functions take and return int64 arrays that hold int32 values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dse.ir.graph import Quantization, scalar_scale

IntArray = npt.NDArray[np.int64]

INT8_LIMITS = (-128, 127)
UINT8_LIMITS = (0, 255)
INT16_LIMITS = (-32768, 32767)
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
#: Left shift of both operands of an ADD before they are scaled (`kernels/add.cc`, int8).
ADD_LEFT_SHIFT = 20


def round_half_away(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """std::round: halves away from zero, in the dtype of `values`."""
    array = np.asarray(values)
    whole = np.trunc(array)
    # exact: the difference of a float and its integer part is representable
    return np.asarray(whole + np.copysign(np.abs(array - whole) >= 0.5, array), array.dtype)


def quantize_multiplier(scale: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """Non-negative real scales -> (multiplier, exponent) with scale ~ multiplier * 2**(exponent - 31).

    Scales below 2**-32 become 0, as in `QuantizeMultiplier` of kernels/internal/quantization_util.cc.

    Raises
    ------
    ValueError: a scale is negative, not finite, or 2**30 and above.
    """
    values = np.asarray(scale, np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or (values >= 1 << 30).any():
        raise ValueError(f"requantization scales must lie in 0..2**30, got {values.ravel().max():g}")
    mantissa, exponent = np.frexp(values)
    multiplier = round_half_away(np.ldexp(mantissa, 31)).astype(np.int64)
    overflow = multiplier == 1 << 31
    multiplier = np.where(overflow, multiplier >> 1, multiplier)
    exponent = exponent.astype(np.int64) + overflow
    vanished = exponent < -31
    return np.where(vanished, 0, multiplier), np.where(vanished, 0, exponent)


def doubling_high_mul(a: IntArray, b: npt.ArrayLike, bits: int = 32) -> IntArray:
    """gemmlowp's SaturatingRoundingDoublingHighMul for `bits`-wide operands: round(a * b / 2**(bits - 1)).

    The quotient is truncated after a nudge of half, so that halves go up for either sign.
    """
    factor = np.asarray(b, np.int64)
    product = np.asarray(a, np.int64) * factor
    half = np.int64(1) << (bits - 2)
    nudged = product + np.where(product >= 0, half, 1 - half)
    # C's division truncates towards zero
    result = np.sign(nudged) * (np.abs(nudged) >> (bits - 1))
    return np.asarray(np.minimum(result, (1 << (bits - 1)) - 1), np.int64)


def rounding_shift_right(value: IntArray, exponent: npt.ArrayLike) -> IntArray:
    """gemmlowp's RoundingDivideByPOT: value / 2**exponent, halves away from zero; exponent in 0..31."""
    exponent = np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (value < 0)
    return np.asarray((value >> exponent) + ((value & mask) > threshold), np.int64)


def _wrap_int32(value: IntArray) -> IntArray:
    return ((value - INT32_MIN) & 0xFFFFFFFF) + INT32_MIN


def multiply(value: IntArray, multiplier: npt.ArrayLike, exponent: npt.ArrayLike) -> IntArray:
    """MultiplyByQuantizedMultiplier: value * multiplier * 2**(exponent - 31), rounded twice; shapes broadcast."""
    exponent = np.asarray(exponent, np.int64)
    left = np.maximum(exponent, 0)
    # int32 overflow of the left shift wraps in the kernels
    shifted = _wrap_int32(np.asarray(value, np.int64) << left)
    return rounding_shift_right(doubling_high_mul(shifted, multiplier), np.maximum(-exponent, 0))


def multiply_once(value: IntArray, multiplier: npt.ArrayLike, exponent: npt.ArrayLike) -> IntArray:
    """value * multiplier * 2**(exponent - 31), rounded once, halves up: what LiteRT's dense layers do.

    Measured on LiteRT 2.3: with `multiply` 9 of 1,672 outputs of the MLPerf Tiny autoencoder's layers differ, with this
    none; for convolutions it is the other way round.
    """
    shift = 31 - np.asarray(exponent, np.int64)
    product = np.asarray(value, np.int64) * np.asarray(multiplier, np.int64)
    return np.asarray((product + (np.int64(1) << (shift - 1))) >> shift, np.int64)


def multiply_wide(value: IntArray, multiplier: npt.ArrayLike, exponent: npt.ArrayLike) -> IntArray:
    """MultiplyByQuantizedMultiplier of a 64-bit value, as behind 16-bit activations: the multiplier reduced to 15 bits,
    value * multiplier * 2**(exponent - 15) rounded once, halves up; |value| below 2**47; shapes broadcast.

    Raises
    ------
    ValueError: an exponent above 7, for which the kernels have no bits left.
    """
    whole, exponent = np.asarray(multiplier, np.int64), np.asarray(exponent, np.int64)
    if (exponent > 7).any():
        raise ValueError(f"a requantization scale of 2**{int(exponent.max()) - 1} or more exceeds 2**7")
    reduced = np.where(whole < 0x7FFF0000, (whole + (1 << 15)) >> 16, 0x7FFF)
    shift = 15 - exponent
    return np.asarray((np.asarray(value, np.int64) * reduced + (np.int64(1) << (shift - 1))) >> shift, np.int64)


def layer_scales(x: Quantization, weight: Quantization, y: Quantization, *, dense: bool) -> npt.NDArray[np.float64]:
    """Real multipliers of a convolution or dense layer, shape (M,) or (1,).

    A dense layer with one weight scale multiplies the input and weight scales in float32, everything else in float64
    (`GetQuantizedConvolutionMultipler` and `PopulateConvolutionQuantizationParams` of kernels/kernel_util.cc).
    """
    weights = np.asarray(weight.scale, np.float32)
    if dense and len(weights) == 1:
        product = (scalar_scale(x) * weights).astype(np.float64)
    else:
        product = np.float64(scalar_scale(x)) * weights.astype(np.float64)
    return np.asarray(product / np.float64(scalar_scale(y)), np.float64)


def add(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    of_a: Quantization,
    of_b: Quantization,
    y: Quantization,
    left_shift: int = ADD_LEFT_SHIFT,
) -> IntArray:
    """ADD: both operands on a common scale with `left_shift` more bits (int8: 20, int16: 15), summed and scaled back;
    zero point included."""
    scale_a, scale_b, scale_y = (np.float64(scalar_scale(item)) for item in (of_a, of_b, y))
    widest = 2 * max(scale_a, scale_b)
    total: IntArray = np.zeros((), np.int64)
    for values, quantization, scale in ((a, of_a, scale_a), (b, of_b, scale_b)):
        shifted = (values.astype(np.int64) - quantization.zero_point) << left_shift
        total = total + multiply(shifted, *quantize_multiplier(scale / widest))
    result = multiply(total, *quantize_multiplier(widest / ((1 << left_shift) * scale_y)))
    return result + y.zero_point


def mul(a: npt.NDArray[Any], b: npt.NDArray[Any], of_a: Quantization, of_b: Quantization, y: Quantization) -> IntArray:
    """MUL on int8 or int16, zero point included; the ratio of scales is computed in float32 as the kernel does."""
    ratio = np.float32(scalar_scale(of_a) * scalar_scale(of_b)) / scalar_scale(y)
    product = (a.astype(np.int64) - of_a.zero_point) * (b.astype(np.int64) - of_b.zero_point)
    return multiply(product, *quantize_multiplier(np.float32(ratio))) + y.zero_point


def rescale(values: npt.NDArray[Any], x: Quantization, y: Quantization) -> IntArray:
    """QUANTIZE from integers to integers (and RELU): values on the scale and zero point of `y`, unclamped."""
    ratio = np.float64(scalar_scale(x)) / np.float64(scalar_scale(y))
    return multiply(values.astype(np.int64) - x.zero_point, *quantize_multiplier(ratio)) + y.zero_point


def average(total: IntArray, count: npt.ArrayLike) -> IntArray:
    """AVERAGE_POOL_2D: total / count with halves away from zero, in raw integers (zero point included)."""
    count = np.asarray(count, np.int64)
    return np.asarray(np.sign(total) * ((np.abs(total) + count // 2) // count), np.int64)


def mean(total: IntArray, count: int, x: Quantization, y: Quantization) -> IntArray:
    """MEAN on int8 or int16: sums of `count` raw integers -> values on the scale of `y`, zero point included.

    The division by `count` is folded into the multiplier, with as many extra bits as the exponent allows.
    """
    multiplier, exponent = quantize_multiplier(np.float64(scalar_scale(x)) / np.float64(scalar_scale(y)))
    extra = min(count.bit_length() - 1, 32, 31 + int(exponent))
    folded = (int(multiplier) << extra) // count
    return multiply(total - x.zero_point * count, folded, int(exponent) - extra) + y.zero_point


def softmax(x: npt.NDArray[np.int8], of_x: Quantization, y: Quantization, beta: float, axis: int) -> IntArray:
    """SOFTMAX on int8: exponentials from a 256-entry float32 table, summed in order along `axis`.

    Source: `PopulateSoftmaxLookupTable` and `Softmax` of kernels/internal/optimized/optimized_ops.h, which LiteRT
    uses for int8 in its reference kernels too.
    """
    scale = np.float32(-scalar_scale(of_x) * np.float32(beta))
    # expf is correctly rounded but for rare last places; float64 rounded to float32 is the same
    table = np.exp((scale * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
    rows = np.moveaxis(x, axis, -1).astype(np.int64)
    powers = table[rows.max(axis=-1, keepdims=True) - rows]
    # cumsum adds in order, one float32 addition each; sum() would add pairwise
    total = np.cumsum(powers, axis=-1, dtype=np.float32)[..., -1:]
    inverse = np.float32(1) / (total * scalar_scale(y))
    result = np.floor((powers * inverse).astype(np.float64) + 0.5).astype(np.int64) + y.zero_point
    return np.moveaxis(np.clip(result, *INT8_LIMITS), -1, axis)


def activation(kind: str, x: npt.NDArray[np.int8], of_x: Quantization, y: Quantization) -> IntArray:
    """LOGISTIC (`sigmoid`) and TANH (`tanh`) on int8: a float32 function, rounded half away from zero, unclamped.

    LiteRT's reference kernels look both up in a table computed like this: 0 mismatches in 640,000 outputs each, while
    the fixed-point arithmetic of gemmlowp differs in one or two (tests/conformance/test_litert_ops.py samples it).
    """
    real = scalar_scale(of_x) * (x.astype(np.int32) - of_x.zero_point).astype(np.float32)
    if kind == "sigmoid":
        with np.errstate(over="ignore"):
            # infinite far below zero, as expf is; its reciprocal is the 0 that is wanted
            power = np.exp(-real.astype(np.float64)).astype(np.float32)
        result = np.float32(1) / (np.float32(1) + power)
    else:
        result = np.tanh(real.astype(np.float64)).astype(np.float32)
    return round_half_away(result * (np.float32(1) / scalar_scale(y))).astype(np.int64) + y.zero_point
