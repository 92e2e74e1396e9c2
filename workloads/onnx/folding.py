"""Nodes whose inputs are all constant: computed while reading, so that shape arithmetic leaves no ops behind.

Only operations whose result is bounded by their inputs, or charged against the limits before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from dse.ir.elementwise import divide
from dse.ir.moves import slices
from workloads.onnx.node import Node

Array = npt.NDArray[Any]

_CAST: dict[int, type[np.generic]] = {
    onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float32, onnx.TensorProto.DOUBLE: np.float32,
    onnx.TensorProto.BFLOAT16: np.float32, onnx.TensorProto.INT32: np.int32, onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.INT8: np.int8, onnx.TensorProto.UINT8: np.uint8, onnx.TensorProto.BOOL: np.bool_,
}  # fmt: skip


def constant(node: Node) -> None:
    """Constant: a tensor, number or list of numbers as attribute."""
    for key, dtype in (
        ("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64), ("value_ints", np.int64),
    ):  # fmt: skip
        if key in node.attributes:
            node.set_constant(np.asarray(node.attributes[key], dtype))
            return
    value = node.attributes.get("value")
    if not isinstance(value, onnx.TensorProto):
        node.fail("supported forms: value, value_float(s), value_int(s)")
    node.set_constant(node.builder.constants.decode(value, node.outputs[0]))


def constant_of_shape(node: Node) -> None:
    """ConstantOfShape: a view of one value, so that big fills cost no memory."""
    shape = node.integers(0, "shape")
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32)
    if isinstance(value, onnx.TensorProto):
        fill = node.builder.constants.decode(value, node.outputs[0])
    if fill.size != 1:
        node.fail(f"its value must be one element, got {fill.size}")
    node.builder.constants.charge(node.outputs[0], shape, fill.itemsize)
    node.set_constant(np.broadcast_to(fill.reshape(()), shape))


def shape_of(node: Node) -> None:
    """Shape: known, because every shape is."""
    shape = node.tensor(0).shape
    first, last = node.integer("start", 0), node.integer("end", len(shape))
    node.set_constant(np.array(shape[slice(first, last)], np.int64))


def size_of(node: Node) -> None:
    """Size: the number of elements."""
    node.set_constant(np.array(node.tensor(0).elements, np.int64))


def range_of(node: Node) -> None:
    """Range: start, limit and step must be constant."""
    start, limit, step = (node.constant(index, what) for index, what in enumerate(("start", "limit", "delta")))
    if not start.size == limit.size == step.size == 1 or not step.any():
        node.fail("start, limit and delta must be single numbers, delta not 0")
    count = max(0, math.ceil((float(limit.ravel()[0]) - float(start.ravel()[0])) / float(step.ravel()[0])))
    node.builder.constants.charge(node.outputs[0], (count,), start.itemsize)
    node.set_constant((start.ravel()[0] + np.arange(count) * step.ravel()[0]).astype(start.dtype))


def _nonzero(node: Node, x: Array) -> Array:
    node.builder.constants.charge(node.outputs[0], (x.ndim, x.size), 8)
    return np.stack(np.nonzero(np.atleast_1d(x))).astype(np.int64)


def _triangle(node: Node, x: Array) -> Array:
    k = int(node.integers(1, "k")[0]) if node.has(1) else 0
    return np.triu(x, k) if node.integer("upper", 1) else np.tril(x, k)


def _gather(node: Node, x: Array) -> Array:
    indices = node.constant(1, "indices")
    axis = node.axis(node.integer("axis", 0), x.ndim)
    # before it is made: repeated indices multiply the data
    node.builder.constants.charge(node.outputs[0], (indices.size, x.size // x.shape[axis]), x.itemsize)
    return np.take(x, indices, axis=axis)


def _concat(node: Node, x: Array) -> Array:
    parts = [node.constant(index, "operand") for index in range(len(node.inputs))]
    return np.concatenate(parts, axis=node.axis(node.integer("axis", 0), x.ndim))


Bounds = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def slice_bounds(node: Node, rank: int) -> Bounds:
    """starts, ends, axes (non-negative) and steps of a Slice node."""
    if node.opset < 10:
        starts, ends = node.ints("starts", ()), node.ints("ends", ())
        axes, steps = node.ints("axes", tuple(range(len(starts)))), (1,) * len(starts)
    else:
        starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
        axes = node.integers(3, "axes") if node.has(3) else tuple(range(len(starts)))
        steps = node.integers(4, "steps") if node.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        node.fail(f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes and {len(steps)} steps must be as many")
    return starts, ends, tuple(node.axis(axis, rank) for axis in axes), steps


def _slice(node: Node, x: Array) -> Array:
    return x[slices(x.shape, *slice_bounds(node, x.ndim))]


def _axes(node: Node) -> tuple[int, ...] | None:
    """Axes of Squeeze, Unsqueeze: an attribute before opset 13, an input since."""
    if node.opset >= 13:
        return node.integers(1, "axes") if node.has(1) else None
    return node.ints("axes", ()) if "axes" in node.attributes else None


def squeezed_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` after a Squeeze or Unsqueeze node."""
    axes = _axes(node)
    if node.op_type == "Unsqueeze":
        if axes is None:
            node.fail("axes are missing")
        rank = len(shape) + len(axes)
        wanted = {node.axis(axis, rank) for axis in axes}
        if len(wanted) != len(axes):
            node.fail(f"axes {list(axes)} repeat")
        rest = iter(shape)
        return tuple(1 if axis in wanted else next(rest) for axis in range(rank))
    if axes is None:
        return tuple(size for size in shape if size != 1)
    dropped = {node.axis(axis, len(shape)) for axis in axes}
    if any(shape[axis] != 1 for axis in dropped):
        node.fail(f"axes {list(axes)} of shape {list(shape)} are not all of size 1")
    return tuple(size for axis, size in enumerate(shape) if axis not in dropped)


