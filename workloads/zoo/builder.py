"""Building ONNX models in Python: a short notation for the networks of the zoo."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 8


class ModelBuilder:
    """Collects nodes and weights; every method appends a node and returns the name of its output.

    Weights are He-normal (standard deviation sqrt(2 / fan-in)) from one seeded generator, in call order.
    """

    def __init__(self, name: str, seed: int, input_shape: tuple[int, ...]) -> None:
        self._name, self._rng, self._shape = name, np.random.default_rng(seed), input_shape
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.input = "input"

    def conv(
        self, x: str, name: str, channels: tuple[int, int], kernel: int, *, stride: int = 1, groups: int = 1,
        bias: bool = False,
    ) -> str:  # fmt: skip
        """Conv with SAME padding as TensorFlow does it; `channels` are (in, out)."""
        inside, outside = channels
        shape = (outside, inside // groups, kernel, kernel)
        inputs = [x, self._weight(f"{name}.weight", he_normal(self._rng, shape))]
        if bias:
            inputs.append(self._weight(f"{name}.bias", self._rng.normal(0, 0.05, outside)))
        return self._node(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups, auto_pad="SAME_UPPER"
        )

    def batch_norm(self, x: str, name: str, channels: int) -> str:
        """BatchNormalization with statistics as a trained network might have them."""
        statistics = {
            "scale": self._rng.uniform(0.7, 1.3, channels), "bias": self._rng.normal(0, 0.2, channels),
            "mean": self._rng.normal(0, 0.2, channels), "variance": self._rng.uniform(0.5, 2.0, channels),
        }  # fmt: skip
        weights = [self._weight(f"{name}.{key}", values) for key, values in statistics.items()]
        return self._node("BatchNormalization", [x, *weights], name, epsilon=1e-3)

    def dense(self, x: str, name: str, features: tuple[int, int]) -> str:
        """Gemm with bias; `features` are (in, out)."""
        inside, outside = features
        weight = self._weight(f"{name}.weight", he_normal(self._rng, (outside, inside)))
        bias = self._weight(f"{name}.bias", self._rng.normal(0, 0.05, outside))
        return self._node("Gemm", [x, weight, bias], name, transB=1)

    def relu(self, x: str, name: str) -> str:
        """Relu."""
        return self._node("Relu", [x], name)

    def relu6(self, x: str, name: str) -> str:
        """Clip to [0, 6]."""
        bounds = [self._weight(f"{name}.{key}", np.array(value)) for key, value in (("min", 0), ("max", 6))]
        return self._node("Clip", [x, *bounds], name)

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Any other operator."""
        return self._node(op_type, inputs, name, **attributes)

    def model(self, output: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        """The finished model with one output of the given shape."""
        graph = helper.make_graph(
            self._nodes, self._name,
            [helper.make_tensor_value_info(self.input, TensorProto.FLOAT, self._shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            self._weights,
        )  # fmt: skip
        return helper.make_model(
            graph, producer_name="silicon-dse", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )

    def _weight(self, name: str, values: npt.NDArray[Any]) -> str:
        self._weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def _node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Weights of standard deviation sqrt(2 / fan-in); fan-in is everything but the first axis (He et al. 2015)."""
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
