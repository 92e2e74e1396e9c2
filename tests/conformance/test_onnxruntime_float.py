"""Reading a network, preparing it and running it in NumPy gives what onnxruntime gives on the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_networks import RandomCnn, make_model, save, single

from dse.compiler import prepare
from dse.ir.reference import run_float
from workloads.onnx import read_model
from workloads.zoo import resnet8, resnet50, small

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(5)


def run_onnxruntime(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def assert_same(model: onnx.ModelProto, folder: Path, tolerance: float = 1e-4) -> None:
    """Both the graph as read and the prepared graph equal onnxruntime, relative to the largest output."""
    graph = read_model(save(model, folder))
    inputs = {name: RNG.standard_normal(graph[name].shape).astype(np.float32) for name in graph.inputs}
    for name, expected in zip(graph.outputs, run_onnxruntime(model, inputs), strict=True):
        assert expected.shape == graph[name].shape
        bound = tolerance * max(1.0, float(np.abs(expected).max()))
        for candidate in (graph, prepare(graph)):
            np.testing.assert_allclose(run_float(candidate, inputs)[name], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("seed", range(40))
def test_random_cnns_equal_onnxruntime(seed: int, tmp_path: Path) -> None:
    assert_same(RandomCnn(np.random.default_rng(seed)).build(), tmp_path)


@pytest.mark.parametrize("build", [resnet8.build, small.build_tiny_cnn, small.build_mlp])
def test_zoo_networks_equal_onnxruntime(build: Any, tmp_path: Path) -> None:
    assert_same(build(3), tmp_path)


def test_resnet50_equals_onnxruntime(tmp_path: Path) -> None:
    assert_same(resnet50.build(0), tmp_path)


def test_the_wheels_resnet50_reads_as_it_is_and_equals_its_reference_output() -> None:
    """Constant fills everywhere make all 1000 classes equal: softmax 1 / 1000 each."""
    graph = prepare(read_model(resnet50.topology_path()))
    result = run_float(graph, {graph.inputs[0]: np.zeros(graph[graph.inputs[0]].shape, np.float32)})
    assert graph.macs == resnet50.MACS
    np.testing.assert_allclose(result[graph.outputs[0]], 1e-3, rtol=1e-4)


W = RNG.standard_normal((4, 3, 3, 3))
NODES = {
    "conv same upper": single("Conv", (1, 3, 8, 9), {"w": W}, auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": single("Conv", (1, 3, 8, 9), {"w": W}, auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv valid": single("Conv", (1, 3, 8, 9), {"w": W}, auto_pad="VALID", dilations=[2, 2]),
    "conv without attributes": single("Conv", (1, 3, 8, 9), {"w": W}),
    "gemm with alpha, beta, scalar C": single(
        "Gemm", (2, 6), {"w": RNG.standard_normal((6, 4)), "c": np.array(0.5)}, alpha=0.5, beta=2.0
    ),
    "gemm with row C": single("Gemm", (1, 6), {"w": RNG.standard_normal((6, 4)), "c": RNG.standard_normal((1, 4))}),
    "matmul": single("MatMul", (3, 6), {"w": RNG.standard_normal((6, 4))}),
    "max pool, ceil": single("MaxPool", (1, 2, 8, 7), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max pool, ceil, padded": single(
        "MaxPool", (1, 2, 8, 7), kernel_shape=[2, 3], strides=[3, 2], pads=[1, 1, 1, 1], ceil_mode=1
    ),
    "max pool same lower": single("MaxPool", (1, 2, 8, 7), kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    "average pool, ceil": single("AveragePool", (1, 2, 8, 7), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average pool, padding counted": single(
        "AveragePool", (1, 2, 8, 7), kernel_shape=[3, 3], pads=[1, 2, 0, 1], count_include_pad=1
    ),
    "reduce mean": single("ReduceMean", (2, 3, 4, 5), axes=[2, 3], keepdims=1),
    "reduce mean, dropped dims": single("ReduceMean", (2, 3, 4, 5), axes=[-1, -2], keepdims=0),
    "reduce mean of opset 18": single("ReduceMean", (2, 3, 4, 5), {"axes": np.array([2, 3])}, opset=18),
    "clip with attributes": single("Clip", (2, 9), opset=9, min=-0.5, max=0.25),
    "clip with inputs": single("Clip", (2, 9), {"low": np.array(-0.5), "high": np.array(0.25)}),
    "clip below only": single("Clip", (2, 9), {"low": np.array(0.1)}),
    "softmax on channels": single("Softmax", (2, 5, 3, 3), axis=1),
    "softmax of opset 9": single("Softmax", (2, 5, 1, 1), opset=9),
    "flatten axis 2": single("Flatten", (2, 3, 4, 5), axis=2),
    "flatten axis 0": single("Flatten", (2, 3, 4, 5), axis=0),
    "flatten last axis": single("Flatten", (2, 3, 4, 5), axis=4),
    "reshape with 0 and -1": single("Reshape", (2, 3, 4), {"shape": np.array([0, -1])}),
    "squeeze": single("Squeeze", (2, 3, 1, 1), {"axes": np.array([2, -1])}),
    "squeeze all": single("Squeeze", (1, 3, 1, 1)),
    "squeeze of opset 11": single("Squeeze", (2, 3, 1, 1), opset=11, axes=[2, 3]),
    "unsqueeze": single("Unsqueeze", (2, 3), {"axes": np.array([-1, 1])}),
    "add broadcast": single("Add", (2, 3, 4), {"w": RNG.standard_normal((3, 1))}),
    "sum of one": single("Sum", (2, 3)),
    "sum of four": single("Sum", (2, 3), {"a": np.ones((2, 3)), "b": np.ones((1, 3)), "c": np.full((2, 3), 2.0)}),
    "dropout of opset 7": single("Dropout", (2, 3), opset=7),
}  # fmt: skip


@pytest.mark.parametrize("case", NODES)
def test_every_form_of_a_node_equals_onnxruntime(case: str, tmp_path: Path) -> None:
    assert_same(NODES[case], tmp_path, tolerance=1e-5)


def test_exported_shape_arithmetic_folds_away(tmp_path: Path) -> None:
    """What exporters write for x.view(x.shape[0], -1), with the constants as nodes and a transposed dense weight."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axis0"], ["batch1"]),
        helper.make_node("Slice", ["shape", "one", "four"], ["rest"]),
        helper.make_node("Gather", ["rest", "indices"], ["sizes"]),
        helper.make_node("Cast", ["sizes"], ["sizes64"], to=onnx.TensorProto.INT64),
        helper.make_node("Div", ["sizes64", "sizes64"], ["ones"]),
        helper.make_node("Sub", ["ones", "two3"], ["minus"]),
        helper.make_node("Slice", ["minus", "zero1", "one"], ["minus1"]),
        helper.make_node("Concat", ["batch1", "minus1"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("ConstantOfShape", ["bias_shape"], ["b"],
                         value=helper.make_tensor("", onnx.TensorProto.FLOAT, [1], [0.25])),
        helper.make_node("Mul", ["b", "b"], ["b2"]),
        helper.make_node("Gemm", ["flat", "wt", "b2"], ["y"]),
    ]  # fmt: skip
    weights = {
        "axis0": np.array([0]), "one": np.array([1]), "four": np.array([4]), "indices": np.array([0, 1, 2]),
        "two3": np.array([2, 2, 2]), "zero1": np.array([0]), "w": RNG.standard_normal((7, 24)),
        "bias_shape": np.array([7]),
    }  # fmt: skip
    model = make_model(nodes, {"x": (1, 2, 3, 4)}, ["y"], weights)
    assert_same(model, tmp_path, tolerance=1e-5)
    assert [op.kind for op in read_model(save(model, tmp_path)).ops] == ["reshape", "gemm"]
