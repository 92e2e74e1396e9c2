"""Quantized ONNX files read into integer graphs that equal onnxruntime bit for bit: QLinear operators and QDQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from int8_parity import differences
from onnx import TensorProto, helper
from onnx_networks import RandomCnn, make_model, save

from dse.compiler import calibration_images, prepare, quantize
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.quantized import quantize_input
from dse.ir.reference import run_float, run_quantized
from workloads.onnx import export_quantized, read_model
from workloads.zoo import ZooFrontend

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(23)
CODES = np.arange(-128, 128).astype(np.int8)


def run_ort(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # as written: onnxruntime's own fusions move ties
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, inputs)
    )


def integer_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    weights: dict[str, Any],
    kind: int = TensorProto.INT8,
) -> onnx.ModelProto:
    """A model on integers from input to output."""
    model = make_model(nodes, inputs, ["y"], weights)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def mismatches(model: onnx.ModelProto, inputs: dict[str, Any], folder: Path) -> int:
    """Outputs that differ; uint8 models are shifted to int8 on the way in and out."""
    graph = read_model(save(model, folder))
    shifted = {name: _shift(values) for name, values in inputs.items()}
    got = run_quantized(graph, shifted, "ort")[graph.outputs[0]]
    return int((_shift(run_ort(model, inputs)[0]) != got).sum())


def _shift(values: Any) -> Any:
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values


def scales(*names: str, unsigned: bool = False) -> dict[str, Any]:
    """Random scale and zero point for each name."""
    result: dict[str, Any] = {}
    for name in names:
        result[f"{name}_s"] = np.float32(RNG.uniform(0.01, 0.1))
        result[f"{name}_z"] = np.uint8(RNG.integers(256)) if unsigned else np.int8(RNG.integers(-128, 128))
    return result


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_qlinear_conv_in_both_signs(seed: int, unsigned: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    weights = {**scales("x", "y", unsigned=unsigned), "w_s": rng.uniform(0.001, 0.02, 6).astype(np.float32)}
    weights["y_s"] = np.float32(0.3)
    weights["w"] = rng.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8)
    weights["w_z"] = np.zeros(6, np.int8)
    weights["b"] = rng.integers(-3000, 3000, 6).astype(np.int32)
    if unsigned:
        weights |= {"w": (weights["w"].astype(int) + 128).astype(np.uint8), "w_z": np.full(6, 128, np.uint8)}
    names = ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], "n", group=2, pads=[1, 0, 1, 2], strides=[1, 2])
    kind = TensorProto.UINT8 if unsigned else TensorProto.INT8
    model = integer_model([node], {"x": (4, 4, 9, 10)}, weights, kind)
    values = rng.integers(0, 256, (4, 4, 9, 10)) if unsigned else rng.integers(-128, 128, (4, 4, 9, 10))
    assert mismatches(model, {"x": values.astype(np.uint8 if unsigned else np.int8)}, tmp_path) == 0


def test_qlinear_conv_1d(tmp_path: Path) -> None:
    weights = {**scales("x", "y"), "w_s": np.float32(0.01), "w_z": np.int8(0),
               "w": RNG.integers(-127, 128, (5, 3, 4)).astype(np.int8)}  # fmt: skip
    node = helper.make_node(
        "QLinearConv", ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"], ["y"], "n", pads=[2, 1]
    )
    values = RNG.integers(-128, 128, (2, 3, 20)).astype(np.int8)
    assert mismatches(integer_model([node], {"x": (2, 3, 20)}, weights), {"x": values}, tmp_path) == 0


@pytest.mark.parametrize("per_column", [False, True])
def test_qlinear_matmul_with_weights(per_column: bool, tmp_path: Path) -> None:
    weights = {**scales("x", "y"), "y_s": np.float32(0.5), "w": RNG.integers(-127, 128, (12, 7)).astype(np.int8)}
    weights["w_s"] = RNG.uniform(0.001, 0.02, 7).astype(np.float32) if per_column else np.float32(0.01)
    weights["w_z"] = np.zeros(7, np.int8) if per_column else np.int8(0)
    node = helper.make_node("QLinearMatMul", ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"], ["y"], "n")
    values = RNG.integers(-128, 128, (3, 20, 12)).astype(np.int8)
    model = integer_model([node], {"x": (3, 20, 12)}, weights)
    assert mismatches(model, {"x": values}, tmp_path) == 0
    assert read_model(save(model, tmp_path)).macs == 3 * 20 * 12 * 7


def test_qlinear_matmul_of_activations(tmp_path: Path) -> None:
    weights = {**scales("a", "b", "y"), "y_s": np.float32(0.9)}
    node = helper.make_node("QLinearMatMul", ["a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z"], ["y"], "n")
    inputs = {
        "a": RNG.integers(-128, 128, (3, 20, 12)).astype(np.int8),
        "b": RNG.integers(-128, 128, (3, 12, 9)).astype(np.int8),
    }
    model = integer_model([node], {name: values.shape for name, values in inputs.items()}, weights)
    assert mismatches(model, inputs, tmp_path) == 0


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("seed", range(8))
def test_qlinear_add_and_mul_on_all_pairs(op_type: str, seed: int, tmp_path: Path) -> None:
    """Odd seeds have scales of small powers of two, where every other result is a tie."""
    weights = scales("a", "b", "y")
    if seed % 2:
        weights |= {f"{name}_s": np.float32(2.0 ** int(RNG.integers(-4, 1))) for name in "aby"}
    node = helper.make_node(
        op_type, ["a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z"], ["y"], "n", domain="com.microsoft"
    )
    shape = (1, 256, 256)
    inputs = {"a": np.broadcast_to(CODES[:, None], shape).copy(), "b": np.broadcast_to(CODES, shape).copy()}
    assert mismatches(integer_model([node], {"a": shape, "b": shape}, weights), inputs, tmp_path) == 0


@pytest.mark.parametrize("op_type", ["QLinearSigmoid", "QLinearLeakyRelu"])
@pytest.mark.parametrize("seed", range(10))
def test_qlinear_tables_on_all_codes(op_type: str, seed: int, tmp_path: Path) -> None:
    weights = scales("x", "y")
    weights["y_s"] = np.float32(1 / 256) if op_type == "QLinearSigmoid" else weights["y_s"]
    node = helper.make_node(op_type, ["x", "x_s", "x_z", "y_s", "y_z"], ["y"], "n", domain="com.microsoft")
    assert mismatches(integer_model([node], {"x": (1, 256)}, weights), {"x": CODES[None]}, tmp_path) == 0


@pytest.mark.parametrize("seed", range(6))
def test_qlinear_concat_requantizes_each_operand(seed: int, tmp_path: Path) -> None:
    weights = scales("a", "b", "y")
    node = helper.make_node("QLinearConcat", ["y_s", "y_z", "a", "a_s", "a_z", "b", "b_s", "b_z"], ["y"], "n", axis=1,
                            domain="com.microsoft")  # fmt: skip
    inputs = {"a": CODES[None], "b": CODES[None, ::-1].copy()}
    assert mismatches(integer_model([node], {"a": (1, 256), "b": (1, 256)}, weights), inputs, tmp_path) == 0


@pytest.mark.parametrize("name", ["resnet8", "tiny_cnn", "mlp"])
def test_what_we_export_reads_back_as_the_same_network(name: str, tmp_path: Path) -> None:
    graph = prepare(ZooFrontend().load(name, Path("."), {}))
    quantized = quantize(graph, calibration_images(graph, 8, 0))
    again = read_model(save(export_quantized(quantized), tmp_path))
    assert (again.macs, again.inputs, again.outputs) == (quantized.macs, quantized.inputs, quantized.outputs)
    values = {item: RNG.integers(-128, 128, quantized[item].shape).astype(np.int8) for item in quantized.inputs}
    for mode in ("ort", "q31"):
        expected = run_quantized(quantized, values, mode)[quantized.outputs[0]]
        np.testing.assert_array_equal(run_quantized(again, values, mode)[again.outputs[0]], expected)


# -- quantize-dequantize ----------------------------------------------------------------------------------------------


class Reader:
    """Calibration data for onnxruntime's quantizer."""

    def __init__(self, graph: Graph) -> None:
        self.rows = iter([{name: values[index : index + 1] for name, values in calibration_images(graph, 4, 0).items()}
                          for index in range(4)])  # fmt: skip

    def get_next(self) -> dict[str, Any] | None:
        return next(self.rows, None)


