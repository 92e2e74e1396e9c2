"""Integer rules of a quantized graph (`dse.ir.quantized`), op by op.

conv, gemm, matmul, add, mul and pools have rules of their own, equal to onnxruntime's QLinear operators in mode
`ort`; data movement needs none. Every other kind takes the meaning of a quantize-dequantize graph: its inputs
dequantized, computed in float32, its output quantized. The host computes those. Ops that touch activations
of 16 bits follow `dse.ir.reference_int16`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.accumulate import THROUGH_FLOAT, accumulate, one_quantization, per_channel, through_float
from dse.ir.graph import Graph, Op, scalar_scale
from dse.ir.kinds import RECURRENT_KINDS
from dse.ir.moves import MOVES
from dse.ir.quantized import INT8_MAX, INT8_MIN, clamp_bounds, conv_scales, dequantize, quantization_of, quantize_array
from dse.ir.recurrent_int8 import run_recurrent_int8
from dse.ir.reference_float import Operands, counts, largest, window
from dse.ir.reference_int16 import int16_op, touches_int16
from dse.ir.reference_tflite import tflite_layer, tflite_op
from dse.ir.requantize import add_ort, add_q31, encode_add, encode_scale, requantize
from dse.ir.windows import Array, windows

Int8Array = npt.NDArray[np.int8]


def quantized_op(graph: Graph, op: Op, operands: Operands, mode: str) -> tuple[Array, ...]:
    """The outputs of one op on integer operands, requantizing in `mode`.

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
    if touches_int16(graph, op):
        return int16_op(graph, op, operands)
    if mode == "tflite" and op.kind not in ("conv", "gemm"):
        return tflite_op(graph, op, operands)
    if op.kind in MOVES and (op.kind != "concat" or one_quantization(graph, op)):
        return MOVES[op.kind](graph, op, x, operands[1:])
    if op.kind in ("conv", "gemm", "matmul"):
        return _int8_layer(graph, op, operands, mode)
    if op.attributes.get("between_reals"):
        return through_float(graph, op, operands)
    if op.kind in ("add", "mul"):
        assert operands[1] is not None
        rule = _int8_add if op.kind == "add" else _int8_mul
        return rule(graph, op, x, operands[1], mode)
    if op.kind == "relu" and one_quantization(graph, op):
        return np.maximum(x, np.int8(quantization_of(graph, op.inputs[0]).zero_point))
    if op.kind == "clip" and one_quantization(graph, op):
        bounds = np.array([op.attributes["low"], op.attributes["high"]], np.float32)
        low, high = quantize_array(bounds, quantization_of(graph, op.inputs[0]))
        return np.clip(x, low, high)
    if op.kind == "max_pool":
        return largest(x, op, INT8_MIN)
    if op.kind == "average_pool":
        return _int8_average(graph, op, x)
    if op.kind == "global_average_pool":
        return _int8_global_average(graph, op, x)
    if op.kind in THROUGH_FLOAT:
        return through_float(graph, op, operands)
    raise ModelError(
        f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no int8 rule; the host computes it in float"
    )


def _int8_layer(graph: Graph, op: Op, operands: Operands, mode: str) -> Int8Array:
    acc = accumulate(graph, op, operands)
    quantization = quantization_of(graph, op.outputs[0])
    if mode == "tflite":
        return tflite_layer(graph, op, acc)
    low, high = clamp_bounds(op, quantization)
    scales = conv_scales(graph, op)
    if mode == "ort":
        # the float form of the rule, ten times faster than the integer one; equal (tests/unit/ir/test_reference.py)
        scaled = np.rint(acc.astype(np.float32) * per_channel(scales, acc.ndim))
        return np.asarray(np.clip(scaled + np.float32(quantization.zero_point), low, high), np.int8)
    try:
        multiplier, shift = encode_scale(scales, mode)
    except ValueError as error:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: {error}") from error
    return requantize(
        acc, per_channel(multiplier, acc.ndim), per_channel(shift, acc.ndim),
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
