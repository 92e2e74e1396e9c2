"""What a TFLite file becomes as a Graph: padding, flattening, the host's quantization, names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the tflite package is not installed")

from tflite_files import TfliteFile

from dse.flow.workload import load_workload
from dse.ir.reference import run_quantized
from workloads.tflite import read_model, read_streaming

WINDOW = {"Padding": 1, "StrideH": 1, "StrideW": 1, "FusedActivationFunction": 0}
DENSE = {"FusedActivationFunction": 0, "WeightsFormat": 0, "KeepNumDims": False}


def save(file: TfliteFile, inputs: list[int], outputs: list[int], folder: Path) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(file.bytes(inputs, outputs))
    return path


def test_a_pad_in_front_becomes_the_convolutions_padding(tmp_path: Path) -> None:
    """Values: a 2 x 2 sum over a map padded by its zero point equals one over a map padded with zeros."""
    file = TfliteFile()
    x = file.tensor((1, 3, 3, 1), 1.0, -7)
    pads = file.tensor(data=np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32))
    padded, y = file.tensor((1, 4, 4, 1), 1.0, -7), file.tensor((1, 3, 3, 1), 1.0, 0)
    weight = file.tensor(scale=1.0, data=np.ones((1, 2, 2, 1), np.int8))
    file.op("PAD", [x, pads], [padded])
    file.op("CONV_2D", [padded, weight], [y], "Conv2DOptions", DilationHFactor=1, DilationWFactor=1, **WINDOW)
    graph = read_model(save(file, [x], [y], tmp_path))
    (op,) = graph.ops
    assert op.attributes["pads"] == (1, 0, 0, 1)
    real = np.arange(9).reshape(3, 3)
    frame = np.zeros((4, 4), int)
    frame[1:, :3] = real
    expected = frame[:-1, :-1] + frame[1:, :-1] + frame[:-1, 1:] + frame[1:, 1:]
    got = run_quantized(graph, {graph.inputs[0]: (real - 7).reshape(1, 1, 3, 3).astype(np.int8)}, "tflite")
    np.testing.assert_array_equal(got[graph.outputs[0]][0, 0], expected)


def test_flattening_for_a_dense_layer_and_for_an_output(tmp_path: Path) -> None:
    """The dense layer needs no transpose; whoever else reads the flattened map sees the file's order."""
    rng = np.random.default_rng(0)
    file = TfliteFile()
    x, flat, y = file.tensor((1, 2, 3, 4), 1.0), file.tensor((1, 24), 1.0), file.tensor((1, 2), 1.0)
    weight = rng.integers(-2, 3, (2, 24)).astype(np.int8)
    file.op("RESHAPE", [x, file.tensor(data=np.array([1, 24], np.int32))], [flat])
    file.op("FULLY_CONNECTED", [flat, file.tensor(scale=1.0, data=weight)], [y], "FullyConnectedOptions", **DENSE)
    values = rng.integers(-2, 3, (1, 2, 3, 4)).astype(np.int8)
    expected = weight.astype(int) @ values.ravel()
    alone = read_model(save(file, [x], [y], tmp_path))
    assert [op.kind for op in alone.ops] == ["flatten", "gemm"]
    both = read_model(save(file, [x], [y, flat], tmp_path))
    assert [op.kind for op in both.ops] == ["transpose", "reshape", "flatten", "gemm"]
    feed = {"t0": values.transpose(0, 3, 1, 2)}
    for graph in (alone, both):
        np.testing.assert_array_equal(run_quantized(graph, feed, "tflite")["t2"][0], expected)
    np.testing.assert_array_equal(run_quantized(both, feed, "tflite")["t1"], values.reshape(1, 24))


def test_quantization_at_the_borders_is_the_hosts(tmp_path: Path) -> None:
    """float32 -> QUANTIZE -> network -> DEQUANTIZE -> float32: the Graph starts and ends with the integers."""
    file = TfliteFile()
    real, x = file.tensor((1, 8), dtype="float32"), file.tensor((1, 8), 0.5, 3)
    y, result = file.tensor((1, 8), 1 / 128), file.tensor((1, 8), dtype="float32")
    file.op("QUANTIZE", [real], [x])
    file.op("TANH", [x], [y])
    file.op("DEQUANTIZE", [y], [result])
    graph = read_model(save(file, [real], [result], tmp_path))
    assert [op.kind for op in graph.ops] == ["tanh"]
    assert (graph[graph.inputs[0]].dtype, graph[graph.outputs[0]].dtype) == ("int8", "int8")


def test_file_is_found_by_its_suffix_and_has_no_state(tmp_path: Path) -> None:
    file = TfliteFile()
    x, y = file.tensor((2, 4), 0.5, 3), file.tensor((2, 4), 1 / 256, -128)
    file.op("LOGISTIC", [x], [y])
    path = save(file, [x], [y], tmp_path)
    graph = load_workload("net.tflite", tmp_path)
    assert [op.name for op in graph.ops] == ["logistic_0"]
    assert read_streaming(path).states == ()
