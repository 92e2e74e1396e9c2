"""Where results go in the activation scratchpad: channels are consecutive bytes behind a pixel's first word.

Lane j of block n of pixel (y, x) is byte (n*columns + j) % rows of word
base + y*stride_y + x*stride_x + (n*columns + j) // rows. Only additions: the place where a block's first pixel ends
is where the next block's begins.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from dse.rtl.interfaces import ADDRESS_BITS

COUNT_BITS = 16


class ActivationWalker(wiring.Component):
    """Word and byte of `lanes` channels after another, in the order block, line, pixel, channel.

    Parameters
    ----------
    rows
        Bytes of a word.
    columns
        Channels of a block.
    lanes
        Channels of a step; divides `rows` and `columns`.

    Members
    -------
    load : In(1), base : In(16): begin anew
    height, width : In(16): pixels of a block; stride_y, stride_x : In(16): words from line to line, pixel to pixel;
        stable while steps are taken
    step : In(1): the current lanes are used in this cycle
    addr : Out(16), part : Out(rows // lanes), one-hot: where in the word the lanes lie
    """

    def __init__(self, rows: int, columns: int, lanes: int) -> None:
        self.parts, self.groups = rows // lanes, columns // lanes
        members: dict[str, Any] = {name: In(COUNT_BITS) for name in ("height", "width", "stride_y", "stride_x")}
        super().__init__(
            {
                **members,
                "load": In(1),
                "base": In(ADDRESS_BITS),
                "step": In(1),
                "addr": Out(ADDRESS_BITS),
                "part": Out(self.parts, init=1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        group = Signal(self.groups, init=1)
        x_left, y_left = Signal(COUNT_BITS), Signal(COUNT_BITS)
        pixel_ends, line_ends, block_ends = Signal(), Signal(), Signal()
        m.d.comb += [
            pixel_ends.eq(self.step & group[-1]),
            line_ends.eq(pixel_ends & (x_left == 1)),
            block_ends.eq(line_ends & (y_left == 1)),
        ]
        # where the lanes behind the current ones lie; kept at the end of a block's first pixel
        behind, behind_part = Signal(ADDRESS_BITS), Signal(self.parts)
        kept, kept_part = Signal(ADDRESS_BITS), Signal(self.parts)
        first_pixel = Signal(init=1)
        m.d.comb += [
            behind.eq(self.addr + self.part[-1]),
            behind_part.eq(self.part.rotate_left(1)),
        ]
        pixel, line, begin_part = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(self.parts, init=1)
        moved, origin = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        m.d.comb += origin.eq(Mux(first_pixel, behind, kept))
        with m.If(block_ends):
            m.d.comb += moved.eq(origin)
        with m.Else():
            stride = Mux(line_ends, self.stride_y, self.stride_x)
            m.d.comb += moved.eq(Mux(line_ends, line, pixel) + stride)

        with m.If(self.load):
            m.d.sync += [self.addr.eq(self.base), pixel.eq(self.base), line.eq(self.base)]
            m.d.sync += [self.part.eq(1), begin_part.eq(1), group.eq(1), first_pixel.eq(1)]
            m.d.sync += [x_left.eq(self.width), y_left.eq(self.height)]
        with m.Elif(self.step):
            m.d.sync += [group.eq(group.rotate_left(1)), self.addr.eq(behind), self.part.eq(behind_part)]
            with m.If(pixel_ends):
                m.d.sync += [self.addr.eq(moved), pixel.eq(moved), self.part.eq(begin_part), x_left.eq(x_left - 1)]
                m.d.sync += first_pixel.eq(block_ends)
                with m.If(first_pixel):
                    m.d.sync += [kept.eq(behind), kept_part.eq(behind_part)]
            with m.If(line_ends):
                m.d.sync += [line.eq(moved), x_left.eq(self.width), y_left.eq(y_left - 1)]
            with m.If(block_ends):
                next_part = Mux(first_pixel, behind_part, kept_part)
                m.d.sync += [self.part.eq(next_part), begin_part.eq(next_part), y_left.eq(self.height)]
        return m
