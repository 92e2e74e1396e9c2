"""Loop nests with affine accesses: what a conv or a matmul does, without saying in which order.

Dimension names follow Timeloop: N batch, G groups, M output channels per group, C input channels per
group, P/Q output rows/columns, R/S kernel rows/columns; a gemm uses N (rows), M and C, a matmul of two activations
one more dim per stacked axis (B0, B1, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op
from dse.ir.kinds import MAC_KINDS, RECURRENT_KINDS

#: Gate functions of a recurrent cell: each multiplies the input and the hidden state with a matrix of its own.
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


@dataclass(frozen=True)
class Access:
    """Affine access to one tensor: per tensor axis a mapping dim -> coefficient, plus a constant.

    Index along axis k = sum(coefficient[dim] * loop index of dim) + offsets[k].
    """

    tensor: str
    axes: tuple[Mapping[str, int], ...]
    offsets: tuple[int, ...]
    role: str  # "input", "weight" or "output"


@dataclass(frozen=True)
class LoopNest:
    """Bounds of named dims and the access of each tensor."""

    op: str
    bounds: Mapping[str, int]
    accesses: tuple[Access, ...]
    reduction: frozenset[str]

    @property
    def macs(self) -> int:
        """Innermost iterations."""
        return math.prod(self.bounds.values())


def loop_nest(graph: Graph, op: Op) -> LoopNest:
    """The loop nest of a conv, gemm, matmul or einsum op (conv_integer and matmul_integer alike).

    Raises
    ------
    ModelError: the op has no loop nest here.
    """
    if op.kind == "gemm":
        rows, depth = graph[op.inputs[0]].shape
        outputs = graph[op.inputs[1]].shape[0]
        return LoopNest(
            op.name,
            {"N": rows, "M": outputs, "C": depth},
            (
                Access(op.inputs[0], ({"N": 1}, {"C": 1}), (0, 0), "input"),
                Access(op.inputs[1], ({"M": 1}, {"C": 1}), (0, 0), "weight"),
                Access(op.outputs[0], ({"N": 1}, {"M": 1}), (0, 0), "output"),
            ),
            frozenset({"C"}),
        )
    if op.kind == "einsum":
        return _einsum_nest(graph, op)
    if op.kind in ("matmul", "matmul_integer"):
        return _matmul_nest(graph, op)
    if op.kind not in ("conv", "conv_integer"):
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no loop nest")
    batch, _, _, _ = graph[op.inputs[0]].shape
    out_channels, in_per_group, kernel_h, kernel_w = graph[op.inputs[1]].shape
    _, _, out_h, out_w = graph[op.outputs[0]].shape
    groups = int(op.attributes["groups"])
    out_per_group = out_channels // groups
    (stride_h, stride_w), (dil_h, dil_w) = op.attributes["strides"], op.attributes["dilations"]
    top, left, _, _ = op.attributes["pads"]
    bounds = {
        "N": batch, "G": groups, "M": out_per_group, "C": in_per_group,
        "P": out_h, "Q": out_w, "R": kernel_h, "S": kernel_w,
    }  # fmt: skip
    return LoopNest(
        op.name,
        bounds,
        (
            Access(
                op.inputs[0],
                ({"N": 1}, {"G": in_per_group, "C": 1}, {"P": stride_h, "R": dil_h}, {"Q": stride_w, "S": dil_w}),
                (0, 0, -top, -left),
                "input",
            ),
            Access(op.inputs[1], ({"G": out_per_group, "M": 1}, {"C": 1}, {"R": 1}, {"S": 1}), (0,) * 4, "weight"),
            Access(op.outputs[0], ({"N": 1}, {"G": out_per_group, "M": 1}, {"P": 1}, {"Q": 1}), (0,) * 4, "output"),
        ),
        frozenset({"C", "R", "S"}),
    )


def _matmul_nest(graph: Graph, op: Op) -> LoopNest:
    """Stacks of (N, C) times (C, M); an axis along which an operand is broadcast has no index in its access."""
    first, second = op.inputs[:2]
    shape_a, shape_b, shape_y = (graph[name].shape for name in (first, second, op.outputs[0]))
    stack = shape_y[: max(len(shape_a), len(shape_b)) - 2]
    bounds = {f"B{axis}": size for axis, size in enumerate(stack)}
    bounds |= {"N": shape_a[-2], "M": shape_b[-1], "C": shape_a[-1]}

    def access(name: str, shape: tuple[int, ...], matrix: tuple[str, str], role: str) -> Access:
        missing = len(stack) - (len(shape) - 2)
        axes = [{} if size == 1 else {f"B{missing + axis}": 1} for axis, size in enumerate(shape[:-2])]
        return Access(name, (*axes, {matrix[0]: 1}, {matrix[1]: 1}), (0,) * len(shape), role)

    return LoopNest(
        op.name,
        bounds,
        (
            access(first, shape_a, ("N", "C"), "input"),
            access(second, shape_b, ("C", "M"), "weight"),
            access(op.outputs[0], shape_y, ("N", "M"), "output"),
        ),
        frozenset({"C"}),
    )


def _einsum_nest(graph: Graph, op: Op) -> LoopNest:
    """The nest that the statement spells out, under its own dim names; constant operands are weights."""
    output = tuple(op.attributes["output"])
    accesses = [
        Access(
            name,
            tuple(dict(pairs) for pairs, _ in axes),
            tuple(offset for _, offset in axes),
            "input" if graph[name].data is None else "weight",
        )
        for name, axes in zip(op.inputs, op.attributes["axes"], strict=True)
    ]
    accesses.append(Access(op.outputs[0], tuple({dim: 1} for dim in output), (0,) * len(output), "output"))
    bounds = dict(op.attributes["bounds"])
    return LoopNest(op.name, bounds, tuple(accesses), frozenset(bounds) - frozenset(output))


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one op; 0 for kinds that are no layers.

    A matmul of two activations counts like one with weights. A transposed convolution counts one MAC for every input
    element, output channel of its group and kernel position (what reaches the border and is cropped included). A
    recurrent layer counts its matrix products, T * B * gates * H * (I + H) per direction, not its gate functions or
    peepholes.
    """
    if op.kind in RECURRENT_KINDS:
        steps, batch, _ = graph[op.inputs[0]].shape
        directions, rows, features = graph[op.inputs[1]].shape
        return steps * batch * directions * rows * (features + rows // GATES[op.kind])
    if op.kind == "conv_transpose":
        return graph[op.inputs[0]].elements * math.prod(graph[op.inputs[1]].shape[1:])
    return loop_nest(graph, op).macs if op.kind in MAC_KINDS else 0
