"""Kernels that stream memory: elementwise chains, softmax, normalizations, pooling, reductions.

Time is bytes over the sustained DRAM bandwidth, or over L2's when the tensors fit there, and at least the arithmetic;
a row-wise kernel adds a time a row. A fused chain reads its inputs once and writes its result once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelerators.gpu.constants import constants
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.hardware import DTYPES, GpuHardware

#: Operations an element of kinds that cost more than one: special functions take a quarter-rate unit or a polynomial.
OPERATIONS = {"gelu": 24.0, "tanh": 16.0, "sigmoid": 12.0, "exp": 8.0, "erf": 20.0, "pow": 24.0, "div": 8.0,
              "sqrt": 8.0, "softmax": 12.0, "layer_norm": 8.0}  # fmt: skip


def elementwise(
    hw: GpuHardware,
    elements: npt.ArrayLike,
    *,
    inputs: int = 1,
    dtype: str = "fp32",
    kinds: tuple[str, ...] = ("add",),
    values: Mapping[str, float] | None = None,
) -> Estimate:
    """A chain of elementwise ops fused into one kernel over `elements` elements.

    `inputs` tensors are read and one is written; the chain's arithmetic is that of its `kinds`.
    """
    count = np.atleast_1d(np.asarray(elements, dtype=np.float64))
    operations = sum(OPERATIONS.get(kind, 1.0) for kind in kinds)
    held = constants(hw, "elementwise", dtype) if values is None else values
    return _stream(hw, count * (inputs + 1) * DTYPES[dtype][0], count * operations, np.zeros_like(count), held)


def row_wise(
    hw: GpuHardware,
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    *,
    kind: str = "softmax",
    dtype: str = "fp32",
    values: Mapping[str, float] | None = None,
) -> Estimate:
    """Softmax or a normalization over rows: kind "softmax" or "layer_norm" names the constants.

    A row that fits in registers and shared memory of its SM is read once, a longer one a second time.
    """
    m, n = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (rows, columns)))
    element = DTYPES[dtype][0]
    held = constants(hw, kind, dtype) if values is None else values
    kept = n * element <= hw.shared_kib * 1024
    traffic = m * n * element * np.where(kept, 2.0, 3.0)
    return _stream(hw, traffic, m * n * OPERATIONS.get(kind, 8.0), m, held, least=m * n * element * 2.0)


def reduction(
    hw: GpuHardware,
    elements: npt.ArrayLike,
    results: npt.ArrayLike,
    *,
    dtype: str = "fp32",
    values: Mapping[str, float] | None = None,
) -> Estimate:
    """A sum or maximum of `elements` elements to `results`; pooling is one over its windows.

    Overlapping windows are read from cache: `elements` counts distinct inputs.
    """
    count, kept = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (elements, results)))
    held = constants(hw, "elementwise", dtype) if values is None else values
    return _stream(hw, (count + kept) * DTYPES[dtype][0], count, np.zeros_like(count), held)


def _stream(  # type: ignore[no-untyped-def]
    hw: GpuHardware, moved, operations, rows, held: Mapping[str, float], least=None
) -> Estimate:
    dram_rate = hw.dram_bytes_s * held["dram_efficiency"]
    arithmetic = operations / (hw.rates.fp32 * hw.sms * hw.clock_hz * held["peak_efficiency"])
    # every stream passes L2 on its way
    seconds = np.maximum.reduce([moved / dram_rate, arithmetic, moved / (hw.l2_gb_s * 1e9 * held["l2_efficiency"])])
    seconds = seconds + rows * held["row_ns"] * 1e-9
    bound = (moved if least is None else least) / hw.dram_bytes_s
    ones = np.ones_like(seconds)
    return Estimate(seconds, operations, moved, moved, bound, ones, ("stream",) * seconds.size)
