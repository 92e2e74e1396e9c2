"""Exact accumulators of layers on integers, and ops computed in float32 between integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.ir.graph import Graph, Op
from dse.ir.kinds import BINARY_KINDS, NORM_KINDS, REDUCTION_KINDS, UNARY_KINDS
from dse.ir.quantized import dequantize, quantization_of, quantize_array
from dse.ir.reference_float import Operands, float_op, geometry
from dse.ir.windows import Array, convolve

#: Kinds with the meaning dequantize, compute in float32, quantize.
THROUGH_FLOAT = ("requantize", "concat", "resize", "where", "conv_transpose", *UNARY_KINDS, *BINARY_KINDS, *NORM_KINDS,
                 *REDUCTION_KINDS)  # fmt: skip


def accumulate(graph: Graph, op: Op, operands: Operands) -> npt.NDArray[np.int64]:
    """Exact accumulators of a conv, gemm or matmul: sum((x - zero_x) * w) + bias, int64 in output layout.

    `operands` are x int8 or int16, weight int8 and bias int32 (or None, or left out); a matmul has two activations,
    each with its zero point, and no bias.
    """
    x, weight = operands[0], operands[1]
    assert x is not None
    assert weight is not None
    bias = operands[2] if len(operands) > 2 else None
    zero = quantization_of(graph, op.inputs[0]).zero_point
    if op.kind == "matmul":
        # differences of 9 or 17 bits: sums of 2**19 products and more stay below 2**53
        left = x.astype(np.float64) - zero
        right = weight.astype(np.float64) - quantization_of(graph, op.inputs[1]).zero_point
        return np.asarray(np.matmul(left, right).astype(np.int64))
    depth = weight[0].size
    # every partial sum is an integer below depth * 2**14 (2**22): exact in float32 up to 2**24, and far below 2**53
    bits = 14 if x.dtype == np.int8 else 22
    exact = np.float32 if depth << bits <= 1 << 24 else np.float64
    factor = weight.astype(exact)
    if op.kind == "gemm":
        product: Array = np.matmul(x.astype(exact), factor.T)
    else:
        product = convolve(x.astype(exact), factor, *geometry(op), int(op.attributes["groups"]), fill=zero)
    offset = -zero * weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    if bias is not None:
        offset = offset + bias
    return product.astype(np.int64) + per_channel(offset, product.ndim)


def per_channel(values: Array, ndim: int) -> Array:
    """Values of shape (M,) or (1,) broadcast along axis 1 of an output of `ndim` axes."""
    return values.reshape((1, -1) + (1,) * (ndim - 2))


def one_quantization(graph: Graph, op: Op) -> bool:
    """Whether every operand is on the scale, zero point and bits of the output."""
    known = {graph[name].quantization for name in (*op.inputs, *op.outputs) if name}
    return len({(item.scale, item.zero_point, item.bits) for item in known if item is not None}) <= 1


def through_float(graph: Graph, op: Op, operands: Operands) -> Array:
    """Dequantize, compute, quantize; operands without a quantization (constants) go in as they are."""
    real: Operands = []
    for name, values in zip(op.inputs, operands, strict=True):
        quantization = graph[name].quantization if name else None
        real.append(values if values is None or quantization is None else dequantize(values, quantization))
    result = float_op(graph, op, real)[0]
    of_y = graph[op.outputs[0]].quantization
    return result if of_y is None else quantize_array(result, of_y)
