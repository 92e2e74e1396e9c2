"""The constants behind every price: value, unit, node, scope, evidence and source, read from package data.

All figures that the cost models use stand in `data/`; code holds rules, not figures.
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

    `node_nm` None: does not follow the logic node. `evidence`: R read at `source` or measured, S second-hand, M from
    memory. `kind` says how the figure goes to another node: "energy", "delay", "area", "wire", or "none" (it stays).
    """

    name: str
    value: float
    unit: str
    node_nm: float | None
    scope: str
    evidence: Evidence
    source: str
    kind: str = "none"


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


def plain_constants() -> list[str]:
    """Names of the single figures, without the tables of measured rows."""
    return list(_constants())


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
        for row in csv_rows("pe_gates_45nm.csv")[1]
    )


@cache
def _constants() -> dict[str, Constant]:
    records = [Constant(**entry) for entry in yaml.safe_load(_text("constants.yaml"))]
    return {record.name: record for record in records}


def _text(name: str) -> str:
    return (resources.files("dse.tech") / "data" / name).read_text(encoding="utf-8")


@cache
def csv_rows(name: str) -> tuple[str, list[dict[str, str]]]:
    """The source line at the head of a CSV file and its rows."""
    lines = _text(name).splitlines()
    source = lines[0].removeprefix("# ")
    return source, list(csv.DictReader(line for line in lines if not line.startswith("#")))


def pe_constants() -> list[Constant]:
    """The synthesised processing elements, one record each."""
    source = csv_rows("pe_gates_45nm.csv")[0]
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
