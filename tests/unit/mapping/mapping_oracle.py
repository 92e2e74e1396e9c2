"""A slow interpreter of mappings: walks every loop and counts the words of tiles as sets of coordinates."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from dse.arch import Arch
from dse.mapping import Mapping, Problem, TensorAccess

Words = frozenset[tuple[int, ...]]


class _Loop(NamedTuple):
    dim: int
    count: int
    step: int
    level: int
    axis: int  # -1 in time


class Counted(NamedTuple):
    reads: int
    fills: int
    updates: int


def lay_out(problem: Problem, arch: Arch, mapping: Mapping) -> list[_Loop]:
    """Loops from the outermost to the innermost with their steps."""
    plain = []
    by_level = {part.level: part.loops for part in mapping.temporal}
    for k, level in enumerate(arch.levels):
        plain += [(d, n, k, -1) for d, n in by_level.get(level.name, ())]
        for a, axis in enumerate(arch.axes):
            if axis.below == level.name:
                plain += [(d, n, k, a) for d, n in mapping.spatial.get(axis.name, ())]
    loops = []
    for i, (name, count, k, a) in enumerate(plain):
        step = 1
        for later, n, _, _ in plain[i + 1 :]:
            step *= n if later == name else 1
        loops.append(_Loop(problem.dims.index(name), count, step, k, a))
    return loops


def steps_in_time(problem: Problem, loops: list[_Loop]) -> int:
    """Points in time at which the first compute unit has work."""
    times = [loop for loop in loops if loop.axis < 0]
    return sum(
        all(start < bound for start, bound in zip(_starts(problem, times, index), problem.bounds, strict=True))
        for index in product(*(range(loop.count) for loop in times))
    )


def _starts(problem: Problem, loops: list[_Loop], index: tuple[int, ...]) -> list[int]:
    starts = [0] * len(problem.dims)
    for loop, i in zip(loops, index, strict=True):
        starts[loop.dim] += i * loop.step
    return starts


def _box(access: TensorAccess, starts: list[int], sizes: list[int]) -> Words:
    spans = []
    for axis in access.axes:
        low = sum(c * starts[d] for d, c in axis)
        spans.append(range(low, low + 1 + sum(c * (sizes[d] - 1) for d, c in axis)))
    return frozenset(product(*spans))


def _tile(
    problem: Problem, access: TensorAccess, loops: list[_Loop], index: tuple[int, ...], full: list[int]
) -> Words | None:
    starts = _starts(problem, loops, index)
    sizes = [min(size, bound - start) for size, bound, start in zip(full, problem.bounds, starts, strict=True)]
    return None if min(sizes) < 1 else _box(access, starts, sizes)


def tiles_entering(problem: Problem, arch: Arch, loops: list[_Loop], access: TensorAccess, child: int) -> int:
    """Points in time at which another tile enters the first instance of `child`: one a step of the loops it sees."""
    indexing = {d for axis in access.axes for d, _ in axis}
    times = [loop for loop in loops if loop.level < child and loop.axis < 0]
    while times and times[-1].dim not in indexing:
        times.pop()
    return sum(
        all(start < bound for start, bound in zip(_starts(problem, times, index), problem.bounds, strict=True))
        for index in product(*(range(loop.count) for loop in times))
    )


def transfers(
    problem: Problem, arch: Arch, loops: list[_Loop], access: TensorAccess, parent: int, child: int
) -> tuple[int, int, int]:
    """(words into the child's instances, words leaving the parent, first visits among the former)."""
    compute = child == len(arch.levels)
    indexing = {d for axis in access.axes for d, _ in axis}
    outside = [loop for loop in loops if loop.level < child]
    full = [1] * len(problem.dims)
    for loop in loops:
        full[loop.dim] *= loop.count if loop.level >= child else 1
    full = [min(a, b) for a, b in zip(full, problem.bounds, strict=True)]
    times = [loop for loop in outside if loop.axis < 0]
    while not compute and times and times[-1].dim not in indexing:
        times.pop()
    spaces = [loop for loop in outside if loop.axis >= 0]

    def merges(loop: _Loop) -> bool:
        axis = arch.axes[loop.axis]
        return loop.level >= parent and (axis.reduces if access.role == "output" else access.role in axis.multicast)

    into = sent = first = 0
    seen: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for time in product(*(range(loop.count) for loop in times)):
        leaving: set[tuple[tuple[int, ...], Words, Words]] = set()
        for space in product(*(range(loop.count) for loop in spaces)):
            tile = _tile(problem, access, times + spaces, time + space, full)
            if tile is None:
                continue
            new = tile
            if not compute and times and time[-1] > 0 and arch.levels[child].window_reuse:
                before = _tile(problem, access, times + spaces, (*time[:-1], time[-1] - 1, *space), full)
                assert before is not None
                new = tile - before
            known = seen.setdefault(space, set())
            into += len(new)
            first += len(tile - known) if access.role == "output" else 0
            known |= tile
            apart = tuple(i for loop, i in zip(spaces, space, strict=True) if not merges(loop))
            leaving.add((apart, tile, new))
        sent += sum(len(new) for _, _, new in leaving)
    return into, sent, first


def interpret(problem: Problem, arch: Arch, mapping: Mapping, mode: str) -> tuple[dict[tuple[str, str], Counted], int]:
    """Reads, fills and updates by (level, tensor), and the steps in time."""
    loops = lay_out(problem, arch, mapping)
    bypass = {part.level: part.bypass for part in mapping.temporal}
    result = {}
    for access in problem.tensors:
        keepers = [
            k
            for k, level in enumerate(arch.levels)
            if access.role in level.holds and access.role not in bypass.get(level.name, ())
        ]
        for place, k in enumerate(keepers):
            child = keepers[place + 1] if place + 1 < len(keepers) else len(arch.levels)
            _, sent, _ = transfers(problem, arch, loops, access, k, child)
            into = first = 0
            if place:
                into, _, first = transfers(problem, arch, loops, access, keepers[place - 1], k)
            if access.role != "output":
                result[arch.levels[k].name, access.name] = Counted(sent, into, 0)
                continue
            untouched = first if place else len(_box(access, [0] * len(problem.dims), list(problem.bounds)))
            drained = into if mode == "native" else 0
            result[arch.levels[k].name, access.name] = Counted(sent - untouched + drained, into - first, sent)
    return result, steps_in_time(problem, loops)
