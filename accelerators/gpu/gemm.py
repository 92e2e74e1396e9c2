"""GEMM on a GPU: time, traffic and the chosen tile and split for lists of problems."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelerators.gpu.constants import constants
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.gemm_kernel import MACHINE, SPLITS, TERMS, FloatArray, IntArray, best_candidates
from accelerators.gpu.hardware import DTYPES, GpuHardware
from accelerators.gpu.library import library_name, tiles
from dse.core.errors import UsageError

#: Bytes a clock that an SM's shared memory delivers: 32 banks of 4 bytes on every architecture since Kepler.
SHARED_BYTES_CLK = 128.0
#: Share of L2 that operands can count on; the rest holds outputs and what is in flight. Chosen, not fitted.
L2_USABLE = 0.8


def gemm(
    hw: GpuHardware,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    *,
    dtype: str = "fp16",
    batch: npt.ArrayLike = 1,
    a_elements: npt.ArrayLike | None = None,
    l2_hot: bool = False,
    kernel: str = "gemm",
    efficiency: float = 1.0,
    library: str = "",
    points: int = 1,
    values: Mapping[str, float] | None = None,
) -> Estimate:
    """Estimate (m x k) times (k x n), fastest tile and split-K of the library for each problem.

    Parameters
    ----------
    m, n, k, batch
        Positive integers, broadcast to shape (problems,).
    a_elements
        Distinct elements of the left operand of one problem where it repeats them (a convolution's pixels); m * k.
    l2_hot
        Whether both operands lie in L2 from the kernel before, as far as they fit.
    kernel
        Class whose constants hold.
    efficiency
        Arithmetic rate over that of a plain GEMM (implicit convolution, Winograd).
    library
        Tile library in place of the one that `library_name` gives.
    points
        Products that a thread block computes side by side over one tile (fused Winograd); an element of an operand
        stands for that many.
    values
        Constants in place of those of `constants(hw, kernel, dtype)`.

    Returns
    -------
    Estimate of n problems; `seconds` without launch.

    Raises
    ------
    UsageError: unknown type or one the GPU lacks, sizes that are not positive.
    """
    sizes = [
        np.ascontiguousarray(x, dtype=np.int64) for x in np.broadcast_arrays(*map(np.atleast_1d, (m, n, k, batch)))
    ]
    if any(array.size and array.min() < 1 for array in sizes):
        raise UsageError("sizes of a GEMM must be positive")
    hw.operations_clk_sm(dtype)  # refuses a type by name before anything looks it up
    held = constants(hw, kernel, dtype) if values is None else values
    element, output, _ = DTYPES[dtype]
    rows, columns, depth, problems = sizes
    unique = rows * depth if a_elements is None else np.broadcast_to(np.asarray(a_elements, float), rows.shape)
    unique = np.ascontiguousarray(unique, dtype=np.float64)
    count = rows.size
    name = library or library_name(hw, dtype, batched=bool(count and problems.max() > 1))
    table = tiles(name, element, held["narrow_rate"])
    machine = machine_vector(hw, dtype, held, efficiency=efficiency, l2_hot=l2_hot, points=points)
    seconds, choice, terms = np.empty(count), np.zeros((count, 2), np.int64), np.empty((count, len(TERMS)))
    best_candidates(rows, columns, depth, problems, unique, table, machine, SPLITS, seconds, choice, terms)
    flops = executed_flops(rows, columns, depth, problems, table, choice) * points
    dram_rate, l2_rate = machine[MACHINE.index("dram_bytes_s")], machine[MACHINE.index("l2_bytes_s")]
    element *= points
    useful = 2.0 * rows * columns * depth * problems * points
    least = (unique + columns * depth) * element * problems + rows * columns * problems * float(output)
    compulsory = rows * columns * problems * float(output) if l2_hot else least
    bound = np.maximum(useful / hw.peak_flop_s(dtype), compulsory / hw.dram_bytes_s)
    return Estimate(
        seconds=np.maximum(seconds, bound),
        flops=flops,
        dram_bytes=terms[:, TERMS.index("dram")] * dram_rate,
        l2_bytes=terms[:, TERMS.index("l2")] * l2_rate,
        bound_s=bound,
        launches=np.where(choice[:, 1] > 1, 2.0, 1.0),
        algorithm=("gemm",) * count,
        tile=choice[:, 0],
        split=choice[:, 1],
    )


def machine_vector(
    hw: GpuHardware,
    dtype: str,
    held: Mapping[str, float],
    *,
    efficiency: float = 1.0,
    l2_hot: bool = False,
    points: int = 1,
) -> FloatArray:
    """What the compiled kernel needs to know of a GPU and a type: float64 (18,), order of `MACHINE`."""
    element, output, _ = DTYPES[dtype]
    l2_bytes = hw.l2_mib * 2**20
    values = {
        "sms": hw.sms,
        "clock_hz": hw.clock_hz,
        "flop_clk_sm": hw.operations_clk_sm(dtype) * held["peak_efficiency"] * efficiency / points,
        "element_bytes": element * points,
        "output_bytes": output,
        "dram_bytes_s": hw.dram_bytes_s * held["dram_efficiency"],
        "l2_bytes_s": hw.l2_gb_s * 1e9 * held["l2_efficiency"],
        "l2_bytes": l2_bytes * L2_USABLE,
        "sm_bytes_clk": held["sm_bytes_clk"],
        "shared_bytes_clk": SHARED_BYTES_CLK,
        "latency_cycles": held["latency_cycles"],
        "fill_cycles": held["fill_cycles"],
        "exposure": held["exposure"],
        "warp_saturation": held["warp_saturation"],
        "split_seconds": held["split_us"] * 1e-6,
        "l2_hot_bytes": l2_bytes * L2_USABLE if l2_hot else 0.0,
        "cluster": 1.0,
        "wave_smoothing": held["wave_smoothing"],
    }
    return np.array([values[name] for name in MACHINE], dtype=np.float64)


def executed_flops(
    m: IntArray, n: IntArray, k: IntArray, batch: IntArray, table: FloatArray, choice: IntArray
) -> FloatArray:
    """Operations that the chosen tiles execute, edge padding included: float64 (problems,)."""
    rows, columns, depth = (table[choice[:, 0], column] for column in (0, 1, 2))
    split = choice[:, 1]
    parts = np.ceil(k / (split * depth)) * depth * split
    padded: FloatArray = 2.0 * np.ceil(m / rows) * rows * np.ceil(n / columns) * columns * parts * batch
    return padded
