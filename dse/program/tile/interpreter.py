"""Executes tile programs on a byte array: the meaning of the instruction set, engines in any legal order.

A program is right only if every legal order gives the same bytes. With a seed the interpreter takes a random one:
engines run ahead of each other as far as semaphores let them, an effect falls on the begin or the end of its task,
and scratchpads start with random bytes, so that a read of something never written shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dse.program.tile.errors import TileProgramError
from dse.program.tile.expand import Expanded, IntArray, effective, expand
from dse.program.tile.footprint import Slots, bounds_problems, descriptor_problems, semaphore_slots
from dse.program.tile.isa import ENGINES, SEMAPHORE_MAX, SEMAPHORES, Descriptor
from dse.program.tile.kernels import kernel
from dse.program.tile.pads import Kernel, Scratchpads
from dse.program.tile.program import HostStep, Machine, TileProgram, TileStep

ByteArray = npt.NDArray[np.uint8]

#: How often, in moves, the random order prefers other engines: seldom, so that engines run far ahead.
_RESHUFFLE = 0.15


def run_step(
    step: TileStep,
    machine: Machine,
    memory: ByteArray,
    *,
    order_seed: int | None = None,
    pads: Scratchpads | None = None,
) -> None:
    """Execute one step.

    Parameters
    ----------
    step, machine
        Its queues; the machine that they were compiled for.
    memory : uint8, shape (memory_bytes,), contiguous
        External memory, changed in place.
    order_seed
        Seed of a random legal order and of the scratchpads' first contents; None: engines take turns, zeros.
    pads
        Scratchpads as the step before has left them; None: as power-up leaves them.

    Raises
    ------
    TileProgramError: a malformed queue, an access outside its memory (before anything runs), deadlock or
    semaphore overflow (queue, descriptor and semaphores are named).
    """
    if memory.dtype != np.uint8 or memory.ndim != 1 or not memory.flags.c_contiguous or not memory.flags.writeable:
        raise TileProgramError(f"memory must be a contiguous, writable row of uint8, not {memory.dtype} {memory.shape}")
    rng = None if order_seed is None else np.random.default_rng(order_seed)
    pads = Scratchpads.fresh(machine, rng) if pads is None else pads
    queues = [_Queue.of(engine, step, machine, pads, memory) for engine in ENGINES]
    counts = [0] * SEMAPHORES
    try:
        if order_seed is None:
            _take_turns(queues, counts)
        else:
            _random_order(queues, counts, random.Random(order_seed))
    except TileProgramError as error:
        raise TileProgramError(f"{step.name}: {error}") from None


def run_program(
    program: TileProgram,
    memory: ByteArray,
    host: Callable[[HostStep, ByteArray], None],
    *,
    order_seed: int | None = None,
) -> None:
    """Execute all steps in order; `host` does the host operations on the same memory.

    Scratchpads keep their contents from step to step, as they do in the hardware.

    Raises
    ------
    TileProgramError: as `run_step`; or a memory of another size than the program's.
    """
    if memory.shape != (program.memory_bytes,):
        raise TileProgramError(f"the program needs {program.memory_bytes} bytes of memory, got shape {memory.shape}")
    pads = Scratchpads.fresh(program.machine, None if order_seed is None else np.random.default_rng(order_seed))
    for number, step in enumerate(program.steps):
        if isinstance(step, TileStep):
            seed = None if order_seed is None else order_seed + number
            run_step(step, program.machine, memory, order_seed=seed, pads=pads)
        else:
            host(step, memory)


@dataclass
class _Queue:
    """An engine's queue under execution."""

    engine: str
    descriptors: Sequence[Descriptor]
    order: list[int]
    expanded: Expanded
    kernels: list[Kernel]
    waits: list[Slots]
    signals: list[Slots]
    addresses: list[Iterator[dict[str, int]]]
    position: int = 0
    running: bool = False
    pending: dict[str, int] | None = field(default=None)

    @staticmethod
    def of(engine: str, step: TileStep, machine: Machine, pads: Scratchpads, memory: ByteArray) -> _Queue:
        queue = step.queues[engine]
        for position, d in enumerate(queue):
            if problems := descriptor_problems(d, engine, machine):
                raise TileProgramError(f"{step.name}: {engine}[{position}] {d.op.name}: {problems[0]}")
        try:
            expanded = expand(queue)
        except TileProgramError as error:
            raise TileProgramError(f"{step.name}: {engine}: {error}") from None
        addresses = effective(expanded, queue, machine)
        for position, (d, columns) in enumerate(zip(queue, addresses, strict=True)):
            for problem in bounds_problems(d, columns, machine, memory.size):
                raise TileProgramError(f"{step.name}: {engine}[{position}] {d.op.name}: {problem}")
        return _Queue(
            engine=engine,
            descriptors=queue,
            order=expanded.descriptor.tolist(),
            expanded=expanded,
            kernels=[kernel(d, pads, memory) for d in queue],
            waits=[semaphore_slots(d, "wait") for d in queue],
            signals=[semaphore_slots(d, "signal") for d in queue],
            addresses=[_rows(columns) for columns in addresses],
        )

    @property
    def ended(self) -> bool:
        return self.position == len(self.order)

    def may_begin(self, counts: list[int]) -> bool:
        """Whether the next task's semaphores all hold their amounts."""
        if self.running or self.ended:
            return False
        return all(counts[semaphore] >= amount for semaphore, amount in self.waits[self.order[self.position]])

    def begin(self, counts: list[int], *, effect_now: bool) -> None:
        """Subtract the waits; with `effect_now` execute, else leave that to `finish`."""
        current = self.order[self.position]
        for semaphore, amount in self.waits[current]:
            counts[semaphore] -= amount
        address = next(self.addresses[current], {})
        if effect_now:
            self.kernels[current](address)
        self.pending = None if effect_now else address
        self.running = True

    def finish(self, counts: list[int]) -> None:
        """Execute if that is still to be done; add the signals."""
        current = self.order[self.position]
        if self.pending is not None:
            self.kernels[current](self.pending)
        for semaphore, amount in self.signals[current]:
            counts[semaphore] += amount
            if counts[semaphore] > SEMAPHORE_MAX:
                raise TileProgramError(
                    f"{self.describe()}: semaphore {semaphore} overflows to {counts[semaphore]}; "
                    f"the limit is {SEMAPHORE_MAX}"
                )
        self.running, self.pending = False, None
        self.position += 1

    def describe(self) -> str:
        """The current task in messages."""
        current = self.order[self.position]
        indices = self.expanded.index[self.position].tolist()
        return f"{self.engine}[{current}] {self.descriptors[current].op.name} at loop indices {indices}"


