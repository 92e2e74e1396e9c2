"""SRAM macros as CACTI sees them: one read/write port, 1 KiB to 2 MiB, words of 16 to 256 bits, 22 to 90 nm.

Between the runs prices follow straight lines in logarithms over capacity, width and node. What a macro costs outside
the table is not answered here; `dse.tech.sram` builds it from macros inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from dse.tech.constants import Constant, csv_rows

Floats = npt.NDArray[np.float64]

#: Figures of a macro, in the order of the last axis of every table: pJ, pJ, ns, um2, mW.
QUANTITIES = ("read_pj", "write_pj", "access_ns", "area_um2", "leakage_mw")
_UNITS = ("pJ", "pJ", "ns", "um2", "mW")


@dataclass(frozen=True, eq=False)
class MacroTable:
    """Runs at one node: `figures[i, j, k]` is quantity k at capacity i (bytes) and width j (bits), ascending."""

    node_nm: float
    capacities: Floats
    widths: Floats
    figures: Floats

    def macros(self, capacity_bytes: Floats, word_bits: Floats) -> Floats:
        """Figures of macros, shape (n, quantities), for arrays of n capacities and widths.

        Raises
        ------
        ValueError: a capacity or width lies outside the table.
        """
        return np.exp(
            bilinear(np.log(self.figures), np.log(self.capacities), np.log(self.widths), capacity_bytes, word_bits)
        )

    def without(self, capacity_bytes: float) -> MacroTable:
        """The table as it would be had no macro of that capacity been run."""
        kept = self.capacities != capacity_bytes
        return MacroTable(self.node_nm, self.capacities[kept], self.widths, self.figures[kept])


def bilinear(table: Floats, log_rows: Floats, log_columns: Floats, row: Floats, column: Floats) -> Floats:
    """Straight lines over the first two axes of `table` at the logarithms of `row` and `column`, shape (n, quantities).

    Raises
    ------
    ValueError: a point lies outside the table.
    """
    i, s = _place(log_rows, np.log(row))
    j, t = _place(log_columns, np.log(column))
    s, t = s[:, None], t[:, None]
    low = table[i, j] * (1 - t) + table[i, j + 1] * t
    high = table[i + 1, j] * (1 - t) + table[i + 1, j + 1] * t
    result: Floats = low * (1 - s) + high * s
    return result


def _place(axis: Floats, at: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    if np.any(at < axis[0] - 1e-9) or np.any(at > axis[-1] + 1e-9):
        low, high = np.exp(axis[[0, -1]])
        worst = float(np.exp(at[np.argmax(np.abs(at - axis.mean()))]))
        raise ValueError(f"{worst:g} lies outside the measured range {low:g} to {high:g}")
    left = np.clip(np.searchsorted(axis, at, side="right") - 1, 0, len(axis) - 2)
    return left, np.clip((at - axis[left]) / (axis[left + 1] - axis[left]), 0.0, 1.0)


@cache
def macro_tables() -> dict[float, MacroTable]:
    """The tables by node in nm, ascending."""
    rows = csv_rows("sram_cacti.csv")[1]
    tables = {}
    for node_nm in sorted({float(row["node_nm"]) for row in rows}):
        here = [row for row in rows if float(row["node_nm"]) == node_nm]
        capacities = sorted({float(row["capacity_bytes"]) for row in here})
        widths = sorted({float(row["word_bits"]) for row in here})
        figures = np.full((len(capacities), len(widths), len(QUANTITIES)), np.nan)
        for row in here:
            place = capacities.index(float(row["capacity_bytes"])), widths.index(float(row["word_bits"]))
            figures[place] = [float(row[name]) for name in QUANTITIES]
        tables[node_nm] = MacroTable(node_nm, np.array(capacities), np.array(widths), figures)
    return tables


def macro_constants(node_nm: float | None = None) -> list[Constant]:
    """The runs, one record each figure; of one node when given."""
    source = csv_rows("sram_cacti.csv")[0]
    return [
        Constant(
            f"sram_{name}", float(figure), unit, table.node_nm, f"{capacity / 1024:g} KiB x {width:g} bit", "R", source
        )
        for table in macro_tables().values()
        if node_nm is None or table.node_nm == node_nm
        for capacity, plane in zip(table.capacities, table.figures, strict=True)
        for width, line in zip(table.widths, plane, strict=True)
        for name, unit, figure in zip(QUANTITIES, _UNITS, line, strict=True)
    ]
