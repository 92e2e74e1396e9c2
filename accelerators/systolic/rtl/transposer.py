"""Rows of pixels to columns of channels: one parallel-in, serial-out register per array row.

Words come one a cycle, and row i of a skewed array starts i cycles late: so each row takes its word whole
just before it needs the first byte, and is empty when the next fold's word comes. The skew costs nothing.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accelerators.systolic.rtl.pe import ACTIVATION_BITS
from accelerators.systolic.rtl.skew import token_line


class SkewedTransposer(wiring.Component):
    """Turns `rows` words of `rows` bytes into `rows` skewed streams of bytes.

    Parameters
    ----------
    rows
        Words of a fold and bytes of a word; >= 2.

    Members
    -------
    word : In(rows * 8): word i of a fold comes i cycles after its first
    fold : In(1): with the first word of a fold; folds are at least `rows` cycles apart
    streams : Out(ArrayLayout(signed(8), rows)): byte k of word i, 1 + i + k cycles after the first word
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(
            {
                "word": In(rows * ACTIVATION_BITS),
                "fold": In(1),
                "streams": Out(data.ArrayLayout(signed(ACTIVATION_BITS), rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for i, load in enumerate(token_line(m, self.fold, self.rows, "fold")):
            held = Signal(self.rows * ACTIVATION_BITS, name=f"row_{i}", reset_less=True)
            m.d.sync += held.eq(Mux(load, self.word, held >> ACTIVATION_BITS))
            m.d.comb += self.streams[i].eq(held[:ACTIVATION_BITS])
        return m
