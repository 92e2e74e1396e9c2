"""What may run in space: every assignment of dim factors to the axes of an architecture, equal ones once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dse.arch import Arch, SpatialAxis
from dse.core.errors import UsageError, nearest
from dse.mapping.problem import Problem

#: Per axis of the architecture and dim of the problem: units along that dim.
Unrolling = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Constraints:
    """What a user fixes.

    `only[axis]` are the dims that may run on an axis, `forbid[axis]` those that may not, `unroll[axis][dim]` exact
    units; `keep[level]` and `bypass[level]` roles that must or must not stop at a level. `loops[level]` are the dims
    that may loop in time at a level, `order[level]` the orders that its loops may have, from the outermost inwards;
    an order names every dim that may loop there. `require[axis]` are dims that must have two units or more on an
    axis, `most[axis][dim]` the most units of a dim.
    """

    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    forbid: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unroll: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    keep: Mapping[str, frozenset[str]] = field(default_factory=dict)
    bypass: Mapping[str, frozenset[str]] = field(default_factory=dict)
    loops: Mapping[str, frozenset[str]] = field(default_factory=dict)
    order: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    require: Mapping[str, frozenset[str]] = field(default_factory=dict)
    most: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def check(self, problem: Problem, arch: Arch) -> None:
        """Raise UsageError for a name that does not exist or demands that contradict each other."""
        axes, levels = {axis.name: axis for axis in arch.axes}, {level.name: level for level in arch.levels}
        for names, known, kind in (
            ((*self.only, *self.forbid, *self.unroll, *self.require, *self.most), axes, "an axis"),
            ((*self.keep, *self.bypass, *self.loops, *self.order), levels, "a level"),
        ):
            for name in names:
                if name not in known:
                    raise UsageError(f"constraint: {name!r} is not {kind} of {arch.name}{nearest(name, known)}")
        for name, factors in self.unroll.items():
            if math.prod(factors.values()) > axes[name].size:
                raise UsageError(
                    f"constraint: {dict(factors)} needs {math.prod(factors.values())} units of axis {name!r}, "
                    f"which has {axes[name].size}"
                )
            for dim, units in factors.items():
                if dim not in problem.dims:
                    raise UsageError(f"constraint: {dim!r} is not a dim of {problem.name}{nearest(dim, problem.dims)}")
                if dim in self.forbid.get(name, ()) and units > 1:
                    raise UsageError(f"constraint: {dim} is both forbidden on axis {name!r} and unrolled there")
        for name, roles in self.keep.items():
            for role in sorted(roles):
                if role not in levels[name].holds or role in self.bypass.get(name, ()):
                    why = "does not hold" if role not in levels[name].holds else "is also told to bypass"
                    raise UsageError(f"constraint: level {name!r} must keep the {role} but {why} it")

        self._check_loops(problem)

    def _check_loops(self, problem: Problem) -> None:
        for dims in (*self.loops.values(), *(order for orders in self.order.values() for order in orders)):
            for dim in sorted(dims):
                if dim not in problem.dims:
                    raise UsageError(f"constraint: {dim!r} is not a dim of {problem.name}{nearest(dim, problem.dims)}")
        live = [dim for dim, bound in zip(problem.dims, problem.bounds, strict=True) if bound > 1]
        for name, orders in self.order.items():
            for order in orders:
                if len(set(order)) != len(order):
                    raise UsageError(f"constraint: the order {list(order)} of level {name!r} names a dim twice")
                for dim in live:
                    if dim in self.loops.get(name, live) and dim not in order:
                        raise UsageError(
                            f"constraint: {dim} may loop at level {name!r}, "
                            f"but the order {list(order)} does not say where"
                        )

    def within(self, axis: SpatialAxis, dim: str, units: list[int]) -> list[int]:
        """Those of `units` that a dim may and must have on an axis."""
        least = 2 if dim in self.require.get(axis.name, ()) else 1
        most = self.most.get(axis.name, {}).get(dim, axis.size)
        return [n for n in units if least <= n <= most]

    def allows(self, axis: SpatialAxis, dim: str) -> bool:
        """Whether a dim may run on an axis."""
        if dim in self.forbid.get(axis.name, ()):
            return False
        named = self.only.get(axis.name)
        return (axis.allowed_dims is None or dim in axis.allowed_dims) and (named is None or dim in named)


def merges(axis: SpatialAxis, role: str) -> bool:
    """Whether copies along an axis share a tile: operands are multicast, outputs summed."""
    return axis.reduces if role == "output" else role in axis.multicast


def unrollings(problem: Problem, arch: Arch, constraints: Constraints) -> list[Unrolling]:
    """All assignments in which factors divide bounds, axes suffice and levels have the instances.

    Two assignments that differ only in which of two equal axes (same level, same sharing) carries a dim cost the
    same: one stands for both. Most parallel first.

    Raises
    ------
    UsageError: a demanded unrolling does not divide its dim.
    """
    names = [level.name for level in arch.levels]
    found: dict[object, Unrolling] = {}
    kinds = [(axis.below, axis.multicast, axis.reduces) for axis in arch.axes]
    ordered = sorted(set(kinds), key=kinds.index)
    for choice in _assign(problem, arch, constraints, 0, problem.bounds):
        widths = [math.prod(factors) for factors in choice]
        for position, level in enumerate(arch.levels):
            fan_out = math.prod(
                w for w, axis in zip(widths, arch.axes, strict=True) if names.index(axis.below) < position
            )
            if fan_out > level.instances:
                break
        else:
            key = tuple(
                tuple(
                    math.prod(f[d] for f, k in zip(choice, kinds, strict=True) if k == kind)
                    for d in range(len(problem.dims))
                )
                for kind in ordered
            )
            found.setdefault(key, choice)
    return sorted(found.values(), key=lambda choice: -math.prod(math.prod(factors) for factors in choice))


def _assign(
    problem: Problem, arch: Arch, constraints: Constraints, index: int, left: Sequence[int]
) -> Iterator[Unrolling]:
    if index == len(arch.axes):
        yield ()
        return
    axis = arch.axes[index]
    demanded = constraints.unroll.get(axis.name, {})
    for dim, units in demanded.items():
        bound = left[problem.dims.index(dim)]
        if bound % units:
            raise UsageError(
                f"constraint: {units} units of axis {axis.name!r} do not divide the {bound} iterations of {dim}; "
                f"the nearest divisor is {min(divisors(bound), key=lambda n: abs(n - units))}"
            )
    for factors in _factors(problem, axis, constraints, demanded, left, 0, axis.size):
        remaining = [bound // factor for bound, factor in zip(left, factors, strict=True)]
        for rest in _assign(problem, arch, constraints, index + 1, remaining):
            yield (factors, *rest)


def _factors(
    problem: Problem,
    axis: SpatialAxis,
    constraints: Constraints,
    demanded: Mapping[str, int],
    left: Sequence[int],
    dim: int,
    room: int,
) -> Iterator[tuple[int, ...]]:
    if dim == len(problem.dims):
        yield ()
        return
    name = problem.dims[dim]
    if name in demanded:
        choices = [demanded[name]]
    elif constraints.allows(axis, name):
        choices = constraints.within(axis, name, [n for n in divisors(left[dim]) if n <= room])
    else:
        choices = [1]
    for factor in choices:
        if factor <= room:
            for rest in _factors(problem, axis, constraints, demanded, left, dim + 1, room // factor):
                yield (factor, *rest)


def divisors(number: int) -> list[int]:
    """Divisors in ascending order."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]
