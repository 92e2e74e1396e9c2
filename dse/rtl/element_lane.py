"""Arithmetic lane of the element unit: products, sums, extremes and windows of int32 operands, modulo 2**64.

A rigid pipeline like the lanes of `dse.rtl.requantize`: a value enters and one leaves per cycle. Two multipliers
stand behind each other; the second takes the first one's product (MUL), the other operand (ADD, SUB) or the sum of a
window (AVERAGE). Values are those of `dse.program.tile.isa_element`, bit for bit.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile.isa_element import Function, Rounding
from dse.rtl.requantize import delay, register

OPERAND_BITS = 32
#: An operand minus its zero point.
_CENTRED_BITS = OPERAND_BITS + 1
_PRODUCT_BITS = 64
_MULTIPLIER_BITS = 24
#: Limbs of the multipliers.
_LIMB = 16
#: Results saturate to this before the zero point; the destination saturates to int32 behind it.
RESULT_BITS = 34


class CentredProduct(wiring.Component):
    """a * b modulo 2**64 of two 33-bit operands, out of four 16- or 17-bit products.

    Members
    -------
    a, b : In(signed(33)), product : Out(signed(64)), 3 cycles later
    """

    latency = 3

    def __init__(self) -> None:
        operand = In(signed(_CENTRED_BITS))
        super().__init__({"a": operand, "b": operand, "product": Out(signed(_PRODUCT_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a_low, a_high = self.a[:_LIMB], self.a[_LIMB:].as_signed()
        b_low, b_high = self.b[:_LIMB], self.b[_LIMB:].as_signed()
        low = register(m, a_low * b_low, "low")
        cross_a, cross_b = register(m, a_low * b_high, "cross_a"), register(m, a_high * b_low, "cross_b")
        high = register(m, a_high * b_high, "high")
        # the low and the high product do not overlap: only the cross products need adders
        outer = register(m, Cat(low, high)[:_PRODUCT_BITS], "outer")
        cross = register(m, cross_a + cross_b, "cross")
        total = register(m, (outer + (cross << _LIMB))[:_PRODUCT_BITS], "total")
        m.d.comb += self.product.eq(total)
        return m


class ScaledProduct(wiring.Component):
    """a * b modulo 2**64 of a 64-bit value and a 24-bit multiplier, out of eight 16-bit products.

    Members
    -------
    a : In(signed(64)), b : In(24), product : Out(signed(64)), 3 cycles later
    """

    latency = 3

    def __init__(self) -> None:
        super().__init__(
            {
                "a": In(signed(_PRODUCT_BITS)),
                "b": In(_MULTIPLIER_BITS),
                "product": Out(signed(_PRODUCT_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        limbs = [self.a[at : at + _LIMB] for at in range(0, _PRODUCT_BITS, _LIMB)]
        halves = []
        for name, factor in (("low", self.b[:_LIMB]), ("high", self.b[_LIMB:])):
            parts = [register(m, limb * factor, f"{name}_{index}") for index, limb in enumerate(limbs)]
            even, odd = (Cat(_wide(parts[at]), _wide(parts[at + 2])) for at in (0, 1))
            halves.append(register(m, (even + (odd << _LIMB))[:_PRODUCT_BITS], name))
        total = register(m, (halves[0] + (halves[1] << _LIMB))[:_PRODUCT_BITS], "total")
        m.d.comb += self.product.eq(total)
        return m


def _wide(value: Any) -> Any:
    """An unsigned partial product in exactly two limbs."""
    return Cat(value, Const(0, 2 * _LIMB - len(value)))


class ElementLane(wiring.Component):
    """One lane: operands in, the result with its zero point `latency` cycles later.

    Members
    -------
    a, b, old : In(signed(32)): sources and the destination's old value
    begins : In(1): `a` is the first of its window
    function : In(3), windows : In(1): a `Function`; or, with `windows`, the sum of a window, `largest` its maximum
    zero_a : In(signed(17)), zero_b, zero_point : In(signed(9)), multiplier_a, multiplier_b : In(24), shift : In(6),
    rounding : In(2): descriptor fields; held still while values are in flight
    result : Out(signed(35))
    """

    #: zero points, two multipliers, sum, shift in two steps, saturation, zero point
    latency = 1 + CentredProduct.latency + ScaledProduct.latency + 1 + 2 + 1 + 1

    def __init__(self) -> None:
        operand = In(signed(OPERAND_BITS))
        super().__init__(
            {
                **dict.fromkeys(("a", "b", "old"), operand),
                **{name: In(1) for name in ("begins", "windows", "largest")},
                "function": In(3),
                "zero_a": In(signed(17)),
                "zero_b": In(signed(9)),
                "zero_point": In(signed(9)),
                "multiplier_a": In(_MULTIPLIER_BITS),
                "multiplier_b": In(_MULTIPLIER_BITS),
                "shift": In(6),
                "rounding": In(2),
                "result": Out(signed(RESULT_BITS + 1)),
            }
        )

    def _is(self, *functions: Function) -> Any:
        return Cat(self.function == function for function in functions).any()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x, y = register(m, self.a - self.zero_a, "x"), register(m, self.b - self.zero_b, "y")
        old = register(m, self.old, "old_1")
        extreme = self._is(Function.MAX, Function.MIN) | (self.windows & self.largest)
        product, other = self._first_product(m, x, y, old)
        window = delay(m, self._window(m, x), CentredProduct.latency - 1, "window")
        m.submodules.second = second = ScaledProduct()
        multiplied = self._is(Function.MUL)
        m.d.comb += [
            second.a.eq(Mux(self.windows, window, Mux(multiplied, product, other))),
            second.b.eq(Mux(self.windows | multiplied, self.multiplier_a, self.multiplier_b)),
        ]
        waited = delay(m, product, second.latency, "product")
        addend = delay(m, other, second.latency, "addend")
        largest = delay(m, window, second.latency, "largest")
        total = self._sum(m, waited, second.product, addend, largest)
        m.d.comb += self.result.eq(self._round(m, total, Mux(extreme, 0, self.shift)))
        return m

    def _first_product(self, m: Module, x: Any, y: Any, old: Any) -> tuple[Any, Any]:
        """x times what the function asks for, or the larger or smaller of both; and y beside it."""
        m.submodules.first = first = CentredProduct()
        multiplied, extreme = self._is(Function.MUL), self._is(Function.MAX, Function.MIN)
        kept = self._is(Function.MULADD, Function.MULSUB)
        factor = Mux(multiplied, y, Mux(kept, old, Mux(extreme, 1, self.multiplier_a)))
        takes_y = (x < y) ^ self._is(Function.MIN)
        m.d.comb += [first.a.eq(Mux(extreme & takes_y, y, x)), first.b.eq(factor)]
        return first.product, delay(m, y, first.latency, "y")

    def _window(self, m: Module, x: Any) -> Any:
        """Sum or maximum of a window up to x, a register."""
        begins = register(m, self.begins, "begins_1")
        window = Signal(signed(_CENTRED_BITS + 16), reset_less=True)
        with m.If(begins):
            m.d.sync += window.eq(x)
        with m.Elif(self.largest):
            m.d.sync += window.eq(Mux(x > window, x, window))
        with m.Else():
            m.d.sync += window.eq(window + x)
        return window

    def _sum(self, m: Module, product: Any, scaled: Any, addend: Any, largest: Any) -> Any:
        """Both products, or product and operand, in a register of 64 bits."""
        alone = self._is(Function.COPY, Function.MAX, Function.MIN) & ~self.windows
        first = Mux(self.windows | self._is(Function.MUL), 0, product)
        second = Mux(self._is(Function.MULADD, Function.MULSUB) & ~self.windows, addend, scaled)
        subtracts = self._is(Function.SUB, Function.MULSUB) & ~self.windows
        total = Signal(signed(_PRODUCT_BITS), reset_less=True)
        with m.If(self.windows & self.largest):
            m.d.sync += total.eq(largest)
        with m.Elif(alone):
            m.d.sync += total.eq(product)
        with m.Elif(subtracts):
            m.d.sync += total.eq(first - second)
        with m.Else():
            m.d.sync += total.eq(first + second)
        return total

    def _round(self, m: Module, total: Any, shift: Any) -> Any:
        """Four stages: total >> shift in two steps, rounded, saturated, plus the zero point.

        A bit below the result's lowest goes along: what it holds at the end is the rounding bit.
        """
        doubled = Cat(0, total).as_signed()
        coarse = Signal(signed(len(doubled)), reset_less=True)
        sticky = Signal(reset_less=True)
        with m.Switch(shift[4:6]):
            for step in range(4):
                with m.Case(step):
                    m.d.sync += [coarse.eq(doubled >> 16 * step), sticky.eq(doubled[: 16 * step].any())]
        dropped = Cat((shift[:4] > place) & coarse[place] for place in range(15)).any()
        shifted = register(m, coarse >> shift[:4], "shifted")
        sticky = register(m, sticky | dropped, "sticky_2")
        floor, half = shifted >> 1, shifted[0]
        up = half & (
            (self.rounding == Rounding.HALF_UP) | ((self.rounding == Rounding.HALF_EVEN) & (sticky | floor[0]))
        )
        narrow = Signal(signed(RESULT_BITS), reset_less=True)
        top = floor[RESULT_BITS - 1 :]
        with m.If(top.any() & ~top.all()):
            limit = 1 << (RESULT_BITS - 1)
            m.d.sync += narrow.eq(Mux(floor[-1], -limit, limit - 1))
        with m.Else():
            m.d.sync += narrow.eq(floor)
        return register(m, narrow + register(m, up, "up") + self.zero_point, "result")
