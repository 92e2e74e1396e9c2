"""The reference interpreter: exact integers, one rule in two forms, batches, and refusals that name the op."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dse.core.errors import ModelError, UsageError
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import accumulate, run_float, run_op_float, run_op_quantized, run_quantized
from dse.ir.requantize import encode_scale, requantize

CONV = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1, "activation": "none"}


def pointwise(
    weight: npt.NDArray[Any], scale_y: float, zero_x: int = 0, zero_y: int = 0, activation: str = "none"
) -> Graph:  # fmt: skip
    """x (1, C, 1, 1) -> conv 1x1 -> y, all scales 1 but the output's and the weights'."""
    outputs, depth = weight.shape
    tensors = {
        "x": Tensor("x", (1, depth, 1, 1), "int8", Quantization((1.0,), zero_x)),
        "w": Tensor("w", (outputs, depth, 1, 1), "int8", Quantization((1.0,) * outputs, 0, 0),
                    weight.astype(np.int8).reshape(outputs, depth, 1, 1)),
        "y": Tensor("y", (1, outputs, 1, 1), "int8", Quantization((scale_y,), zero_y)),
    }  # fmt: skip
    op = Op("layer", "conv", ("x", "w"), ("y",), {**CONV, "activation": activation})
    return Graph("net", tensors, (op,), ("x",), ("y",))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40),
    st.floats(2.0**-25, 2.0, width=32), st.integers(-128, 127),
)  # fmt: skip
@example([2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**31 - 1, -(2**31)], 2.0**-20, 0)  # ties when acc becomes float32
@example([1, 3, 5, -1, -3, -5], 0.5, 3)  # ties of the last rounding
def test_float_form_of_ort_equals_its_integer_form(values: list[int], scale: float, zero: int) -> None:
    """`run_quantized` computes mode ort in float32; hardware computes it in integers."""
    acc = np.array(values, np.int64)
    multiplier, shift = encode_scale(np.array([scale], np.float32), "ort")
    expected = requantize(acc, multiplier, shift, zero, -128, 127, "ort")
    graph = pointwise(np.ones((1, 1)), 1.0)
    tensors = {
        **graph.tensors,
        "w": Tensor("w", (1, 1), "int8", Quantization((scale,), 0, 0), np.zeros((1, 1), np.int8)),
        "y": Tensor("y", (1, 1), "int8", Quantization((1.0,), zero)),
        "x": Tensor("x", (1, 1), "int8", Quantization((1.0,), 0)),
    }
    got = []
    for value in values:
        # the accumulator enters as the bias of a dense layer of zero weight
        bias = Tensor("b", (1,), "int32", data=np.array([value], np.int64))
        op = Op("layer", "gemm", ("x", "w", "b"), ("y",), {"activation": "none"})
        dense = Graph("net", {**tensors, "b": bias}, (op,), ("x",), ("y",))
        got.append(int(run_quantized(dense, {"x": np.zeros((1, 1), np.int8)}, "ort")["y"][0, 0]))
    assert got == expected.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 1023, 1024, 1025, 3000]), st.integers(-128, 127))
def test_accumulators_are_exact_for_every_depth(seed: int, depth: int, zero: int) -> None:
    """Extreme operands: every product is +-128 * 127, where float32 sums would round beyond 1024 terms."""
    rng = np.random.default_rng(seed)
    x = rng.choice(np.array([-128, -127, 127], np.int8), (2, depth))
    weight = rng.choice(np.array([-127, 127, 126], np.int8), (3, depth))
    bias = rng.integers(-(2**30), 2**30, 3).astype(np.int32)
    graph = pointwise(weight, 1.0, zero_x=zero)
    op = Op("layer", "gemm", ("x", "w"), ("y",), {"activation": "none"})
    expected = (x.astype(object) - zero) @ weight.T.astype(object) + bias.astype(object)
    np.testing.assert_array_equal(accumulate(graph, op, [x, weight, bias]), expected.astype(np.int64))


@pytest.mark.parametrize("mode", ["ort", "q31"])
def test_padding_of_a_conv_is_the_zero_point(mode: str) -> None:
    """An all-zero-point input gives an all-zero output, borders included."""
    tensors = {
        "x": Tensor("x", (1, 2, 4, 4), "int8", Quantization((0.1,), -77)),
        "w": Tensor("w", (3, 2, 3, 3), "int8", Quantization((0.1, 0.2, 0.3), 0, 0),
                    np.random.default_rng(0).integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)),
        "y": Tensor("y", (1, 3, 4, 4), "int8", Quantization((0.1,), 5)),
    }  # fmt: skip
    op = Op("layer", "conv", ("x", "w"), ("y",), {**CONV, "pads": (1, 1, 1, 1)})
    graph = Graph("net", tensors, (op,), ("x",), ("y",))
    result = run_quantized(graph, {"x": np.full((1, 2, 4, 4), -77, np.int8)}, mode)["y"]
    assert (result == 5).all()


@pytest.mark.parametrize("mode", ["ort", "q31"])
@pytest.mark.parametrize(("activation", "zero", "expected"), [
    ("none", 0, [-100, -5, 0, 5, 100]),
    ("relu", 0, [0, 0, 0, 5, 100]),
    ("relu", 10, [10, 10, 10, 15, 110]),
    ("relu6", 0, [0, 0, 0, 5, 6]),
    ("relu6", -128, [-128, -128, -128, -123, -122]),
])  # fmt: skip
def test_activations_clamp_the_integer(mode: str, activation: str, zero: int, expected: list[int]) -> None:
    graph = pointwise(np.ones((1, 1)), 1.0, zero_y=zero, activation=activation)
    x = np.array([-100, -5, 0, 5, 100], np.int8).reshape(-1, 1, 1, 1)
    assert run_quantized(graph, {"x": x}, mode)["y"].ravel().tolist() == expected


def test_modes_round_ties_differently() -> None:
    """1.5 and 2.5 and -1.5: half to even in ort, half up in q31."""
    graph = pointwise(np.ones((1, 1)), 2.0)
    x = np.array([3, 5, -3, -5], np.int8).reshape(-1, 1, 1, 1)
    assert run_quantized(graph, {"x": x}, "ort")["y"].ravel().tolist() == [2, 2, -2, -2]
    assert run_quantized(graph, {"x": x}, "q31")["y"].ravel().tolist() == [2, 3, -1, -2]


def every_kind(rng: np.random.Generator) -> Graph:
    """A float graph with every op kind that batches."""
    shapes: dict[str, tuple[int, ...]] = {
        "x": (1, 2, 6, 6), "c": (1, 4, 6, 6), "s": (1, 4, 6, 6), "m": (1, 4, 3, 3), "a": (1, 4, 2, 2),
        "n": (1, 4, 2, 2), "k": (1, 4, 2, 2), "r": (1, 16), "d": (1, 5), "p": (1, 5), "g": (1, 4, 1, 1),
    }  # fmt: skip
    constants = {
        "w": rng.standard_normal((4, 2, 3, 3)), "b": rng.standard_normal(4), "one": np.ones((1, 4, 1, 1)),
        "scale": rng.random(4), "var": rng.random(4) + 0.5, "dense": rng.standard_normal((5, 16)),
    }  # fmt: skip
    tensors = {name: Tensor(name, shape) for name, shape in shapes.items()}
    for name, values in constants.items():
        tensors[name] = Tensor(name, values.shape, data=values.astype(np.float32))
    pool = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}
    ops = (
        Op("conv", "conv", ("x", "w", "b"), ("c",), {**CONV, "pads": (1, 1, 1, 1), "activation": "relu6"}),
        Op("sum", "add", ("c", "one"), ("s",), {"activation": "none"}),
        Op("max", "max_pool", ("s",), ("m",), pool),
        Op("average", "average_pool", ("m",), ("a",), {**pool, "strides": (1, 1), "count_include_pad": False}),
        Op("norm", "batch_norm", ("a", "scale", "b", "b", "var"), ("n",), {"epsilon": 1e-3}),
        Op("clip", "clip", ("n",), ("k",), {"low": -0.5, "high": 0.5}),
        Op("global", "global_average_pool", ("k",), ("g",)),
        Op("reshape", "reshape", ("k",), ("r",), {"shape": (1, 16)}),
        Op("dense", "gemm", ("r", "dense"), ("d",), {"activation": "none"}),
        Op("softmax", "softmax", ("d",), ("p",), {"axis": 1}),
    )
    return Graph("net", tensors, ops, ("x",), ("p", "g"))


def test_a_batch_gives_what_its_images_give() -> None:
    rng = np.random.default_rng(4)
    graph = every_kind(rng)
    images = rng.standard_normal((6, 2, 6, 6)).astype(np.float32)
    together = run_float(graph, {"x": images}, keep=True)
    for index in range(6):
        alone = run_float(graph, {"x": images[index : index + 1]}, keep=True)
        for name, values in alone.items():
            np.testing.assert_allclose(together[name][index : index + 1], values, rtol=1e-5, atol=1e-6)


def test_keep_returns_every_tensor_and_otherwise_only_outputs() -> None:
    rng = np.random.default_rng(4)
    graph = every_kind(rng)
    images = {"x": rng.standard_normal((1, 2, 6, 6)).astype(np.float32)}
    kept, plain = run_float(graph, images, keep=True), run_float(graph, images)
    assert set(kept) == {"x", *(op.outputs[0] for op in graph.ops)}
    assert set(plain) == {"p", "g"}
    for name, values in plain.items():
        np.testing.assert_array_equal(kept[name], values)
        assert values.dtype == np.float32


def test_single_ops_equal_the_walk_over_the_graph() -> None:
    rng = np.random.default_rng(4)
    graph = every_kind(rng)
    kept = run_float(graph, {"x": rng.standard_normal((1, 2, 6, 6)).astype(np.float32)}, keep=True)
    for op in graph.ops:
        np.testing.assert_array_equal(run_op_float(graph, op, kept)[op.outputs[0]], kept[op.outputs[0]])
    quantized = pointwise(np.array([[3, -4]]), 0.7, zero_x=3, zero_y=-9)
    x = np.array([17, -80], np.int8).reshape(1, 2, 1, 1)
    np.testing.assert_array_equal(
        run_op_quantized(quantized, quantized.ops[0], {"x": x}, "q31")["y"],
        run_quantized(quantized, {"x": x}, "q31")["y"],
    )


def test_max_pool_ignores_padding_even_where_all_values_are_negative() -> None:
    attributes = {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
    tensors = {
        "x": Tensor("x", (1, 1, 4, 4), "int8", Quantization((1.0,), 100)),
        "y": Tensor("y", (1, 1, 2, 2), "int8", Quantization((1.0,), 100)),
    }
    graph = Graph("net", tensors, (Op("pool", "max_pool", ("x",), ("y",), attributes),), ("x",), ("y",))
    x = np.arange(-128, -112).reshape(1, 1, 4, 4)
    assert run_quantized(graph, {"x": x.astype(np.int8)}, "ort")["y"].ravel().tolist() == [-123, -121, -115, -113]
    assert run_float(graph, {"x": x})["y"].ravel().tolist() == [-123, -121, -115, -113]


def test_relu_and_clip_that_stand_alone_work_on_integers() -> None:
    of = Quantization((0.5,), 10)
    tensors = {name: Tensor(name, (1, 4), "int8", of) for name in "xyz"}
    ops = (
        Op("relu", "relu", ("x",), ("y",)),
        Op("clip", "clip", ("x",), ("z",), {"low": -2.0, "high": 1.0}),
    )
    graph = Graph("net", tensors, ops, ("x",), ("y", "z"))
    result = run_quantized(graph, {"x": np.array([[-50, 8, 11, 90]], np.int8)}, "ort")
    assert result["y"].tolist() == [[10, 10, 11, 90]]
    assert result["z"].tolist() == [[6, 8, 11, 12]]


def test_quantize_and_dequantize_ops_run_between_the_worlds() -> None:
    of = Quantization((0.5,), 10)
    tensors = {"x": Tensor("x", (1, 4)), "q": Tensor("q", (1, 4), "int8", of), "y": Tensor("y", (1, 4))}
    ops = (Op("q", "quantize", ("x",), ("q",)), Op("d", "dequantize", ("q",), ("y",)))
    result = run_float(Graph("net", tensors, ops, ("x",), ("q", "y")), {"x": [[0.0, 0.25, 0.75, 1000.0]]})
    assert result["q"].tolist() == [[10, 10, 12, 127]]
    assert result["y"].tolist() == [[0.0, 0.0, 1.0, 58.5]]


@pytest.mark.parametrize(("inputs", "words"), [
    ({}, ["no value", "'x'"]),
    ({"x": np.zeros((1, 3, 1, 1), np.int8)}, ["[1, 3, 1, 1]", "[1, 2, 1, 1]"]),
    ({"x": np.zeros((2, 1, 1), np.int8)}, ["[2, 1, 1]"]),
    ({"x": np.zeros((1, 2, 1, 1), np.float32)}, ["int8", "float32", "quantize_input"]),
])  # fmt: skip
def test_wrong_inputs_are_named(inputs: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        run_quantized(pointwise(np.ones((1, 2)), 1.0), inputs, "ort")
    assert all(word in str(error.value) for word in words)


def test_unknown_mode_and_unquantized_graph_are_refused() -> None:
    graph = pointwise(np.ones((1, 1)), 1.0)
    with pytest.raises(UsageError, match=r"'float'.*ort, q31"):
        run_quantized(graph, {"x": np.zeros((1, 1, 1, 1), np.int8)}, "float")
    plain = Graph("net", {**graph.tensors, "y": Tensor("y", (1, 1, 1, 1))}, graph.ops, ("x",), ("y",))
    with pytest.raises(ModelError, match="'y' is not quantized"):
        run_quantized(plain, {"x": np.zeros((1, 1, 1, 1), np.int8)}, "ort")


def test_a_kind_without_integer_rule_is_named() -> None:
    of = Quantization((1.0,))
    tensors = {name: Tensor(name, (1, 4), "int8", of) for name in "xy"}
    graph = Graph("net", tensors, (Op("top", "rnn", ("x",), ("y",), {}),), ("x",), ("y",))
    with pytest.raises(ModelError, match=r"'top' \(rnn\)"):
        run_quantized(graph, {"x": np.zeros((1, 4), np.int8)}, "ort")


def test_a_scale_beyond_the_shift_range_names_the_op() -> None:
    with pytest.raises(ModelError, match=r"'layer'.*shift"):
        run_quantized(pointwise(np.ones((1, 1)), 2.0**40), {"x": np.zeros((1, 1, 1, 1), np.int8)}, "q31")
