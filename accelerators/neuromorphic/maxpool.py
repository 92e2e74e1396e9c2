"""Max pools out of what spikes can express: ReLUs and sums (exact), or averages (another network)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor


def average_instead(graph: Graph) -> Graph:
    """Every max pool replaced by an average over the same window."""

    def changed(op: Op) -> Op:
        return replace(op.with_attributes(count_include_pad=True), kind="average_pool") if op.kind == "max_pool" else op

    return replace(graph, ops=tuple(changed(op) for op in graph.ops))


def relu_instead(graph: Graph) -> Graph:
    """Every max pool as a tree of max(a, b) = b + relu(a - b) over the positions of its window.

    Positions are picked by depthwise convolutions of one tap at the pool's stride, so only what is needed is computed.

    Raises
    ------
    ModelError: a padded max pool; its border would need a value below all others.
    """
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        if op.kind != "max_pool":
            ops.append(op)
            continue
        if any(op.attributes["pads"]):
            raise ModelError(
                f"{graph.source or graph.name}: max pool {op.name!r} is padded, which ReLUs cannot express"
            )
        ops += _tree(tensors, graph, op)
    return replace(graph, tensors=tensors, ops=tuple(ops))


def _tree(tensors: dict[str, Tensor], graph: Graph, op: Op) -> list[Op]:
    shape = graph[op.outputs[0]].shape
    rows, columns = op.attributes["kernel"]
    ops: list[Op] = []

    def emit(kind: str, inputs: tuple[str, ...], name: str, **attributes: object) -> str:
        tensors[name] = Tensor(name, shape)
        ops.append(Op(name, kind, inputs, (name,), attributes))
        return name

    def picked(places: dict[tuple[int, int], float], name: str, activation: str) -> str:
        weight = np.zeros((shape[1], 1, rows, columns), np.float32)
        for (r, s), value in places.items():
            weight[:, :, r, s] = value
        tensors[f"{name}.weight"] = Tensor(f"{name}.weight", weight.shape, data=weight)
        return emit("conv", (op.inputs[0], f"{name}.weight"), name, strides=tuple(op.attributes["strides"]),
                    pads=(0, 0, 0, 0), dilations=(1, 1), groups=shape[1], activation=activation)  # fmt: skip

    minus = f"{op.name}.minus"
    tensors[minus] = Tensor(minus, (1,), data=np.full(1, -1.0, np.float32))
    places = [(r, s) for r in range(rows) for s in range(columns)]
    level = []
    for index in range(0, len(places) - 1, 2):
        a, b = places[index], places[index + 1]
        rise = picked({a: 1.0, b: -1.0}, f"{op.name}.rise{index}", "relu")
        base = picked({b: 1.0}, f"{op.name}.base{index}", "none")
        level.append(emit("add", (base, rise), f"{op.name}.pair{index}", activation="none"))
    if len(places) % 2:
        level.append(picked({places[-1]: 1.0}, f"{op.name}.single", "none"))
    count = 0
    while len(level) > 1:
        first, second = level.pop(0), level.pop(0)
        negative = emit("mul", (second, minus), f"{op.name}.negative{count}")
        rise = emit("add", (first, negative), f"{op.name}.step{count}", activation="relu")
        level.append(emit("add", (second, rise), f"{op.name}.max{count}", activation="none"))
        count += 1
    ops[-1] = replace(ops[-1], outputs=op.outputs)
    return ops
