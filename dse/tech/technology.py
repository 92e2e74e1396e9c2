"""Technology: a node, a device, a supply and the prices that a user replaced; hands out every figure at that node.

Figures of the tables hold at 45 nm and its nominal supply. Another node's is the table's times the factor of its
kind (energy, delay, area), both at their nominal supplies. A replaced price is taken as it is, at the node asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from dse.core.errors import UsageError, nearest
from dse.tech.constants import Constant, Evidence, constant, plain_constants
from dse.tech.nodes import TABLE_DEVICE, TABLE_NODE_NM, Node, node

#: Figures that belong to the node itself, with their units.
NODE_FIGURES: Mapping[str, str] = {
    "minimum_vdd": "V",
    "nominal_vdd": "V",
    "maximum_vdd": "V",
    "logic_leakage": "mW/mm2",
}
#: Factors on all SRAM prices, 1 unless replaced: how a user says that his memories differ from the tables.
SRAM_FACTORS = (
    "sram_read_factor",
    "sram_write_factor",
    "sram_area_factor",
    "sram_leakage_factor",
    "sram_access_factor",
)
#: Figures of sources that were not taken, shown beside those that were.
COMPARED = (
    "multiply8_energy_horowitz", "add32_energy_horowitz", "sram_two_port_factor_cacti", "fo4_delay_osu018",
    "multiply_depth_osu018", "accumulate_depth_osu018",
)  # fmt: skip
_SUPPLIES = ("minimum_vdd", "nominal_vdd", "maximum_vdd")


@dataclass(frozen=True)
class Technology:
    """Where prices are taken.

    `vdd` in V fixes the supply; None lets every design take the lowest that reaches its clock. `overrides` are
    (name, value) pairs, sorted, in the units of the tables.
    """

    node_nm: float = TABLE_NODE_NM
    device: str = TABLE_DEVICE
    vdd: float | None = None
    overrides: tuple[tuple[str, float], ...] = ()

    def value(self, name: str) -> float:
        """The figure `name` at this node and its nominal supply, in the unit of the table.

        Raises
        ------
        UsageError: no figure has that name.
        """
        return _value(self, name)

    @property
    def node(self) -> Node:
        return node(self.node_nm, self.device)

    def factor(self, kind: str) -> float:
        """What a figure of a kind (energy, delay, area, wire, none) is at this node, against the tables' node."""
        return _factor(self.node_nm, self.device, kind)


REFERENCE = Technology()


def technology(
    node_nm: float = TABLE_NODE_NM,
    device: str = TABLE_DEVICE,
    vdd: float | None = None,
    overrides: Mapping[str, float] | Iterable[tuple[str, float]] = (),
) -> Technology:
    """A checked technology.

    Raises
    ------
    UsageError: node or supply lie outside the published range, or an override names nothing that has a price or is
    not a positive number.
    """
    place = node(node_nm, device)
    pairs = tuple(sorted(overrides.items() if isinstance(overrides, Mapping) else overrides))
    for name, figure in pairs:
        check_override(name, figure)
    if vdd is not None:
        place.delay(vdd)
    return Technology(float(node_nm), device, vdd, pairs)


def check_override(name: str, figure: float) -> None:
    """Raise UsageError when `name` is nothing that can be replaced, or `figure` is not a positive number."""
    known = overridable()
    if name not in known:
        raise UsageError(f"{name!r} is not a component price{nearest(name, known)}")
    if not (math.isfinite(figure) and figure > 0):
        raise UsageError(f"{name} must be a positive number, not {figure:g}")


def overridable() -> list[str]:
    """Names of the figures that a user may replace.

    All but the supplies, which belong to the scaling equations, and those that are only shown beside the used ones.
    """
    names = [*plain_constants(), *NODE_FIGURES, *SRAM_FACTORS]
    return sorted(name for name in names if name not in (*_SUPPLIES, *COMPARED))


def scaled_constant(tech: Technology, name: str) -> Constant:
    """A constant of the tables as it is at `tech`, with how it came there in its source."""
    record = constant(name)
    figure = tech.value(name)
    if name in dict(tech.overrides):
        return Constant(name, figure, record.unit, tech.node_nm, record.scope, "R", "replaced by the user", record.kind)
    if record.node_nm is None or name in COMPARED or (tech.node_nm, tech.device) == (record.node_nm, TABLE_DEVICE):
        return record
    if record.kind == "none":
        return Constant(name, figure, record.unit, tech.node_nm, record.scope, record.evidence, record.source, "none")
    source = f"{record.source}; {record.kind} scaled from {record.node_nm:g} nm (Stillmaker, Baas 2017)"
    # a figure is at most as good as the factor it was scaled with
    evidence: Evidence = "M" if record.evidence == "M" else "S"
    return Constant(name, figure, record.unit, tech.node_nm, record.scope, evidence, source, record.kind)


@lru_cache(maxsize=65536)
def _value(tech: Technology, name: str) -> float:
    replaced = dict(tech.overrides)
    if name in replaced:
        return replaced[name]
    if name in NODE_FIGURES:
        return float(getattr(tech.node, name))
    if name in SRAM_FACTORS:
        return 1.0
    record = constant(name)
    return record.value * (1.0 if record.node_nm is None else tech.factor(record.kind))


@lru_cache(maxsize=4096)
def _factor(node_nm: float, device: str, kind: str) -> float:
    here, table = node(node_nm, device), node(TABLE_NODE_NM, TABLE_DEVICE)
    if kind == "none" or here == table:
        return 1.0
    if kind == "energy":
        return here.energy(here.nominal_vdd) / table.energy(table.nominal_vdd)
    if kind == "delay":
        return here.delay(here.nominal_vdd) / table.delay(table.nominal_vdd)
    if kind == "area":
        return here.area / table.area
    if kind == "wire":
        # the capacitance of a millimetre stays, the swing does not
        return (here.nominal_vdd / table.nominal_vdd) ** 2
    raise UsageError(f"{kind!r} is not a kind of figure; (area, delay, energy, none, wire)")
