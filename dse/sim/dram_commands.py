"""A DRAM channel command by command: the reference that the fast service times are held against.

A controller of the common kind: a transaction queue for reads and a buffer for writes, one queue a bank, first-ready
first-come first-served among them, an open page, refresh rank by rank. Every command waits for the gaps that the part
demands behind earlier commands (`gap_table`), the four-activate window and refresh.

Source of the policy: the controller that DRAMsim3 documents (Li et al., IEEE CAL 2020): transactions wait in queues of
32, one a cycle moves to its bank's queue of 8, banks are visited in turn, writes are drained when their buffer is full,
a row is given up after four hits when an older request wants another. Written anew as one compiled loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from dse.sim.dram_parts import DramPart

IntArray = npt.NDArray[np.int64]

_ACT, _PRE, _RD, _WR, _REF = range(5)
#: How the bank of a command relates to the bank of an earlier one.
_SAME_BANK, _SAME_GROUP, _SAME_RANK, _OTHER_RANK = range(4)

TRANSACTIONS = 32
BANK_QUEUE = 8
#: Writes that start a drain when no read waits.
IDLE_DRAIN = 16
#: Hits of an open row after which an older request to another row may close it.
ROW_HITS = 4
#: What the compiled loop returns.
_COUNTS = (
    "cycles", "reads", "writes", "row_hits", "activates", "precharges", "refreshes", "active_rank_cycles", "latency",
)  # fmt: skip


@dataclass(frozen=True)
class DramRun:
    """What a channel did with a stream of requests.

    `row_hits` counts reads and writes that found their row open behind another; `active_rank_cycles` the cycles of
    all ranks in which some bank was open; `latency` the sum over reads from request to last data.
    """

    part: DramPart
    cycles: int
    reads: int
    writes: int
    row_hits: int
    activates: int
    precharges: int
    refreshes: int
    active_rank_cycles: int
    latency: int

    @property
    def efficiency(self) -> float:
        """Share of the cycles in which the data bus moved data."""
        return (self.reads + self.writes) * self.part.burst_cycles / self.cycles

    @property
    def bytes_per_second(self) -> float:
        return (self.reads + self.writes) * self.part.burst_bytes / (self.cycles * self.part.clock_ns * 1e-9)

    @property
    def energy_pj(self) -> dict[str, float]:
        """Energy of the devices: by command, refresh, and standby of all ranks."""
        part, idle = self.part, self.cycles * self.part.ranks - self.active_rank_cycles
        return {
            "activate": self.activates * part.activate_pj,
            "read": self.reads * part.read_pj,
            "write": self.writes * part.write_pj,
            "refresh": self.refreshes * part.refresh_pj,
            "standby": (self.active_rank_cycles * part.active_mw + idle * part.idle_mw) * part.clock_ns,
        }

    @property
    def pj_per_bit(self) -> float:
        """Energy of the devices over the bits moved."""
        return sum(self.energy_pj.values()) / ((self.reads + self.writes) * self.part.burst_bytes * 8)

    @property
    def mean_read_latency(self) -> float:
        """Cycles from a read's arrival at the controller to its last data; 0 without reads."""
        return self.latency / self.reads if self.reads else 0.0


def gap_table(part: DramPart) -> IntArray:
    """Least cycles between two commands: int64, shape (4, 4, 4): earlier, later (ACT, PRE, RD, WR), relation of banks.

    0 where the pair is free. Source: JEDEC command-to-command rules with `part`'s parameters; a read that follows
    another rank's waits for the bus to change hands.
    """
    gap = np.zeros((4, 4, 4), np.int64)
    p, burst = part, part.burst_cycles
    read_delay, write_delay = p.cl + burst, p.cwl + burst
    near, far = max(burst, p.ccd_l), max(burst, p.ccd_s)
    gap[_ACT, _ACT] = [p.ras + p.rp, p.rrd_l, p.rrd_s, 0]
    gap[_ACT, _PRE, _SAME_BANK] = p.ras
    gap[_ACT, _RD, _SAME_BANK], gap[_ACT, _WR, _SAME_BANK] = p.rcd_read, p.rcd_write
    gap[_PRE, _ACT, _SAME_BANK] = p.rp
    gap[_RD, _PRE, _SAME_BANK], gap[_WR, _PRE, _SAME_BANK] = p.rtp, write_delay + p.wr
    gap[_RD, _RD] = [near, near, far, burst + p.rank_switch]
    gap[_WR, _WR] = [near, near, far, burst]
    to_write = p.cl + burst - p.cwl + p.rank_switch
    gap[_RD, _WR] = [to_write] * 4
    gap[_WR, _RD] = [write_delay + p.wtr_l, write_delay + p.wtr_l, write_delay + p.wtr_s,
                     write_delay + burst + p.rank_switch - read_delay]  # fmt: skip
    return np.maximum(gap, 0)


