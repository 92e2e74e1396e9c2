"""Loop nests with affine accesses: what a conv or a matmul does, without saying in which order.

Dimension names follow Timeloop: N batch, G groups, M output channels per group, C input channels per
group, P/Q output rows/columns, R/S kernel rows/columns; a gemm uses N (rows), M and C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op


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
    """The loop nest of a conv or gemm op.

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
    if op.kind != "conv":
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
