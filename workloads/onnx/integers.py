"""ConvInteger, MatMulInteger, DynamicQuantizeLinear: integers whose zero points are known only at run time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dse.ir.graph import Tensor
from workloads.onnx.geometry import as_map, emit_map, padding, pair, window_output
from workloads.onnx.layers import check_conv, check_depth, kernel_of, weight_map
from workloads.onnx.node import Node


def dynamic_quantize(node: Node) -> None:
    """DynamicQuantizeLinear: values on 0..255, their scale and zero point."""
    shape = node.tensor(0).shape
    named = [*node.outputs, "", ""]
    names = [named[place] or node.internal(("values", "scale", "zero")[place]) for place in range(3)]
    outputs = Tensor(names[0], shape, "uint8"), Tensor(names[1], ()), Tensor(names[2], (), "uint8")
    node.emit_many("dynamic_quantize", (node.inputs[0],), outputs)


def _operands(node: Node) -> tuple[str, ...]:
    """Names of the zero points, '' where absent."""
    for index in (0, 1):
        if node.tensor(index).dtype not in ("int8", "uint8"):
            node.fail(f"operand {index} must be INT8 or UINT8, not {node.tensor(index).dtype}")
    zeros = [node.inputs[index] if node.has(index) else "" for index in (2, 3)]
    for index in (2, 3):
        if node.has(index) and len(node.tensor(index).shape) > 1:
            node.fail(f"zero point {node.inputs[index]!r} must be one number or a list, not a matrix")
    return tuple(zeros)


def conv_integer(node: Node) -> None:
    """ConvInteger with constant weights: int32 sums of products."""
    weight = node.constant(1, "weight")
    zeros = _operands(node)
    shape, groups = check_conv(node, node.tensor(0).shape, weight)
    if node.has(2) and node.tensor(2).elements != 1:
        node.fail("the zero point of its input must be one number")
    rank, kernel = weight.ndim, kernel_of(node, weight)
    strides, dilations = pair(node, "strides", rank), pair(node, "dilations", rank)
    pads = padding(node, shape, rank, kernel, strides, dilations)
    out = window_output(node, shape, kernel, strides, pads, dilations)
    emit_map(
        node, "conv_integer", (as_map(node, 0), weight_map(node, 1), *zeros), (shape[0], weight.shape[0], *out), rank,
        dtype="int32", strides=strides, pads=pads, dilations=dilations, groups=groups,
    )  # fmt: skip


def matmul_integer(node: Node) -> None:
    """MatMulInteger: int32 sums of products, zero points per tensor, per row of A or per column of B."""
    a, b = node.tensor(0).shape, node.tensor(1).shape
    if min(len(a), len(b)) < 2:
        node.fail(f"operands must have two dimensions or more, got {list(a)} and {list(b)}")
    zeros = _operands(node)
    check_depth(node, a[-1], b[-2])
    for index, size in ((2, a[-2]), (3, b[-1])):
        if node.has(index) and node.tensor(index).elements not in (1, size):
            node.fail(f"zero point {node.inputs[index]!r} must have 1 or {size} values")
    try:
        stack = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        node.fail(f"stacks of {list(a[:-2])} and {list(b[:-2])} matrices do not broadcast")
    shape = (*stack, a[-2], b[-1])
    node.emit("matmul_integer", (node.inputs[0], node.inputs[1], *zeros), shape, dtype="int32")


INTEGERS: dict[str, Callable[[Node], None]] = {
    "DynamicQuantizeLinear": dynamic_quantize, "ConvInteger": conv_integer, "MatMulInteger": matmul_integer,
}  # fmt: skip
