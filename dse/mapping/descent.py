"""The compiled depth-first search below a tile, best bound first (`tables.py` says what the arrays hold)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from dse.mapping.bounds import distinct_factor, tile_words
from dse.mapping.tables import TOLERANCE, Floats, Ints, cycles_of, keys, worse


@njit(cache=True)
def descend(t: Any, s: Any, k: int, order: int, size: Ints, extent: Ints, words: Floats) -> None:
    """State at level k + 1, whose tile is `s.tiles[k + 1]`, below block k in loop order class `order`."""
    tensors, dims = t.axis_of.shape
    level = k + 1
    tile_words(t, level, s.tiles[level], size, extent, words)
    s.rows[level] = s.rows[k]
    s.ramp[level] = s.ramp[k]
    product = s.outside[k]
    for d in range(dims):
        product *= t.div[d, s.tiles[k, d]] // t.div[d, s.tiles[level, d]]
    s.outside[level] = product
    for tensor in range(tensors):
        stop = t.class_stop[order, tensor]
        if stop < 0:
            s.around[level, tensor], s.trips[level, tensor] = s.around[k, tensor], s.trips[k, tensor]
            s.stop[level, tensor], s.step[level, tensor] = s.stop[k, tensor], s.step[k, tensor]
        else:
            trips = t.div[stop, s.tiles[k, stop]] // t.div[stop, s.tiles[level, stop]]
            around = product / trips
            for d in range(dims):
                if t.class_rests[order, tensor] >> d & 1:
                    around /= t.div[d, s.tiles[k, d]] // t.div[d, s.tiles[level, d]]
            s.around[level, tensor], s.trips[level, tensor] = around, trips
            s.stop[level, tensor] = stop
            s.step[level, tensor] = t.div[stop, s.tiles[level, stop]] * t.spin[k, stop]
        if t.kept[tensor, level]:
            _add(t, s, tensor, level, extent, words)
        if t.last_known[tensor] == level:
            last = t.spin.shape[0] - 1
            factor = t.steps * distinct_factor(t, tensor, last, level, s.tiles)
            for q in range(s.rows.shape[1]):
                s.rows[level, q] += factor * t.shared[q, tensor, last]


@njit(cache=True)
def _add(t: Any, s: Any, tensor: int, level: int, extent: Ints, words: Floats) -> None:
    moved = words[tensor]
    stop = s.stop[level, tensor]
    if stop >= 0:
        a = t.axis_of[tensor, stop]
        whole = extent[tensor, a]
        fresh = min(whole, t.coefficient[tensor, stop] * s.step[level, tensor])
        moved = s.around[level, tensor] * (moved + (s.trips[level, tensor] - 1) * (moved / whole) * fresh)
    distinct = distinct_factor(t, tensor, level, level, s.tiles)
    for q in range(s.rows.shape[1]):
        s.rows[level, q] += moved * (t.own[q, tensor, level] + t.shared[q, tensor, level] * distinct)
    s.ramp[level] += words[tensor] * max(t.ramp_up[tensor, level] * distinct, t.ramp_down[tensor, level])


@njit(cache=True)
def _mask(t: Any, outer: Ints, inner: Ints) -> int:
    mask = 0
    for d in range(outer.shape[0]):
        if outer[d] != inner[d]:
            mask |= 1 << d
    return mask


@njit(cache=True)
def search(
    t: Any, s: Any, inside: Floats, here: Floats, objective: int, best: Floats, tiles: Ints, orders: Ints
) -> tuple[int, int]:
    """Depth-first search of one space; improves the incumbent in place.

    Parameters
    ----------
    inside, here
        [level, tile] least energy of levels further in, and of the level itself with them.
    best
        (first key, second key, energy, cycles, cycles that must not be reached).
    tiles, orders
        The incumbent's tile of every level and class of every block.

    Returns
    -------
    (nodes expanded, mappings evaluated).
    """
    levels = s.tiles.shape[0]
    dims = t.number.shape[0]
    tensors = t.axis_of.shape[0]
    size, words = np.zeros(dims, np.int64), np.zeros(tensors)
    extent = np.ones((tensors, max(1, t.axes.max())), np.int64)
    widest = 1
    for mask in range(t.class_first.shape[0] - 1):
        widest = max(widest, t.class_first[mask + 1] - t.class_first[mask])
    lattice = here.shape[1]
    depth = max(1, levels - 2)
    room = lattice * widest if levels > 2 else 1
    key = np.empty((depth, room))
    place = np.empty((depth, room), np.int64)
    entries = np.zeros(depth, np.int64)
    cursor = np.zeros(depth, np.int64)
    chosen = np.zeros(levels, np.int64)
    sequence = np.empty((depth, room), np.int64)
    nodes = evaluated = 0
    k = 0
    fresh = True
    while k >= 0:
        leaf = k == levels - 2
        if fresh:
            nodes += 1
            number = 0
            child = s.tiles[k + 1]
            counter = np.zeros(dims, np.int64)
            more = True
            while more:
                flat = 0
                for d in range(dims):
                    child[d] = t.below[d, s.tiles[k, d], counter[d]]
                    flat += child[d] * t.strides[d]
                least = s.rows[k, 0] + here[k + 1, flat]
                if least < np.inf and not worse(objective, least, cycles_of(t, s.rows[k], s.ramp[k]), best[0], best[1]):
                    mask = _mask(t, s.tiles[k], child)
                    for order in range(t.class_first[mask], t.class_first[mask + 1]):
                        descend(t, s, k, order, size, extent, words)
                        evaluated += 1
                        cycles = cycles_of(t, s.rows[k + 1], s.ramp[k + 1])
                        if leaf:
                            cycles = math.ceil(cycles - 1e-9)
                        energy = s.rows[k + 1, 0] + inside[k + 1, flat]
                        if cycles >= best[4] or worse(objective, energy, cycles, best[0], best[1]):
                            continue
                        if leaf:
                            best[0], best[1] = keys(objective, energy, cycles)
                            best[2], best[3] = energy, cycles
                            tiles[:levels] = s.tiles[:levels]
                            chosen[k] = order
                            orders[: levels - 1] = chosen[: levels - 1]
                        else:
                            key[k, number] = keys(objective, energy, cycles)[0]
                            place[k, number] = flat * widest + order - t.class_first[mask]
                            number += 1
                d = 0
                while d < dims:
                    counter[d] += 1
                    if counter[d] < t.below_count[d, s.tiles[k, d]]:
                        break
                    counter[d] = 0
                    d += 1
                more = d < dims
            if leaf:
                k -= 1
                fresh = False
                continue
            entries[k], cursor[k] = number, 0
            sequence[k, :number] = np.argsort(key[k, :number], kind="mergesort")
        if cursor[k] == entries[k] or key[k, sequence[k, cursor[k]]] > best[0] * (1 + TOLERANCE):
            k -= 1
            fresh = False
            continue
        item = place[k, sequence[k, cursor[k]]]
        cursor[k] += 1
        rest = item // widest
        flat = rest
        for d in range(dims):
            s.tiles[k + 1, d] = rest // t.strides[d]
            rest -= s.tiles[k + 1, d] * t.strides[d]
        chosen[k] = t.class_first[_mask(t, s.tiles[k], s.tiles[k + 1])] + item % widest
        descend(t, s, k, chosen[k], size, extent, words)
        cycles = cycles_of(t, s.rows[k + 1], s.ramp[k + 1])
        if cycles < best[4] and not worse(objective, s.rows[k + 1, 0] + inside[k + 1, flat], cycles, best[0], best[1]):
            k += 1
            fresh = True
    return nodes, evaluated
