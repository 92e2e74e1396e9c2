"""Suite `scalesim`: our SCALE-Sim formulas against its recorded compute-mode results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from dse.core.errors import UsageError
from dse.peers.scalesim import Dataflow, compute_mode
from dse.validate.reference import read_rows
from dse.validate.suite import Comparison, Row, Suite

SOURCE = "SCALE-Sim 3.0.0, compute mode: cycles, utilizations, scratchpad accesses"

_COUNTS = {
    "folds": "folds",
    "fold_cycles": "fold_cycles",
    "total_cycles_reported": "total_cycles",
    "ifmap_sram_reads": "ifmap_sram_reads",
    "filter_sram_reads": "filter_sram_reads",
    "ofmap_sram_writes": "ofmap_sram_writes",
}
_PERCENTAGES = {
    "overall_util_pct": "overall_utilization_pct",
    "mapping_eff_pct": "mapping_efficiency_pct",
    "compute_util_pct": "compute_utilization_pct",
}
#: Percentages are recorded with six decimals, trailing zeros dropped; the rest is for the last bit of a float.
_PERCENTAGE_RESOLUTION = 0.5e-6 + 1e-11
_INPUTS = ("M", "K", "N", "rows", "cols")


def scalesim_suite(path: Path) -> Suite:
    """The suite on a reference file; its DRAM columns lie outside what is modelled.

    Raises
    ------
    UsageError: the file cannot be read or lacks a column.
    """
    rows = read_rows(path, (*_INPUTS, "dataflow", *_COUNTS, *_PERCENTAGES))
    return Suite("scalesim", SOURCE, rows, _compare, _label)


def _compare(row: Row) -> Sequence[Comparison]:
    m, k, n, array_rows, columns = (_count(row, name) for name in _INPUTS)
    result = compute_mode(m, k, n, array_rows, columns, cast(Dataflow, row["dataflow"]))
    comparisons = [Comparison(name, getattr(result, ours), _count(row, name)) for name, ours in _COUNTS.items()]
    comparisons += [
        Comparison(name, getattr(result, ours), _number(row, name), _PERCENTAGE_RESOLUTION)
        for name, ours in _PERCENTAGES.items()
    ]
    return comparisons


def _count(row: Row, name: str) -> int:
    number = _number(row, name)
    if number != int(number):
        raise UsageError(f"{_label(row)}: {name} must be a whole number, not {row[name]!r}")
    return int(number)


def _number(row: Row, name: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise UsageError(f"{_label(row)}: {name} must be a number, not {row[name]!r}") from error


def _label(row: Row) -> str:
    layer = f"{row.get('net', '')} {row.get('layer', '')}".strip()
    return f"{layer} {row['dataflow']} {row['rows']}x{row['cols']}".strip()
