"""Every figure of the cost models carries its unit, scope, evidence and source, at every node, and is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dse.tech
from dse.core.errors import UsageError
from dse.tech import COMMAND_STANDARDS, STANDARDS, constant, overridable, table, technology, value
from dse.tech.constants import pe_rows, plain_constants
from dse.tech.sram_table import macro_tables
from dse.tech.technology import COMPARED, NODE_FIGURES, SRAM_FACTORS

NODES = (7, 22, 28, 45, 65, 180)


@pytest.mark.parametrize("node_nm", NODES)
@pytest.mark.parametrize("device", ["HP", "LP"])
def test_every_figure_says_unit_scope_evidence_and_source(node_nm: float, device: str) -> None:
    for record in table(technology(node_nm, device)):
        assert record.name, record
        assert record.unit, record
        assert len(record.scope) > 3, record
        assert len(record.source) > 3, record
        assert record.evidence in ("R", "S", "M"), record


@pytest.mark.parametrize("node_nm", NODES)
def test_names_with_scopes_and_nodes_are_unique(node_nm: float) -> None:
    keys = [(record.name, record.scope, record.node_nm) for record in table(technology(node_nm))]
    assert len(set(keys)) == len(keys)


def test_a_scaled_figure_is_no_better_evidence_than_its_factor_and_says_where_it_comes_from() -> None:
    at_45 = {record.name: record for record in table()}
    for record in table(technology(28)):
        if record.kind in ("energy", "delay", "area", "wire") and record.name in set(at_45) - set(COMPARED):
            assert record.evidence != "R", record
            assert "scaled from 45 nm" in record.source, record
            assert record.node_nm == 28


def test_every_constant_that_code_asks_for_exists_and_every_plain_constant_is_used() -> None:
    package = Path(dse.tech.__file__).parent
    rooms = [*package.glob("*.py"), package.parent / "mapping" / "energy.py"]
    rooms += (package.parents[1] / "accelerators").rglob("*.py")
    rooms += (package.parent / "validate").glob("*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in rooms)
    asked = set(re.findall(r'value\("(\w+)"\)', text)) - set(NODE_FIGURES)
    asked |= {f"{standard}_{kind}" for standard in STANDARDS for kind in ("energy", "phy_area", "phy_power")}
    asked |= {f"{standard}_{kind}_energy" for standard in COMMAND_STANDARDS for kind in ("burst", "activate")}
    for name in asked:
        assert constant(name).name == name
    assert set(plain_constants()) - asked == set(COMPARED)


def test_table_shows_every_measured_row() -> None:
    records = table()
    here = macro_tables()[45.0]
    assert sum(record.name == "sram_read_pj" for record in records) == here.figures[..., 0].size == 225
    assert sum(record.name == "pe_gates" for record in records) == len(pe_rows()) == 7
    # between two nodes of CACTI the runs of both are shown
    nodes = {record.node_nm for record in table(technology(28)) if record.name == "sram_area_um2"}
    assert nodes == {22.0, 32.0}


def test_an_unknown_constant_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="nand2_area"):
        value("nand2_are")


def test_interface_figures_do_not_claim_a_node() -> None:
    for standard in STANDARDS:
        for kind in ("energy", "phy_area", "phy_power"):
            assert constant(f"{standard}_{kind}").node_nm is None
            assert technology(7).value(f"{standard}_{kind}") == value(f"{standard}_{kind}")


def test_what_can_be_replaced_is_what_has_a_price() -> None:
    names = overridable()
    assert set(names) == ({*plain_constants(), *NODE_FIGURES, *SRAM_FACTORS} - set(COMPARED)) - {
        "minimum_vdd", "nominal_vdd", "maximum_vdd",
    }  # fmt: skip
    for name in names:
        assert technology(overrides={name: 123.0}).value(name) == 123.0
