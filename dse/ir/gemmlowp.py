"""Fixed-point exponential, logistic and tanh of gemmlowp, the arithmetic behind TFLite's integer activations.

A number of `width` bits with `integer_bits` i stands for raw / 2**(width - 1 - i). Only the multiplications round;
they are `doubling_high_mul`. Constants are gemmlowp's (fixedpoint/fixedpoint.h), given for 32 bits and rounded for 16.
Arrays are int64 and hold the raw values.
"""

from __future__ import annotations

import numpy as np

from dse.ir.requantize_tflite import IntArray, doubling_high_mul, multiply, rounding_shift_right

#: (exponent e, exp(-2**e) with no integer bit): the factors that build exp of the integer part.
_EXP_FACTORS = (
    (-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242),
)  # fmt: skip
_EXP_MINUS_EIGHTH, _ONE_THIRD = 1895147668, 715827883
_48_OVER_17, _MINUS_32_OVER_17 = 1515870810, -1010580540
#: int8 LOGISTIC and TANH compute on inputs with four integer bits.
_ACTIVATION_INTEGER_BITS = 4


def _constant(value: int, width: int) -> int:
    """A 32-bit constant in `width` bits, rounded half away from zero and saturated."""
    if width == 32:
        return value
    return min(int(rounding_shift_right(np.asarray(value, np.int64), 32 - width)), (1 << (width - 1)) - 1)


def _saturate(value: IntArray, width: int) -> IntArray:
    return np.clip(value, -(1 << (width - 1)), (1 << (width - 1)) - 1)


def _multiply_pot(value: IntArray, exponent: int, width: int) -> IntArray:
    """SaturatingRoundingMultiplyByPOT: value * 2**exponent."""
    return _saturate(value << exponent, width) if exponent >= 0 else rounding_shift_right(value, -exponent)


def _half_sum(a: IntArray, b: int) -> IntArray:
    """RoundingHalfSum: (a + b) / 2, halves away from zero."""
    total = a + b
    return np.asarray(np.sign(total) * ((np.abs(total) + 1) >> 1), np.int64)


def _exp_near_zero(a: IntArray, width: int) -> IntArray:
    """exp of numbers in [-1/4, 0) without integer bits: a Taylor series around -1/8."""
    constant = _constant(_EXP_MINUS_EIGHTH, width)
    x = a + (1 << (width - 1 - 3))
    x2 = doubling_high_mul(x, x, width)
    x3 = doubling_high_mul(x2, x, width)
    x4_over_4 = _multiply_pot(doubling_high_mul(x2, x2, width), -2, width)
    inner = doubling_high_mul(x4_over_4 + x3, _constant(_ONE_THIRD, width), width) + x2
    series = doubling_high_mul(x + _multiply_pot(inner, -1, width), constant, width)
    return _saturate(constant + series, width)


def exp_of_negative(a: IntArray, integer_bits: int, width: int) -> IntArray:
    """exp(a) for a <= 0 with `integer_bits`, as a number without integer bits."""
    fraction_bits = width - 1 - integer_bits
    one_quarter = 1 << (fraction_bits - 2)
    reduced = (a & (one_quarter - 1)) - one_quarter
    result = _exp_near_zero(_multiply_pot(reduced, integer_bits, width), width)
    remainder = reduced - a
    for exponent, factor in _EXP_FACTORS:
        if integer_bits > exponent:
            bit = np.int64(1) << (fraction_bits + exponent)
            scaled = doubling_high_mul(result, _constant(factor, width), width)
            result = np.where((remainder & bit) != 0, scaled, result)
    if integer_bits > 5:
        result = np.where(a < -(1 << (fraction_bits + 5)), 0, result)
    return np.where(a == 0, (1 << (width - 1)) - 1, result)


def _reciprocal_of_half_sum(a: IntArray, width: int) -> IntArray:
    """1 / ((1 + a) / 2) for a in [0, 1], with two integer bits: three Newton-Raphson steps."""
    half_denominator = _half_sum(a, (1 << (width - 1)) - 1)
    x = _constant(_48_OVER_17, width) + doubling_high_mul(
        half_denominator, _constant(_MINUS_32_OVER_17, width), width
    )
    one = 1 << (width - 3)
    for _ in range(3):
        error = one - doubling_high_mul(half_denominator, x, width)
        x = x + _multiply_pot(doubling_high_mul(x, error, width), 2, width)
    return x


def logistic(a: IntArray, integer_bits: int, width: int) -> IntArray:
    """1 / (1 + exp(-a)) as a number without integer bits."""
    one = (1 << (width - 1)) - 1
    powers = exp_of_negative(-np.abs(a), integer_bits, width)
    positive = _multiply_pot(_reciprocal_of_half_sum(powers, width), 1, width)
    return np.where(a == 0, 1 << (width - 2), np.where(a > 0, positive, one - positive))


def tanh(a: IntArray, integer_bits: int, width: int) -> IntArray:
    """tanh(a) as a number without integer bits."""
    # doubling the argument costs an integer bit and no arithmetic
    powers = exp_of_negative(-np.abs(a), integer_bits + 1, width)
    positive = _multiply_pot(_reciprocal_of_half_sum(powers, width) - (1 << (width - 3)), 2, width)
    return np.where(a == 0, 0, np.where(a > 0, positive, -positive))