def qdq_of(
    model: onnx.ModelProto, folder: Path, *, per_channel: bool = True, unsigned: bool = False
) -> onnx.ModelProto:
    """The model as onnxruntime's static quantizer writes it."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # folds batch norms, as the quantizer's own instructions ask for
    quant_pre_process(str(save(model, folder, "raw.onnx")), str(folder / "float.onnx"), skip_symbolic_shape=True)
    path = folder / "float.onnx"
    kind = quantization.QuantType.QUInt8 if unsigned else quantization.QuantType.QInt8
    quantization.quantize_static(
        str(path), str(folder / "qdq.onnx"), Reader(read_model(path)), per_channel=per_channel, activation_type=kind,
        weight_type=quantization.QuantType.QInt8, quant_format=quantization.QuantFormat.QDQ,
    )  # fmt: skip
    return onnx.load(folder / "qdq.onnx")


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("name", ["resnet8", "tiny_cnn"])
def test_qdq_networks_become_integer_graphs_and_equal_onnxruntime(name: str, unsigned: bool, tmp_path: Path) -> None:
    from workloads.zoo import resnet8, small

    model = resnet8.build(0) if name == "resnet8" else small.build_tiny_cnn(0)
    quantized = qdq_of(model, tmp_path, unsigned=unsigned)
    graph = read_model(tmp_path / "qdq.onnx")
    kinds = {op.kind for op in graph.ops}
    assert not kinds & {"quantize", "dequantize"}
    assert all(graph[item].dtype == "int8" for item in (*graph.inputs, *graph.outputs))
    assert graph.macs == read_model(tmp_path / "float.onnx").macs
    wrong = 0
    for seed in range(4):
        images = calibration_images(graph, 1, 10 + seed)
        got = run_quantized(graph, {item: quantize_input(graph, item, images[item]) for item in images}, "ort")
        expected = _logits(quantized, graph.outputs[0], images)
        of = graph[graph.outputs[0]].quantization
        assert of is not None
        real = (got[graph.outputs[0]].astype(np.int64) - of.zero_point).astype(np.float32) * np.float32(of.scale[0])
        wrong += int((np.abs(real - expected) > 1e-5).sum())
    assert wrong == 0


def _logits(model: onnx.ModelProto, name: str, images: dict[str, Any]) -> Any:
    """What onnxruntime computes for tensor `name`, whatever the model ends with."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return run_ort(tapped, images)[0]


