"""Reference execution of one op of a quantized graph in mode `tflite`: TFLite's reference kernels, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir import gemmlowp, requantize_tflite
from dse.ir.graph import Graph, Op, Quantization, scalar_scale
from dse.ir.moves import MOVES
from dse.ir.quantized import RELU6_HIGH, quantization_of
from dse.ir.requantize_tflite import (
    INT8_LIMITS,
    INT16_LIMITS,
    UINT8_LIMITS,
    IntArray,
    multiply,
    quantize_multiplier,
    rounding_shift_right,
)
from dse.ir.windows import Array, window_counts, windows

#: Scale of the gates of an integer LSTM before their activation: 2**-12, three integer bits in 16.
_GATE_EXPONENT, _GATE_INTEGER_BITS = -12, 3


def tflite_layer(graph: Graph, op: Op, acc: IntArray) -> Array:
    """Accumulators of a conv or gemm (bias included, channels on axis 1) -> int8.

    Raises
    ------
    ModelError: a scale that no multiplier represents.
    """
    x, weight, y = (quantization_of(graph, name) for name in (*op.inputs[:2], op.outputs[0]))
    scales = requantize_tflite.layer_scales(x, weight, y, dense=op.kind == "gemm")
    multiplier, exponent = _multiplier(graph, op, scales)
    column = (1, -1) + (1,) * (acc.ndim - 2)
    rule = requantize_tflite.multiply_once if op.kind == "gemm" else multiply
    return _clamped(op, rule(acc, multiplier.reshape(column), exponent.reshape(column)) + y.zero_point, y)


def tflite_op(graph: Graph, op: Op, operands: list[Array | None]) -> Array:
    """One op other than a conv or a gemm, on its int8 operands.

    Raises
    ------
    ModelError: the op has no rule in this mode, or a scale that no multiplier represents.
    """
    x = operands[0]
    assert x is not None
    if op.kind in MOVES:
        return MOVES[op.kind](graph, op, x, operands[1:])
    of_x, y = quantization_of(graph, op.inputs[0]), quantization_of(graph, op.outputs[0])
    if op.kind in ("relu", "clip"):
        return _clip(op, x, of_x)
    if op.kind == "lstm":
        return _lstm(graph, op, operands)
    try:
        return _clamped(op, _computed(graph, op, operands, of_x, y), y, unsigned=graph[op.outputs[0]].dtype == "uint8")
    except ValueError as error:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: {error}") from error


def _computed(graph: Graph, op: Op, operands: list[Array | None], of_x: Quantization, y: Quantization) -> IntArray:
    x = np.asarray(operands[0])
    if op.kind in ("add", "mul"):
        rule = requantize_tflite.add if op.kind == "add" else requantize_tflite.mul
        return rule(x, np.asarray(operands[1]), of_x, quantization_of(graph, op.inputs[1]), y)
    if op.kind == "requantize":
        return requantize_tflite.rescale(x, of_x, y)
    if op.kind == "average_pool":
        return _average(op, x)
    if op.kind == "max_pool":
        return np.asarray(windows(x, *_window(op), INT8_LIMITS[0]).max(axis=(-2, -1)), np.int64)
    if op.kind == "global_average_pool":
        total = x.sum(axis=(2, 3), keepdims=True, dtype=np.int64)
        return requantize_tflite.mean(total, x.shape[2] * x.shape[3], of_x, y)
    if op.kind == "softmax":
        return requantize_tflite.softmax(x, of_x, y, 1.0, int(op.attributes["axis"]))
    if op.kind in ("sigmoid", "tanh"):
        return requantize_tflite.activation(op.kind, x, of_x, y)
    raise ModelError(f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no rule in mode 'tflite'")


def _multiplier(graph: Graph, op: Op, scales: npt.NDArray[np.float64]) -> tuple[IntArray, IntArray]:
    try:
        return quantize_multiplier(scales)
    except ValueError as error:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: {error}") from error


def _upper_bound(of_y: Quantization) -> int:
    """relu6's bound as an integer; TFLite rounds halves away from zero, in float32."""
    return int(requantize_tflite.round_half_away(np.float32(RELU6_HIGH) / scalar_scale(of_y))) + of_y.zero_point


def _clamped(op: Op, values: IntArray, y: Quantization, *, unsigned: bool = False) -> Array:
    low, high = UINT8_LIMITS if unsigned else INT8_LIMITS
    activation = op.attributes.get("activation", "none")
    if activation in ("relu", "relu6"):
        low = max(low, y.zero_point)
    if activation == "relu6":
        high = min(high, _upper_bound(y))
    elif activation not in ("none", "relu"):
        raise ModelError(f"op {op.name!r} has the unknown activation {activation!r}; known: none, relu, relu6")
    return np.clip(values, low, high).astype(np.uint8 if unsigned else np.int8)


