"""Ops on constants, computed while reading: what shape arithmetic and folded weights leave behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dse.ir.graph import Graph
from dse.ir.kinds import BINARY_KINDS, MOVE_KINDS, REDUCTION_KINDS, UNARY_KINDS
from dse.ir.reference import run_op_float
from workloads.onnx.node import Node

#: Up to this many elements; larger results stay ops.
_MAX_COMPUTED = 1 << 24
_COMPUTED_KINDS = frozenset((*UNARY_KINDS, *BINARY_KINDS, *MOVE_KINDS, *REDUCTION_KINDS, "where", "cast"))


def compute(node: Node, first: int) -> None:
    """Replace the ops that a node on constants left behind (from position `first`) by their values, if they are few.

    Raises
    ------
    ModelError: element types without such an operation, too many constants.
    """
    builder = node.builder
    made = builder.ops[first:]
    elements = sum(builder.tensors[name].elements for op in made for name in op.outputs)
    if elements > _MAX_COMPUTED or any(op.kind not in _COMPUTED_KINDS for op in made):
        return
    for op in made:
        names = {name for name in (*op.inputs, *op.outputs) if name}
        known = Graph("", {name: builder.tensors[name] for name in names}, (), (), (), builder.source)
        try:
            with np.errstate(all="ignore"):
                values = run_op_float(known, op, {})
        except TypeError as error:
            # element types that NumPy has no such operation for
            node.fail(f"is malformed: {error}")
        for name, data in values.items():
            builder.constants.charge(name, data.shape, data.itemsize)
            builder.tensors[name] = replace(builder.tensors[name], data=data)
    del builder.ops[first:]
