"""The nine networks inside the `onnx` package: read, counted, equal to onnxruntime, and timed by a hardware family."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from wheel_models import NAMES, path_of, seeded

from dse.compiler import prepare
from dse.ir import Graph
from dse.ir.reference import run_float
from workloads.onnx import read_model

ort = pytest.importorskip("onnxruntime")
TABLE = {
    row["network"]: row for row in csv.DictReader((Path(__file__).parent / "wheel_models.csv").read_text().splitlines())
}


def counted(path: Path) -> tuple[int, int]:
    """(MACs, parameters) by onnx's own shape inference: the slow, independent count.

    Parameters are the elements of every float constant with more than one element that a layer, a norm or an
    arithmetic node reads.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    graph = model.graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output, *graph.input)
    }
    fills = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes |= {node.output[0]: list(fills[node.input[0]]) for node in graph.node if node.op_type == "ConstantOfShape"}
    weights = {node.output[0] for node in graph.node if node.op_type == "ConstantOfShape"}
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            weights.add(tensor.name)
            shapes[tensor.name] = list(tensor.dims)
    for node in graph.node:
        if node.op_type in ("Unsqueeze", "Reshape") and node.input[0] in weights:
            weights.add(node.output[0])
    macs, read = 0, {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "BatchNormalization", "Mul", "Add"):
            read.update({name: math.prod(shapes[name]) for name in node.input if name in weights})
        if node.op_type == "Conv":
            macs += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        if node.op_type == "Gemm":
            macs += math.prod(shapes[node.input[1]]) * shapes[node.output[0]][0]
    return macs, sum(read.values())


@pytest.mark.parametrize("name", NAMES)
def test_macs_and_parameters_equal_the_table_and_an_independent_count(name: str) -> None:
    graph = read_model(path_of(name))
    table = int(TABLE[name]["macs"]), int(TABLE[name]["parameters"])
    assert (graph.macs, graph.parameters) == table
    assert counted(path_of(name)) == table


@pytest.mark.parametrize("name", NAMES)
def test_seeded_weights_give_what_onnxruntime_gives(name: str, tmp_path: Path) -> None:
    """To 1e-4 at the output, and behind a final softmax (which may saturate) to 1e-4 of the largest logit."""
    model = seeded(name)
    logits = [node.input[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(helper.make_tensor_value_info(item, onnx.TensorProto.FLOAT, None) for item in logits)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    del model
    graph = read_model(path)
    images = {
        item: np.random.default_rng(1).standard_normal(graph[item].shape).astype(np.float32) for item in graph.inputs
    }
    expected = run_onnxruntime(path, images)
    path.unlink()
    for item, values in zip(graph.outputs, expected, strict=True):
        # a network whose outputs hardly differ would prove nothing
        assert item not in logits or float(values.std()) > 0.1
    check(graph, images, expected)
    check(prepare(graph), images, expected)


def run_onnxruntime(path: Path, images: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return list(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, images))


def check(graph: Graph, images: dict[str, Any], expected: list[Any]) -> None:
    got = run_float(graph, images)
    for item, values in zip(graph.outputs, expected, strict=True):
        bound = 1e-4 * max(1.0, float(np.abs(values).max()))
        np.testing.assert_allclose(got[item], values, rtol=0, atol=bound)


@pytest.mark.parametrize("name", NAMES)
def test_a_hardware_family_compiles_and_times_each(name: str) -> None:
    from dse.flow.accelerator import resolve_accelerator

    design = resolve_accelerator("gemmini_16x16")
    graph = prepare(read_model(path_of(name)))
    # the preset holds the parameters of 2048 channels, AlexNet, VGG and ZFNet have dense layers of 4096
    hw = design.hw.model_copy(update={"parameter_channels": 4096})
    metrics = design.family.lower(graph, hw, design.decisions).estimate()
    assert sum(layer.useful_macs for layer in metrics.layers) == graph.macs
    assert metrics.cycles >= graph.macs / metrics.peak_macs_per_cycle
