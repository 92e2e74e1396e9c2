"""Compiled lower bounds: the least that can move into a level, for every tile of the lattice (`tables.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from dse.mapping.tables import Floats, Ints


@njit(cache=True)
def tile_words(t: Any, level: int, e: Ints, size: Ints, extent: Ints, words: Floats) -> None:
    tensors, dims = t.axis_of.shape
    for d in range(dims):
        size[d] = t.div[d, e[d]] * t.spin[level, d]
    for tensor in range(tensors):
        for a in range(t.axes[tensor]):
            extent[tensor, a] = 1
        for d in range(dims):
            a = t.axis_of[tensor, d]
            if a >= 0:
                extent[tensor, a] += t.coefficient[tensor, d] * (size[d] - 1)
        product = 1.0
        for a in range(t.axes[tensor]):
            product *= extent[tensor, a]
        words[tensor] = product


@njit(cache=True)
def fits(t: Any, level: int, words: Floats) -> bool:
    total = 0.0
    for tensor in range(words.shape[0]):
        if t.kept[tensor, level]:
            used = words[tensor] * t.width[tensor, level]
            total = total + used if t.together[level] else max(total, used)
    return bool(total <= t.limit[level] + 1e-9)


@njit(cache=True)
def distinct_factor(t: Any, tensor: int, level: int, known: int, tiles: Ints) -> float:
    """Factor of distinct copies that depends on tiles; its least value while the tile of its level is unknown."""
    factor = 1.0
    for j in range(t.diagonals[tensor, level]):
        d1, d2, n1, n2, c1, c2, at = t.diagonal[tensor, level, j]
        if at > known:
            factor *= n1 + n2 - 1
            continue
        s1, s2 = c1, c2
        if at < t.spin.shape[0] - 1:
            s1 *= t.div[d1, tiles[at, d1]] * t.spin[at, d1]
            s2 *= t.div[d2, tiles[at, d2]] * t.spin[at, d2]
        g, h = s1, s2
        while h:
            g, h = h, g % h
        factor *= n1 * n2 - max(0, n1 - s2 // g) * max(0, n2 - s1 // g)
    return factor


@njit(cache=True)
def _least_new(t: Any, tensor: int, d: int, size: Ints, extent: Ints) -> float:
    """Least part of a tile that a step along dim d can fetch."""
    a = t.axis_of[tensor, d]
    if a < 0:
        return 1.0
    return float(min(1.0, t.coefficient[tensor, d] * size[d] / extent[tensor, a]))


@njit(cache=True)
def level_bound(t: Any, level: int, bound: Floats) -> None:
    """Least energy of what moves into `level`, for every tile of the lattice; infinite where it does not fit."""
    tensors, dims = t.axis_of.shape
    tiles = np.zeros((t.spin.shape[0], dims), np.int64)
    e = tiles[level]
    size, words = np.zeros(dims, np.int64), np.zeros(tensors)
    extent = np.ones((tensors, max(1, t.axes.max())), np.int64)
    for flat in range(bound.shape[0]):
        rest = flat
        for d in range(dims):
            e[d] = rest // t.strides[d]
            rest -= e[d] * t.strides[d]
        tile_words(t, level, e, size, extent, words)
        if not fits(t, level, words):
            bound[flat] = np.inf
            continue
        fixed = 0.0
        for tensor in range(tensors):
            if t.last_known[tensor] == level:
                last = t.spin.shape[0] - 1
                fixed += t.steps * t.shared[0, tensor, last] * distinct_factor(t, tensor, last, level, tiles)
        bound[flat] = fixed + _least_traffic(t, level, tiles, size, extent, words)


@njit(cache=True)
def _least_traffic(t: Any, level: int, tiles: Ints, size: Ints, extent: Ints, words: Floats) -> float:
    """Least energy of fills: the nearest loop outside stops every tensor it indexes, the others may rest at best."""
    tensors, dims = t.axis_of.shape
    e = tiles[level]
    every = 1.0
    least = np.inf
    for d in range(dims):
        every *= t.div[d, t.number[d] - 1] / t.div[d, e[d]]
    for nearest in range(-1, dims):
        if (nearest < 0) != (every == 1.0):
            continue
        if nearest >= 0 and e[nearest] == t.number[nearest] - 1:
            continue
        total = 0.0
        for tensor in range(tensors):
            if not t.kept[tensor, level]:
                continue
            copies = distinct_factor(t, tensor, level, level, tiles)
            weight = t.own[0, tensor, level] + t.shared[0, tensor, level] * copies
            if nearest >= 0 and t.indexes[tensor, nearest]:
                times = every * _least_new(t, tensor, nearest, size, extent)
            else:
                times, part = 1.0, 1.0
                for d in range(dims):
                    if t.indexes[tensor, d] and e[d] < t.number[d] - 1:
                        times *= t.div[d, t.number[d] - 1] / t.div[d, e[d]]
                        part = min(part, _least_new(t, tensor, d, size, extent))
                times = max(1.0, times * part)
            total += weight * times * words[tensor]
        least = min(least, total)
    return least


@njit(cache=True)
def least_inside(t: Any, bound: Floats) -> None:
    """Replace every value by the least among the tiles that divide its tile, in place."""
    dims = t.number.shape[0]
    for d in range(dims):
        stride, number = t.strides[d], t.number[d]
        for base in range(bound.shape[0]):
            if (base // stride) % number:
                continue
            for i in range(number - 1, -1, -1):
                least = bound[base + i * stride]
                for j in range(t.below_count[d, i]):
                    least = min(least, bound[base + t.below[d, i, j] * stride])
                bound[base + i * stride] = least
