"""Float rules of every op kind, in float32; shape arithmetic keeps its integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.ir.einsum import run_einsum
from dse.ir.elementwise import BINARY, UNARY
from dse.ir.graph import Graph, Op
from dse.ir.moves import MOVES, Operands
from dse.ir.quantized import dequantize, quantization_of, quantize_array
from dse.ir.recurrent import run_recurrent
from dse.ir.resize import resize
from dse.ir.windows import Array, convolve, convolve_transposed, window_counts, windows

__all__ = ["Operands", "counts", "float_op", "geometry", "largest", "window"]

_UINT8_MAX = 255


def float_op(graph: Graph, op: Op, operands: Operands) -> tuple[Array, ...]:
    """The outputs of one op.

    Raises
    ------
    ModelError: an op that needs quantizations the graph does not have, or values that do not fit it.
    """
    x = operands[0]
    assert x is not None
    if op.kind in UNARY:
        return (np.asarray(UNARY[op.kind](x, op.attributes)),)
    if op.kind in BINARY:
        assert operands[1] is not None
        return (_activate(op, np.asarray(BINARY[op.kind](x, operands[1]))),)
    if op.kind in MOVES:
        return (MOVES[op.kind](graph, op, x, operands[1:]),)
    result = _RULES[op.kind](graph, op, operands)
    return result if isinstance(result, tuple) else (result,)


# -- layers --------------------------------------------------------------------------------------------------------


def _layer(graph: Graph, op: Op, operands: Operands) -> Array:
    x, weight, bias, *_ = [*operands, None]
    assert x is not None
    assert weight is not None
    if op.kind == "gemm":
        result: Array = x @ weight.T
        return _activate(op, result if bias is None else result + bias)
    groups = int(op.attributes["groups"])
    if op.kind == "conv":
        result = convolve(x, weight, *geometry(op), groups)
    else:
        result = convolve_transposed(x, weight, *geometry(op), groups, op.attributes["output_padding"])
    return _activate(op, result if bias is None else result + bias[:, None, None])


def _matmul(graph: Graph, op: Op, operands: Operands) -> Array:
    x, y = operands
    assert x is not None
    assert y is not None
    return np.asarray(np.matmul(x, y))


def _integer_layer(graph: Graph, op: Op, operands: Operands) -> Array:
    """ConvInteger and MatMulInteger: exact sums of (x - zero_x) * (w - zero_w), int32."""
    x, weight, zero_x, zero_w, *_ = [*operands, None, None]
    assert x is not None
    assert weight is not None
    # zero points may be a list: per row of A and column of B in a matmul, per output channel in a convolution
    product = op.kind == "matmul_integer"
    exact_x = x.astype(np.float64) - _zero(zero_x, x.ndim, x.ndim - 2)
    exact_w = weight.astype(np.float64) - _zero(zero_w, weight.ndim, weight.ndim - 1 if product else 0)
    if product:
        return np.asarray(np.matmul(exact_x, exact_w).astype(np.int64), np.int32)
    result = convolve(exact_x, exact_w, *geometry(op), int(op.attributes["groups"]))
    return np.asarray(result.astype(np.int64), np.int32)


def _zero(zero: Array | None, ndim: int, axis: int) -> Array:
    """A zero point as float64: one number, or one per slice along `axis`."""
    if zero is None:
        return np.zeros((), np.float64)
    values = zero.astype(np.float64)
    return values.reshape(()) if values.size == 1 else values.reshape([-1 if a == axis else 1 for a in range(ndim)])


def _recurrent(graph: Graph, op: Op, operands: Operands) -> tuple[Array, ...]:
    return run_recurrent(op, operands)


def _einsum(graph: Graph, op: Op, operands: Operands) -> Array:
    return run_einsum(op.name, op.attributes, [np.asarray(operand) for operand in operands])


def _activate(op: Op, x: Array) -> Array:
    activation = op.attributes.get("activation", "none")
    if activation == "none":
        return x
    return np.clip(x, np.float32(0), np.float32(6) if activation == "relu6" else None)


# -- pools ---------------------------------------------------------------------------------------------------------


def geometry(op: Op) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int]]:
    """Strides, pads and dilations of a convolution."""
    attributes = op.attributes
    return attributes["strides"], attributes["pads"], attributes["dilations"]


def window(op: Op) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Kernel, strides and pads of a pool."""
    return op.attributes["kernel"], op.attributes["strides"], op.attributes["pads"]


