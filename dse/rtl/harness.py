"""Runs tile steps on the RTL in Amaranth's simulator: values and cycles, against a modelled memory.

The memory answers in order; it is read when a request is accepted and written when a beat is acknowledged, the
latest and the earliest moments a program may count on. It is always ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Cat
from amaranth.sim import Simulator

from dse.core.errors import DseError, InfeasibleError, Violation
from dse.program.tile.encode import encode_descriptor
from dse.program.tile.isa import ENGINES, Descriptor
from dse.program.tile.program import Machine, TileStep
from dse.program.tile.timing import ISSUE_CYCLES, LOOP_CYCLES
from dse.rtl.addresses import WORD_BITS
from dse.rtl.machine import TileMachine
from dse.rtl.semaphores import SLOTS
from dse.rtl.sequencer import WORDS

ByteArray = npt.NDArray[np.uint8]
#: One latency for all beats, or that of each beat in order (the last one goes on): a recorded trace, replayed.
Latency = int | Sequence[int]

CLOCK_SECONDS = 1e-6  # any value: only cycles are counted
#: All engines idle for so long: every queue waits. The longest a queue may legally think is a nest of four LOOPs.
IDLE_CYCLES = ISSUE_CYCLES + 4 * LOOP_CYCLES + 64


class RtlRunError(DseError):
    """A program did not run to its end on the RTL."""


@dataclass(frozen=True, eq=False)
class RtlRun:
    """What a run gave.

    Attributes
    ----------
    cycles
        From the cycle of `start` (0) to the one in which `done` is high.
    memory
        Contents afterwards, uint8, shape as given.
    starts, ends
        By engine, int64, shape (tasks,): cycles in which each task of the queue (SYNC included) starts, ends.
    read_beats, write_beats
        Beats that passed the memory port.
    """

    cycles: int
    memory: ByteArray
    starts: dict[str, npt.NDArray[np.int64]]
    ends: dict[str, npt.NDArray[np.int64]]
    read_beats: int
    write_beats: int


@dataclass
class _Job:
    """A run under way: what is asked and what is recorded."""

    words: dict[str, list[int]]
    memory: bytearray
    latencies: tuple[tuple[int, ...], tuple[int, ...]]
    max_cycles: int
    cycles: int = 0
    events: list[tuple[int, int]] = field(default_factory=list)
    beats: list[int] = field(default_factory=lambda: [0, 0])


class TileSimulation:
    """A machine in the simulator: built once, then run on any number of steps.

    Parameters
    ----------
    component
        The machine's RTL.
    machine
        Its geometry; the memory's latency is taken from it unless a run says otherwise.
    """

    def __init__(self, component: TileMachine, machine: Machine) -> None:
        self.component, self.machine = component, machine
        self._job: _Job | None = None
        self._simulator: Simulator | None = None

    def run(
        self,
        step: TileStep,
        memory: ByteArray,
        *,
        read_latency: Latency | None = None,
        write_latency: Latency | None = None,
        max_cycles: int = 1_000_000,
    ) -> RtlRun:
        """Run one step from a reset machine.

        Parameters
        ----------
        step
            Its queues; each must fit the descriptor memory.
        memory : uint8, shape (bytes,)
            Not changed.
        read_latency, write_latency
            Cycles (>= 1) from an accepted beat to its data or acknowledgement; None: the machine's.
        max_cycles
            Gives up beyond.

        Raises
        ------
        RtlRunError: deadlock, `max_cycles` reached, or an access beyond the memory.
        InfeasibleError: a queue is longer than the descriptor memory.
        """
        default = self.machine.memory_latency_cycles
        latencies = tuple(
            _latency_list(default if latency is None else latency) for latency in (read_latency, write_latency)
        )
        job = _Job(
            words={engine: self._queue_words(step, engine) for engine in ENGINES},
            memory=bytearray(memory.tobytes()),
            latencies=(latencies[0], latencies[1]),
            max_cycles=max_cycles,
        )
        self._job = job
        if self._simulator is None:
            self._simulator = Simulator(self.component)
            self._simulator.add_clock(CLOCK_SECONDS)
            self._simulator.add_testbench(self._drive)
        else:
            self._simulator.reset()
        self._simulator.run()
        result = np.frombuffer(bytes(job.memory), dtype=np.uint8).reshape(memory.shape).copy()
        starts, ends = _task_times(job.events)
        return RtlRun(job.cycles, result, starts, ends, job.beats[0], job.beats[1])

    def _queue_words(self, step: TileStep, engine: str) -> list[int]:
        """A queue as the 64-bit words of its descriptor memory."""
        queue = step.queues[engine]
        if len(queue) > self.machine.descriptors:
            limit = f"{engine} queue of {step.name}"
            raise InfeasibleError(
                "descriptor memory", [Violation(limit, len(queue), self.machine.descriptors, "descriptors")]
            )
        for position, descriptor in enumerate(queue):
            _check_slots(descriptor, f"{step.name}: {engine}[{position}]")
        mask = (1 << WORD_BITS) - 1
        encoded = [encode_descriptor(descriptor) for descriptor in queue]
        return [(word >> (WORD_BITS * part)) & mask for word in encoded for part in range(WORDS)]

    async def _drive(self, ctx: Any) -> None:
        """The host and the memory: preload, start, then serve the port cycle by cycle until done."""
        job, top = self._job, self.component
        assert job is not None, "only `run` advances the simulator"
        for engine, words in job.words.items():
            rows = top.sequencers[engine].descriptors
            for address, value in enumerate(words):
                ctx.set(rows[address], value)
        await ctx.tick().repeat(2)
        ctx.set(top.start, 1)
        ctx.set(top.read.ready, 1)
        ctx.set(top.write.ready, 1)
        port = _MemoryModel(job, self.machine.memory_bytes_per_cycle)
        status = Cat(top.started, top.ended, top.read.valid, top.write.valid, top.done)
        events_mask, done = (1 << 2 * len(ENGINES)) - 1, 1 << (2 * len(ENGINES) + 2)
        read, write = top.read, top.write
        sampled = (status, read.addr, write.addr, write.data, write.bytes)
        all_engines = (1 << len(ENGINES)) - 1
        cycle = idle_since = busy = 0
        async for _, _, flags, *beat in ctx.tick().sample(*sampled):
            if cycle == 0:
                ctx.set(top.start, 0)
            elif flags & done:
                job.cycles = cycle
                return
            if flags:
                events = flags & events_mask
                if events:
                    job.events.append((cycle, events))
                    busy = (busy | events) & ~(events >> len(ENGINES)) & all_engines
                    idle_since = cycle
                port.accept(cycle, flags >> 2 * len(ENGINES), *beat)
            port.answer(ctx, cycle + 1, read, write)
            if not busy and cycle - idle_since > IDLE_CYCLES:
                raise RtlRunError(f"the program deadlocks: no queue moved after cycle {idle_since}")
            if cycle >= job.max_cycles:
                raise RtlRunError(f"the program has not ended after {cycle} cycles (limit {job.max_cycles})")
            cycle += 1


class _MemoryModel:
    """The memory behind both channels: beats in flight with the cycle in which each is answered."""

    def __init__(self, job: _Job, beat_bytes: int) -> None:
        self._job, self._beat_bytes = job, beat_bytes
        self._reads: deque[tuple[int, int]] = deque()
        self._writes: deque[tuple[int, int, bytes]] = deque()
        self._due = [0, 0]
        self._answering = [False, False]

    def _due_cycle(self, channel: int, cycle: int) -> int:
        """When the beat accepted in `cycle` is answered: after its latency, in order, one a cycle."""
        latencies = self._job.latencies[channel]
        index = min(self._job.beats[channel], len(latencies) - 1)
        self._job.beats[channel] += 1
        self._due[channel] = max(self._due[channel] + 1, cycle + latencies[index])
        return self._due[channel]

    def accept(
        self, cycle: int, valid: int, read_address: int, write_address: int, write_data: int, count: int
    ) -> None:
        """Takes the beats presented in `cycle`; `valid` bit 0: read, bit 1: write."""
        memory = self._job.memory
        if valid & 1:
            # The last beat of a run may ask for bytes beyond the memory's end; they are not used.
            beat = memory[read_address : read_address + self._beat_bytes]
            if not beat:
                raise RtlRunError(f"LOAD reads byte {read_address} of a memory of {len(memory)} bytes")
            self._reads.append((self._due_cycle(0, cycle), int.from_bytes(beat, "little")))
        if valid & 2:
            if write_address + count > len(memory):
                raise RtlRunError(
                    f"STORE writes bytes {write_address} to {write_address + count - 1} of a memory of "
                    f"{len(memory)} bytes"
                )
            beat_bytes = write_data.to_bytes(self._beat_bytes, "little")[:count]
            self._writes.append((self._due_cycle(1, cycle), write_address, beat_bytes))

    def answer(self, ctx: Any, cycle: int, read: Any, write: Any) -> None:
        """Drives what the memory says in `cycle`, touching the signals only when they change."""
        arrives = bool(self._reads) and self._reads[0][0] == cycle
        if arrives:
            ctx.set(Cat(read.data_valid, read.data), 1 | self._reads.popleft()[1] << 1)
        elif self._answering[0]:
            ctx.set(read.data_valid, 0)
        acknowledges = bool(self._writes) and self._writes[0][0] == cycle
        if acknowledges:
            _, address, beat = self._writes.popleft()
            self._job.memory[address : address + len(beat)] = beat
        if acknowledges != self._answering[1]:
            ctx.set(write.ack, int(acknowledges))
        self._answering = [arrives, acknowledges]


def _latency_list(latency: Latency) -> tuple[int, ...]:
    latencies = (latency,) if isinstance(latency, int) else tuple(latency)
    if not latencies or min(latencies) < 1:
        raise RtlRunError(f"memory latency {latency!r} is not at least one cycle")
    return latencies


def _check_slots(descriptor: Descriptor, where: str) -> None:
    """The semaphores add up only one amount per descriptor, semaphore and direction."""
    for kind in ("wait", "signal"):
        used = [descriptor[f"{kind}{slot}_id"] for slot in range(SLOTS) if descriptor[f"{kind}{slot}_amount"]]
        if len(set(used)) < len(used):
            raise RtlRunError(f"{where} names a semaphore twice among its {kind}s {used}; once is the limit")


def _task_times(
    events: list[tuple[int, int]],
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, npt.NDArray[np.int64]]]:
    """Recorded (cycle, started | ended << 4) as starts and ends per engine."""
    table = np.array(events, dtype=np.int64).reshape(-1, 2)
    times = []
    for shift in (0, len(ENGINES)):
        hits = {name: table[(table[:, 1] >> (shift + i)) & 1 == 1, 0] for i, name in enumerate(ENGINES)}
        times.append(hits)
    return times[0], times[1]


def run_step(
    component: TileMachine,
    machine: Machine,
    step: TileStep,
    memory: ByteArray,
    *,
    read_latency: Latency | None = None,
    write_latency: Latency | None = None,
) -> RtlRun:
    """Build the simulation of a machine and run one step on it: `TileSimulation.run` for a single use."""
    simulation = TileSimulation(component, machine)
    return simulation.run(step, memory, read_latency=read_latency, write_latency=write_latency)
