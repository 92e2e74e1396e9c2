"""Sequencer: fetches one queue's descriptors, unrolls its loops, evaluates addresses, waits, starts the engine.

Every phase takes the same number of cycles whatever the data (`dse.program.tile.timing` names them). Counted
from the cycle e in which the previous task ends (or the machine starts):

    e             word 0 of the next descriptor is already at the memory's output and is captured
    e+1 .. e+7    words 1 to 7; e+1: HALT is seen; e+2: LOOP is pushed and fetching begins anew in e+4
    e+4 .. e+15   operand (k-4) div 4, loop level (k-4) mod 4 enter the multiplier
    e+16          loop indices and program counter move on
    e+17          word 0 of the descriptor after this one is addressed
    e+18 ..       wait for semaphores; start in the first cycle in which all hold
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile import isa
from dse.program.tile.isa import DESCRIPTOR_BYTES, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing import ISSUE_CYCLES
from dse.rtl.addresses import ADVANCE_STEP, WORD_BITS, AddressUnit, LoopStack
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import EngineControl
from dse.rtl.semaphores import SIGNALS_OFFSET, SLOTS_LAYOUT, WAITS_OFFSET, SemaphorePort

WORDS = 8 * DESCRIPTOR_BYTES // WORD_BITS

HALT_STEP = 1
LOOP_STEP = 2
PREFETCH_STEP = ADVANCE_STEP + 1


class ProgramPort(wiring.Signature):
    """Write port of a descriptor memory, seen from the host: 64-bit words, 8 per descriptor, lowest bits first."""

    def __init__(self, descriptors: int) -> None:
        super().__init__(
            {"en": Out(1), "addr": Out(range(WORDS * descriptors)), "data": Out(WORD_BITS)},
        )


class Sequencer(wiring.Component):
    """Runs one queue.

    Parameters
    ----------
    engine
        The queue's engine, one of `isa.ENGINES`.
    machine
        Gives the capacity of the queue and the ping-pong halves.

    Members
    -------
    program : In(ProgramPort(machine.descriptors))
        Written only while halted.
    start : In(1)
        Runs the queue from descriptor 0; two cycles after the last write or `halted` at the earliest.
    halted : Out(1)
        HALT was seen and `start` has not come since; 0 before the first run.
    control : In(EngineControl)
    semaphores : Out(SemaphorePort())
    started, ended : Out(1)
        High in the cycle a task (SYNC included) starts, ends: for counters and traces.

    Attributes
    ----------
    descriptors : MemoryData
        Contents of the descriptor memory, for simulators that preload it.
    """

    def __init__(self, engine: str, machine: Machine) -> None:
        self.engine, self.machine = engine, machine
        self.descriptors = memory.MemoryData(shape=WORD_BITS, depth=WORDS * machine.descriptors, init=[])
        super().__init__(
            {
                "program": In(ProgramPort(machine.descriptors)),
                "start": In(1),
                "halted": Out(1),
                "control": In(EngineControl()),
                "semaphores": Out(SemaphorePort()),
                "started": Out(1),
                "ended": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = storage = memory.Memory(self.descriptors)
        m.submodules.loops = loops = LoopStack(self.machine.descriptors)
        m.submodules.addresses = addresses = AddressUnit(self.engine, self.machine)
        descriptor = Signal(8 * DESCRIPTOR_BYTES)
        step = Signal(range(ISSUE_CYCLES + 1))
        pc = Signal(loops.pc_bits)
        write, read = storage.write_port(), storage.read_port()
        go, capture, word = Signal(), Signal(), Signal(range(WORDS))
        m.d.comb += [
            write.en.eq(self.program.en),
            write.addr.eq(self.program.addr),
            write.data.eq(self.program.data),
            read.addr.eq(Cat(word, pc)),
            addresses.step.eq(step),
            loops.pc.eq(pc),
            # Word 0 of the next descriptor stands at the output while a task runs: on `go` word 1 is addressed.
            go.eq(self.ended),
        ]
        self._wire_descriptor(m, descriptor, loops, addresses)
        with m.If(capture):
            m.d.sync += descriptor.word_select(step[:3], WORD_BITS).eq(read.data)

        op = descriptor[: isa.HEADER[0].bits]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [read.en.eq(1), go.eq(self.start)]
                with m.If(go):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [word.eq(step + 1), read.en.eq(step < WORDS - 1), capture.eq(step < WORDS)]
                m.d.sync += step.eq(step + 1)
                with m.If((step == HALT_STEP) & (op == Opcode.HALT)):
                    m.d.sync += [self.halted.eq(1), pc.eq(0), step.eq(0)]
                    m.next = "IDLE"
                with m.If((step == LOOP_STEP) & (op == Opcode.LOOP)):
                    m.d.comb += loops.push.eq(1)
                    m.d.sync += [pc.eq(pc + 1), step.eq(0)]
                    m.next = "REFETCH"
                with m.If(step == ADVANCE_STEP):
                    m.d.comb += loops.advance.eq(1)
                    m.d.sync += pc.eq(loops.next_pc)
                with m.If(step == PREFETCH_STEP):
                    m.d.comb += [word.eq(0), read.en.eq(1)]
                    m.next = "WAIT"
            with m.State("REFETCH"):
                m.d.comb += read.en.eq(1)
                m.next = "ENTER"
            with m.State("ENTER"):
                m.d.comb += go.eq(1)
                m.next = "FETCH"
            with m.State("WAIT"):
                m.d.sync += step.eq(0)
                with m.If(self.semaphores.ready):
                    m.d.comb += [self.started.eq(1), self.control.start.eq(op != Opcode.SYNC)]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.ended.eq(self.control.done | (op == Opcode.SYNC))
                with m.If(self.ended):
                    m.next = "FETCH"
        with m.If(go):
            m.d.comb += [word.eq(1), read.en.eq(1), capture.eq(1)]
            m.d.sync += [step.eq(1), self.halted.eq(0)]
        return m

    def _wire_descriptor(self, m: Module, descriptor: Signal, loops: LoopStack, addresses: AddressUnit) -> None:
        """Hands the current descriptor to all who read it; it is held nowhere else."""
        m.d.comb += [
            addresses.descriptor.eq(descriptor),
            addresses.index.eq(loops.index),
            loops.clear.eq(self.start),
            loops.count.eq(descriptor_field(descriptor, Opcode.LOOP, "count")),
            loops.body.eq(descriptor_field(descriptor, Opcode.LOOP, "body")),
            self.control.descriptor.eq(descriptor),
            self.control.address.eq(addresses.address),
            self.semaphores.waits.eq(descriptor[WAITS_OFFSET : WAITS_OFFSET + SLOTS_LAYOUT.size]),
            self.semaphores.signals.eq(descriptor[SIGNALS_OFFSET : SIGNALS_OFFSET + SLOTS_LAYOUT.size]),
            self.semaphores.take.eq(self.started),
            self.semaphores.give.eq(self.ended),
        ]
