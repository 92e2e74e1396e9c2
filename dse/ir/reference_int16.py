"""Integer rules of ops that read or write activations of 16 bits: TFLite's 16x8, the same in every mode.

Activations of 16 bits are int16 with zero point 0, weights int8 (8 or 4 significant bits), biases int32. Accumulators
are exact and hold 48 bits. A layer's accumulator is scaled with a multiplier of 15 bits and rounded once, halves up:

    y = clip(((acc * m + (1 << (s - 1))) >> s) + zero_point)

where m * 2**-s is s_x * s_w / s_y (`MultiplyByQuantizedMultiplier` of an int64 in kernels/internal/common.cc). Sums
take both operands to a common scale with 15 more bits; products and means have multipliers of 31 bits; moves, max
pools and clamps need none; everything else is computed in float32 between dequantize and quantize. An operand or a
result of 8 bits in such an op keeps its zero point and follows the same rule.

Held to LiteRT's reference kernels bit for bit (tests/conformance/test_litert_int16.py), dense layers to its 1x1
convolution: its own dense layer of 16 bits computes in float and differs by one code in some.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.accumulate import THROUGH_FLOAT, accumulate, one_quantization, per_channel, through_float
from dse.ir.graph import Graph, Op
from dse.ir.moves import MOVES
from dse.ir.quantized import clamp_bounds, integer_limits, quantization_of, quantize_array
from dse.ir.reference_float import Operands, counts, largest, window
from dse.ir.requantize_tflite import (
    add,
    average,
    layer_scales,
    mean,
    mul,
    multiply_wide,
    quantize_multiplier,
    rescale,
)
from dse.ir.windows import Array, windows

IntArray = npt.NDArray[np.int64]

#: Bits of an accumulator, sign included: what the 64-bit product with the multiplier leaves.
ACCUMULATOR_BITS = 48
#: Left shift of both operands of a sum (`kernels/add.cc`, int16).
_ADD_LEFT_SHIFT = 15


def touches_int16(graph: Graph, op: Op) -> bool:
    """Whether an op reads or writes an activation of 16 bits."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    return any(item is not None and item.bits == 16 for item in (graph[name].quantization for name in names))


def int16_op(graph: Graph, op: Op, operands: Operands) -> Array:
    """The output of one op that `touches_int16`.

    Raises
    ------
    ModelError: the kind has no rule at 16 bits, or a scale that no multiplier represents.
    """
    x = operands[0]
    assert x is not None
    if op.kind in MOVES and (op.kind != "concat" or one_quantization(graph, op)):
        return MOVES[op.kind](graph, op, x, operands[1:])
    of_x = quantization_of(graph, op.inputs[0])
    if op.kind == "relu" and one_quantization(graph, op):
        return np.asarray(np.maximum(x, of_x.zero_point), x.dtype)
    if op.kind == "clip" and one_quantization(graph, op):
        low, high = quantize_array([op.attributes["low"], op.attributes["high"]], of_x)
        return np.clip(x, low, high)
    if op.kind == "max_pool":
        return largest(x, op, integer_limits(of_x)[0])
    try:
        values = _computed(graph, op, operands)
    except ValueError as error:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: {error}") from error
    if values is None:
        return through_float(graph, op, operands)
    of_y = quantization_of(graph, op.outputs[0])
    return np.clip(values, *clamp_bounds(op, of_y)).astype(np.int16 if of_y.bits == 16 else np.int8)


def _computed(graph: Graph, op: Op, operands: Operands) -> IntArray | None:
    """Integers before the clamp, zero point included; None for what is computed in float."""
    if op.kind in ("conv", "gemm", "matmul"):
        return _layer(graph, op, operands)
    of_x, of_y = (quantization_of(graph, name) for name in (op.inputs[0], op.outputs[0]))
    x = np.asarray(operands[0])
    if not op.attributes.get("between_reals"):
        if op.kind in ("add", "mul"):
            b, of_b = np.asarray(operands[1]), quantization_of(graph, op.inputs[1])
            return add(x, b, of_x, of_b, of_y, _ADD_LEFT_SHIFT) if op.kind == "add" else mul(x, b, of_x, of_b, of_y)
        if op.kind == "average_pool" and one_quantization(graph, op):
            centred = x.astype(np.int64) - of_x.zero_point
            total = windows(centred, *window(op), 0).sum(axis=(-2, -1))
            return average(total, counts(op, x)) + of_y.zero_point
        if op.kind == "global_average_pool":
            total = x.sum(axis=(2, 3), keepdims=True, dtype=np.int64)
            return mean(total, x.shape[2] * x.shape[3], of_x, of_y)
        if op.kind == "requantize":
            return rescale(x, of_x, of_y)
    if op.kind not in (*THROUGH_FLOAT, "average_pool", "global_average_pool"):
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no rule on 16-bit activations")
    return None


def _layer(graph: Graph, op: Op, operands: Operands) -> IntArray:
    acc = accumulate(graph, op, operands)
    reach = 1 << (ACCUMULATOR_BITS - 1)
    if acc.size and not -reach <= int(acc.min()) <= int(acc.max()) < reach:
        largest_sum = max(int(acc.max()), -int(acc.min()))
        raise ValueError(f"an accumulator of {largest_sum} exceeds the {ACCUMULATOR_BITS} bits there are")
    of_x, of_w, of_y = (quantization_of(graph, name) for name in (*op.inputs[:2], op.outputs[0]))
    multiplier, exponent = quantize_multiplier(layer_scales(of_x, of_w, of_y, dense=False))
    if op.kind != "matmul":
        multiplier, exponent = per_channel(multiplier, acc.ndim), per_channel(exponent, acc.ndim)
    return multiply_wide(acc, multiplier, exponent) + of_y.zero_point