def _rows(columns: dict[str, IntArray]) -> Iterator[dict[str, int]]:
    """Addresses instance by instance."""
    names = list(columns)
    lists = [columns[name].tolist() for name in names]
    return (dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True))


def _take_turns(queues: list[_Queue], counts: list[int]) -> None:
    """Round robin, a task a turn."""
    while not all(queue.ended for queue in queues):
        moved = False
        for queue in queues:
            if queue.may_begin(counts):
                queue.begin(counts, effect_now=True)
                queue.finish(counts)
                moved = True
        if not moved:
            raise _deadlock(queues, counts)


def _random_order(queues: list[_Queue], counts: list[int], rng: random.Random) -> None:
    """Begin and end tasks as a changing preference among the engines picks them."""
    preference = list(queues)
    rng.shuffle(preference)
    while not all(queue.ended for queue in queues):
        if rng.random() < _RESHUFFLE:
            rng.shuffle(preference)
        for queue in preference:
            if queue.running:
                queue.finish(counts)
                break
            if queue.may_begin(counts):
                queue.begin(counts, effect_now=rng.random() < 0.5)
                break
        else:
            raise _deadlock(queues, counts)


def _deadlock(queues: list[_Queue], counts: list[int]) -> TileProgramError:
    parts = []
    for queue in queues:
        if not queue.ended:
            waits = queue.waits[queue.order[queue.position]]
            missing = [f"semaphore {s} (needs {n}, holds {counts[s]})" for s, n in waits if counts[s] < n]
            parts.append(f"{queue.describe()} waits for {', '.join(missing)}")
    return TileProgramError("deadlock: " + "; ".join(parts))
