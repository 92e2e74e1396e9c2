"""The vector unit of a machine with an element unit: the vector engine, the element engine, and who has which port."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from dse.program.tile.isa import MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.rtl.element import ElementEngine
from dse.rtl.interfaces import EngineControl, ReadPort, WritePort
from dse.rtl.vector import OPCODE_BITS, VectorEngine


class VectorUnit(wiring.Component):
    """Executes VECTOR, FORWARD, SCALE, ELEMENT and POOL.

    One descriptor is in flight at a time, so that the engines share their ports without an arbiter: whoever has none
    enabled leaves them alone.

    Parameters
    ----------
    machine
        One with an element unit.

    Members
    -------
    control : EngineControl
    acc, param, res, out_read, state_read : Out(ReadPort)
    out, act, state, acc_write : Out(WritePort): words of columns, groups of lanes; `act` by bytes
    table : In(WritePort): lines of the table memory
    """

    def __init__(self, machine: Machine) -> None:
        self.vector, self.element = VectorEngine(machine), ElementEngine(machine)
        columns, lanes = machine.columns, machine.vector_lanes
        super().__init__(
            {
                "control": Out(EngineControl()),
                "acc": Out(ReadPort(32 * columns)),
                "param": Out(ReadPort(8 * machine.word_bytes[MemoryId.PARAMETER])),
                "res": Out(ReadPort(8 * columns)),
                "out_read": Out(ReadPort(8 * columns)),
                "state_read": Out(ReadPort(16 * columns)),
                "out": Out(WritePort(8 * columns, 8 * lanes)),
                "act": Out(WritePort(8 * machine.rows, 8)),
                "state": Out(WritePort(16 * columns, 16 * lanes)),
                "acc_write": Out(WritePort(32 * columns, 32 * lanes)),
                "table": self.element.signature.members["table_write"],
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        vector, element, control = self.vector, self.element, self.control
        m.submodules.vector, m.submodules.element = vector, element
        op = control.descriptor[:OPCODE_BITS]
        for engine, opcodes in (
            (vector, (Opcode.VECTOR, Opcode.FORWARD, Opcode.SCALE)),
            (element, (Opcode.SCALE, Opcode.ELEMENT, Opcode.POOL)),
        ):
            mine = sum((op == opcode for opcode in opcodes[1:]), op == opcodes[0])
            m.d.comb += [
                engine.control.start.eq(control.start & mine),
                engine.control.descriptor.eq(control.descriptor),
                engine.control.address.eq(control.address),
            ]
        m.d.comb += [
            control.done.eq(vector.control.done | element.control.done),
            element.scaled.eq(vector.scaled),
            element.scaled_due.eq(vector.scaled_due),
            element.scaled_last.eq(vector.scaled_last),
        ]
        for outer, inner in (
            (self.param, vector.param),
            (self.out_read, element.out),
            (self.state_read, element.state),
            (self.state, element.state_write),
            (self.acc_write, element.accumulator),
            (self.table, element.table_write),
        ):
            connect(m, flipped(outer), inner)
        for outer, first, second in ((self.acc, vector.acc, element.acc), (self.res, vector.res, element.res)):
            _share_read(m, outer, first, second)
        for outer, first, second in ((self.out, vector.out, element.output), (self.act, vector.act, element.act)):
            _share_write(m, outer, first, second)
        return m


def _share_read(m: Module, outer: Any, first: Any, second: Any) -> None:
    m.d.comb += [
        outer.en.eq(first.en | second.en),
        outer.addr.eq(Mux(second.en, second.addr, first.addr)),
        first.data.eq(outer.data),
        second.data.eq(outer.data),
    ]


def _share_write(m: Module, outer: Any, first: Any, second: Any) -> None:
    theirs = second.en.any()
    m.d.comb += [
        outer.en.eq(first.en | second.en),
        outer.addr.eq(Mux(theirs, second.addr, first.addr)),
        outer.data.eq(Mux(theirs, second.data, first.data)),
    ]
