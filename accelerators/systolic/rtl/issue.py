"""The front of the matmul engine: walks a descriptor's folds in slots, one scratchpad read of each kind a slot.

A slot is a cycle. Its addresses stand on the ports in the next cycle, and everything behind runs at fixed
distances from there: waiting means slots without work, never a stall.
"""

from __future__ import annotations

from typing import NamedTuple

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accelerators.systolic.rtl.accumulate import BLOCK_TAG, PIXEL_TAG
from accelerators.systolic.rtl.agu import Countdown, FoldWalker, PixelWalker
from accelerators.systolic.timing import WS_MIN_FOLD_CYCLES
from dse.program.tile.isa import DESCRIPTOR_BYTES, Opcode
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import ADDRESS_BITS


class _Walk(NamedTuple):
    """What a dataflow drives its slots from; it must drive `fold_ends`, the last slot of a fold."""

    folds: FoldWalker
    pixels: PixelWalker
    slot: Countdown
    reads: Signal  # the slot reads an activation word
    fold_ends: Signal
    pixels_end: Signal  # no pixel is left behind this slot


class _Issue(wiring.Component):
    """What both dataflows share: the walkers, the slot counter, the activation port.

    Parameters
    ----------
    slots
        Slots of the shortest fold.
    keeps_place
        Whether a fold may begin in the middle of the pixels.
    members
        Outputs of the dataflow.

    Members
    -------
    start : In(1), descriptor : In(512), base : In(16): a MATMUL and its activation address
    a_en : Out(1), a_addr : Out(16): activation read port, one cycle behind the slot
    fold : Out(1): first slot of a fold; running : Out(1): a slot of a fold
    """

    def __init__(self, slots: int, *, keeps_place: bool, members: dict[str, wiring.Member]) -> None:
        self.slots, self.keeps_place = slots, keeps_place
        common = {
            "start": In(1),
            "descriptor": In(8 * DESCRIPTOR_BYTES),
            "base": In(ADDRESS_BITS),
            "a_en": Out(1),
            "a_addr": Out(ADDRESS_BITS),
            "fold": Out(1),
            "running": Out(1),
        }
        super().__init__({**common, **members})

    def _walk(self, m: Module) -> _Walk:
        """The walkers, wired to descriptor, slot counter and activation port."""
        walk = _Walk(
            FoldWalker(),
            PixelWalker(keeps_place=self.keeps_place),
            Countdown(self.slots.bit_length()),
            reads=Signal(name="reads"),
            fold_ends=Signal(name="fold_ends"),
            pixels_end=Signal(name="pixels_end"),
        )
        folds, pixels, slot = walk.folds, walk.pixels, walk.slot
        m.submodules.folds, m.submodules.pixels, m.submodules.slot = folds, pixels, slot
        for port, name in (
            (folds.n_count, "n_blocks"),
            (folds.r_count, "n_rows"),
            (folds.s_count, "n_columns"),
            (folds.c_count, "n_channels"),
            (folds.n_stride, "a_stride_n"),
            (folds.r_stride, "a_stride_r"),
            (folds.s_stride, "a_stride_s"),
            (pixels.height, "height"),
            (pixels.width, "width"),
            (pixels.y_stride, "a_stride_y"),
            (pixels.x_stride, "a_stride_x"),
        ):
            m.d.comb += port.eq(descriptor_field(self.descriptor, Opcode.MATMUL, name))
        m.d.comb += [
            walk.reads.eq(self.running & ~pixels.exhausted),
            walk.pixels_end.eq(pixels.exhausted | pixels.last),
            folds.start.eq(self.start),
            folds.base.eq(self.base),
            folds.step.eq(walk.fold_ends),
            pixels.step.eq(walk.reads),
            slot.count.eq(self.slots),
            slot.load.eq(self.start | walk.fold_ends),
            slot.step.eq(self.running & (slot.left != 0)),
        ]
        m.d.sync += [self.a_en.eq(walk.reads), self.a_addr.eq(folds.address + pixels.offset)]
        with m.If(self.start):
            m.d.sync += [self.running.eq(1), self.fold.eq(1)]
        with m.Elif(walk.fold_ends & ~folds.again & folds.last_fold & folds.last_block):
            m.d.sync += [self.running.eq(0), self.fold.eq(0)]
        with m.Else():
            m.d.sync += self.fold.eq(walk.fold_ends)
        return walk


