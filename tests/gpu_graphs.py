"""Small float graphs for tests of the GPU family."""

from __future__ import annotations

from typing import Any

import numpy as np

from dse.ir import Graph, Op, Tensor


class GraphDraft:
    """Collects ops; every method appends one and returns the name of its output."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors = {"x": Tensor("x", shape)}
        self.ops: list[Op] = []

    def constant(self, *shape: int) -> str:
        name = f"w{len(self.tensors)}"
        self.tensors[name] = Tensor(name, shape, data=self.rng.standard_normal(shape).astype(np.float32))
        return name

    def op(self, kind: str, inputs: tuple[str, ...], size: tuple[int, ...], **attributes: Any) -> str:
        name = f"{kind}{len(self.ops)}"
        self.tensors[name] = Tensor(name, size)
        self.ops.append(Op(name, kind, inputs, (name,), attributes))
        return name

    def conv(
        self, x: str, filters: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, activation: str = "none",
        dilation: int = 1, pads: tuple[int, int, int, int] | None = None,
    ) -> str:  # fmt: skip
        batch, channels, height, width = self.tensors[x].shape
        around = (kernel // 2,) * 4 if pads is None else pads
        reach = (kernel - 1) * dilation + 1
        out = [
            (height + around[0] + around[2] - reach) // stride + 1,
            (width + around[1] + around[3] - reach) // stride + 1,
        ]
        weights = (self.constant(filters, channels // groups, kernel, kernel), self.constant(filters))
        return self.op(
            "conv", (x, *weights), (batch, filters, *out), strides=(stride, stride), pads=around,
            dilations=(dilation, dilation), groups=groups, activation=activation,
        )  # fmt: skip

    def gemm(self, x: str, outputs: int) -> str:
        rows, depth = self.tensors[x].shape
        weights = (self.constant(outputs, depth), self.constant(outputs))
        return self.op("gemm", (x, *weights), (rows, outputs), activation="none")

    def same(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An elementwise op on tensors of one shape."""
        return self.op(kind, inputs, self.tensors[inputs[0]].shape, **attributes)

    def graph(self, *outputs: str) -> Graph:
        return Graph("draft", self.tensors, tuple(self.ops), ("x",), outputs or (self.ops[-1].outputs[0],))


def residual_block() -> Graph:
    """A bottleneck with a projected shortcut, a sigmoid gate and a classifier: most forms of kernels in few ops."""
    draft = GraphDraft((1, 8, 10, 10))
    short = draft.conv("x", 16, 1)
    y = draft.conv("x", 16, 3, activation="relu")
    y = draft.conv(y, 16, 3, groups=16)
    y = draft.conv(y, 16, 3, groups=2)
    y = draft.same("add", y, short, activation="relu")
    y = draft.same("sigmoid", y)
    y = draft.op("max_pool", (y,), (1, 16, 5, 5), kernel=(2, 2), strides=(2, 2), pads=(0, 0, 0, 0))
    y = draft.op("flatten", (y,), (1, 400), axis=1)
    y = draft.gemm(y, 10)
    y = draft.op("softmax", (y,), (1, 10), axis=1)
    return draft.graph(y)
