"""DMA engines: every byte in its place, exact durations, any latency and back-pressure of the port."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from tile_bench import small_machine

from dse.program.tile.encode import encode_descriptor
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing import beats_per_run, load_cycles, store_cycles
from dse.rtl.dma import WORD_TARGETS, LoadEngine, StoreEngine
from dse.rtl.interfaces import READ_LATENCY

MEMORY_BYTES = 1 << 14

#: What a LOAD fills on a machine without an element unit.
TARGETS = WORD_TARGETS[:4]
#: (rows, columns, lanes, beat bytes, latency): words narrower and wider than a beat, no powers of two.
GEOMETRIES = [(4, 4, 2, 4, 3), (3, 6, 3, 1, 1), (7, 5, 5, 2, 2), (2, 2, 1, 16, 5), (5, 12, 4, 8, 30)]


def geometry(rows: int, columns: int, lanes: int, beat_bytes: int, latency: int) -> Machine:
    return small_machine(rows=rows, columns=columns, lanes=lanes, beat_bytes=beat_bytes, latency=latency)


class PortModel:
    """A memory port that stalls at random and answers in order after random latencies."""

    def __init__(self, rng: random.Random, ready: float, latency: Callable[[], int]) -> None:
        self.rng, self.ready, self.latency = rng, ready, latency
        self.in_flight: deque[tuple[int, Any]] = deque()
        self.due = 0

    def is_ready(self) -> bool:
        return self.rng.random() < self.ready

    def accept(self, cycle: int, item: Any) -> None:
        self.due = max(self.due + 1, cycle + self.latency())
        self.in_flight.append((self.due, item))

    def answer(self, cycle: int) -> Any | None:
        """What is answered in `cycle`, if anything."""
        return self.in_flight.popleft()[1] if self.in_flight and self.in_flight[0][0] == cycle else None


def run(dut: Any, drive: Callable[[Any], Any]) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()


def random_transfer(
    rng: random.Random, opcode: Opcode, machine: Machine, memory: MemoryId
) -> tuple[Descriptor, int, int]:
    """A transfer inside memory and scratchpad whose runs touch every word at most once; its two addresses."""
    word_bytes, words = machine.word_bytes[memory], machine.words[memory]
    offset = rng.randrange(word_bytes) if opcode == Opcode.LOAD else 0
    run_bytes = rng.choice([1, word_bytes - offset, rng.randint(1, word_bytes - offset)])
    while True:
        n = [rng.choice([1, 2, 3, rng.randint(1, 7)]) for _ in range(3)]
        if n[0] * n[1] * n[2] <= min(40, words):
            break
    # Distinct words: each level strides over all that lies inside it, in a random order of the levels.
    order = rng.sample(range(3), 3)
    strides, span = [0, 0, 0], 1
    for level in order:
        strides[level] = span
        span *= n[level]
    scale = rng.randint(1, words // span)
    local = rng.randint(0, words - 1 - (span - 1) * scale)
    external_strides = [rng.randint(0, 400) for _ in range(3)]
    reach = sum((count - 1) * stride for count, stride in zip(n, external_strides, strict=True)) + run_bytes
    if opcode == Opcode.STORE:
        external_strides = [stride * (run_bytes + 3) for stride in strides]
        reach = span * (run_bytes + 3)
    values = {f"n{i}": n[i] for i in range(3)} | {f"ext_stride{i}": external_strides[i] for i in range(3)}
    values |= {f"local_stride{i}": strides[i] * scale for i in range(3)}
    values |= {"run_bytes": run_bytes, "byte_offset": offset}
    if opcode == Opcode.LOAD:
        values["memory"] = memory
    external = rng.randint(0, MEMORY_BYTES - machine.memory_bytes_per_cycle - reach)
    return Descriptor(opcode, values), external, local


def runs_of(descriptor: Descriptor, external: int, local: int) -> list[tuple[int, int]]:
    """(memory address, word) of every run, by the definition in the instruction set."""
    return [
        (
            external + sum(i * descriptor[f"ext_stride{d}"] for d, i in enumerate(index)),
            local + sum(i * descriptor[f"local_stride{d}"] for d, i in enumerate(index)),
        )
        for index in np.ndindex(*(descriptor[f"n{d}"] for d in range(3)))
    ]


class LoadBench:
    """A LoadEngine with the four scratchpads as arrays."""

    def __init__(self, machine: Machine, memory: np.ndarray) -> None:
        self.machine, self.memory = machine, memory
        self.dut = LoadEngine(machine)
        self.words = {m: np.zeros((machine.words[m], machine.word_bytes[m]), np.uint8) for m in TARGETS}

    async def execute(self, ctx: Any, descriptor: Descriptor, external: int, local: int, port: PortModel) -> int:
        """Runs one LOAD; returns its duration in cycles."""
        dut, beat = self.dut, self.machine.memory_bytes_per_cycle
        ctx.set(dut.control.descriptor, encode_descriptor(descriptor))
        ctx.set(dut.control.address, [external, local, 0, 0])
        port.due = 0
        for cycle in range(100_000):
            ctx.set(dut.control.start, cycle == 0)
            ctx.set(dut.memory.ready, port.is_ready())
            data = port.answer(cycle)
            ctx.set(dut.memory.data_valid, data is not None)
            ctx.set(dut.memory.data, data if data is not None else port.rng.getrandbits(8 * beat))
            if ctx.get(dut.memory.valid) and ctx.get(dut.memory.ready):
                address = ctx.get(dut.memory.addr)
                port.accept(cycle, int.from_bytes(self.memory[address : address + beat].tobytes(), "little"))
            for target in TARGETS:
                self._write(ctx, target)
            done = ctx.get(dut.control.done)
            await ctx.tick()
            if done:
                return cycle
        raise AssertionError("LOAD never ends")

    def _write(self, ctx: Any, target: MemoryId) -> None:
        port = getattr(self.dut, target.name.lower())
        enables = ctx.get(port.en)
        if enables:
            data = ctx.get(port.data)
            for byte in range(self.machine.word_bytes[target]):
                if enables >> byte & 1:
                    self.words[target][ctx.get(port.addr), byte] = data >> 8 * byte & 255


@pytest.mark.parametrize("shape", GEOMETRIES)
@pytest.mark.parametrize("steady", [True, False], ids=["steady", "stalling"])
def test_load_places_every_byte_in_the_predicted_time(shape: tuple[int, ...], steady: bool) -> None:
    """Back-to-back transfers into all four memories; the last one starts in the cycle after `done`."""
    machine = geometry(*shape)
    rng = random.Random(hash((shape, steady)))
    memory = np.frombuffer(rng.randbytes(MEMORY_BYTES), np.uint8)
    bench = LoadBench(machine, memory)
    expected = {m: words.copy() for m, words in bench.words.items()}
    latency = (lambda: machine.memory_latency_cycles) if steady else (lambda: rng.choice([1, 2, 9]))
    port = PortModel(rng, 1.0 if steady else 0.6, latency)

    async def drive(ctx: Any) -> None:
        for number in range(10):
            target = TARGETS[number % len(TARGETS)]
            descriptor, external, local = random_transfer(rng, Opcode.LOAD, machine, target)
            runs = runs_of(descriptor, external, local)
            first, size = descriptor["byte_offset"], descriptor["run_bytes"]
            for address, word in runs:
                expected[target][word, first : first + size] = memory[address : address + size]
            cycles = await bench.execute(ctx, descriptor, external, local, port)
            for m in TARGETS:
                np.testing.assert_array_equal(bench.words[m], expected[m], err_msg=f"{m.name} {descriptor}")
            predicted = load_cycles(len(runs), beats_per_run(size, machine), machine)
            assert cycles == predicted if steady else cycles >= predicted - machine.memory_latency_cycles

    run(bench.dut, drive)


class StoreBench:
    """A StoreEngine with the output buffer as an array read in two cycles."""

    def __init__(self, machine: Machine, output: np.ndarray) -> None:
        self.machine, self.output = machine, output
        self.dut = StoreEngine(machine)
        self.memory = np.zeros(MEMORY_BYTES, np.uint8)
        self.written = 0

    async def execute(self, ctx: Any, descriptor: Descriptor, external: int, local: int, port: PortModel) -> int:
        """Runs one STORE; returns its duration in cycles."""
        dut, beat = self.dut, self.machine.memory_bytes_per_cycle
        ctx.set(dut.control.descriptor, encode_descriptor(descriptor))
        ctx.set(dut.control.address, [external, local, 0, 0])
        port.due = 0
        pending = [0] * READ_LATENCY
        for cycle in range(100_000):
            ctx.set(dut.control.start, cycle == 0)
            ctx.set(dut.memory.ready, port.is_ready())
            ctx.set(dut.output.data, pending.pop(0))
            word = self.output[ctx.get(dut.output.addr)] if ctx.get(dut.output.en) else None
            junk = port.rng.getrandbits(8 * self.output.shape[1])
            pending.append(int.from_bytes(word.tobytes(), "little") if word is not None else junk)
            acknowledged = port.answer(cycle)
            ctx.set(dut.memory.ack, acknowledged is not None)
            if acknowledged is not None:
                address, data = acknowledged
                self.memory[address : address + len(data)] = list(data)
                self.written += len(data)
            if ctx.get(dut.memory.valid) and ctx.get(dut.memory.ready):
                data = ctx.get(dut.memory.data).to_bytes(beat, "little")[: ctx.get(dut.memory.bytes)]
                port.accept(cycle, (ctx.get(dut.memory.addr), data))
            done = ctx.get(dut.control.done)
            await ctx.tick()
            if done:
                return cycle
        raise AssertionError("STORE never ends")


@pytest.mark.parametrize("shape", GEOMETRIES)
@pytest.mark.parametrize("steady", [True, False], ids=["steady", "stalling"])
def test_store_writes_every_byte_once_in_the_predicted_time(shape: tuple[int, ...], steady: bool) -> None:
    machine = geometry(*shape)
    rng = random.Random(hash((shape, steady)))
    words, word_bytes = machine.words[MemoryId.OUTPUT], machine.word_bytes[MemoryId.OUTPUT]
    output = np.frombuffer(rng.randbytes(words * word_bytes), np.uint8).reshape(words, word_bytes)
    bench = StoreBench(machine, output)
    expected = bench.memory.copy()
    latency = (lambda: machine.memory_latency_cycles) if steady else (lambda: rng.choice([1, 2, 9]))
    port = PortModel(rng, 1.0 if steady else 0.5, latency)

    async def drive(ctx: Any) -> None:
        for _ in range(10):
            descriptor, external, local = random_transfer(rng, Opcode.STORE, machine, MemoryId.OUTPUT)
            runs = runs_of(descriptor, external, local)
            size = descriptor["run_bytes"]
            for address, word in runs:
                expected[address : address + size] = output[word, :size]
            before = bench.written
            cycles = await bench.execute(ctx, descriptor, external, local, port)
            np.testing.assert_array_equal(bench.memory, expected, err_msg=str(descriptor))
            assert bench.written - before == len(runs) * size
            predicted = store_cycles(len(runs), beats_per_run(size, machine), machine)
            assert cycles == predicted if steady else cycles >= predicted - machine.memory_latency_cycles

    run(bench.dut, drive)


def test_timing_is_elementwise_over_arrays() -> None:
    machine = small_machine(beat_bytes=8, latency=12)
    beats = beats_per_run(np.array([1, 8, 9, 64]), machine)
    np.testing.assert_array_equal(beats, [1, 1, 2, 8])
    np.testing.assert_array_equal(load_cycles(np.array([5, 1, 3, 2]), beats, machine), [18, 14, 19, 29])
    np.testing.assert_array_equal(store_cycles(np.array([5, 1, 3, 2]), beats, machine), [21, 17, 22, 32])
