"""Weight-stationary array: pixels stream through skewed rows, weights arrive with the first pixel of a fold."""

from __future__ import annotations

import math

from amaranth.hdl import Cat, Const, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accelerators.systolic.rtl.pe import ACTIVATION_BITS, WeightStationaryPe
from accelerators.systolic.rtl.skew import deskewed, skewed, token_line


class WeightStationaryArray(wiring.Component):
    """rows x columns weight-stationary processing elements with skew and deskew.

    Row i works i cycles behind row 0 and column j another j cycles. The weight words of a fold come in order,
    one a cycle from the first pixel on; so word i is on the weight bus in the very cycle in which the first
    pixel reaches row i, and the fold's token tells that row to take it. The fold before keeps its weights in
    the rows and columns that the token has not reached.

    Parameters
    ----------
    rows, columns
        >= 2 each. `rows` lie along the reduction.
    weight_bits
        4 or 8.

    Members
    -------
    pixel : In(rows * 8): one activation word a cycle, row 0 in the lowest byte
    weights : In(columns * weight_bits): word i of a fold, i cycles after the fold's first pixel
    fold : In(1): with the first pixel of a fold
    psums : Out(columns * psum_bits): the pixel's dot products, `latency` cycles after it came
    """

    def __init__(self, rows: int, columns: int, weight_bits: int) -> None:
        self.rows, self.columns, self.weight_bits = rows, columns, weight_bits
        #: holds the sum of `rows` products exactly, so nothing wider travels down the columns
        self.psum_bits = ACTIVATION_BITS + weight_bits + math.ceil(math.log2(rows))
        self.latency = (rows - 1) + (columns - 1) + 3
        super().__init__(
            {
                "pixel": In(rows * ACTIVATION_BITS),
                "weights": In(columns * weight_bits),
                "fold": In(1),
                "psums": Out(columns * self.psum_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        activations = skewed(m, [self.pixel.word_select(i, ACTIVATION_BITS) for i in range(self.rows)], "pixel")
        buses = skewed(m, [self.weights.word_select(j, self.weight_bits) for j in range(self.columns)], "weight")
        tokens = token_line(m, self.fold, self.rows, "fold")
        psums = [Const(0, signed(self.psum_bits))] * self.columns
        for i in range(self.rows):
            a, load = activations[i].as_signed(), tokens[i]
            for j in range(self.columns):
                m.submodules[f"pe_{i}_{j}"] = pe = WeightStationaryPe(self.weight_bits, self.psum_bits)
                m.d.comb += [
                    pe.a_in.eq(a),
                    pe.load_in.eq(load),
                    pe.weight.eq(buses[j].as_signed()),
                    pe.psum_in.eq(psums[j]),
                ]
                a, load, psums[j] = pe.a_out, pe.load_out, pe.psum_out
        m.d.comb += self.psums.eq(Cat(deskewed(m, psums, "psum")))
        return m
