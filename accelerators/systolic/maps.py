"""What of a convolutional network the element unit computes on maps: pools, concatenations, sums, products, tables.

Every one equals the reference bit for bit. Largest values, functions of one int8 value (256-entry tables that the
reference fills) and the parts of a concatenation always do; averages, and sums and products in mode `ort`, where
`element_exact` finds integers that do. An op that is left to the host comes with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from accelerators.systolic.element_exact import Fields, add_fields, average_fields, mul_fields
from accelerators.systolic.recurrent import sequence_outputs
from dse.ir import Graph, Op
from dse.ir.kinds import UNARY_KINDS
from dse.program.tile.isa import MemoryId
from dse.program.tile.program import Machine

#: Functions of two values that are a table where one of them is a number.
_WITH_NUMBER = ("add", "sub", "mul", "div", "minimum", "maximum")
POOLS = ("max_pool", "average_pool", "global_average_pool")
_IN_FIXED_POINT = ("softmax", "layer_norm")
#: Largest window of an average: its sums are proven one by one.
MAX_AREA = 1024
#: Kernel rows and columns of a POOL descriptor.
_MAX_KERNEL = 255


@dataclass(frozen=True)
class MapLayer:
    """One op on maps: `what` is "largest", "average", "table", "add", "mul" or "concat".

    `height`, `width` are of the input without padding, `top`, `left` its padding; `channels` has the channels of every
    input (of a concatenation, its parts; else the first is the output's). `broadcast` tells per input whether one pixel
    stands for all. `fields` are the integers of the arithmetic, empty for a graph of shapes.
    """

    name: str
    op: Op
    what: str
    inputs: tuple[str, ...]
    output: str
    batch: int
    channels: tuple[int, ...]
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0
    broadcast: tuple[bool, ...] = (False,)
    fields: Fields | None = None

    @property
    def add(self) -> None:
        """Nothing is fused behind it."""
        return None

    @property
    def macs(self) -> int:
        """No products of layers."""
        return 0

    @property
    def elements(self) -> int:
        """Values of the output."""
        channels = sum(self.channels) if self.what == "concat" else self.channels[0]
        return self.batch * channels * self.out_height * self.out_width

    def compulsory_bytes(self, weight_bits: int) -> int:
        """Bytes any schedule must move: each operand that some window reads and the result once."""
        rows = _touched(self.height, self.out_height, self.kernel[0], self.strides[0], self.top)
        columns = _touched(self.width, self.out_width, self.kernel[1], self.strides[1], self.left)
        read = sum(
            self.batch * channels * (1 if single else rows * columns)
            for channels, single in zip(self.channels, self.broadcast, strict=True)
        )
        return read + self.elements


def _touched(size: int, outputs: int, kernel: int, stride: int, before: int) -> int:
    """Rows (or columns) of an input of `size` that some window covers, `before` of padding in front."""
    covered = {out * stride + tap - before for out in range(outputs) for tap in range(kernel)}
    return len(covered & set(range(size)))


def map_layer(graph: Graph, op: Op, source: Mapping[str, str], machine: Machine) -> MapLayer | str:
    """The work item of an op on maps, or why the host computes it.

    Parameters
    ----------
    source
        Of every tensor, the tensor whose bytes it shares.
    machine
        Of a design with an element unit.
    """
    moving = [name for name in op.inputs if name and graph[name].data is None]
    fixed = [name for name in op.inputs if name and graph[name].data is not None]
    if op.kind not in (*POOLS, *UNARY_KINDS, *_WITH_NUMBER, "concat", "requantize"):
        if op.kind in _IN_FIXED_POINT:
            return "exact only in float32; decisions.fixed_point computes it over the last axis of rows"
        return f"no descriptor of the element unit computes {op.kind}"
    rows = sequence_outputs(graph)
    for name in (*moving, *op.outputs):
        tensor = graph[name]
        if len(tensor.shape) != 4 or tensor.dtype not in ("int8", "float32") or name in rows:
            return "its operands are neither int8 maps nor rows that the element unit computes exactly"
        if name in moving and graph[source[name]].shape != tensor.shape:
            return "an operand is a reshaped view"
    item = _item(graph, op, source, moving, fixed, machine)
    if isinstance(item, str):
        return item
    return item if fits(item, machine) else "a window or a pixel does not fit residual and output memory"


def _item(
    graph: Graph, op: Op, source: Mapping[str, str], moving: list[str], fixed: list[str], machine: Machine
) -> MapLayer | str:
    batch, channels, out_height, out_width = graph[op.outputs[0]].shape
    inputs = tuple(source[name] for name in moving)
    height, width = graph[moving[0]].shape[2:]
    base = MapLayer(
        op.name, op, "table", inputs, op.outputs[0], batch, (channels,), height, width, out_height, out_width
    )
    if op.kind in POOLS:
        return _pool(graph, op, base)
    if op.kind == "concat":
        return _concat(graph, op, base, moving, fixed, machine)
    if len(moving) == 1 and ((op.kind not in _WITH_NUMBER and not fixed) or _number(graph, fixed)):
        return base
    if op.kind in ("add", "mul") and len(moving) == 2 and moving[0] != moving[1]:
        return _pair(graph, op, base, moving, machine)
    return f"{op.kind} of operands that are no two maps, nor a map and a number"


def _number(graph: Graph, names: list[str]) -> bool:
    """Whether the one constant operand is the same number everywhere."""
    data = graph[names[0]].data if len(names) == 1 else None
    return data is not None and data.size > 0 and bool((data == data.ravel()[0]).all())


def _pool(graph: Graph, op: Op, base: MapLayer) -> MapLayer | str:
    if op.kind == "global_average_pool":
        kernel, strides, pads = (base.height, base.width), (1, 1), (0, 0, 0, 0)
    else:
        (rows, columns), (down, across) = op.attributes["kernel"], op.attributes["strides"]
        kernel, strides, pads = (rows, columns), (down, across), op.attributes["pads"]
    if max(kernel) > _MAX_KERNEL:
        return f"a window of {kernel[0]} x {kernel[1]}; a POOL takes {_MAX_KERNEL} x {_MAX_KERNEL}"
    what = "largest" if op.kind == "max_pool" else "average"
    item = MapLayer(
        base.name, op, what, base.inputs, base.output, base.batch, base.channels, base.height, base.width,
        base.out_height, base.out_width, kernel, strides, pads[0], pads[1],
    )  # fmt: skip
    for axis, (size, pad) in enumerate(((item.height, item.top), (item.width, item.left))):
        if pad >= kernel[axis] or reach(item, axis) - kernel[axis] >= size:
            return "a window lies in padding alone"
    if what == "largest":
        return item
    area = math.prod(kernel)
    if area > MAX_AREA:
        return f"an average of {area} values; sums are proven up to {MAX_AREA}"
    if any(pads) or reach(item, 0) > base.height or reach(item, 1) > base.width:
        return "its windows reach over the border, where float32 averages have no integer form"
    return _proven(graph, item, average_fields(graph, op, area) if _quantized(graph, op) else {})


def reach(item: MapLayer, axis: int) -> int:
    """Input rows (axis 0) or columns (1) from the first, without the padding, to the last that a window reads."""
    outputs, before = ((item.out_height, item.top), (item.out_width, item.left))[axis]
    return (outputs - 1) * item.strides[axis] + item.kernel[axis] - before


def _concat(
    graph: Graph, op: Op, base: MapLayer, moving: list[str], fixed: list[str], machine: Machine
) -> MapLayer | str:
    if op.attributes["axis"] != 1 or fixed:
        return "a concatenation along channels of computed maps only"
    if len(moving) > machine.words[MemoryId.TABLE]:
        return f"{len(moving)} parts, each with a table; the design holds {machine.words[MemoryId.TABLE]}"
    channels = tuple(graph[name].shape[1] for name in moving)
    return MapLayer(
        base.name, op, "concat", base.inputs, base.output, base.batch, channels, base.height, base.width,
        base.out_height, base.out_width, broadcast=(False,) * len(channels),
    )  # fmt: skip


def _pair(graph: Graph, op: Op, base: MapLayer, moving: list[str], machine: Machine) -> MapLayer | str:
    shape = graph[op.outputs[0]].shape
    single = tuple(graph[name].shape != shape for name in moving)
    if any(one and graph[name].shape != (*shape[:2], 1, 1) for name, one in zip(moving, single, strict=True)):
        return "operands of different shapes, of which none is one pixel"
    fields: Fields | None = {}
    if _quantized(graph, op):
        fields = (add_fields if op.kind == "add" else mul_fields)(graph, op, machine.requantize)
    item = MapLayer(
        base.name, op, op.kind, base.inputs, base.output, base.batch, base.channels * 2, base.out_height,
        base.out_width, base.out_height, base.out_width, broadcast=single,
    )  # fmt: skip
    return _proven(graph, item, fields)


def _proven(graph: Graph, item: MapLayer, fields: Fields | None) -> MapLayer | str:
    if fields is None:
        return "no integers of the element unit equal its float32 arithmetic for every input"
    return replace(item, fields=fields)


def _quantized(graph: Graph, op: Op) -> bool:
    return all(graph[name].quantization is not None for name in (*op.inputs, *op.outputs) if name)


# -- tiles ---------------------------------------------------------------------------------------------------------


def tile_sizes(item: MapLayer, channels: int, machine: Machine) -> tuple[int, int, int] | None:
    """Blocks, rows and columns of the output tile of one part; None when not even one pixel of one block fits."""
    held, out = machine.half(MemoryId.RESIDUAL), machine.half(MemoryId.OUTPUT)
    whole = sum(not single for single in item.broadcast) if item.what in ("add", "mul") else 1
    single = sum(item.broadcast)

    def words(n: int, y: int, x: int) -> int:
        rows, columns = ((size - 1) * s + k for size, s, k in zip((y, x), item.strides, item.kernel, strict=True))
        return n * (whole * rows * columns + single)

    def fits_in(n: int, y: int, x: int) -> bool:
        return words(n, y, x) <= held and n * y * x <= out

    x = next((x for x in _parts(item.out_width) if fits_in(1, 1, x)), 0)
    if x == 0:
        return None
    y = next(y for y in _parts(item.out_height) if fits_in(1, y, x))
    n = 1
    if (y, x) == (item.out_height, item.out_width):
        n = next(n for n in _parts(-(-channels // machine.columns)) if fits_in(n, y, x))
    return n, y, x


def _parts(total: int) -> list[int]:
    """Sizes of near-equal parts of a whole, the largest first."""
    return list(dict.fromkeys(-(-total // parts) for parts in range(1, total + 1)))


def fits(item: MapLayer, machine: Machine) -> bool:
    """Whether every part has a tile that fits."""
    parts = item.channels if item.what == "concat" else item.channels[:1]
    return all(tile_sizes(item, channels, machine) is not None for channels in parts)
