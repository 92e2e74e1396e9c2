"""Small networks over sequences for tests: a transformer encoder, a CRNN."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_networks import make_model


class Net:
    """Collects nodes and seeded weights."""

    def __init__(self, seed: int) -> None:
        self.rng, self.nodes, self.weights = np.random.default_rng(seed), [], {}

    def weight(self, *shape: int) -> str:
        fan_in = max(1, int(np.prod(shape[:-1])) if len(shape) < 4 else int(np.prod(shape[1:])))
        return self.constant(self.rng.normal(0, fan_in**-0.5, shape).astype(np.float32))

    def constant(self, values: Any) -> str:
        self.weights[f"w{len(self.weights)}"] = np.asarray(values)
        return f"w{len(self.weights) - 1}"

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}", *(f"t{len(self.nodes)}_{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, f"n{len(self.nodes)}", **attributes))
        return names[0]

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))


def transformer(seed: int, tokens: int, width: int, heads: int, layers: int) -> onnx.ModelProto:
    """An encoder over embedded tokens: attention, layer norm, a GELU written with Erf."""
    net = Net(seed)
    x = net.add("Gather", net.weight(50, width), "ids")
    x = net.add("Add", x, net.weight(tokens, width))
    for _ in range(layers):
        parts = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            split = net.add(
                "Reshape", net.dense(x, width, width), net.constant(np.array([0, 0, heads, width // heads]))
            )
            parts.append(net.add("Transpose", split, perm=perm))
        scores = net.add("Div", net.add("MatMul", parts[0], parts[1]), net.constant(np.float32((width / heads) ** 0.5)))
        mixed = net.add(
            "Transpose", net.add("MatMul", net.add("Softmax", scores, axis=-1), parts[2]), perm=[0, 2, 1, 3]
        )
        merged = net.dense(net.add("Reshape", mixed, net.constant(np.array([0, 0, width]))), width, width)
        x = net.add("LayerNormalization", net.add("Add", x, merged), net.weight(width), net.weight(width))
        inner = net.dense(x, width, 2 * width)
        erf = net.add("Erf", net.add("Div", inner, net.constant(np.float32(2**0.5))))
        gate = net.add("Mul", inner, net.add("Add", erf, net.constant(np.float32(1))))
        gelu = net.add("Mul", gate, net.constant(np.float32(0.5)))
        x = net.add("Add", x, net.dense(gelu, 2 * width, width))
        mean = net.add("ReduceMean", x, axes=[-1])
        centred = net.add("Sub", x, mean)
        spread = net.add("ReduceMean", net.add("Pow", centred, net.constant(np.float32(2))), axes=[-1])
        x = net.add("Div", centred, net.add("Sqrt", net.add("Add", spread, net.constant(np.float32(1e-5)))))
    model = make_model(net.nodes, {}, [x], net.weights, opset=17)
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ("batch", tokens)))
    return model


def crnn(seed: int) -> onnx.ModelProto:
    """Convolutions over an image, its columns as a sequence through two bidirectional LSTMs, a class per column."""
    net = Net(seed)
    x = net.add("Relu", net.add("Conv", "x", net.weight(6, 1, 3, 3), net.weight(6), pads=[1, 1, 1, 1]))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("HardSwish", net.add("Conv", x, net.weight(8, 6, 3, 3), pads=[1, 1, 1, 1], strides=[4, 1]))
    x = net.add(
        "Transpose", net.add("Squeeze", net.add("ReduceMax", x, axes=[2]), net.constant(np.array([2]))), perm=[2, 0, 1]
    )
    for width in (8, 10):
        weights = [net.weight(2, 20, width), net.weight(2, 20, 5), net.weight(2, 40)]
        x = net.add("LSTM", x, *weights, outputs=3, hidden_size=5, direction="bidirectional")
        x = net.add("Reshape", net.add("Transpose", x, perm=[0, 2, 1, 3]), net.constant(np.array([0, 0, -1])))
    x = net.add("LogSoftmax", net.dense(x, 10, 7), axis=-1)
    return make_model(net.nodes, {"x": (2, 1, 16, 24)}, [x], net.weights, opset=17)
