"""What a kernel model returns for a list of problems: time, work and traffic, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accelerators.gpu.gemm_kernel import TERMS, FloatArray, IntArray

EMPTY: IntArray = np.zeros(0, dtype=np.int64)
#: Columns of `Estimate.grid`.
GRID = ("rows", "columns", "depth", "split", "occupancy", "blocks")


def _no_terms() -> FloatArray:
    return np.zeros((0, len(TERMS)))


def _no_grid() -> FloatArray:
    return np.zeros((0, len(GRID)))


@dataclass(frozen=True, eq=False)
class Estimate:
    """Kernels of n problems on one GPU; every array has shape (n,).

    `seconds` without launch; `flops` executed (padding and algorithm included); `dram_bytes` and `l2_bytes` moved;
    `launches` kernels of a problem; `bound_s` the roofline of the chosen algorithm, which no time undercuts;
    `algorithm` a name of each problem's choice; `tile`, `split` index the tile library where one was used. Where a
    program of thread-block tiles was asked for (`tiling.product`), `terms` (n, 7) are seconds by resource, in the order
    of `gemm_kernel.TERMS`, and `grid` (n, 6) the thread blocks, columns as in `GRID`; else both are empty.
    """

    seconds: FloatArray
    flops: FloatArray
    dram_bytes: FloatArray
    l2_bytes: FloatArray
    bound_s: FloatArray
    launches: FloatArray
    algorithm: tuple[str, ...] = ()
    tile: IntArray = field(default_factory=lambda: EMPTY)
    split: IntArray = field(default_factory=lambda: EMPTY)
    terms: FloatArray = field(default_factory=_no_terms)
    grid: FloatArray = field(default_factory=_no_grid)


def choose(options: dict[str, Estimate]) -> Estimate:
    """The fastest of several algorithms, problem by problem; infinite seconds mark one that does not apply."""
    names, estimates = list(options), list(options.values())
    # every further launch costs the device some idle time, so that a tie goes to fewer kernels
    best = np.argmin(np.stack([estimate.seconds for estimate in estimates]), axis=0)
    at = np.arange(best.size)

    def picked(attribute: str) -> FloatArray:
        stacked: FloatArray = np.stack([getattr(estimate, attribute) for estimate in estimates])[best, at]
        return stacked

    tiled = all(len(estimate.grid) == best.size for estimate in estimates)

    return Estimate(
        seconds=picked("seconds"),
        flops=picked("flops"),
        dram_bytes=picked("dram_bytes"),
        l2_bytes=picked("l2_bytes"),
        bound_s=picked("bound_s"),
        launches=picked("launches"),
        algorithm=tuple(names[index] for index in best),
        terms=picked("terms") if tiled else _no_terms(),
        grid=picked("grid") if tiled else _no_grid(),
    )
