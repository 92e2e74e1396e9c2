"""tanh and the logistic function equal onnxruntime's float32 kernels, and are what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from dse.ir.rational import logistic, tanh

FUNCTIONS = {"Tanh": (tanh, np.tanh), "Sigmoid": (logistic, lambda x: 1 / (1 + np.exp(-x)))}


def onnxruntime_values(op_type: str, x: Any) -> Any:
    ort = pytest.importorskip("onnxruntime")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op_type, ["x"], ["y"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


@pytest.mark.parametrize(("op_type", "most"), [("Tanh", 0), ("Sigmoid", 4)])
def test_values_equal_onnxruntime_bit_for_bit(op_type: str, most: int) -> None:
    """The logistic function within a few last places in 400,001: a fused multiply-add through float64 rounds twice."""
    x = np.linspace(-20, 20, 400_001).astype(np.float32)
    assert int((FUNCTIONS[op_type][0](x) != onnxruntime_values(op_type, x)).sum()) <= most


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_values_are_within_a_millionth_monotone_at_the_ends_and_shaped_as_given(op_type: str) -> None:
    ours, exact = FUNCTIONS[op_type]
    x = np.linspace(-30, 30, 60_000).reshape(3, 20_000).astype(np.float32)
    values = ours(x)
    assert values.shape == x.shape
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, exact(x.astype(np.float64)), rtol=0, atol=1e-6)
    low, high = (-1, 0)[op_type == "Sigmoid"], 1
    # onnxruntime's tanh oversteps its limits by an ulp, and so does this one
    assert values.min() >= low - 2e-7
    assert values.max() <= high + 2e-7
