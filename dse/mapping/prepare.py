"""Compiled weights of many unrollings at once: what a word moved costs, which copies are distinct (`tables.py`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from dse.mapping.bounds import overlap_free
from dse.mapping.tables import Array, Floats, Ints


class Setting(NamedTuple):
    """Problem, architecture and prices as arrays: T tensors, D live dims, L levels, A axes, P bounded ports.

    `whole` [t] words of a tensor, `output` [t]; `at` [axis] the level above it, `merges[axis, t]` whether copies
    share a tile; `width`, `read`, `write` [t, l] words of an element and the price of a word; `port` [p] = (level,
    kind: 0 read, 1 write, 2 both, 3 and 4 only the tiles read or written), `rate` [p] words a cycle, `setup` [p] cycles
    besides for every tile; `send`, `take` [t, l] cycles that a word spends in the
    port of the level above or below a move of the ramp; `fixed` what the MACs cost; `leads` [t, s] the density of a
    tensor s whose zeros spare the compute units an access to t, else 1.
    """

    bounds: Ints
    axis_of: Ints
    coefficient: Ints
    axes: Ints
    whole: Floats
    output: Array
    at: Ints
    merges: Array
    width: Floats
    read: Floats
    write: Floats
    port: Ints
    rate: Floats
    setup: Floats
    send: Floats
    take: Floats
    native: bool
    fixed: float
    macs_per_cycle: float
    leads: Floats


class Weights(NamedTuple):
    """Arrays of `Tables` with a leading axis for the unrolling, [u, ...].

    `valid` [u] is False where copies of a sliding window are not one regular grid; `least` [u, row] bounds the rows;
    `instances` [u, level] work.
    """

    spin: Ints
    temporal: Ints
    own: Floats
    shared: Floats
    setup: Floats
    constant: Floats
    ramp_up: Floats
    ramp_down: Floats
    diagonal: Ints
    diagonals: Ints
    last_known: Ints
    steps: Floats
    compute_cycles: Floats
    valid: Array
    least: Floats
    instances: Floats


@njit(cache=True)
def weigh(p: Any, units: Ints, keeps: Array) -> Any:
    """Weights of every unrolling.

    Parameters
    ----------
    p
        A `Setting`.
    units
        [u, axis, dim] units along each live dim.
    keeps
        [level, t].
    """
    number, axes, dims = units.shape
    levels, tensors = keeps.shape
    rows = 1 + p.rate.shape[0]
    w = Weights(
        np.ones((number, levels + 1, dims), np.int64),
        np.ones((number, dims), np.int64),
        np.zeros((number, rows, tensors, levels + 1)),
        np.zeros((number, rows, tensors, levels + 1)),
        np.zeros((number, rows, tensors, levels + 1)),
        np.zeros((number, rows)),
        np.zeros((number, tensors, levels)),
        np.zeros((number, tensors, levels)),
        np.zeros((number, tensors, levels + 1, 4, 7), np.int64),
        np.zeros((number, tensors, levels + 1), np.int64),
        np.full((number, tensors), -1, np.int64),
        np.ones(number),
        np.ones(number),
        np.ones(number, np.bool_),
        np.zeros((number, rows)),
        np.ones((number, levels)),
    )
    instances = np.ones(levels + 1)
    slides = np.zeros(max(1, p.axes.max()), np.bool_)
    for u in range(number):
        instances[:] = 1
        for a in range(axes):
            for d in range(dims):
                w.spin[u, : p.at[a] + 1, d] *= units[u, a, d]
                instances[p.at[a] + 1 :] *= units[u, a, d]
        for d in range(dims):
            w.temporal[u, d] = p.bounds[d] // w.spin[u, 0, d]
            w.steps[u] *= w.temporal[u, d]
        w.compute_cycles[u] = np.ceil(w.steps[u] / p.macs_per_cycle)
        w.constant[u, 0] = p.fixed
        for tensor in range(tensors):
            parent = -1
            for child in range(levels + 1):
                if child < levels and not keeps[child, tensor]:
                    continue
                if parent >= 0:
                    copies = _copies(p, w, units[u], u, tensor, parent, child, slides)
                    _charge(p, w, units[u], u, tensor, parent, child, copies, instances, _outermost(keeps, tensor))
                parent = child
        w.instances[u] = instances[:levels]
        _close(p, w, u, keeps)
    return w


@njit(cache=True)
def _outermost(keeps: Array, tensor: int) -> int:
    for level in range(keeps.shape[0]):
        if keeps[level, tensor]:
            return level
    return -1


@njit(cache=True)
def _copies(p: Any, w: Any, units: Ints, u: int, tensor: int, parent: int, child: int, slides: Array) -> float:
    """Distinct copies of `child` below a parent, without those of sliding windows, which are noted as diagonals."""
    axes, dims = units.shape
    levels = p.width.shape[1]
    slides[:] = False
    total = 1.0
    for along in range(p.axes[tensor]):
        found = np.zeros(dims, np.bool_)
        for a in range(axes):
            if parent <= p.at[a] < child and p.merges[a, tensor]:
                for d in range(dims):
                    found[d] |= p.axis_of[tensor, d] == along and units[a, d] > 1
        if found.sum() < 2:
            continue
        slides[along] = True
        place, regular = -1, found.sum() == 2
        for a in range(axes):
            if parent <= p.at[a] < child:
                for d in range(dims):
                    if found[d] and units[a, d] > 1:
                        regular &= p.merges[a, tensor] and place in (-1, p.at[a])
                        place = p.at[a]
        if not regular:
            w.valid[u] = False
            continue
        row = w.diagonal[u, tensor, child, w.diagonals[u, tensor, child]]
        second = 0
        for d in range(dims):
            if found[d]:
                count = 1
                for a in range(axes):
                    count *= units[a, d] if p.at[a] == place else 1
                row[second], row[2 + second], row[4 + second] = d, count, p.coefficient[tensor, d]
                second += 1
        row[6] = place + 1
        w.diagonals[u, tensor, child] += 1
        if child == levels and place + 1 < levels:
            w.last_known[u, tensor] = max(w.last_known[u, tensor], place + 1)
    for a in range(axes):
        if parent <= p.at[a] < child:
            for d in range(dims):
                along = p.axis_of[tensor, d]
                if not p.merges[a, tensor] or (along >= 0 and not slides[along]):
                    total *= units[a, d]
    return total


@njit(cache=True)
def _charge(
    p: Any, w: Any, units: Ints, u: int, tensor: int, parent: int, child: int, copies: float, instances: Floats,
    outermost: int,
) -> None:  # fmt: skip
    """Rows of what passes between two levels, and of what is exchanged further up by the parent."""
    levels = p.width.shape[1]
    inner = 1.0 if parent != outermost else 0.0
    first = 0.0
    drains = 0.0
    if p.output[tensor]:
        first = p.whole[tensor]
        drains = inner if p.native else 0.0
        if parent != outermost:
            for a in range(units.shape[0]):
                for d in range(units.shape[1]):
                    if p.at[a] < parent and p.axis_of[tensor, d] < 0:
                        first *= units[a, d]
        first /= instances[parent]
    width = p.width[tensor, parent]
    acting = _acting(p, units, tensor, parent) if child == levels else 1.0
    for row in range(w.constant.shape[1]):
        if row == 0:
            read = instances[parent] * width * p.read[tensor, parent]
            write = instances[parent] * width * p.write[tensor, parent]
        elif p.port[row - 1, 0] == parent:
            kind = p.port[row - 1, 1]
            read = width / p.rate[row - 1] * (kind == 0 or kind == 2)
            write = width / p.rate[row - 1] * (kind == 1 or kind == 2)
            if child < levels and kind != (0 if p.output[tensor] else 1) and kind != (3 if p.output[tensor] else 4):
                w.setup[u, row, tensor, child] = copies * p.setup[row - 1]
        else:
            continue
        w.shared[u, row, tensor, child] += acting * copies * read
        if p.output[tensor]:
            w.shared[u, row, tensor, child] += acting * copies * write
            w.own[u, row, tensor, parent] += drains * read + inner * write
            w.constant[u, row] -= acting * first * read + inner * first * write
        else:
            w.own[u, row, tensor, parent] += inner * write
    if p.native and child < levels:
        w.ramp_up[u, tensor, child] = copies * p.width[tensor, parent] * p.send[tensor, parent]
        w.ramp_down[u, tensor, child] = p.width[tensor, child] * p.take[tensor, child]


@njit(cache=True)
def _acting(p: Any, units: Ints, tensor: int, parent: int) -> float:
    """As `dse.mapping.density.acting_share`."""
    always, varying, copies = 1.0, 1.0, 1.0
    for lead in range(p.leads.shape[1]):
        if p.leads[tensor, lead] < 1:
            different = 1.0
            for a in range(units.shape[0]):
                for d in range(units.shape[1]):
                    if p.at[a] >= parent and p.merges[a, tensor] and p.axis_of[tensor, d] < 0 <= p.axis_of[lead, d]:
                        different *= units[a, d]
            if different > 1:
                varying *= p.leads[tensor, lead]
                copies = max(copies, different)
            else:
                always *= p.leads[tensor, lead]
    return float(always * (1 - (1 - varying) ** copies)) if copies > 1 else always


@njit(cache=True)
def _close(p: Any, w: Any, u: int, keeps: Array) -> None:
    """Add what the compute units take to the constants where tiles do not matter, and the least of all other rows."""
    levels, tensors = keeps.shape
    dims = p.bounds.shape[0]
    for tensor in range(tensors):
        if w.last_known[u, tensor] < 0:
            factor = w.steps[u]
            for j in range(w.diagonals[u, tensor, levels]):
                _, _, n1, n2, c1, c2, _ = w.diagonal[u, tensor, levels, j]
                factor *= overlap_free(n1, n2, c1, c2)
            w.constant[u] += factor * w.shared[u, :, tensor, levels]
    w.least[u] = w.constant[u]
    for tensor in range(tensors):
        for level in range(1, levels):
            if keeps[level, tensor]:
                words, distinct = 1.0, 1.0
                for along in range(p.axes[tensor]):
                    extent = 1
                    for d in range(dims):
                        if p.axis_of[tensor, d] == along:
                            extent += w.temporal[u, d] * w.spin[u, level, d] - 1
                    words *= extent
                for j in range(w.diagonals[u, tensor, level]):
                    distinct *= w.diagonal[u, tensor, level, j, 2] + w.diagonal[u, tensor, level, j, 3] - 1
                w.least[u] += words * (w.own[u, :, tensor, level] + w.shared[u, :, tensor, level] * distinct)
