"""A mapping as one list of loops from the outermost to the innermost, checked against problem and architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.arch import Arch
from dse.core.errors import UsageError, nearest
from dse.mapping.mapping import Mapping
from dse.mapping.problem import Problem, TensorAccess


@dataclass(frozen=True)
class Loop:
    """One loop: `step` iterations of `dim` lie inside one of its steps; `axis` is -1 for a loop in time."""

    dim: int
    count: int
    step: int
    level: int
    axis: int

    @property
    def temporal(self) -> bool:
        return self.axis < 0


@dataclass(frozen=True)
class Nest:
    """All loops of a mapping, and for every level which tensors it keeps (`keeps[level][tensor]`)."""

    problem: Problem
    arch: Arch
    loops: tuple[Loop, ...]
    keeps: tuple[tuple[bool, ...], ...]

    def outside(self, level: int) -> tuple[Loop, ...]:
        """Loops around the tiles of `level`; for the level past the last, all loops."""
        return tuple(loop for loop in self.loops if loop.level < level)

    def sizes(self, level: int) -> tuple[int, ...]:
        """Iterations of every dim inside one full tile of `level`."""
        inside = [loop for loop in self.loops if loop.level >= level]
        return tuple(
            min(bound, math.prod(loop.count for loop in inside if loop.dim == dim))
            for dim, bound in enumerate(self.problem.bounds)
        )

    def instances(self, level: int) -> int:
        """Instances of `level` that work."""
        return math.prod(loop.count for loop in self.outside(level) if not loop.temporal)

    def keepers(self, tensor: int) -> list[int]:
        """Levels that keep `tensor`, outermost first."""
        return [level for level, kept in enumerate(self.keeps) if kept[tensor]]


def nest_of(problem: Problem, arch: Arch, mapping: Mapping) -> Nest:
    """Lay out a mapping's loops.

    Raises
    ------
    UsageError: an unknown level, axis or dim; factors of a dim that do not cover its bound or leave whole steps
    empty; an axis with more units than it has; a level with fewer instances than the fan-out above it; a tensor that
    no level keeps.
    """
    level_names = [level.name for level in arch.levels]
    given = {part.level: part for part in mapping.temporal}
    for name in given:
        if name not in level_names:
            raise UsageError(f"mapping: {name!r} is not a level of {arch.name}{nearest(name, level_names)}")
    for name in mapping.spatial:
        axis_names = [axis.name for axis in arch.axes]
        if name not in axis_names:
            raise UsageError(f"mapping: {name!r} is not an axis of {arch.name}{nearest(name, axis_names)}")
    plain: list[tuple[str, int, int, int]] = []
    for position, level in enumerate(arch.levels):
        plain += [(dim, count, position, -1) for dim, count in (given[level.name].loops if level.name in given else ())]
        for index, axis in enumerate(arch.axes):
            if axis.below == level.name:
                plain += [(dim, count, position, index) for dim, count in mapping.spatial.get(axis.name, ())]
    loops = _with_steps(problem, [item for item in plain if item[1] != 1])
    nest = Nest(problem, arch, loops, _keeps(problem, arch, mapping))
    _check_space(nest)
    return nest


def _with_steps(problem: Problem, plain: Sequence[tuple[str, int, int, int]]) -> tuple[Loop, ...]:
    inner = [1] * len(problem.dims)
    loops: list[Loop] = []
    for name, count, level, axis in reversed(plain):
        if name not in problem.dims:
            raise UsageError(f"mapping: {name!r} is not a dim of {problem.name}{nearest(name, problem.dims)}")
        dim = problem.dims.index(name)
        if count < 1:
            raise UsageError(f"mapping: factor {count} of {name} must be at least 1")
        loops.append(Loop(dim, count, inner[dim], level, axis))
        inner[dim] *= count
    for dim, bound in enumerate(problem.bounds):
        outer = next((loop for loop in reversed(loops) if loop.dim == dim), None)
        if inner[dim] < bound:
            raise UsageError(f"mapping: factors of {problem.dims[dim]} cover {inner[dim]} of {bound} iterations")
        if outer is not None and outer.step * (outer.count - 1) >= bound:
            raise UsageError(
                f"mapping: the outermost factor {outer.count} of {problem.dims[dim]} leaves whole steps empty; "
                f"{-(-bound // outer.step)} covers its {bound} iterations"
            )
    return tuple(reversed(loops))


def _keeps(problem: Problem, arch: Arch, mapping: Mapping) -> tuple[tuple[bool, ...], ...]:
    bypass = {part.level: part.bypass for part in mapping.temporal}
    keeps = tuple(
        tuple(
            _holds(level.holds, tensor) and tensor.role not in bypass.get(level.name, ()) for tensor in problem.tensors
        )
        for level in arch.levels
    )
    for index, tensor in enumerate(problem.tensors):
        if not any(kept[index] for kept in keeps):
            raise UsageError(f"mapping: no level of {arch.name} keeps {tensor.name!r} ({tensor.role})")
    return keeps


def _holds(roles: frozenset[str] | frozenset[object], tensor: TensorAccess) -> bool:
    return tensor.role in roles


def _check_space(nest: Nest) -> None:
    arch = nest.arch
    for index, axis in enumerate(arch.axes):
        used = math.prod(loop.count for loop in nest.loops if loop.axis == index)
        if used > axis.size:
            raise UsageError(f"mapping: axis {axis.name!r} has {axis.size} units, not {used}")
        for loop in nest.loops:
            name = nest.problem.dims[loop.dim]
            if loop.axis == index and axis.allowed_dims is not None and name not in axis.allowed_dims:
                raise UsageError(f"mapping: {name} may not run on axis {axis.name!r}{nearest(name, axis.allowed_dims)}")
    for position, level in enumerate(arch.levels):
        if nest.instances(position) > level.instances:
            raise UsageError(
                f"mapping: {nest.instances(position)} instances of {level.name!r} are needed, {level.instances} exist"
            )
