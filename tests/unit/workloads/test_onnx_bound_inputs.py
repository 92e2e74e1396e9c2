"""Inputs of one whole number that a user binds to a value: constants, with which an If takes its branch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_networks import save

from dse.core.errors import ModelError
from dse.ir.reference import run_float
from workloads.onnx import read_model

F, I64 = TensorProto.FLOAT, TensorProto.INT64


def branch(name: str, factor: float) -> onnx.GraphProto:
    nodes = [helper.make_node("Mul", ["x", "f"], [f"{name}.y"])]
    factors = [numpy_helper.from_array(np.array(factor, np.float32), "f")]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}.y", F, [1, 4])], factors)


def rate_model(shape: list[Any], dtype: int = I64) -> onnx.ModelProto:
    """y = 2 x at 16000, else 3 x."""
    wanted = numpy_helper.from_array(np.array(16000, np.int64), "wanted")
    nodes = [
        helper.make_node("Equal", ["sr", "wanted"], ["same"], "same"),
        helper.make_node("If", ["same"], ["y"], "choose", then_branch=branch("a", 2), else_branch=branch("b", 3)),
    ]
    inputs = [helper.make_tensor_value_info("x", F, [1, 4]), helper.make_tensor_value_info("sr", dtype, shape)]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", F, [1, 4])], [wanted])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)


@pytest.mark.parametrize("shape", [[], [1]])
@pytest.mark.parametrize(("rate", "factor"), [(16000, 2), (8000, 3), (-1, 3)])
def test_a_bound_input_chooses_the_branch(shape: list[int], rate: int, factor: int, tmp_path: Path) -> None:
    graph = read_model(save(rate_model(shape), tmp_path), {"sr": rate})
    assert graph.inputs == ("x",)
    x = np.array([[1, -2, 3, 4]], np.float32)
    np.testing.assert_array_equal(run_float(graph, {"x": x})["y"], factor * x)


@pytest.mark.parametrize(("shape", "dims", "message"), [
    ([], {}, r"node 'choose' \(If, opset 16\): the condition 'same' is computed from inputs.*--dim INPUT=VALUE"),
    ([2], {"sr": 16000}, r"input 'sr' is int64 of shape \[2\]; only an input of one whole number"),
    ([], {"x": 1}, r"input 'x' is float32 of shape \[1, 4\]; only an input of one whole number"),
    ([], {"rate": 1}, r"has no dimension 'rate' to bind"),
    ([], {"sr": 16000, "batch": 0}, r"dimension 'batch' is bound to 0, it must be at least 1"),
])  # fmt: skip
def test_what_cannot_be_bound_is_said(shape: list[int], dims: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        read_model(save(rate_model(shape), tmp_path), dims)


def test_a_value_beyond_the_type_of_the_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input 'sr' \(uint8\) cannot hold 16000"):
        read_model(save(rate_model([], TensorProto.UINT8), tmp_path), {"sr": 16000})
