"""Streams of DRAM requests: the access patterns that parts are characterised and compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.sim.dram_parts import DramPart

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def run_stream(part: DramPart, requests: int, run_bytes: int | None = None, stride_bytes: int | None = None,
               *, write: bool = False, seed: int = 0) -> tuple[IntArray, BoolArray]:  # fmt: skip
    """One stream: sequential (no `run_bytes`), runs at a stride, or runs at random multiples of their length.

    Returns
    -------
    Burst addresses and whether each writes: int64 and bool, shape (requests,).
    """
    direction = np.full(requests, write)
    number = np.arange(requests, dtype=np.int64)
    if run_bytes is None:
        return number, direction
    run = -(-run_bytes // part.burst_bytes)
    if stride_bytes is not None:
        return number // run * stride_bytes // part.burst_bytes + number % run, direction
    places = part.rows * part.bursts_per_row * part.banks // run
    starts = np.random.default_rng(seed).integers(0, places, -(-requests // run)) * run
    return starts[number // run] + number % run, direction


def interleaved_streams(part: DramPart, requests: int, chunk_bytes: int, read_streams: int,
                        write_streams: int) -> tuple[IntArray, BoolArray]:  # fmt: skip
    """Sequential streams that take turns by chunks: first the reading ones, then the writing ones.

    The streams begin an equal share of the part apart (a power of two), hence at the same place of the same bank, in
    different rows.
    """
    chunk, streams = -(-chunk_bytes // part.burst_bytes), read_streams + write_streams
    share = part.rows * part.bursts_per_row * part.banks >> (streams - 1).bit_length()
    number = np.arange(requests, dtype=np.int64)
    turn = number // chunk
    stream = turn % streams
    return stream * share + turn // streams * chunk + number % chunk, stream >= read_streams
