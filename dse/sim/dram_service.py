"""Closed-form service time of a DRAM channel: what the levels with sharing take for a transfer.

The most binding of four limits, each in cycles a burst: the data bus, the column spacing inside a bank group, the
activate rate of a rank, the turn-round of the banks that the controller's window reaches; refresh on top. Held
against the command-level channel (`dse.sim.dram_commands`) and DRAMsim3 in docs/dram.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dse.sim.dram_commands import BANK_QUEUE, TRANSACTIONS
from dse.sim.dram_parts import DramPart
from dse.sim.dram_streams import run_stream

#: Row visits that the statistics of a stream are taken over: more than any part has banks.
_SAMPLE_VISITS = 256
#: Requests the controller has in hand: its transactions, the queue of the bank at work and that of the next.
_IN_HAND = TRANSACTIONS + 2 * BANK_QUEUE


@dataclass(frozen=True)
class _Reach:
    """What a stream asks of a part.

    `visit` bursts a row visit; `turns` share of visits that go to another bank group than the one before; `ranks`
    and `banks` that it keeps in turn.
    """

    visit: float
    turns: float
    ranks: int
    banks: int


def refresh_factor(part: DramPart) -> float:
    """Time with refresh over time without; the other ranks work on while one is refreshed."""
    return 1 / (1 - part.rfc / part.refi / part.ranks)


def row_cycles(part: DramPart, bursts: float, *, write: bool) -> float:
    """Cycles from one activate of a bank to the next around `bursts` reads or writes of one row.

    Source: JEDEC: tRCD, the columns, then tRTP or write recovery, then tRP; tRAS at least.
    """
    columns = (bursts - 1) * max(part.burst_cycles, part.ccd_l)
    if write:
        return max(part.ras, part.rcd_write + columns + part.cwl + part.burst_cycles + part.wr) + part.rp
    return max(part.ras, part.rcd_read + columns + part.rtp) + part.rp


@lru_cache(maxsize=1024)
def stream_cycles_per_burst(
    part: DramPart, run_bytes: int | None = None, stride_bytes: int | None = None, *, write: bool = False
) -> float:
    """Mean cycles of a burst in one stream of runs of contiguous bytes.

    Parameters
    ----------
    run_bytes
        Contiguous bytes of a run; None: the stream is sequential.
    stride_bytes
        From one run to the next; None: the runs lie anywhere.

    Raises
    ------
    ValueError: a length is not positive, or the runs overlap.
    """
    if run_bytes is not None and run_bytes < 1:
        raise ValueError(f"a run of {run_bytes} bytes; at least 1 is needed")
    if stride_bytes is not None and (run_bytes is None or stride_bytes < run_bytes):
        raise ValueError(f"runs of {run_bytes} bytes every {stride_bytes} bytes overlap")
    reach = _reach(part, run_bytes, stride_bytes)
    activate = max(part.faw / 4, part.rrd_s) / reach.visit / reach.ranks
    parallel = min(reach.banks, 1 + _IN_HAND / reach.visit)
    bank = row_cycles(part, reach.visit, write=write) / reach.visit / parallel
    # a bank that works alone is the column limit over again, with its opening and closing hidden behind the next
    bank = bank if reach.visit < part.bursts_per_row or reach.banks == 1 else 0.0
    return max(_column_cycles(part, reach), activate, bank) * refresh_factor(part)


def _column_cycles(part: DramPart, reach: _Reach) -> float:
    """Cycles a burst by the spacing of columns: two bank groups take turns while the window holds two rows."""
    far, near = max(part.burst_cycles, part.ccd_s), max(part.burst_cycles, part.ccd_l)
    overlap = min(1.0, 2 * TRANSACTIONS / reach.visit * reach.turns)
    return overlap * far + (1 - overlap) * near


def _reach(part: DramPart, run_bytes: int | None, stride_bytes: int | None) -> _Reach:
    """Statistics of a sample of the stream."""
    longest = part.row_bytes if run_bytes is None else min(run_bytes, part.row_bytes)
    requests = _SAMPLE_VISITS * -(-longest // part.burst_bytes)
    bursts, _ = run_stream(part, requests, run_bytes, stride_bytes)
    rank, group, bank, row = part.decode(bursts)
    place = (rank * part.bank_groups + group) * part.banks_per_group + bank
    begins = np.flatnonzero(np.r_[True, (place[1:] != place[:-1]) | (row[1:] != row[:-1])])
    groups = (rank * part.bank_groups + group)[begins]
    return _Reach(
        visit=requests / len(begins),
        turns=float((groups[1:] != groups[:-1]).mean()),
        # a sequential stream stays in a rank for many rows
        ranks=1 if run_bytes is None else len(np.unique(rank)),
        banks=len(np.unique(place)),
    )


def interleaved_cycles_per_burst(part: DramPart, chunk_bytes: int, read_streams: int, write_streams: int) -> float:
    """Mean cycles of a burst when sequential streams take turns by chunks and begin at the same place of a bank.

    Chunks below two rows meet in the same bank: the worst placement, and that of buffers aligned to powers of two.
    Longer chunks have left the bank before the next stream comes. Writes gather in their buffer and are drained
    together.

    Raises
    ------
    ValueError: no stream reads, none writes, or the chunk is empty.
    """
    if read_streams < 1 or write_streams < 1 or chunk_bytes < 1:
        raise ValueError(f"{read_streams} reading and {write_streams} writing streams of {chunk_bytes} bytes; 1 each")
    chunk, batch = math.ceil(chunk_bytes / part.burst_bytes), TRANSACTIONS
    reads = batch * read_streams / write_streams
    if chunk >= 2 * part.bursts_per_row:
        spacing = _column_cycles(part, _reach(part, None, None))
        to_write = part.cl - part.cwl + part.rank_switch
        to_read = part.cwl + part.wtr_l
        return ((batch + reads) * spacing + to_write + to_read) / (batch + reads) * refresh_factor(part)
    visit = min(max(chunk, BANK_QUEUE), part.bursts_per_row) if read_streams > 1 else part.bursts_per_row
    # the window sees so far ahead in each stream that part of the time the next row's bank is already open
    ahead = (TRANSACTIONS + BANK_QUEUE) / read_streams / part.bursts_per_row
    read_time = reads / visit * row_cycles(part, visit, write=False)
    if chunk > batch:  # a drain in the midst of a chunk closes the row that half of the time is needed again
        read_time += 0.5 * (part.rtp + part.rp + part.rcd_read)
    burst = max(part.burst_cycles, part.ccd_s)
    # reads and writes have the bus by turns, so each phase takes what its own tightest limit takes
    read_time = max(read_time / (1 + min(ahead, 1.0)), reads * burst)
    write_time = max(row_cycles(part, batch, write=True), batch * burst)
    return (read_time + write_time) / (batch + reads) * refresh_factor(part)


def transfer_ns(part: DramPart, size_bytes: int, run_bytes: int | None = None, *, write: bool = False) -> float:
    """Time that a transfer keeps a channel busy: bursts times their mean spacing; a run's last burst may be part empty.

    Raises
    ------
    ValueError: `size_bytes` or `run_bytes` is not positive.
    """
    if size_bytes < 1:
        raise ValueError(f"a transfer of {size_bytes} bytes; at least 1 is needed")
    run = size_bytes if run_bytes is None else min(run_bytes, size_bytes)
    bursts = math.ceil(size_bytes / run) * math.ceil(run / part.burst_bytes)
    spacing = stream_cycles_per_burst(part, run_bytes, write=write)
    return bursts * spacing * part.clock_ns


def first_access_ns(part: DramPart) -> float:
    """From a read's arrival at an idle channel to its last data: activate, column, burst."""
    return (part.rcd_read + part.cl + part.burst_cycles) * part.clock_ns


def turnaround_ns(part: DramPart) -> float:
    """Time lost when the channel turns from one user's row to another's in the same bank."""
    return (part.rtp + part.rp + part.rcd_read) * part.clock_ns
