"""How often words of a tensor move into the tiles of a level: exact sums over full and residual tiles.

A tensor's tile is fetched inside the innermost loop in time that indexes it: loops further in leave it in place.
Along that innermost loop only the part of the tile that its predecessor did not hold is fetched. The loops of one
dim do not depend on those of another, so that every sum is a product over the axes of the tensor and the remaining
dims; within a dim all tiles are full but the last.

Source of the rules: Timeloop's dense semantics (`docs/mapping.md`), met number for number in
tests/conformance/test_timeloop.py; residual tiles by the interpreter in tests/unit/mapping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from dse.mapping.loops import Loop, Nest
from dse.mapping.problem import TensorAccess


def visits(extent: int, chain: Sequence[tuple[int, bool]]) -> int:
    """Steps that the loops of one dim take over `extent` iterations.

    Parameters
    ----------
    chain
        (step, free) of each loop from the outermost; a loop that is not free stands at its first step.
    """
    if not chain:
        return 1
    (step, free), rest = chain[0], chain[1:]
    if not free:
        return visits(min(extent, step), rest)
    full, left = divmod(extent, step)
    return (full * visits(step, rest) if full else 0) + (visits(left, rest) if left else 0)


@dataclass(frozen=True)
class Movement:
    """Words of one tensor on the way into one level (`child`), summed over all instances.

    `into` arrive at the child instances; `sent` leave the parent, words that several copies take at once counted
    once; `first` of `into` are the first visit of an output word.
    """

    into: int
    sent: int
    first: int


def movement(nest: Nest, tensor: int, parent: int, child: int) -> Movement:
    """Traffic of `tensor` between two levels that keep it, none between them doing so.

    `child` may be the number of levels: the compute units, which fetch every operand at every step.
    """
    access = nest.problem.tensors[tensor]
    outside = nest.outside(child)
    at_compute = child == len(nest.arch.levels)
    times = [loop for loop in outside if loop.temporal]
    if not at_compute:
        while times and times[-1].dim not in access.dims:
            times.pop()
    kept = set(map(id, times))
    merged = {
        id(loop) for loop in outside if not loop.temporal and loop.level >= parent and _merges(nest, access, loop)
    }
    everywhere = {id(loop) for loop in outside if not loop.temporal}
    stop = times[-1] if times and not at_compute else None
    sizes = nest.sizes(child) if not at_compute else (1,) * len(nest.problem.dims)
    slides = at_compute or nest.arch.levels[child].window_reuse
    walker = _Walk(nest, access, outside, sizes, stop, slides)
    into = walker.words(kept | everywhere, frozenset())
    reduction_free = {key for key in kept if _dim_of(outside, key) in access.dims}
    return Movement(
        into,
        walker.words(kept | everywhere, frozenset(merged)),
        walker.words(reduction_free | everywhere, frozenset()),
    )


def entries(nest: Nest, tensor: int, child: int) -> int:
    """How often in time a new tile of `tensor` enters an instance of `child`."""
    outside = nest.outside(child)
    times = [loop for loop in outside if loop.temporal]
    while times and times[-1].dim not in nest.problem.tensors[tensor].dims:
        times.pop()
    kept = set(map(id, times))
    return math.prod(
        visits(bound, [(loop.step, id(loop) in kept) for loop in outside if loop.dim == dim])
        for dim, bound in enumerate(nest.problem.bounds)
    )


def compute_steps(nest: Nest) -> int:
    """Steps in time of the compute units, all moving in lock step; exact for residual tiles."""
    return math.prod(
        visits(bound, [(loop.step, loop.temporal) for loop in nest.loops if loop.dim == dim])
        for dim, bound in enumerate(nest.problem.bounds)
    )


def _merges(nest: Nest, access: TensorAccess, loop: Loop) -> bool:
    axis = nest.arch.axes[loop.axis]
    return axis.reduces if access.role == "output" else access.role in axis.multicast


def _dim_of(loops: Sequence[Loop], key: int) -> int:
    return next(loop.dim for loop in loops if id(loop) == key)


@dataclass(frozen=True)
class _Walk:
    """Sums over the loops outside a tile; `sizes` are the iterations of a full tile per dim.

    `slides` says whether a tile fetches only what the one before it, along the loop `stop`, did not hold.
    """

    nest: Nest
    access: TensorAccess
    outside: tuple[Loop, ...]
    sizes: tuple[int, ...]
    stop: Loop | None
    slides: bool

    def words(self, free: set[int], merged: frozenset[int]) -> int:
        """Words over all steps of the `free` loops; copies along `merged` loops that hold the same tile count once."""
        total = 1
        for dim in range(len(self.sizes)):
            if dim not in self.access.dims:
                total *= self._visits(dim, free - merged)
        for axis in self.access.axes:
            sharing = [loop for loop in self.outside if id(loop) in merged and loop.dim in {d for d, _ in axis}]
            if len({loop.dim for loop in sharing}) > 1:
                total *= self._distinct(axis, merged)
            else:
                total *= self._axis(axis)
        return total

    def _loops(self, dim: int) -> list[Loop]:
        return [loop for loop in self.outside if loop.dim == dim]

    def _visits(self, dim: int, free: set[int]) -> int:
        return visits(self.nest.problem.bounds[dim], [(loop.step, id(loop) in free) for loop in self._loops(dim)])

    def _tiles(self, dim: int) -> list[tuple[int, int, bool]]:
        """(number, size, whether the stop loop is past its first step) of the tiles along `dim`."""
        bound, size = self.nest.problem.bounds[dim], self.sizes[dim]
        total = -(-bound // size)
        left = bound - (total - 1) * size
        if self.stop is None or self.stop.dim != dim:
            return [(total - 1, size, False), (1, left, False)]
        stop = self.stop
        starting = visits(bound, [(loop.step, loop is not stop) for loop in self._loops(dim)])
        last_moves = ((total - 1) * size // stop.step) % stop.count > 0
        moving = total - starting
        return [
            (starting - (not last_moves), size, False),
            (moving - last_moves, size, True),
            (1, left, last_moves),
        ]

    def _axis(self, axis: tuple[tuple[int, int], ...]) -> int:
        total = 0
        for combination in product(*(self._tiles(dim) for dim, _ in axis)):
            number = math.prod(item[0] for item in combination)
            if number:
                total += number * self._new(axis, [item[1] for item in combination], any(i[2] for i in combination))
        return total

    def _new(self, axis: tuple[tuple[int, int], ...], sizes: Sequence[int], moved: bool) -> int:
        """Words along `axis` that a tile needs and its predecessor in the stop loop did not hold."""
        extent = 1 + sum(c * (size - 1) for (_, c), size in zip(axis, sizes, strict=True))
        if not moved or not self.slides:
            return extent
        assert self.stop is not None
        # a tile that has a successor is full along the dim of the stop loop
        before, shift = 1, 0
        for (dim, c), size in zip(axis, sizes, strict=True):
            before += c * ((self.sizes[dim] if dim == self.stop.dim else size) - 1)
            shift += c * self.stop.step if dim == self.stop.dim else 0
        return extent - min(extent, max(0, before - shift))

    def _distinct(self, axis: tuple[tuple[int, int], ...], merged: frozenset[int]) -> int:
        """As `_axis`, where copies of several dims may hold the same tile: tiles are enumerated."""
        seen: set[tuple[object, ...]] = set()
        total = 0
        for tiles in product(*(self._positions(dim, merged) for dim, _ in axis)):
            start = sum(c * tile[0] for (_, c), tile in zip(axis, tiles, strict=True))
            words = self._new(axis, [tile[1] for tile in tiles], any(tile[2] for tile in tiles))
            key = (tuple(tile[3] for tile in tiles), start, words)
            if key not in seen:
                seen.add(key)
                total += words
        return total

    def _positions(self, dim: int, merged: frozenset[int]) -> list[tuple[int, int, bool, tuple[int, ...]]]:
        """(start, size, moved, indices of the loops that do not merge) of every tile along `dim`."""
        bound, size = self.nest.problem.bounds[dim], self.sizes[dim]
        found = []
        for start in range(0, bound, size):
            indices = tuple((start // loop.step) % loop.count for loop in self._loops(dim) if id(loop) not in merged)
            moved = self.stop is not None and self.stop.dim == dim and (start // self.stop.step) % self.stop.count > 0
            found.append((start, min(size, bound - start), moved, indices))
        return found
