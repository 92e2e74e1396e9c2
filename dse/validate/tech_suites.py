"""Suites of the technology tables: SRAM against CACTI, processing elements against synthesis, chips as information."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dse.tech import element_gates, logic_area_um2, sram, technology
from dse.tech.sram_table import QUANTITIES, macro_tables
from dse.validate.reference import read_rows, shipped
from dse.validate.suite import Comparison, Row, Suite

#: Relative errors that the project demands of its tables.
SRAM_BOUND, ELEMENT_BOUND = 0.08, 0.10
_COMPARED = ("read_pj", "write_pj", "area_um2", "access_ns")


def sram_suite() -> Suite:
    """Every capacity of the CACTI runs left out in turn and interpolated from its neighbours."""
    tables = macro_tables()
    rows = [
        _place(table.node_nm, c, w) for table in tables.values() for c in table.capacities[1:-1] for w in table.widths
    ]
    first = next(iter(tables.values()))
    low, high = first.capacities[[0, -1]] / 1024
    notes = (
        f"left out of the count, since nothing lies beyond them: {low:g} KiB and {high:g} KiB at every width and node",
        "CACTI jumps between organisations, by up to 74 % in read energy between neighbours; no line follows",
    )
    return Suite("sram", "CACTI 7, each capacity left out and interpolated", rows, _left_out, _macro_label, notes)


def sram_prices_suite() -> Suite:
    """What the prices, which never fall with capacity or width, lose against the runs they are made from."""
    rows = [_place(t.node_nm, c, w) for t in macro_tables().values() for c in t.capacities for w in t.widths if w <= 64]
    notes = ("words up to 64 bits: wider ones are sliced by the model and have no run of their own",)
    return Suite("sram_prices", "CACTI 7 against dse.tech.sram", rows, _priced, _macro_label, notes)


def area_suite() -> Suite:
    """Gates of processing elements against synthesis in four libraries."""
    rows = read_rows(shipped("pe_area.csv"), ("library", "module", "nand2_equivalents", "flip_flops"))
    kept = [row for row in rows if _bits(row) is not None]
    left = [_module_label(row) for row in rows if _bits(row) is None]
    notes = (f"not of the modelled structure (no product register, Booth multiplier): {', '.join(left)}",)
    return Suite("area", "synthesis of the prototype's elements", kept, _element, _module_label, notes)


def chips_suite() -> Suite:
    """Published areas that our parts can be held against: shown, not demanded."""
    notes = (
        "NVDLA: multipliers and convolution buffer alone, so below the whole by what else it has",
        "TPU v1: shares of a die of at most 331 mm2",
    )
    columns = ("chip", "part", "node_nm", "area_mm2", "macs", "memory_bytes", "word_bits")
    return Suite("chips", "published areas", read_rows(shipped("chip_areas.csv"), columns), _chip, _chip_label, notes)


def _place(node_nm: float, capacity: float, width: float) -> Row:
    return {"node_nm": f"{node_nm:g}", "capacity": f"{capacity:.9g}", "width": f"{width:g}"}


def _macro_label(row: Row) -> str:
    return f"{row['node_nm']} nm {float(row['capacity']) / 1024:g} KiB x {row['width']} bit"


def _recorded(row: Row) -> dict[str, float]:
    table = macro_tables()[float(row["node_nm"])]
    i = int(np.searchsorted(table.capacities, float(row["capacity"])))
    j = int(np.searchsorted(table.widths, float(row["width"])))
    return dict(zip(QUANTITIES, map(float, table.figures[i, j]), strict=True))


def _left_out(row: Row) -> Sequence[Comparison]:
    capacity, width = float(row["capacity"]), float(row["width"])
    table = macro_tables()[float(row["node_nm"])].without(capacity)
    found = dict(zip(QUANTITIES, table.macros(np.array([capacity]), np.array([width]))[0], strict=True))
    recorded = _recorded(row)
    return [Comparison(name, float(found[name]), recorded[name], bound=SRAM_BOUND) for name in _COMPARED]


def _priced(row: Row) -> Sequence[Comparison]:
    cost = sram(float(row["capacity"]), int(row["width"]), tech=technology(float(row["node_nm"])))
    recorded = _recorded(row)
    return [Comparison(name, getattr(cost, name), recorded[name]) for name in _COMPARED]


def _bits(row: Row) -> int | None:
    """Operand bits of a module of the modelled structure."""
    parts = re.fullmatch(r"pe_(?:ws|os)_i(\d+)_a\d+", row["module"])
    return int(parts[1]) if parts and not row.get("note") else None


def _module_label(row: Row) -> str:
    return f"{row['library']} {row['module']}" + (f" ({row['note']})" if row.get("note") else "")


def _element(row: Row) -> Sequence[Comparison]:
    bits = _bits(row)
    assert bits is not None
    gates = element_gates(bits * bits, float(row["flip_flops"]))
    return [Comparison("gates", gates, float(row["nand2_equivalents"]), bound=ELEMENT_BOUND)]


#: Flip-flops of an int8 element of a chip whose structure is not published: operands, product and a 32-bit sum.
_CHIP_ELEMENT_FLIP_FLOPS = 73


def _chip(row: Row) -> Sequence[Comparison]:
    tech = technology(float(row["node_nm"]))
    macs, held = float(row["macs"]), float(row["memory_bytes"])
    area = macs * logic_area_um2(element_gates(64, _CHIP_ELEMENT_FLIP_FLOPS), tech)
    if held:
        area += sram(held, int(row["word_bits"]), tech=tech).area_um2
    return [Comparison("area mm2", area * 1e-6, float(row["area_mm2"]))]


def _chip_label(row: Row) -> str:
    return f"{row['chip']} {row['part']} {row['node_nm']} nm"
