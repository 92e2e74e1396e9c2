"""An op on maps as a step of a program: addresses of its tables and of its padding, and their contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.systolic.attention_lower import unary_table
from accelerators.systolic.maps import MapLayer
from accelerators.systolic.maps_emit import MapEmitter, MapImage, padded
from dse.ir import Graph
from dse.ir.quantized import dequantize, quantization_of, quantize_array
from dse.program.tile.isa_element import TABLE_BYTES, TABLE_ENTRIES
from dse.program.tile.program import Machine, TensorPlacement, TileStep

#: Padding of a max pool: no value is smaller.
_LOWEST = -128


@dataclass(frozen=True)
class MapCode:
    """An op on maps and the addresses of its constants."""

    item: MapLayer
    machine: Machine
    tables: int
    padding: int


def plan_map(item: MapLayer, machine: Machine, take: Callable[[str, str, int], int]) -> MapCode:
    """Addresses for an op's constants from `take` (op name, what, bytes)."""
    tables = take(item.name, "tables", TABLE_BYTES * len(item.channels)) if item.what in ("table", "concat") else 0
    padding = take(item.name, "padding", machine.columns) if item.what == "largest" and padded(item) else 0
    return MapCode(item, machine, tables, padding)


def map_step(code: MapCode, graph: Graph, placements: Mapping[str, TensorPlacement], index: int) -> TileStep:
    """The step of a planned op."""
    item = code.item
    image = MapImage(
        tuple(placements[name] for name in item.inputs), placements[item.output], code.tables, _looked_up(item, graph),
        code.padding,
    )  # fmt: skip
    queues = MapEmitter(item, code.machine, image, index).emit()
    return TileStep(item.name, (item.op.name,), queues, 0, index, {"mapping": f"element unit: {item.what}"})


def write_map(memory: npt.NDArray[np.uint8], code: MapCode, graph: Graph) -> None:
    """Write an op's tables and padding into a memory image."""
    item = code.item
    if code.padding:
        memory[code.padding : code.padding + code.machine.columns] = np.uint8(_LOWEST & 0xFF)
    if item.what not in ("table", "concat"):
        return
    for part in range(len(item.channels)):
        if item.what == "table":
            table = unary_table(graph, item.op, item.elements, code.machine.requantize)
        else:
            table = _part_table(graph, item, part)
        begin = code.tables + part * TABLE_BYTES
        memory[begin : begin + TABLE_BYTES] = table.astype("<i2").view(np.uint8)


def _looked_up(item: MapLayer, graph: Graph) -> tuple[bool, ...]:
    """Whether the values of a part change: a concatenation on one quantization only moves them."""
    if item.what not in ("table", "concat"):
        return ()
    known = {graph[name].quantization for name in (*item.op.inputs, *item.op.outputs)}
    moves = item.what == "concat" and len({(q.scale, q.zero_point) for q in known if q is not None}) == 1
    return (not moves,) * len(item.channels)


def _part_table(graph: Graph, item: MapLayer, part: int) -> npt.NDArray[np.int64]:
    """A part's values on the scale of the whole, as the reference puts them there."""
    codes = np.arange(TABLE_ENTRIES) - TABLE_ENTRIES // 2
    real = dequantize(codes, quantization_of(graph, item.op.inputs[part]))
    return quantize_array(real, quantization_of(graph, item.op.outputs[0])).astype(np.int64)
