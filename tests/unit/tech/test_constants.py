"""Every figure of the cost models carries its unit, scope, evidence and source, and is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dse.tech
from dse.core.errors import UsageError
from dse.tech import constant, table, value
from dse.tech.constants import pe_rows, sram_rows, voltage_fit


def test_every_constant_says_unit_scope_evidence_and_source() -> None:
    for record in table():
        assert record.name, record
        assert record.unit, record
        assert len(record.scope) > 3, record
        assert len(record.source) > 3, record
        assert record.evidence in ("R", "S", "M"), record
        assert record.node_nm in (45, None), record


def test_names_with_scopes_are_unique() -> None:
    keys = [(record.name, record.scope) for record in table()]
    assert len(set(keys)) == len(keys)


def test_every_constant_that_code_asks_for_exists_and_every_plain_constant_is_used() -> None:
    package = Path(dse.tech.__file__).parent
    family = package.parents[1] / "accelerators" / "systolic" / "cost.py"
    text = "".join(path.read_text(encoding="utf-8") for path in [*package.glob("*.py"), family])
    asked = set(re.findall(r'value\("(\w+)"\)', text))
    asked |= {f"{standard}_{kind}" for standard in dse.tech.STANDARDS for kind in ("energy", "phy_area", "phy_power")}
    for name in asked:
        assert constant(name).name == name
    shown = {record.name for record in table()}
    rows = {"pe_gates"} | {name for name in shown if name.startswith(("sram_", "delay_per", "energy_per"))}
    # the energies of the source that lost are shown for comparison
    assert shown - asked - rows == {"multiply8_energy_horowitz", "add32_energy_horowitz"}


def test_table_shows_every_measured_row() -> None:
    records = table()
    reads = [record for record in records if record.name == "sram_read_energy"]
    assert len(reads) == len(sram_rows()) == 16
    assert sum(record.name == "pe_gates" for record in records) == len(pe_rows()) == 7
    assert {record.value for record in records if record.name.startswith("delay_per")} == set(voltage_fit().delay)


def test_an_unknown_constant_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="nand2_area"):
        value("nand2_are")


def test_interface_figures_do_not_claim_a_node() -> None:
    for standard in dse.tech.STANDARDS:
        for kind in ("energy", "phy_area", "phy_power"):
            assert constant(f"{standard}_{kind}").node_nm is None
