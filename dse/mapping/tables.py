"""What the compiled mapper works on: one search space as arrays, and how results compare.

A tile is a position in the lattice of divisors: `e[d]` picks `div[d, e[d]]` iterations in time of dim d. Level l's
tile divides that of level l - 1; the quotients are the loops between them. Every cost is a row: row 0 the energy
(or traffic), the others ports in cycles. A row is constant + sum over tensors t and levels l of
words(t, l) * (own[row, t, l] + shared[row, t, l] * distinct(t, l)).
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


class Tables(NamedTuple):
    """One search space as arrays; T tensors, D dims, L levels, Q rows.

    `div`, `number` divisors of every dim; `below[d, i, j]`, `below_count[d, i]` the positions that divide position i;
    `strides` of the flat lattice; `spin[l, d]` spatial iterations at level l and inside; `axis_of`, `coefficient`
    [t, d], `axes` [t]; `kept`, `own`, `shared`, `constant` and `ramp_up`, `ramp_down` [t, l] as the module says;
    `diagonal[t, l, j]` = (dim, dim, copies, copies, coefficient, coefficient, level) of sliding windows over copies,
    `diagonals[t, l]` how many; `last_known[t]` the level at which the compute units' distinct copies are known;
    `width`, `limit`, `together` of the capacity check; `class_*` of the loop orders by mask of present dims.
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
    indexes: Array
    kept: Array
    own: Floats
    shared: Floats
    constant: Floats
    ramp_up: Floats
    ramp_down: Floats
    diagonal: Ints
    diagonals: Ints
    last_known: Ints
    width: Floats
    limit: Floats
    together: Array
    class_first: Ints
    class_rests: Ints
    class_stop: Ints
    steps: float
    compute_cycles: float


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
def cycles_of(t: Any, row: Floats, ramp: float) -> float:
    """Cycles from the rows of the ports and the ramp, not rounded."""
    busiest = t.compute_cycles
    for q in range(1, row.shape[0]):
        busiest = max(busiest, row[q])
    return float(busiest + ramp)


class State(NamedTuple):
    """The search's stack by depth: tiles, rows, ramp, and per tensor the loop it stops at and what lies around it."""

    tiles: Ints
    rows: Floats
    ramp: Floats
    around: Floats
    trips: Floats
    stop: Ints
    step: Ints
    outside: Floats
