"""Arithmetic lanes of the vector unit: int32 accumulators to int8 in both modes, and the residual add.

Every lane is a rigid pipeline: one value enters and one leaves per cycle, `latency` cycles apart, with no
valid signal and no stall. Values are those of `dse.ir.requantize`, bit for bit.

Stages are cut for small FPGAs: 16 x 16 bit partial products with registers on both sides, barrel shifters in
two steps, at most one carry chain between registers. Registers of the data path need no reset.

Only results within int8 plus zero point matter, so values are saturated to a few guard bits before the last,
otherwise wide, shift.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from dse.ir.requantize import ADD_MULTIPLIER_BITS

#: Widest operand that one signed 18 x 18 multiplier takes; wider ones are split at bit 16.
_NARROW_BITS = 18
_SPLIT_BIT = 16

#: Results are rounded to this many bits more than the clamped value has, sign included, before the zero point;
#: saturated values lie far outside the clamp whatever the zero point.
_GUARD_BITS = 4
_INT8_BITS = 8


def register(m: Module, value: Any, name: str) -> Signal:
    """A register without reset that takes `value` at each clock edge; same shape."""
    held = Signal(Shape.cast(value.shape()), name=name, reset_less=True)
    m.d.sync += held.eq(value)
    return held


def delay(m: Module, value: Any, cycles: int, name: str) -> Any:
    """`value` as it was `cycles` cycles ago; `cycles` >= 0."""
    for cycle in range(cycles):
        value = register(m, value, f"{name}_d{cycle + 1}")
    return value


class SplitMultiplier(wiring.Component):
    """Product of a signed or unsigned `a` and an unsigned `b`, out of 16-bit partial products.

    Parameters
    ----------
    a_shape, b_bits
        Shape of `a`; width of `b`, above 16.

    Members
    -------
    a, b : In
    product : Out, `latency` cycles later (2 when `a` fits one multiplier port, else 3)
    """

    def __init__(self, a_shape: Any, b_bits: int) -> None:
        shape = Shape.cast(a_shape)
        self.narrow = shape.width < _NARROW_BITS + shape.signed
        self.latency = 2 if self.narrow else 3
        product = signed(shape.width + b_bits) if shape.signed else unsigned(shape.width + b_bits)
        super().__init__({"a": In(shape), "b": In(b_bits), "product": Out(product)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        b_low, b_high = self.b[:_SPLIT_BIT], self.b[_SPLIT_BIT:]
        total = Signal.like(self.product, reset_less=True, name="total")
        if self.narrow:
            low = register(m, self.a * b_low, "low")
            high = register(m, self.a * b_high, "high")
            m.d.sync += total.eq(low + (high << _SPLIT_BIT))
        else:
            a_low, a_high = self.a[:_SPLIT_BIT], self.a[_SPLIT_BIT:]
            if Shape.cast(self.a.shape()).signed:
                a_high = a_high.as_signed()
            low = register(m, a_low * b_low, "low")
            cross_a = register(m, a_low * b_high, "cross_a")
            cross_b = register(m, a_high * b_low, "cross_b")
            high = register(m, a_high * b_high, "high")
            # the low and the high product do not overlap: only the cross products need adders
            outer = register(m, Cat(low, high), "outer")
            cross = register(m, cross_a + cross_b, "cross")
            m.d.sync += total.eq(outer + (cross << _SPLIT_BIT))
        m.d.comb += self.product.eq(total)
        return m


class RoundShift(wiring.Component):
    """value >> shift rounded half up, saturated to `bits` bits: (value + 2**(shift-1)) >> shift; shift 0 keeps.

    The bit below the result's lowest is the rounding bit, so `value` is shifted with one extra bit at the
    bottom and no adder sees the full width. `rounded` is handed on unsummed as (floor, up).

    Members
    -------
    value : In(signed(value_bits)); shift : In(6); shift enters with its value
    floor : Out(signed(bits)), up : Out(1): result = floor + up, 3 cycles later
    """

    latency = 3

    def __init__(self, value_bits: int, bits: int = _INT8_BITS + _GUARD_BITS) -> None:
        self.bits = bits
        super().__init__(
            {
                "value": In(signed(value_bits)),
                "shift": In(6),
                "floor": Out(signed(bits)),
                "up": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        doubled = Cat(0, self.value).as_signed()
        steps = [(doubled >> (16 * step)) for step in range(4)]
        coarse = Signal(signed(len(doubled)), reset_less=True)
        with m.Switch(self.shift[4:6]):
            for step, shifted in enumerate(steps):
                with m.Case(step):
                    m.d.sync += coarse.eq(shifted)
        fine_1 = register(m, self.shift[:4], "fine_1")

        # after at most 15 more places a value this large is still beyond the result's use
        kept = self.bits + 1 + 14
        narrow = Signal(signed(kept), reset_less=True)
        top = coarse[kept - 1 :]
        with m.If(top.any() & ~top.all()):
            m.d.sync += narrow.eq(Mux(coarse[-1], -(1 << (kept - 1)), (1 << (kept - 1)) - 1))
        with m.Else():
            m.d.sync += narrow.eq(coarse)
        fine_2 = register(m, fine_1, "fine_2")

        shifted = Signal(signed(kept), reset_less=True)
        m.d.sync += shifted.eq(narrow >> fine_2)
        # saturated values may reach the limit of the bits: beyond half of it they are alike
        floor = shifted >> 1
        limit = 1 << (self.bits - 2)
        with m.If(floor >= limit):
            m.d.comb += self.floor.eq(limit)
        with m.Elif(floor < -limit):
            m.d.comb += self.floor.eq(-limit)
        with m.Else():
            m.d.comb += [self.floor.eq(floor), self.up.eq(shifted[0])]
        return m


def _offset_and_clamp(m: Module, value: Any, lane: Any, zero_point: Any) -> None:
    """Two stages: add the zero point, clamp into [lane.low, lane.high], drive lane.result."""
    offset = register(m, value + zero_point, "offset")
    clamped = Signal.like(lane.result, reset_less=True, name="clamped")
    with m.If(offset > lane.high):
        m.d.sync += clamped.eq(lane.high)
    with m.Elif(offset < lane.low):
        m.d.sync += clamped.eq(lane.low)
    with m.Else():
        m.d.sync += clamped.eq(offset)
    m.d.comb += lane.result.eq(clamped)


class RequantizeLane(wiring.Component):
    """What both requantizer modes share: their members.

    Parameters
    ----------
    bits
        Of the result: 8, or 16 for results that the element unit takes on.

    Members
    -------
    acc, bias : In(signed(32)); their sum must fit int32
    multiplier, shift : In(32), In(6): of `dse.ir.requantize.encode_scale`; an unused channel holds 0, 0
    zero_point, low, high : In(signed(bits)); held still while values are in flight; low <= high
    result : Out(signed(bits)): clamp(scaled(acc + bias) + zero_point, low, high), `latency` cycles later
    """

    latency: int

    def __init__(self, bits: int = _INT8_BITS) -> None:
        self.bits = bits
        super().__init__(
            {
                "acc": In(signed(32)),
                "bias": In(signed(32)),
                "multiplier": In(32),
                "shift": In(6),
                **{name: In(signed(bits)) for name in ("zero_point", "low", "high")},
                "result": Out(signed(bits)),
            }
        )


class RequantizeQ31(RequantizeLane):
    """Mode `q31`: ((acc + bias) * multiplier + 2**(shift-1)) >> shift, one rounding, half up."""

    latency = 9

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scale = scale = SplitMultiplier(signed(32), 32)
        m.submodules.round = rounder = RoundShift(64, self.bits + _GUARD_BITS)
        summed = Signal(signed(32), reset_less=True)
        m.d.sync += summed.eq(self.acc + self.bias)
        m.d.comb += [
            scale.a.eq(summed),
            scale.b.eq(register(m, self.multiplier, "multiplier_1")),
            rounder.value.eq(scale.product),
            rounder.shift.eq(delay(m, self.shift, 1 + scale.latency, "shift")),
        ]
        _offset_and_clamp(m, rounder.floor + rounder.up, self, self.zero_point)
        return m


class RequantizeOrt(RequantizeLane):
    """Mode `ort`: the float32 arithmetic of onnxruntime in integers, every rounding half to even.

    The magnitude is normalised to a leading one at bit 31 and rounded to 24 bits, so that the product with
    the 24-bit mantissa has its leading one at bit 46 or 47 and needs no second zero count. With p the leading
    one's position in the magnitude and `rounded` the 24-bit product, the value is rounded * 2**-right with
    right = shift - p - (1 if the product reached bit 47). Of int8, shifts outside 14..24 leave only the extremes; of
    int16, those outside 6..24.
    """

    latency = 15

    #: right shifts above leave at most one half, which is even zero
    _ZERO_ABOVE = 24

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scale = scale = SplitMultiplier(unsigned(25), 24)
        summed = Signal(signed(32), reset_less=True)
        m.d.sync += summed.eq(self.acc + self.bias)
        negative = delay(m, register(m, summed[-1], "negative"), 11, "negative")
        mantissa, exponent = self._normalise(m, summed)
        m.d.comb += [scale.a.eq(mantissa), scale.b.eq(delay(m, self.multiplier[:24], 5, "multiplier"))]
        product_exponent = delay(m, exponent, scale.latency, "exponent")
        rounded, right = self._round_product(m, scale.product, product_exponent)
        magnitude = self._shift_right(m, rounded, right)
        _offset_and_clamp(m, Mux(negative, -magnitude, magnitude), self, self.zero_point)
        return m

    def _normalise(self, m: Module, summed: Any) -> tuple[Any, Any]:
        """Four stages: sum -> (24-bit mantissa with carry in bit 24, shift - leading one's position)."""
        value = register(m, Mux(summed[-1], -summed, summed)[:32], "magnitude")
        right = delay(m, self.shift, 2, "shift")
        for stage, steps in enumerate(((16, 8), (4, 2, 1))):
            zeros = Signal(5, name=f"zeros_{stage}")
            for step in steps:
                empty = Signal(name=f"empty_{step}")
                m.d.comb += [empty.eq(~value[32 - step :].any()), zeros[step.bit_length() - 1].eq(empty)]
                value = Mux(empty, (value << step)[:32], value)
            value = register(m, value, f"normal_{stage}")
            # the leading one of a word without zeros above it stands at bit 31
            right = register(m, right + zeros - (31 if stage else 0), f"exponent_{stage}")
        quotient, half, rest = value[8:], value[7], value[:7].any()
        mantissa = register(m, quotient + (half & (rest | quotient[0])), "mantissa")
        return mantissa, register(m, right, "exponent_2")

    def _round_product(self, m: Module, product: Any, exponent: Any) -> tuple[Any, Any]:
        """Two stages: product -> (24 bits with carry in bit 24, right shift still to do)."""
        high = product[47]
        quotient = register(m, Mux(high, product[24:48], product[23:47]), "quotient")
        half = Mux(high, product[23], product[22])
        rest = product[:22].any() | (high & product[22])
        even = Mux(high, product[24], product[23])
        up = register(m, half & (rest | even), "quotient_up")
        right = register(m, exponent - high, "right_1")
        return register(m, quotient + up, "rounded"), register(m, right, "right_2")

    def _shift_right(self, m: Module, rounded: Any, right: Any) -> Any:
        """Three stages: rounded >> right, half to even, saturated -> magnitude."""
        result_bits = self.bits + _GUARD_BITS
        # right shifts below this leave 2**(result_bits - 2) at least
        saturating_below = self._ZERO_ABOVE + 2 - result_bits
        base = saturating_below - 1
        over = right < saturating_below
        # only zero lacks its leading one; its exponent means nothing
        under = (right > self._ZERO_ABOVE) | ~rounded[23:].any()
        most = self._ZERO_ABOVE - saturating_below
        distance = (right - saturating_below)[: most.bit_length()]
        window, sticky = rounded[base:], rounded[:base].any()
        window, sticky = self._step(m, window, sticky, distance[2:] << 2, tuple(range(0, most + 1, 4)), "coarse")
        over_1, under_1 = register(m, over, "over_1"), register(m, under, "under_1")
        fine = register(m, distance[:2], "fine_1")
        window, sticky = self._step(m, window, sticky, fine, (0, 1, 2, 3), "fine")
        over_2, under_2 = register(m, over_1, "over_2"), register(m, under_1, "under_2")
        quotient, half = window[1:], window[0]
        magnitude = Signal(result_bits - 1, reset_less=True)
        with m.If(under_2):
            m.d.sync += magnitude.eq(0)
        with m.Elif(over_2):
            m.d.sync += magnitude.eq(1 << (result_bits - 2))
        with m.Else():
            m.d.sync += magnitude.eq(quotient + (half & (sticky | quotient[0])))
        return magnitude

    def _step(
        self, m: Module, window: Any, sticky: Any, distance: Any, choices: tuple[int, ...], name: str
    ) -> tuple[Any, Any]:
        """One registered shift by one of `choices` that ORs the dropped bits into the sticky bit."""
        shifted = Signal(len(window), name=f"window_{name}", reset_less=True)
        dropped = Signal(name=f"sticky_{name}", reset_less=True)
        with m.Switch(distance):
            for choice in choices:
                with m.Case(choice):
                    m.d.sync += [shifted.eq(window >> choice), dropped.eq(sticky | window[:choice].any())]
        return shifted, dropped


class AddQ31(wiring.Component):
    """Residual add of mode `q31`: both inputs times integers, summed, shifted with one rounding, half up.

    Members
    -------
    y, residual : In(signed(8)), one pair a cycle
    zero_y, zero_residual, zero_out, low, high : In(signed(8)); multiplier_y, multiplier_residual : In(24);
    shift : In(6): held still while values are in flight; with multipliers 1 and 0, zero points 0 and shift 0
    the lane hands y on, clamped
    result : Out(signed(8)), `latency` cycles later
    """

    latency = 9

    def __init__(self) -> None:
        signed_bytes = ("y", "residual", "zero_y", "zero_residual", "zero_out", "low", "high")
        super().__init__(
            {
                **{name: In(signed(8)) for name in signed_bytes},
                "multiplier_y": In(ADD_MULTIPLIER_BITS),
                "multiplier_residual": In(ADD_MULTIPLIER_BITS),
                "shift": In(6),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scale_y = scale_y = SplitMultiplier(signed(9), ADD_MULTIPLIER_BITS)
        m.submodules.scale_residual = scale_residual = SplitMultiplier(signed(9), ADD_MULTIPLIER_BITS)
        m.submodules.round = rounder = RoundShift(34)
        m.d.comb += [
            scale_y.a.eq(register(m, self.y - self.zero_y, "centred_y")),
            scale_y.b.eq(self.multiplier_y),
            scale_residual.a.eq(register(m, self.residual - self.zero_residual, "centred_residual")),
            scale_residual.b.eq(self.multiplier_residual),
            rounder.value.eq(register(m, scale_y.product + scale_residual.product, "total")),
            rounder.shift.eq(self.shift),
        ]
        _offset_and_clamp(m, rounder.floor + rounder.up, self, self.zero_out)
        return m
