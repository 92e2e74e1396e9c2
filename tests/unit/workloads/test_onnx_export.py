"""Export of quantized graphs: valid ONNX, and refusal of what QLinear operators cannot express."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dse.compiler import calibration_images, prepare, quantize
from dse.core.errors import ModelError
from dse.ir import Graph, Op, Quantization, Tensor
from workloads.onnx import export_quantized
from workloads.zoo import ZooFrontend


def test_exported_resnet8_holds_the_integers_of_the_graph() -> None:
    graph = prepare(ZooFrontend().load("resnet8", Path("."), {}))
    quantized = quantize(graph, calibration_images(graph, 4, 0))
    model = export_quantized(quantized)
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "QLinearConv": 9, "QLinearAdd": 3, "QLinearGlobalAveragePool": 1, "Flatten": 1, "QGemm": 1,
    }  # fmt: skip
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in quantized.constants():
        np.testing.assert_array_equal(stored[tensor.name], tensor.data)
        if tensor.dtype == "int8":
            assert tensor.quantization is not None
            np.testing.assert_array_equal(stored[f"{tensor.name}.scale"], np.float32(tensor.quantization.scale))
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == list(quantized.outputs)


def one_op(op: Op, out: Quantization | None) -> Graph:
    of = Quantization((0.1,), 3)
    tensors = {"x": Tensor("x", (1, 4), "int8", of), "y": Tensor("y", (1, 4), "int8", out)}
    return Graph("net", tensors, (op,), ("x",), ("y",))


def test_a_clamp_that_is_not_saturation_is_refused() -> None:
    op = Op("sum", "add", ("x", "x"), ("y",), {"activation": "relu"})
    with pytest.raises(ModelError, match=r"'sum' clamps to \(-5, 127\).*zero point -128"):
        export_quantized(one_op(op, Quantization((0.1,), -5)))
    assert len(export_quantized(one_op(op, Quantization((0.1,), -128))).graph.node) == 1


def test_an_add_of_single_numbers_is_refused() -> None:
    of = Quantization((0.1,), 3)
    tensors = {name: Tensor(name, (1, 1), "int8", of) for name in "xy"}
    graph = Graph("net", tensors, (Op("sum", "add", ("x", "x"), ("y",)),), ("x",), ("y",))
    with pytest.raises(ModelError, match="'sum' adds single numbers"):
        export_quantized(graph)


def test_float_graphs_and_other_ops_are_refused() -> None:
    with pytest.raises(ModelError, match="'y' is not quantized"):
        export_quantized(one_op(Op("sum", "add", ("x", "x"), ("y",)), None))
    with pytest.raises(ModelError, match=r"'n' \(group_norm\) has no operator at opset 17; exportable.* abs"):
        export_quantized(one_op(Op("n", "group_norm", ("x",), ("y",), {"groups": 1}), Quantization((0.1,))))
