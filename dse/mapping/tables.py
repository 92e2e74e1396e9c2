"""What the compiled mapper works on: one search space as arrays, and how results compare.

A tile is a position in the lattice of divisors: `e[d]` picks `div[d, e[d]]` iterations in time of dim d. Level l's
tile divides that of level l - 1; the quotients are the loops between them. Every cost is a row: row 0 the energy (or
traffic), the others ports in cycles. A row is constant + sum over tensors t and levels l of words(t, l) * (own[row,
t, l] + shared[row, t, l] * distinct(t, l)) + tiles(t, l) * distinct(t, l) * setup[row, t, l].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

#: Objectives by number, as the kernel compares them: (first key, second key).
OBJECTIVES = ("energy", "latency", "edp", "ed2p", "traffic")
#: Relative distance within which a bound counts as equal to the incumbent.
TOLERANCE = 1e-12
#: Steps of ramp cycles that bounds tell apart, as shares of the compute cycles; a step stands for its lower end.
RAMP_STEPS = np.array([0.0, *(0.001 * 1.7**i for i in range(11))])


class Tables(NamedTuple):
    """One search space as arrays; T tensors, D dims, L levels, Q rows.

    `div`, `number` divisors of every dim; `below[d, i, j]`, `below_count[d, i]` the positions that divide position
    i; `strides` of the flat lattice; `spin[l, d]` spatial iterations at level l and inside; `axis_of`,
    `coefficient` [t, d], `axes` [t]; `kept`, `own`, `shared`, `setup`, `constant` and `ramp_up`, `ramp_down` [t, l]
    as the module says; `diagonal[t, l, j]` = (dim, dim, copies, copies, coefficient, coefficient, level) of sliding
    windows over copies, `diagonals[t, l]` how many; `last_known[t]` the level at which the compute units' distinct
    copies are known; `width`, `limit`, `together` of the capacity check; `loops[l]` the dims, as a mask, that may
    loop in time at level l; `slides[l]` whether a tile there keeps what the one before it held; `class_*` of the
    loop orders, `class_first[k, mask]` where those of a block and a mask of present dims begin.
    """

    div: Ints
    number: Ints
    below: Ints
    below_count: Ints
    strides: Ints
    spin: Ints
    axis_of: Ints
    coefficient: Ints
    axes: Ints
    kept: Array
    own: Floats
    shared: Floats
    setup: Floats
    constant: Floats
    ramp_up: Floats
    ramp_down: Floats
    diagonal: Ints
    diagonals: Ints
    last_known: Ints
    width: Floats
    limit: Floats
    together: Array
    loops: Ints
    slides: Array
    class_first: Ints
    class_rests: Ints
    class_stop: Ints
    steps: float
    compute_cycles: float


class Grid(NamedTuple):
    """What is known of every tile of the lattice before the search, [level, tile].

    `words`, `distinct` [level, tile, t] of a tile and its copies, `extent` [level, tile, t, axis]; `ramp` the cycles of
    its level's ramp; `outside` [tile] the steps in time around it; `here`, `inside` [level, tile, step of ramp] the
    least energy of what moves into the level and further in, or only further in, when the ramp further in takes no
    more than that step, which begins at `ramp_edge` cycles. `exact[level, t]`: `distinct` depends on nothing but the
    tile. `sweep`, `stay` [level, tile, t] bound words that a tile further out moves into this level: at least `sweep`
    when loops inside that tile move the tensor, else `stay` every time that the tensor enters that tile (infinite
    where it does not fit); `price` [level, t] of a word.
    """

    words: Floats
    extent: Ints
    distinct: Floats
    exact: Array
    ramp: Floats
    outside: Floats
    here: Floats
    inside: Floats
    ramp_edge: Floats
    sweep: Floats
    stay: Floats
    price: Floats


class State(NamedTuple):
    """The search's stack by depth: tiles, rows, ramp, and per tensor the loop it stops at and what lies around it."""

    tiles: Ints
    rows: Floats
    ramp: Floats
    around: Floats
    trips: Floats
    stop: Ints
    step: Ints


@njit(cache=True)
def worse(objective: int, energy: float, cycles: float, first: float, second: float) -> bool:
    """Whether (energy, cycles), or anything they bound from below, cannot beat the incumbent's keys."""
    a, b = keys(objective, energy, cycles)
    return a > first * (1 - TOLERANCE) and (a > first * (1 + TOLERANCE) or b >= second * (1 - TOLERANCE))


@njit(cache=True)
def keys(objective: int, energy: float, cycles: float) -> tuple[float, float]:
    """What an objective compares, first and second."""
    if objective == 1:
        return cycles, energy
    if objective == 2:
        return energy * cycles, cycles
    if objective == 3:
        return energy * cycles * cycles, cycles
    return energy, cycles


@njit(cache=True)
def hopeless(
    objective: int, energy: float, cycles: float, inside: Floats, edge: Floats, floor: float, best: Floats
) -> bool:
    """Whether nothing inside can beat the incumbent.

    `inside[b]` is the least energy there with a ramp from `edge[b]` cycles, `floor` that with any ramp.
    """
    last = inside.shape[0] - 1
    if inside[last] == np.inf or worse(objective, energy + max(floor, inside[last]), cycles, best[0], best[1]):
        return True
    for b in range(last + 1):
        if inside[b] < np.inf and not worse(
            objective, energy + max(floor, inside[b]), cycles + edge[b], best[0], best[1]
        ):
            return False
    return True


@njit(cache=True)
def promise(objective: int, energy: float, cycles: float, inside: Floats, edge: Floats, floor: float) -> float:
    """Lower bound of the first key for the best of what is inside."""
    least = np.inf
    for b in range(inside.shape[0]):
        if inside[b] < np.inf:
            least = min(least, keys(objective, energy + max(floor, inside[b]), cycles + edge[b])[0])
    return float(least)