def _clip(op: Op, x: Array, of_x: Quantization) -> Array:
    """relu and clip that stand alone: bounds quantized as TFLite does."""
    if op.kind == "relu":
        return np.maximum(x, np.int8(of_x.zero_point))
    bounds = np.array([op.attributes["low"], op.attributes["high"]], np.float32) / scalar_scale(of_x)
    low, high = np.clip(requantize_tflite.round_half_away(bounds) + of_x.zero_point, *INT8_LIMITS).astype(np.int8)
    return np.clip(x, low, high)


def _window(op: Op) -> tuple[Any, Any, Any]:
    return op.attributes["kernel"], op.attributes["strides"], op.attributes["pads"]


def _average(op: Op, x: Array) -> IntArray:
    if op.attributes["count_include_pad"]:
        raise ModelError(f"op {op.name!r}: mode 'tflite' averages over elements inside the map only")
    counts = window_counts((x.shape[2], x.shape[3]), *_window(op), include_pad=False)
    total = windows(x.astype(np.int64), *_window(op), 0).sum(axis=(-2, -1))
    return requantize_tflite.average(total, counts)


# -- LSTM ------------------------------------------------------------------------------------------------------


def _lstm(graph: Graph, op: Op, operands: list[Array | None]) -> Array:
    """Integer LSTM (8x8 -> 16) from a zero state: x (T, B, I) int8 -> y (T, 1, B, H) int8.

    Source: `EvalInteger8x8_16` of kernels/lstm_eval.cc, without peepholes, projection and layer norm.
    """
    x, weight, recurrent, bias = (np.asarray(operand) for operand in operands)
    hidden, cell_exponent = int(op.attributes["hidden"]), int(op.attributes["cell_exponent"])
    of_x, of_y = quantization_of(graph, op.inputs[0]), quantization_of(graph, op.outputs[0])
    gate_scales = [quantization_of(graph, name) for name in op.inputs[1:3]]
    scale_x, scale_h = (
        _multiplier(graph, op, _gate_scale(quantization, own))
        for quantization, own in zip(gate_scales, (of_x, of_y), strict=True)
    )
    # rounded in float64 from the float32 scale, as the kernel's powers of two are doubles
    hidden_scale = _multiplier(graph, op, np.asarray(2.0**-15 / np.float64(scalar_scale(of_y)) * 2.0**-15))
    state = np.zeros((x.shape[1], hidden), np.int64)
    cell = np.zeros_like(state)
    outputs = []
    for step in x.astype(np.int64) - of_x.zero_point:
        gates = _accumulated(step @ weight[0].T.astype(np.int64) + bias[0, : 4 * hidden], scale_x, 0)
        gates = _accumulated((state - of_y.zero_point) @ recurrent[0].T.astype(np.int64), scale_h, gates)
        raw = [gates[:, gate * hidden : (gate + 1) * hidden] for gate in range(4)]
        enter, leave, forget = (gemmlowp.logistic(gate, _GATE_INTEGER_BITS) for gate in raw[:3])
        update = gemmlowp.tanh(raw[3], _GATE_INTEGER_BITS)
        kept = rounding_shift_right(forget * cell, 15)
        cell = np.clip(kept + rounding_shift_right(enter * update, 30 + cell_exponent), *INT16_LIMITS)
        if clip := int(op.attributes["cell_clip"]):
            cell = np.clip(cell, -clip, clip)
        shown = gemmlowp.tanh(cell, 15 + cell_exponent)
        state = np.clip(multiply(leave * shown, *hidden_scale), *INT8_LIMITS)
        outputs.append(state.astype(np.int8))
    return np.stack(outputs)[:, None]


def _gate_scale(weight: Quantization, x: Quantization) -> npt.NDArray[np.float64]:
    """Scale of a gate's products relative to 2**-12, in float32 as the kernel computes it."""
    product = np.asarray(weight.scale, np.float32) * scalar_scale(x)
    return np.asarray(product / np.float32(2.0**_GATE_EXPONENT), np.float64)


def _accumulated(products: IntArray, scale: tuple[IntArray, IntArray], gates: Any) -> IntArray:
    return np.asarray(np.clip(multiply(products, *scale) + gates, *INT16_LIMITS), np.int64)
