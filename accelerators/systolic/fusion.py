"""Layer fusion in stripes: a chain of convolutions computed a few output rows at a time.

Of every stripe all layers are computed one after the other; what passes between them stays in the activation
scratchpad, so that memory sees the input of the chain, its output and its weights only. Rows that the windows of two
stripes share are either computed in both, or kept in a rolling buffer: two regions that stripes fill in turn, and in
front of them a copy of the rows that the second region hands on to the first. A scratchpad address has no modulo, so
the vector unit writes those rows twice.

Here: a plan that fits the memories. `stripes` tells which rows a layer computes in a stripe, `fusion_emit` makes
descriptors of a plan, `fusion_choose` decides whether it pays.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from accelerators.systolic.allocation import Live, allocate
from accelerators.systolic.layer import Layer
from accelerators.systolic.reduction import Reduction, block_channel_words, direct
from accelerators.systolic.stripes import Stripe, StripeRun, kept_rows, stripe_runs, stripes_of
from accelerators.systolic.tiling import TileGrid, Tiling, grid, input_extent
from dse.program.tile.isa import MemoryId
from dse.program.tile.program import Machine


@dataclass(frozen=True)
class FusedGroup:
    """Work item: layers of which each reads what the one before has made, and nobody else does."""

    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        return f"{self.layers[0].name}..{self.layers[-1].name}"

    @property
    def input(self) -> str:
        return self.layers[0].input

    @property
    def output(self) -> str:
        return self.layers[-1].output

    @property
    def residual(self) -> str | None:
        return self.layers[-1].residual

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    def compulsory_bytes(self, weight_bits: int) -> int:
        """Bytes any schedule of the chain must move: its input, weights, residual and output once."""
        total = sum(layer.compulsory_bytes(weight_bits) for layer in self.layers)
        # a layer's own count holds its output once, and the next one's the part of it that is read
        for producer, consumer in zip(self.layers, self.layers[1:], strict=False):
            total -= producer.pixels * producer.out_channels + consumer.input_bytes()
        return total


@dataclass(frozen=True)
class Buffer:
    """An activation region: word of local pixel (y, x) = base + y*pitch + x*pixel_words.

    `left` columns of border precede the map's own `map_width` columns; `bordered` tells whether any exist on any side.
    A rolling buffer keeps `kept` rows from stripe to stripe: the window of region r begins at row r * `fresh`.
    """

    base: int
    rows: int
    width: int
    pixel_words: int
    left: int
    map_width: int
    bordered: bool
    kept: int = 0
    fresh: int = 0

    def window(self, region: int) -> int:
        """Word of the first row of a window."""
        return self.base + region * self.fresh * self.pitch

    @property
    def pitch(self) -> int:
        return self.width * self.pixel_words


@dataclass(frozen=True)
class LayerPlan:
    """One layer of a group: blocks and rows of a tile, where its data lies on chip, its weights in tiles of `n`.

    `a_step` words lie between the activation words of consecutive blocks (grouped layers), `words` are reduced
    over per kernel position; `weight_base`, `parameter_base` are words of their scratchpads.
    """

    layer: Layer
    reduction: Reduction
    n: int
    y: int
    words: int
    a_first: int
    a_step: int
    buffer: Buffer
    weight_base: int
    parameter_base: int
    grid: TileGrid

    @property
    def blocks(self) -> int:
        return self.grid.totals["n"] if self.grid.grouped else sum(s.count * s.size for s in self.grid.segments["n"])

    @property
    def block_weight_words(self) -> int:
        return self.reduction.kernel[0] * self.reduction.kernel[1] * self.words * self.reduction.rows


@dataclass(frozen=True)
class GroupPlan:
    """A group that fits: its layers, stripes, and whether all weights stay on chip over all stripes."""

    group: FusedGroup
    layers: tuple[LayerPlan, ...]
    runs: tuple[StripeRun, ...]
    stripe: int
    resident: bool
    activation_words: int
    activation_bound: int

    @property
    def rolling(self) -> bool:
        """Whether rows stay from stripe to stripe."""
        return any(plan.buffer.kept for plan in self.layers)

    def of(self, group: FusedGroup) -> GroupPlan:
        """The same plan for a group of equal shapes."""
        plans = tuple(
            replace(plan, layer=layer, grid=replace(plan.grid, layer=layer))
            for plan, layer in zip(self.layers, group.layers, strict=True)
        )
        return replace(self, group=group, layers=plans)

    def describe(self) -> str:
        """Compact form for tables."""
        stripes = sum(run.count * len(run.stripes) for run in self.runs)
        kept = ", rolling" if self.rolling else ""
        weights = "resident" if self.resident else "streamed"
        tiles = " ".join(f"n{p.n} y{p.y}" for p in self.layers)
        return f"fused {stripes} stripes of {self.stripe} rows{kept}, weights {weights}: {tiles}"


def plan_group(
    group: FusedGroup, machine: Machine, reduction: Reduction, height: int, *, resident: bool, rolling: bool
) -> GroupPlan | None:
    """A plan with stripes of `height` output rows, or None when a memory is too small for it.

    Parameters
    ----------
    reduction
        Of the first layer; the others read whole pixels.
    resident
        Keep all weights on chip over all stripes, instead of loading them in every stripe.
    rolling
        Keep the rows that windows of two stripes share, instead of computing them twice.
    """
    if machine.rows % machine.vector_lanes:
        return None
    stripes = stripes_of(group.layers, height, rolling=rolling)
    if stripes is None:
        return None
    kept = [0] + (kept_rows(stripes[1]) if rolling and len(stripes) > 1 else [0] * (len(group.layers) - 1))
    limit = machine.half(MemoryId.ACCUMULATOR)
    drafts = []
    for index, layer in enumerate(group.layers):
        kind = reduction if index == 0 else direct(layer, machine.rows)
        counts = {stripe.rows[index].count for stripe in stripes}
        # the rows that are handed on must lie in the last tile
        handed = kept[index + 1] if index + 1 < len(kept) else 0
        draft = _draft(layer, kind, machine, counts, limit, handed, resident=resident,
                       forwards=index < len(group.layers) - 1)  # fmt: skip
        if draft is None:
            return None
        drafts.append(draft)
    buffers = _buffers(group.layers, drafts, stripes, kept, machine)
    if buffers is None:
        return None
    runs = stripe_runs(stripes, 2 if any(kept) else 1)
    weights = parameters = 0
    plans = []
    for layer, draft, buffer in zip(group.layers, drafts, buffers[0], strict=True):
        tiling = Tiling(draft.reduction, "channels_outer", draft.n, draft.y, layer.out_width, draft.reduction.words)
        plan = LayerPlan(
            layer, draft.reduction, draft.n, draft.y, draft.words, draft.a_first, draft.a_step, buffer, weights,
            parameters, grid(layer, tiling, machine.rows, machine.columns),
        )  # fmt: skip
        plans.append(plan)
        weights += draft.blocks * plan.block_weight_words if resident else 0
        parameters += draft.blocks * (machine.columns // machine.vector_lanes)
    if weights > machine.words[MemoryId.WEIGHT] or parameters > machine.words[MemoryId.PARAMETER]:
        return None
    return GroupPlan(group, tuple(plans), runs, height, resident, buffers[1], buffers[2])


@dataclass(frozen=True)
class _Draft:
    reduction: Reduction
    n: int
    y: int
    blocks: int
    words: int
    a_first: int
    a_step: int


def _draft(
    layer: Layer, reduction: Reduction, machine: Machine, counts: Set[int], limit: int, handed: int, *,
    resident: bool, forwards: bool,
) -> _Draft | None:  # fmt: skip
    """Tile sizes of a layer that computes so many rows in its stripes: whole rows, as many blocks as fit."""
    blocks = -(-layer.out_channels // machine.columns)
    spans = [(0, reduction.words)] * blocks
    if layer.groups > 1:
        spans = [block_channel_words(layer, block, machine.rows, machine.columns) for block in range(blocks)]
    step = spans[1][0] - spans[0][0] if blocks > 1 else 0
    if any(span != (spans[0][0] + block * step, spans[0][1]) for block, span in enumerate(spans)):
        return None
    y = _tile_rows(counts, limit // layer.out_width, handed)
    if y == 0:
        return None
    block_words = reduction.kernel[0] * reduction.kernel[1] * spans[0][1] * machine.rows
    held = machine.words[MemoryId.WEIGHT] if resident else machine.half(MemoryId.WEIGHT)
    n = min(blocks, limit // (y * layer.out_width), held // block_words)
    if handed and machine.columns % machine.rows:
        # the copy of handed rows is made block by block, each from a word on
        n = min(n, 1)
    if forwards and n < blocks:
        # a tile's channels begin at a word
        while n > 0 and n * machine.columns % machine.rows:
            n -= 1
    return _Draft(reduction, n, y, blocks, spans[0][1], spans[0][0], step) if n > 0 else None


def _tile_rows(counts: Set[int], most: int, handed: int) -> int:
    """Rows of a tile, at most `most`, in near-equal parts whose last holds the `handed` rows; 0 when there are none."""
    most = min(most, max(counts))
    if most < 1:
        return 0
    parts = -(-max(counts) // most)
    for y in range(-(-max(counts) // parts), 0, -1):
        if all((count - 1) % y + 1 >= min(handed, count) for count in counts) and y >= handed:
            return y
    return 0


def _buffers(
    layers: Sequence[Layer], drafts: Sequence[_Draft], stripes: Sequence[Stripe], kept: Sequence[int], machine: Machine
) -> tuple[list[Buffer], int, int] | None:
    """The input buffer of every layer, words in use and their lower bound; None when they do not fit."""
    shapes: list[Buffer] = []
    items: list[Live] = []
    last = len(layers) - 1
    for index, (layer, draft) in enumerate(zip(layers, drafts, strict=True)):
        rows = max(stripe.rows[index].count for stripe in stripes)
        if index == 0 and draft.reduction.gather:
            shape = Buffer(0, rows, layer.out_width, draft.reduction.words, 0, layer.out_width, False)
        elif index == 0:
            width = input_extent(layer, layer.out_width, 1)
            shape = Buffer(0, input_extent(layer, rows, 0), width, draft.reduction.words, 0, width, False)
        else:
            between = _between(layer, drafts[index - 1], stripes, index, kept[index], machine)
            if between is None:
                return None
            shape = between
        shapes.append(shape)
        # the input of the next stripe arrives while this one is computed; borders are written once
        first, end = (0, last) if index == 0 or shape.bordered else (index - 1, index)
        items.append(Live(str(index), shape.rows * shape.pitch, first, end))
    found = allocate(items)
    if found.peak > machine.words[MemoryId.ACTIVATION]:
        return None
    placed = [replace(shape, base=found.address[str(i)]) for i, shape in enumerate(shapes)]
    return placed, found.peak, found.bound


def _between(
    layer: Layer, producer: _Draft, stripes: Sequence[Stripe], index: int, kept: int, machine: Machine
) -> Buffer | None:
    """The buffer that `layer` reads and the layer before it fills; None when rolling regions do not line up."""
    left = layer.pads[1]
    reach = input_extent(layer, layer.out_width, 1)
    width = max(reach, left + layer.width)
    pixel = -(-producer.blocks * machine.columns // machine.rows)
    vertical = any(stripe.rows[index].above or stripe.rows[index].below for stripe in stripes)
    # rows that stay must not be overwritten by another tensor
    bordered = vertical or left > 0 or reach > left + layer.width or kept > 0
    first = stripes[0].rows
    # the first stripe ends where the window of the second region goes on
    fresh = first[index].low_of_input(first[index - 1]) + first[index - 1].count - kept if kept else 0
    if any(s.followed and s.region == 0 and s.rows[index - 1].count != fresh for s in stripes[1:] if kept):
        return None
    rows = max(stripe.region * fresh + input_extent(layer, stripe.rows[index].count, 0) for stripe in stripes)
    return Buffer(0, rows, width, pixel, left, layer.width, bordered, kept, fresh)
