"""Compiled loops of the cost model; what they compute is said in `cost`."""

from __future__ import annotations

import heapq
from typing import Any

import numba
import numpy as np

#: What is counted, in the order of the arrays here; the first eight are priced in the order of `prices.EVENTS`.
COUNTS = ("soma_access", "soma_update", "spike_out", "axon_out", "axon_in", "dendrite", "hop_east_west",
          "hop_north_south", "synapse_dense", "synapse_sparse", "synapse_conv", "external")  # fmt: skip
_ACCESS, _UPDATE, _SPIKE, _AXON_OUT, _AXON_IN, _DENDRITE, _EAST_WEST, _NORTH_SOUTH, _SYNAPSE = range(9)
_EXTERNAL = 11
#: A whole message in parts that all path lengths up to 16 divide.
SHARE = 720720
_EAST, _WEST, _SOUTH, _NORTH = range(4)


@numba.njit(cache=True)
def _receive(synapses, unit, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Time of one message at its receiver; counts its events."""
    total = unit[_AXON_IN]
    counts[_AXON_IN] += 1
    for kind in range(3):
        total += synapses[kind] * (unit[_SYNAPSE + kind] + unit[_DENDRITE])
        counts[_SYNAPSE + kind] += synapses[kind]
        counts[_DENDRITE] += synapses[kind]
    return total


@numba.njit(cache=True)
def _path(origin, destination, places, rows, cores, path):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Links from one core to another, the injection link first; returns their number."""
    path[0] = origin
    used = 1
    x, y = places[origin]
    while x != places[destination, 0]:
        direction = _EAST if x < places[destination, 0] else _WEST
        path[used] = cores + 4 * (x * rows + y) + direction
        x += 1 if direction == _EAST else -1
        used += 1
    while y != places[destination, 1]:
        direction = _SOUTH if y < places[destination, 1] else _NORTH
        path[used] = cores + 4 * (x * rows + y) + direction
        y += 1 if direction == _SOUTH else -1
        used += 1
    return used


@numba.njit(cache=True)
def _queued(bounds, gap, destination, receive, tail, free, places, columns, rows, unit, buffer):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Time at which the last core has sent and received everything, and that core."""
    cores = len(bounds) - 1
    links = np.zeros(cores + 4 * columns * rows, np.int64)
    path = np.empty(columns + rows + 1, np.int64)
    following = bounds[:-1].copy()
    ready: Any = [(np.int64(0), np.int64(0))]
    ready.clear()
    flying: Any = [(np.int64(0), np.int64(0))]
    flying.clear()
    for core in range(cores):
        first = gap[following[core]] if following[core] < bounds[core + 1] else tail[core]
        heapq.heappush(ready, (np.int64(first), np.int64(core)))
    in_flight = in_flight_time = end = np.int64(0)
    last = 0
    for core in range(cores):
        if free[core] > end:
            end, last = np.int64(free[core]), core
    while len(ready):
        send, core = heapq.heappop(ready)
        while len(flying) and flying[0][0] <= send:
            _, left = heapq.heappop(flying)
            origin = np.searchsorted(bounds, left, side="right") - 1
            hops = _path(origin, destination[left], places, rows, cores, path)
            for index in range(hops):
                links[path[index]] -= SHARE // (hops + 1)
            in_flight -= 1
            in_flight_time -= receive[left]
        message = following[core]
        if message >= bounds[core + 1]:
            if send > end:
                end, last = send, core
            continue
        there = destination[message]
        used = _path(core, there, places, rows, cores, path)
        occupied = np.int64(0)
        for index in range(used):
            occupied += links[path[index]]
        mean = in_flight_time // in_flight if in_flight else np.int64(0)
        excess = occupied - used * buffer * SHARE
        if excess > 0:
            send += excess * mean // SHARE
        dx = abs(places[core, 0] - places[there, 0])
        dy = abs(places[core, 1] - places[there, 1])
        travel = max(dx * unit[_EAST_WEST] + dy * unit[_NORTH_SOUTH], occupied * mean // (SHARE * used))
        begin = max(free[there], send + travel)
        free[there] = begin + receive[message]
        for index in range(used):
            links[path[index]] += SHARE // (used + 1)
        heapq.heappush(flying, (begin, np.int64(message)))
        in_flight += 1
        in_flight_time += receive[message]
        if free[there] > end:
            end, last = free[there], there
        following[core] += 1
        after = gap[message + 1] if following[core] < bounds[core + 1] else tail[core]
        heapq.heappush(ready, (send + after, core))
    return end, last


@numba.njit(cache=True)
def _count_hops(origin, destination, places, rows, counts, links):  # type: ignore[no-untyped-def]  # pragma: no cover
    x, y = places[origin]
    while x != places[destination, 0]:
        east = x < places[destination, 0]
        links[x * rows + y, _EAST if east else _WEST] += 1
        counts[_EAST_WEST] += 1
        x += 1 if east else -1
    while y != places[destination, 1]:
        south = y < places[destination, 1]
        links[x * rows + y, _SOUTH if south else _NORTH] += 1
        counts[_NORTH_SOUTH] += 1
        y += 1 if south else -1


@numba.njit(cache=True)
def run_cost(  # type: ignore[no-untyped-def]  # pragma: no cover
    steps, input_start, input_events, spike_start, spikes, touched, inputs, core_start, walk, core_of, message_start,
    message_core, message_synapses, places, columns, rows, unit, buffer, detailed,
):  # fmt: skip
    """Counts, gaps and receiving times (steps, cores), step times without synchronization, binding cores, links."""
    cores, neurons = len(core_start) - 1, len(walk)
    counts = np.zeros(12, np.int64)
    gaps, receives = np.zeros((steps, cores), np.int64), np.zeros((steps, cores), np.int64)
    step_ps, binding = np.zeros(steps, np.int64), np.zeros(cores, np.int64)
    links = np.zeros((columns * rows, 4), np.int64)
    fired = np.zeros(neurons, np.bool_)
    bounds, tail = np.zeros(cores + 1, np.int64), np.zeros(cores, np.int64)
    room = 1024
    gap, receive, destination = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    for step in range(steps):
        for index in range(input_start[step], input_start[step + 1]):
            element = input_events[index]
            for m in range(message_start[element], message_start[element + 1]):
                receives[step, message_core[m]] += _receive(message_synapses[m], unit, counts)
                counts[_EXTERNAL] += 1
        outside = receives[step].copy()
        sent = 0
        for index in range(spike_start[step], spike_start[step + 1]):
            fired[spikes[index]] = True
            element = inputs + spikes[index]
            sent += message_start[element + 1] - message_start[element]
        if sent > room:
            room = 2 * sent
            gap, receive, destination = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
        used = 0
        for core in range(cores):
            bounds[core] = used
            elapsed = np.int64(0)
            for position in range(core_start[core], core_start[core + 1]):
                n = walk[position]
                elapsed += unit[_ACCESS]
                if touched[step, n >> 3] & (1 << (n & 7)):
                    counts[_UPDATE] += 1
                    elapsed += unit[_UPDATE]
                if not fired[n]:
                    continue
                counts[_SPIKE] += 1
                elapsed += unit[_SPIKE]
                for m in range(message_start[inputs + n], message_start[inputs + n + 1]):
                    elapsed += unit[_AXON_OUT]
                    counts[_AXON_OUT] += 1
                    gap[used], destination[used] = elapsed, message_core[m]
                    receive[used] = _receive(message_synapses[m], unit, counts)
                    receives[step, message_core[m]] += receive[used]
                    gaps[step, core] += elapsed
                    _count_hops(core, message_core[m], places, rows, counts, links)
                    elapsed = np.int64(0)
                    used += 1
            counts[_ACCESS] += core_start[core + 1] - core_start[core]
            tail[core] = elapsed
            gaps[step, core] += elapsed
        bounds[cores] = used
        for index in range(spike_start[step], spike_start[step + 1]):
            fired[spikes[index]] = False
        if detailed:
            end, last = _queued(bounds, gap, destination, receive, tail, outside, places, columns, rows, unit, buffer)
        else:
            end, last = np.int64(0), 0
            for core in range(cores):
                busy = max(gaps[step, core], receives[step, core])
                if busy > end:
                    end, last = busy, core
        step_ps[step] = end
        binding[last] += 1
    return counts, gaps, receives, step_ps, binding, links


@numba.njit(cache=True)
def asynchronous_times(gaps, receives, feeds):  # type: ignore[no-untyped-def]  # pragma: no cover
    """How much later the last core finishes with each step; gaps and receives (steps, cores)."""
    steps, cores = gaps.shape
    ready, finished = np.zeros(cores, np.int64), np.zeros(steps + 1, np.int64)
    for step in range(steps):
        sent = ready + gaps[step]
        for core in range(cores):
            begin = sent[core]
            for other in range(cores):
                if feeds[other, core] >= 0:
                    begin = max(begin, sent[other] + feeds[other, core])
            ready[core] = begin + receives[step, core]
        finished[step + 1] = max(finished[step], ready.max())
    return finished[1:] - finished[:-1]
