"""Every figure of the cost models at a node as a list of records: what `dse show tech` prints."""

from __future__ import annotations

from dse.tech.constants import Constant, pe_constants, plain_constants
from dse.tech.logic import mac_clock_mhz
from dse.tech.nodes import Node, NodeRow, node_rows
from dse.tech.sram_table import macro_constants, macro_tables
from dse.tech.technology import NODE_FIGURES, REFERENCE, Technology, scaled_constant

_SCALING = "Stillmaker, Baas, Integration 58 (2017), as carried in nodeScale (MIT)"
_SUPPLIES = "predictive technology models that the equations were fitted to; limits where delay falls with the supply"


def table(tech: Technology = REFERENCE) -> list[Constant]:
    """All figures at `tech`, tables of measured rows included, one record each.

    SRAM runs are those of the node, or of the two of CACTI around it.
    """
    place = tech.node
    records = [scaled_constant(tech, name) for name in plain_constants()]
    records += [_node_record(tech, name, unit) for name, unit in NODE_FIGURES.items()]
    records += [_factor_record(tech, kind) for kind in ("delay", "energy", "area")]
    records += [_clock_record(tech, stages) for stages in (1, 2, 3, 4)]
    records += pe_constants()
    nodes = list(macro_tables())
    inside = min(max(tech.node_nm, nodes[0]), nodes[-1])
    around = {max(n for n in nodes if n <= inside), min(n for n in nodes if n >= inside)}
    for node_nm in sorted(around):
        records += macro_constants(node_nm)
    for row in {id(row): row for row in (place.below, place.above)}.values():
        records += _polynomials(row)
    return records


def published_nodes() -> list[float]:
    """Nodes with published factors, ascending; those between are interpolated."""
    return sorted({row.node_nm for row in node_rows()})


def _node_record(tech: Technology, name: str, unit: str) -> Constant:
    if name in dict(tech.overrides):
        return Constant(name, tech.value(name), unit, tech.node_nm, tech.device, "R", "replaced by the user")
    source = "general purpose 20-60 mW/mm2 at 45 nm and 85 C, the middle; low power tens of times less"
    if name != "logic_leakage":
        source = _SUPPLIES
    return Constant(
        name, tech.value(name), unit, tech.node_nm, f"{tech.device} devices{_between(tech.node)}", "M", source
    )


def _factor_record(tech: Technology, kind: str) -> Constant:
    scope = f"{kind} at {tech.node.nominal_vdd:g} V against 45 nm HP at 0.9 V{_between(tech.node)}"
    return Constant(f"{kind}_factor", tech.factor(kind), "ratio", tech.node_nm, scope, "S", _SCALING)


def _clock_record(tech: Technology, stages: int) -> Constant:
    scope = f"int8 multiply-accumulate in {stages} pipeline stage{'s' if stages > 1 else ''} at nominal supply"
    source = "multiply_add_depth / stages + register_depth, times fo4_delay and logic_margin"
    return Constant("mac_clock", mac_clock_mhz(stages, tech), "MHz", tech.node_nm, scope, "M", source)


def _between(place: Node) -> str:
    if place.below.node_nm == place.above.node_nm:
        return ""
    return f", between {place.below.node_nm:g} and {place.above.node_nm:g} nm"


def _polynomials(row: NodeRow) -> list[Constant]:
    terms = [("delay", power, c) for power, c in zip((3, 2, 1, 0), row.delay, strict=True)]
    terms += [("energy", power, c) for power, c in zip((2, 1, 0), row.energy, strict=True)]
    return [
        Constant(
            f"{kind}_per_vdd{power}", c, f"relative/V^{power}", row.node_nm, f"{kind} polynomial, {row.device}", "S",
            _SCALING,
        )
        for kind, power, c in terms
    ]  # fmt: skip
