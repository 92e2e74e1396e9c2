"""16-bit fixed-point exponential, logistic and tanh of gemmlowp: the gate functions of TFLite's integer LSTM.

A number with i integer bits stands for raw / 2**(15 - i). Only multiplications round (`doubling_high_mul`). Constants
are gemmlowp's (fixedpoint/fixedpoint.h), which gives them for 32 bits; they are rounded to 16. Arrays are int64 and
hold raw values. Equal to LiteRT through whole LSTMs (tests/conformance/test_litert_ops.py).
"""

from __future__ import annotations

import numpy as np

from dse.ir.requantize_tflite import INT16_LIMITS, IntArray, doubling_high_mul, rounding_shift_right

_WIDTH = 16
_ONE = (1 << (_WIDTH - 1)) - 1


def _constant(value: int) -> int:
    """A 32-bit constant in 16 bits, rounded half away from zero."""
    return int(rounding_shift_right(np.asarray(value, np.int64), 32 - _WIDTH))


#: (exponent e, exp(-2**e) without integer bits): the factors that build exp of the integer part.
_EXP_FACTORS = tuple(
    (exponent, _constant(value))
    for exponent, value in (
        (-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242),
    )
)  # fmt: skip
_EXP_MINUS_EIGHTH, _ONE_THIRD = _constant(1895147668), _constant(715827883)
_48_OVER_17, _MINUS_32_OVER_17 = _constant(1515870810), _constant(-1010580540)


def _product(a: IntArray, b: IntArray | int) -> IntArray:
    return doubling_high_mul(a, b, _WIDTH)


def _times_power_of_two(value: IntArray, exponent: int) -> IntArray:
    """SaturatingRoundingMultiplyByPOT."""
    return np.clip(value << exponent, *INT16_LIMITS) if exponent >= 0 else rounding_shift_right(value, -exponent)


def _exp_near_zero(a: IntArray) -> IntArray:
    """exp of numbers in [-1/4, 0) without integer bits: a Taylor series around -1/8."""
    x = a + (1 << (_WIDTH - 1 - 3))
    x2 = _product(x, x)
    x3 = _product(x2, x)
    x4_over_4 = _times_power_of_two(_product(x2, x2), -2)
    inner = _product(x4_over_4 + x3, _ONE_THIRD) + x2
    series = _product(x + _times_power_of_two(inner, -1), _EXP_MINUS_EIGHTH)
    return np.clip(_EXP_MINUS_EIGHTH + series, *INT16_LIMITS)


def exp_of_negative(a: IntArray, integer_bits: int) -> IntArray:
    """exp(a) for a <= 0 with `integer_bits` (0..7), as a number without integer bits."""
    fraction_bits = _WIDTH - 1 - integer_bits
    one_quarter = 1 << (fraction_bits - 2)
    reduced = (a & (one_quarter - 1)) - one_quarter
    result = _exp_near_zero(_times_power_of_two(reduced, integer_bits))
    remainder = reduced - a
    for exponent, factor in _EXP_FACTORS:
        if integer_bits > exponent:
            bit = np.int64(1) << (fraction_bits + exponent)
            result = np.where((remainder & bit) != 0, _product(result, factor), result)
    if integer_bits > 5:
        result = np.where(a < -(1 << (fraction_bits + 5)), 0, result)
    return np.where(a == 0, _ONE, result)


def _reciprocal_of_half_sum(a: IntArray) -> IntArray:
    """1 / ((1 + a) / 2) for a in [0, 1], with two integer bits: three Newton-Raphson steps."""
    half_denominator = (a + _ONE + 1) >> 1
    x = _48_OVER_17 + _product(half_denominator, _MINUS_32_OVER_17)
    for _ in range(3):
        error = (1 << (_WIDTH - 3)) - _product(half_denominator, x)
        x = x + _times_power_of_two(_product(x, error), 2)
    return x


def logistic(a: IntArray, integer_bits: int) -> IntArray:
    """1 / (1 + exp(-a)) as a number without integer bits."""
    positive = _times_power_of_two(_reciprocal_of_half_sum(exp_of_negative(-np.abs(a), integer_bits)), 1)
    return np.where(a == 0, 1 << (_WIDTH - 2), np.where(a > 0, positive, _ONE - positive))


def tanh(a: IntArray, integer_bits: int) -> IntArray:
    """tanh(a) as a number without integer bits, for `integer_bits` 0..6."""
    # doubling the argument costs an integer bit and no arithmetic
    powers = exp_of_negative(-np.abs(a), integer_bits + 1)
    positive = _times_power_of_two(_reciprocal_of_half_sum(powers) - (1 << (_WIDTH - 3)), 2)
    return np.where(a == 0, 0, np.where(a > 0, positive, -positive))
