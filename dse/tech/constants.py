"""The constants behind every price: value, unit, node, scope, evidence and source, read from package data.

All figures that the cost models use stand in `data/`; code holds rules, not figures. `table()` is what
`dse show tech` prints.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from dse.core.errors import UsageError, nearest

Evidence = Literal["R", "S", "M"]


@dataclass(frozen=True)
class Constant:
    """One figure.

    `node_nm` None: does not follow the logic node. `evidence`: R read at `source`, S second-hand, M from memory.
    """

    name: str
    value: float
    unit: str
    node_nm: float | None
    scope: str
    evidence: Evidence
    source: str


@dataclass(frozen=True)
class SramRow:
    """One CACTI run at 45 nm; `access_ns` and `leakage_mw` are None where the run did not report them."""

    capacity_kib: float
    word_bits: int
    read_pj: float
    write_pj: float
    access_ns: float | None
    area_mm2: float
    leakage_mw: float | None


@dataclass(frozen=True)
class PeRow:
    """One synthesised processing element at 45 nm; `gates` in NAND2 equivalents."""

    dataflow: str
    activation_bits: int
    weight_bits: int
    accumulator_bits: int
    area_um2: float
    gates: float
    flip_flops: int


@dataclass(frozen=True)
class VoltageFit:
    """Polynomials in Vdd, highest power first: delay in relative units, energy in relative units."""

    device: str
    delay: tuple[float, float, float, float]
    energy: tuple[float, float, float]


def value(name: str) -> float:
    """The value of a constant, in its unit.

    Raises
    ------
    UsageError: no constant has that name.
    """
    return constant(name).value


def constant(name: str) -> Constant:
    """A constant by name.

    Raises
    ------
    UsageError: no constant has that name.
    """
    known = _constants()
    if name not in known:
        raise UsageError(f"{name!r} is not a technology constant{nearest(name, known)}")
    return known[name]


def table() -> list[Constant]:
    """All figures of the cost models, the tables of measured rows included, one record each."""
    return [*_constants().values(), *_sram_constants(), *_pe_constants(), *_voltage_constants()]


@cache
def sram_rows() -> tuple[SramRow, ...]:
    """The CACTI runs that SRAM prices are interpolated from."""
    return tuple(
        SramRow(
            float(row["capacity_kib"]),
            int(row["word_bits"]),
            float(row["read_pj"]),
            float(row["write_pj"]),
            float(row["access_ns"]) if row["access_ns"] else None,
            float(row["area_mm2"]),
            float(row["leakage_mw"]) if row["leakage_mw"] else None,
        )
        for row in _csv("sram_45nm.csv")[1]
    )


@cache
def pe_rows() -> tuple[PeRow, ...]:
    """The synthesis runs that the area of a processing element is fitted to."""
    return tuple(
        PeRow(
            row["dataflow"],
            int(row["activation_bits"]),
            int(row["weight_bits"]),
            int(row["accumulator_bits"]),
            float(row["area_um2"]),
            float(row["nand2_equivalents"]),
            int(row["flip_flops"]),
        )
        for row in _csv("pe_gates_45nm.csv")[1]
    )


@cache
def voltage_fit() -> VoltageFit:
    """Delay and energy of 45 nm logic against the supply."""
    row = _csv("voltage_45nm.csv")[1][0]
    d3, d2, d1, d0, e2, e1, e0 = (float(row[key]) for key in ("d3", "d2", "d1", "d0", "e2", "e1", "e0"))
    return VoltageFit(row["device"], (d3, d2, d1, d0), (e2, e1, e0))


@cache
def _constants() -> dict[str, Constant]:
    records = [Constant(**entry) for entry in yaml.safe_load(_text("constants.yaml"))]
    return {record.name: record for record in records}


def _text(name: str) -> str:
    return (resources.files("dse.tech") / "data" / name).read_text(encoding="utf-8")


@cache
def _csv(name: str) -> tuple[str, list[dict[str, str]]]:
    """The source line at the head of a CSV file and its rows."""
    lines = _text(name).splitlines()
    source = lines[0].removeprefix("# ")
    return source, list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _sram_constants() -> list[Constant]:
    source = _csv("sram_45nm.csv")[0]
    return [
        Constant(f"sram_{quantity}", figure, unit, 45, f"{row.capacity_kib:g} KiB x {row.word_bits} bit", "R", source)
        for row in sram_rows()
        for quantity, figure, unit in (
            ("read_energy", row.read_pj, "pJ"),
            ("write_energy", row.write_pj, "pJ"),
            ("access_time", row.access_ns, "ns"),
            ("area", row.area_mm2, "mm2"),
            ("leakage", row.leakage_mw, "mW"),
        )
        if figure is not None
    ]


def _pe_constants() -> list[Constant]:
    source = _csv("pe_gates_45nm.csv")[0]
    return [
        Constant(
            "pe_gates",
            row.gates,
            "GE",
            45,
            f"{row.dataflow}, {row.activation_bits} x {row.weight_bits} bit, {row.accumulator_bits}-bit accumulator, "
            f"{row.flip_flops} flip-flops",
            "R",
            source,
        )
        for row in pe_rows()
    ]


def _voltage_constants() -> list[Constant]:
    source = _csv("voltage_45nm.csv")[0]
    fit = voltage_fit()
    terms = [("delay", power, c) for power, c in zip((3, 2, 1, 0), fit.delay, strict=True)]
    terms += [("energy", power, c) for power, c in zip((2, 1, 0), fit.energy, strict=True)]
    return [
        Constant(
            f"{kind}_per_vdd{power}", c, f"relative/V^{power}", 45, f"{kind} polynomial, {fit.device}", "S", source
        )
        for kind, power, c in terms
    ]
