"""Small ONNX models for tests: hand-made single nodes and random CNNs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 13,
) -> onnx.ModelProto:
    """A model of float inputs; float weights become float32, the rest keep their type."""
    initializers = []
    for name, values in (weights or {}).items():
        array = np.asarray(values)
        initializers.append(
            numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)
        )
    graph = helper.make_graph(
        list(nodes), "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def single(op_type: str, shape: Sequence[int], weights: Mapping[str, Any] | None = None, opset: int = 13,
           **attributes: Any) -> onnx.ModelProto:  # fmt: skip
    """One node `op_type`(x, *weights) -> y."""
    node = helper.make_node(op_type, ["x", *(weights or {})], ["y"], "the_node", **attributes)
    return make_model([node], {"x": shape}, ["y"], weights, opset=opset)


def save(model: onnx.ModelProto, folder: Path, name: str = "m.onnx") -> Path:
    """Write a model and return its path."""
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


class RandomCnn:
    """A random CNN over every op that hardware or host executes, with a residual wherever shapes allow it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.nodes, self.weights = rng, [], {}
        self.channels, self.height, self.width = int(rng.integers(1, 9)), *map(int, rng.integers(7, 15, 2))
        self.inputs = {"x": (1, self.channels, self.height, self.width)}
        self.at = "x"

    def build(self) -> onnx.ModelProto:
        """A stem, three to five random steps, a pool or flatten, one or two dense layers, sometimes a softmax."""
        self.conv()
        for _ in range(int(self.rng.integers(3, 6))):
            step = self.rng.choice(["conv", "depthwise", "residual", "max", "average", "standalone"])
            {
                "conv": self.conv, "depthwise": self.depthwise, "residual": self.residual,
                "max": lambda: self.pool("MaxPool"), "average": lambda: self.pool("AveragePool"),
                "standalone": self.standalone,
            }[str(step)]()  # fmt: skip
        if self.rng.random() < 0.5:
            self.add("GlobalAveragePool")
            self.height = self.width = 1
        self.add("Flatten")
        features = self.channels * self.height * self.width
        if self.rng.random() < 0.5:
            weight = self.constant(self.rng.normal(0, features**-0.5, (features, 12)))
            self.add("MatMul", weight)
            self.add("Add", self.constant(self.rng.normal(0, 0.1, 12)))
        else:
            self.add("Gemm", self.constant(self.rng.normal(0, features**-0.5, (12, features))), transB=1)
        self.add("Relu")
        self.add("Gemm", self.constant(self.rng.normal(0, 0.3, (12, 5))), self.constant(self.rng.normal(0, 0.1, 5)))
        if self.rng.random() < 0.5:
            self.add("Softmax")
        return make_model(self.nodes, self.inputs, [self.at], self.weights)

    def constant(self, values: Any) -> str:
        """Register weights under a new name."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values, np.float32)
        return name

    def add(self, op_type: str, *others: str, **attributes: Any) -> str:
        """Append a node that reads the current tensor first."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, [self.at, *others], [name], f"n{len(self.nodes)}", **attributes))
        self.at = name
        return name

    def conv(self, groups: int = 1, outputs: int | None = None, *, same_size: bool = False) -> None:
        """Conv with random geometry, then sometimes batch norm and an activation."""
        rng = self.rng
        if same_size:
            kernel, strides, dilations, pads = [3, 3], [1, 1], [1, 1], [1, 1, 1, 1]
        else:
            kernel = [int(k) for k in rng.integers(1, 4, 2)]
            strides, dilations = [int(s) for s in rng.integers(1, 3, 2)], [int(d) for d in rng.integers(1, 3, 2)]
            pads = [int(p) for p in rng.integers(0, 3, 4)]
        sizes = self.after(kernel, strides, pads, dilations)
        if min(sizes) < 2:
            return
        outputs = outputs or int(rng.integers(1, 9)) * groups
        fan_in = self.channels // groups * kernel[0] * kernel[1]
        weights = [self.constant(rng.normal(0, (2 / fan_in) ** 0.5, (outputs, self.channels // groups, *kernel)))]
        if rng.random() < 0.5:
            weights.append(self.constant(rng.normal(0, 0.2, outputs)))
        self.add("Conv", *weights, strides=strides, pads=pads, dilations=dilations, group=groups)
        self.channels, (self.height, self.width) = outputs, sizes
        if rng.random() < 0.5:
            self.batch_norm()
        self.activation()

    def depthwise(self) -> None:
        """One filter a channel."""
        self.conv(groups=self.channels, outputs=self.channels)

    def residual(self) -> None:
        """conv(x) + x, sometimes + x again as a Sum of three."""
        before = self.at
        self.conv(outputs=self.channels, same_size=True)
        if self.rng.random() < 0.3:
            self.add("Sum", before, before)
        else:
            self.add("Add", before)
        self.activation()

    def batch_norm(self) -> None:
        """Batch norm with positive variances."""
        rng, count = self.rng, self.channels
        values = rng.uniform(0.5, 1.5, count), rng.normal(0, 0.2, count), rng.normal(0, 0.2, count)
        self.add("BatchNormalization", *map(self.constant, values), self.constant(rng.uniform(0.5, 2, count)))

    def activation(self) -> None:
        """Relu, relu6 or nothing."""
        choice = self.rng.integers(3)
        if choice == 1:
            self.add("Relu")
        if choice == 2:
            self.add("Clip", self.constant(0.0), self.constant(6.0))

    def standalone(self) -> None:
        """Ops that no conv precedes: batch norm behind a pool, identities, a clip that is no relu."""
        self.pool("MaxPool")
        self.add("Identity")
        if self.rng.random() < 0.5:
            self.batch_norm()
        self.add("Clip", self.constant(-0.75), self.constant(1.5))
        self.add("Dropout")

    def pool(self, op_type: str) -> None:
        """Max or average pool with random geometry."""
        rng = self.rng
        kernel, strides = [int(k) for k in rng.integers(1, 4, 2)], [int(s) for s in rng.integers(1, 3, 2)]
        pads = [int(rng.integers(0, kernel[axis % 2])) for axis in range(4)]
        sizes = self.after(kernel, strides, pads, [1, 1])
        if min(sizes) < 2:
            return
        extra = {"count_include_pad": int(rng.integers(2))} if op_type == "AveragePool" else {}
        self.add(op_type, kernel_shape=kernel, strides=strides, pads=pads, **extra)
        self.height, self.width = sizes

    def after(self, kernel: list[int], strides: list[int], pads: list[int], dilations: list[int]) -> tuple[int, int]:
        """Rows and columns behind a window."""
        height, width = (
            (size + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1
            for axis, size in enumerate((self.height, self.width))
        )
        return height, width
