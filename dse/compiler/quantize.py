"""Post-training quantization: a prepared float graph to the int8 graph that hardware runs.

Weights: symmetric, +-127 (8 bit) or +-7 (4 bit, held in int8), per output channel unless told otherwise.
Activations: asymmetric int8 per tensor over the ranges of a calibration (`dse.compiler.calibration_ranges`), zero
always representable; behind LSTM, GRU and RNN layers on powers of two (`dse.compiler.quantize_recurrent`). Biases:
int32 at scale s_x * s_w. Behind a fused relu the range starts at 0 (zero point -128) and behind relu6 it is [0, 6]:
saturation then is the activation. Rounding is to nearest even throughout.

Chosen activations have 16 bits: int16, symmetric (zero point 0), a fused relu a clamp (`dse.ir.reference_int16`).
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
from dse.ir.quantized import INT8_MAX, INT8_MIN, INT16_MAX, RELU6_HIGH, clamp_bounds, quantize_array
from dse.ir.reference_int16 import ACCUMULATOR_BITS


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
    activation_bits
        Of network inputs and of what ops put out, where `output_bits` does not name them: 8, or 16.
    output_bits
        Bits of the activation that an op puts out, or of an input of the network, by its name.
    """

    method: str = "minmax"
    percentile: float = DEFAULT_PERCENTILE
    weight_bits: int = 8
    per_channel: bool = True
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    activation_bits: int = 8
    output_bits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_method(self.method, self.percentile)
        for where, bits in {"weights": self.weight_bits, **self.layer_bits}.items():
            if bits not in WEIGHT_LIMITS:
                subject = where if where == "weights" else f"layer {where!r}: weights"
                raise UsageError(f"{subject} of {bits} bits are not supported; choose one of 4, 8")
        for where, bits in {"": self.activation_bits, **self.output_bits}.items():
            if bits not in (8, 16):
                subject = f"{where!r}: activations" if where else "activations"
                raise UsageError(f"{subject} of {bits} bits are not supported; choose one of 8, 16")

    def bits_of(self, layer: str) -> int:
        """Weight bits of one layer."""
        return self.layer_bits.get(layer, self.weight_bits)

    def bits_behind(self, name: str) -> int:
        """Bits of the activation that an op puts out, or of a network input, by its name."""
        return self.output_bits.get(name, self.activation_bits)


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
    return quantize_with_ranges(graph, calibrated_ranges(graph, calibration, recipe), recipe)


def calibrated_ranges(graph: Graph, calibration: Mapping[str, npt.NDArray[Any]], recipe: Recipe) -> Ranges:
    """The ranges that activations of a graph ending at its logits should span, as a recipe says.

    Raises
    ------
    UsageError: no samples, or a name that the recipe gets wrong.
    """
    _check_names(graph, recipe)
    names = [name for name in graph.inputs if recipe.bits_behind(name) == 16]
    names += [name for op in graph.ops if recipe.bits_behind(op.name) == 16 for name in op.outputs]
    return calibrate(graph, calibration, recipe.method, recipe.percentile, wide=names)


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
    _check_names(graph, recipe)
    tensors: dict[str, Tensor] = {}
    for name in graph.inputs:
        # token numbers and masks stay what they are
        if graph[name].dtype == "float32":
            tensors[name] = _activation(graph, name, ranges[name], recipe.bits_behind(name))
    ops = [_quantize_op(graph, op, ranges, tensors, recipe) for op in graph.ops]
    return rebuild(graph, ops, tensors)


def weighted_layers(graph: Graph) -> list[str]:
    """Names of the ops whose weights take a number of bits, in order."""
    return [op.name for op in graph.ops if op.kind in ("conv", "gemm")]


def ranged_ops(graph: Graph) -> list[str]:
    """Names of the ops whose activation takes a number of bits, in order: others keep that of what they read, put out
    no reals, or are recurrent layers."""
    own = (op for op in graph.ops if op.kind not in (*KEEPS_INPUT, *RECURRENT_KINDS) and not stays_whole(graph, op))
    return [op.name for op in own]


def _check_names(graph: Graph, recipe: Recipe) -> None:
    name = graph.source or graph.name
    layers = weighted_layers(graph)
    for layer in recipe.layer_bits:
        if layer not in layers:
            raise UsageError(f"{name} has no layer {layer!r} with weights{nearest(layer, layers)}")
    ranged = [*graph.inputs, *ranged_ops(graph)]
    kinds = {op.name: op.kind for op in graph.ops}
    for item in recipe.output_bits:
        if item in ranged:
            continue
        if item in kinds:
            why = "its integers have 8 bits" if kinds[item] in RECURRENT_KINDS else "it keeps the bits of what it reads"
            raise UsageError(f"{name}: {item!r} ({kinds[item]}) takes no activation bits of its own: {why}")
        raise UsageError(f"{name} has no input or op {item!r}{nearest(item, ranged)}")


