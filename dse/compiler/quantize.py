"""Post-training quantization: a prepared float graph to the int8 graph that hardware runs.

Weights: symmetric per output channel, min-max, +-127 (8 bit) or +-7 (4 bit, held in int8). Activations: asymmetric
int8 per tensor, min-max over a calibration batch, zero always representable. Biases: int32 at scale s_x * s_w.
Behind a fused relu the range starts at 0 (zero point -128) and behind relu6 it is [0, 6]: saturation then is the
activation. Rounding is to nearest even throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.compiler.accuracy import accuracy, sqnr_db
from dse.compiler.calibration import calibration_images, observe_ranges
from dse.compiler.rewrite import fresh_name, rebuild
from dse.core.errors import InvariantError, ModelError, UsageError
from dse.ir.graph import Graph, Op, Quantization, Tensor
from dse.ir.quantized import INT8_MAX, INT8_MIN, RELU6_HIGH, clamp_bounds, quantize_array

__all__ = ["accuracy", "calibration_images", "quantize", "sqnr_db", "strip_softmax"]

#: Largest weight by weight bits: symmetric, so that the most negative code is never used.
WEIGHT_LIMITS = {8: 127, 4: 7}
#: Biases and sums of products each stay below half the int32 range, so that accumulators fit int32.
_ACCUMULATOR_HALF = 1 << 30
#: Largest right shift that requantization encodes is 62 (`dse.ir.requantize`): scales down to 2**-30 are safe.
_SMALLEST_SCALE = 2.0**-30

_KEEPS_INPUT = (
    "max_pool", "average_pool", "global_average_pool", "flatten", "reshape", "identity", "relu", "clip",
)  # fmt: skip


def strip_softmax(graph: Graph) -> Graph:
    """The graph ending at its logits: a softmax that makes a graph output is left out (the host computes it)."""
    last = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "softmax"}
    outputs = tuple(dict.fromkeys(last.get(name, name) for name in graph.outputs))
    return rebuild(graph, graph.ops, outputs=outputs)


def quantize(graph: Graph, calibration: Mapping[str, npt.NDArray[Any]], *, weight_bits: int = 8) -> Graph:
    """Quantize a prepared graph (`dse.compiler.prepare`) by min-max calibration.

    Parameters
    ----------
    calibration
        Real inputs by name, shape (images, ...): activations get the ranges they take on these.
    weight_bits
        8, or 4 (held in int8, range +-7).

    Returns
    -------
    Graph of int8 tensors as `dse.ir.quantized` describes; it ends at the logits.

    Raises
    ------
    UsageError: weight_bits is neither 8 nor 4.
    ModelError: an op or a constant that cannot be quantized, values that are not finite.
    """
    if weight_bits not in WEIGHT_LIMITS:
        raise UsageError(f"weights of {weight_bits} bits are not supported; choose one of 4, 8")
    graph = strip_softmax(graph)
    ranges = observe_ranges(graph, calibration)
    tensors: dict[str, Tensor] = {}
    for name in graph.inputs:
        tensors[name] = _activation(graph, name, ranges[name])
    ops = [_quantize_op(graph, op, ranges, tensors, weight_bits) for op in graph.ops]
    return rebuild(graph, ops, tensors)


def _quantize_op(
    graph: Graph, op: Op, ranges: Mapping[str, tuple[float, float]], tensors: dict[str, Tensor], weight_bits: int
) -> Op:
    """Add the int8 tensors of one op to `tensors` and return the op reading them."""
    output = op.outputs[0]
    if op.kind in _KEEPS_INPUT:
        source = tensors[op.inputs[0]].quantization
        tensors[output] = replace(graph[output], dtype="int8", quantization=source)
        return op
    if op.kind not in ("conv", "gemm", "add"):
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) has no int8 form; "
            f"quantizable: conv, gemm, add, {', '.join(_KEEPS_INPUT)} (prepare() folds batch norms)"
        )
    tensors[output] = _activation(graph, output, _activated_range(op, ranges[output]))
    quantization = tensors[output].quantization
    assert quantization is not None
    if clamp_bounds(op, quantization) != (INT8_MIN, INT8_MAX):
        raise InvariantError(f"op {op.name!r}: the clamp of its activation is not the saturation of int8")
    if op.kind == "add":
        return _quantize_add(graph, op, tensors)
    return _quantize_layer(graph, op, tensors, weight_bits)


def _activated_range(op: Op, observed: tuple[float, float]) -> tuple[float, float]:
    activation = op.attributes.get("activation", "none")
    if activation == "relu6":
        return 0.0, RELU6_HIGH
    return (0.0, observed[1]) if activation == "relu" else observed


def _activation(graph: Graph, name: str, observed: tuple[float, float]) -> Tensor:
    return replace(
        graph[name], dtype="int8", quantization=activation_quantization(*observed, what=f"tensor {name!r}"), data=None
    )


def activation_quantization(low: float, high: float, *, what: str = "tensor") -> Quantization:
    """Asymmetric int8 quantization of [low, high] widened to hold 0, so that padding is exact.

    Raises
    ------
    ModelError: a bound is not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ModelError(f"{what} takes values from {low} to {high} during calibration: cannot be quantized")
    low, high = min(low, 0.0), max(high, 0.0)
    # a tensor that is always 0 may have any scale; a range below float32's normals would divide to infinity
    scale = np.float32((high - low) / 255) if high - low > 1e-30 else np.float32(1)
    zero = int(np.clip(np.rint(INT8_MIN - low / float(scale)), INT8_MIN, INT8_MAX))
    return Quantization((float(scale),), zero)