def reshaped_shape(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` after a Reshape node: 0 copies a dimension, -1 takes what is left."""
    target = list(node.integers(1, "shape"))
    if not node.integer("allowzero", 0):
        for axis, size in enumerate(target):
            if size == 0:
                if axis >= len(shape):
                    node.fail(f"shape {target} copies dimension {axis} of {list(shape)}, which does not exist")
                target[axis] = shape[axis]
    elements = int(np.prod(shape, dtype=object))
    if target.count(-1) == 1:
        rest = int(np.prod([size for size in target if size != -1], dtype=object))
        if rest <= 0 or elements % rest:
            node.fail(f"cannot reshape {list(shape)} to {target}")
        target[target.index(-1)] = elements // rest
    if any(size < 0 for size in target) or int(np.prod(target, dtype=object)) != elements:
        node.fail(f"cannot reshape {list(shape)} to {target}")
    return tuple(target)


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[[Node, Array], Array]:
    def fold(node: Node, x: Array) -> Array:
        y = node.constant(1, "operand")
        shape = np.broadcast_shapes(x.shape, y.shape)
        if np.prod(shape, dtype=np.float64) > max(x.size, y.size):
            node.builder.constants.charge(node.outputs[0], shape, x.itemsize)
        return function(x, y)

    return fold


def _cast(node: Node, x: Array) -> Array:
    kind = node.integer("to", 0)
    if kind not in _CAST:
        node.fail(f"cannot cast constants to element type {kind}")
    return x.astype(_CAST[kind])


def _transpose(node: Node, x: Array) -> Array:
    return np.transpose(x, node.ints("perm", tuple(reversed(range(x.ndim)))))


#: Ops that are computed when every input is constant.
FOLDED: dict[str, Callable[[Node, Array], Array]] = {
    "Identity": lambda node, x: x,
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": _transpose,
    "Squeeze": lambda node, x: x.reshape(squeezed_shape(node, x.shape)),
    "Unsqueeze": lambda node, x: x.reshape(squeezed_shape(node, x.shape)),
    "Reshape": lambda node, x: x.reshape(reshaped_shape(node, x.shape)),
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(divide),
    "Neg": lambda node, x: np.negative(x),
    "Sqrt": lambda node, x: np.sqrt(x),
    "NonZero": _nonzero,
    "Trilu": _triangle,
}
