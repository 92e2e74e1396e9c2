"""Whole int8 networks against LiteRT's reference kernels: every tensor of every layer, bit for bit.

The networks: MLPerf Tiny (autoencoder, ResNet-8, DS-CNN, MobileNetV1-0.25), TFLite Micro (micro speech, person
detection, MNIST LSTM) and two streaming wake words (pymicro-wakeword).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the tflite package is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT (ai-edge-litert) is not installed")

import tflite
from tflite_files import litert, to_nchw, to_nhwc

from dse.compiler import quantize
from dse.core.errors import ModelError
from dse.ir.reference import run_quantized
from workloads.tflite import read_streaming

MODELS = Path(__file__).parents[2].parent / "shared" / "reference" / "models"
#: Name -> number of state variables.
NETWORKS = {
    "ad01_autoencoder_int8": 0, "ic_resnet8_int8": 0, "kws_dscnn_int8": 0, "vww_mbv1_025_96_int8": 0,
    "tflm_micro_speech": 0, "tflm_person_detect": 0, "tflm_mnist_lstm_int8": 0, "pmw_alexa": 6, "pmw_okay_nabu": 6,
}  # fmt: skip
#: Published MACs of the MLPerf Tiny networks, convolutions and dense layers (Vela counts 12.51, 2.66 and 7.49 M).
PUBLISHED = {"ad01_autoencoder_int8": 264_192, "ic_resnet8_int8": 12.5e6, "kws_dscnn_int8": 2.66e6,
             "vww_mbv1_025_96_int8": 7.49e6}  # fmt: skip


def content(name: str) -> Path:
    path = MODELS / f"{name}.tflite"
    if not path.is_file():
        pytest.skip("the shared reference data is absent")
    return path


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_tensor_equals_litert(name: str) -> None:
    """Five random inputs; a streaming network keeps its state from one to the next, on both sides."""
    path = content(name)
    model = read_streaming(path)
    graph = model.graph
    interpreter = litert(path.read_bytes())
    (entry,) = interpreter.get_input_details()
    (result,) = interpreter.get_output_details()
    indices: dict[str, list[int]] = {}
    for tensor in interpreter.get_tensor_details():
        indices.setdefault(tensor["name"], []).append(tensor["index"])
    rng = np.random.default_rng(0)
    state = {item.input: item.initial for item in model.states}
    compared = 0
    for _ in range(5):
        x = rng.integers(-128, 128, entry["shape"]).astype(np.int8)
        if not model.states:
            interpreter.reset_all_variables()
        interpreter.set_tensor(entry["index"], x)
        interpreter.invoke()
        values = run_quantized(graph, {graph.inputs[0]: to_nchw(x), **state}, "tflite", keep=True)
        want = interpreter.get_tensor(result["index"])
        np.testing.assert_array_equal(to_nhwc(values[graph.outputs[0]]), want)
        for op in graph.ops:
            output = op.outputs[0]
            if len(indices.get(output, ())) == 1:
                np.testing.assert_array_equal(
                    to_nhwc(values[output]), interpreter.get_tensor(indices[output][0]), err_msg=f"{op.name} {output}"
                )
                compared += 1
        state = {item.input: values[item.output] for item in model.states}
    assert compared >= 5 * 3


def counted(data: bytes) -> tuple[int, int]:
    """(MACs, weights and biases) from the shapes in the file, without the front end."""
    model = tflite.Model.GetRootAsModel(data, 0)
    subgraph = model.Subgraphs(0)
    macs = parameters = 0
    for index in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        inputs = [subgraph.Tensors(int(item)) for item in operator.InputsAsNumpy()[1:] if item >= 0]
        shapes = [item.ShapeAsNumpy().tolist() for item in inputs if not item.IsVariable()]
        if not operator.OutputsLength():
            continue
        output = math.prod(subgraph.Tensors(int(operator.OutputsAsNumpy()[0])).ShapeAsNumpy().tolist())
        if code == tflite.BuiltinOperator.CONV_2D:
            macs += output * math.prod(shapes[0][1:])
        elif code == tflite.BuiltinOperator.DEPTHWISE_CONV_2D:
            macs += output * math.prod(shapes[0][1:3])
        elif code == tflite.BuiltinOperator.FULLY_CONNECTED:
            macs += output * shapes[0][1]
        elif code == tflite.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM:
            macs += output * sum(shape[1] for shape in shapes if len(shape) == 2)
            # the Graph's lstm has a second bias, of zeros
            parameters += sum(shape[0] for shape in shapes if len(shape) == 1)
        else:
            continue
        parameters += sum(math.prod(shape) for shape in shapes)
    return macs, parameters


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_macs_parameters_and_states(name: str) -> None:
    path = content(name)
    model = read_streaming(path)
    assert (model.graph.macs, model.graph.parameters) == counted(path.read_bytes())
    assert len(model.states) == NETWORKS[name]
    if name in PUBLISHED:
        assert model.graph.macs == pytest.approx(PUBLISHED[name], rel=2e-3)


def test_flattening_needs_no_transpose() -> None:
    """Behind a map, a dense layer's columns are turned instead: the graph is one that hardware takes."""
    for name in ("ic_resnet8_int8", "kws_dscnn_int8", "vww_mbv1_025_96_int8", "tflm_micro_speech"):
        kinds = {op.kind for op in read_streaming(content(name)).graph.ops}
        assert "transpose" not in kinds


def test_an_int8_network_is_not_quantized_again() -> None:
    graph = read_streaming(content("kws_dscnn_int8")).graph
    with pytest.raises(ModelError, match="quantized"):
        quantize(graph, {graph.inputs[0]: np.zeros((1, 1, 49, 10), np.float32)})


def test_mode_ort_differs_from_tflite_by_little() -> None:
    """The same network in onnxruntime's arithmetic: off by rounding, not by layout."""
    graph = read_streaming(content("ic_resnet8_int8")).graph
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (4, 3, 32, 32)).astype(np.int8)
    exact, other = (run_quantized(graph, {graph.inputs[0]: x}, mode, keep=True) for mode in ("tflite", "ort"))
    logits = graph.ops[-1].inputs[0]
    difference = np.abs(exact[logits].astype(int) - other[logits].astype(int))
    # a wrong layout would be off by tens
    assert difference.mean() < 2
