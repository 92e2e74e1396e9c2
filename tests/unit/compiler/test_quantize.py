"""Quantization: what the integers are, what saturates, what is refused, and how far from float it lands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_networks import RandomCnn, save

from dse.compiler import accuracy, calibration_batches, calibration_images, observe_ranges, prepare, quantize, sqnr_db
from dse.compiler.quantize import activation_quantization
from dse.core.errors import ModelError, UsageError
from dse.ir import Graph, Op, Tensor
from dse.ir.quantized import clamp_bounds, conv_scales, dequantize, quantization_of, quantize_inputs
from dse.ir.reference import run_float, run_quantized
from dse.ir.requantize import MODES, encode_scale
from workloads.onnx import read_model
from workloads.zoo import ZooFrontend


def random_network(seed: int, folder: Path) -> Graph:
    return prepare(read_model(save(RandomCnn(np.random.default_rng(seed)).build(), folder)))


def dense(
    weight: npt.ArrayLike, bias: npt.ArrayLike | None = None, activation: str = "none", kind: str = "gemm"
) -> Graph:
    weights = np.asarray(weight, np.float32)
    tensors = {
        "x": Tensor("x", (1, weights.shape[1])), "y": Tensor("y", (1, weights.shape[0])),
        "w": Tensor("w", weights.shape, data=weights),
    }  # fmt: skip
    inputs: tuple[str, ...] = ("x", "w")
    if bias is not None:
        tensors["b"] = Tensor("b", (weights.shape[0],), data=np.asarray(bias, np.float32))
        inputs = (*inputs, "b")
    return Graph("net", tensors, (Op("layer", kind, inputs, ("y",), {"activation": activation}),), ("x",), ("y",))


def ones(graph: Graph, count: int = 4) -> dict[str, npt.NDArray[np.float32]]:
    values = np.linspace(-1, 1, count * graph["x"].shape[1], dtype=np.float32)
    return {"x": values.reshape(count, -1)}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("seed", range(10))
def test_every_tensor_of_a_quantized_network_is_what_the_convention_says(seed: int, bits: int, tmp_path: Path) -> None:
    graph = random_network(seed, tmp_path)
    quantized = quantize(graph, calibration_images(graph, 8, seed), weight_bits=bits)
    limit = {8: 127, 4: 7}[bits]
    for op in quantized.ops:
        of_y = quantization_of(quantized, op.outputs[0])
        assert quantized[op.outputs[0]].dtype == "int8"
        assert clamp_bounds(op, of_y) == (-128, 127)
        if op.attributes.get("activation", "none") != "none":
            assert of_y.zero_point == -128
        if op.kind in ("conv", "gemm"):
            weight, bias = (quantized[name] for name in (*op.inputs, "")[1:3] if name), op.inputs[2:]
            (integers, *_) = weight
            of_w = quantization_of(quantized, integers.name)
            assert (of_w.axis, of_w.zero_point, of_w.bits) == (0, 0, bits)
            assert integers.data is not None
            assert integers.data.dtype == np.int8
            largest = np.abs(integers.data.astype(int)).reshape(len(integers.data), -1).max(axis=1)
            assert (largest == limit).all()
            for name in bias:
                of_x = quantization_of(quantized, op.inputs[0])
                assert quantized[name].dtype == "int32"
                expected = np.float32(of_x.scale[0]) * np.asarray(of_w.scale, np.float32)
                np.testing.assert_array_equal(np.float32(quantization_of(quantized, name).scale), expected)
            for mode in MODES:
                encode_scale(conv_scales(quantized, op), mode)
        elif op.kind != "add":
            assert of_y == quantization_of(quantized, op.inputs[0])


@pytest.mark.parametrize("seed", range(10))
def test_weights_and_biases_are_the_nearest_integers(seed: int, tmp_path: Path) -> None:
    graph = random_network(seed, tmp_path)
    quantized = quantize(graph, calibration_images(graph, 8, seed))
    for before, after in zip(graph.ops, quantized.ops, strict=False):
        if before.kind not in ("conv", "gemm"):
            continue
        for old, new in zip(before.inputs[1:], after.inputs[1:], strict=True):
            data, of = quantized[new].data, quantization_of(quantized, new)
            real = graph[old].data
            assert data is not None
            assert real is not None
            step = np.asarray(of.scale).reshape((-1,) + (1,) * (data.ndim - 1))
            assert (np.abs(dequantize(data, of).astype(np.float64) - real) <= step / 2 * (1 + 1e-5)).all()


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_activation_ranges_hold_zero_exactly_and_their_ends_nearly(first: float, second: float) -> None:
    low, high = min(first, second), max(first, second)
    quantization = activation_quantization(low, high)
    step = quantization.scale[0]
    assert -128 <= quantization.zero_point <= 127
    ends = dequantize(np.array([-128, 127], np.int8), quantization)
    assert ends[0] <= min(low, 0) + step
    assert ends[1] >= max(high, 0) - step
    assert dequantize(np.array([quantization.zero_point], np.int8), quantization)[0] == 0


def test_relu6_always_spans_zero_to_six() -> None:
    graph = dense([[0.5]], activation="relu6")
    of_y = quantization_of(quantize(graph, ones(graph)), "y")
    assert (of_y.scale[0], of_y.zero_point) == (np.float32(6 / 255), -128)


def test_a_channel_without_weights_keeps_its_bias() -> None:
    graph = dense([[0.0, 0.0], [1.0, -0.5]], bias=[0.75, 0.0])
    quantized = quantize(graph, ones(graph))
    result = run_quantized(quantized, quantize_inputs(quantized, ones(graph)), "ort")["y"]
    real = dequantize(result, quantization_of(quantized, "y"))
    np.testing.assert_allclose(real[:, 0], 0.75, atol=quantization_of(quantized, "y").scale[0])


def test_a_layer_of_zeros_and_a_dead_input_survive_both_modes() -> None:
    graph = dense([[0.0, 0.0]])
    quantized = quantize(graph, {"x": np.zeros((2, 2), np.float32)})
    for mode in MODES:
        assert run_quantized(quantized, {"x": np.full((1, 2), 99, np.int8)}, mode)["y"].tolist() == [
            [quantization_of(quantized, "y").zero_point]
        ]


def test_a_bias_far_beyond_its_weights_does_not_overflow_the_accumulator() -> None:
    """1e-6 weights with a bias of 1000: the weight scale is raised until the bias fits half of int32."""
    graph = dense([[1e-6, -1e-6]], bias=[1000.0])
    quantized = quantize(graph, ones(graph))
    bias = quantized[quantized.ops[0].inputs[2]].data
    assert bias is not None
    assert abs(int(bias[0])) <= 2**30 + 128
    result = run_quantized(quantized, quantize_inputs(quantized, ones(graph)), "q31")["y"]
    np.testing.assert_allclose(dequantize(result, quantization_of(quantized, "y")), 1000, rtol=0.01)


def test_constant_operands_of_adds_are_quantized_at_full_shape() -> None:
    tensors = {
        "x": Tensor("x", (1, 2, 2, 2)), "y": Tensor("y", (1, 2, 2, 2)),
        "k": Tensor("k", (2, 1, 1), data=np.array([[[0.5]], [[-0.25]]], np.float32)),
    }  # fmt: skip
    graph = Graph("net", tensors, (Op("sum", "add", ("k", "x"), ("y",), {"activation": "none"}),), ("x",), ("y",))
    images = calibration_images(graph, 4, 0)
    quantized = quantize(graph, images)
    assert quantized[quantized.ops[0].inputs[0]].shape == (1, 2, 2, 2)
    assert accuracy(graph, quantized, "q31", images)["sqnr_db"] > 30


def test_eight_bits_are_closer_than_four_and_modes_agree() -> None:
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    images = calibration_images(graph, 16, 1)
    figures = {
        (bits, mode): accuracy(graph, quantize(graph, images, weight_bits=bits), mode, images)["sqnr_db"]
        for bits in (8, 4)
        for mode in MODES
    }
    assert figures[8, "ort"] > figures[4, "ort"] + 10
    assert abs(figures[8, "ort"] - figures[8, "q31"]) < 0.5


def test_quantization_is_reproducible() -> None:
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    first, second = (quantize(graph, calibration_images(graph, 8, 5)) for _ in range(2))
    for tensor in first.constants():
        np.testing.assert_array_equal(tensor.data, second[tensor.name].data)
    assert [first[op.outputs[0]].quantization for op in first.ops] == [
        second[op.outputs[0]].quantization for op in second.ops
    ]


def test_refusals_name_the_thing() -> None:
    graph = dense([[1.0, 2.0]])
    with pytest.raises(UsageError, match=r"5 bits.*4, 8"):
        quantize(graph, ones(graph), weight_bits=5)
    with pytest.raises(ModelError, match="no value for input 'x'"):
        quantize(graph, {"z": np.zeros((1, 2), np.float32)})
    with pytest.raises(ModelError, match="'w' holds values not finite"):
        quantize(dense([[np.inf, 2.0]], activation="relu6"), {"x": np.zeros((1, 2), np.float32) + 1e-30})
    with pytest.raises(ModelError, match="calibration"):
        quantize(graph, {"x": np.full((1, 2), np.nan, np.float32)})


def test_sums_too_long_for_int32_are_refused() -> None:
    """255 * 127 a product: 33,155 of them stay below 2**30."""
    with pytest.raises(ModelError, match=r"33156 products.*33155"):
        quantize(dense(np.ones((1, 33156))), {"x": np.ones((1, 33156), np.float32)})
    assert quantize(dense(np.ones((1, 33155))), {"x": np.ones((1, 33155), np.float32)}).macs == 33155


def test_ops_without_any_int8_form_are_refused() -> None:
    tensors = {"x": Tensor("x", (1, 4), "int64"), "y": Tensor("y", (1, 4)), "z": Tensor("z", (1, 4))}
    ops = (Op("numbers", "cast", ("x",), ("y",), {"to": "float32"}), Op("r", "relu", ("y",), ("z",)))
    with pytest.raises(ModelError, match=r"'numbers' \(cast\).*quantizable: conv"):
        quantize(Graph("net", tensors, ops, ("x",), ("z",)), {"x": np.ones((1, 4), np.int64)})


def test_sums_of_unequal_shapes_and_inner_softmax_run_in_float_between_int8() -> None:
    tensors = {name: Tensor(name, (1, 4)) for name in "xyz"} | {"s": Tensor("s", (1, 1)), "r": Tensor("r", (1, 4))}
    ops = (
        Op("top", "softmax", ("x",), ("y",), {"axis": 1}), Op("sum", "add", ("y", "s"), ("z",), {"activation": "relu"}),
        Op("r", "relu", ("z",), ("r",)),
    )  # fmt: skip
    graph = Graph("net", tensors, ops, ("x", "s"), ("r",))
    rng = np.random.default_rng(0)
    samples = {"x": rng.standard_normal((20, 4)).astype(np.float32), "s": rng.normal(-0.2, 0.1, (20, 1)).astype("f4")}
    quantized = quantize(graph, samples)
    values = run_quantized(quantized, quantize_inputs(quantized, samples), "q31", keep=True)

    def real(name: str) -> npt.NDArray[np.float64]:
        of = quantization_of(quantized, name)
        return (values[name].astype(np.float64) - of.zero_point) * of.scale[0]

    for name, wanted in (
        ("y", np.exp(real("x")) / np.exp(real("x")).sum(axis=1, keepdims=True)),
        ("z", np.maximum(real("y") + real("s"), 0)),
    ):
        scale = quantization_of(quantized, name).scale[0]
        assert np.abs(real(name) - wanted).max() <= 0.501 * scale
    assert values["z"].min() == -128


# -- calibration and figures ------------------------------------------------------------------------------------


def test_ranges_do_not_depend_on_how_the_batch_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    images = calibration_images(graph, 7, 2)
    whole = observe_ranges(graph, images)
    monkeypatch.setattr(calibration_batches, "_BATCH_ELEMENTS", 20_000)
    parts = observe_ranges(graph, images)
    assert whole.keys() == parts.keys()
    for name, bounds in whole.items():
        np.testing.assert_allclose(parts[name], bounds, rtol=1e-4, atol=1e-5)
    for name, values in run_float(graph, images, keep=True).items():
        np.testing.assert_allclose(whole[name], (values.min(), values.max()), rtol=1e-4, atol=1e-5)


def test_calibration_images_are_smooth_bounded_seeded_and_different() -> None:
    graph = prepare(ZooFrontend().load("resnet8", Path("."), {}))
    images, again, other = (calibration_images(graph, 16, seed)["input"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(images, again)
    assert images.shape == (16, 3, 32, 32)
    assert images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert not np.array_equal(images, other)
    assert len({image.tobytes() for image in images}) == 16
    neighbours = np.corrcoef(images[..., 1:].ravel(), images[..., :-1].ravel())[0, 1]
    assert neighbours > 0.8
    with pytest.raises(UsageError, match="at least 1 image, got 0"):
        calibration_images(graph, 0)


def test_sqnr_of_known_noise() -> None:
    signal = np.array([3.0, 4.0])
    assert sqnr_db(signal, signal) == np.inf
    assert sqnr_db(signal, [3.3, 4.4]) == pytest.approx(20)
    assert sqnr_db(signal, [0, 0]) == pytest.approx(0)
    assert sqnr_db([0.0], [1.0]) == -np.inf
    with pytest.raises(UsageError, match="shape"):
        sqnr_db([1.0], [1.0, 2.0])


def test_accuracy_counts_images_whose_largest_logit_stays() -> None:
    """The second output is off by one step: with logits that close it wins or loses by rounding alone."""
    graph = dense([[1.0, 0.0], [0.0, 1.0]])
    images = {"x": np.array([[1.0, -1.0], [-1.0, 1.0], [0.5, 0.4999]], np.float32)}
    quantized = quantize(graph, images)
    figures = accuracy(graph, quantized, "ort", images)
    integers = run_quantized(quantized, quantize_inputs(quantized, images), "ort")["y"]
    assert integers[2, 0] == integers[2, 1]
    # argmax takes the first of equals, as it does for the float logits
    assert figures["top1_agreement"] == 1
    assert figures["sqnr_db"] > 40
