"""The tile machine: four queues with their sequencers, the engines, the scratchpads, one memory port."""

from __future__ import annotations

from collections.abc import Mapping
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
from dse.rtl.vector_unit import VectorUnit

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
        Component with members `control`, `acc`, `param`, `res`, `out`, `act`, with an element unit those of
        `VectorUnit`; None: `VectorEngine(machine)`, with an element unit `VectorUnit(machine)`.

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
        self.element_unit = machine.has(MemoryId.STATE)
        if vector_engine is None:
            vector_engine = VectorUnit(machine) if self.element_unit else VectorEngine(machine)
        self.sequencers = {engine: Sequencer(engine, machine) for engine in ENGINES}
        self.engines: dict[str, Any] = {
            "load": LoadEngine(machine),
            "matmul": matmul_engine,
            "vector": vector_engine,
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

        self._activation(m, load, matmul, vector)
        self._accumulator(m, matmul, vector)
        self._output(m, vector, store)
        if self.element_unit:
            self._state(m, load, vector, store)
            connect(m, load.table, vector.table)

    def _banked(
        self, m: Module, memory: MemoryId, readers: Mapping[str, Any], writers: Mapping[str, Any], granularity: int
    ) -> None:
        """A scratchpad that several engines read or write: by name, their ports."""
        bits = 8 * self.machine.word_bytes[memory]
        scratchpad = BankedScratchpad(self.machine.words[memory], bits, tuple(readers), tuple(writers), granularity)
        m.submodules[memory.name.lower()] = scratchpad
        for name, port in readers.items():
            connect(m, port, getattr(scratchpad, f"{name}_read"))
        for name, port in writers.items():
            target = getattr(scratchpad, f"{name}_write")
            # a writer's enable may stand for several of the memory's
            enables = Cat(bit.replicate(len(target.en) // len(port.en)) for bit in port.en)
            m.d.comb += [target.en.eq(enables), target.addr.eq(port.addr), target.data.eq(port.data)]

    def _activation(self, m: Module, load: Any, matmul: Any, vector: Any) -> None:
        writers = {"load": load.activation, "vector": vector.act}
        self._banked(m, MemoryId.ACTIVATION, {"matmul": matmul.a}, writers, 8)

    def _accumulator(self, m: Module, matmul: Any, vector: Any) -> None:
        readers, writers = {"matmul": matmul.acc_read, "vector": vector.acc}, {"matmul": matmul.acc_write}
        granularity = 32 * self.machine.columns
        if self.element_unit:
            writers["vector"], granularity = vector.acc_write, 32 * self.machine.vector_lanes
        self._banked(m, MemoryId.ACCUMULATOR, readers, writers, granularity)

    def _state(self, m: Module, load: Any, vector: Any, store: Any) -> None:
        writers = {"load": load.state, "vector": vector.state}
        self._banked(m, MemoryId.STATE, {"vector": vector.state_read, "store": store.state}, writers, 8)

    def _output(self, m: Module, vector: Any, store: Any) -> None:
        granularity = 8 * self.machine.vector_lanes
        if self.element_unit:
            readers = {"store": store.output, "vector": vector.out_read}
            self._banked(m, MemoryId.OUTPUT, readers, {"vector": vector.out}, granularity)
            return
        bits = 8 * self.machine.word_bytes[MemoryId.OUTPUT]
        m.submodules.output = output = Scratchpad(self.machine.words[MemoryId.OUTPUT], bits, granularity)
        connect(m, vector.out, output.write)
        connect(m, store.output, output.read)