def largest(x: Array, op: Op, fill: float) -> Array:
    """Max pool; `fill` is the smallest value of the number format, so that padding never wins."""
    return np.asarray(windows(x, *window(op), fill).max(axis=(-2, -1)))


def counts(op: Op, x: Array) -> npt.NDArray[np.int64]:
    """Elements each window of an average pool divides by, shape (P, Q)."""
    include_pad = bool(op.attributes["count_include_pad"])
    return window_counts((x.shape[2], x.shape[3]), *window(op), include_pad=include_pad)


def _pool(graph: Graph, op: Op, operands: Operands) -> Array:
    x = _first(operands)
    if op.kind == "max_pool":
        return largest(x, op, -np.inf)
    if op.kind == "global_average_pool":
        return np.asarray(x.mean(axis=(2, 3), keepdims=True, dtype=np.float32))
    view = windows(x, *window(op), 0)
    columns = np.zeros((*view.shape[:4], view.shape[5]), np.float32)
    # down the columns, then across: onnxruntime's order, on which the last bit depends
    for row in range(view.shape[4]):
        columns += view[..., row, :]
    total = np.zeros(view.shape[:4], np.float32)
    for column in range(view.shape[5]):
        total += columns[..., column]
    return np.asarray(total / counts(op, x).astype(np.float32))


# -- norms and reductions ------------------------------------------------------------------------------------------


def _first(operands: Operands) -> Array:
    assert operands[0] is not None
    return operands[0]


def _per_channel(values: Any, ndim: int) -> Array:
    return np.asarray(values).reshape((-1,) + (1,) * (ndim - 2))


def _batch_norm(graph: Graph, op: Op, operands: Operands) -> Array:
    x, scale, bias, mean, variance = (np.asarray(operand) for operand in operands)
    factor = scale / np.sqrt(variance + np.float32(op.attributes["epsilon"]))
    return np.asarray(x * _per_channel(factor, x.ndim) + _per_channel(bias - mean * factor, x.ndim), np.float32)


def _normalised(x: Array, axes: tuple[int, ...], epsilon: float, *, centred: bool = True) -> Array:
    """x less its mean over `axes`, divided by its standard deviation there (by the root mean square if not centred)."""
    if centred:
        x = x - x.mean(axis=axes, keepdims=True, dtype=np.float32)
    variance = np.square(x).mean(axis=axes, keepdims=True, dtype=np.float32)
    return np.asarray(x / np.sqrt(variance + np.float32(epsilon)))


def _layer_norm(graph: Graph, op: Op, operands: Operands) -> Array:
    x, scale, bias, *_ = [*operands, None]
    assert x is not None
    axes = tuple(range(int(op.attributes["axis"]), x.ndim))
    result = _normalised(x, axes, op.attributes["epsilon"], centred=op.kind == "layer_norm") * scale
    return np.asarray(result if bias is None else result + bias)


def _group_norm(graph: Graph, op: Op, operands: Operands) -> Array:
    """Instance norm is group norm with a group per channel."""
    x, scale, bias = (np.asarray(operand) for operand in operands)
    groups = x.shape[1] if op.kind == "instance_norm" else int(op.attributes["groups"])
    grouped = x.reshape(x.shape[0], groups, -1)
    result = _normalised(grouped, (2,), op.attributes["epsilon"]).reshape(x.shape)
    return np.asarray(result * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim))


