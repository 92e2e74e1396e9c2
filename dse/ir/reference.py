"""Reference execution of a graph in NumPy: the values every program and every hardware must reproduce.

`run_float` computes in float32. `run_quantized` computes the integers of a quantized graph (`dse.ir.quantized`) in
one of the requantization modes; mode `ort` equals onnxruntime's QLinear operators bit for bit. Graphs have fixed
shapes, but the leading (batch) dimension of the inputs may differ from the graph's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError, UsageError
from dse.ir.graph import Graph, Op, scalar_scale
from dse.ir.quantized import INT8_MAX, INT8_MIN, clamp_bounds, conv_scales, dequantize, quantization_of, quantize_array
from dse.ir.requantize import MODES, add_ort, add_q31, encode_add, encode_scale, requantize
from dse.ir.windows import Array, convolve, window_counts, windows

Int8Array = npt.NDArray[np.int8]


def run_float(graph: Graph, inputs: Mapping[str, npt.ArrayLike], *, keep: bool = False) -> dict[str, Array]:
    """Execute a float graph.

    Parameters
    ----------
    inputs
        By name, shaped like the graph's inputs except for the leading dimension.
    keep
        Return every tensor an op produces (and the inputs), not only the graph's outputs.

    Raises
    ------
    ModelError: an input is missing or misshapen, or a constant has no data.
    """
    values = {name: np.asarray(array, np.float32) for name, array in _checked(graph, inputs).items()}
    return _execute(graph, values, lambda op, read: _float_op(graph, op, read), keep=keep)


def run_quantized(
    graph: Graph, inputs: Mapping[str, npt.NDArray[Any]], mode: str, *, keep: bool = False
) -> dict[str, Array]:
    """Execute a quantized graph on int8 inputs, requantizing in `mode` ("ort" or "q31").

    Parameters and `keep` as in `run_float`; results are int8.

    Raises
    ------
    ModelError: as `run_float`, or an input that is not int8, or an op without an integer rule.
    UsageError: unknown mode.
    """
    _check_mode(mode)
    values = _checked(graph, inputs)
    for name, array in values.items():
        if array.dtype != np.int8:
            raise ModelError(
                f"{graph.source or graph.name}: quantized input {name!r} must be int8, got {array.dtype}; "
                "quantize_input() converts real values"
            )
    return _execute(graph, values, lambda op, read: _int8_op(graph, op, read, mode), keep=keep)


def run_op_quantized(graph: Graph, op: Op, values: Mapping[str, npt.NDArray[Any]], mode: str) -> dict[str, Array]:
    """One op of a quantized graph: its non-constant inputs by name -> its output by name."""
    _check_mode(mode)
    return {op.outputs[0]: _int8_op(graph, op, _operands(graph, op, values), mode)}


def run_op_float(graph: Graph, op: Op, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """One op of a float graph: its non-constant inputs by name -> its output by name."""
    return {op.outputs[0]: _float_op(graph, op, _operands(graph, op, values))}


# -- walking the graph -----------------------------------------------------------------------------------------


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise UsageError(f"{mode!r} is not a requantization mode; choose one of {', '.join(MODES)}")


def _checked(graph: Graph, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for name in graph.inputs:
        if name not in inputs:
            raise ModelError(f"{graph.source or graph.name}: no value for input {name!r}")
        array, shape = np.asarray(inputs[name]), graph[name].shape
        if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
            raise ModelError(
                f"{graph.source or graph.name}: input {name!r} has shape {list(array.shape)}, "
                f"the network takes {list(shape)} (the first dimension is free)"
            )
        values[name] = array
    return values


def _operands(graph: Graph, op: Op, values: Mapping[str, Array]) -> list[Array | None]:
    """Input arrays of `op` in order; None for an absent optional input."""
    operands: list[Array | None] = []
    for name in op.inputs:
        data = None if not name else values[name] if name in values else graph[name].data
        if name and data is None:
            raise ModelError(f"{graph.source or graph.name}: op {op.name!r} reads {name!r}, which has no values")
        operands.append(data)
    return operands


def _execute(
    graph: Graph, values: dict[str, Array], step: Callable[[Op, list[Array | None]], Array], *, keep: bool
) -> dict[str, Array]:
    last_use = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    for index, op in enumerate(graph.ops):
        values[op.outputs[0]] = step(op, _operands(graph, op, values))
        if not keep:
            for name in set(op.inputs):
                if name in values and last_use[name] == index and name not in graph.outputs:
                    del values[name]
    if keep:
        return values
    return {name: values[name] if name in values else _constant(graph, name) for name in graph.outputs}


def _constant(graph: Graph, name: str) -> Array:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: tensor {name!r} has no values")
    return data


def _shared_op(graph: Graph, op: Op, x: Array) -> Array | None:
    """Ops that only move data, in any number format; None when `op` is not one of them."""
    if op.kind == "identity":
        return x
    if op.kind == "flatten":
        axis = int(op.attributes["axis"])
        return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)
    if op.kind == "reshape":
        before, after = graph[op.inputs[0]].shape, graph[op.outputs[0]].shape
        if before and after and before[0] == after[0]:
            return x.reshape(x.shape[0], *after[1:])
        return x.reshape(after)
    return None


# -- float -----------------------------------------------------------------------------------------------------


def _float_op(graph: Graph, op: Op, operands: list[Array | None]) -> Array:
    x = operands[0]
    assert x is not None
    if (moved := _shared_op(graph, op, x)) is not None:
        return moved
    if op.kind in ("conv", "gemm"):
        return _activate(op, _float_layer(op, operands))
    if op.kind == "add":
        assert operands[1] is not None
        return _activate(op, x + operands[1])
    if op.kind == "relu":
        return np.maximum(x, np.float32(0))
    if op.kind == "clip":
        return np.clip(x, np.float32(op.attributes["low"]), np.float32(op.attributes["high"]))
    if op.kind == "max_pool":
        return _largest(x, op, -np.inf)
    if op.kind == "average_pool":
        total = windows(x, *_window(op), 0).sum(axis=(-2, -1), dtype=np.float32)
        return np.asarray(total / _counts(op, x).astype(np.float32))
    if op.kind == "global_average_pool":
        return np.asarray(x.mean(axis=(2, 3), keepdims=True, dtype=np.float32))
    if op.kind == "softmax":
        shifted = np.exp(x - x.max(axis=op.attributes["axis"], keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=op.attributes["axis"], keepdims=True))
    if op.kind == "batch_norm":
        return _batch_norm(op, operands)
    if op.kind == "quantize":
        return quantize_array(x, quantization_of(graph, op.outputs[0]))
    if op.kind == "dequantize":
        return dequantize(x, quantization_of(graph, op.inputs[0]))
    raise ModelError(f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no float reference")


def _float_layer(op: Op, operands: list[Array | None]) -> Array:
    x, weight = operands[0], operands[1]
    assert x is not None
    assert weight is not None
    bias = operands[2] if len(operands) > 2 else None
    if op.kind == "gemm":
        result: Array = x @ weight.T
        return result if bias is None else result + bias
    result = convolve(x, weight, *_geometry(op), int(op.attributes["groups"]))
    return result if bias is None else result + bias[:, None, None]


def _activate(op: Op, x: Array) -> Array:
    activation = op.attributes.get("activation", "none")
    if activation == "none":
        return x
    return np.clip(x, np.float32(0), np.float32(6) if activation == "relu6" else None)


def _batch_norm(op: Op, operands: list[Array | None]) -> Array:
    x, scale, bias, mean, variance = (np.asarray(operand) for operand in operands)
    axes = (-1,) + (1,) * (x.ndim - 2)
    factor = scale / np.sqrt(variance + np.float32(op.attributes["epsilon"]))
    return np.asarray(x * factor.reshape(axes) + (bias - mean * factor).reshape(axes), np.float32)


def _geometry(op: Op) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int]]:
    attributes = op.attributes
    return attributes["strides"], attributes["pads"], attributes["dilations"]


def _window(op: Op) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    return op.attributes["kernel"], op.attributes["strides"], op.attributes["pads"]


def _largest(x: Array, op: Op, fill: float) -> Array:
    """Max pool; `fill` is the smallest value of the number format, so that padding never wins."""
    return np.asarray(windows(x, *_window(op), fill).max(axis=(-2, -1)))


def _counts(op: Op, x: Array) -> npt.NDArray[np.int64]:
    include_pad = bool(op.attributes["count_include_pad"])
    return window_counts((x.shape[2], x.shape[3]), *_window(op), include_pad=include_pad)


# -- int8 ------------------------------------------------------------------------------------------------------


def _int8_op(graph: Graph, op: Op, operands: list[Array | None], mode: str) -> Array:
    x = operands[0]
    assert x is not None
    if (moved := _shared_op(graph, op, x)) is not None:
        return moved
    if op.kind in ("conv", "gemm"):
        return _int8_layer(graph, op, operands, mode)
    if op.kind == "add":
        assert operands[1] is not None
        return _int8_add(graph, op, x, operands[1], mode)
    if op.kind == "relu":
        return np.maximum(x, np.int8(quantization_of(graph, op.inputs[0]).zero_point))
    if op.kind == "clip":
        bounds = np.array([op.attributes["low"], op.attributes["high"]], np.float32)
        low, high = quantize_array(bounds, quantization_of(graph, op.inputs[0]))
        return np.clip(x, low, high)
    if op.kind == "max_pool":
        return _largest(x, op, INT8_MIN)
    if op.kind == "average_pool":
        return _int8_average(graph, op, x)
    if op.kind == "global_average_pool":
        return _int8_global_average(graph, op, x)
    raise ModelError(
        f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no int8 rule; the host computes it in float"
    )


def accumulate(graph: Graph, op: Op, operands: list[Array | None]) -> npt.NDArray[np.int64]:
    """Exact accumulators of a conv or gemm, bias included: sum((x - zero_x) * w) + bias, int64 in output layout.

    `operands` are x int8, weight int8 and bias int32 (or None, or left out).
    """
    x, weight = operands[0], operands[1]
    assert x is not None
    assert weight is not None
    bias = operands[2] if len(operands) > 2 else None
    zero = quantization_of(graph, op.inputs[0]).zero_point
    depth = weight[0].size
    # every partial sum is an integer below depth * 2**14: exact in float32 up to 2**24, and far below 2**53
    exact = np.float32 if depth << 14 <= 1 << 24 else np.float64
    factor = weight.astype(exact)
    if op.kind == "gemm":
        product: Array = np.matmul(x.astype(exact), factor.T)
    else:
        product = convolve(x.astype(exact), factor, *_geometry(op), int(op.attributes["groups"]), fill=zero)
    offset = -zero * weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    if bias is not None:
        offset = offset + bias
    return product.astype(np.int64) + _per_channel(offset, product.ndim)


def _per_channel(values: Array, ndim: int) -> Array:
    """Values of shape (M,) or (1,) broadcast along axis 1 of an output of `ndim` axes."""
    return values.reshape((1, -1) + (1,) * (ndim - 2))


def _int8_layer(graph: Graph, op: Op, operands: list[Array | None], mode: str) -> Int8Array:
    acc = accumulate(graph, op, operands)
    quantization = quantization_of(graph, op.outputs[0])
    low, high = clamp_bounds(op, quantization)
    scales = conv_scales(graph, op)
    if mode == "ort":
        # the float form of the rule, ten times faster than the integer one; equal (tests/unit/ir/test_reference.py)
        scaled = np.rint(acc.astype(np.float32) * _per_channel(scales, acc.ndim))
        return np.asarray(np.clip(scaled + np.float32(quantization.zero_point), low, high), np.int8)
    try:
        multiplier, shift = encode_scale(scales, mode)
    except ValueError as error:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: {error}") from error
    return requantize(
        acc, _per_channel(multiplier, acc.ndim), _per_channel(shift, acc.ndim),
        quantization.zero_point, low, high, mode,
    )  # fmt: skip


def _int8_add(graph: Graph, op: Op, a: Array, b: Array, mode: str) -> Int8Array:
    of_a, of_b, of_sum = (quantization_of(graph, name) for name in (*op.inputs, *op.outputs))
    low, high = clamp_bounds(op, of_sum)
    scales = of_a.scale[0], of_b.scale[0], of_sum.scale[0]
    if mode == "ort":
        total = add_ort(a, b, *scales, of_a.zero_point, of_b.zero_point, of_sum.zero_point)
        return np.clip(total, low, high)
    try:
        multipliers = encode_add(*scales)
    except ValueError as error:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: {error}") from error
    return add_q31(a, b, of_a.zero_point, of_b.zero_point, multipliers, of_sum.zero_point, low, high)


def _int8_global_average(graph: Graph, op: Op, x: Array) -> Int8Array:
    """rne(float32(sum) * float32(s_x / float32(s_y * H * W))) + zero point: QLinearGlobalAveragePool of onnxruntime."""
    of_x, of_y = quantization_of(graph, op.inputs[0]), quantization_of(graph, op.outputs[0])
    area = x.shape[2] * x.shape[3]
    total = x.sum(axis=(2, 3), keepdims=True, dtype=np.int64) - of_x.zero_point * area
    factor = scalar_scale(of_x) / np.float32(scalar_scale(of_y) * np.float32(area))
    value = np.rint(total.astype(np.float32) * np.float32(factor))
    return np.asarray(np.clip(value + of_y.zero_point, INT8_MIN, INT8_MAX), np.int8)


def _int8_average(graph: Graph, op: Op, x: Array) -> Int8Array:
    """QLinearAveragePool of onnxruntime: dequantize, add up in float32 row by row, divide, then
    rne(float32(average / s_y) + zero_point), rounded after the zero point is added, unlike QuantizeLinear.

    Source: 0 mismatches in 69,551 outputs of random geometry (tests/conformance/test_onnxruntime_ops.py).
    """
    of_x, of_y = quantization_of(graph, op.inputs[0]), quantization_of(graph, op.outputs[0])
    real = windows(dequantize(x, of_x), *_window(op), 0)
    total = np.zeros(real.shape[:4], np.float32)
    # the order of the additions is part of the rule: float32 sums depend on it
    for row in range(real.shape[4]):
        for column in range(real.shape[5]):
            total += real[..., row, column]
    average = total / _counts(op, x).astype(np.float32)
    rounded = np.rint(average / scalar_scale(of_y) + np.float32(of_y.zero_point))
    return np.asarray(np.clip(rounded, INT8_MIN, INT8_MAX), np.int8)
