"""Proves a step safe before it runs: bounds, semaphores, deadlock, data races, conflicts at the ports of banks.

Each semaphore has one producing and one consuming engine, so what a task waits for is known statically and the
order that all executions share is a partial order. A vector clock per task holds, for each engine, how many of its
tasks have ended before the task starts in every execution. Two tasks that no clock orders may run at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dse.program.dependences import FROM_START, filling_tasks
from dse.program.tile.errors import TileProgramError
from dse.program.tile.expand import Expanded, IntArray, effective, expand
from dse.program.tile.footprint import accesses, bounds_problems, descriptor_problems, semaphore_slots, unit
from dse.program.tile.footprint_element import place
from dse.program.tile.isa import ENGINES, SEMAPHORE_MAX, SEMAPHORES, Descriptor, MemoryId
from dse.program.tile.overlap import ActivationWords
from dse.program.tile.program import Machine, TileStep

#: Engines that touch each memory besides one another: the only pairs that can race.
_PAIRS: tuple[tuple[MemoryId | None, tuple[str, str]], ...] = (
    (MemoryId.ACTIVATION, ("load", "matmul")),
    (MemoryId.ACTIVATION, ("vector", "matmul")),
    (MemoryId.WEIGHT, ("load", "matmul")),
    (MemoryId.PARAMETER, ("load", "vector")),
    (MemoryId.RESIDUAL, ("load", "vector")),
    (MemoryId.OUTPUT, ("vector", "store")),
    (MemoryId.STATE, ("load", "vector")),
    (MemoryId.STATE, ("vector", "store")),
    (MemoryId.STATE, ("load", "store")),
    (MemoryId.TABLE, ("load", "vector")),
    (None, ("load", "store")),
)

#: Pairs that meet at a port of a bank, a half of the memory, and what they do there that only one may do at a time:
#: anything in the accumulators, else writes or reads, since every bank has one port for each.
_SHARED_PORTS: tuple[tuple[MemoryId, tuple[str, str], str], ...] = (
    (MemoryId.ACCUMULATOR, ("matmul", "vector"), "touches"),
    (MemoryId.ACTIVATION, ("load", "vector"), "writes"),
    (MemoryId.STATE, ("load", "vector"), "writes"),
    (MemoryId.STATE, ("vector", "store"), "reads"),
    (MemoryId.OUTPUT, ("vector", "store"), "reads"),
)
_WORDS = "words"


def check(step: TileStep, machine: Machine, memory_bytes: int) -> list[str]:
    """Problems of a step, each one sentence that names queue and descriptor; empty when it is safe.

    A safe step runs to its end and leaves the same bytes in every legal order. Outside the activation scratchpad
    intervals of addresses stand for the addresses in them: two interleaved but disjoint accesses count as a race.

    Parameters
    ----------
    step, machine
        Queues and the machine to run them on.
    memory_bytes
        Size of external memory.
    """
    problems = _form_problems(step, machine)
    if problems:
        return problems
    queues: dict[str, Expanded] = {}
    for engine in ENGINES:
        try:
            queues[engine] = expand(step.queues[engine])
        except TileProgramError as error:
            problems.append(f"{engine}: {error}")
    if problems:
        return problems
    problems = _bounds(step, machine, queues, memory_bytes)
    owners = _owner_problems(step)
    if owners:
        return problems + owners
    tasks = _Tasks.of(step, queues)
    clocks, standing = _clocks(tasks)
    if standing:
        return [*problems, "deadlock: " + "; ".join(standing)]
    return problems + _overflows(tasks, clocks) + _races(step, machine, queues, clocks)


def _form_problems(step: TileStep, machine: Machine) -> list[str]:
    """Queues that are missing or too long, descriptors that are invalid whatever their addresses."""
    if set(step.queues) != set(ENGINES):
        return [f"a step has the queues {', '.join(ENGINES)}; this one {', '.join(sorted(step.queues)) or 'none'}"]
    problems = []
    for engine in ENGINES:
        queue = step.queues[engine]
        if len(queue) > machine.descriptors:
            problems.append(f"{engine}: {len(queue)} descriptors; the descriptor memory holds {machine.descriptors}")
        for position, d in enumerate(queue):
            found = descriptor_problems(d, engine, machine)
            problems += [f"{engine}[{position}] {d.op.name}: {problem}" for problem in found]
    return problems


def _bounds(step: TileStep, machine: Machine, queues: Mapping[str, Expanded], memory_bytes: int) -> list[str]:
    problems = []
    for engine in ENGINES:
        addresses = effective(queues[engine], step.queues[engine], machine)
        for position, (d, columns) in enumerate(zip(step.queues[engine], addresses, strict=True)):
            found = bounds_problems(d, columns, machine, memory_bytes)
            problems += [f"{engine}[{position}] {d.op.name}: {problem}" for problem in found]
    return problems


def _owner_problems(step: TileStep) -> list[str]:
    """Semaphores with several producing or several consuming engines."""
    problems = []
    for verb, role in (("wait", "consumed"), ("signal", "produced")):
        users: dict[int, list[str]] = {}
        for engine in ENGINES:
            named = {semaphore for d in step.queues[engine] for semaphore, _ in semaphore_slots(d, verb)}
            for semaphore in sorted(named):
                users.setdefault(semaphore, []).append(engine)
        for semaphore, engines in sorted(users.items()):
            if len(engines) > 1:
                problems.append(f"semaphore {semaphore} is {role} by {' and '.join(engines)}; one engine may")
    return problems


@dataclass(frozen=True, eq=False)
class _Tasks:
    """All executed tasks of a step, numbered engine after engine.

    `first[e]` is the first task of engine e (and `first[-1]` their number); `waits`, `signals` are rows of task,
    semaphore, amount in task order, `filled_by` the task behind each wait.
    """

    first: IntArray
    descriptor: IntArray
    waits: IntArray
    signals: IntArray
    filled_by: IntArray
    step: TileStep

    @staticmethod
    def of(step: TileStep, queues: Mapping[str, Expanded]) -> _Tasks:
        sizes = [queues[engine].instances for engine in ENGINES]
        first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        tables = []
        for verb in ("wait", "signal"):
            rows = [np.zeros((0, 3), np.int64)]
            for number, engine in enumerate(ENGINES):
                rows.append(_slot_rows(step.queues[engine], queues[engine], verb, int(first[number])))
            tables.append(np.concatenate(rows))
        filled_by = filling_tasks(tables[0], tables[1], np.zeros(SEMAPHORES, np.int64))
        descriptor = np.concatenate([queues[engine].descriptor for engine in ENGINES])
        return _Tasks(first, descriptor, tables[0], tables[1], filled_by, step)

    def engine(self, task: int) -> int:
        """Index of a task's engine."""
        return int(np.searchsorted(self.first, task, side="right")) - 1

    def name(self, task: int) -> str:
        """A task in messages."""
        engine = ENGINES[self.engine(task)]
        return _task_name(self.step, engine, int(self.descriptor[task]), task - int(self.first[self.engine(task)]))