def _lrn(graph: Graph, op: Op, operands: Operands) -> Array:
    """x * (bias + alpha / size * sum of squares over `size` (odd) neighbouring channels) ** -beta.

    The sum runs along the channels, one square added and one taken away at a time: onnxruntime's order, on which the
    last bits depend. Its power is not correctly rounded: it differs from this one in the last bit of a fifth of the
    values.
    """
    x, attributes = _first(operands), op.attributes
    size, channels = int(attributes["size"]), x.shape[1]
    share = np.float32(attributes["alpha"]) / np.float32(size)
    padded = np.pad(np.square(x), [(0, 0), (size // 2, size // 2)] + [(0, 0)] * (x.ndim - 2)) * share
    scale = np.empty_like(x)
    total = np.full_like(x[:, 0], attributes["bias"])
    for place in range(size):
        total = total + padded[:, place]
    scale[:, 0] = total
    for channel in range(1, channels):
        total = (total + padded[:, channel + size - 1]) - padded[:, channel - 1]
        scale[:, channel] = total
    power = np.power(scale.astype(np.float64), -np.float64(np.float32(attributes["beta"]))).astype(np.float32)
    return np.asarray(x * power, np.float32)


def _softmax(graph: Graph, op: Op, operands: Operands) -> Array:
    x, axis = _first(operands), op.attributes["axis"]
    shifted = x - x.max(axis=axis, keepdims=True)
    powers = np.exp(shifted)
    total = powers.sum(axis=axis, keepdims=True)
    return np.asarray(powers / total if op.kind == "softmax" else shifted - np.log(total))


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod, "reduce_mean": np.mean,
}  # fmt: skip


def _reduce(graph: Graph, op: Op, operands: Operands) -> Array:
    x, axes = _first(operands), tuple(op.attributes["axes"])
    keep = bool(op.attributes["keepdims"])
    result = np.asarray(_REDUCTIONS[op.kind](x, axis=axes, keepdims=keep))
    return result.astype(x.dtype, copy=False)


def _arg(graph: Graph, op: Op, operands: Operands) -> Array:
    function = np.argmax if op.kind == "arg_max" else np.argmin
    result = function(_first(operands), axis=op.attributes["axes"][0], keepdims=bool(op.attributes["keepdims"]))
    return np.asarray(result, np.int64)


# -- the rest ------------------------------------------------------------------------------------------------------


def _resize(graph: Graph, op: Op, operands: Operands) -> Array:
    x, shape = _first(operands), graph[op.outputs[0]].shape
    sizes = (x.shape[0], *shape[1:]) if graph[op.inputs[0]].shape[0] == shape[0] else shape
    return resize(x, sizes, op.attributes)


def _where(graph: Graph, op: Op, operands: Operands) -> Array:
    condition, x, y = (np.asarray(operand) for operand in operands)
    return np.where(condition, x, y)


def _cast(graph: Graph, op: Op, operands: Operands) -> Array:
    x = _first(operands)
    with np.errstate(invalid="ignore"):
        return x.astype(op.attributes["to"])


def _quantize(graph: Graph, op: Op, operands: Operands) -> Array:
    if op.kind == "quantize":
        return quantize_array(_first(operands), quantization_of(graph, op.outputs[0]))
    return dequantize(_first(operands), quantization_of(graph, op.inputs[0]))


def _dynamic_quantize(graph: Graph, op: Op, operands: Operands) -> tuple[Array, ...]:
    """DynamicQuantizeLinear: the range of x, widened to hold 0, on 0..255."""
    x = _first(operands)
    low, high = np.float32(min(0, x.min())), np.float32(max(0, x.max()))
    scale = np.float32((high - low) / np.float32(_UINT8_MAX)) if high > low else np.float32(1)
    zero = np.clip(np.rint(np.float32(0) - low / scale), 0, _UINT8_MAX)
    values = np.clip(np.rint(x / scale) + zero, 0, _UINT8_MAX)
    return values.astype(np.uint8), np.asarray(scale, np.float32), np.asarray(zero, np.uint8)


_RULES: dict[str, Callable[[Graph, Op, Operands], Array | tuple[Array, ...]]] = {
    "conv": _layer, "conv_transpose": _layer, "gemm": _layer, "matmul": _matmul, "conv_integer": _integer_layer,
    "matmul_integer": _integer_layer, "einsum": _einsum, "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent,
    "max_pool": _pool, "average_pool": _pool, "global_average_pool": _pool, "batch_norm": _batch_norm,
    "layer_norm": _layer_norm, "rms_norm": _layer_norm, "instance_norm": _group_norm, "group_norm": _group_norm,
    "lrn": _lrn, "softmax": _softmax, "log_softmax": _softmax, **dict.fromkeys(_REDUCTIONS, _reduce),
    "arg_max": _arg, "arg_min": _arg, "requantize": lambda graph, op, operands: _first(operands),
    "resize": _resize, "where": _where, "cast": _cast, "quantize": _quantize,
    "dequantize": _quantize, "dynamic_quantize": _dynamic_quantize,
}  # fmt: skip