class WeightStationaryIssue(_Issue):
    """Slots of the weight-stationary array: a fold lasts until its pixels and its weight rows are all issued.

    Folds follow each other no faster than `WS_MIN_FOLD_CYCLES`, so that an accumulator row is written before
    the next fold reads it.

    Parameters
    ----------
    rows
        Weight words of a fold.

    Members (and those of `_Issue`)
    -------
    weight : Out(1): the slot reads a weight word
    tag : Out(PIXEL_TAG): of the slot's pixel
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(
            max(rows, WS_MIN_FOLD_CYCLES),
            keeps_place=False,
            members={"weight": Out(1), "tag": Out(PIXEL_TAG)},
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        walk = self._walk(m)
        folds, pixels, slot = walk.folds, walk.pixels, walk.slot
        slots_end = Signal()
        m.d.comb += [
            slots_end.eq(slot.last | (slot.left == 0)),
            walk.fold_ends.eq(self.running & walk.pixels_end & slots_end),
            pixels.origin.eq(self.start | walk.fold_ends),
            self.weight.eq(self.running & (slot.left > self.slots - self.rows)),
            self.tag.valid.eq(walk.reads),
            self.tag.fold_last.eq(walk.reads & pixels.last),
            self.tag.block_last.eq(self.tag.fold_last & folds.last_fold),
            self.tag.final.eq(self.tag.block_last & folds.last_block),
        ]
        return m


class OutputStationaryIssue(_Issue):
    """Slots of the output-stationary array: `rows` slots a fold, pixel block by pixel block.

    Slot k reads the activation word of the block's pixel k, if there is one, and the weight word k.

    Parameters
    ----------
    rows
        Pixels of a block and weight words of a fold.

    Members (and those of `_Issue`)
    -------
    swap : Out(1): first slot of a block, or the slot behind the last
    block : Out(BLOCK_TAG): with the `swap` that ends the block
    again, keep : Out(1): in the last slot of a block: the next block needs the same weights, or new ones
    tail : Out(range(rows + 1)): pixels of the last block of each n; settled before the block's tag
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        members = {
            "swap": Out(1),
            "block": Out(BLOCK_TAG),
            "again": Out(1),
            "keep": Out(1),
            "tail": Out(range(rows + 1)),
        }
        super().__init__(rows, keeps_place=True, members=members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        walk = self._walk(m)
        folds, pixels, slot = walk.folds, walk.pixels, walk.slot
        block_ends, n_ends = Signal(), Signal()
        m.d.comb += [
            walk.fold_ends.eq(self.running & slot.last),
            block_ends.eq(walk.fold_ends & folds.last_fold),
            n_ends.eq(block_ends & walk.pixels_end),
            folds.again.eq(~walk.pixels_end),
            pixels.origin.eq(self.start | n_ends),
            pixels.keep.eq(block_ends & ~walk.pixels_end),
            pixels.rewind.eq(walk.fold_ends & ~folds.last_fold),
            self.again.eq(pixels.keep),
            self.keep.eq(n_ends),
        ]
        m.d.sync += [
            self.swap.eq(self.start | block_ends),
            self.block.valid.eq(block_ends),
            self.block.n_last.eq(n_ends),
            self.block.final.eq(n_ends & folds.last_block),
        ]
        # the same for every n, so that it may be told again while an earlier block is on its way out
        with m.If(walk.reads & pixels.last):
            m.d.sync += self.tail.eq(self.rows + 1 - slot.left)
        return m
