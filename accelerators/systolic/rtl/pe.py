"""Processing elements: an int8 activation times a narrow weight, operands and product registered."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ACTIVATION_BITS = 8
ACCUMULATOR_BITS = 32


class WeightStationaryPe(wiring.Component):
    """Holds one weight; activations pass to the right, partial sums downwards.

    A fold's weight is taken in the cycle its first activation arrives, so no second weight register is needed:
    `load` travels to the right with the first pixel of a fold. An activation that arrives in cycle t
    is part of `psum_out` in cycle t + 3.

    Parameters
    ----------
    weight_bits, psum_bits
        Widths of the weight and of the partial sum; the latter must hold the whole column's sum.

    Members
    -------
    a_in, load_in : In, a_out, load_out : Out(one cycle later)
    weight : In(signed(weight_bits)), taken when `load_in`
    psum_in : In(signed(psum_bits)), two cycles behind its activation; psum_out : Out, one cycle later
    """

    def __init__(self, weight_bits: int, psum_bits: int) -> None:
        self.weight_bits, self.psum_bits = weight_bits, psum_bits
        super().__init__(
            {
                "a_in": In(signed(ACTIVATION_BITS)),
                "load_in": In(1),
                "weight": In(signed(weight_bits)),
                "psum_in": In(signed(psum_bits)),
                "a_out": Out(signed(ACTIVATION_BITS)),
                "load_out": Out(1),
                "psum_out": Out(signed(psum_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = Signal(signed(self.weight_bits), reset_less=True)
        product = Signal(signed(ACTIVATION_BITS + self.weight_bits), reset_less=True)
        with m.If(self.load_in):
            m.d.sync += held.eq(self.weight)
        m.d.sync += [
            self.a_out.eq(self.a_in),
            self.load_out.eq(self.load_in),
            product.eq(self.a_out * held),
            self.psum_out.eq(self.psum_in + product),
        ]
        return m


class OutputStationaryPe(wiring.Component):
    """Keeps one 32-bit sum; activations pass to the right, weights downwards.

    `swap` travels with the first activation of a block: the finished sum moves to the drain register and a new
    one begins. Finished sums move down the drain registers under `shift`.

    Parameters
    ----------
    weight_bits
        Width of the weight.

    Members
    -------
    a_in, swap_in, w_in : In, a_out, swap_out, w_out : Out(one cycle later)
    shift_in : In(1), shift_out : Out(one cycle later): take `drain_in`; a swap goes first
    drain_in : In(signed(32)), drain_out : Out(signed(32))
    """

    def __init__(self, weight_bits: int) -> None:
        self.weight_bits = weight_bits
        super().__init__(
            {
                "a_in": In(signed(ACTIVATION_BITS)),
                "swap_in": In(1),
                "w_in": In(signed(weight_bits)),
                "shift_in": In(1),
                "drain_in": In(signed(ACCUMULATOR_BITS)),
                "a_out": Out(signed(ACTIVATION_BITS)),
                "swap_out": Out(1),
                "w_out": Out(signed(weight_bits)),
                "shift_out": Out(1),
                "drain_out": Out(signed(ACCUMULATOR_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product = Signal(signed(ACTIVATION_BITS + self.weight_bits), reset_less=True)
        total = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        swap = Signal()
        m.d.sync += [
            self.a_out.eq(self.a_in),
            self.w_out.eq(self.w_in),
            self.swap_out.eq(self.swap_in),
            self.shift_out.eq(self.shift_in),
            product.eq(self.a_out * self.w_out),
            swap.eq(self.swap_out),
            total.eq(product + Mux(swap, 0, total)),
        ]
        with m.If(swap):
            m.d.sync += self.drain_out.eq(total)
        with m.Elif(self.shift_in):
            m.d.sync += self.drain_out.eq(self.drain_in)
        return m
