"""NeuronUpdate: the neuron equations of `semantics.update`, one neuron a cycle, in a rigid pipeline."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accelerators.neuromorphic.rtl.shape import CoreShape
from accelerators.neuromorphic.semantics import DECAY_BITS

#: Cycles from `valid` to `done`.
LATENCY = 8


class NeuronUpdate(wiring.Component):
    """A pipeline of `LATENCY` stages.

    Members
    -------
    valid : In(1), charge, bias, current, voltage, waiting, profile : In
        A neuron enters: its charge, and what its memories hold; `profile` is a packed profile word.
    done, fired : Out(1), new_current, new_voltage, new_waiting : Out
        `LATENCY` cycles later: its new state, and whether it fires.
    """

    def __init__(self, shape: CoreShape) -> None:
        self.shape = shape
        widths = shape.widths
        state = signed(widths.state)
        super().__init__(
            {
                "valid": In(1),
                "charge": In(signed(shape.charge_bits)),
                "bias": In(state),
                "current": In(state),
                "voltage": In(state),
                "waiting": In(widths.refractory),
                "profile": In(2 * widths.state + 27 + widths.refractory),
                "done": Out(1),
                "fired": Out(1),
                "new_current": Out(state),
                "new_voltage": Out(state),
                "new_waiting": Out(widths.refractory),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.shape.widths.state
        wide = signed(max(bits, self.shape.charge_bits + self.shape.fraction_bits) + 2)
        stage = _Stages(m)
        word = self.profile
        keep_current, keep_voltage = word[2 * bits + 1 : 2 * bits + 14], word[2 * bits + 14 : 2 * bits + 27]
        # 1: magnitudes, in front of the multipliers
        negative = [stage.hold(self.current < 0, 1), stage.hold(self.voltage < 0, 1)]
        magnitude = [stage.hold(_magnitude(value), 1) for value in (self.current, self.voltage)]
        keeps = [stage.hold(keep, 1) for keep in (keep_current, keep_voltage)]
        held = Mux(self.waiting != 0, 0, self.bias)
        drive = stage.hold((self.charge << self.shape.fraction_bits) + held, 1, shape=wide)
        # 2: products, 3: decayed states
        products = [stage.hold((a * b) >> DECAY_BITS, 2) for a, b in zip(magnitude, keeps, strict=True)]
        drive = stage.hold(drive, 2, shape=wide)
        decayed = [
            stage.hold(Mux(stage.delay(sign, 1, 2), -value, value), 3, shape=signed(bits + 1))
            for sign, value in zip(negative, products, strict=True)
        ]
        drive = stage.hold(drive, 3, shape=wide)
        # 4: current before, 5: after saturation
        current = stage.hold(decayed[0] + drive, 4)
        current = stage.hold(_saturated(current, bits), 5, shape=signed(bits))
        # 6: potential before, 7: after saturation
        voltage = stage.hold(stage.delay(decayed[1], 3, 5) + current, 6)
        voltage = stage.hold(_saturated(voltage, bits), 7, shape=signed(bits))
        # 8: fire and reset
        m.d.sync += self._fire(stage, voltage, stage.delay(current, 5, 7))
        m.d.comb += self.done.eq(stage.delay(self.valid, 0, LATENCY))
        return m

    def _fire(self, stage: _Stages, voltage: Signal, current: Signal) -> list[Any]:
        """Assignments of the last stage: the threshold, and the state behind it."""
        bits, refractory = self.shape.widths.state, self.shape.widths.refractory
        word = stage.delay(self.profile, 0, 7)
        threshold, reset = word[:bits].as_signed(), word[bits : 2 * bits].as_signed()
        subtract, pause = word[2 * bits], word[2 * bits + 27 : 2 * bits + 27 + refractory]
        waiting, before = stage.delay(self.waiting, 0, 7), stage.delay(self.voltage, 0, 7)
        holds = Signal(name="holds")
        fires = Signal(name="fires")
        stage.m.d.comb += [holds.eq(waiting != 0), fires.eq(~holds & (voltage > threshold))]
        after = Mux(subtract, _saturated(voltage - reset, bits), reset)
        return [
            self.fired.eq(fires),
            self.new_current.eq(current),
            self.new_voltage.eq(Mux(holds, before, Mux(fires, after, voltage))),
            self.new_waiting.eq(Mux(holds, waiting - 1, Mux(fires, pause, 0))),
        ]


class _Stages:
    """Names registers by the stage they end."""

    def __init__(self, m: Module) -> None:
        self.m = m
        self.count = 0

    def hold(self, value: Any, stage: int, shape: Any = None) -> Signal:
        """A register behind `value`, valid in `stage`."""
        source = Value.cast(value)
        self.count += 1
        register = Signal(source.shape() if shape is None else shape, name=f"s{stage}_{self.count}")
        self.m.d.sync += register.eq(source)
        return register

    def delay(self, value: Any, first: int, last: int) -> Value:
        """`value` of stage `first` as it is seen in stage `last`."""
        moved = Value.cast(value)
        for stage in range(first + 1, last + 1):
            moved = self.hold(moved, stage)
        return moved


def _magnitude(value: Signal) -> Value:
    """|value|, one bit wider than its magnitude needs."""
    return Mux(value < 0, -value, value).as_unsigned()[: len(value)]


def _saturated(value: Value, bits: int) -> Value:
    """A signed value clipped to `bits`: its upper bits are all alike when it fits."""
    value = Value.cast(value)
    if len(value) <= bits:
        return value
    upper = value[bits - 1 :]
    fits = upper.all() | ~upper.any()
    sign = value[-1]
    return Mux(fits, value[:bits], Cat((~sign).replicate(bits - 1), sign)).as_signed()