def _constant(graph: Graph, op: Op, name: str) -> npt.NDArray[np.float64]:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: constant {name!r} has no values to quantize")
    if not np.isfinite(data).all():
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: constant {name!r} holds values not finite")
    return data.astype(np.float64)


def _quantize_layer(graph: Graph, op: Op, tensors: dict[str, Tensor], weight_bits: int) -> Op:
    weight = _constant(graph, op, op.inputs[1])
    depth = weight[0].size
    if depth * 255 * 127 >= _ACCUMULATOR_HALF:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} sums {depth} products an output, more than the "
            f"{_ACCUMULATOR_HALF // (255 * 127)} that int32 accumulators hold for certain"
        )
    of_x, of_y = tensors[op.inputs[0]].quantization, tensors[op.outputs[0]].quantization
    assert of_x is not None
    assert of_y is not None
    scale_x, scale_y = of_x.scale[0], of_y.scale[0]
    bias = _constant(graph, op, op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    limit = WEIGHT_LIMITS[weight_bits]
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / limit
    # a channel of (nearly) no weights still needs a scale that its bias and the requantizer's shift can bear
    floor = np.full_like(scales, _SMALLEST_SCALE * scale_y / scale_x)
    if bias is not None:
        floor = np.maximum(floor, np.abs(bias) / scale_x / _ACCUMULATOR_HALF)
    scales = np.maximum(scales, floor).astype(np.float32)
    columns = scales.reshape((-1,) + (1,) * (weight.ndim - 1)).astype(np.float64)
    integers = np.clip(np.rint(weight / columns), -limit, limit).astype(np.int8)
    inputs = [op.inputs[0], _add_tensor(graph, tensors, f"{op.inputs[1]}.int8", Tensor(
        "", weight.shape, "int8", Quantization(tuple(map(float, scales)), 0, 0, weight_bits), integers
    ))]  # fmt: skip
    if bias is not None:
        bias_scales = (np.float32(scale_x) * scales).astype(np.float32)
        wide = np.rint(bias / bias_scales.astype(np.float64))
        quantized = np.clip(wide, -(1 << 31), (1 << 31) - 1).astype(np.int32)
        inputs.append(_add_tensor(graph, tensors, f"{op.inputs[2]}.int32", Tensor(
            "", bias.shape, "int32", Quantization(tuple(map(float, bias_scales)), 0, 0, 32), quantized
        )))  # fmt: skip
    return replace(op, inputs=tuple(inputs))


def _quantize_add(graph: Graph, op: Op, tensors: dict[str, Tensor]) -> Op:
    shape = graph[op.outputs[0]].shape
    inputs = []
    for name in op.inputs:
        if graph[name].data is not None:
            values = np.broadcast_to(_constant(graph, op, name), shape)
            quantization = activation_quantization(float(values.min()), float(values.max()), what=f"tensor {name!r}")
            inputs.append(_add_tensor(graph, tensors, f"{name}.int8", Tensor(
                "", shape, "int8", quantization, quantize_array(values, quantization)
            )))  # fmt: skip
        elif graph[name].shape != shape:
            raise ModelError(
                f"{graph.source or graph.name}: op {op.name!r} adds {list(graph[name].shape)} to {list(shape)}; "
                "only operands of equal shape, or constants, can be quantized"
            )
        else:
            inputs.append(name)
    return replace(op, inputs=tuple(inputs))


def _add_tensor(graph: Graph, tensors: dict[str, Tensor], wish: str, tensor: Tensor) -> str:
    name = fresh_name({**graph.tensors, **tensors}, wish)
    tensors[name] = replace(tensor, name=name)
    return name
