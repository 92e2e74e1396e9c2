"""Integer rules of a quantized graph (`dse.ir.quantized`), op by op.

conv, gemm, matmul, add, mul and pools have rules of their own, equal to onnxruntime's QLinear operators in mode
`ort`; data movement needs none. Every other kind takes the meaning of a quantize-dequantize graph: its inputs
dequantized, computed in float32, its output quantized. The host computes those.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op, scalar_scale
from dse.ir.kinds import BINARY_KINDS, NORM_KINDS, RECURRENT_KINDS, REDUCTION_KINDS, UNARY_KINDS
from dse.ir.moves import MOVES
from dse.ir.quantized import INT8_MAX, INT8_MIN, clamp_bounds, conv_scales, dequantize, quantization_of, quantize_array
from dse.ir.recurrent_int8 import run_recurrent_int8
from dse.ir.reference_float import Operands, counts, float_op, geometry, largest, window
from dse.ir.reference_tflite import tflite_layer, tflite_op
from dse.ir.requantize import add_ort, add_q31, encode_add, encode_scale, requantize
from dse.ir.windows import Array, convolve, windows

Int8Array = npt.NDArray[np.int8]

#: Kinds with the meaning dequantize, compute in float32, quantize.
_THROUGH_FLOAT = ("requantize", "concat", "resize", "where", "conv_transpose", *UNARY_KINDS, *BINARY_KINDS, *NORM_KINDS,
                  *REDUCTION_KINDS)  # fmt: skip


def quantized_op(graph: Graph, op: Op, operands: Operands, mode: str) -> tuple[Array, ...]:
    """The outputs of one op on int8 operands, requantizing in `mode`.

    Raises
    ------
    ModelError: the kind has no rule on integers, or a scale cannot be encoded.
    """
    if op.kind in RECURRENT_KINDS and mode != "tflite":
        return run_recurrent_int8(graph, op, operands, mode)[: len(op.outputs)]
    return (_int8_op(graph, op, operands, mode),)


def _int8_op(graph: Graph, op: Op, operands: Operands, mode: str) -> Array:
    x = operands[0]
    assert x is not None
    if mode == "tflite" and op.kind not in ("conv", "gemm"):
        return tflite_op(graph, op, operands)
    if op.kind in MOVES and (op.kind != "concat" or _one_quantization(graph, op)):
        return MOVES[op.kind](graph, op, x, operands[1:])
    if op.kind in ("conv", "gemm", "matmul"):
        return _int8_layer(graph, op, operands, mode)
    if op.attributes.get("between_reals"):
        return _through_float(graph, op, operands)
    if op.kind in ("add", "mul"):
        assert operands[1] is not None
        rule = _int8_add if op.kind == "add" else _int8_mul
        return rule(graph, op, x, operands[1], mode)
    if op.kind == "relu" and _one_quantization(graph, op):
        return np.maximum(x, np.int8(quantization_of(graph, op.inputs[0]).zero_point))
    if op.kind == "clip" and _one_quantization(graph, op):
        bounds = np.array([op.attributes["low"], op.attributes["high"]], np.float32)
        low, high = quantize_array(bounds, quantization_of(graph, op.inputs[0]))
        return np.clip(x, low, high)
    if op.kind == "max_pool":
        return largest(x, op, INT8_MIN)
    if op.kind == "average_pool":
        return _int8_average(graph, op, x)
    if op.kind == "global_average_pool":
        return _int8_global_average(graph, op, x)
    if op.kind in _THROUGH_FLOAT:
        return _through_float(graph, op, operands)
    raise ModelError(
        f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no int8 rule; the host computes it in float"
    )


def _one_quantization(graph: Graph, op: Op) -> bool:
    """Whether every operand is on the scale and zero point of the output."""
    known = {graph[name].quantization for name in (*op.inputs, *op.outputs) if name}
    return len({(item.scale, item.zero_point) for item in known if item is not None}) <= 1


def _through_float(graph: Graph, op: Op, operands: Operands) -> Array:
    """Dequantize, compute, quantize; operands without a quantization (constants) go in as they are."""
    real: Operands = []
    for name, values in zip(op.inputs, operands, strict=True):
        quantization = graph[name].quantization if name else None
        real.append(values if values is None or quantization is None else dequantize(values, quantization))
    result = float_op(graph, op, real)[0]
    of_y = graph[op.outputs[0]].quantization
    return result if of_y is None else quantize_array(result, of_y)


def accumulate(graph: Graph, op: Op, operands: Operands) -> npt.NDArray[np.int64]:
    """Exact accumulators of a conv, gemm or matmul: sum((x - zero_x) * w) + bias, int64 in output layout.

    `operands` are x int8, weight int8 and bias int32 (or None, or left out); a matmul has two activations, each with
    its zero point, and no bias.
    """
    x, weight = operands[0], operands[1]
    assert x is not None
    assert weight is not None
    bias = operands[2] if len(operands) > 2 else None
    zero = quantization_of(graph, op.inputs[0]).zero_point
    if op.kind == "matmul":
        # differences of nine bits: sums of products stay far below 2**53
        left = x.astype(np.float64) - zero
        right = weight.astype(np.float64) - quantization_of(graph, op.inputs[1]).zero_point
        return np.asarray(np.matmul(left, right).astype(np.int64))
    depth = weight[0].size
    # every partial sum is an integer below depth * 2**14: exact in float32 up to 2**24, and far below 2**53
    exact = np.float32 if depth << 14 <= 1 << 24 else np.float64
    factor = weight.astype(exact)
    if op.kind == "gemm":
        product: Array = np.matmul(x.astype(exact), factor.T)
    else:
        product = convolve(x.astype(exact), factor, *geometry(op), int(op.attributes["groups"]), fill=zero)
    offset = -zero * weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    if bias is not None:
        offset = offset + bias
    return product.astype(np.int64) + _per_channel(offset, product.ndim)


def _per_channel(values: Array, ndim: int) -> Array:
    """Values of shape (M,) or (1,) broadcast along axis 1 of an output of `ndim` axes."""
    return values.reshape((1, -1) + (1,) * (ndim - 2))


def _int8_layer(graph: Graph, op: Op, operands: Operands, mode: str) -> Int8Array:
    acc = accumulate(graph, op, operands)
    quantization = quantization_of(graph, op.outputs[0])
    if mode == "tflite":
        return tflite_layer(graph, op, acc)
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


def _int8_mul(graph: Graph, op: Op, a: Array, b: Array, mode: str) -> Int8Array:
    """QLinearMul of onnxruntime: rne(fma((a - z_a) * (b - z_b), float32(float32(s_a * s_b) / s_y), z_y)).

    The zero point is added before the rounding, so that ties depend on its parity.
    """
    of_a, of_b, of_y = (quantization_of(graph, name) for name in (*op.inputs, *op.outputs))
    ratio = np.float32(np.float32(scalar_scale(of_a) * scalar_scale(of_b)) / scalar_scale(of_y))
    product = (a.astype(np.int32) - of_a.zero_point) * (b.astype(np.int32) - of_b.zero_point)
    # a product of 17 and 24 bits is exact in float64, so only the rounding to float32 remains
    scaled = (product.astype(np.float64) * np.float64(ratio) + of_y.zero_point).astype(np.float32)
    return np.asarray(np.clip(np.rint(scaled), INT8_MIN, INT8_MAX), np.int8)


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
    real = windows(dequantize(x, of_x), *window(op), 0)
    total = np.zeros(real.shape[:4], np.float32)
    # the order of the additions is part of the rule: float32 sums depend on it
    for row in range(real.shape[4]):
        for column in range(real.shape[5]):
            total += real[..., row, column]
    average = total / counts(op, x).astype(np.float32)
    rounded = np.rint(average / scalar_scale(of_y) + np.float32(of_y.zero_point))
    return np.asarray(np.clip(rounded, INT8_MIN, INT8_MAX), np.int8)
