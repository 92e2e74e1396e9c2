"""Cycles of a mesh, queue by queue and packet by packet: equal to the RTL, network included.

What a core does between `go` and its first packet is closed form (`cycles`); from there on packets meet in routers
whose queues are finite, so they are stepped cycle by cycle: every queue is Amaranth's `SyncFIFOBuffered` (a memory and
an output register), every output grants in round robin, and a core that cannot send stops reading its fan-out table.
Cycles in which nothing is under way are skipped.

How a step is counted: events are given to the mesh one after the other, then `go` in the first cycle in which the mesh
is quiet; the step is over in the next cycle in which it is quiet.
"""

from __future__ import annotations

import numba
import numpy as np

from accelerators.neuromorphic.rtl.core import OUTPUT_DEPTH
from accelerators.neuromorphic.rtl.mesh import QUIET_CYCLES
from accelerators.neuromorphic.tables import OUTSIDE

#: A unit of a fan-out walk that sends nothing (a neuron without packets), and one that leaves the mesh.
NO_PACKET, LEAVES = -2, OUTSIDE
#: Cycles from the start of the fan-out walk to its first unit, and to the first one in which it may be over.
_FIRST_UNIT, _FIRST_WAIT = 7, 2
#: Cycles from a unit to its packet's arrival in the output queue.
_TO_QUEUE = 3
_LOCAL, _NORTH, _EAST, _SOUTH, _WEST = range(5)


@numba.njit(cache=True)
def _goal(destination, x, y, columns):  # type: ignore[no-untyped-def]  # pragma: no cover
    if destination == LEAVES:
        return _WEST if x > 0 or y == 0 else _NORTH
    column, row = destination % columns, destination // columns
    if column != x:
        return _EAST if column > x else _WEST
    if row != y:
        return _SOUTH if row > y else _NORTH
    return _LOCAL


@numba.njit(cache=True)
def _granted(inner, out, data, head, last, columns, rows, depth, grant):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Which port of each router an output takes from in this cycle, -1 none; int64 (cores, 5) `grant`."""
    for core in range(columns * rows):
        x, y = core % columns, core // columns
        for port in range(5):
            grant[core, port] = -1
        if out[core].sum() == 0:
            continue
        for port in range(5):
            # the most distant in turn first, so that the nearest overrules it
            chosen = -1
            for step in range(5, 0, -1):
                number = (last[core, port] + step) % 5
                if out[core, number] and _goal(data[core, number, head[core, number]], x, y, columns) == port:
                    chosen = number
            if chosen < 0:
                continue
            there, into = _neighbour(core, port, columns)
            if port == _LOCAL or there < 0 or inner[there, into] != depth - 1:
                grant[core, port] = chosen


@numba.njit(cache=True)
def _neighbour(core, port, columns):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The router and port behind an output; -1 for the door to the outside and the core itself."""
    if port == _NORTH:
        return core - columns, _SOUTH
    if port == _SOUTH:
        return core + columns, _NORTH
    if port == _EAST:
        return core + 1, _WEST
    if port == _WEST and core % columns > 0:
        return core - 1, _EAST
    return -1, 0


@numba.njit(cache=True)
def _advance(inner, out, data, head, pushed, taken, depth, cores):  # type: ignore[no-untyped-def]  # pragma: no cover
    """One clock edge of every router queue; `pushed` (NO_PACKET: nothing), `taken` by core and port."""
    for core in range(cores):
        for port in range(5):
            fetch = inner[core, port] > 0 and (not out[core, port] or taken[core, port])
            if pushed[core, port] != NO_PACKET:
                # the slot behind all that waits: head, when the output register is full, is the packet in it
                slot = (head[core, port] + inner[core, port] + out[core, port]) % (depth + 1)
                data[core, port, slot] = pushed[core, port]
            if taken[core, port]:
                head[core, port] = (head[core, port] + 1) % (depth + 1)
            inner[core, port] += (pushed[core, port] != NO_PACKET) - fetch
            if fetch:
                out[core, port] = 1
            elif taken[core, port]:
                out[core, port] = 0


