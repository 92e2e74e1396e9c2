"""Post-training quantization: a prepared float graph to the int8 graph that hardware runs.

Weights: symmetric, +-127 (8 bit) or +-7 (4 bit, held in int8), per output channel unless told otherwise.
Activations: asymmetric int8 per tensor over the ranges of a calibration (`dse.compiler.calibration_ranges`), zero
always representable; behind LSTM, GRU and RNN layers on powers of two (`dse.compiler.quantize_recurrent`). Biases:
int32 at scale s_x * s_w. Behind a fused relu the range starts at 0 (zero point -128) and behind relu6 it is [0, 6]:
saturation then is the activation. Rounding is to nearest even throughout.

Activations of 16 bits are not offered. With 8-bit weights, int32 accumulators hold only 258 products of 16-bit
activations for certain, fewer than a common 3x3 layer sums; the arrays multiply 8-bit activations, and onnxruntime's
QLinear operators know no int16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.compiler.calibration_ranges import DEFAULT_PERCENTILE, Ranges, calibrate, check_method
from dse.compiler.quantize_kinds import KEEPS_INPUT, is_island, require_quantizable, stays_whole
from dse.compiler.quantize_recurrent import output_quantization, quantize_recurrent
from dse.compiler.quantize_weights import (
    ACCUMULATOR_HALF,
    WEIGHT_LIMITS,
    bearable_scales,
    bias_integers,
    weight_integers,
    weight_scales,
)
from dse.compiler.rewrite import fresh_name, rebuild
from dse.core.errors import InvariantError, ModelError, UsageError, nearest
from dse.ir.graph import Graph, Op, Quantization, Tensor
from dse.ir.kinds import RECURRENT_KINDS
from dse.ir.quantized import INT8_MAX, INT8_MIN, RELU6_HIGH, clamp_bounds, quantize_array


@dataclass(frozen=True)
class Recipe:
    """How a network is quantized.

    Parameters
    ----------
    method
        Of activation ranges, see `dse.compiler.calibration_ranges.METHODS`; "mse" also chooses weight scales by
        their squared error.
    percentile
        Read by method "percentile" alone.
    weight_bits
        Of layers that `layer_bits` does not name: 8, or 4.
    per_channel
        One weight scale for each output channel, or one for a whole tensor.
    layer_bits
        Weight bits by op name.
    """

    method: str = "minmax"
    percentile: float = DEFAULT_PERCENTILE
    weight_bits: int = 8
    per_channel: bool = True
    layer_bits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_method(self.method, self.percentile)
        for where, bits in {"weights": self.weight_bits, **self.layer_bits}.items():
            if bits not in WEIGHT_LIMITS:
                subject = where if where == "weights" else f"layer {where!r}: weights"
                raise UsageError(f"{subject} of {bits} bits are not supported; choose one of 4, 8")

    def bits_of(self, layer: str) -> int:
        """Weight bits of one layer."""
        return self.layer_bits.get(layer, self.weight_bits)


#: Min-max ranges, 8-bit weights per channel.
MIN_MAX = Recipe()


def strip_softmax(graph: Graph) -> Graph:
    """The graph ending at its logits: a softmax that makes a graph output is left out (the host computes it)."""
    last = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "softmax"}
    outputs = tuple(dict.fromkeys(last.get(name, name) for name in graph.outputs))
    return rebuild(graph, graph.ops, outputs=outputs)


def quantize(
    graph: Graph,
    calibration: Mapping[str, npt.NDArray[Any]],
    recipe: Recipe = MIN_MAX,
    *,
    weight_bits: int | None = None,
) -> Graph:
    """Quantize a prepared graph (`dse.compiler.prepare`).

    Parameters
    ----------
    calibration
        Real inputs by name, shape (images, ...): activations get the ranges they take on these.
    weight_bits
        Replaces that of the recipe: 8, or 4 (held in int8, range +-7).

    Returns
    -------
    Graph of int8 tensors as `dse.ir.quantized` describes; it ends at the logits.

    Raises
    ------
    UsageError: weight bits that are neither 8 nor 4, a layer the graph does not have.
    ModelError: an op or a constant that cannot be quantized, values that are not finite.
    """
    if weight_bits is not None:
        recipe = replace(recipe, weight_bits=weight_bits)
    graph = strip_softmax(graph)
    require_quantizable(graph)
    return quantize_with_ranges(graph, calibrate(graph, calibration, recipe.method, recipe.percentile), recipe)


def quantize_with_ranges(graph: Graph, ranges: Ranges, recipe: Recipe) -> Graph:
    """Quantize a graph whose activation ranges are known: `quantize` without its calibration, for many assignments.

    Parameters
    ----------
    graph
        Ends at its logits (`strip_softmax`).
    ranges
        Smallest and largest value of every non-constant tensor.

    Raises
    ------
    As `quantize`.
    """
    require_quantizable(graph)
    layers = weighted_layers(graph)
    for name in recipe.layer_bits:
        if name not in layers:
            raise UsageError(f"{graph.source or graph.name} has no layer {name!r} with weights{nearest(name, layers)}")
    tensors: dict[str, Tensor] = {}
    for name in graph.inputs:
        # token numbers and masks stay what they are
        if graph[name].dtype == "float32":
            tensors[name] = _activation(graph, name, ranges[name])
    ops = [_quantize_op(graph, op, ranges, tensors, recipe) for op in graph.ops]
    return rebuild(graph, ops, tensors)


def weighted_layers(graph: Graph) -> list[str]:
    """Names of the ops whose weights take a number of bits, in order."""
    return [op.name for op in graph.ops if op.kind in ("conv", "gemm")]


def _quantize_op(graph: Graph, op: Op, ranges: Ranges, tensors: dict[str, Tensor], recipe: Recipe) -> Op:
    """Add the int8 tensors of one op to `tensors` and return the op reading them."""
    output = op.outputs[0]
    if stays_whole(graph, op):
        return op
    if op.kind in RECURRENT_KINDS:
        return _quantize_recurrent(graph, op, ranges, tensors)
    if op.kind in KEEPS_INPUT:
        inputs = (_operand(graph, op, op.inputs[0], graph[op.inputs[0]].shape, tensors), *op.inputs[1:])
        tensors[output] = replace(graph[output], dtype="int8", quantization=tensors[inputs[0]].quantization)
        return replace(op, inputs=inputs)
    tensors[output] = _activation(graph, output, _activated_range(op, ranges[output]))
    if is_island(graph, op):
        return op.with_attributes(between_reals=True)
    quantization = tensors[output].quantization
    assert quantization is not None
    if clamp_bounds(op, quantization) != (INT8_MIN, INT8_MAX):
        raise InvariantError(f"op {op.name!r}: the clamp of its activation is not the saturation of int8")
    if op.kind in ("conv", "gemm"):
        return _quantize_layer(graph, op, tensors, recipe)
    whole = graph[output].shape if op.kind in ("add", "mul") else None
    inputs = tuple(_operand(graph, op, name, whole or graph[name].shape, tensors) for name in op.inputs)
    return replace(op, inputs=inputs)


def _quantize_recurrent(graph: Graph, op: Op, ranges: Ranges, tensors: dict[str, Tensor]) -> Op:
    seen = [ranges[name] for name in op.outputs[:2] if name in ranges]
    of_x = tensors[op.inputs[0]].quantization
    assert of_x is not None
    of_y = output_quantization(op, (min(low for low, _ in seen), max(high for _, high in seen)))
    quantized, constants = quantize_recurrent(graph, op, of_x, of_y, ranges)
    for name in filter(None, op.outputs[:2]):
        tensors[name] = replace(graph[name], dtype="int8", quantization=of_y)
    for name in filter(None, op.outputs[2:]):
        unit = Quantization((2.0 ** -quantized.attributes["cell_fraction"],), 0)
        tensors[name] = replace(graph[name], dtype="int16", quantization=unit)
    inputs = list(op.inputs)
    for place, tensor in constants.items():
        inputs[place] = _add_tensor(graph, tensors, f"{op.inputs[place]}.{tensor.dtype}", tensor)
    return replace(quantized, inputs=tuple(inputs))


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


def _quantize_layer(graph: Graph, op: Op, tensors: dict[str, Tensor], recipe: Recipe) -> Op:
    weight = _constant(graph, op, op.inputs[1])
    depth = weight[0].size
    if depth * 255 * 127 >= ACCUMULATOR_HALF:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} sums {depth} products an output, more than the "
            f"{ACCUMULATOR_HALF // (255 * 127)} that int32 accumulators hold for certain"
        )
    of_x, of_y = tensors[op.inputs[0]].quantization, tensors[op.outputs[0]].quantization
    assert of_x is not None
    assert of_y is not None
    scale_x, scale_y = of_x.scale[0], of_y.scale[0]
    bias = _constant(graph, op, op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else None
    bits, per_channel = recipe.bits_of(op.name), recipe.per_channel
    wished = weight_scales(weight, bits, per_channel=per_channel, least_error=recipe.method == "mse")
    scales = bearable_scales(wished, bias, scale_x, scale_y, per_channel=per_channel)
    bias_scales = (np.float32(scale_x) * scales).astype(np.float32)
    inputs = [op.inputs[0], _add_tensor(graph, tensors, f"{op.inputs[1]}.int8", Tensor(
        "", weight.shape, "int8", _symmetric(scales, bits, per_channel=per_channel),
        weight_integers(weight, scales, bits),
    ))]  # fmt: skip
    if bias is not None:
        inputs.append(_add_tensor(graph, tensors, f"{op.inputs[2]}.int32", Tensor(
            "", bias.shape, "int32", _symmetric(bias_scales, 32, per_channel=per_channel),
            bias_integers(bias, bias_scales),
        )))  # fmt: skip
    return replace(op, inputs=tuple(inputs))


def _symmetric(scales: npt.NDArray[np.float32], bits: int, *, per_channel: bool) -> Quantization:
    if per_channel:
        return Quantization(tuple(map(float, scales)), 0, 0, bits)
    return Quantization((float(scales[0]),), 0, None, bits)


def _operand(graph: Graph, op: Op, name: str, shape: tuple[int, ...], tensors: dict[str, Tensor]) -> str:
    """The name of an int8 operand: of the activation itself, or of a constant quantized over its own range."""
    if graph[name].data is None:
        return name
    values = np.broadcast_to(_constant(graph, op, name), shape)
    quantization = activation_quantization(float(values.min()), float(values.max()), what=f"tensor {name!r}")
    integers = quantize_array(values, quantization)
    return _add_tensor(graph, tensors, f"{name}.int8", Tensor("", shape, "int8", quantization, integers))


def _add_tensor(graph: Graph, tensors: dict[str, Tensor], wish: str, tensor: Tensor) -> str:
    name = fresh_name({**graph.tensors, **tensors}, wish)
    tensors[name] = replace(tensor, name=name)
    return name
