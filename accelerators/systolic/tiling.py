"""Tilings of a layer: sizes per dimension, loop order, and the segments (full tiles, edges) they fall into.

Dimensions of the tile loops: `n` blocks of `columns` output channels, `b` images, `y` output rows, `x` output
columns, `k` activation words of the reduction (always innermost). Trip counts above 1 cost a LOOP level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from accelerators.systolic.layer import Layer
from accelerators.systolic.reduction import Reduction, block_channel_words
from dse.program.tile.isa import SEMAPHORE_MAX

#: Credits for two buffers must fit a semaphore.
MAX_REUSE = SEMAPHORE_MAX // 2
DIMS = ("n", "b", "y", "x", "k")
ORDERS: Mapping[str, tuple[str, ...]] = {
    "channels_outer": ("n", "b", "y", "x", "k"),
    "pixels_outer": ("b", "y", "x", "n", "k"),
}


@dataclass(frozen=True)
class Segment:
    """`count` consecutive tiles of equal `size`, the first with index `first` and start `start`."""

    first: int
    count: int
    size: int
    start: int


@dataclass(frozen=True)
class Tiling:
    """Tile sizes of one layer: `n` blocks, `y` x `x` output pixels, `k` activation words; one image at a time."""

    reduction: Reduction
    order: str
    n: int
    y: int
    x: int
    k: int

    def describe(self) -> str:
        """Compact form for tables."""
        kind = "gather" if self.reduction.gather else "direct"
        return f"{kind} {self.order.split('_')[0]}-outer n{self.n} y{self.y} x{self.x} k{self.k}"


@dataclass(frozen=True)
class TileGrid:
    """The tile loops of a layer under a tiling: totals and segments per dimension."""

    layer: Layer
    tiling: Tiling
    totals: Mapping[str, int]
    segments: Mapping[str, tuple[Segment, ...]]
    grouped: bool

    @property
    def order(self) -> tuple[str, ...]:
        return ORDERS[self.tiling.order]

    def relevant(self, operand: str) -> frozenset[str]:
        """Dimensions an operand's tile depends on."""
        if operand == "w":
            return frozenset({"n", "k"})
        if operand == "a":
            return frozenset({"b", "y", "x", "k"} | ({"n"} if self.grouped else set()))
        return frozenset({"n", "b", "y", "x"})

    def position(self, operand: str) -> int:
        """How many leading dimensions of the order stand around the operand's load (0: loaded once).

        As few as its tiles allow; a tile that more than `MAX_REUSE` matmuls would consume is loaded again.
        """
        relevant = self.relevant(operand)
        found = max((i + 1 for i, dim in enumerate(self.order) if dim in relevant and self.totals[dim] > 1), default=0)
        while operand in ("w", "a") and math.prod(self.totals[dim] for dim in self.order[found:]) > MAX_REUSE:
            found += 1
        return found

    def loads(self, operand: str) -> int:
        """How many tiles of the operand are brought in over the whole layer."""
        return math.prod(self.totals[dim] for dim in self.order[: self.position(operand)])

    def reuse(self, operand: str) -> int:
        """How many matmul descriptors consume one loaded tile."""
        return math.prod(self.totals[dim] for dim in self.order[self.position(operand) :])


def split(extent: int, tile: int, *, peel_first: bool = False, peel_last: bool = False) -> tuple[Segment, ...]:
    """Segments that cover `extent` in tiles of `tile`; the last tile may be smaller.

    `peel_first`, `peel_last` make the first or last tile a segment of its own.
    """
    total = -(-extent // tile)
    cuts = {0, total}
    if peel_first and total > 1:
        cuts.add(1)
    if (peel_last or extent % tile) and total > 1:
        cuts.add(total - 1)
    edges = sorted(cuts)
    return tuple(Segment(low, high - low, min(tile, extent - low * tile), low * tile) for low, high in pairwise(edges))


def grid(layer: Layer, tiling: Tiling, rows: int, columns: int) -> TileGrid:
    """The tile loops of a layer.

    Grouped layers (their blocks reduce over different channels) take one block per tile, unrolled.
    """
    blocks = -(-layer.out_channels // columns)
    words = tiling.reduction.words
    grouped = layer.groups > 1
    if grouped:
        n_segments = tuple(Segment(i, 1, 1, i) for i in range(blocks))
        k_size = max(block_channel_words(layer, block, rows, columns)[1] for block in range(blocks))
        k_segments: tuple[Segment, ...] = (Segment(0, 1, k_size, 0),)
    else:
        n_segments = split(blocks, tiling.n, peel_last=layer.out_channels % columns != 0)
        # the first chunk overwrites the accumulators and the last one hands them on: both stand alone
        k_segments = split(words, tiling.k, peel_first=True, peel_last=True)
        if tiling.reduction.gather and len(k_segments) > 1:
            # gathered words differ in their runs: every chunk stands alone
            k_segments = tuple(
                Segment(i, 1, min(tiling.k, words - i * tiling.k), i * tiling.k) for i in range(-(-words // tiling.k))
            )
    segments = {
        "n": n_segments,
        "b": split(layer.batch, 1),
        "y": split(layer.out_height, tiling.y),
        "x": split(layer.out_width, tiling.x),
        "k": k_segments,
    }
    totals = {dim: sum(segment.count for segment in parts) for dim, parts in segments.items()}
    return TileGrid(layer, tiling, totals, segments, grouped)


def input_extent(layer: Layer, outputs: int, axis: int) -> int:
    """Input rows (axis 0) or columns (axis 1) under `outputs` consecutive outputs."""
    return (outputs - 1) * layer.strides[axis] + (layer.kernel[axis] - 1) * layer.dilations[axis] + 1


def activation_words(layer: Layer, reduction: Reduction, y: int, x: int, k: int) -> int:
    """Scratchpad words of an activation tile."""
    if reduction.gather:
        return y * x * k
    return input_extent(layer, y, 0) * input_extent(layer, x, 1) * k
