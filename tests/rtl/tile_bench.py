"""What the tile machine's RTL tests share: small machines, fake engines, slow oracles of the queues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from dse.program.tile.isa import ENGINES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing import FINAL_CYCLES, ISSUE_CYCLES, LOOP_CYCLES, SYNC_CYCLES
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import EngineControl, ReadPort, WritePort

#: A field of each engine's descriptor that the fake engines take as their duration.
DURATION_FIELD = {"load": "run_bytes", "matmul": "n_blocks", "vector": "n_blocks", "store": "run_bytes"}
ENGINE_OPCODE = {"load": Opcode.LOAD, "matmul": Opcode.MATMUL, "vector": Opcode.VECTOR, "store": Opcode.STORE}


def small_machine(
    *,
    rows: int = 4,
    columns: int = 4,
    dataflow: str = "ws",
    weight_bits: int = 8,
    lanes: int = 2,
    requantize: str = "q31",
    beat_bytes: int = 4,
    latency: int = 3,
    descriptors: int = 32,
    words: Mapping[MemoryId, int] | None = None,
) -> Machine:
    """A machine small enough to simulate; depths of different size and no power of two."""
    depths = {
        MemoryId.ACTIVATION: 84,
        MemoryId.WEIGHT: 76,
        MemoryId.PARAMETER: 26,
        MemoryId.RESIDUAL: 44,
        MemoryId.ACCUMULATOR: 36,
        MemoryId.OUTPUT: 52,
    }
    word_bytes = {
        MemoryId.ACTIVATION: rows,
        MemoryId.WEIGHT: (columns * weight_bits + 7) // 8,
        MemoryId.PARAMETER: 9 * lanes,
        MemoryId.RESIDUAL: columns,
        MemoryId.ACCUMULATOR: 4 * columns,
        MemoryId.OUTPUT: columns,
    }
    return Machine(
        rows=rows,
        columns=columns,
        dataflow=dataflow,
        weight_bits=weight_bits,
        vector_lanes=lanes,
        requantize=requantize,
        memory_bytes_per_cycle=beat_bytes,
        memory_latency_cycles=latency,
        words={**depths, **(words or {})},
        word_bytes=word_bytes,
        descriptors=descriptors,
    )


def sync(waits: Sequence[tuple[int, int]] = (), signals: Sequence[tuple[int, int]] = ()) -> dict[str, int]:
    """Header fields of waits and signals, each (semaphore, amount)."""
    values: dict[str, int] = {}
    for kind, slots in (("wait", waits), ("signal", signals)):
        for slot, (semaphore, amount) in enumerate(slots):
            values[f"{kind}{slot}_id"] = semaphore
            values[f"{kind}{slot}_amount"] = amount
    return values


class FakeEngine(wiring.Component):
    """Raises `done` after as many cycles as a field of its descriptor says; has the ports of a compute engine."""

    def __init__(self, engine: str, machine: Machine) -> None:
        self.engine = engine
        members: dict[str, Any] = {"control": Out(EngineControl())}
        bits = {memory: 8 * size for memory, size in machine.word_bytes.items()}
        if engine == "matmul":
            members["a"] = Out(ReadPort(bits[MemoryId.ACTIVATION]))
            members["w"] = Out(ReadPort(bits[MemoryId.WEIGHT]))
            members["acc_read"] = Out(ReadPort(bits[MemoryId.ACCUMULATOR]))
            members["acc_write"] = Out(WritePort(bits[MemoryId.ACCUMULATOR]))
        if engine == "vector":
            members["acc"] = Out(ReadPort(bits[MemoryId.ACCUMULATOR]))
            members["param"] = Out(ReadPort(bits[MemoryId.PARAMETER]))
            members["res"] = Out(ReadPort(bits[MemoryId.RESIDUAL]))
            members["out"] = Out(WritePort(bits[MemoryId.OUTPUT], 8 * machine.vector_lanes))
            members["act"] = Out(WritePort(bits[MemoryId.ACTIVATION], 8))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        opcode = ENGINE_OPCODE[self.engine]
        left = Signal(16)
        duration = descriptor_field(self.control.descriptor, opcode, DURATION_FIELD[self.engine])
        m.d.comb += self.control.done.eq(left == 1)
        with m.If(self.control.start):
            m.d.sync += left.eq(duration)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return m


def executed(queue: Sequence[Descriptor]) -> Iterator[tuple[Descriptor, tuple[int, ...], int]]:
    """The tasks of a queue in order: descriptor, loop indices (4), LOOPs fetched since the task before."""
    fetched = 0

    def body(first: int, end: int, indices: tuple[int, ...]) -> Iterator[tuple[Descriptor, tuple[int, ...], int]]:
        nonlocal fetched
        position = first
        while position < end:
            descriptor = queue[position]
            if descriptor.op == Opcode.HALT:
                return
            if descriptor.op == Opcode.LOOP:
                fetched += 1
                inner_end = position + 1 + descriptor["body"]
                for index in range(descriptor["count"]):
                    yield from body(position + 1, inner_end, (*indices, index))
                position = inner_end
            else:
                yield descriptor, (*indices, 0, 0, 0, 0)[:4], fetched
                fetched = 0
                position += 1

    yield from body(0, len(queue), ())


def amounts(descriptor: Descriptor, kind: str) -> list[tuple[int, int]]:
    """Used (semaphore, amount) slots of a descriptor; `kind` is "wait" or "signal"."""
    slots = [(descriptor[f"{kind}{i}_id"], descriptor[f"{kind}{i}_amount"]) for i in range(3)]
    return [(semaphore, amount) for semaphore, amount in slots if amount]


class DeadlockError(Exception):
    """The oracle found that no queue can go on, or that a semaphore overflows."""


def expected_times(
    queues: Mapping[str, Sequence[Descriptor]], durations: Mapping[str, Sequence[int]]
) -> tuple[dict[str, list[int]], dict[str, list[int]], int]:
    """Starts, ends and total cycles by the rules of `dse.program.tile.timing`, played cycle by cycle.

    `durations` of the executed tasks of each engine; those of SYNC are ignored.
    """
    tasks = {engine: list(executed(queues[engine])) for engine in ENGINES}
    starts: dict[str, list[int]] = {engine: [] for engine in ENGINES}
    ends: dict[str, list[int]] = {engine: [] for engine in ENGINES}
    counts = [0] * 16
    cycle = 0
    while any(len(ends[engine]) < len(tasks[engine]) for engine in ENGINES) or cycle <= max(
        (end for engine in ENGINES for end in ends[engine]), default=0
    ):
        before = list(counts)
        for engine in ENGINES:
            number = len(starts[engine])
            if number < len(tasks[engine]):
                descriptor, _, loops = tasks[engine][number]
                previous = ends[engine][-1] if number else 0
                waits = amounts(descriptor, "wait")
                ready = cycle >= previous + ISSUE_CYCLES + LOOP_CYCLES * loops
                if ready and all(before[semaphore] >= amount for semaphore, amount in waits):
                    for semaphore, amount in waits:
                        counts[semaphore] -= amount
                    is_sync = descriptor.op == Opcode.SYNC
                    starts[engine].append(cycle)
                    ends[engine].append(cycle + (SYNC_CYCLES if is_sync else durations[engine][number]))
            for number, end in enumerate(ends[engine]):
                if end == cycle:
                    for semaphore, amount in amounts(tasks[engine][number][0], "signal"):
                        counts[semaphore] += amount
        if max(counts) > 255:
            raise DeadlockError(f"semaphore overflow in cycle {cycle}")
        cycle += 1
        latest = max((end for engine in ENGINES for end in ends[engine]), default=0)
        if cycle > latest + ISSUE_CYCLES + 4 * LOOP_CYCLES + 2 and any(
            len(ends[engine]) < len(tasks[engine]) for engine in ENGINES
        ):
            raise DeadlockError(f"no task starts after cycle {latest}")
    last = {engine: ends[engine][-1] if ends[engine] else 0 for engine in ENGINES}
    return starts, ends, max(last.values()) + FINAL_CYCLES