def _quantize_op(graph: Graph, op: Op, ranges: Ranges, tensors: dict[str, Tensor], recipe: Recipe) -> Op:
    """Add the int8 tensors of one op to `tensors` and return the op reading them."""
    output = op.outputs[0]
    if stays_whole(graph, op):
        return op
    if op.kind in RECURRENT_KINDS:
        return _quantize_recurrent(graph, op, ranges, tensors)
    bits = recipe.bits_behind(op.name)
    if op.kind in KEEPS_INPUT:
        inputs = (_operand(graph, op, op.inputs[0], graph[op.inputs[0]].shape, tensors), *op.inputs[1:])
        source = tensors[inputs[0]]
        tensors[output] = replace(graph[output], dtype=source.dtype, quantization=source.quantization)
        return replace(op, inputs=inputs)
    tensors[output] = _activation(graph, output, _activated_range(op, ranges[output]), bits)
    if is_island(graph, op):
        return op.with_attributes(between_reals=True)
    quantization = tensors[output].quantization
    assert quantization is not None
    if bits == 8 and clamp_bounds(op, quantization) != (INT8_MIN, INT8_MAX):
        raise InvariantError(f"op {op.name!r}: the clamp of its activation is not the saturation of int8")
    if op.kind in ("conv", "gemm"):
        return _quantize_layer(graph, op, tensors, recipe)
    whole = graph[output].shape if op.kind in ("add", "mul") else None
    inputs = tuple(_operand(graph, op, name, whole or graph[name].shape, tensors, bits) for name in op.inputs)
    return replace(op, inputs=inputs)


def _quantize_recurrent(graph: Graph, op: Op, ranges: Ranges, tensors: dict[str, Tensor]) -> Op:
    seen = [ranges[name] for name in op.outputs[:2] if name in ranges]
    of_x = tensors[op.inputs[0]].quantization
    assert of_x is not None
    if of_x.bits == 16:
        raise UsageError(
            f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) reads {op.inputs[0]!r} at 16 bits, and "
            "recurrent layers take 8; give 8 bits to what comes before"
        )
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


def _activation(graph: Graph, name: str, observed: tuple[float, float], bits: int) -> Tensor:
    quantization = activation_quantization(*observed, what=f"tensor {name!r}", bits=bits)
    return replace(graph[name], dtype=f"int{bits}", quantization=quantization, data=None)


def activation_quantization(low: float, high: float, *, what: str = "tensor", bits: int = 8) -> Quantization:
    """Asymmetric int8 quantization of [low, high] widened to hold 0, so that padding is exact; at 16 bits symmetric.

    Raises
    ------
    ModelError: a bound is not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ModelError(f"{what} takes values from {low} to {high} during calibration: cannot be quantized")
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        largest = max(-low, high)
        return Quantization((float(np.float32(largest / INT16_MAX)) if largest > 1e-30 else 1.0,), 0, None, 16)
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
    of_x, of_y = tensors[op.inputs[0]].quantization, tensors[op.outputs[0]].quantization
    assert of_x is not None
    assert of_y is not None
    _check_depth(graph, op, weight[0].size, of_x.bits == 16 or of_y.bits == 16)
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


def _check_depth(graph: Graph, op: Op, depth: int, wide: bool) -> None:
    """Sums of products may take half of an accumulator: the other half is the bias's."""
    bits = ACCUMULATOR_BITS if wide else 32
    largest, half = (1 << 22, 1 << (ACCUMULATOR_BITS - 2)) if wide else (255 * 127, ACCUMULATOR_HALF)
    if depth * largest >= half:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} sums {depth} products an output, more than the "
            f"{half // largest} that int{bits} accumulators hold for certain"
        )


def _symmetric(scales: npt.NDArray[np.float32], bits: int, *, per_channel: bool) -> Quantization:
    if per_channel:
        return Quantization(tuple(map(float, scales)), 0, 0, bits)
    return Quantization((float(scales[0]),), 0, None, bits)


def _operand(graph: Graph, op: Op, name: str, shape: tuple[int, ...], tensors: dict[str, Tensor], bits: int = 8) -> str:
    """The name of an integer operand: of the activation itself, or of a constant quantized over its own range."""
    if graph[name].data is None:
        return name
    values = np.broadcast_to(_constant(graph, op, name), shape)
    extent = float(values.min()), float(values.max())
    quantization = activation_quantization(*extent, what=f"tensor {name!r}", bits=bits)
    integers = quantize_array(values, quantization)
    dtype = f"int{bits}"
    return _add_tensor(graph, tensors, f"{name}.{dtype}", Tensor("", shape, dtype, quantization, integers))


def _add_tensor(graph: Graph, tensors: dict[str, Tensor], wish: str, tensor: Tensor) -> str:
    name = fresh_name({**graph.tensors, **tensors}, wish)
    tensors[name] = replace(tensor, name=name)
    return name
