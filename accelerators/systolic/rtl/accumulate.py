"""The way from the array into the accumulator memory: which row a result belongs to, and its addition."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accelerators.systolic.rtl.pe import ACCUMULATOR_BITS
from accelerators.systolic.rtl.skew import delay_control
from dse.rtl.interfaces import ADDRESS_BITS, READ_LATENCY, ReadPort, WritePort

#: What is known of one accumulator row when its old value is read: `add` keeps it, `final` ends the descriptor.
ROW = data.StructLayout({"valid": 1, "add": 1, "final": 1, "address": ADDRESS_BITS})

#: What travels with a pixel through the weight-stationary array. The last three are set on one pixel each:
#: the last of a fold, of a block n, of the descriptor.
PIXEL_TAG = data.StructLayout({"valid": 1, "fold_last": 1, "block_last": 1, "final": 1})

#: Marks the end of a pixel block of the output-stationary array: `n_last` if it ends block n (and may be
#: partial), `final` if it ends the descriptor.
BLOCK_TAG = data.StructLayout({"valid": 1, "n_last": 1, "final": 1})


class Accumulate(wiring.Component):
    """Adds array results to accumulator rows, or replaces them.

    A row announced in cycle t is read in t, meets its `results` in t + 2 and is written in t + 3; the same row
    may be announced again in t + 4.

    Parameters
    ----------
    columns
        Elements of a row.
    result_bits
        Width of an array result; sign-extended to 32 bits.

    Members
    -------
    row : In(ROW), results : In(columns * result_bits), two cycles behind
    read : Out(ReadPort(columns * 32)), write : Out(WritePort(columns * 32))
    done : Out(1): the final row is written in this cycle
    """

    def __init__(self, columns: int, result_bits: int) -> None:
        self.columns, self.result_bits = columns, result_bits
        super().__init__(
            {
                "row": In(ROW),
                "results": In(columns * result_bits),
                "read": Out(ReadPort(columns * ACCUMULATOR_BITS)),
                "write": Out(WritePort(columns * ACCUMULATOR_BITS)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arrived = delay_control(m, self.row, READ_LATENCY, "row_arrived")
        sums = []
        for j in range(self.columns):
            old = self.read.data.word_select(j, ACCUMULATOR_BITS).as_signed()
            result = self.results.word_select(j, self.result_bits).as_signed()
            sums.append((Mux(arrived.add, old, 0) + result)[:ACCUMULATOR_BITS])
        m.d.comb += [self.read.en.eq(self.row.valid & self.row.add), self.read.addr.eq(self.row.address)]
        m.d.sync += [
            self.write.en.eq(arrived.valid),
            self.write.addr.eq(arrived.address),
            self.write.data.eq(Cat(sums)),
            self.done.eq(arrived.valid & arrived.final),
        ]
        return m


class StreamedRows(wiring.Component):
    """Rows of the weight-stationary array's results: pixels in order, a block's rows anew in each of its folds.

    Members
    -------
    start : In(1), base : In(16): row of the first pixel
    accumulate : In(1): the first fold of a block adds, too
    tag : In(PIXEL_TAG), row : Out(ROW), in the same cycle
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "base": In(ADDRESS_BITS),
                "accumulate": In(1),
                "tag": In(PIXEL_TAG),
                "row": Out(ROW),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        address, block, following = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        first_fold = Signal()
        m.d.comb += [
            following.eq(address + 1),
            self.row.valid.eq(self.tag.valid),
            self.row.add.eq(self.accumulate | ~first_fold),
            self.row.final.eq(self.tag.final),
            self.row.address.eq(address),
        ]
        with m.If(self.start):
            m.d.sync += [address.eq(self.base), block.eq(self.base), first_fold.eq(1)]
        with m.Elif(self.tag.valid):
            m.d.sync += address.eq(Mux(self.tag.fold_last & ~self.tag.block_last, block, following))
            with m.If(self.tag.fold_last):
                m.d.sync += first_fold.eq(self.tag.block_last)
            with m.If(self.tag.block_last):
                m.d.sync += block.eq(following)
        return m


class DrainedRows(wiring.Component):
    """Rows of the output-stationary array's results: each block backwards, without the pixels it lacks.

    Parameters
    ----------
    rows
        Pixels of a full block.

    Members
    -------
    start : In(1), base : In(16): row of the first pixel
    accumulate : In(1)
    tail : In(range(rows + 1)): pixels of the last block of each n, 1 to `rows`
    tag : In(BLOCK_TAG); row : Out(ROW): the block's rows, in the `rows` cycles behind its tag
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        super().__init__(
            {
                "start": In(1),
                "base": In(ADDRESS_BITS),
                "accumulate": In(1),
                "tail": In(range(rows + 1)),
                "tag": In(BLOCK_TAG),
                "row": Out(ROW),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        base, address = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        pixel = Signal(range(self.rows))
        active, present, final = Signal(), Signal(), Signal()
        partial = Signal()
        m.d.comb += [
            partial.eq(self.tag.n_last & (self.tail != self.rows)),
            self.row.valid.eq(active & present),
            self.row.add.eq(self.accumulate),
            self.row.final.eq(final & (pixel == 0)),
            self.row.address.eq(address),
        ]
        with m.If(self.tag.valid):
            m.d.sync += [
                active.eq(1),
                present.eq(~partial),
                final.eq(self.tag.final),
                pixel.eq(self.rows - 1),
                address.eq(base + (self.rows - 1)),
                base.eq(base + Mux(partial, self.tail, self.rows)),
            ]
        with m.Else():
            m.d.sync += [pixel.eq(pixel - 1), address.eq(address - 1)]
            with m.If(pixel == self.tail):
                m.d.sync += present.eq(1)
            with m.If(pixel == 0):
                m.d.sync += active.eq(0)
        with m.If(self.start):
            m.d.sync += base.eq(self.base)
        return m
