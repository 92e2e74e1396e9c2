"""Rules on 16-bit activations, against slow readings of them in plain Python integers and fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import ModelError
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.accumulate import accumulate
from dse.ir.quantized import clamp_bounds, dequantize, integer_limits, quantize_array
from dse.ir.reference import run_float, run_quantized
from dse.ir.reference_int16 import touches_int16
from dse.ir.requantize_tflite import multiply_wide, quantize_multiplier

WIDE = {8: "int8", 16: "int16"}


def activation(name: str, shape: tuple[int, ...], scale: float, bits: int = 16, zero: int = 0) -> Tensor:
    return Tensor(name, shape, WIDE[bits], Quantization((float(np.float32(scale)),), zero, None, bits))


def values(rng: np.random.Generator, tensor: Tensor, batch: int = 3) -> np.ndarray:
    """Both ends and all magnitudes between."""
    assert tensor.quantization is not None
    low, high = integer_limits(tensor.quantization)
    found = rng.integers(low, high + 1, (batch, *tensor.shape[1:])) >> rng.integers(0, 8, (batch, *tensor.shape[1:]))
    found.ravel()[:2] = low, high
    return found.astype(tensor.dtype)


def single(kind: str, inputs: list[Tensor], output: Tensor, **attributes: Any) -> Graph:
    named = {tensor.name: tensor for tensor in (*inputs, output)}
    op = Op("op", kind, tuple(tensor.name for tensor in inputs), (output.name,), attributes)
    free = tuple(tensor.name for tensor in inputs if tensor.data is None)
    return Graph("net", named, (op,), free, (output.name,))


def slow_wide(acc: int, scale: float) -> int:
    """The 16x8 rule by hand: a multiplier of 15 bits, one rounding, halves up."""
    multiplier, exponent = (int(item) for item in quantize_multiplier(scale))
    reduced = (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
    exact = Fraction(acc * reduced) * Fraction(2) ** (exponent - 15) + Fraction(1, 2)
    return exact.numerator // exact.denominator


@settings(max_examples=300, deadline=None)
@given(st.integers(-(2**47), 2**47 - 1), st.floats(2**-33, 2**6))
def test_a_wide_product_is_rounded_once_and_halves_go_up(acc: int, scale: float) -> None:
    got = int(multiply_wide(np.array([acc]), *quantize_multiplier(scale))[0])
    assert got == slow_wide(acc, scale)
    # a multiplier of 15 bits is off by at most 2**-15 of the value
    if scale >= 2**-32:
        assert abs(got - acc * scale) <= 0.5 + abs(acc * scale) * 2**-15


def test_a_scale_beyond_the_kernels_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exceeds 2\*\*7"):
        multiply_wide(np.array([1]), *quantize_multiplier(200.0))
    x, y = activation("x", (1, 4), 1e3), activation("y", (1, 2), 1e-3)
    weight = Tensor("w", (2, 4), "int8", Quantization((0.5,)), np.ones((2, 4), np.int8))
    with pytest.raises(ModelError, match="net: op 'op': a requantization scale"):
        run_quantized(single("gemm", [x, weight], y, activation="none"), {"x": np.ones((1, 4), np.int16)}, "ort")


@pytest.mark.parametrize("bits", [(16, 16), (8, 16), (16, 8)], ids=str)
@pytest.mark.parametrize("act", ["none", "relu", "relu6"])
@pytest.mark.parametrize("kind", ["gemm", "conv"])
def test_layers_equal_python_integers(kind: str, act: str, bits: tuple[int, int]) -> None:
    rng = np.random.default_rng([bits[0], bits[1], len(act)])
    zero_x, zero_y = (int(rng.integers(-100, 100)) if item == 8 else 0 for item in bits)
    step = (1e-4, 0.0256)[bits[0] == 8]
    scales = rng.uniform(2e-3, 1e-2, 3).astype(np.float32)
    x = activation("x", (1, 5, 3, 3)[: 4 if kind == "conv" else 2], step, bits[0], zero_x)
    out = 6.5 / (32767 if bits[1] == 16 else 255)
    y = activation("y", (1, 3, 3, 3)[: 4 if kind == "conv" else 2], out, bits[1], zero_y)
    weight = rng.integers(-127, 128, (3, 5) + ((3, 3) if kind == "conv" else ())).astype(np.int8)
    bias = rng.integers(-(1 << 16), 1 << 16, 3).astype(np.int32)
    constants = [
        Tensor("w", weight.shape, "int8", Quantization(tuple(map(float, scales)), 0, 0), weight),
        Tensor("b", (3,), "int32", Quantization(tuple(map(float, scales * np.float32(step))), 0, 0, 32), bias),
    ]
    geometry = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1} if kind == "conv" else {}
    graph = single(kind, [x, *constants], y, activation=act, **geometry)
    fed = values(rng, x, 3 if kind == "conv" else 40)
    got = {mode: run_quantized(graph, {"x": fed}, mode)["y"] for mode in ("ort", "q31", "tflite")}
    low, high = clamp_bounds(graph.ops[0], y.quantization)  # type: ignore[arg-type]
    padded = np.pad(fed, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=zero_x) if kind == "conv" else fed
    for index in np.ndindex(got["ort"].shape):
        n, m = index[:2]
        patch = padded[n] if kind == "gemm" else padded[n][:, index[2] : index[2] + 3, index[3] : index[3] + 3]
        acc = int(bias[m]) + sum(
            (int(a) - zero_x) * int(w) for a, w in zip(patch.ravel(), weight[m].ravel(), strict=True)
        )
        scale = float(np.float64(np.float32(step)) * np.float64(scales[m]) / np.float64(np.float32(out)))
        expected = min(max(slow_wide(acc, scale) + zero_y, low), high)
        assert {mode: int(item[index]) for mode, item in got.items()} == dict.fromkeys(got, expected)
    assert got["ort"].dtype == WIDE[bits[1]]
    assert len(np.unique(got["ort"])) > 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 4, 5, 2000]))
def test_accumulators_of_int16_are_exact_at_every_depth(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array([-32768, -32767, 32767], np.int16), (2, depth))
    weight = rng.choice(np.array([-127, 127, 126], np.int8), (3, depth))
    graph = single("gemm", [activation("x", (1, depth), 1), Tensor("w", weight.shape, "int8", Quantization((1.0,)),
                                                                   weight)], activation("y", (1, 3), 1))  # fmt: skip
    expected = x.astype(object) @ weight.T.astype(object)
    np.testing.assert_array_equal(accumulate(graph, graph.ops[0], [x, weight]), expected.astype(np.int64))


def test_a_product_of_two_activations_beyond_48_bits_is_refused() -> None:
    x, w = activation("x", (1, 1, 1 << 18), 1), activation("w", (1, 1 << 18, 1), 1)
    graph = single("matmul", [x, w], activation("y", (1, 1, 1), 2.0**34))
    ends = {name: np.full(graph[name].shape, -32768, np.int16) for name in "xw"}
    with pytest.raises(ModelError, match="exceeds the 48 bits there are"):
        run_quantized(graph, ends, "q31")
    ends["x"][:, :, 1 << 16 :] = 0
    assert run_quantized(graph, ends, "q31")["y"].item() == slow_wide(1 << 46, 2.0**-34)


@pytest.mark.parametrize("kind", ["add", "mul"])
@pytest.mark.parametrize("bits", [(16, 16, 16), (8, 16, 16), (16, 8, 8), (8, 8, 16)], ids=str)
def test_sums_and_products_lie_within_a_code_of_the_real_result(kind: str, bits: tuple[int, int, int]) -> None:
    """Any mixture of widths; LiteRT fixes the rounding of the unmixed ones (tests/conformance)."""
    rng = np.random.default_rng(bits)
    zeros = [int(rng.integers(-60, 60)) if item == 8 else 0 for item in bits]
    scales = [rng.uniform(1, 2) / (32767 if item == 16 else 127) for item in bits]
    scales[2] *= 6
    a, b, y = (activation(*item) for item in zip("aby", [(1, 4000)] * 3, scales, bits, zeros, strict=True))
    graph = single(kind, [a, b], y, activation="none")
    fed = {"a": values(rng, a, 2), "b": values(rng, b, 2)}
    got = run_quantized(graph, fed, "ort")["y"]
    real = [dequantize(fed[name], graph[name].quantization).astype(np.float64) for name in "ab"]  # type: ignore[arg-type]
    wanted = (real[0] + real[1] if kind == "add" else real[0] * real[1]) / np.float32(scales[2]) + zeros[2]
    assert np.abs(got - np.clip(wanted, *integer_limits(y.quantization))).max() < 0.51  # type: ignore[arg-type]
    assert got.dtype == WIDE[bits[2]]


def test_average_pools_count_padding_when_told_to() -> None:
    rng = np.random.default_rng(0)
    x, y = activation("x", (1, 2, 4, 4), 1e-3), activation("y", (1, 2, 4, 4), 1e-3)
    fed = values(rng, x)
    padded = np.pad(fed.astype(int), ((0, 0), (0, 0), (1, 1), (1, 1)))
    inside = np.pad(np.ones((4, 4), int), 1)
    for include in (False, True):
        graph = single("average_pool", [x], y, kernel=(3, 3), strides=(1, 1), pads=(1,) * 4, count_include_pad=include)
        got = run_quantized(graph, {"x": fed}, "q31")["y"]
        for n, c, p, q in np.ndindex(got.shape):
            total = int(padded[n, c, p : p + 3, q : q + 3].sum())
            count = 9 if include else int(inside[p : p + 3, q : q + 3].sum())
            assert got[n, c, p, q] == (abs(total) + count // 2) // count * (1 if total >= 0 else -1)


@pytest.mark.parametrize(("kind", "attributes"), [
    ("relu", {}), ("clip", {"low": -0.01, "high": 0.02}), ("transpose", {"perm": (0, 1, 3, 2)}),
    ("max_pool", {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}),
    ("pad", {"pads": (0, 0, 1, 1, 0, 0, 1, 1), "mode": "constant", "value": 0.01}),
    ("slice", {"starts": (1,), "ends": (3,), "axes": (2,), "steps": (1,)}),
])  # fmt: skip
def test_what_keeps_its_scale_is_exact(kind: str, attributes: dict[str, Any]) -> None:
    """Equal to the float op between dequantize and quantize, which is exact for 16 bits on one scale."""
    shape = {"max_pool": (1, 2, 2, 2), "pad": (1, 2, 6, 6), "slice": (1, 2, 2, 4)}.get(kind, (1, 2, 4, 4))
    x, y = activation("x", (1, 2, 4, 4), 1e-6), activation("y", shape, 1e-6)
    graph = single(kind, [x], y, **attributes)
    fed = values(np.random.default_rng(1), x)
    real = Graph("net", {n: Tensor(n, graph[n].shape) for n in "xy"}, graph.ops, ("x",), ("y",))
    assert x.quantization is not None
    wanted = quantize_array(run_float(real, {"x": dequantize(fed, x.quantization)})["y"], x.quantization)
    np.testing.assert_array_equal(run_quantized(graph, {"x": fed}, "ort")["y"], wanted)
    assert touches_int16(graph, graph.ops[0])


@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "exp"])
def test_functions_are_computed_in_float_and_rounded_once(kind: str) -> None:
    x, y = activation("x", (1, 65536), 1e-4), activation("y", (1, 65536), 30 / 32767)
    every = np.arange(-32768, 32768, dtype=np.int16)[None]
    got = run_quantized(single(kind, [x], y), {"x": every}, "q31")["y"]
    real = every.astype(np.float64) * np.float64(np.float32(1e-4))
    function = {"sigmoid": lambda v: 1 / (1 + np.exp(-v)), "tanh": np.tanh, "exp": np.exp}[kind]
    assert np.abs(got - function(real) / np.float64(np.float32(30 / 32767))).max() < 0.51


def test_inputs_of_the_wrong_width_are_refused() -> None:
    graph = single("relu", [activation("x", (1, 2), 1)], activation("y", (1, 2), 1))
    with pytest.raises(ModelError, match="quantized input 'x' must be int16, got int8"):
        run_quantized(graph, {"x": np.zeros((1, 2), np.int8)}, "ort")


def test_kinds_without_a_rule_at_16_bits_say_so() -> None:
    graph = single("cast", [activation("x", (1, 2), 1)], activation("y", (1, 2), 1), to="int16")
    with pytest.raises(ModelError, match=r"net: op 'op' \(cast\) has no rule on 16-bit activations"):
        run_quantized(graph, {"x": np.zeros((1, 2), np.int16)}, "ort")


def test_saturation_and_zero_of_16_bits() -> None:
    of = Quantization((0.5,), 0, None, 16)
    np.testing.assert_array_equal(quantize_array([-1e9, -0.25, 0, 0.75, 1e9], of), [-32768, 0, 0, 2, 32767])
    assert quantize_array([0.0], of).dtype == np.int16
