"""Damaged tile programs: what a bit flip, a wrong field, a lost or doubled descriptor does to a compiled step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from designs import compile_random
from recurrent_networks import element_hardware, random_recurrent

from accelerators.systolic import SystolicAccelerator
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.program.tile.checker import check
from dse.program.tile.encode import decode_descriptor, encode_descriptor, field_range
from dse.program.tile.errors import TileProgramError
from dse.program.tile.expand import expand
from dse.program.tile.interpreter import run_step
from dse.program.tile.isa import ENGINES, Descriptor, Opcode, fields
from dse.program.tile.program import Machine, TileStep

#: Executed tasks beyond which a mutant that the checker accepts is not run: it would end, but not soon.
RUNNABLE_TASKS = 20_000


@dataclass(frozen=True, eq=False)
class Victim:
    """A compiled step, its machine and the memory it starts from."""

    step: TileStep
    machine: Machine
    memory: np.ndarray


def victims(count: int) -> list[Victim]:
    """Steps of random layers and of random recurrent layers, half each."""
    found: list[Victim] = []
    seed = 0
    while len(found) < count:
        rng = np.random.default_rng(seed)
        try:
            if len(found) % 2:
                _, _, _, executable = compile_random(seed, activation_kib=0.5, weight_kib=0.5)
            else:
                executable = SystolicAccelerator().lower(random_recurrent(rng), element_hardware(rng), Decisions())
        except InfeasibleError:
            seed += 1
            continue
        image = executable.program.image
        assert image is not None
        found.append(Victim(executable.program.tile_steps[0], executable.program.machine, image))
        seed += 1
    return found


def mutant(rng: np.random.Generator, victim: Victim) -> TileStep:
    """One to three changes to the queues of a step; what no longer decodes is drawn again."""
    step = victim.step
    for _ in range(int(rng.integers(1, 4))):
        engine = str(rng.choice(ENGINES))
        queue = list(step.queues[engine])
        position = int(rng.integers(0, len(queue)))
        kind = rng.random()
        if kind < 0.3:
            queue[position] = _flipped(rng, queue[position])
        elif kind < 0.8:
            queue[position] = _redrawn(rng, queue[position])
        elif kind < 0.9:
            del queue[position]
        else:
            queue.insert(position, queue[int(rng.integers(0, len(queue)))])
        step = replace(step, queues={**step.queues, engine: tuple(queue)})
    return step


def _flipped(rng: np.random.Generator, d: Descriptor) -> Descriptor:
    """A descriptor with one of its 512 bits flipped."""
    while True:
        try:
            return decode_descriptor(encode_descriptor(d) ^ (1 << int(rng.integers(0, 512))))
        except TileProgramError:
            continue


def _redrawn(rng: np.random.Generator, d: Descriptor) -> Descriptor:
    """A descriptor with one field at an end of its range, near its value, or anywhere."""
    items = fields(d.op)[1:]
    item = items[int(rng.integers(0, len(items)))]
    low, high = field_range(item)
    near = int(np.clip(d[item.name] + int(rng.integers(-2, 3)), low, high))
    value = int(rng.choice([low, high, near, near, near, int(rng.integers(low, high + 1))]))
    return Descriptor(d.op, {**d.values, item.name: value})


def verdict(victim: Victim, step: TileStep, orders: Sequence[int]) -> str:
    """ "rejected" by the checker, "ran" to its end in every given order, "data" or "long".

    "data": the interpreter found channel parameters with a shift that no program gives, which is for the data to say.
    Any other step that the checker accepts and the interpreter refuses raises TileProgramError: that is a fault.
    """
    if check(step, victim.machine, victim.memory.size):
        return "rejected"
    if sum(expand(step.queues[engine]).instances for engine in ENGINES) > RUNNABLE_TASKS:
        return "long"
    try:
        for order in orders:
            run_step(step, victim.machine, victim.memory.copy(), order_seed=order)
    except TileProgramError as error:
        if "channel parameters with a shift" in str(error):
            return "data"
        raise
    return "ran"


def opcodes(steps: Sequence[TileStep]) -> set[Opcode]:
    """Which opcodes occur."""
    return {d.op for step in steps for queue in step.queues.values() for d in queue}
