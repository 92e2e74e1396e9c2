"""What of a transformer the element unit computes: functions of one value, residual adds, softmax, layer norm.

Exact, equal to the reference bit for bit: every function of one int8 value (GELU and its parts, sigmoid, a product
with one number) is a 256-entry table that the reference fills; an add in mode `q31` is the reference's own integers,
in mode `ort` it is taken where integers give the same for every pair of operands (`element_exact`).
In fixed point, only with the decision `fixed_point`: softmax and layer norm over the last axis (NORMALIZE), which the
reference computes in float32 between two quantizations: within one step of the output's scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from accelerators.systolic.element_exact import add_fields
from accelerators.systolic.recurrent import sequence_outputs
from dse.ir import Graph, Op
from dse.ir.kinds import UNARY_KINDS

#: Functions of two values that are a table where one of them is a number.
_WITH_NUMBER = ("add", "sub", "mul", "div", "minimum", "maximum")


@dataclass(frozen=True)
class VectorLayer:
    """One op on the element unit: `rows` rows of `width` values, whose operands lie row by row in memory.

    `what` is "table", "add", "softmax" or "layer_norm"; `inputs` are the tensors it reads, `constant` the name of an
    add's constant operand ("" where both are activations).
    """

    name: str
    op: Op
    what: str
    inputs: tuple[str, ...]
    output: str
    rows: int
    width: int
    constant: str = ""

    @property
    def add(self) -> None:
        """Nothing is fused behind it."""
        return None

    @property
    def macs(self) -> int:
        """No products of layers."""
        return 0

    @property
    def elements(self) -> int:
        return self.rows * self.width

    def compulsory_bytes(self, weight_bits: int) -> int:
        """Bytes any schedule must move: each operand and the result once (`weight_bits` plays no part)."""
        return self.elements * (len(self.inputs) + bool(self.constant) + 1)


def vector_layer(
    graph: Graph, op: Op, source: Mapping[str, str], mode: str, *, fixed_point: bool
) -> VectorLayer | None:
    """The work item of an op that the element unit computes, or None.

    Parameters
    ----------
    source
        Of every tensor, the tensor whose bytes it shares.
    mode
        Requantization of the design.
    fixed_point
        Whether softmax and layer norm may be computed in fixed point.
    """
    if len(op.outputs) != 1 or not _row_by_row(graph, op):
        return None
    shape = graph[op.outputs[0]].shape
    moving = [name for name in op.inputs if name and graph[name].data is None]
    fixed = [name for name in op.inputs if name and graph[name].data is not None]
    what = ""
    if not shape or any(graph[name].shape != shape or graph[name].dtype not in ("int8", "float32") for name in moving):
        return None
    if len(moving) == 1 and (
        (op.kind in UNARY_KINDS and not fixed) or (op.kind in _WITH_NUMBER and _numbers(graph, fixed))
    ):
        what = "table"
    elif (
        op.kind == "add"
        and op.attributes.get("activation", "none") == "none"
        and (len(moving) == 2 or graph[fixed[0]].shape == shape)
        and (mode == "q31" or _integers_add(graph, op, moving, mode))
    ):
        what = "add"
    elif fixed_point and op.kind in ("softmax", "layer_norm") and int(op.attributes["axis"]) == len(shape) - 1:
        what = op.kind
    if not what:
        return None
    constant = fixed[0] if what == "add" and fixed else ""
    sources = tuple(source[name] for name in moving)
    return VectorLayer(op.name, op, what, sources, op.outputs[0], math.prod(shape[:-1]), shape[-1], constant)


def _row_by_row(graph: Graph, op: Op) -> bool:
    """Whether all operands lie row by row: tensors of rank 4 do where nothing takes them for maps."""
    rows = sequence_outputs(graph)
    return all(len(graph[name].shape) != 4 or name in rows for name in (*op.inputs, *op.outputs) if name)


def _integers_add(graph: Graph, op: Op, moving: list[str], mode: str) -> bool:
    """Whether an add of two tensors has integers that equal its float32 arithmetic; open for a graph of shapes."""
    if len(set(moving)) < 2:
        return False
    quantized = all(graph[name].quantization is not None for name in (*op.inputs, *op.outputs))
    return not quantized or add_fields(graph, op, mode) is not None


def _numbers(graph: Graph, names: list[str]) -> bool:
    """Whether the one constant operand is the same number everywhere."""
    data = graph[names[0]].data if len(names) == 1 else None
    return data is not None and data.size > 0 and bool(np.all(data == data.ravel()[0]))
