"""Programs of thread-block tiles: the GEMM model with the tile, split-K and stages left open or fixed, and its parts.

Beside the time, an estimate from here says which grid of thread blocks runs and how long each resource is busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accelerators.gpu.constants import constants
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.gemm import executed_flops, gemm, machine_vector
from accelerators.gpu.gemm_kernel import SPLITS, TERMS, TILE_COLUMNS, FloatArray, best_candidates
from accelerators.gpu.hardware import DTYPES, GpuHardware
from accelerators.gpu.library import library_name, tiles
from dse.core.errors import InfeasibleError, Violation

_COLUMN = {name: index for index, name in enumerate(TILE_COLUMNS)}
#: Registers of an SM that the occupancies of the tile libraries stand for: every generation since Kepler has them.
LIBRARY_REGISTER_KIB = 256.0
#: Shared memory of an SM that they stand for: the smallest of the architecture (CUDA programming guide; M).
LIBRARY_SHARED_KIB: Mapping[str, float] = {
    "kepler": 48, "maxwell": 64, "pascal": 64, "volta": 96, "turing": 64, "ampere": 100, "ada": 100, "hopper": 228,
    "blackwell": 100, "cdna": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TileLimits:
    """What a decision fixes: a tile "ROWSxCOLUMNS" ("" any), split-K parts and stages (0: the model's choice).

    Parts above one are used where they pay, as a library would.
    """

    tile: str = ""
    split: int = 0
    stages: int = 0


#: Everything is left to the model.
ANY_TILE = TileLimits()


def product(
    hw: GpuHardware,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    *,
    dtype: str = "fp16",
    batch: npt.ArrayLike = 1,
    a_elements: npt.ArrayLike | None = None,
    kernel: str = "gemm",
    efficiency: float = 1.0,
    library: str = "",
    points: int = 1,
    values: Mapping[str, float] | None = None,
    limits: TileLimits = ANY_TILE,
) -> Estimate:
    """As `gemm` (whose parameters these are), among the tiles that `limits` and the SM's memories allow.

    Returns
    -------
    Estimate of n problems with `terms` and `grid`.

    Raises
    ------
    InfeasibleError: no tile is left.
    UsageError: as `gemm`.
    """
    first = gemm(
        hw, m, n, k, dtype=dtype, batch=batch, a_elements=a_elements, kernel=kernel, efficiency=efficiency,
        library=library, points=points, values=values,
    )  # fmt: skip
    rows, columns, depth, problems = (
        np.ascontiguousarray(x, dtype=np.int64) for x in np.broadcast_arrays(*map(np.atleast_1d, (m, n, k, batch)))
    )
    held = constants(hw, kernel, dtype) if values is None else values
    element = DTYPES[dtype][0]
    name = library or library_name(hw, dtype, batched=bool(rows.size and problems.max() > 1))
    # fused Winograd keeps its points in registers: neither its tiles nor its stages are open
    table = tiles(name, element, held["narrow_rate"])
    if points == 1:
        table = allowed_tiles(hw, table, element, limits)
    splits = np.array([limits.split], np.int64) if limits.split and points == 1 else SPLITS
    if splits[0] > 1:
        splits = np.array([1, limits.split], np.int64)
    unique = rows * depth if a_elements is None else np.broadcast_to(np.asarray(a_elements, float), rows.shape)
    machine = machine_vector(hw, dtype, held, efficiency=efficiency, points=points)
    seconds, terms = np.empty(rows.size), np.empty((rows.size, len(TERMS)))
    choice = np.zeros((rows.size, 2), np.int64)
    best_candidates(
        rows, columns, depth, problems, np.ascontiguousarray(unique, dtype=np.float64), table, machine, splits,
        seconds, choice, terms,
    )  # fmt: skip
    if not np.isfinite(seconds).all():
        at = int(np.argmin(np.isfinite(seconds)))
        raise _no_tile(f"{rows[at]} x {columns[at]} x {depth[at]}", name, limits)
    dram_rate = hw.dram_bytes_s * held["dram_efficiency"]
    return replace(
        first,
        seconds=np.maximum(seconds, first.bound_s),
        flops=executed_flops(rows, columns, depth, problems, table, choice) * points,
        dram_bytes=terms[:, TERMS.index("dram")] * dram_rate,
        l2_bytes=terms[:, TERMS.index("l2")] * hw.l2_gb_s * 1e9 * held["l2_efficiency"],
        launches=np.where(choice[:, 1] > 1, 2.0, 1.0),
        tile=choice[:, 0],
        split=choice[:, 1],
        terms=terms,
        grid=_grid(rows, columns, problems, table, choice),
    )


def allowed_tiles(hw: GpuHardware, table: FloatArray, element: int, limits: TileLimits) -> FloatArray:
    """The rows of a tile library that a design can hold: float64 (tiles, 14), occupancy and stages as they are there.

    A tile's stages must fit the shared memory and its sums the registers of one SM; where either is smaller than what
    the library was written for, fewer thread blocks are resident.

    Raises
    ------
    InfeasibleError: no tile is left.
    """
    found = table.copy()
    rows, columns, depth = (found[:, _COLUMN[name]] for name in ("rows", "columns", "depth"))
    stages = np.full(len(found), float(limits.stages)) if limits.stages else found[:, _COLUMN["stages"]].copy()
    shared = (rows + columns) * depth * element * stages / 1024
    by_shared = hw.shared_kib / LIBRARY_SHARED_KIB[hw.architecture] * found[:, _COLUMN["stages"]] / stages
    share = np.minimum(1.0, np.minimum(by_shared, hw.register_kib / LIBRARY_REGISTER_KIB))
    found[:, _COLUMN["stages"]] = stages
    found[:, _COLUMN["occupancy"]] = np.maximum(1.0, np.floor(found[:, _COLUMN["occupancy"]] * share))
    fits = (shared <= hw.shared_kib) & (rows * columns * 4 / 1024 <= hw.register_kib)
    if not fits.any():
        smallest = float(shared.min())
        hint = "the smallest tile's stages must fit an SM"
        raise InfeasibleError(
            "no thread-block tile fits", (Violation("shared_kib", smallest, hw.shared_kib, "KiB", hint),)
        )
    if limits.tile:
        wanted = [f"{r:.0f}x{c:.0f}" == limits.tile for r, c in zip(rows, columns, strict=True)]
        fits &= np.array(wanted)
        if not fits.any():
            offered = sorted({f"{r:.0f}x{c:.0f}" for r, c in zip(rows, columns, strict=True)})
            hint = f"tiles of this library: {', '.join(offered)}"
            raise InfeasibleError(
                f"tile {limits.tile} is not in the library or does not fit an SM",
                (Violation("tile", 1, 0.5, "", hint),),
            )
        # the library's own rules say which problems a tile is best for; a fixed one takes all
        found[:, [_COLUMN["least_m"], _COLUMN["least_n"]]] = 0.0
        found[:, [_COLUMN["most_m"], _COLUMN["most_n"]]] = np.inf
    return np.ascontiguousarray(found[fits])


def _grid(rows, columns, problems, table: FloatArray, choice) -> FloatArray:  # type: ignore[no-untyped-def]
    chosen, split = table[choice[:, 0]], choice[:, 1]
    height, width = chosen[:, _COLUMN["rows"]], chosen[:, _COLUMN["columns"]]
    blocks = np.ceil(rows / height) * np.ceil(columns / width) * problems * split
    grid: FloatArray = np.stack(
        [height, width, chosen[:, _COLUMN["depth"]], split, chosen[:, _COLUMN["occupancy"]], blocks], axis=1
    )
    return grid


def _no_tile(shape: str, library: str, limits: TileLimits) -> InfeasibleError:
    asked = f"tile {limits.tile}" if limits.tile else "no tile"
    hint = "a library's thin tiles are for few columns only"
    return InfeasibleError(
        f"{asked} of library {library!r} is for a product of {shape}", (Violation("tile", 1, 0.5, "", hint),)
    )
