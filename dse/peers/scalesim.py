"""SCALE-Sim v3 in compute mode (InterfaceBandwidth: CALC): cycles, utilizations and scratchpad accesses.

The tool's own conventions, its slips included, so that results compare with its reports. A layer is a matrix
product of an (M x K) ifmap and a (K x N) filter matrix on an array of R rows and C columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from dse.core.errors import UsageError, nearest

Dataflow = Literal["os", "ws", "is"]


@dataclass(frozen=True)
class ScaleSimResult:
    """What SCALE-Sim reports for a layer.

    `total_cycles` is the number of the last cycle, counted from 0: one less than the cycles taken. Utilizations
    are in percent. Accesses count operands; partial sums that are read back are not counted.
    """

    folds: int
    fold_cycles: int
    total_cycles: int
    overall_utilization_pct: float
    mapping_efficiency_pct: float
    compute_utilization_pct: float
    ifmap_sram_reads: int
    filter_sram_reads: int
    ofmap_sram_writes: int


def compute_mode(m: int, k: int, n: int, rows: int, columns: int, dataflow: Dataflow) -> ScaleSimResult:
    """A layer in SCALE-Sim's compute mode.

    Parameters
    ----------
    m, k, n
        Output pixels, window size, filters; > 0.
    rows, columns
        The array; > 0.
    dataflow
        "os" output, "ws" weight, "is" input stationary.

    Raises
    ------
    UsageError: a size is not positive, or no such dataflow.

    Source: SCALE-Sim 3.0.0, equal to its reports (tests/conformance/test_scalesim.py).
    """
    for name, size in (("M", m), ("K", k), ("N", n), ("rows", rows), ("columns", columns)):
        if size < 1:
            raise UsageError(f"{name} = {size} must be at least 1")
    if dataflow not in get_args(Dataflow):
        raise UsageError(f"{dataflow!r} is not a dataflow of SCALE-Sim{nearest(dataflow, get_args(Dataflow))}")
    # sizes along rows, along columns, and streamed over time
    along_rows, along_columns, time = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    row_folds, column_folds = -(-along_rows // rows), -(-along_columns // columns)
    folds = row_folds * column_folds
    # ws and is first load the stationary operand, a row per cycle; nothing overlaps and edge folds take as long
    preload = 0 if dataflow == "os" else rows
    fold_cycles = preload + rows + columns + time - 2
    total = folds * fold_cycles - 1
    mapping = along_rows * along_columns / (folds * rows * columns)
    # the tool counts one skew too many when something is preloaded
    streaming = rows + columns + time - 2 if dataflow == "os" else 2 * rows + 2 * columns + time - 3
    ifmap_reads = m * k if dataflow == "is" else column_folds * m * k
    filter_reads = {"os": row_folds, "ws": 1, "is": column_folds}[dataflow] * k * n
    if dataflow == "os":
        # the tool adds the shape of the write buffer's demand matrix to every fold
        ofmap_writes = m * n + folds * (rows + columns)
    else:
        ofmap_writes = row_folds * m * n
    return ScaleSimResult(
        folds=folds,
        fold_cycles=fold_cycles,
        total_cycles=total,
        # a single MAC on a single PE ends in cycle 0
        overall_utilization_pct=100 * m * k * n / (total * rows * columns) if total else float("inf"),
        mapping_efficiency_pct=100 * mapping,
        compute_utilization_pct=100 * mapping * time / streaming,
        ifmap_sram_reads=ifmap_reads,
        filter_sram_reads=filter_reads,
        ofmap_sram_writes=ofmap_writes,
    )
