"""Process nodes from 180 to 7 nm: what delay, energy and area become, against each other and against the supply.

The published equations give every node a polynomial of delay and of energy in Vdd and one relative area
(`data/nodes.csv`). A node between two published ones (28, 22, 40 nm) is read off straight lines in logarithms. Nothing
is said beyond 7 and 180 nm, nor outside a node's range of supplies.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Literal

from dse.core.errors import UsageError, nearest

Device = Literal["HP", "LP"]
DEVICES: tuple[Device, ...] = ("HP", "LP")
#: Node, device and supply at which the tables of `dse.tech` hold.
TABLE_NODE_NM, TABLE_DEVICE = 45.0, "HP"


@dataclass(frozen=True)
class NodeRow:
    """One published node: polynomials in Vdd (highest power first, relative), relative area, supplies in V.

    `logic_leakage` in mW/mm2 of placed logic at the nominal supply.
    """

    node_nm: float
    device: str
    delay: tuple[float, ...]
    energy: tuple[float, ...]
    area: float
    minimum_vdd: float
    nominal_vdd: float
    maximum_vdd: float
    logic_leakage: float


@dataclass(frozen=True)
class Node:
    """A node and device: one published row, or a blend of two neighbours (`share` of `above`, in logarithms).

    Supplies in V; `logic_leakage` in mW/mm2 at the nominal one.
    """

    node_nm: float
    device: str
    below: NodeRow
    above: NodeRow
    share: float

    @property
    def minimum_vdd(self) -> float:
        return max(self.below.minimum_vdd, self.above.minimum_vdd)

    @property
    def maximum_vdd(self) -> float:
        return min(self.below.maximum_vdd, self.above.maximum_vdd)

    @property
    def nominal_vdd(self) -> float:
        low, high = self.below.nominal_vdd, self.above.nominal_vdd
        return min(self.maximum_vdd, low + self.share * (high - low))

    @property
    def logic_leakage(self) -> float:
        return _blend(self.below.logic_leakage, self.above.logic_leakage, self.share)

    @property
    def area(self) -> float:
        """Area of the same logic, relative to 180 nm."""
        return _blend(self.below.area, self.above.area, self.share)

    def delay(self, vdd: float) -> float:
        """Gate delay in relative units.

        Raises
        ------
        UsageError: `vdd` lies outside the node's range.
        """
        self._check(vdd)
        return _blend(_polynomial(self.below.delay, vdd), _polynomial(self.above.delay, vdd), self.share)

    def energy(self, vdd: float) -> float:
        """Switching energy in relative units; error as `delay`."""
        self._check(vdd)
        return _blend(_polynomial(self.below.energy, vdd), _polynomial(self.above.energy, vdd), self.share)

    def _check(self, vdd: float) -> None:
        low, high = self.minimum_vdd, self.maximum_vdd
        if not low - 1e-12 <= vdd <= high + 1e-12:
            raise UsageError(
                f"vdd: {vdd:g} V lies outside {low:g} to {high:g} V, the range in which the scaling equations hold at "
                f"{self.node_nm:g} nm {self.device}; nearest is {min(max(vdd, low), high):g} V"
            )


@lru_cache(maxsize=1024)
def node(node_nm: float, device: str = TABLE_DEVICE) -> Node:
    """The node of `node_nm` nanometres.

    Raises
    ------
    UsageError: the node lies outside 7 to 180 nm, or there is no such device.
    """
    if device not in DEVICES:
        raise UsageError(f"device: {device!r} is not a device{nearest(device, DEVICES)}")
    rows = [row for row in node_rows() if row.device == device]
    if not rows[0].node_nm <= node_nm <= rows[-1].node_nm:
        close = min((row.node_nm for row in rows), key=lambda known: abs(known - node_nm))
        raise UsageError(
            f"node_nm: {node_nm:g} nm lies outside {rows[0].node_nm:g} to {rows[-1].node_nm:g} nm, for which scaling "
            f"factors are published; nearest is {close:g} nm"
        )
    above = next(row for row in rows if row.node_nm >= node_nm)
    below = next(row for row in reversed(rows) if row.node_nm <= node_nm)
    span = math.log(above.node_nm / below.node_nm)
    return Node(node_nm, device, below, above, math.log(node_nm / below.node_nm) / span if span else 0.0)


@cache
def node_rows() -> tuple[NodeRow, ...]:
    """The published nodes, ascending; from 65 nm up both devices are the same."""
    text = (resources.files("dse.tech") / "data" / "nodes.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    found = [
        NodeRow(
            float(row["node_nm"]),
            row["device"],
            tuple(float(row[key]) for key in ("d3", "d2", "d1", "d0")),
            tuple(float(row[key]) for key in ("e2", "e1", "e0")),
            float(row["area"]),
            float(row["minimum_vdd"]),
            float(row["nominal_vdd"]),
            float(row["maximum_vdd"]),
            float(row["logic_leakage"]),
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda row: row.node_nm))


def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    result = 0.0
    for coefficient in coefficients:
        result = result * x + coefficient
    return result


def _blend(low: float, high: float, share: float) -> float:
    return low if share == 0 else math.exp((1 - share) * math.log(low) + share * math.log(high))
