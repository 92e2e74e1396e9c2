"""Building ONNX models in Python: a short notation for the networks of the zoo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 8

Size = int | tuple[int, int]


class ModelBuilder:
    """Collects nodes and weights; every method appends a node and returns the name of its output.

    Weights are He-normal (standard deviation sqrt(2 / fan-in)) from one seeded generator, in call order.

    Parameters
    ----------
    name, seed
        Name of the graph; seed of its weights.
    input_shape
        Shape of the one input, called "input".
    input_type
        ONNX element type of the input: FLOAT, or INT64 for tokens.
    opset
        Version of the operator set.
    trained
        Weights by name ("LAYER.weight", "LAYER.bias") that take the place of all seeded ones.
    """

    def __init__(
        self, name: str, seed: int, input_shape: tuple[int, ...], *, input_type: int = TensorProto.FLOAT,
        opset: int = OPSET, trained: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:  # fmt: skip
        self._name, self._rng, self._shape = name, np.random.default_rng(seed), input_shape
        self._input_type, self._opset, self._trained = input_type, opset, trained
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self.input = "input"

    # -- layers with weights

    def conv(
        self, x: str, name: str, channels: tuple[int, int], kernel: Size, *, stride: Size = 1, groups: int = 1,
        bias: bool = False, padding: int | None = None,
    ) -> str:  # fmt: skip
        """Conv; `channels` are (in, out).

        `padding` None is SAME padding as TensorFlow does it, a number that many rows and columns on every side.
        """
        inside, outside = channels
        size = pair(kernel)
        inputs = [x, self._weight(f"{name}.weight", he_normal(self._rng, (outside, inside // groups, *size)))]
        if bias:
            inputs.append(self._weight(f"{name}.bias", self._rng.normal(0, 0.05, outside)))
        pads: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if padding is None else {"pads": [padding] * 4}
        return self._node("Conv", inputs, name, kernel_shape=size, strides=pair(stride), group=groups, **pads)

    def batch_norm(self, x: str, name: str, channels: int, *, gain: float = 1.0) -> str:
        """BatchNormalization with statistics as a trained network might have them.

        `gain` multiplies its scale: below 1 at the end of a residual branch, whose sums would otherwise double the
        variance block after block.
        """
        statistics = {
            "scale": gain * self._rng.uniform(0.7, 1.3, channels), "bias": self._rng.normal(0, 0.2, channels),
            "mean": self._rng.normal(0, 0.2, channels), "variance": self._rng.uniform(0.5, 2.0, channels),
        }  # fmt: skip
        weights = [self._weight(f"{name}.{key}", values) for key, values in statistics.items()]
        return self._node("BatchNormalization", [x, *weights], name, epsilon=1e-3)

    def unit(
        self, x: str, name: str, channels: tuple[int, int], kernel: Size, *, stride: Size = 1, groups: int = 1,
        bias: bool = False, padding: int | None = None, activation: str = "relu", gain: float = 1.0,
    ) -> str:  # fmt: skip
        """Conv, batch norm and an activation (see `activate`); the other arguments as in `conv` and `batch_norm`."""
        x = self.conv(
            x, f"{name}.conv", channels, kernel, stride=stride, groups=groups, bias=bias, padding=padding
        )  # fmt: skip
        return self.activate(self.batch_norm(x, f"{name}.bn", channels[1], gain=gain), name, activation)

    def dense(self, x: str, name: str, features: tuple[int, int]) -> str:
        """Gemm with bias; `features` are (in, out)."""
        inside, outside = features
        weight = self._weight(f"{name}.weight", he_normal(self._rng, (outside, inside)))
        bias = self._weight(f"{name}.bias", self._rng.normal(0, 0.05, outside))
        return self._node("Gemm", [x, weight, bias], name, transB=1)

    def linear(self, x: str, name: str, features: tuple[int, int]) -> str:
        """MatMul and Add on the last dimension of any number of them; `features` are (in, out)."""
        weight = self._weight(f"{name}.weight", he_normal(self._rng, features[::-1]).T)
        bias = self._weight(f"{name}.bias", self._rng.normal(0, 0.05, features[1]))
        return self._node("Add", [bias, self._node("MatMul", [x, weight], f"{name}.matmul")], name)

    def recurrent(self, kind: str, x: str, name: str, features: tuple[int, int], *, bidirectional: bool = False) -> str:
        """LSTM or GRU kept whole, zero initial state: (steps, batch, in) to (steps, directions, batch, hidden).

        `features` are (in, hidden). The GRU applies its reset gate after the product (linear_before_reset), as
        PyTorch and Keras do. Both biases of ONNX are there, as in PyTorch.
        """
        inside, hidden = features
        directions, rows = 1 + bidirectional, {"LSTM": 4, "GRU": 3}[kind] * hidden
        weights = [
            self._weight(f"{name}.{key}", np.stack([he_normal(self._rng, (rows, depth)) for _ in range(directions)]))
            for key, depth in (("W", inside), ("R", hidden))
        ]
        bias = self._weight(f"{name}.B", self._rng.normal(0, 0.05, (directions, 2 * rows)))
        attributes: dict[str, Any] = {"direction": "bidirectional" if bidirectional else "forward"}
        if kind == "GRU":
            attributes["linear_before_reset"] = 1
        return self._node(kind, [x, *weights, bias], name, hidden_size=hidden, **attributes)

    def layer_norm(self, x: str, name: str, features: int) -> str:
        """LayerNormalization over the last dimension; needs opset 17."""
        scale = self._weight(f"{name}.scale", self._rng.uniform(0.7, 1.3, features))
        bias = self._weight(f"{name}.bias", self._rng.normal(0, 0.2, features))
        return self._node("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=1e-5)

    def embedding(self, tokens: str, name: str, rows: int, features: int) -> str:
        """Gather of rows of a table by token."""
        return self._node("Gather", [self._weight(f"{name}.weight", self._normal((rows, features))), tokens], name)

    # -- everything else

    def relu(self, x: str, name: str) -> str:
        """Relu."""
        return self._node("Relu", [x], name)

    def relu6(self, x: str, name: str) -> str:
        """Clip to [0, 6]."""
        bounds = [self._weight(f"{name}.{key}", np.array(value)) for key, value in (("min", 0), ("max", 6))]
        return self._node("Clip", [x, *bounds], name)

    def activate(self, x: str, name: str, activation: str) -> str:
        """Activation of a unit: relu, relu6, leaky (slope 0.1), silu (x sigmoid(x)) or none, which adds no node."""
        if activation == "relu":
            return self.relu(x, f"{name}.relu")
        if activation == "relu6":
            return self.relu6(x, f"{name}.relu6")
        if activation == "leaky":
            return self._node("LeakyRelu", [x], f"{name}.leaky", alpha=0.1)
        if activation == "silu":
            return self._node("Mul", [x, self._node("Sigmoid", [x], f"{name}.sigmoid")], f"{name}.silu")
        if activation != "none":
            raise ValueError(f"{activation!r} is not an activation; relu, relu6, leaky, silu, none")
        return x

    def max_pool(self, x: str, name: str, kernel: Size, *, stride: Size = 2, **attributes: Any) -> str:
        """MaxPool without padding unless `attributes` say so (pads, auto_pad, ceil_mode)."""
        return self._node("MaxPool", [x], name, kernel_shape=pair(kernel), strides=pair(stride), **attributes)

    def global_pool(self, x: str, name: str = "pool") -> str:
        """Global average pool and flatten: (N, C, H, W) to (N, C)."""
        return self._node("Flatten", [self._node("GlobalAveragePool", [x], name)], f"{name}.flatten", axis=1)

    def reshape(self, x: str, name: str, shape: tuple[int, ...]) -> str:
        """Reshape to constant sizes; 0 keeps a dimension, -1 takes the rest."""
        return self._node("Reshape", [x, self.integers(f"{name}.shape", shape)], name)

    def transpose(self, x: str, name: str, order: tuple[int, ...]) -> str:
        """Transpose."""
        return self._node("Transpose", [x], name, perm=order)

    def integers(self, name: str, values: tuple[int, ...]) -> str:
        """A constant list of integers, for operators that take sizes or axes as an input."""
        self._weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        """A float constant."""
        return self._weight(name, np.asarray(values))

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Any other operator."""
        return self._node(op_type, inputs, name, **attributes)

    def model(self, output: str, shape: tuple[int, ...], *more: tuple[str, tuple[int, ...]]) -> onnx.ModelProto:
        """The finished model with one output of the given shape, and `more` outputs as pairs of name and shape."""
        graph = helper.make_graph(
            self._nodes, self._name,
            [helper.make_tensor_value_info(self.input, self._input_type, self._shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in ((output, shape), *more)],
            self._weights,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self._opset)]
        return helper.make_model(graph, producer_name="silicon-dse", ir_version=IR_VERSION, opset_imports=opsets)

    def _normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return self._rng.standard_normal(shape, np.float32)

    def _weight(self, name: str, values: npt.NDArray[Any]) -> str:
        chosen = values if self._trained is None else self._trained[name]
        if chosen.shape != values.shape:
            raise ValueError(f"{name!r} has shape {chosen.shape}, {values.shape} is needed")
        self._weights.append(numpy_helper.from_array(np.asarray(chosen, np.float32), name))
        return name

    def _node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Weights of standard deviation sqrt(2 / fan-in); fan-in is everything but the first axis (He et al. 2015)."""
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))


def pair(size: Size) -> tuple[int, int]:
    """(rows, columns) of a size given once for both or for each."""
    return (size, size) if isinstance(size, int) else size
