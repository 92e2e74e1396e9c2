"""What a quantized graph looks like, and the arithmetic constants that follow from it.

A quantized graph is an ordinary Graph whose tensors hold integers:

- Activations, graph inputs and outputs included, are int8 with one `Quantization` per tensor. The host quantizes
  the network input (`quantize_input`) and reads the logits (`dequantize`); a final softmax is not part of the graph.
- conv, gemm: inputs (x int8, weight int8, bias int32 or absent). Weights have one scale per output channel
  (axis 0), zero point 0, and 8 or 4 significant bits (+-127 or +-7). The bias has scale s_x * s_w.
- add: two int8 tensors of equal shape, each with its own quantization; either may be a constant.
- Pools, moves, relu and clip that stand alone keep the quantization of their input.
- lstm, gru, rnn: int8 throughout, with the attributes and formats of `dse.ir.recurrent_int8`.
- Every other op, and one with `between_reals`, is computed in float32 between its dequantized operands and its
  quantized result; constants it reads stay float. Whole numbers and truth values (tokens, masks) are not quantized.
- Chosen activations are int16 with zero point 0 (`Quantization.bits` 16); what touches them follows
  `dse.ir.reference_int16`.
- `activation` is a clamp of the requantized integer (`clamp_bounds`). `dse.compiler.quantize` picks int8 output
  quantizations for which that clamp is the saturation of int8, so that QLinear operators need no clamp of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op, Quantization, scalar_scale

INT8_MIN, INT8_MAX = -128, 127
INT16_MIN, INT16_MAX = -32768, 32767
#: Upper bound of the relu6 activation, in real units.
RELU6_HIGH = 6.0


def quantization_of(graph: Graph, name: str) -> Quantization:
    """The quantization of tensor `name`.

    Raises
    ------
    ModelError: the tensor has none.
    """
    quantization = graph[name].quantization
    if quantization is None:
        raise ModelError(f"{graph.source or graph.name}: tensor {name!r} is not quantized; run quantize() first")
    return quantization


def integer_limits(quantization: Quantization) -> tuple[int, int]:
    """Smallest and largest integer of an activation: of int16 where it has 16 bits, else of int8."""
    return (INT16_MIN, INT16_MAX) if quantization.bits == 16 else (INT8_MIN, INT8_MAX)


def quantize_array(values: npt.ArrayLike, quantization: Quantization) -> npt.NDArray[Any]:
    """Real values -> int8 (int16 where the quantization has 16 bits), as onnxruntime's QuantizeLinear:
    rne(x / scale) + zero point, saturated (per tensor)."""
    # divided in float32, the type QuantizeLinear divides in
    scaled = np.rint(np.asarray(values, np.float32) / scalar_scale(quantization))
    integers = np.clip(scaled + quantization.zero_point, *integer_limits(quantization))
    return np.asarray(integers, np.int16 if quantization.bits == 16 else np.int8)


def dequantize(values: npt.NDArray[Any], quantization: Quantization) -> npt.NDArray[np.float32]:
    """Integers -> real values, float32, per tensor or along the quantization's axis."""
    scale = np.asarray(quantization.scale, np.float32)
    if quantization.axis is not None:
        scale = scale.reshape([-1 if axis == quantization.axis else 1 for axis in range(values.ndim)])
    else:
        scale = scale.reshape(())
    # the difference in int64: zero points may lie outside the range of the stored dtype
    return ((values.astype(np.int64) - quantization.zero_point).astype(np.float32) * scale).astype(np.float32)


def quantize_input(graph: Graph, name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Real values of the network input `name` -> the integers that the quantized graph takes; an input of whole
    numbers or truth values stays what it is.

    Raises
    ------
    ModelError: `name` is no input of the graph, or is not quantized.
    """
    if name not in graph.inputs:
        raise ModelError(f"{graph.source or graph.name}: {name!r} is not an input; inputs: {', '.join(graph.inputs)}")
    if graph[name].quantization is None and graph[name].dtype != "float32":
        return np.asarray(values, graph[name].dtype)
    return quantize_array(values, quantization_of(graph, name))


def quantize_inputs(graph: Graph, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    """`quantize_input` for every input by name."""
    return {name: quantize_input(graph, name, inputs[name]) for name in inputs}


def clamp_bounds(op: Op, quantization: Quantization) -> tuple[int, int]:
    """(low, high) of the integer output of `op` that realise its `activation`, given its output's quantization.

    Raises
    ------
    ModelError: unknown activation.
    """
    activation = op.attributes.get("activation", "none")
    zero = quantization.zero_point
    least, most = integer_limits(quantization)
    if activation == "none":
        return least, most
    if activation == "relu":
        return max(least, zero), most
    if activation == "relu6":
        high = int(np.rint(np.float32(RELU6_HIGH) / scalar_scale(quantization))) + zero
        return max(least, zero), min(most, high)
    raise ModelError(f"op {op.name!r} has the unknown activation {activation!r}; known: none, relu, relu6")


def conv_scales(graph: Graph, op: Op) -> npt.NDArray[np.float32]:
    """Requantization scales of a conv or gemm: float32(float32(s_x * s_w) / s_y), shape (M,) or (1,).

    The order of the two roundings is onnxruntime's (QLinearConv, QGemm).
    """
    scale_x = scalar_scale(quantization_of(graph, op.inputs[0]))
    scale_w = np.asarray(quantization_of(graph, op.inputs[1]).scale, np.float32)
    scale_y = scalar_scale(quantization_of(graph, op.outputs[0]))
    return ((scale_x * scale_w).astype(np.float32) / scale_y).astype(np.float32)