def _task_name(step: TileStep, engine: str, position: int, task: int) -> str:
    return f"{engine}[{position}] {step.queues[engine][position].op.name} (its task {task})"


def _slot_rows(queue: tuple[Descriptor, ...], expanded: Expanded, verb: str, first: int) -> IntArray:
    """Waits or signals of a queue's instances: int64, shape (n, 3), sorted by task."""
    columns = []
    for slot in range(3):
        ids = np.array([d[f"{verb}{slot}_id"] for d in queue], np.int64)[expanded.descriptor]
        amounts = np.array([d[f"{verb}{slot}_amount"] for d in queue], np.int64)[expanded.descriptor]
        columns.append(np.stack([first + np.arange(expanded.instances), ids, amounts], axis=1))
    rows = np.stack(columns, axis=1).reshape(-1, 3)
    return rows[rows[:, 2] > 0]


def _clocks(tasks: _Tasks) -> tuple[IntArray, list[str]]:
    """Vector clocks: int64, shape (tasks, engines), tasks of each engine ended before a task starts in any order.

    Also why the queues stand, for those that do not reach their end (then the clocks are incomplete).
    """
    engines, total = len(ENGINES), int(tasks.first[-1])
    clocks = np.zeros((total, engines), np.int64)
    begin = np.searchsorted(tasks.waits[:, 0], np.arange(total + 1)).tolist()
    filled_by = tasks.filled_by.tolist()
    first = tasks.first.tolist()
    position = first[:-1]
    after = [[0] * engines for _ in range(engines)]
    engine_of = np.repeat(np.arange(engines), np.diff(tasks.first)).tolist()
    moved = True
    while moved:
        moved = False
        for engine in range(engines):
            while position[engine] < first[engine + 1]:
                task = position[engine]
                sources = [s for s in filled_by[begin[task] : begin[task + 1]] if s != FROM_START]
                if any(s < 0 or s >= position[engine_of[s]] for s in sources):
                    break
                clock = after[engine]
                for source in sources:
                    other = clocks[source].tolist()
                    other[engine_of[source]] = source - first[engine_of[source]] + 1
                    clock = [max(a, b) for a, b in zip(clock, other, strict=True)]
                clocks[task] = clock
                after[engine] = clock.copy()
                after[engine][engine] = task - first[engine] + 1
                position[engine] += 1
                moved = True
    return clocks, _standing(tasks, position)


