"""How a layer is cut: output channels, rows, columns and channel words of a tile, chosen by estimated cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from accelerators.npu.hardware import NpuHardware
from accelerators.npu.layer import ConvLayer
from accelerators.npu.timing import DIAGONAL, SPARSE, matmul_cycles
from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing import ISSUE_CYCLES

ORDERS = ("weights_outer", "pixels_outer")
#: Instruction fields that bound a tile: kernel loops have 8 bits, counts 16.
_MAX_KERNEL = 255


@dataclass(frozen=True)
class WeightTile:
    """Blocks [block, block + blocks) of output channels over channel words [word, word + words) of each."""

    block: int
    blocks: int
    word: int
    words: int


@dataclass(frozen=True)
class Tiling:
    """Tile sizes of a layer: `n` blocks of `columns` output channels, `y` x `x` output pixels, `k` channel words.

    `words` are the channel words of a block's whole reduction. In a `diagonal` layer the array adds up kernel
    elements only. `diagonal_blocks`: each block of a tile reads channel words of its own.
    """

    layer: ConvLayer
    rows: int
    columns: int
    n: int
    y: int
    x: int
    k: int
    order: str
    diagonal: bool
    sparse: bool

    @property
    def blocks(self) -> int:
        return -(-self.layer.out_channels // self.columns)

    @property
    def grouped(self) -> bool:
        return self.layer.groups > 1

    @property
    def diagonal_blocks(self) -> bool:
        return self.grouped and self.n > 1

    def block_words(self, block: int) -> tuple[int, int]:
        """(first, count) of the channel words that a block of output channels reduces over."""
        layer = self.layer
        if not self.grouped:
            return 0, -(-layer.in_channels // self.rows)
        per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        last = min((block + 1) * self.columns, layer.out_channels) - 1
        low = block * self.columns // per_out * per_in // self.rows
        return low, -(-(last // per_out + 1) * per_in // self.rows) - low

    def weight_tiles(self) -> Iterator[WeightTile]:
        """All weight tiles, by block, then by channel word."""
        for block in range(0, self.blocks, self.n):
            blocks = min(self.n, self.blocks - block)
            first, words = self.block_words(block)
            if self.grouped:
                yield WeightTile(block, blocks, first, words)
                continue
            for word in range(0, words, self.k):
                yield WeightTile(block, blocks, word, min(self.k, words - word))

    def first_tile(self) -> WeightTile:
        return next(self.weight_tiles())

    def spans(self, extent: int, size: int) -> list[tuple[int, int]]:
        """(start, length) of the tiles along an axis."""
        return [(low, min(size, extent - low)) for low in range(0, extent, size)]

    def describe(self) -> str:
        """Compact form for tables."""
        kind = "depthwise" if self.diagonal else "sparse" if self.sparse else "dense"
        return f"{kind} {self.order.split('_')[0]}-outer n{self.n} y{self.y} x{self.x} k{self.k}"


def input_extent(layer: ConvLayer, outputs: int, axis: int) -> int:
    """Input rows (axis 0) or columns (axis 1) under so many consecutive outputs."""
    return (outputs - 1) * layer.strides[axis] + (layer.kernel[axis] - 1) * layer.dilations[axis] + 1


def choose_tiling(
    layer: ConvLayer, hw: NpuHardware, machine: Machine, *, sparse: bool, encoded_share: float, buffers: int
) -> Tiling:
    """The tiling with the fewest estimated cycles among those that fit.

    Parameters
    ----------
    sparse
        Whether the layer's weights have two zeros in four.
    encoded_share
        Bytes of the encoded weights over their number.
    buffers
        2: tiles take half of a memory each and alternate; 1: they take all of it.

    Raises
    ------
    InfeasibleError: not even the smallest tile fits (which memory, by how much).
    """
    rows, columns = machine.rows, machine.columns
    depthwise = layer.groups > 1 and layer.in_channels == layer.groups
    base = Tiling(layer, rows, columns, 1, 1, 1, 1, ORDERS[0], depthwise and hw.depthwise_taps > 0, sparse)
    words = max(base.block_words(block)[1] for block in range(base.blocks))
    best: tuple[float, Tiling] | None = None
    for tiling in _candidates(base, words):
        if _violations(tiling, machine, buffers):
            continue
        cost = _estimate(tiling, hw, encoded_share)
        if best is None or cost < best[0]:
            best = (cost, tiling)
    if best is None:
        smallest = replace(base, k=words if base.grouped else 1)
        raise InfeasibleError(f"layer {layer.name!r}", _violations(smallest, machine, buffers))
    return best[1]


def _candidates(base: Tiling, words: int) -> Iterator[Tiling]:
    layer = base.layer
    uniform = layer.in_channels == layer.groups == layer.out_channels and base.columns % base.rows == 0
    ragged = layer.out_channels % base.columns != 0
    most = base.blocks if not base.grouped else base.blocks if uniform and not ragged else 1
    blocks = _halvings(most)
    depths = [words] if base.grouped else _halvings(words)
    for n, k, x, y, order in product(
        blocks, depths, _halvings(layer.out_width), _halvings(layer.out_height, fine=True), ORDERS
    ):
        yield replace(base, n=n, k=k, x=x, y=y, order=order)


def _halvings(extent: int, *, fine: bool = False) -> list[int]:
    """Tile sizes that cut an extent into 1, 2, 4, ... equal parts; `fine`: into any number up to 8 as well."""
    parts = {1 << power for power in range(extent.bit_length())} | {extent}
    if fine:
        parts |= set(range(1, 9))
    return sorted({-(-extent // min(count, extent)) for count in parts}, reverse=True)


def _violations(tiling: Tiling, machine: Machine, buffers: int) -> list[Violation]:
    """What of a tile does not fit."""
    layer = tiling.layer
    height, width = input_extent(layer, tiling.y, 0), input_extent(layer, tiling.x, 1)
    blocks = tiling.n if tiling.diagonal_blocks else 1
    kernel = layer.kernel[0] * layer.kernel[1]
    outputs = tiling.n * tiling.y * tiling.x
    channels = tiling.blocks * tiling.columns
    used = [
        ("activation_spad words", height * width * tiling.k * blocks, machine.words[MemoryId.ACTIVATION] // buffers),
        ("weight_spad words", tiling.n * kernel * tiling.k * tiling.rows, machine.words[MemoryId.WEIGHT] // buffers),
        ("accumulator words", outputs, machine.words[MemoryId.ACCUMULATOR] // buffers),
        ("parameter_channels", channels, machine.half(MemoryId.PARAMETER) * machine.vector_lanes),
        ("kernel rows and columns", max(layer.kernel), _MAX_KERNEL),
    ]
    return [Violation(name, need, limit, "") for name, need, limit in used if need > limit]


def _estimate(tiling: Tiling, hw: NpuHardware, encoded_share: float) -> float:
    """Cycles of a layer if its engines overlapped perfectly, and what stands in front of them and behind."""
    layer = tiling.layer
    words = tiling.block_words(0)[1]
    tiles_n, tiles_k = math.ceil(tiling.blocks / tiling.n), 1 if tiling.grouped else math.ceil(words / tiling.k)
    tiles_p = layer.batch * math.ceil(layer.out_height / tiling.y) * math.ceil(layer.out_width / tiling.x)
    fields = {
        "n_blocks": tiling.n, "n_rows": layer.kernel[0], "n_columns": layer.kernel[1], "n_channels": tiling.k,
        "height": tiling.y, "width": tiling.x, "flags": DIAGONAL * tiling.diagonal + SPARSE * tiling.sparse,
    }  # fmt: skip
    tile = matmul_cycles(Descriptor(Opcode.MATMUL, fields), hw) + ISSUE_CYCLES
    array = tiles_n * tiles_k * tiles_p * tile
    outer_n = tiling.order == "weights_outer"
    a_reloads = tiles_n if (outer_n and tiles_p * tiles_k > 1) or tiling.grouped or tiles_k > 1 else 1
    w_reloads = tiles_p if tiles_k > 1 or (not outer_n and tiles_n > 1) else 1
    pixels = input_extent(layer, tiling.y, 0) * input_extent(layer, tiling.x, 1)
    a_words = pixels * tiling.k * (tiling.n if tiling.diagonal_blocks else 1)
    a_tile = a_words * tiling.rows / hw.feature_bytes_per_cycle + hw.feature_latency_cycles + ISSUE_CYCLES
    loads_a = a_reloads * tiles_p * tiles_k * a_tile
    per_tile = layer.weights / (tiles_n * tiles_k)
    w_tile = max(per_tile * encoded_share / hw.constant_bytes_per_cycle, per_tile / hw.weights_decoded_per_cycle)
    w_tile += hw.constant_latency_cycles + ISSUE_CYCLES
    loads_w = w_reloads * tiles_n * tiles_k * w_tile
    outputs = tiling.n * tiling.y * tiling.x
    vector = outputs / hw.cores * (hw.output_channels / hw.vector_lanes) * hw.vector_passes + ISSUE_CYCLES
    store = outputs * hw.output_channels / hw.feature_bytes_per_cycle + hw.feature_latency_cycles + ISSUE_CYCLES
    moves = (loads_a, loads_w) if hw.dma_channels == 2 else (loads_a + loads_w,)
    vectors = tiles_n * tiles_p * vector
    computing = (array + vectors,) if hw.shared_accumulators else (array, vectors)
    slowest = max(*computing, *moves, tiles_n * tiles_p * store)
    return slowest + a_tile + w_tile + vector + store
