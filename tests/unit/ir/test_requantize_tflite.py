"""TFLite's integer arithmetic against the C code of its kernels, transcribed with Python's unbounded integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.ir import gemmlowp
from dse.ir import requantize_tflite as rules
from dse.ir.graph import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_quantized

int32s = st.integers(-(2**31), 2**31 - 1)
scales = st.floats(1e-9, 1e3)


def c_divide(a: int, b: int) -> int:
    """C's integer division: towards zero."""
    return abs(a) // b * (1 if a >= 0 else -1)


def high_mul(a: int, b: int) -> int:
    if a == b == -(2**31):
        return 2**31 - 1
    product = a * b
    return c_divide(product + (2**30 if product >= 0 else 1 - 2**30), 2**31)


def shift_right(value: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    return (value >> exponent) + int((value & mask) > (mask >> 1) + int(value < 0))


def array(value: int) -> rules.IntArray:
    return np.array([value], np.int64)


@given(int32s, int32s)
@settings(derandomize=True)
def test_high_mul_follows_the_c_code(a: int, b: int) -> None:
    assert rules.doubling_high_mul(array(a), b).tolist() == [high_mul(a, b)]


def test_high_mul_saturates_its_one_overflow() -> None:
    assert rules.doubling_high_mul(array(-(2**31)), -(2**31)).tolist() == [2**31 - 1]


@given(int32s, st.integers(0, 31))
@settings(derandomize=True)
def test_shift_right_rounds_halves_away_from_zero(value: int, exponent: int) -> None:
    exact = Fraction(value, 1 << exponent)
    away = math.floor(abs(exact) + Fraction(1, 2)) * (1 if value >= 0 else -1)
    got = rules.rounding_shift_right(array(value), exponent).tolist()
    assert got == [away] == [shift_right(value, exponent)]


@given(scales)
@settings(derandomize=True)
def test_multiplier_and_exponent_are_the_scale(scale: float) -> None:
    multiplier, exponent = (int(item) for item in rules.quantize_multiplier(scale))
    assert 2**30 <= multiplier < 2**31
    assert multiplier * 2.0 ** (exponent - 31) == pytest.approx(scale, rel=2**-31)


@pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan, 2.0**30])
def test_scales_without_a_multiplier_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0..2\*\*30"):
        rules.quantize_multiplier(scale)


def test_vanishing_scales_become_zero() -> None:
    assert [int(item) for item in rules.quantize_multiplier(2.0**-34)] == [0, 0]


@given(st.integers(-(2**24), 2**24), st.floats(1e-8, 60.0))
@settings(derandomize=True)
def test_products_are_rounded_twice_or_once(value: int, scale: float) -> None:
    """Transcribed, and never further from the real product than their roundings allow."""
    multiplier, exponent = rules.quantize_multiplier(scale)
    left, right = max(int(exponent), 0), max(-int(exponent), 0)
    twice = rules.multiply(array(value), multiplier, exponent).tolist()
    assert twice == [shift_right(high_mul(value << left, int(multiplier)), right)]
    exact = Fraction(value * int(multiplier)) * Fraction(2) ** (int(exponent) - 31)
    assert abs(twice[0] - exact) <= 1
    once = rules.multiply_once(array(value), multiplier, exponent).tolist()
    assert once == [math.floor(exact + Fraction(1, 2))]


def test_rounding_twice_can_lift_a_quarter_to_one() -> None:
    """1 * 0.25: the first rounding makes 0.5 into 1, the second half of that into 1; rounded once it is 0."""
    scale = rules.quantize_multiplier(0.25)
    values = np.array([1, -1, 2, -2, 4], np.int64)
    assert rules.multiply(values, *scale).tolist() == [1, 0, 1, -1, 1]
    assert rules.multiply_once(values, *scale).tolist() == [0, 0, 1, 0, 1]


@given(st.integers(-(2**20), 2**20), st.integers(1, 5000))
@settings(derandomize=True)
def test_average_rounds_halves_away_from_zero(total: int, count: int) -> None:
    expected = c_divide(total + count // 2, count) if total > 0 else c_divide(total - count // 2, count)
    assert rules.average(array(total), count).tolist() == [expected]


@pytest.mark.parametrize(("value", "expected"), [(0.5, 1), (-0.5, -1), (2.5, 3), (0.49999997, 0), (-1.2, -1)])
def test_round_half_away(value: float, expected: int) -> None:
    assert rules.round_half_away(np.float32(value)) == expected


@pytest.mark.parametrize(("function", "exact"), [(gemmlowp.logistic, lambda v: 1 / (1 + np.exp(-v))),
                                                 (gemmlowp.tanh, np.tanh)])  # fmt: skip
@pytest.mark.parametrize("integer_bits", [0, 1, 3, 4])
def test_fixed_point_gates_stay_close_to_the_functions(function: object, exact: object, integer_bits: int) -> None:
    """Every 16-bit input; the approximation is gemmlowp's, a dozen units of 2**-15 at most."""
    raw = np.arange(-(2**15), 2**15, dtype=np.int64)
    assert callable(function)
    assert callable(exact)
    got = function(raw, integer_bits) / 2**15
    assert np.abs(got - exact(raw / 2.0 ** (15 - integer_bits))).max() < 13 / 2**15
    assert got.min() >= -1
    assert got.max() < 1


def test_dense_and_convolution_round_differently() -> None:
    """The same accumulators through gemm (once) and a 1 x 1 conv (twice) differ somewhere, by one at most."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (16, 64)).astype(np.int8)
    x = rng.integers(-128, 128, (400, 64)).astype(np.int8)
    of_x, of_w, of_y = Quantization((0.0372,), 3), Quantization((0.0091,)), Quantization((0.71,), -5)
    results = []
    for kind, tail in (("gemm", ()), ("conv", (1, 1))):
        attributes = {"activation": "none", "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "groups": 1}
        tensors = {
            "x": Tensor("x", (400, 64, *tail), "int8", of_x),
            "w": Tensor("w", (16, 64, *tail), "int8", of_w, weight.reshape(16, 64, *tail)),
            "y": Tensor("y", (400, 16, *tail), "int8", of_y),
        }
        graph = Graph("layer", tensors, (Op("l", kind, ("x", "w"), ("y",), attributes),), ("x",), ("y",))
        output = run_quantized(graph, {"x": x.reshape(400, 64, *tail)}, "tflite")["y"]
        results.append(output.reshape(400, 16).astype(int))
    difference = np.abs(results[0] - results[1])
    assert difference.max() == 1
    assert difference.mean() < 0.02