def _standing(tasks: _Tasks, position: list[int]) -> list[str]:
    """The first task that cannot start on each engine that stands, and what it waits for."""
    result = []
    for engine, task in enumerate(position):
        if task == tasks.first[engine + 1]:
            continue
        missing = []
        for row in np.flatnonzero(tasks.waits[:, 0] == task).tolist():
            source = int(tasks.filled_by[row])
            if source != FROM_START and (source < 0 or source >= position[tasks.engine(source)]):
                missing.append(f"semaphore {int(tasks.waits[row, 1])}")
        result.append(f"{tasks.name(task)} waits for {', '.join(missing)}")
    return result


def _overflows(tasks: _Tasks, clocks: IntArray) -> list[str]:
    """Semaphores that hold more than they can in some order: at a signal, waits not surely past are not counted."""
    problems = []
    for semaphore in range(SEMAPHORES):
        given = tasks.signals[tasks.signals[:, 1] == semaphore]
        taken = tasks.waits[tasks.waits[:, 1] == semaphore]
        if not len(given):
            continue
        produced = np.cumsum(given[:, 2])
        consumed = np.zeros(len(given), np.int64)
        if len(taken):
            consumer, producer = tasks.engine(int(taken[0, 0])), tasks.engine(int(given[0, 0]))
            past = tasks.first[consumer] + clocks[given[:, 0], consumer]
            if consumer == producer:
                past = given[:, 0] + 1  # a task's own waits precede its signals
            sums = np.concatenate([[0], np.cumsum(taken[:, 2])])
            consumed = sums[np.searchsorted(taken[:, 0], past)]
        most = int((produced - consumed).argmax())
        if produced[most] - consumed[most] > SEMAPHORE_MAX:
            problems.append(
                f"semaphore {semaphore} may hold {int(produced[most] - consumed[most])} after "
                f"{tasks.name(int(given[most, 0]))}; the limit is {SEMAPHORE_MAX}"
            )
    return problems


@dataclass(frozen=True, eq=False)
class _Intervals:
    """Accesses of one engine to one memory in program order: per access its task, [low, high) and direction."""

    task: IntArray
    low: IntArray
    high: IntArray
    writes: IntArray


