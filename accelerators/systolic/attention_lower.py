"""A vector layer as a step of a program: addresses, the integers of its arithmetic, its table and scales in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.systolic.attention import VectorLayer
from accelerators.systolic.attention_emit import VectorImage, emit_vector, tile_rows
from accelerators.systolic.element_exact import add_fields
from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.graph import Quantization
from dse.ir.quantized import quantization_of
from dse.ir.reference import run_op_quantized
from dse.ir.requantize import encode_add
from dse.program.tile.isa import MemoryId
from dse.program.tile.isa_element import TABLE_BYTES, TABLE_ENTRIES
from dse.program.tile.program import Machine, TensorPlacement, TileStep

#: An exponential of 0 in the table of a softmax.
_ONE = 32767
#: Bits of the multiplier of a layer norm's deviation, and fraction bits of the int8 result before its shift.
_CENTRE_BITS, _RESULT_BITS = 16, 6
#: NORMALIZE's CENTRE gives normalized * multiplier * 2**(_CENTRE_SCALE - shift), SOFTMAX the same of its share.
_NORMALIZE_SCALE = 24


@dataclass(frozen=True)
class VectorCode:
    """A vector layer and the addresses of its constants."""

    layer: VectorLayer
    machine: Machine
    constant: int
    table: int
    scales: int


def plan_vector(layer: VectorLayer, machine: Machine, take: Callable[[str, str, int], int]) -> VectorCode:
    """Addresses for a layer's constants from `take` (layer name, what, bytes).

    Raises
    ------
    InfeasibleError: one row does not fit on chip.
    """
    tile_rows(layer, machine)
    blocks = -(-layer.width // machine.columns)
    constant = take(layer.name, "constant operand", layer.elements) if layer.constant else 0
    table = take(layer.name, "table", TABLE_BYTES) if layer.what in ("table", "softmax") else 0
    words = 2 * blocks * machine.word_bytes[MemoryId.STATE]
    return VectorCode(
        layer, machine, constant, table, take(layer.name, "scales", words) if layer.what == "layer_norm" else 0
    )


def vector_step(
    code: VectorCode, graph: Graph, placements: Mapping[str, TensorPlacement], index: int, *, quantized: bool
) -> TileStep:
    """The step of a planned layer; a graph of shapes gives its time only."""
    layer = code.layer
    moving = iter(placements[name].base for name in layer.inputs)
    names = [name for name in layer.op.inputs if name and (graph[name].data is None or name == layer.constant)]
    operands = [code.constant if name == layer.constant else next(moving) for name in names]
    image = VectorImage(tuple(operands), placements[layer.output].base, code.table, code.scales)
    values = _values(layer, graph, code.machine.requantize) if quantized else _shape_values(layer)
    queues = emit_vector(layer, code.machine, image, values, index)
    return TileStep(layer.name, (layer.op.name,), queues, 0, index, {"mapping": f"element unit: {layer.what}"})


def _shape_values(layer: VectorLayer) -> dict[str, int]:
    names = ("multiplier_a", "epsilon", "epsilon_shift", "centre_shift", "scale_shift", "shift", "zero_point")
    return dict.fromkeys(names, 1) if layer.what == "layer_norm" else {"multiplier_a": 1, "shift": 1}


def _values(layer: VectorLayer, graph: Graph, mode: str) -> dict[str, int]:
    """Fields of the arithmetic of a quantized layer."""
    of_y = quantization_of(graph, layer.output)
    if layer.what == "add":
        return _add_values(layer, graph, of_y, mode)
    if layer.what == "softmax":
        # multiplier * 2**(24 - shift) = 1 / scale, 23 bits long
        exponent = math.frexp(1 / of_y.scale[0])[1]
        shift = 23 + _NORMALIZE_SCALE - exponent
        return {
            "multiplier_a": round(2.0 ** (23 - exponent) / of_y.scale[0]),
            "shift": shift,
            "zero_point": of_y.zero_point,
        }
    if layer.what == "layer_norm":
        return _norm_values(layer, graph, of_y)
    return {}


def _add_values(layer: VectorLayer, graph: Graph, of_y: Quantization, mode: str) -> dict[str, int]:
    if mode != "q31":
        fields = add_fields(graph, layer.op, mode)
        # only adds that have integers become vector layers
        assert fields is not None
        return dict(fields)
    of_a, of_b = (quantization_of(graph, name) for name in layer.op.inputs)
    try:
        first, second, shift = encode_add(of_a.scale[0], of_b.scale[0], of_y.scale[0])
    except ValueError as error:
        raise ModelError(f"layer {layer.name!r}: {error}") from error
    return {
        "zero_a": of_a.zero_point, "zero_b": of_b.zero_point, "multiplier_a": first, "multiplier_b": second,
        "shift": shift, "zero_point": of_y.zero_point,
    }  # fmt: skip


def _fraction_bits(layer: VectorLayer) -> int:
    """Fraction bits of centred values in int16: no value is more than sqrt(width) deviations off."""
    return min(12, 14 - math.ceil(math.log2(math.sqrt(layer.width) + 1)))


def _scale_bits(layer: VectorLayer, graph: Graph) -> int:
    """Fraction bits of the channels' scales, in steps of the output, that int16 holds."""
    scale = _channel(layer, graph, 1, 1.0)
    largest = float(np.abs(scale).max()) / quantization_of(graph, layer.output).scale[0]
    return 14 - math.frexp(max(largest, 1e-6))[1]


