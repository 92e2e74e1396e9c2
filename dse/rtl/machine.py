"""The tile machine: four queues with their sequencers, the engines, the scratchpads, one memory port."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from dse.program.tile.isa import ENGINES, MemoryId
from dse.program.tile.program import Machine
from dse.rtl.addresses import WORD_BITS
from dse.rtl.dma import LoadEngine, StoreEngine
from dse.rtl.interfaces import MemoryReadPort, MemoryWritePort
from dse.rtl.memory import BankedScratchpad, Scratchpad
from dse.rtl.semaphores import Semaphores
from dse.rtl.sequencer import WORDS, Sequencer
from dse.rtl.vector import VectorEngine

CYCLE_COUNTER_BITS = 32


class HostProgramPort(wiring.Signature):
    """Write port of all descriptor memories, seen from the host.

    Word `addr` (8 per descriptor, lowest bits first) of queue `queue`, in the order of `isa.ENGINES`.
    """

    def __init__(self, descriptors: int) -> None:
        super().__init__(
            {
                "en": Out(1),
                "queue": Out(range(len(ENGINES))),
                "addr": Out(range(WORDS * descriptors)),
                "data": Out(WORD_BITS),
            }
        )


class TileMachine(wiring.Component):
    """A whole accelerator up to its memory port.

    Call order: write the queues' descriptors through `program`; two cycles after the last write or later raise
    `start` for one cycle (cycle 0); `done` rises when every queue has seen HALT and stays until the next start.

    Parameters
    ----------
    machine
        Geometry.
    matmul_engine
        Component with members `control`, `a`, `w`, `acc_read`, `acc_write`.
    vector_engine
        Component with members `control`, `acc`, `param`, `res`, `out`, `act`; None: `VectorEngine(machine)`.

    Members
    -------
    start : In(1)
    done : Out(1)
    cycles : Out(32)
        Cycles since `start`; while `done` is high, those of the run.
    program : In(HostProgramPort(machine.descriptors))
    read : Out(MemoryReadPort(machine.memory_bytes_per_cycle))
    write : Out(MemoryWritePort(machine.memory_bytes_per_cycle))
    started, ended : Out(4)
        High in the cycle a task of each queue (in the order of `isa.ENGINES`) starts, ends.

    Attributes
    ----------
    sequencers : dict
        By engine; their `descriptors` are the descriptor memories, for simulators that preload them.
    """

    def __init__(
        self, machine: Machine, matmul_engine: wiring.Component, vector_engine: wiring.Component | None = None
    ) -> None:
        self.machine = machine
        self.sequencers = {engine: Sequencer(engine, machine) for engine in ENGINES}
        self.engines: dict[str, Any] = {
            "load": LoadEngine(machine),
            "matmul": matmul_engine,
            "vector": VectorEngine(machine) if vector_engine is None else vector_engine,
            "store": StoreEngine(machine),
        }
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "cycles": Out(CYCLE_COUNTER_BITS),
                "program": In(HostProgramPort(machine.descriptors)),
                "read": Out(MemoryReadPort(machine.memory_bytes_per_cycle)),
                "write": Out(MemoryWritePort(machine.memory_bytes_per_cycle)),
                "started": Out(len(ENGINES)),
                "ended": Out(len(ENGINES)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        self._queues(m)
        self._memories(m)
        connect(m, self.engines["load"].memory, flipped(self.read))
        connect(m, self.engines["store"].memory, flipped(self.write))

        running = Signal()
        with m.If(self.start):
            m.d.sync += [running.eq(1), self.cycles.eq(1)]
        with m.Elif(self.done):
            m.d.sync += running.eq(0)
        with m.Elif(running):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        return m

    def _queues(self, m: Module) -> None:
        """Sequencers, engines and the semaphores between them."""
        m.submodules.semaphores = semaphores = Semaphores()
        m.d.comb += semaphores.clear.eq(self.start)
        for number, (engine, sequencer) in enumerate(self.sequencers.items()):
            m.submodules[f"{engine}_queue"] = sequencer
            m.submodules[f"{engine}_engine"] = self.engines[engine]
            connect(m, sequencer.control, self.engines[engine].control)
            connect(m, sequencer.semaphores, getattr(semaphores, engine))
            m.d.comb += [
                sequencer.start.eq(self.start),
                sequencer.program.en.eq(self.program.en & (self.program.queue == number)),
                sequencer.program.addr.eq(self.program.addr),
                sequencer.program.data.eq(self.program.data),
            ]
        queues = self.sequencers.values()
        m.d.comb += [
            self.done.eq(Cat(sequencer.halted for sequencer in queues).all()),
            self.started.eq(Cat(sequencer.started for sequencer in queues)),
            self.ended.eq(Cat(sequencer.ended for sequencer in queues)),
        ]

    def _memories(self, m: Module) -> None:
        """Scratchpads between the engines; those that two engines read or write are banked by halves."""
        load, matmul, vector, store = (self.engines[engine] for engine in ENGINES)
        bits = {memory: 8 * size for memory, size in self.machine.word_bytes.items()}
        words = self.machine.words
        for memory, reader in (
            (MemoryId.WEIGHT, matmul.w),
            (MemoryId.PARAMETER, vector.param),
            (MemoryId.RESIDUAL, vector.res),
        ):
            name = memory.name.lower()
            scratchpad = Scratchpad(words[memory], bits[memory], 8)
            m.submodules[name] = scratchpad
            connect(m, getattr(load, name), scratchpad.write)
            connect(m, reader, scratchpad.read)

        activation = BankedScratchpad(
            words[MemoryId.ACTIVATION], bits[MemoryId.ACTIVATION], ("matmul",), ("load", "vector"), 8
        )
        m.submodules.activation = activation
        connect(m, load.activation, activation.load_write)
        connect(m, vector.act, activation.vector_write)
        connect(m, matmul.a, activation.matmul_read)

        accumulator = BankedScratchpad(
            words[MemoryId.ACCUMULATOR], bits[MemoryId.ACCUMULATOR], ("matmul", "vector"), ("matmul",)
        )
        m.submodules.accumulator = accumulator
        connect(m, matmul.acc_write, accumulator.matmul_write)
        connect(m, matmul.acc_read, accumulator.matmul_read)
        connect(m, vector.acc, accumulator.vector_read)

        output = Scratchpad(words[MemoryId.OUTPUT], bits[MemoryId.OUTPUT], 8 * self.machine.vector_lanes)
        m.submodules.output = output
        connect(m, vector.out, output.write)
        connect(m, store.output, output.read)