def _races(step: TileStep, machine: Machine, queues: Mapping[str, Expanded], clocks: IntArray) -> list[str]:
    """Unordered tasks of two engines on the same words, one of them writing; one problem a memory."""
    sizes = [queues[engine].instances for engine in ENGINES]
    split = dict(zip(ENGINES, np.split(clocks, np.cumsum(sizes)[:-1]), strict=True))
    addresses = {engine: effective(queues[engine], step.queues[engine], machine) for engine in ENGINES}
    problems = []
    words = ActivationWords(machine)
    checks = [(memory, pair, _WORDS) for memory, pair in _PAIRS] + list(_SHARED_PORTS)
    for memory, (one, other), what in checks:
        sides = [
            _intervals(step.queues[engine], queues[engine], addresses[engine], memory, machine, what)
            for engine in (one, other)
        ]
        for a, b in _conflicts(sides[0], sides[1], split[one], split[other], ENGINES.index(one), ENGINES.index(other)):
            if memory is MemoryId.ACTIVATION and what == _WORDS:
                pair = [
                    (step.queues[engine][int(queues[engine].descriptor[side.task[row]])], int(side.low[row]))
                    for engine, side, row in ((one, sides[0], a), (other, sides[1], b))
                ]
                if not words.shared(*pair[0], *pair[1]):
                    continue
            names = [
                _task_name(step, engine, int(queues[engine].descriptor[side.task[row]]), int(side.task[row]))
                for engine, side, row in ((one, sides[0], a), (other, sides[1], b))
            ]
            low = max(int(sides[0].low[a]), int(sides[1].low[b]))
            high = min(int(sides[0].high[a]), int(sides[1].high[b])) - 1
            verdict = "are not ordered" if what == _WORDS else "may use one bank at once"
            problems.append(f"{names[0]} and {names[1]} {verdict}: {place(memory)} {unit(memory)} {low} to {high}")
            break
    return problems


def _intervals(
    queue: tuple[Descriptor, ...],
    expanded: Expanded,
    addresses: tuple[dict[str, IntArray], ...],
    memory: MemoryId | None,
    machine: Machine,
    what: str,
) -> _Intervals:
    """Accesses of a queue to a memory; to its banks those that do `what` there, each of which counts as a write."""
    tasks, lows, highs, writes = ([np.zeros(0, np.int64)] for _ in range(4))
    order = np.argsort(expanded.descriptor, kind="stable")
    bounds = np.searchsorted(expanded.descriptor[order], np.arange(len(queue) + 1))
    for position, d in enumerate(queue):
        for access in accesses(d, machine):
            if access.memory is not memory or not {"reads": access.reads, "writes": access.writes}.get(what, True):
                continue
            base = addresses[position][access.operand]
            tasks.append(order[bounds[position] : bounds[position + 1]])
            lows.append(base)
            highs.append(base + access.extent)
            writes.append(np.full(len(base), access.writes or what == "reads", np.int64))
    task, low, high, write = (np.concatenate(column) for column in (tasks, lows, highs, writes))
    if what != _WORDS and memory is not None and machine.has(memory):
        # whoever touches a word holds its whole half
        half = machine.half(memory)
        low, high = low // half * half, -(-high // half) * half
    by_task = np.argsort(task, kind="stable")
    return _Intervals(task[by_task], low[by_task], high[by_task], write[by_task])


def _conflicts(
    a: _Intervals, b: _Intervals, clocks_a: IntArray, clocks_b: IntArray, engine_a: int, engine_b: int
) -> Iterator[tuple[int, int]]:
    """Pairs of rows of `a` and `b` that overlap, are unordered, and one of which writes.

    The tasks of b unordered with a task of a are consecutive: from the first not surely ended before it to the
    last that does not surely follow it.
    """
    if not len(a.task) or not len(b.task):
        return
    begin = np.searchsorted(b.task, clocks_a[a.task, engine_b])
    end = np.searchsorted(clocks_b[b.task, engine_a], a.task + 1)
    for row in np.flatnonzero(begin < end).tolist():
        window = slice(int(begin[row]), int(end[row]))
        hits = (b.low[window] < a.high[row]) & (a.low[row] < b.high[window])
        hits &= (b.writes[window] | a.writes[row]) > 0
        for hit in np.flatnonzero(hits).tolist():
            yield row, int(begin[row]) + hit
