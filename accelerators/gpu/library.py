"""Which thread-block tiles a kernel library offers, read from `data/tiles.csv`.

A library is a list of tiles with the problems each is used for (bounds on m and n) and the least reduction length
that split-K leaves to a part. Real libraries choose by heuristics; ours takes the fastest tile that applies.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import numpy as np

from accelerators.gpu.gemm_kernel import TILE_COLUMNS, FloatArray
from accelerators.gpu.hardware import DTYPES, GpuHardware
from dse.core.errors import UsageError, nearest

#: Library by architecture for matrix units; without them, and for fp32, `simt`.
_MATRIX = {"volta": "mma", "turing": "mma", "ampere": "mma_async", "ada": "mma_async", "hopper": "wgmma",
           "blackwell": "wgmma", "cdna": "mma"}  # fmt: skip
#: Tiles narrower than this many columns are the library's kernels for thin problems.
NARROW_COLUMNS = 16
#: Up to this many columns a matrix-vector kernel applies, which only streams the matrix.
VECTOR_COLUMNS = 4


def library_name(hw: GpuHardware, dtype: str, *, batched: bool = False) -> str:
    """The tile library that a GPU uses for a type.

    Raises
    ------
    UsageError: the preset names a library that is not there.
    """
    if hw.library and hw.library not in libraries():
        raise UsageError(f"{hw.library!r} is not a tile library{nearest(hw.library, libraries())}")
    matrix = hw.tensor_cores and DTYPES[dtype][2] != "fp32"
    if matrix:
        return _MATRIX.get(hw.architecture, "simt")
    if hw.library and dtype == "fp32":
        return hw.library
    if hw.architecture in ("pascal", "maxwell"):
        return "simt_pascal"
    return "simt_batched_ampere" if batched and hw.architecture in ("ampere", "ada", "hopper") else "simt"


@cache
def libraries() -> dict[str, FloatArray]:
    """Tiles of every library: float64 (tiles, 14), columns as in `TILE_COLUMNS`."""
    text = (resources.files("accelerators.gpu") / "data" / "tiles.csv").read_text(encoding="utf-8")
    rows: dict[str, list[list[float]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        values = [float(row[name] or _DEFAULTS[name]) for name in TILE_COLUMNS if name not in ("split_depth", "rate")]
        split = float(row["split_depth"]) if row["split_depth"] else 2 * float(row["depth"])
        rows.setdefault(row["library"], []).append([*values, split, 1.0])
    return {name: np.array(values) for name, values in rows.items()}


_DEFAULTS = {"least_m": 0.0, "most_m": np.inf, "least_n": 0.0, "most_n": np.inf}


def tiles(name: str, element_bytes: int, narrow_rate: float) -> FloatArray:
    """The tiles of a library for operands of a width: depth is in bytes of fp16 in the matrix libraries."""
    table = libraries()[name].copy()
    if name.startswith(("mma", "wgmma")) and element_bytes == 1:
        table[:, TILE_COLUMNS.index("depth")] *= 2
        table[:, TILE_COLUMNS.index("split_depth")] *= 2
    if name == "simt_pascal":
        narrow = (table[:, 1] <= NARROW_COLUMNS) & (table[:, 1] > VECTOR_COLUMNS)
        table[narrow, TILE_COLUMNS.index("rate")] = narrow_rate
    return table