@pytest.mark.parametrize("seed", range(6))
def test_partly_quantized_graphs_run_as_they_are(seed: int, tmp_path: Path) -> None:
    """Random CNNs: what has no integer form stays between its quantize and dequantize ops."""
    quantized = qdq_of(RandomCnn(np.random.default_rng(500 + seed)).build(), tmp_path, per_channel=bool(seed % 2))
    graph = read_model(tmp_path / "qdq.onnx")
    images = calibration_images(read_model(tmp_path / "float.onnx"), 1, seed)
    expected = _logits(quantized, graph.outputs[0], images)
    of = graph[graph.outputs[0]].quantization
    if of is None:
        got = run_float(graph, images)[graph.outputs[0]]
        np.testing.assert_allclose(got, expected, atol=0.02 * float(np.abs(expected).max()))
        return
    integers = {item: quantize_input(graph, item, images[item]) for item in images}
    got = run_quantized(graph, integers, "ort")[graph.outputs[0]]
    real = (got.astype(np.int64) - of.zero_point).astype(np.float32) * np.float32(of.scale[0])
    assert (np.abs(real - expected) > 1e-5 * np.float32(of.scale[0])).mean() <= 0.2
    assert float(np.abs(real - expected).max()) <= 1.01 * of.scale[0]


@pytest.mark.parametrize("seed", range(6))
def test_dynamic_quantized_lstm_rounds_inputs_and_states_as_onnxruntime(seed: int, tmp_path: Path) -> None:
    """Weights, inputs and hidden states of 8 bits, ranges found while running; one direction or two."""
    rng = np.random.default_rng(seed)
    directions = 1 + seed % 2
    weights = {
        "w": rng.integers(-127, 128, (directions, 6, 16)).astype(np.int8),
        "r": rng.integers(-127, 128, (directions, 4, 16)).astype(np.int8),
        "b": rng.normal(0, 0.2, (directions, 32)), "ws": np.full(directions, 0.005, np.float32),
        "wz": np.zeros(directions, np.int8), "rs": np.full(directions, 0.006, np.float32),
        "rz": np.zeros(directions, np.int8),
    }  # fmt: skip
    names = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, ["y", "h", "c"], "n", hidden_size=4, domain="com.microsoft",
        direction="bidirectional" if directions == 2 else "forward",
    )  # fmt: skip
    model = make_model([node], {"x": (9, 1, 6)}, ["y"], weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    values = rng.standard_normal((9, 1, 6)).astype(np.float32)
    got = run_float(read_model(save(model, tmp_path)), {"x": values})["y"]
    np.testing.assert_allclose(got, run_ort(model, {"x": values})[0], atol=1e-6)


# -- refusals ---------------------------------------------------------------------------------------------------------


def refused(nodes: list[onnx.NodeProto], weights: dict[str, Any], folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        read_model(save(integer_model(nodes, {"x": (1, 3, 4, 4)}, weights), folder))
    return str(error.value)


def test_integers_meet_only_ops_that_know_their_scale(tmp_path: Path) -> None:
    weights = {**scales("x", "y"), "w": np.ones((2, 3, 1, 1), np.int8), "w_s": np.float32(1), "w_z": np.int8(3)}
    conv = helper.make_node("QLinearConv", ["x", "x_s", "x_z", "w", "w_s", "w_z", "y_s", "y_z"], ["c"], "conv")
    assert "'conv'" in (message := refused([conv], weights, tmp_path))
    assert "symmetric" in message
    weights["w_z"] = np.int8(0)
    exp = helper.make_node("Exp", ["c"], ["y"], "exp")
    assert "'c' as plain integers" in refused([conv, exp], weights, tmp_path)
    other = helper.make_node("DequantizeLinear", ["c", "x_s", "x_z"], ["y"], "other")
    assert "but it has scale" in refused([conv, other], weights, tmp_path)
    weights["x_s"] = np.float32(-1)
    assert "positive" in refused([conv], weights, tmp_path)


def test_an_average_that_rounds_between_reals_is_written_as_such(tmp_path: Path) -> None:
    from workloads.zoo import small

    qdq_of(small.build_tiny_cnn(0), tmp_path)
    graph = read_model(tmp_path / "qdq.onnx")
    written = [node.op_type for node in export_quantized(graph).graph.node]
    place = next(index for index, kind in enumerate(written) if kind.endswith("AveragePool"))
    assert written[place - 1 : place + 2] == ["DequantizeLinear", written[place], "QuantizeLinear"]
    rng = np.random.default_rng(0)
    codes = {name: rng.integers(-128, 128, (20, *graph[name].shape[1:])).astype(np.int8) for name in graph.inputs}
    assert {wrong for wrong, _ in differences(graph, codes, "unoptimised").values()} == {0}