def run_commands(part: DramPart, bursts: IntArray, writes: npt.NDArray[np.bool_], cycles: int | None = None) -> DramRun:
    """Serve a stream of requests of one burst each, offered in order, at most one a cycle.

    Parameters
    ----------
    bursts : int64, shape (requests,)
        Burst addresses: byte address over `part.burst_bytes`.
    writes : bool, shape (requests,)
    cycles
        Stop after so many; None: when the last request has been issued.

    Raises
    ------
    ValueError: the arrays differ in length, or the requests run out before `cycles`.
    """
    counts, _ = _played(part, bursts, writes, cycles, 0)
    if cycles is not None and counts[0] < cycles:
        raise ValueError(f"{len(bursts)} requests are served in {counts[0]} cycles; more are needed to fill {cycles}")
    return DramRun(part, **{name: int(value) for name, value in zip(_COUNTS, counts, strict=True)})


def command_log(part: DramPart, bursts: IntArray, writes: npt.NDArray[np.bool_]) -> IntArray:
    """The commands that serve a stream: int64, shape (commands, 4): cycle, command, bank, row.

    Commands are 0 ACT, 1 PRE, 2 RD, 3 WR, 4 REF; banks count through ranks, groups and banks. REF names its rank's
    first bank; PRE and REF have row -1.

    Raises
    ------
    ValueError: the arrays differ in length.
    """
    counts, log = _played(part, bursts, writes, None, 4 * len(bursts) + 64 * part.banks)
    used = int(counts[1:3].sum() + counts[4:7].sum())
    return log[:used]


def _played(part: DramPart, bursts: IntArray, writes: npt.NDArray[np.bool_], cycles: int | None,
            capacity: int) -> tuple[IntArray, IntArray]:  # fmt: skip
    """The compiled loop on a stream: the figures of `_COUNTS`, and up to `capacity` commands."""
    if bursts.shape != writes.shape:
        raise ValueError(f"{bursts.shape[0]} addresses and {writes.shape[0]} directions; one each is needed")
    rank, group, bank, row = part.decode(bursts)
    log = np.zeros((capacity, 4), np.int64)
    per_rank = part.bank_groups * part.banks_per_group
    shape = np.array([part.ranks, part.bank_groups, part.banks_per_group], np.int64)
    refresh = np.array([part.refi, part.rfc, part.faw], np.int64)
    counts = _play(
        (rank * per_rank + group * part.banks_per_group + bank).astype(np.int64),
        row.astype(np.int64),
        np.ascontiguousarray(writes),
        gap_table(part),
        shape,
        refresh,
        part.two_command_buses,
        part.cl + part.burst_cycles,
        -1 if cycles is None else cycles,
        log,
    )
    return counts, log


@njit(cache=True)
def _relation(one: int, other: int, groups: int, per_group: int) -> int:
    """How two banks, numbered over ranks and groups, lie to each other."""
    if one == other:
        return _SAME_BANK
    if one // (groups * per_group) != other // (groups * per_group):
        return _OTHER_RANK
    return _SAME_GROUP if one // per_group == other // per_group else _SAME_RANK


@njit(cache=True)
def _issue(command: int, bank: int, now: int, gap: IntArray, shape: IntArray, ready: IntArray) -> None:
    """Notes from when on each command may follow on each bank: `ready`, shape (banks, 4)."""
    for other in range(ready.shape[0]):
        relation = _relation(bank, other, shape[1], shape[2])
        for later in range(4):
            wait = gap[command, later, relation]
            if wait > 0:
                ready[other, later] = max(ready[other, later], now + wait)


@njit(cache=True)
def _note(log: IntArray, logged: int, now: int, command: int, bank: int, row: int) -> int:
    """Adds a command to the log while it has room; returns how many it holds."""
    if logged < log.shape[0]:
        log[logged, 0], log[logged, 1], log[logged, 2], log[logged, 3] = now, command, bank, row
        return logged + 1
    return logged


