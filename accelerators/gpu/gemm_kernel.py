"""Closed-form time of a tiled GEMM, minimised over a library of thread-block tiles and split-K: compiled.

One candidate is a thread-block tile (rows x columns x depth) with the reduction cut into `split` parts. Its thread
blocks are dealt to the SMs; an SM works on up to `occupancy` of them at once. Five resources may limit it: the
arithmetic of the busiest SM, the loads of the busiest SM (its port, and the bytes it keeps in flight over the
latency of memory), L2, DRAM, and the shared memory that feeds the arithmetic. They overlap, though not perfectly:
the longest counts in full, the rest by `exposure`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Columns of a tile row and indices of the machine vector: see `dse`'s GPU documentation and `machine_vector`.
TILE_COLUMNS = (
    "rows",
    "columns",
    "depth",
    "warps",
    "stages",
    "occupancy",
    "warp_rows",
    "warp_columns",
    "least_m",
    "most_m",
    "least_n",
    "most_n",
    "split_depth",
    "rate",
)
MACHINE = (
    "sms",
    "clock_hz",
    "flop_clk_sm",
    "element_bytes",
    "output_bytes",
    "dram_bytes_s",
    "l2_bytes_s",
    "l2_bytes",
    "sm_bytes_clk",
    "shared_bytes_clk",
    "latency_cycles",
    "fill_cycles",
    "exposure",
    "warp_saturation",
    "split_seconds",
    "l2_hot_bytes",
    "cluster",
    "wave_smoothing",
)
SPLITS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], dtype=np.int64)
TERMS = ("math", "shared", "sm_load", "l2", "dram", "fill", "reduce")


@njit(cache=True, inline="always")
def _dram_bytes(
    a: float,
    b: float,
    grid_m: float,
    grid_n: float,
    rows: float,
    columns: float,
    wave: float,
    band_a: float,
    band_b: float,
    l2: float,
) -> float:
    """Operand bytes that one problem reads from DRAM, the better of the two raster orders.

    A wave of thread blocks walks down a band of tile columns (or rows). The band's operand stays in L2; the other one
    is read again for every band, unless it fits in L2 as a whole.
    """
    if a + b <= l2:
        return a + b
    # continuous band counts: a larger machine's larger wave must never read more
    side = max(1.0, math.sqrt(wave * columns / rows))
    tall = min(grid_m, max(1.0, wave / min(grid_n, side)))
    wide = min(grid_n, max(1.0, wave / tall))
    bands_n, bands_m = grid_n / wide, grid_m / tall
    # a band that does not fit in L2 is narrowed until it does, or read again for every wave that crosses it
    kept_n = grid_n / max(1.0, min(wide, l2 / band_b))
    kept_m = grid_m / max(1.0, min(tall, l2 / band_a))
    again_b = b * bands_m if band_b > l2 else b
    again_a = a * bands_n if band_a > l2 else a
    column_bands = b + a if a <= l2 else min(again_b + a * kept_n, b * bands_m + a * bands_n)
    row_bands = a + b if b <= l2 else min(again_a + b * kept_m, b * bands_m + a * bands_n)
    return min(column_bands, row_bands)


@njit(cache=True)
def best_candidates(  # type: ignore[no-untyped-def]
    m_array, n_array, k_array, batch_array, a_array, tiles, machine, splits, seconds, choice, terms
):
    """Fill `seconds` (n,), `choice` (n, 2: tile, split) and `terms` (n, 7, seconds) for every problem.

    Shapes: problems int64 (n,); tiles float64 (t, 14) in `TILE_COLUMNS`; machine float64 in `MACHINE`; splits (s,).
    """
    (sms, clock, flop_clk, element, output, dram_rate, l2_rate, l2, sm_bytes, shared_bytes, latency, fill, exposure,
     saturation, split_seconds, hot, cluster, smoothing) = machine  # fmt: skip
    for i in range(m_array.size):
        m, n, k, batch = float(m_array[i]), float(n_array[i]), float(k_array[i]), float(batch_array[i])
        best = np.inf
        for t in range(tiles.shape[0]):
            (rows, columns, depth, warps, stages, occupancy, warp_rows, warp_columns, least_m, most_m, least_n, most_n,
             split_depth, rate) = tiles[t]  # fmt: skip
            if m < least_m or m > most_m or n < least_n or n > most_n:
                continue
            grid_m, grid_n = math.ceil(m / rows), math.ceil(n / columns)
            blocks_whole = grid_m * grid_n * batch
            math_block = 2.0 * rows * columns / (flop_clk * rate)
            shared_block = rows * columns * element * (1.0 / warp_rows + 1.0 / warp_columns) / shared_bytes
            if blocks_whole / sms * math_block * k / clock > best:
                continue
            wave = min(blocks_whole, sms * occupancy)
            a, b = a_array[i] * element, n * k * element
            dram = batch * _dram_bytes(
                a, b, grid_m, grid_n, rows, columns, max(1.0, wave / batch), a / grid_m, b / grid_n, l2
            )
            dram = max(0.0, dram - min(hot, (a + b) * batch))
            write = m * n * output * batch
            for s in range(splits.size):
                split = float(splits[s])
                if s > 0 and (k < split * split_depth or blocks_whole * split > sms * occupancy * 2.0):
                    break
                steps = math.ceil(k / (split * depth))
                k_block = steps * depth
                blocks = blocks_whole * split
                quotient = blocks / sms
                # blocks of unequal pace drift apart over many waves, so the last wave is partly filled in
                per_sm = math.ceil(quotient)
                per_sm = per_sm - smoothing * (per_sm - quotient) * (1.0 - 1.0 / per_sm)
                resident = min(per_sm, occupancy)
                active = min(1.0, resident * warps / saturation)
                math_s = per_sm * math_block * k_block / active / clock
                shared_s = per_sm * shared_block * k_block / clock
                block_bytes = (rows + columns) * k_block * element
                in_flight = resident * stages * (rows + columns) * depth * element
                sm_s = per_sm * block_bytes / min(sm_bytes, in_flight / latency) / clock
                l2_s = (blocks * block_bytes / cluster + write * 1.0) / l2_rate
                dram_s = (dram + write) / dram_rate
                fill_s = math.ceil(per_sm / occupancy) * fill / clock
                reduce_s = 0.0
                if split > 1:
                    reduce_s = split_seconds + m * n * batch * 4.0 * split * 2.0 / l2_rate
                longest = max(math_s, shared_s, sm_s, l2_s, dram_s)
                total = longest + exposure * (math_s + shared_s + sm_s + l2_s + dram_s - longest) + fill_s + reduce_s
                if total < best:
                    best = total
                    choice[i, 0], choice[i, 1] = t, splits[s]
                    terms[i, 0], terms[i, 1], terms[i, 2], terms[i, 3] = math_s, shared_s, sm_s, l2_s
                    terms[i, 4], terms[i, 5], terms[i, 6] = dram_s, fill_s, reduce_s
        seconds[i] = best
