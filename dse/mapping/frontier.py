"""Compiled side of the look-up table: what a mapping moves, as numbers to which any prices and rates apply.

A vector holds, of one mapping or as a lower bound of many: words read and words written per instance of every level,
tiles read and written, then for every tensor kept below the outermost level the words of its tile as its parent sends
them (`up`) and its elements (`down`). Cost is monotone in every entry, so a mapping that another matches in all
entries is not needed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from dse.mapping.bounds import distinct_factor, least_distinct
from dse.mapping.descent import enter, least_words, next_tile, root
from dse.mapping.tables import Floats, Ints, hopeless, keys

#: First tiles that share a bound.
BLOCK = 32


class Prices(NamedTuple):
    """One design as plain arrays.

    `level` [level] = (pJ a word read, written; cycles a word through the read, write, shared port, 0 when unbounded;
    1 where tensors share the words that tiles may take; cycles that a tile takes of each of the three ports
    besides); `pair` [pair] = (cycles of the ramp a word as sent, an element as taken; level of the tile; words an
    element takes there; words the tile, or all tiles together, may take); `fixed` = (pJ of all MACs; 1 where the first
    tiles take time).
    """

    level: Floats
    pair: Floats
    fixed: Floats


@njit(cache=True)
def price(
    level: Floats, pair: Floats, fixed: Floats, v: Floats, instances: Floats, compute_cycles: float
) -> tuple[float, float]:
    """(pJ, cycles) of a vector under one design; infinite cycles where tiles do not fit."""
    levels, pairs = level.shape[0], pair.shape[0]
    energy, cycles, ramp = fixed[0], compute_cycles, 0.0
    for k in range(levels):
        reads, writes = v[k], v[levels + k]
        energy += instances[k] * (reads * level[k, 0] + writes * level[k, 1])
        fetched, drained = v[2 * levels + k], v[3 * levels + k]
        reading = reads * level[k, 2] + fetched * level[k, 6]
        writing = writes * level[k, 3] + drained * level[k, 7]
        both = (reads + writes) * level[k, 4] + (fetched + drained) * level[k, 8]
        cycles = max(cycles, max(reading, max(writing, both)))
    used, last = 0.0, -1
    for j in range(pairs):
        up, down = v[4 * levels + j], v[4 * levels + pairs + j]
        ramp += max(up * pair[j, 0], down * pair[j, 1])
        k = int(pair[j, 2])
        if k != last:
            used, last = 0.0, k
        held = down * pair[j, 3]
        used = used + held if level[k, 5] > 0 else held
        if used > pair[j, 4] + 1e-9:
            return energy, np.inf
    return energy, cycles + ramp * fixed[1]


@njit(cache=True)
def _vector(t: Any, g: Any, s: Any, level: int, flat: int, pairs: Ints, v: Floats) -> None:
    """The vector of the tiles down to `level`, with the least of what lies further in."""
    rows = s.rows.shape[1] - 1
    count = pairs.shape[0]
    last = t.spin.shape[0] - 1
    v[:rows] = s.rows[level, 1:]
    for tensor in range(s.stop.shape[1]):
        if t.last_known[tensor] > level:
            v[:rows] += t.steps * t.shared[1:, tensor, last] * least_distinct(t, tensor, last)
    for j in range(count):
        inner, tensor = pairs[j]
        if inner <= level:
            copies = distinct_factor(t, tensor, inner, s.tiles, -1)
            here = 0
            for d in range(t.strides.shape[0]):
                here += s.tiles[inner, d] * t.strides[d]
            words = g.words[inner, here, tensor]
        else:
            copies = least_distinct(t, tensor, inner)
            words = g.words[inner, 0, tensor]
            moved = least_words(t, g, s, tensor, inner, level, flat)
            for q in range(rows):
                v[q] += moved * (t.own[1 + q, tensor, inner] + t.shared[1 + q, tensor, inner] * copies)
        v[rows + j] = words * copies * t.ramp_up[tensor, inner]
        v[rows + count + j] = words


@njit(cache=True)
def _beaten(v: Floats, others: Floats, number: int) -> bool:
    for i in range(number):
        matched = True
        for f in range(v.shape[0]):
            if others[i, f] > v[f] * (1 + 1e-12) + 1e-9:
                matched = False
                break
        if matched:
            return True
    return False


@njit(cache=True)
def _insert(v: Floats, code: Ints, vectors: Floats, codes: Ints, number: int) -> int:
    """Add an entry that none matches, and drop those that it matches; the new number."""
    kept = 0
    for i in range(number):
        matched = True
        for f in range(v.shape[0]):
            if v[f] > vectors[i, f]:
                matched = False
                break
        if not matched:
            if kept != i:
                vectors[kept], codes[kept] = vectors[i], codes[i]
            kept += 1
    vectors[kept], codes[kept] = v, code
    return kept + 1


@njit(cache=True)
def below(t: Any, g: Any, pairs: Ints, first: Ints) -> tuple[Floats, Ints]:
    """All mappings of a space below a first tile that no other of them matches, as (vectors, codes).

    Parameters
    ----------
    pairs
        (level, tensor) of every tile in a vector, levels ascending.
    first
        (tile of level 1, order class of block 0), or empty: all of them, which lists mappings of two levels and
        bounds of deeper ones.

    Returns
    -------
    codes: (tile of level 1, order of block 0, tile of level 2, ...), one row a vector.
    """
    levels, dims = t.kept.shape[1], t.number.shape[0]
    start = 1 if first.shape[0] else 0
    deepest = levels - 2 if start else 0
    whole = deepest == levels - 2
    s = root(t)
    size = s.rows.shape[1] - 1 + 2 * pairs.shape[0]
    v, code = np.zeros(size), np.zeros(2 * (levels - 1), np.int64)
    vectors, codes = np.zeros((16, size)), np.zeros((16, code.shape[0]), np.int64)
    number = 0
    counter, block = np.zeros((levels, dims), np.int64), np.zeros((levels, 3), np.int64)
    if start:
        code[:2] = first
        enter(t, g, s, 0, first[1], first[0])
    k = start
    counter[k, 0] = -1
    while k >= start:
        if not _advance(t, g, s.tiles[k], k, counter[k], block[k]):
            k -= 1
            continue
        code[2 * k : 2 * k + 2] = block[k, :2]
        enter(t, g, s, k, block[k, 1], block[k, 0])
        _vector(t, g, s, k + 1, block[k, 0], pairs, v)
        if whole and _beaten(v, vectors, number):
            continue
        if k < deepest:
            k += 1
            counter[k], block[k] = 0, 0
            counter[k, 0] = -1
            continue
        if number == vectors.shape[0]:
            vectors, codes = np.concatenate((vectors, vectors)), np.concatenate((codes, codes))
        if whole:
            number = _insert(v, code, vectors, codes, number)
        else:
            vectors[number], codes[number] = v, code
            number += 1
    return vectors[:number].copy(), codes[:number].copy()


@njit(cache=True)
def _advance(t: Any, g: Any, outer: Ints, k: int, counter: Ints, block: Ints) -> bool:
    """Step to the next order, or to the first of the next tile that fits; `block` = (tile, order, orders' end)."""
    if block[1] + 1 < block[2]:
        block[1] += 1
        return True
    while next_tile(t, k, outer, counter):
        flat, mask = 0, 0
        for d in range(counter.shape[0]):
            e = t.below[d, outer[d], counter[d]]
            flat += e * t.strides[d]
            mask |= (e != outer[d]) << d
        if g.here[k + 1, flat, g.here.shape[2] - 1] < np.inf:
            block[0], block[1], block[2] = flat, t.class_first[k, mask], t.class_first[k, mask + 1]
            return True
    return False


@njit(cache=True)
def rank(p: Any, vectors: Floats, instances: Floats, compute_cycles: Floats, objective: int) -> tuple[Ints, Floats]:
    """(places, first keys) of bounds with their own instances and compute cycles, the most promising first."""
    number = vectors.shape[0]
    key = np.empty(number)
    for i in range(number):
        energy, cycles = price(p.level, p.pair, p.fixed, vectors[i], instances[i], compute_cycles[i])
        key[i] = keys(objective, energy, cycles)[0]
    sequence = np.argsort(key)
    return sequence, key[sequence]


@njit(cache=True)
def scan(
    p: Any, blocks: Floats, bounds: Floats, begin: Ints, count: Ints, vectors: Floats, instances: Floats,
    compute_cycles: float, objective: int, best: Floats, nothing: Floats,
) -> tuple[int, int]:  # fmt: skip
    """Improve the incumbent by the mappings of one space.

    Parameters
    ----------
    blocks
        Vectors that bound every `BLOCK` first tiles.
    bounds
        Per first tile the vector that bounds its mappings, which are `vectors[begin: begin + count]`; a negative
        count says that they are not listed yet.
    best
        (first key, second key, energy, cycles) of the incumbent.

    Returns
    -------
    (first tile whose mappings must be listed before the answer is proven, or -1; the incumbent's place, or -1).
    """
    level, pair, fixed = p.level, p.pair, p.fixed
    key = np.empty(blocks.shape[0])
    for block in range(blocks.shape[0]):
        energy, cycles = price(level, pair, fixed, blocks[block], instances, compute_cycles)
        key[block] = keys(objective, energy, cycles)[0]
    found, pending, promised = -1, -1, np.inf
    for block in np.argsort(key):
        if key[block] > best[0] or key[block] == np.inf:
            break
        for i in range(block * BLOCK, min(bounds.shape[0], (block + 1) * BLOCK)):
            energy, cycles = price(level, pair, fixed, bounds[i], instances, compute_cycles)
            if cycles == np.inf or hopeless(objective, energy, cycles, nothing, nothing, 0.0, best):
                continue
            if count[i] < 0:
                promise = keys(objective, energy, cycles)[0]
                if promise < promised:
                    pending, promised = i, promise
                continue
            for j in range(begin[i], begin[i] + count[i]):
                energy, cycles = price(level, pair, fixed, vectors[j], instances, compute_cycles)
                if cycles == np.inf:
                    continue
                cycles = np.ceil(cycles - 1e-9)
                if not hopeless(objective, energy, cycles, nothing, nothing, 0.0, best):
                    best[0], best[1] = keys(objective, energy, cycles)
                    best[2], best[3] = energy, cycles
                    found = j
    if pending >= 0:
        energy, cycles = price(level, pair, fixed, bounds[pending], instances, compute_cycles)
        if hopeless(objective, energy, cycles, nothing, nothing, 0.0, best):
            pending = -1
    return pending, found