@njit(cache=True)
def _wanted(bank: int, now: int, ready: IntArray, open_row: IntArray, hits: IntArray, window: IntArray, faw: int,
            per_rank: int, queue: IntArray, length: IntArray) -> tuple[int, int]:  # fmt: skip
    """The first request of a bank's queue that has a command ready: its place and the command; (-1, 0): none."""
    for place in range(length[bank]):
        row, write = queue[bank, place, 0], queue[bank, place, 1]
        if open_row[bank] == row:
            if ready[bank, _RD + write] <= now:
                return place, _RD + write
        elif place > 0 and open_row[bank] >= 0:
            continue  # only the oldest request may close a row
        elif open_row[bank] < 0:
            if ready[bank, _ACT] <= now and window[bank // per_rank].min() + faw <= now:
                return place, _ACT
        elif ready[bank, _PRE] <= now:
            still_wanted = False
            for later in range(1, length[bank]):
                still_wanted = still_wanted or queue[bank, later, 0] == open_row[bank]
            if not still_wanted or hits[bank] >= ROW_HITS:
                return place, _PRE
    return -1, 0


@njit(cache=True)
def _play(bank_of: IntArray, row_of: IntArray, write_of: npt.NDArray[np.bool_], gap: IntArray, shape: IntArray,
          refresh: IntArray, two_buses: bool, read_delay: int, limit: int, log: IntArray) -> IntArray:  # fmt: skip
    """The channel, cycle by cycle; returns the figures of `_COUNTS`."""
    ranks, per_rank = shape[0], shape[1] * shape[2]
    banks, requests = ranks * per_rank, bank_of.shape[0]
    refi, rfc, faw = refresh[0], refresh[1], refresh[2]
    ready = np.zeros((banks, 4), np.int64)
    open_row, hits = np.full(banks, -1, np.int64), np.zeros(banks, np.int64)
    window, window_at = np.full((ranks, 4), -faw, np.int64), np.zeros(ranks, np.int64)
    queue, length = np.zeros((banks, BANK_QUEUE, 3), np.int64), np.zeros(banks, np.int64)
    pool, pooled = np.zeros((2, TRANSACTIONS), np.int64), np.zeros(2, np.int64)  # reads, writes: request numbers
    arrived = np.zeros(requests, np.int64)
    turn, draining, offered, open_requests = 0, 0, 0, 0
    next_refresh, refresh_rank, waiting_rank = refi // ranks, 0, -1
    counts = np.zeros(9, np.int64)
    now, logged = 0, 0
    while (now < limit) if limit >= 0 else (offered < requests or open_requests > 0):
        if offered < requests and pooled[int(write_of[offered])] < TRANSACTIONS:
            kind = int(write_of[offered])
            pool[kind, pooled[kind]] = offered
            pooled[kind] += 1
            arrived[offered] = now
            offered += 1
            open_requests += 1
        elif offered == requests and limit >= 0:
            break
        if now == next_refresh:
            waiting_rank, refresh_rank = refresh_rank, (refresh_rank + 1) % ranks
            next_refresh += refi // ranks
        issued = -1
        if waiting_rank >= 0:  # close the rank's banks, then refresh it
            first, closed, may = waiting_rank * per_rank, True, True
            for bank in range(first, first + per_rank):
                may = may and ready[bank, _ACT] <= now
                if open_row[bank] >= 0:
                    closed = False
                    if issued < 0 and ready[bank, _PRE] <= now:
                        issued, open_row[bank] = _PRE, -1
                        _issue(_PRE, bank, now, gap, shape, ready)
                        counts[5] += 1
                        logged = _note(log, logged, now, _PRE, bank, -1)
            if closed and may:
                for bank in range(first, first + per_rank):
                    ready[bank, _ACT] = now + rfc
                counts[6] += 1
                logged = _note(log, logged, now, _REF, first, -1)
                issued, waiting_rank = _ACT, -1
        tries = 0
        while tries < banks and (issued < 0 or two_buses):
            tries += 1
            turn = turn + 1 if turn + 1 < banks else 0
            bank = turn
            if length[bank] == 0 or (waiting_rank >= 0 and bank // per_rank == waiting_rank):
                continue
            place, command = _wanted(bank, now, ready, open_row, hits, window, faw, per_rank, queue, length)
            if place < 0 or (issued >= 0 and (command >= _RD) == (issued >= _RD)):
                continue
            _issue(command, bank, now, gap, shape, ready)
            logged = _note(log, logged, now, command, bank, -1 if command == _PRE else queue[bank, place, 0])
            if command == _ACT:
                rank = bank // per_rank
                window[rank, window_at[rank]] = now
                window_at[rank] = (window_at[rank] + 1) % 4
                open_row[bank], hits[bank] = queue[bank, place, 0], 0
                counts[4] += 1
            elif command == _PRE:
                open_row[bank] = -1
                counts[5] += 1
            else:
                counts[3] += hits[bank] > 0
                hits[bank] += 1
                counts[1 + command - _RD] += 1
                if command == _RD:
                    counts[8] += now + read_delay - arrived[queue[bank, place, 2]]
                length[bank] -= 1
                for later in range(place, length[bank]):
                    queue[bank, later] = queue[bank, later + 1]
                open_requests -= 1
            if issued >= 0:
                break
            issued = command
        for rank in range(ranks):
            for bank in range(rank * per_rank, (rank + 1) * per_rank):
                if open_row[bank] >= 0:
                    counts[7] += 1
                    break
        if draining == 0 and (pooled[1] == TRANSACTIONS or (pooled[0] == 0 and pooled[1] >= IDLE_DRAIN)
                              or (offered == requests and pooled[0] == 0)):  # fmt: skip
            draining = pooled[1]
        kind = 1 if draining > 0 else 0
        for place in range(pooled[kind]):
            request = pool[kind, place]
            bank = bank_of[request]
            if length[bank] < BANK_QUEUE:
                queue[bank, length[bank], 0], queue[bank, length[bank], 1] = row_of[request], kind
                queue[bank, length[bank], 2] = request
                length[bank] += 1
                pooled[kind] -= 1
                for later in range(place, pooled[kind]):
                    pool[kind, later] = pool[kind, later + 1]
                draining -= kind
                break
        now += 1
    counts[0] = now
    return counts
