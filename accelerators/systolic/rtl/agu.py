"""Address generators: nested loops as running counters, one addition a step, last-flags one step ahead."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, ValueLike
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from dse.rtl.interfaces import ADDRESS_BITS

COUNT_BITS = 16


class Countdown(wiring.Component):
    """Counts a loop's remaining rounds; `last` is registered, so that no compare stands behind the counter.

    Parameters
    ----------
    bits
        Width of the count.

    Members
    -------
    load : In(1), count : In(bits), >= 1: start again; goes before `step`
    step : In(1): a round ends
    left : Out(bits): rounds left, this one included
    last : Out(1): `left` is 1
    """

    def __init__(self, bits: int) -> None:
        super().__init__({"load": In(1), "count": In(bits), "step": In(1), "left": Out(bits), "last": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.load):
            m.d.sync += [self.left.eq(self.count), self.last.eq(self.count == 1)]
        with m.Elif(self.step):
            m.d.sync += [self.left.eq(self.left - 1), self.last.eq(self.left == 2)]
        return m


class FoldWalker(wiring.Component):
    """Activation address of the first pixel of each fold: loops n, r, s, c, innermost last; c has stride 1.

    Each level keeps the address at which its current round began; the end of a round adds the stride of the
    outermost level that goes on.

    Members
    -------
    start : In(1), base : In(16): first fold, its address
    n_count, r_count, s_count, c_count : In(16), >= 1; n_stride, r_stride, s_stride : In(16)
    step : In(1): the fold ends
    again : In(1): with the step behind the last fold of a block n: begin the same n once more
    address : Out(16): of the fold's first pixel
    last_fold : Out(1): of its block; last_block : Out(1): of the descriptor
    """

    def __init__(self) -> None:
        counts = {f"{level}_count": In(COUNT_BITS) for level in "nrsc"}
        strides = {f"{level}_stride": In(ADDRESS_BITS) for level in "nrs"}
        flags = {"start": In(1), "base": In(ADDRESS_BITS), "step": In(1), "again": In(1)}
        results = {"address": Out(ADDRESS_BITS), "last_fold": Out(1), "last_block": Out(1)}
        super().__init__({**flags, **counts, **strides, **results})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # ends[level]: this step ends a round of `level`, all inner levels being in their last round
        ends: dict[str, ValueLike] = {"c": self.step}
        counters: dict[str, Countdown] = {}
        inner = "c"
        for level in "csrn":
            m.submodules[f"{level}_counter"] = counter = counters[level] = Countdown(COUNT_BITS)
            if level != "c":
                ends[level] = ends[inner] & counters[inner].last
            if level == "n":
                ends[level] &= ~self.again
            m.d.comb += [
                counter.count.eq(getattr(self, f"{level}_count")),
                counter.step.eq(ends[level]),
                counter.load.eq(self.start | (ends[level] & counter.last)),
            ]
            inner = level
        n_base, r_base, s_base = (Signal(ADDRESS_BITS, name=f"{level}_base") for level in "nrs")
        with m.If(self.start):
            m.d.sync += [base.eq(self.base) for base in (n_base, r_base, s_base, self.address)]
        with m.Elif(self.step):
            following = Signal(ADDRESS_BITS)
            m.d.sync += self.address.eq(following)
            with m.If(~counters["c"].last):
                m.d.comb += following.eq(self.address + 1)
            with m.Elif(~counters["s"].last):
                m.d.comb += following.eq(s_base + self.s_stride)
                m.d.sync += s_base.eq(following)
            with m.Elif(~counters["r"].last):
                m.d.comb += following.eq(r_base + self.r_stride)
                m.d.sync += [r_base.eq(following), s_base.eq(following)]
            with m.Else():
                m.d.comb += following.eq(n_base + Mux(self.again, 0, self.n_stride))
                m.d.sync += [n_base.eq(following), r_base.eq(following), s_base.eq(following)]
        m.d.comb += [
            self.last_fold.eq(counters["c"].last & counters["s"].last & counters["r"].last),
            self.last_block.eq(counters["n"].last),
        ]
        return m


#: A position among the pixels of a fold: its offset, that of its row's first pixel, what is left to do.
PIXEL_PLACE = data.StructLayout(
    {
        "offset": ADDRESS_BITS,
        "row": ADDRESS_BITS,
        "x_left": COUNT_BITS,
        "y_left": COUNT_BITS,
        "x_last": 1,
        "y_last": 1,
        "exhausted": 1,
    }
)


class PixelWalker(wiring.Component):
    """Address offset of the pixels of a fold, row by row, with a place to come back to.

    Each cycle at most one of `origin`, `rewind`, `keep`; they go before `step`.

    Parameters
    ----------
    keeps_place
        False: there is only the origin to come back to; `rewind` and `keep` must stay low.

    Members
    -------
    height, width : In(16), >= 1; y_stride, x_stride : In(16)
    step : In(1): on to the next pixel
    origin : In(1): to the first pixel, which becomes the kept place
    rewind : In(1): back to the kept place
    keep : In(1): on to the next pixel, which becomes the kept place
    offset : Out(16); last : Out(1): the last pixel; exhausted : Out(1): all pixels have been stepped over
    """

    def __init__(self, *, keeps_place: bool) -> None:
        self.keeps_place = keeps_place
        sizes = {name: In(COUNT_BITS) for name in ("height", "width", "y_stride", "x_stride")}
        flags = {name: In(1) for name in ("step", "origin", "rewind", "keep")}
        super().__init__({**sizes, **flags, "offset": Out(ADDRESS_BITS), "last": Out(1), "exhausted": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        here, following, first = (Signal(PIXEL_PLACE, name=name) for name in ("here", "following", "first"))
        next_row = Signal(ADDRESS_BITS)
        m.d.comb += [
            self.offset.eq(here.offset),
            self.last.eq(here.x_last & here.y_last),
            self.exhausted.eq(here.exhausted),
            first.x_left.eq(self.width),
            first.y_left.eq(self.height),
            first.x_last.eq(self.width == 1),
            first.y_last.eq(self.height == 1),
            next_row.eq(here.row + self.y_stride),
            following.eq(here),
            following.exhausted.eq(self.last),
        ]
        with m.If(here.x_last):
            m.d.comb += [
                following.offset.eq(next_row),
                following.row.eq(next_row),
                following.x_left.eq(first.x_left),
                following.x_last.eq(first.x_last),
                following.y_left.eq(here.y_left - 1),
                following.y_last.eq(here.y_left == 2),
            ]
        with m.Else():
            m.d.comb += [
                following.offset.eq(here.offset + self.x_stride),
                following.x_left.eq(here.x_left - 1),
                following.x_last.eq(here.x_left == 2),
            ]
        with m.If(self.origin):
            m.d.sync += here.eq(first)
        with m.Elif(self.step | self.keep):
            m.d.sync += here.eq(following)
        if self.keeps_place:
            kept = Signal(PIXEL_PLACE)
            with m.If(self.origin):
                m.d.sync += kept.eq(first)
            with m.Elif(self.keep):
                m.d.sync += kept.eq(following)
            with m.If(self.rewind):
                m.d.sync += here.eq(kept)
        return m


class WeightWalker(wiring.Component):
    """Address of the weight words, one after the other, with the block's first word to come back to.

    Members
    -------
    start : In(1), base : In(16): the first word's address
    step : In(1): on to the next word
    again : In(1): with the step behind a block's last word: back to its first
    keep : In(1): with the step behind a block's last word: the next word starts a new block
    address : Out(16)
    """

    def __init__(self) -> None:
        flags = {name: In(1) for name in ("start", "step", "again", "keep")}
        super().__init__({**flags, "base": In(ADDRESS_BITS), "address": Out(ADDRESS_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block, following = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        m.d.comb += following.eq(self.address + 1)
        with m.If(self.start):
            m.d.sync += [self.address.eq(self.base), block.eq(self.base)]
        with m.Elif(self.step):
            m.d.sync += self.address.eq(Mux(self.again, block, following))
            with m.If(self.keep):
                m.d.sync += block.eq(following)
        return m
