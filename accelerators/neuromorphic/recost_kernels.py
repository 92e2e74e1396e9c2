"""Compiled loops of `recost` and `placement`."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def received(steps, elements, start, where, synapses, length, slices, axon_in, price):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Receiving time (length, slices), messages, and synapses by class, of all events."""
    receive = np.zeros((length, slices), np.int64)
    counts = np.zeros(3, np.int64)
    messages = 0
    for index in range(len(steps)):
        step, element = steps[index], elements[index]
        for m in range(start[element], start[element + 1]):
            total = axon_in
            for kind in range(3):
                total += synapses[m, kind] * price[kind]
                counts[kind] += synapses[m, kind]
            receive[step, where[m]] += total
            messages += 1
    return receive, messages, counts


@numba.njit(cache=True)
def sent(steps, elements, which, start, where, length, ours, theirs):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Messages by step and source slice (length, ours), and from slice to slice (ours, theirs)."""
    out, between = np.zeros((length, ours), np.int64), np.zeros((ours, theirs), np.int64)
    for index in range(len(steps)):
        element = elements[index]
        mine = which[element]
        out[steps[index], mine] += start[element + 1] - start[element]
        for m in range(start[element], start[element + 1]):
            between[mine, where[m]] += 1
    return out, between


@numba.njit(cache=True)
def annealed(traffic, spots, place, rounds, seed):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Slices on spots by simulated annealing of messages times hops.

    traffic int64 (slices, slices), symmetric; spots int64 (spots, 2); place int64 (spots,): slice on each spot, -1
    free, changed in place. Moves swap two spots.
    """
    np.random.seed(seed)
    count = len(spots)
    spot_of = np.full(len(traffic), -1, np.int64)
    for spot in range(count):
        if place[spot] >= 0:
            spot_of[place[spot]] = spot
    scale = 0.0
    for a in range(len(traffic)):
        scale += traffic[a].sum()
    temperature = 2.0 * scale / max(1, len(traffic))
    cooling = 1e-3 ** (1.0 / max(1, rounds))
    for _ in range(rounds):
        one, two = spot_of[np.random.randint(len(traffic))], np.random.randint(count)
        if one != two:
            change = _swapped(traffic, spots, place, spot_of, one, two)
            if change <= 0 or np.random.random() < np.exp(-change / temperature):
                a, b = place[one], place[two]
                place[one], place[two] = b, a
                spot_of[a] = two
                if b >= 0:
                    spot_of[b] = one
        temperature *= cooling


@numba.njit(cache=True)
def _swapped(traffic, spots, place, spot_of, one, two):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Messages times hops gained when what lies on two spots changes places."""
    a, b = place[one], place[two]
    change = 0
    for other in range(len(traffic)):
        if other in (a, b):
            continue
        spot = spot_of[other]
        near = abs(spots[one, 0] - spots[spot, 0]) + abs(spots[one, 1] - spots[spot, 1])
        far = abs(spots[two, 0] - spots[spot, 0]) + abs(spots[two, 1] - spots[spot, 1])
        change += traffic[a, other] * (far - near)
        if b >= 0:
            change += traffic[b, other] * (near - far)
    return change
