"""Output-stationary array: row i keeps the sums of pixel i, column j those of output channel j."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accelerators.systolic.rtl.pe import ACCUMULATOR_BITS, ACTIVATION_BITS, OutputStationaryPe
from accelerators.systolic.rtl.skew import delay_control, deskewed, skewed, token_line
from accelerators.systolic.rtl.transposer import SkewedTransposer

#: From `swap_in` of an element to the finished sum in its drain register: operands, product, drain.
_SWAP_TO_DRAIN = 3


class OutputStationaryArray(wiring.Component):
    """rows x columns output-stationary processing elements behind a transposer, with the way out.

    A block is `rows` pixels, of which the last may be missing (their sums are then unspecified), and any number
    of folds, each `rows` cycles long: `rows` activation words, one per pixel, and `rows` weight words, one
    per element of the reduction. Results leave through the drain registers, last pixel first, one row a cycle,
    while the next block computes: a drain takes `rows` cycles, a block at least as many.

    The drain of column 0 starts when the bottom row has its sum. Row i must pass on the i sums from above and then
    rest, since the next block's sum may already follow; `shifts` counts that in unary.

    Parameters
    ----------
    rows, columns
        >= 2 each. `rows` lie along pixels and are also the reduction elements of a fold.
    weight_bits
        4 or 8.

    Members
    -------
    word : In(rows * 8): activation word of pixel i, i cycles after the fold's first
    weights : In(columns * weight_bits): word k of a fold, k + 1 cycles after the fold's first activation word
    fold : In(1): with the first activation word of a fold
    swap : In(1): with the first activation word of a block, or in its place behind the last block
    sums : Out(columns * 32): results, pixel rows - 1 first, from `latency` cycles after the `swap` that ends
        their block, one pixel a cycle
    """

    def __init__(self, rows: int, columns: int, weight_bits: int) -> None:
        self.rows, self.columns, self.weight_bits = rows, columns, weight_bits
        #: transposer, swap to drain register, skew down to the bottom row and across to the last column
        self.latency = 1 + _SWAP_TO_DRAIN + (rows - 1) + (columns - 1)
        super().__init__(
            {
                "word": In(rows * ACTIVATION_BITS),
                "weights": In(columns * weight_bits),
                "fold": In(1),
                "swap": In(1),
                "sums": Out(columns * ACCUMULATOR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.transposer = transposer = SkewedTransposer(self.rows)
        m.d.comb += [transposer.word.eq(self.word), transposer.fold.eq(self.fold)]
        swap = delay_control(m, self.swap, 1, "swap")
        shifts = self._shifts(m, swap)
        swaps = token_line(m, swap, self.rows, "swap_row")
        weights = skewed(m, [self.weights.word_select(j, self.weight_bits) for j in range(self.columns)], "weight")
        weights = [weight.as_signed() for weight in weights]
        drains = [Const(0, signed(ACCUMULATOR_BITS))] * self.columns
        for i in range(self.rows):
            a, swap, shift = transposer.streams[i], swaps[i], shifts[i]
            for j in range(self.columns):
                m.submodules[f"pe_{i}_{j}"] = pe = OutputStationaryPe(self.weight_bits)
                m.d.comb += [
                    pe.a_in.eq(a),
                    pe.swap_in.eq(swap),
                    pe.w_in.eq(weights[j]),
                    pe.shift_in.eq(shift),
                    pe.drain_in.eq(drains[j]),
                ]
                a, swap, shift = pe.a_out, pe.swap_out, pe.shift_out
                weights[j], drains[j] = pe.w_out, pe.drain_out
        m.d.comb += self.sums.eq(Cat(deskewed(m, drains, "sum")))
        return m

    def _shifts(self, m: Module, swap: Signal) -> list[Signal]:
        """Shift enables of column 0: row i is enabled for i cycles from when the bottom row holds its sum.

        `swap` is aligned with the block's first activation at element (0, 0). One cycle of the wait is the
        register `shifts` itself.
        """
        shifts = Signal(self.rows)
        full = Const((1 << self.rows) - 2, self.rows)
        start = delay_control(m, swap, _SWAP_TO_DRAIN + (self.rows - 1) - 1, "drain")
        m.d.sync += shifts.eq(shifts << 1)
        with m.If(start):
            m.d.sync += shifts.eq(full)
        return list(shifts)
