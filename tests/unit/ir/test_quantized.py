"""Quantization parameters: rounding, clamps and scales in the order onnxruntime takes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import ModelError
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.quantized import clamp_bounds, conv_scales, dequantize, quantize_array, quantize_input, quantize_inputs

SCALE = st.floats(2.0**-13, 10, width=32)


@given(SCALE, st.integers(-128, 127))
def test_dequantized_codes_quantize_to_themselves(scale: float, zero: int) -> None:
    quantization = Quantization((scale,), zero)
    codes = np.arange(-128, 128).astype(np.int8)
    np.testing.assert_array_equal(quantize_array(dequantize(codes, quantization), quantization), codes)


@given(st.lists(st.floats(-50, 50, width=32), min_size=1), SCALE, st.integers(-128, 127))
def test_quantization_error_is_at_most_half_a_step_inside_the_range(
    values: list[float], scale: float, zero: int
) -> None:
    quantization = Quantization((scale,), zero)
    low, high = (-128 - zero) * scale, (127 - zero) * scale
    clipped = np.clip(np.array(values, np.float64), low, high)
    back = dequantize(quantize_array(values, quantization), quantization).astype(np.float64)
    assert (np.abs(back - clipped) <= scale / 2 * (1 + 1e-4) + 1e-6).all()


def test_ties_go_to_even_before_the_zero_point_is_added() -> None:
    assert quantize_array([0.5, 1.5, 2.5, -0.5, -1.5], Quantization((1.0,), 3)).tolist() == [3, 5, 5, 3, 1]


def test_dequantize_per_channel_uses_one_scale_a_slice() -> None:
    values = np.array([[2, 4], [2, 4]], np.int8)
    assert dequantize(values, Quantization((1.0, 0.5), 0, 0)).tolist() == [[2, 4], [1, 2]]
    assert dequantize(values, Quantization((1.0, 0.5), 0, 1)).tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize(("activation", "scale", "zero", "bounds"), [
    ("none", 0.1, -20, (-128, 127)),
    ("relu", 0.1, -20, (-20, 127)),
    ("relu", 0.1, -128, (-128, 127)),
    ("relu6", 0.1, -20, (-20, 40)),
    ("relu6", 6 / 255, -128, (-128, 127)),
    ("relu6", 0.01, -128, (-128, 127)),
])  # fmt: skip
def test_clamp_bounds(activation: str, scale: float, zero: int, bounds: tuple[int, int]) -> None:
    op = Op("op", "conv", (), (), {"activation": activation})
    assert clamp_bounds(op, Quantization((scale,), zero)) == bounds


def test_unknown_activation_is_named() -> None:
    with pytest.raises(ModelError, match=r"'op'.*'gelu'.*none, relu, relu6"):
        clamp_bounds(Op("op", "conv", (), (), {"activation": "gelu"}), Quantization((1.0,)))


def layer(scale_x: float, scales_w: tuple[float, ...], scale_y: float) -> Graph:
    tensors = {
        "x": Tensor("x", (1, 1), "int8", Quantization((scale_x,))),
        "w": Tensor(
            "w", (len(scales_w), 1), "int8", Quantization(scales_w, 0, 0), np.ones((len(scales_w), 1), np.int8)
        ),
        "y": Tensor("y", (1, len(scales_w)), "int8", Quantization((scale_y,))),
    }
    return Graph("net", tensors, (Op("fc", "gemm", ("x", "w"), ("y",)),), ("x",), ("y",))


@given(SCALE, st.lists(SCALE, min_size=1, max_size=5), SCALE)
def test_conv_scales_round_twice_in_float32(scale_x: float, scales_w: list[float], scale_y: float) -> None:
    graph = layer(scale_x, tuple(scales_w), scale_y)
    result = conv_scales(graph, graph.ops[0])
    assert result.dtype == np.float32
    for scale_w, scale in zip(scales_w, result, strict=True):
        # float64 holds the product and the correctly rounded quotient of float32 values well enough to round once
        product = np.float32(float(scale_x) * float(scale_w))
        assert scale == np.float32(float(product) / float(scale_y))


def test_only_inputs_are_quantized_as_inputs() -> None:
    graph = layer(0.5, (1.0,), 1.0)
    assert quantize_input(graph, "x", [[3.2]]).tolist() == [[6]]
    assert quantize_inputs(graph, {"x": [[-1.0]]})["x"].tolist() == [[-2]]
    with pytest.raises(ModelError, match="'y' is not an input; inputs: x"):
        quantize_input(graph, "y", [[1.0]])
