"""Random small quantized networks: chains and residual blocks with the corners that single layers never show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dse.ir import Graph, Op, Quantization, Tensor

#: Values of int8 activations and of weights scatter by about this much around their mean.
_SPREAD_INT8 = 74.0


@dataclass
class NetworkDraw:
    """A graph under construction: every method adds an op and returns the name of its output."""

    rng: np.random.Generator
    weight_bits: int = 8
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)

    def input(self, shape: tuple[int, ...]) -> str:
        name = f"in{len(self.inputs)}"
        self.tensors[name] = Tensor(name, shape, "int8", self._quantization(self.rng.uniform(0.01, 0.1)))
        self.inputs.append(name)
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def conv(
        self,
        x: str,
        outputs: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        strides: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (1, 1, 1, 1),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: str = "none",
    ) -> str:
        batch, channels, height, width = self.shape(x)
        out_h = (height + pads[0] + pads[2] - (kernel[0] - 1) * dilations[0] - 1) // strides[0] + 1
        out_w = (width + pads[1] + pads[3] - (kernel[1] - 1) * dilations[1] - 1) // strides[1] + 1
        attributes = {
            "strides": strides, "pads": pads, "dilations": dilations, "groups": groups, "activation": activation,
            "kernel": kernel,
        }  # fmt: skip
        shape = (outputs, channels // groups, *kernel)
        return self._layer("conv", x, shape, (batch, outputs, out_h, out_w), attributes)

    def gemm(self, x: str, outputs: int, activation: str = "none") -> str:
        rows, depth = self.shape(x)
        return self._layer("gemm", x, (outputs, depth), (rows, outputs), {"activation": activation})

    def flatten(self, x: str) -> str:
        shape = self.shape(x)
        return self._op("flatten", (x,), (shape[0], int(np.prod(shape[1:]))), self.quantization(x), {"axis": 1})

    def add(self, a: str, b: str, activation: str = "none") -> str:
        scale = max(self.quantization(a).scale[0], self.quantization(b).scale[0])
        result = self._quantization(scale * self.rng.uniform(0.7, 2), activation)
        return self._op("add", (a, b), self.shape(a), result, {"activation": activation})

    def max_pool(self, x: str) -> str:
        batch, channels, height, width = self.shape(x)
        shape = (batch, channels, -(-height // 2), -(-width // 2))
        pads = (0, 0, height % 2, width % 2)
        return self._op(
            "max_pool", (x,), shape, self.quantization(x), {"kernel": (2, 2), "strides": (2, 2), "pads": pads}
        )

    def global_pool(self, x: str) -> str:
        scale = self.quantization(x).scale[0] * self.rng.uniform(0.5, 1)
        return self._op("global_average_pool", (x,), (*self.shape(x)[:2], 1, 1), self._quantization(scale), {})

    def relu(self, x: str) -> str:
        return self._op("relu", (x,), self.shape(x), self.quantization(x), {})

    def quantization(self, name: str) -> Quantization:
        found = self.tensors[name].quantization
        assert found is not None
        return found

    def graph(self, *outputs: str) -> Graph:
        return Graph("drawn", self.tensors, tuple(self.ops), tuple(self.inputs), outputs)

    def _quantization(self, scale: float, activation: str = "none") -> Quantization:
        zero = -128 if activation == "relu" else int(self.rng.integers(-128, 128))
        return Quantization((float(np.float32(scale)),), zero)

    def _op(
        self, kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], of: Quantization, attributes: dict[str, Any]
    ) -> str:
        name = f"t{len(self.ops)}"
        self.tensors[name] = Tensor(name, shape, "int8", of)
        self.ops.append(Op(f"{kind}{len(self.ops)}", kind, inputs, (name,), attributes))
        return name

    def _layer(
        self, kind: str, x: str, weight_shape: tuple[int, ...], shape: tuple[int, ...], attributes: dict[str, Any]
    ) -> str:
        rng, index = self.rng, len(self.ops)
        limit = 7 if self.weight_bits == 4 else 127
        weights = rng.integers(-limit, limit + 1, weight_shape).astype(np.int8)
        scales = tuple(float(np.float32(v)) for v in rng.uniform(0.002, 0.02, weight_shape[0]))
        of_weights = Quantization(scales, 0, 0, self.weight_bits)
        self.tensors[f"w{index}"] = Tensor(f"w{index}", weight_shape, "int8", of_weights, weights)
        operands = [x, f"w{index}"]
        if rng.random() < 0.8:
            bias = rng.integers(-3000, 3000, weight_shape[0]).astype(np.int32)
            self.tensors[f"b{index}"] = Tensor(f"b{index}", bias.shape, "int32", None, bias)
            operands.append(f"b{index}")
        depth = int(np.prod(weight_shape[1:]))
        real = float(np.abs(weights).mean()) * _SPREAD_INT8 * np.sqrt(depth) * float(np.mean(scales))
        spread = max(real * self.quantization(x).scale[0], 1e-4)
        result = self._quantization(spread * rng.uniform(0.5, 2) / 40, attributes["activation"])
        return self._op(kind, tuple(operands), shape, result, attributes)


def random_network(seed: int, *, weight_bits: int = 8) -> Graph:
    """Two to five layers: convs of any geometry, residual adds of any two equal shapes, pools, a dense end."""
    rng = np.random.default_rng(seed)
    draw = NetworkDraw(rng, weight_bits)
    batch = int(rng.choice([1, 1, 2, 3]))
    x = draw.input((batch, *(int(v) for v in rng.integers(1, 10, 3))))
    outputs = []
    for _ in range(int(rng.integers(2, 5))):
        before = x
        x = _random_conv(draw, x, keep=bool(rng.random() < 0.6))
        if rng.random() < 0.5 and draw.shape(x) == draw.shape(before):
            x = _random_add(draw, x, before)
        elif rng.random() < 0.3:
            other = _random_conv(draw, before, keep=False)
            if draw.shape(other) == draw.shape(x):
                x = draw.add(x, other, "relu")
            else:
                outputs.append(other)
        if rng.random() < 0.2:
            x = draw.max_pool(x)
        if rng.random() < 0.15:
            outputs.append(x)
    if rng.random() < 0.5:
        if rng.random() < 0.4:
            x = draw.global_pool(x)
        x = draw.gemm(draw.flatten(x), int(rng.integers(1, 12)), "relu" if rng.random() < 0.5 else "none")
    return draw.graph(*dict.fromkeys([*outputs, x]))


def _random_add(draw: NetworkDraw, x: str, other: str) -> str:
    if draw.rng.random() < 0.2:
        other = draw.input(draw.shape(x))
    operands = (x, other) if draw.rng.random() < 0.5 else (other, x)
    return draw.add(*operands, "relu" if draw.rng.random() < 0.5 else "none")


def _random_conv(draw: NetworkDraw, x: str, *, keep: bool) -> str:
    """A conv of random geometry that fits; with `keep` one whose output has the shape of its input."""
    rng = draw.rng
    _, channels, height, width = draw.shape(x)
    activation = "relu" if rng.random() < 0.3 else "none"
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0])) if rng.random() < 0.3 else 1
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    if keep:
        pads = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2, kernel[0] // 2, kernel[1] // 2)
        return draw.conv(x, channels, kernel, pads=pads, groups=groups, activation=activation)
    dilations = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    low = [max(0, (k - 1) * d + 1 - size) for k, d, size in zip(kernel, dilations, (height, width), strict=True)]
    begin = [int(rng.integers(0, low[axis] + 2)) for axis in (0, 1)]
    end = [max(low[axis] - begin[axis], int(rng.integers(0, 3))) for axis in (0, 1)]
    return draw.conv(
        x, groups * int(rng.integers(1, max(2, 13 // groups))), kernel,
        strides=(int(rng.integers(1, 6)), int(rng.integers(1, 6))), pads=(*begin, *end), dilations=dilations,
        groups=groups, activation=activation,
    )  # fmt: skip


def random_values(rng: np.random.Generator, graph: Graph) -> dict[str, np.ndarray]:
    """Uniform int8 values for every graph input."""
    return {name: rng.integers(-128, 128, graph[name].shape).astype(np.int8) for name in graph.inputs}
