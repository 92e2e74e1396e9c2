"""Elementwise operators, comparisons, casts and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from dse.ir.kinds import COMPARISON_KINDS
from workloads.onnx.node import Node

#: ONNX element types as dtypes of the graph; floats of every width become float32.
ELEMENT_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.DOUBLE: "float32", onnx.TensorProto.FLOAT16: "float32",
    onnx.TensorProto.BFLOAT16: "float32", onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT16: "int16", onnx.TensorProto.UINT16: "uint16", onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.UINT32: "uint32", onnx.TensorProto.INT64: "int64", onnx.TensorProto.BOOL: "bool",
}  # fmt: skip

#: Operators of one operand: kind, and attributes with their defaults.
_UNARY: dict[str, tuple[str, dict[str, float]]] = {
    "Relu": ("relu", {}), "LeakyRelu": ("leaky_relu", {"alpha": 0.01}), "Elu": ("elu", {"alpha": 1.0}),
    "Selu": ("selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Sigmoid": ("sigmoid", {}), "HardSigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": ("hard_swish", {}), "Softplus": ("softplus", {}), "Softsign": ("softsign", {}),
    "Tanh": ("tanh", {}), "Erf": ("erf", {}), "Exp": ("exp", {}), "Log": ("log", {}), "Sqrt": ("sqrt", {}),
    "Reciprocal": ("reciprocal", {}), "Abs": ("abs", {}), "Neg": ("neg", {}), "Sign": ("sign", {}),
    "Floor": ("floor", {}), "Ceil": ("ceil", {}), "Round": ("round", {}), "Sin": ("sin", {}), "Cos": ("cos", {}),
    "Not": ("logical_not", {}),
}  # fmt: skip

_BINARY = {
    "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Mod": "mod", "PRelu": "prelu", "Equal": "equal",
    "Less": "less", "LessOrEqual": "less_or_equal", "Greater": "greater", "GreaterOrEqual": "greater_or_equal",
    "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
}  # fmt: skip

_CHAINS = {"Add": "add", "Sum": "add", "Max": "maximum", "Min": "minimum", "Mean": "add"}


def unary(node: Node) -> None:
    """Any function of one operand."""
    kind, defaults = _UNARY[node.op_type]
    attributes: dict[str, Any] = {key: node.number(key, default) for key, default in defaults.items()}
    node.emit(kind, (node.inputs[0],), node.tensor(0).shape, **attributes)


def gelu(node: Node) -> None:
    """Gelu, exact or by tanh (the standard operator since opset 20, com.microsoft before)."""
    mode = node.choice("approximate", "none", ("none", "tanh"))
    node.emit("gelu", (node.inputs[0],), node.tensor(0).shape, approximate=mode)


def binary(node: Node) -> None:
    """Any function of two operands that broadcast."""
    kind = _BINARY[node.op_type]
    if kind == "mod" and node.tensor(0).dtype == "float32" and not node.integer("fmod", 0):
        node.fail("modulo of floats needs fmod 1")
    if kind == "mod" and node.tensor(0).dtype != "float32" and node.integer("fmod", 0):
        node.fail("fmod 1 is supported for floats only")
    if kind not in ("pow",):
        _same_types(node, (0, 1))
    shape = broadcast(node, (0, 1))
    if kind == "prelu" and shape != node.tensor(0).shape:
        node.fail(f"the slope {list(node.tensor(1).shape)} does not broadcast to {list(node.tensor(0).shape)}")
    node.emit(kind, (node.inputs[0], node.inputs[1]), shape, dtype="bool" if kind in COMPARISON_KINDS else None)


def broadcast(node: Node, indices: tuple[int, ...]) -> tuple[int, ...]:
    """Common shape of some inputs."""
    shapes = [node.tensor(index).shape for index in indices]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        node.fail(f"shapes {' and '.join(str(list(shape)) for shape in shapes)} do not broadcast")


def _same_types(node: Node, indices: tuple[int, ...]) -> None:
    dtypes = {node.tensor(index).dtype for index in indices}
    if len(dtypes) > 1:
        node.fail(f"its operands have different element types: {', '.join(sorted(dtypes))}")


def chain(node: Node) -> None:
    """Add, Sum, Max, Min, Mean of any number of operands, as a chain of two-operand ops."""
    indices = tuple(range(len(node.inputs)))
    _same_types(node, indices)
    names = [node.tensor(index).name for index in indices]
    kind, mean = _CHAINS[node.op_type], node.op_type == "Mean"
    if len(names) == 1:
        node.emit("identity", (names[0],), node.tensor(0).shape)
        return
    more: dict[str, Any] = {"activation": "none"} if kind == "add" else {}
    left = names[0]
    for position, right in enumerate(names[1:], start=2):
        shapes = node.builder.tensors[left].shape, node.builder.tensors[right].shape
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            node.fail(f"shapes {list(shapes[0])} and {list(shapes[1])} do not broadcast")
        last = position == len(names) and not mean
        left = node.emit(kind, (left, right), shape, output=None if last else node.internal("partial"), **more)
    if mean:
        count = node.set_constant(np.asarray(len(names), np.float32), node.internal("count"))
        node.emit("div", (left, count), node.builder.tensors[left].shape)


def clip(node: Node) -> None:
    """Clip: bounds are attributes before opset 11, inputs since."""
    low, high = -math.inf, math.inf
    if node.opset < 11:
        low, high = node.number("min", low), node.number("max", high)
    else:
        for index, what in ((1, "min"), (2, "max")):
            if node.has(index):
                bound = node.constant(index, what)
                if bound.size != 1:
                    node.fail(f"{what} must be one number, got shape {list(bound.shape)}")
                low, high = (float(bound.ravel()[0]), high) if index == 1 else (low, float(bound.ravel()[0]))
    if not low <= high:
        node.fail(f"bounds {low:g} and {high:g} are not in order")
    node.emit("clip", (node.inputs[0],), node.tensor(0).shape, low=low, high=high)


def where(node: Node) -> None:
    """Where."""
    if node.tensor(0).dtype != "bool":
        node.fail(f"the condition must be BOOL, not {node.tensor(0).dtype}")
    _same_types(node, (1, 2))
    node.emit("where", node.inputs[:3], broadcast(node, (0, 1, 2)), dtype=node.tensor(1).dtype)


def cast(node: Node) -> None:
    """Cast and CastLike; between floats of different width nothing changes, all are float32 here."""
    if node.op_type == "CastLike":
        target = node.tensor(1).dtype
    else:
        to = node.integer("to", 0)
        if to not in ELEMENT_TYPES:
            node.fail(f"cannot cast to element type {to}")
        target = ELEMENT_TYPES[to]
    x = node.tensor(0)
    if x.dtype == target:
        node.emit("identity", (x.name,), x.shape)
    else:
        node.emit("cast", (x.name,), x.shape, dtype=target, to=target)


_REDUCTIONS = {
    "ReduceMean": "reduce_mean", "ReduceSum": "reduce_sum", "ReduceMax": "reduce_max", "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod", "ReduceL1": "reduce_sum", "ReduceL2": "reduce_sum", "ReduceSumSquare": "reduce_sum",
}  # fmt: skip


def reduce(node: Node) -> None:
    """Reductions; a mean over rows and columns of a map is a global average pool."""
    x = node.tensor(0)
    axes = _reduced_axes(node, len(x.shape))
    keep = bool(node.integer("keepdims", 1))
    kind, name = _REDUCTIONS[node.op_type], x.name
    if not axes:
        node.emit("identity", (name,), x.shape)
        return
    if node.op_type in ("ReduceL2", "ReduceSumSquare"):
        name = node.emit("mul", (name, name), x.shape, output=node.internal("squares"))
    if node.op_type == "ReduceL1":
        name = node.emit("abs", (name,), x.shape, output=node.internal("sizes"))
    final = _reduced(x.shape, axes, keep=keep)
    if kind == "reduce_mean" and len(x.shape) == 4 and axes == (2, 3) and x.dtype == "float32":
        small = (*x.shape[:2], 1, 1)
        name = node.emit("global_average_pool", (name,), small, output=None if keep else node.internal("pooled"))
        if not keep:
            node.emit("reshape", (name,), final, shape=final)
        return
    root = node.op_type == "ReduceL2"
    name = node.emit(kind, (name,), final, output=node.internal("total") if root else None, axes=axes, keepdims=keep)
    if root:
        node.emit("sqrt", (name,), final)


def _reduced(shape: tuple[int, ...], axes: tuple[int, ...], *, keep: bool) -> tuple[int, ...]:
    if keep:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _reduced_axes(node: Node, rank: int) -> tuple[int, ...]:
    """Axes of a reduction: an input since opset 18 (ReduceSum: 13), an attribute before; none given means all."""
    since = 13 if node.op_type == "ReduceSum" else 18
    axes = node.integers(1, "axes") if node.opset >= since and node.has(1) else node.ints("axes", ())
    if not axes and node.integer("noop_with_empty_axes", 0):
        return ()
    return tuple(sorted({node.axis(axis, rank) for axis in axes} or range(rank)))


def arg(node: Node) -> None:
    """ArgMax and ArgMin, the first of equal values."""
    shape = node.tensor(0).shape
    if node.integer("select_last_index", 0):
        node.fail("select_last_index 1 is not supported, only 0")
    axis, keep = node.axis(node.integer("axis", 0), len(shape)), bool(node.integer("keepdims", 1))
    kind = "arg_max" if node.op_type == "ArgMax" else "arg_min"
    node.emit(kind, (node.inputs[0],), _reduced(shape, (axis,), keep=keep), dtype="int64", axes=(axis,), keepdims=keep)


ARITHMETIC: dict[str, Callable[[Node], Any]] = {
    **dict.fromkeys(_UNARY, unary), **dict.fromkeys(_BINARY, binary), **dict.fromkeys(_CHAINS, chain),
    **dict.fromkeys(_REDUCTIONS, reduce), "Gelu": gelu, "com.microsoft.Gelu": gelu, "Clip": clip, "Where": where,
    "Cast": cast, "CastLike": cast, "ArgMax": arg, "ArgMin": arg,
}  # fmt: skip
