"""Fused attention: softmax(q k^T) v without the score matrix ever leaving the SM (Dao et al., arXiv 2205.14135)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelerators.gpu.constants import constants
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.hardware import DTYPES, GpuHardware

#: Query rows of a thread block, and exponentials a clock of an SM (16 special function units since Volta).
QUERY_ROWS, EXP_CLK_SM = 128, 16.0


def attention(
    hw: GpuHardware,
    batch: npt.ArrayLike,
    heads: npt.ArrayLike,
    queries: npt.ArrayLike,
    keys: npt.ArrayLike,
    head_dim: npt.ArrayLike,
    *,
    causal: bool = False,
    dtype: str = "fp16",
    values: Mapping[str, float] | None = None,
) -> Estimate:
    """Forward attention of `batch` x `heads` problems of queries x keys; sizes broadcast to (problems,).

    `causal` leaves out the blocks above the diagonal. Keys and values are read once a block of query rows, through L2.
    """
    b, h, q, k, d = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (batch, heads, queries, keys, head_dim))
    )
    held = constants(hw, "attention", dtype) if values is None else values
    element = DTYPES[dtype][0]
    scores = q * k * (0.5 if causal else 1.0)
    flops = 4.0 * b * h * scores * d
    rows = np.ceil(q / QUERY_ROWS)
    blocks = b * h * rows
    per_sm = np.ceil(blocks / hw.sms)
    share = per_sm * hw.sms / blocks  # idle SMs of the last wave
    rate = hw.peak_flop_s(dtype) * held["peak_efficiency"]
    padded = rows * QUERY_ROWS / q
    matmul = flops * padded / rate * share
    exponent = b * h * scores / (EXP_CLK_SM * hw.sms * hw.clock_hz) * share
    moved = b * h * (2.0 * q + 2.0 * k) * d * element
    through_l2 = b * h * (2.0 * q * d + 2.0 * rows * k * d * (0.5 if causal else 1.0)) * element
    dram = moved / (hw.dram_bytes_s * held["dram_efficiency"])
    l2 = through_l2 / (hw.l2_gb_s * 1e9 * held["l2_efficiency"])
    longest = np.maximum.reduce([matmul, exponent, dram, l2])
    seconds = longest + held["exposure"] * (matmul + exponent + dram + l2 - longest)
    seconds = seconds + held["fill_cycles"] / hw.clock_hz
    bound = np.maximum(flops / hw.peak_flop_s(dtype), moved / hw.dram_bytes_s)
    return Estimate(seconds, flops * padded, moved, through_l2, bound, np.ones_like(seconds), ("fused",) * seconds.size)
