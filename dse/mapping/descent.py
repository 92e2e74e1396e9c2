"""The compiled depth-first search of one space, best bound first (`tables.py` says what the arrays hold)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from dse.mapping.bounds import distinct_factor, lay_grid
from dse.mapping.tables import TOLERANCE, Floats, Ints, State, hopeless, keys, promise, worse


@njit(cache=True)
def search_space(t: Any, edges: Floats, objective: int, best: Floats, tiles: Ints, orders: Ints) -> tuple[int, int]:
    """Search one space; improves the incumbent in place.

    Parameters
    ----------
    edges
        Ramp steps of the bounds (`RAMP_STEPS`).
    best
        (first key, second key, energy, cycles, cycles that must not be reached).
    tiles, orders
        The incumbent's tile of every level and class of every block.

    Returns
    -------
    (nodes expanded, orders evaluated).
    """
    levels = t.kept.shape[1]
    g = lay_grid(t, edges)
    s = root(t)
    full = g.outside.shape[0] - 1
    cycles = _busiest(t, s.rows[0])
    if cycles >= best[4] or hopeless(objective, s.rows[0, 0], cycles, g.inside[0, full], g.ramp_edge, 0.0, best):
        return 0, 0
    if levels == 1:
        for d in range(t.number.shape[0]):
            if t.number[d] > 1 and not t.loops[0] >> d & 1:
                return 0, 0
        cycles = math.ceil(cycles - 1e-9)
        if cycles < best[4] and not worse(objective, s.rows[0, 0], cycles, best[0], best[1]):
            best[0], best[1] = keys(objective, s.rows[0, 0], cycles)
            best[2], best[3] = s.rows[0, 0], cycles
            tiles[0] = s.tiles[0]
        return 0, 1
    return _descend(t, g, s, objective, best, tiles, orders)


@njit(cache=True)
def root(t: Any) -> Any:
    levels, rows = t.kept.shape[1], t.constant.shape[0]
    tensors, dims = t.axis_of.shape
    s = State(
        np.zeros((levels, dims), np.int64),
        np.zeros((levels, rows)),
        np.zeros(levels),
        np.ones((levels, tensors)),
        np.ones((levels, tensors)),
        np.full((levels, tensors), -1, np.int64),
        np.zeros((levels, tensors), np.int64),
    )
    s.tiles[0] = t.number - 1
    s.rows[0] = t.constant
    return s


@njit(cache=True)
def _busiest(t: Any, row: Floats) -> float:
    cycles = t.compute_cycles
    for q in range(1, row.shape[0]):
        cycles = max(cycles, row[q])
    return float(cycles)


@njit(cache=True)
def _descend(t: Any, g: Any, s: Any, objective: int, best: Floats, tiles: Ints, orders: Ints) -> tuple[int, int]:
    """Nodes by an explicit stack: entries of every depth are sorted by what they promise."""
    levels = s.tiles.shape[0]
    widest = 1
    for first in t.class_first:
        for mask in range(first.shape[0] - 1):
            widest = max(widest, first[mask + 1] - first[mask])
    depth = max(1, levels - 2)
    room = g.outside.shape[0] * widest if levels > 2 else 1
    key, place = np.empty((depth, room)), np.empty((depth, room), np.int64)
    sequence = np.empty((depth, room), np.int64)
    entries, cursor = np.zeros(depth, np.int64), np.zeros(depth, np.int64)
    chosen = np.zeros(levels, np.int64)
    nodes, k = 0, 0
    evaluated = np.zeros(1, np.int64)
    fresh = True
    while k >= 0:
        if fresh:
            nodes += 1
            if k == levels - 2:
                _expand(t, g, s, k, objective, best, tiles, orders, chosen, key[0], place[0], evaluated)
                k, fresh = k - 1, False
                continue
            entries[k] = _expand(t, g, s, k, objective, best, tiles, orders, chosen, key[k], place[k], evaluated)
            cursor[k] = 0
            sequence[k, : entries[k]] = np.argsort(key[k, : entries[k]])
        if cursor[k] == entries[k] or key[k, sequence[k, cursor[k]]] > best[0] * (1 + TOLERANCE):
            k, fresh = k - 1, False
            continue
        item = place[k, sequence[k, cursor[k]]]
        cursor[k] += 1
        flat, chosen[k] = item // t.class_rests.shape[0], item % t.class_rests.shape[0]
        enter(t, g, s, k, chosen[k], flat)
        cycles = _busiest(t, s.rows[k + 1]) + s.ramp[k + 1]
        if cycles < best[4] and not hopeless(
            objective, s.rows[k + 1, 0], cycles, g.inside[k + 1, flat], g.ramp_edge, 0.0, best
        ):
            k, fresh = k + 1, True
    return nodes, evaluated[0]


@njit(cache=True)
def enter(t: Any, g: Any, s: Any, k: int, order: int, flat: int) -> None:
    """State at level k + 1 with tile `flat`, below block k in loop order class `order`."""
    tensors, dims = t.axis_of.shape
    level = k + 1
    rest = flat
    for d in range(dims):
        s.tiles[level, d] = rest // t.strides[d]
        rest -= s.tiles[level, d] * t.strides[d]
    for tensor in range(tensors):
        stop = t.class_stop[order, tensor]
        if stop < 0:
            s.around[level, tensor], s.trips[level, tensor] = s.around[k, tensor], s.trips[k, tensor]
            s.stop[level, tensor], s.step[level, tensor] = s.stop[k, tensor], s.step[k, tensor]
            continue
        trips = t.div[stop, s.tiles[k, stop]] // t.div[stop, s.tiles[level, stop]]
        around = g.outside[flat] / trips
        for d in range(dims):
            if t.class_rests[order, tensor] >> d & 1:
                around /= t.div[d, s.tiles[k, d]] // t.div[d, s.tiles[level, d]]
        s.around[level, tensor], s.trips[level, tensor] = around, trips
        s.stop[level, tensor] = stop
        s.step[level, tensor] = t.div[stop, s.tiles[level, stop]] * t.spin[k, stop]
    _place(t, g, s, level, flat, s.rows[k], s.ramp[k])


@njit(cache=True)
def _place(t: Any, g: Any, s: Any, level: int, flat: int, rows: Floats, ramp: float) -> None:
    """Rows and ramp with what moves into `level`, from what its State says of stops."""
    s.rows[level] = rows
    for tensor in range(s.stop.shape[1]):
        if t.kept[tensor, level]:
            stop = s.stop[level, tensor]
            moved = g.words[level, flat, tensor]
            if stop >= 0:
                whole = g.extent[level, flat, tensor, t.axis_of[tensor, stop]]
                new = (
                    min(whole, t.coefficient[tensor, stop] * s.step[level, tensor]) / whole if t.slides[level] else 1.0
                )
                moved *= s.around[level, tensor] * (1 + (s.trips[level, tensor] - 1) * new)
            copies = g.distinct[level, flat, tensor]
            if not g.exact[level, tensor]:
                copies = distinct_factor(t, tensor, level, s.tiles, -1)
            tiles = s.around[level, tensor] * s.trips[level, tensor] * copies
            for q in range(s.rows.shape[1]):
                s.rows[level, q] += moved * (t.own[q, tensor, level] + t.shared[q, tensor, level] * copies)
                s.rows[level, q] += tiles * t.setup[q, tensor, level]
            ramp += g.words[level, flat, tensor] * max(t.ramp_up[tensor, level] * copies, t.ramp_down[tensor, level])
        if t.last_known[tensor] == level:
            last = t.spin.shape[0] - 1
            factor = t.steps * distinct_factor(t, tensor, last, s.tiles, -1)
            for q in range(s.rows.shape[1]):
                s.rows[level, q] += factor * t.shared[q, tensor, last]
    s.ramp[level] = ramp


@njit(cache=True)
def _children(t: Any, g: Any, s: Any, k: int, objective: int, best: Floats, flats: Ints) -> int:
    """Tiles of level k + 1 inside that of level k which may beat the incumbent in some order; their number."""
    level, dims = k + 1, t.number.shape[0]
    counter = np.zeros(dims, np.int64)
    counter[0] = -1
    energy, busiest = s.rows[k, 0], _busiest(t, s.rows[k]) + s.ramp[k]
    number = 0
    while next_tile(t, k, s.tiles[k], counter):
        flat = 0
        for d in range(dims):
            flat += t.below[d, s.tiles[k, d], counter[d]] * t.strides[d]
        cycles = busiest + g.ramp[level, flat]
        if cycles < best[4] and not hopeless(objective, energy, cycles, g.here[level, flat], g.ramp_edge, 0.0, best):
            flats[number] = flat
            number += 1
    return number


@njit(cache=True)
def next_tile(t: Any, k: int, outer: Ints, counter: Ints) -> bool:
    """Step to the next tile inside `outer` by loops of block k; from -1 in the first place to the first tile."""
    for d in range(counter.shape[0]):
        counter[d] += 1
        # a tile itself comes first among those inside it: the only one when the dim may not loop here
        if counter[d] < (t.below_count[d, outer[d]] if t.loops[k] >> d & 1 else 1):
            return True
        counter[d] = 0
    return False


@njit(cache=True)
def _expand(
    t: Any, g: Any, s: Any, k: int, objective: int, best: Floats, tiles: Ints, orders: Ints, chosen: Ints,
    key: Floats, place: Ints, evaluated: Ints,
) -> int:  # fmt: skip
    """Every tile of level k + 1 in every order of block k: leaves improve the incumbent, others are listed.

    Returns the number of entries: `key` is what an entry promises, `place` its tile and order.
    """
    tensors, dims = t.axis_of.shape
    level, leaf = k + 1, k + 2 == s.tiles.shape[0]
    ratio, into = np.ones(dims, np.int64), np.zeros((tensors, dims + 1))
    row = np.zeros(s.rows.shape[1])
    slow = not g.exact[level].all() or (t.last_known == level).any()
    flats = np.empty(g.outside.shape[0], np.int64)
    number = 0
    for flat in flats[: _children(t, g, s, k, objective, best, flats)]:
        mask = _ratios(t.div, t.strides, s.tiles, k, flat, ratio)
        ramp = s.ramp[k] + g.ramp[level, flat]
        _fills(t, g, s, k, flat, ratio, into)
        for order in range(t.class_first[k, mask], t.class_first[k, mask + 1]):
            evaluated[0] += 1
            if slow:
                enter(t, g, s, k, order, flat)
                row[:] = s.rows[level]
                ramp = s.ramp[level]
            else:
                row[:] = s.rows[k]
                for tensor in range(tensors):
                    if t.kept[tensor, level]:
                        moved = into[tensor, t.class_stop[order, tensor]]
                        copies = g.distinct[level, flat, tensor]
                        if t.class_stop[order, tensor] >= 0:
                            resting = _resting(ratio, t.class_rests[order, tensor])
                            moved /= resting
                            entered = copies * g.outside[flat] / resting
                        else:
                            entered = copies * s.around[k, tensor] * s.trips[k, tensor]
                        for q in range(row.shape[0]):
                            row[q] += moved * (t.own[q, tensor, level] + t.shared[q, tensor, level] * copies)
                            row[q] += entered * t.setup[q, tensor, level]
            cycles = _busiest(t, row) + ramp
            floor = 0.0
            if leaf:
                cycles = math.ceil(cycles - 1e-9)
            elif not worse(objective, row[0], cycles, best[0], best[1]):
                floor = _floor(t, g, s, k, order, flat, ratio)
            if cycles >= best[4] or hopeless(
                objective, row[0], cycles, g.inside[level, flat], g.ramp_edge, floor, best
            ):
                continue
            if leaf:
                best[0], best[1] = keys(objective, row[0], cycles)
                best[2], best[3] = row[0], cycles
                chosen[k] = order
                tiles[:] = s.tiles
                orders[:level] = chosen[:level]
            else:
                key[number] = promise(objective, row[0], cycles, g.inside[level, flat], g.ramp_edge, floor)
                place[number] = flat * t.class_rests.shape[0] + order
                number += 1
    return number


@njit(cache=True)
def _ratios(div: Ints, strides: Ints, tiles: Ints, k: int, flat: int, ratio: Ints) -> int:
    """Set the tile of level k + 1, and the trips of the loops of block k; the mask of dims that have one."""
    mask, rest = 0, flat
    for d in range(ratio.shape[0]):
        tiles[k + 1, d] = rest // strides[d]
        rest -= tiles[k + 1, d] * strides[d]
        ratio[d] = div[d, tiles[k, d]] // div[d, tiles[k + 1, d]]
        mask |= (ratio[d] > 1) << d
    return mask


@njit(cache=True)
def _resting(ratio: Ints, rests: int) -> float:
    """Trips of the loops during which a tensor rests."""
    product = 1.0
    d = 0
    while rests:
        if rests & 1:
            product *= ratio[d]
        rests >>= 1
        d += 1
    return product


@njit(cache=True)
def _fills(t: Any, g: Any, s: Any, k: int, flat: int, ratio: Ints, into: Floats) -> None:
    """Words moved into an instance of level k + 1 by the dim its tensor stops at; the last column: at an outer block.

    Loops that rest are not yet divided out.
    """
    level = k + 1
    tensors, dims = t.axis_of.shape
    for tensor in range(tensors):
        if not t.kept[tensor, level]:
            continue
        words = g.words[level, flat, tensor]
        base = words * g.outside[flat]
        for d in range(dims):
            a = t.axis_of[tensor, d]
            if a < 0 or ratio[d] == 1:
                continue
            extent = g.extent[level, flat, tensor, a]
            step = t.coefficient[tensor, d] * t.div[d, s.tiles[level, d]] * t.spin[k, d]
            if step >= extent or not t.slides[level]:
                into[tensor, d] = base
            else:
                into[tensor, d] = base / ratio[d] * (1 + (ratio[d] - 1) * step / extent)
        stop = s.stop[k, tensor]
        moved = words
        if stop >= 0:
            whole = g.extent[level, flat, tensor, t.axis_of[tensor, stop]]
            new = min(whole, t.coefficient[tensor, stop] * s.step[k, tensor]) / whole if t.slides[level] else 1.0
            moved *= s.around[k, tensor] * (1 + (s.trips[k, tensor] - 1) * new)
        into[tensor, dims] = moved


@njit(cache=True)
def _floor(t: Any, g: Any, s: Any, k: int, order: int, flat: int, ratio: Ints) -> float:
    """Least energy further in than level k + 1, from how often tensors enter its tile: see `Grid.sweep`."""
    level = k + 1
    total = 0.0
    for tensor in range(s.stop.shape[1]):
        stop = t.class_stop[order, tensor]
        if stop >= 0:
            trips = ratio[stop]
            around = g.outside[flat] / trips / _resting(ratio, t.class_rests[order, tensor])
            step = t.div[stop, s.tiles[level, stop]] * t.spin[k, stop]
        else:
            stop, around, trips, step = s.stop[k, tensor], s.around[k, tensor], s.trips[k, tensor], s.step[k, tensor]
        for inner in range(level + 1, s.tiles.shape[0]):
            if t.kept[tensor, inner]:
                enters = 1.0
                if stop >= 0:
                    whole = g.extent[inner, flat, tensor, t.axis_of[tensor, stop]]
                    new = min(whole, t.coefficient[tensor, stop] * step) / whole
                    enters = around * (1 + (trips - 1) * new)
                words = min(g.sweep[inner, flat, tensor], enters * g.stay[inner, flat, tensor])
                total += words * g.price[inner, tensor]
    return total


@njit(cache=True)
def least_words(t: Any, g: Any, s: Any, tensor: int, inner: int, level: int, flat: int) -> float:
    """Least words into an instance of level `inner`, given how the tensor enters the tile of `level`."""
    enters = 1.0
    stop = s.stop[level, tensor]
    if stop >= 0:
        whole = g.extent[inner, flat, tensor, t.axis_of[tensor, stop]]
        new = min(whole, t.coefficient[tensor, stop] * s.step[level, tensor]) / whole
        enters = s.around[level, tensor] * (1 + (s.trips[level, tensor] - 1) * new)
    return float(min(g.sweep[inner, flat, tensor], enters * g.stay[inner, flat, tensor]))