@numba.njit(cache=True)
def _routed(grant, data, head, pushed, taken, last, links, columns, cores):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Packets that were granted leave their queues for the next router."""
    pushed[:, :] = NO_PACKET
    taken[:, :] = False
    for core in range(cores):
        for port in range(5):
            source = grant[core, port]
            if source < 0:
                continue
            taken[core, source] = True
            last[core, port] = source
            if port != _LOCAL:
                links[core, port - 1] += 1
                there, into = _neighbour(core, port, columns)
                if there >= 0:
                    pushed[there, into] = data[core, source, head[core, source]]


@numba.njit(cache=True)
def _walked(core, since, finish, units, room, position, credit, pipe, queue, level, pushed):  # type: ignore[no-untyped-def]  # pragma: no cover
    """One cycle of a core's fan-out walk and output queue: (done with the step, held up by its router).

    `level` int64 (cores, 3): packets in the queue's memory, in its output register, and the place of its head.
    """
    sends = level[core, 1] == 1 and room
    if sends:
        pushed[core, _LOCAL] = queue[core, level[core, 2]]
    arriving, entering = pipe[core, _TO_QUEUE - 1], NO_PACKET
    done = since >= _FIRST_WAIT and position[core] == finish and credit[core] == OUTPUT_DEPTH
    if since >= _FIRST_UNIT and position[core] < finish and credit[core] > 0:
        entering = units[position[core]]
        position[core] += 1
    credit[core] += np.int64(sends) - np.int64(entering != NO_PACKET)
    fetch = level[core, 0] > 0 and (level[core, 1] == 0 or sends)
    held = level[core, 1] == 1 and not sends
    if arriving != NO_PACKET:
        queue[core, (level[core, 2] + level[core, 0] + level[core, 1]) % queue.shape[1]] = arriving
    if sends:
        level[core, 2] = (level[core, 2] + 1) % queue.shape[1]
    level[core, 0] += np.int64(arriving != NO_PACKET) - np.int64(fetch)
    level[core, 1] = 1 if fetch else (0 if sends else level[core, 1])
    for stage in range(_TO_QUEUE - 1, 0, -1):
        pipe[core, stage] = pipe[core, stage - 1]
    pipe[core, 0] = entering
    return done, held


@numba.njit(cache=True)
def _skipped(ticks, idle, emit_at):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The next cycle in which a core does more than count, when no packet is under way."""
    nearest = np.int64(1) << 60
    for core in range(len(idle)):
        if idle[core] == 0:
            if ticks >= emit_at[core]:
                return ticks
            nearest = min(nearest, emit_at[core])
    return nearest if nearest < np.int64(1) << 60 else ticks


@numba.njit(cache=True)
def mesh_cycles(columns, rows, depth, steps, given_start, given, emit_at, unit_start, units, links):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Cycles of every step.

    Parameters
    ----------
    given_start, given
        Destination cores of the events given before each step: those between given_start[t] and given_start[t + 1].
    emit_at
        int64 (steps, cores): cycles from `go` to the start of the fan-out walk.
    unit_start, units
        What the walk of core c goes through in step t, units[unit_start[t * cores + c] : ...]: destinations, `LEAVES`,
        or `NO_PACKET`.
    links
        int64 (cores, 4), counted up: packets leaving north, east, south, west.

    Returns
    -------
    int64 (steps, 2): cycles before `go`, and from `go` to quiet; int64 (steps, cores): from `go` to idle of each core;
    bool (steps, cores): whether the network held the core up.
    """
    cores = columns * rows
    inner, out = np.zeros((cores, 5), np.int64), np.zeros((cores, 5), np.int64)
    data, head = np.zeros((cores, 5, depth + 1), np.int64), np.zeros((cores, 5), np.int64)
    last, grant = np.zeros((cores, 5), np.int64), np.zeros((cores, 5), np.int64)
    pushed, taken = np.zeros((cores, 5), np.int64), np.zeros((cores, 5), np.bool_)
    spent, idle = np.zeros((steps, 2), np.int64), np.zeros((steps, cores), np.int64)
    held = np.zeros((steps, cores), np.bool_)
    pipe = np.full((cores, _TO_QUEUE), NO_PACKET, np.int64)
    queue, level = np.zeros((cores, OUTPUT_DEPTH + 1), np.int64), np.zeros((cores, 3), np.int64)
    credit = np.full(cores, OUTPUT_DEPTH, np.int64)
    for step in range(steps):
        following, end = given_start[step], given_start[step + 1]
        position = unit_start[step * cores : (step + 1) * cores].copy()
        running, quiet_for, ticks = False, QUIET_CYCLES, np.int64(0)
        while True:
            giving = not running and following < end
            empty = inner.sum() + out.sum() == 0
            still = empty and not giving and (not running or idle[step].min() > 0)
            if still and quiet_for == QUIET_CYCLES:
                spent[step, int(running)] = ticks
                if running:
                    break
                running, quiet_for, ticks = True, 0, np.int64(1)
                continue
            if running and empty:
                ticks = _skipped(ticks, idle[step], emit_at[step])
            _granted(inner, out, data, head, last, columns, rows, depth, grant)
            _routed(grant, data, head, pushed, taken, last, links, columns, cores)
            if giving and inner[0, _WEST] != depth - 1:
                pushed[0, _WEST] = given[following]
                following += 1
            for core in range(cores):
                since = ticks - emit_at[step, core]
                if running and idle[step, core] == 0 and since >= 0:
                    done, waits = _walked(
                        core, since, unit_start[step * cores + core + 1], units, inner[core, _LOCAL] != depth - 1,
                        position, credit, pipe, queue, level, pushed,
                    )  # fmt: skip
                    held[step, core] |= waits
                    if done:
                        idle[step, core] = ticks + 1
            _advance(inner, out, data, head, pushed, taken, depth, cores)
            quiet_for = min(quiet_for + 1, QUIET_CYCLES) if still else 0
            ticks += 1
    return spent, idle, held
