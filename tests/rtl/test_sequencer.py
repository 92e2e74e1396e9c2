"""The sequencers and semaphores: addresses, order and cycles of random queues against a slow oracle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from amaranth.sim import Simulator
from tile_bench import (
    DURATION_FIELD,
    ENGINE_OPCODE,
    DeadlockError,
    FakeEngine,
    executed,
    expected_times,
    small_machine,
    sync,
)

from dse.program.tile.encode import encode_descriptor
from dse.program.tile.isa import ENGINES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing import FINAL_CYCLES, ISSUE_CYCLES, LOOP_CYCLES, SYNC_CYCLES
from dse.rtl.semaphores import SemaphorePort, Semaphores
from dse.rtl.sequencer import WORDS, Sequencer

HALT = Descriptor(Opcode.HALT)

#: Operand by engine: name of base and half, name of the increments, memory of the halves (None: no halves).
OPERANDS: dict[str, list[tuple[str, str, MemoryId | None]]] = {
    "load": [("ext", "ext", None), ("local", "local", MemoryId.ACTIVATION)],
    "matmul": [
        ("a", "a", MemoryId.ACTIVATION),
        ("w", "w", MemoryId.WEIGHT),
        ("acc", "acc", MemoryId.ACCUMULATOR),
    ],
    "vector": [
        ("acc", "acc", MemoryId.ACCUMULATOR),
        ("out", "out", MemoryId.OUTPUT),
        ("param", "param", None),
        ("res", "out", MemoryId.RESIDUAL),
    ],
    "store": [("ext", "ext", None), ("local", "local", MemoryId.OUTPUT)],
}


class Queues(wiring.Component):
    """Four sequencers, the semaphores and fake engines."""

    def __init__(self, machine: Machine) -> None:
        self.sequencers = {engine: Sequencer(engine, machine) for engine in ENGINES}
        self.fakes = {engine: FakeEngine(engine, machine) for engine in ENGINES}
        super().__init__({"start": In(1), "done": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.semaphores = semaphores = Semaphores()
        m.d.comb += semaphores.clear.eq(self.start)
        for engine, sequencer in self.sequencers.items():
            m.submodules[engine] = sequencer
            m.submodules[f"{engine}_fake"] = self.fakes[engine]
            connect(m, sequencer.control, self.fakes[engine].control)
            connect(m, sequencer.semaphores, getattr(semaphores, engine))
            m.d.comb += sequencer.start.eq(self.start)
        m.d.comb += self.done.eq(Cat(sequencer.halted for sequencer in self.sequencers.values()).all())
        return m


class QueueSimulation:
    """Runs queues on `Queues`; records starts, ends, and what each engine is shown."""

    def __init__(self, machine: Machine) -> None:
        self.top = Queues(machine)
        self.queues: dict[str, Sequence[Descriptor]] = {}
        self.runs = 1
        self.simulator = Simulator(self.top)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._drive)

    def run(self, queues: dict[str, Sequence[Descriptor]], *, runs: int = 1) -> None:
        if self.queues:
            self.simulator.reset()
        self.queues, self.runs = queues, runs
        self.simulator.run()

    async def _drive(self, ctx: Any) -> None:
        for engine, queue in self.queues.items():
            rows = self.top.sequencers[engine].descriptors
            for position, descriptor in enumerate(queue):
                word = encode_descriptor(descriptor)
                for part in range(WORDS):
                    ctx.set(rows[WORDS * position + part], (word >> (64 * part)) & (2**64 - 1))
        for _ in range(self.runs):
            await ctx.tick().repeat(2)
            await self._one_run(ctx)

    async def _one_run(self, ctx: Any) -> None:
        self.starts: dict[str, list[int]] = {engine: [] for engine in ENGINES}
        self.ends: dict[str, list[int]] = {engine: [] for engine in ENGINES}
        self.shown: dict[str, list[tuple[int, list[int]]]] = {engine: [] for engine in ENGINES}
        ctx.set(self.top.start, 1)
        sequencers = self.top.sequencers
        events = Cat(s.started for s in sequencers.values()), Cat(s.ended for s in sequencers.values())
        cycle = 0
        while not (cycle and ctx.get(self.top.done)):
            started, ended = ctx.get(events[0]), ctx.get(events[1])
            for number, engine in enumerate(ENGINES):
                control = sequencers[engine].control
                if (started | ended) >> number & 1:
                    addresses = [ctx.get(control.address[i]) for i in range(4)]
                    shown = (ctx.get(control.descriptor), addresses)
                    if started >> number & 1:
                        self.starts[engine].append(cycle)
                        self.shown[engine].append(shown)
                    else:
                        self.ends[engine].append(cycle)
                        assert shown == self.shown[engine][-1], "shown values must be stable until done"
            await ctx.tick()
            ctx.set(self.top.start, 0)
            cycle += 1
            assert cycle < 20_000
        self.cycles = cycle


def address_of(
    engine: str, descriptor: Descriptor, indices: tuple[int, ...], machine: Machine
) -> list[tuple[int, int]]:
    """Effective addresses by the definition in the instruction set: (address, its bits)."""
    addresses = []
    for name, increments, memory in OPERANDS[engine]:
        total = descriptor[f"{name}_base"]
        for level, index in enumerate(indices):
            total += index * descriptor[f"{increments}_inc{level}"]
        if memory is not None:
            if engine == "load":
                memory = MemoryId(descriptor["memory"])
            flips = descriptor[f"{name}_phase"]
            for level, index in enumerate(indices):
                if descriptor[f"{name}_toggle"] >> level & 1:
                    flips ^= index & 1
            total += machine.half(memory) if flips else 0
        addresses.append((total, 32 if name == "ext" else 16))
    return addresses


def random_task(rng: random.Random, engine: str, semaphores: dict[str, dict[str, list[int]]]) -> Descriptor:
    """A task or SYNC with random waits on semaphores the engine consumes and signals on those it produces."""
    waits = rng.sample(semaphores[engine]["wait"], rng.choice([0, 0, 1, 1, 2]))
    signals = rng.sample(semaphores[engine]["signal"], rng.choice([0, 1, 2, 3]))
    header = sync([(s, rng.randint(1, 2)) for s in waits], [(s, rng.randint(1, 4)) for s in signals])
    if rng.random() < 0.15:
        return Descriptor(Opcode.SYNC, header)
    values = dict(header)
    values[DURATION_FIELD[engine]] = rng.choice([1, 2, 5, rng.randint(1, 60)])
    if engine == "load":
        values["memory"] = rng.randrange(4)
    for name, increments, memory in OPERANDS[engine]:
        bits, increment_bits = (32, 24) if name == "ext" else (16, 16)
        values[f"{name}_base"] = rng.getrandbits(bits)
        if memory is not None:
            values[f"{name}_phase"] = rng.randrange(2)
            values[f"{name}_toggle"] = rng.randrange(16)
        for level in range(4):
            values[f"{increments}_inc{level}"] = rng.getrandbits(rng.choice([3, increment_bits]))
    return Descriptor(ENGINE_OPCODE[engine], values)


def random_body(rng: random.Random, engine: str, semaphores: Any, depth: int) -> list[Descriptor]:
    """Tasks and nested loops, often several loops that end at the same descriptor."""
    body: list[Descriptor] = []
    for _ in range(rng.choice([1, 1, 2])):
        if depth < 4 and rng.random() < 0.5:
            inner = random_body(rng, engine, semaphores, depth + 1)
            body += [Descriptor(Opcode.LOOP, {"count": rng.randint(1, 3), "body": len(inner)}), *inner]
        else:
            body.append(random_task(rng, engine, semaphores))
    return body


def random_program(rng: random.Random, machine: Machine) -> dict[str, Sequence[Descriptor]]:
    """Queues that neither deadlock nor overflow a semaphore (by the oracle), of bounded length."""
    while True:
        semaphores: dict[str, dict[str, list[int]]] = {e: {"wait": [], "signal": []} for e in ENGINES}
        for semaphore in range(16):
            producer, consumer = rng.sample(ENGINES, 2)
            semaphores[producer]["signal"].append(semaphore)
            semaphores[consumer]["wait"].append(semaphore)
        if any(len(kinds["wait"]) < 2 or len(kinds["signal"]) < 3 for kinds in semaphores.values()):
            continue
        queues = {e: [*random_body(rng, e, semaphores, 0), HALT] for e in ENGINES}
        lengths = [sum(1 for _ in executed(queue)) for queue in queues.values()]
        if max(len(queue) for queue in queues.values()) > machine.descriptors or not 12 < sum(lengths) < 60:
            continue
        try:
            times = expected_times(queues, fake_durations(queues))
        except DeadlockError:
            continue
        if times[2] < 1500:
            return queues


def fake_durations(queues: dict[str, Any]) -> dict[str, list[int]]:
    return {e: [d[DURATION_FIELD[e]] for d, _, _ in executed(queue)] for e, queue in queues.items()}


def check_run(simulation: QueueSimulation, queues: dict[str, Sequence[Descriptor]], machine: Machine) -> int:
    """Compares what was recorded with the oracles; returns the number of tasks."""
    starts, ends, total = expected_times(queues, fake_durations(queues))
    assert simulation.starts == starts
    assert simulation.ends == ends
    assert simulation.cycles == total
    tasks = 0
    for engine, queue in queues.items():
        for (descriptor, indices, _), shown in zip(executed(queue), simulation.shown[engine], strict=True):
            tasks += 1
            assert shown[0] == encode_descriptor(descriptor)
            if descriptor.op == Opcode.SYNC:
                continue
            for operand, (address, bits) in enumerate(address_of(engine, descriptor, indices, machine)):
                assert shown[1][operand] == address % 2**bits, (engine, operand, indices)
    return tasks


def test_random_queues_start_in_the_predicted_cycle_with_the_defined_addresses() -> None:
    machine = small_machine()
    simulation = QueueSimulation(machine)
    rng = random.Random(20240501)
    tasks = 0
    for _ in range(25):
        queues = random_program(rng, machine)
        simulation.run(queues)
        tasks += check_run(simulation, queues, machine)
    assert tasks > 500


def test_a_second_run_starts_anew_with_cleared_semaphores() -> None:
    machine = small_machine()
    simulation = QueueSimulation(machine)
    leftover = Descriptor(Opcode.SYNC, sync(signals=[(0, 3)]))
    waiting = Descriptor(Opcode.SYNC, sync(waits=[(0, 1)]))
    queues = dict.fromkeys(ENGINES, (HALT,)) | {"load": (leftover, HALT), "matmul": (waiting, HALT)}
    simulation.run(queues, runs=3)
    check_run(simulation, queues, machine)


def test_phase_lengths_are_the_named_constants() -> None:
    """Written out by hand, so that the constants cannot change unnoticed together with the oracle."""
    simulation = QueueSimulation(small_machine())
    idle: dict[str, Sequence[Descriptor]] = dict.fromkeys(ENGINES, (HALT,))
    simulation.run(idle)
    assert simulation.cycles == FINAL_CYCLES == 2
    store = Descriptor(Opcode.STORE, {"run_bytes": 7, **sync(signals=[(5, 1)])})
    loops = [Descriptor(Opcode.LOOP, {"count": 2, "body": body}) for body in (3, 2, 1)]
    waiting = Descriptor(Opcode.SYNC, sync(waits=[(5, 1)]))
    simulation.run(idle | {"store": (*loops, store, HALT), "load": (waiting, HALT)})
    assert simulation.starts["store"][0] == ISSUE_CYCLES + 3 * LOOP_CYCLES == 30
    assert simulation.ends["store"][0] == 37
    assert simulation.starts["load"] == [38], "a signal given in cycle e lets a task start in e + 1"
    assert simulation.ends["load"] == [38 + SYNC_CYCLES] == [39]
    gaps = [s - e for s, e in zip(simulation.starts["store"][1:], simulation.ends["store"], strict=False)]
    assert gaps == [18, 22, 18, 26, 18, 22, 18], "looping back is free, each LOOP fetched again costs 4"


def test_semaphores_count_simultaneous_signals_and_waits_of_all_queues() -> None:
    """Every queue moves semaphores at random in the same cycles, several of them the same one."""
    dut = Semaphores()
    rng = random.Random(7)
    simulated = [0] * 16

    async def drive(ctx: Any) -> None:
        for _ in range(400):
            expected = list(simulated)
            for engine in ENGINES:
                port = getattr(dut, engine)
                ids = rng.sample(range(4), 3)
                move = rng.choice(["take", "give", "idle"])
                slots = [{"id": i, "amount": rng.choice([0, 1, 2, 40])} for i in ids]
                ctx.set(port.waits, slots if move == "take" else [{"id": 0, "amount": 0}] * 3)
                ctx.set(port.signals, slots if move == "give" else [{"id": 1, "amount": 9}] * 3)
                ready = all(simulated[s["id"]] >= s["amount"] for s in slots)
                if move == "take":
                    assert ctx.get(port.ready) == ready
                    move = "take" if all(expected[s["id"]] >= s["amount"] for s in slots) else "idle"
                if move == "give" and any(expected[s["id"]] + s["amount"] > 255 for s in slots):
                    move = "idle"
                for slot in slots if move != "idle" else []:
                    expected[slot["id"]] += slot["amount"] if move == "give" else -slot["amount"]
                ctx.set(port.take, move == "take")
                ctx.set(port.give, move == "give")
            await ctx.tick()
            simulated[:] = expected
        ctx.set(dut.clear, 1)
        await ctx.tick()
        ctx.set(dut.load.waits, [{"id": 0, "amount": 1}] * 3)
        assert not ctx.get(dut.load.ready)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert max(simulated) > 40, "the test must move counts"


def test_semaphore_port_has_one_direction_per_side() -> None:
    port = SemaphorePort()
    assert {name for name, member in port.members.items() if member.flow == wiring.In} == {"ready"}


@pytest.mark.parametrize("engine", ENGINES)
def test_descriptor_memory_is_written_through_the_program_port(engine: str) -> None:
    machine = small_machine(descriptors=4)
    dut = Sequencer(engine, machine)
    written = [random.Random(3).getrandbits(64) for _ in range(WORDS * machine.descriptors)]

    async def drive(ctx: Any) -> None:
        ctx.set(dut.program.en, 1)
        for address, value in enumerate(written):
            ctx.set(dut.program.addr, address)
            ctx.set(dut.program.data, value)
            await ctx.tick()
        assert [ctx.get(dut.descriptors[address]) for address in range(len(written))] == written

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