def _norm_values(layer: VectorLayer, graph: Graph, of_y: Quantization) -> dict[str, int]:
    of_x = quantization_of(graph, layer.op.inputs[0])
    real = float(layer.op.attributes["epsilon"]) * (layer.width / of_x.scale[0]) ** 2
    epsilon_shift = max(0, math.frexp(real)[1] - 24)
    fraction, bits = _fraction_bits(layer), _scale_bits(layer, graph)
    scale_shift = fraction + bits - _RESULT_BITS
    if not 0 <= scale_shift <= 62 or epsilon_shift > 62:
        raise ModelError(f"layer {layer.name!r}: its scales leave the range that a layer norm in fixed point has")
    return {
        "multiplier_a": 1 << _CENTRE_BITS, "centre_shift": _CENTRE_BITS + _NORMALIZE_SCALE - fraction,
        "epsilon": round(real / 2**epsilon_shift), "epsilon_shift": epsilon_shift, "scale_shift": scale_shift,
        "shift": _RESULT_BITS, "zero_point": of_y.zero_point,
    }  # fmt: skip


def _channel(layer: VectorLayer, graph: Graph, place: int, default: float) -> npt.NDArray[np.float64]:
    """A layer norm's scale (1) or shift (2) by channel."""
    names = layer.op.inputs
    data = graph[names[place]].data if len(names) > place and names[place] else None
    if data is None:
        return np.full(layer.width, default)
    real = data.astype(np.float64)
    quantization = graph[names[place]].quantization
    if quantization is not None:
        real = (real - quantization.zero_point) * quantization.scale[0]
    return np.broadcast_to(real.ravel(), (layer.width,)).copy()


def write_vector(memory: npt.NDArray[np.uint8], code: VectorCode, graph: Graph) -> None:
    """Write a layer's constant operand, table and scales into a memory image."""
    layer = code.layer
    if layer.constant:
        data = graph[layer.constant].data
        assert data is not None
        memory[code.constant : code.constant + layer.elements] = data.astype(np.int8).ravel().view(np.uint8)
    if layer.what in ("table", "softmax"):
        mode = code.machine.requantize
        table = unary_table(graph, layer.op, layer.elements, mode) if layer.what == "table" else _powers(layer, graph)
        memory[code.table : code.table + TABLE_BYTES] = table.astype("<i2").view(np.uint8)
    if layer.what == "layer_norm":
        words = _scales(code, graph)
        memory[code.scales : code.scales + words.size] = words


def unary_table(graph: Graph, op: Op, elements: int, mode: str) -> npt.NDArray[np.int64]:
    """What the reference makes of every int8 value, by an op of one tensor of so many `elements`."""
    name = next(item for item in op.inputs if item and graph[item].data is None)
    shape = graph[name].shape
    codes = np.arange(-128, 128).astype(np.int8)
    table = np.zeros(TABLE_ENTRIES, np.int64)
    for begin in range(0, TABLE_ENTRIES, elements):
        count = min(elements, TABLE_ENTRIES - begin)
        values = np.zeros(elements, np.int8)
        values[:count] = codes[begin : begin + count]
        result = run_op_quantized(graph, op, {name: values.reshape(shape)}, mode)[op.outputs[0]]
        table[begin : begin + count] = result.ravel()[:count]
    return table


def _powers(layer: VectorLayer, graph: Graph) -> npt.NDArray[np.int64]:
    """exp(-d * scale) of a difference d of 0 to 255 steps, 32767 for 1."""
    scale = quantization_of(graph, layer.op.inputs[0]).scale[0]
    return np.asarray(np.rint(_ONE * np.exp(-scale * np.arange(TABLE_ENTRIES))), np.int64)


def _scales(code: VectorCode, graph: Graph) -> npt.NDArray[np.uint8]:
    """STATE words: the channels' scales, then their shifts, both in steps of the output."""
    layer, columns = code.layer, code.machine.columns
    step = quantization_of(graph, layer.output).scale[0]
    scale = np.rint(_channel(layer, graph, 1, 1.0) / step * 2.0 ** _scale_bits(layer, graph))
    shift = np.rint(_channel(layer, graph, 2, 0.0) / step * 2.0**_RESULT_BITS)
    blocks = -(-layer.width // columns)
    words = np.zeros((2, blocks * columns), np.int64)
    words[0, : layer.width], words[1, : layer.width] = scale, shift
    return np.clip(words, -32768, 32767).astype("<i2").view(np.uint8).ravel()
