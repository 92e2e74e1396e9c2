"""Compiled lower bounds: the least that can move into a level, for every tile of the lattice (`tables.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dse.mapping.tables import Floats, Grid, Ints


@njit(cache=True)
def overlap_free(n1: int, n2: int, step1: int, step2: int) -> int:
    """Distinct starts i * step1 + j * step2 for i < n1, j < n2."""
    g, h = step1, step2
    while h:
        g, h = h, g % h
    return n1 * n2 - max(0, n1 - step2 // g) * max(0, n2 - step1 // g)


@njit(cache=True)
def distinct_factor(t: Any, tensor: int, level: int, tiles: Ints, only: int) -> float:
    """Factor of distinct copies that depends on tiles.

    `only` is the one level whose tile is known, the others counting at their least; -1 when all are known.
    """
    factor = 1.0
    for j in range(t.diagonals[tensor, level]):
        d1, d2, n1, n2, c1, c2, at = t.diagonal[tensor, level, j]
        inner = at >= t.spin.shape[0] - 1
        if only >= 0 and at != only and not inner:
            factor *= n1 + n2 - 1
            continue
        s1, s2 = c1, c2
        if not inner:
            s1 *= t.div[d1, tiles[at, d1]] * t.spin[at, d1]
            s2 *= t.div[d2, tiles[at, d2]] * t.spin[at, d2]
        factor *= overlap_free(n1, n2, s1, s2)
    return factor


@njit(cache=True)
def lay_grid(t: Any, edges: Floats) -> Any:
    """All of `Grid` for one space; tiles that do not fit have infinite `here`."""
    tensors = t.axis_of.shape[0]
    levels = t.kept.shape[1]
    lattice = 1
    for number in t.number:
        lattice *= number
    ramps = edges.shape[0] if t.ramp_up.max() + t.ramp_down.max() > 0 else 1
    words = np.zeros((levels, lattice, tensors))
    extent = np.ones((levels, lattice, tensors, max(1, t.axes.max())), np.int64)
    distinct = np.ones((levels, lattice, tensors))
    exact, price = np.ones((levels, tensors), np.bool_), np.zeros((levels, tensors))
    ramp = np.zeros((levels, lattice))
    outside = np.ones(lattice)
    here = np.full((levels, lattice, ramps), np.inf)
    inside = np.zeros((levels, lattice, ramps))
    least = np.zeros(lattice)
    edge = edges[:ramps] * t.compute_cycles
    for level in range(levels):
        for tensor in range(tensors):
            price[level, tensor] = t.own[0, tensor, level] + t.shared[0, tensor, level] * least_distinct(
                t, tensor, level
            )
            for j in range(t.diagonals[tensor, level]):
                at = t.diagonal[tensor, level, j, 6]
                exact[level, tensor] &= at == level or at >= levels
    sweep, stay = np.zeros((levels, lattice, tensors)), np.zeros((levels, lattice, tensors))
    for level in range(levels - 1, 0, -1):
        _level(
            t, level, words[level], extent[level], distinct[level], ramp[level], outside, least, sweep[level],
            stay[level],
        )  # fmt: skip
        _join(least, ramp[level], inside[level], here[level], inside[level - 1], edge)
        _least_inside(t, inside[level - 1])
    return Grid(words, extent, distinct, exact, ramp, outside, here, inside, edge, sweep, stay, price)


@njit(cache=True)
def _level(
    t: Any, level: int, words: Floats, extents: Ints, distinct: Floats, ramp: Floats, outside: Floats, least: Floats,
    sweep: Floats, stay: Floats,
) -> None:  # fmt: skip
    """Words, copies, ramp and least energy of every tile of a level; infinite energy where it does not fit."""
    tensors, dims = t.axis_of.shape
    last = t.spin.shape[0] - 1
    tiles = np.zeros((last + 1, dims), np.int64)
    e = tiles[level]
    size, ratio = np.ones(dims, np.int64), np.ones(dims)
    e[dims - 1] = -1
    every, rest = np.zeros(tensors), np.zeros(tensors)
    for flat in range(outside.shape[0]):
        d = dims - 1
        e[d] += 1
        while e[d] == t.number[d]:
            e[d] = 0
            d -= 1
            e[d] += 1
        around, loops = 1.0, True
        for d in range(dims):
            loops &= level < last - 1 or e[d] == 0 or bool(t.loops[level] >> d & 1)
            size[d] = t.div[d, e[d]] * t.spin[level, d]
            ratio[d] = t.div[d, t.number[d] - 1] / t.div[d, e[d]]
            around *= ratio[d]
        outside[flat] = around
        extent = extents[flat]
        fixed, ramped, total, widest = 0.0, 0.0, 0.0, 0.0
        for tensor in range(tensors):
            product = _words(t, tensor, size, extent)
            words[flat, tensor] = product
            if t.last_known[tensor] == level:
                fixed += t.steps * t.shared[0, tensor, last] * distinct_factor(t, tensor, last, tiles, level)
            if not t.kept[tensor, level]:
                continue
            used = product * t.width[tensor, level]
            total, widest = total + used, max(widest, used)
            copies = distinct_factor(t, tensor, level, tiles, level)
            distinct[flat, tensor] = copies
            ramped += product * max(t.ramp_up[tensor, level] * copies, t.ramp_down[tensor, level])
            price = t.own[0, tensor, level] + t.shared[0, tensor, level] * copies
            every[tensor] = product * price * around
            rest[tensor] = product * price * _at_rest(t, tensor, size, extent, ratio)
            stay[flat, tensor] = product if used <= t.limit[level] + 1e-9 else np.inf
            sweep[flat, tensor] = around * _touched(t, tensor, size)
        ramp[flat] = ramped
        if not loops or (total if t.together[level] else widest) > t.limit[level] + 1e-9:
            least[flat] = np.inf
        else:
            least[flat] = fixed + _least_traffic(t, level, size, extent, ratio, every, rest)


@njit(cache=True)
def _words(t: Any, tensor: int, size: Ints, extent: Ints) -> float:
    """Words of a tile; leaves its extents behind."""
    extent[tensor] = 1
    for d in range(size.shape[0]):
        a = t.axis_of[tensor, d]
        if a >= 0:
            extent[tensor, a] += t.coefficient[tensor, d] * (size[d] - 1)
    product = 1.0
    for a in range(t.axes[tensor]):
        product *= extent[tensor, a]
    return product


@njit(cache=True)
def least_distinct(t: Any, tensor: int, level: int) -> float:
    """`distinct_factor` at its least, whatever the tiles."""
    factor = 1.0
    for j in range(t.diagonals[tensor, level]):
        factor *= t.diagonal[tensor, level, j, 2] + t.diagonal[tensor, level, j, 3] - 1
    return factor


@njit(cache=True)
def _touched(t: Any, tensor: int, size: Ints) -> float:
    """Words that an instance cannot but touch: sums of two sets have at least their sizes less one."""
    product = 1.0
    for a in range(t.axes[tensor]):
        along = 1
        for d in range(size.shape[0]):
            if t.axis_of[tensor, d] == a:
                along += size[d] - 1
        product *= along
    return product


@njit(cache=True)
def _at_rest(t: Any, tensor: int, size: Ints, extent: Ints, ratio: Floats) -> float:
    """Fills, in tiles, when all loops that do not index the tensor leave it in place."""
    times, part = 1.0, 1.0
    for d in range(size.shape[0]):
        a = t.axis_of[tensor, d]
        if a >= 0 and ratio[d] > 1:
            times *= ratio[d]
            part = min(part, t.coefficient[tensor, d] * size[d] / extent[tensor, a])
    return max(1.0, times * part)


@njit(cache=True)
def _least_traffic(t: Any, level: int, size: Ints, extent: Ints, ratio: Floats, every: Floats, rest: Floats) -> float:
    """Least energy of fills: the nearest loop outside stops every tensor it indexes, the others may rest at best."""
    tensors, dims = t.axis_of.shape
    least = np.inf
    for nearest in range(dims):
        if ratio[nearest] == 1:
            continue
        total = 0.0
        for tensor in range(tensors):
            if t.kept[tensor, level]:
                a = t.axis_of[tensor, nearest]
                if a >= 0:
                    new = t.coefficient[tensor, nearest] * size[nearest] / extent[tensor, a]
                    total += max(rest[tensor], every[tensor] * min(1.0, new))
                else:
                    total += rest[tensor]
        least = min(least, total)
    if least < np.inf:
        return least
    total = 0.0
    for tensor in range(tensors):
        if t.kept[tensor, level]:
            total += rest[tensor]
    return total


@njit(cache=True)
def _join(least: Floats, ramp: Floats, inside: Floats, here: Floats, outer: Floats, edge: Floats) -> None:
    """Add a level's own least energy and ramp to what lies inside: `here` by the ramp inside, `outer` by both ramps."""
    steps = edge.shape[0]
    for flat in range(least.shape[0]):
        for b in range(steps):
            here[flat, b] = least[flat] + inside[flat, b]
            outer[flat, b] = np.inf
        into = 0
        for b in range(steps):
            while into + 1 < steps and edge[into + 1] <= ramp[flat] + edge[b]:
                into += 1
            outer[flat, into] = min(outer[flat, into], here[flat, b])
        for b in range(1, steps):
            outer[flat, b] = min(outer[flat, b], outer[flat, b - 1])


@njit(cache=True)
def _least_inside(t: Any, bound: Floats) -> None:
    """Replace every value by the least among the tiles that divide its tile, in place."""
    steps = bound.shape[1]
    for d in range(t.number.shape[0]):
        stride, number = t.strides[d], t.number[d]
        for base in range(bound.shape[0]):
            if (base // stride) % number:
                continue
            for i in range(number - 1, 0, -1):
                for j in range(1, t.below_count[d, i]):
                    other = base + t.below[d, i, j] * stride
                    for b in range(steps):
                        bound[base + i * stride, b] = min(bound[base + i * stride, b], bound[other, b])
