"""Logic prices against the synthesis runs they stand for, shipped and in the shared references."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import UsageError
from dse.tech import (
    STANDARDS,
    add_pj,
    constant,
    dram_command_pj,
    dram_pj_per_byte,
    element_gates,
    hop_pj,
    logic_area_um2,
    logic_stage_ns,
    mac_clock_mhz,
    multiply_pj,
    phy_area_um2,
    phy_static_mw,
    requantizer_gates,
    technology,
    value,
)
from dse.tech.constants import pe_rows

AREA = Path(__file__).parents[3].parent / "shared" / "reference" / "rtl" / "asic_area.csv"


@pytest.mark.parametrize("row", pe_rows(), ids=str)
def test_element_area_meets_every_synthesised_row_within_five_percent(row) -> None:
    gates = element_gates(row.activation_bits * row.weight_bits, row.flip_flops)
    assert gates == pytest.approx(row.gates, rel=0.05)
    # the library's own area, without the placement density that ours adds
    assert logic_area_um2(gates) * value("placement_density") == pytest.approx(row.area_um2, rel=0.05)


@pytest.mark.skipif(not AREA.is_file(), reason="shared references absent")
def test_element_area_meets_all_libraries_of_the_reference() -> None:
    checked = 0
    with AREA.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            parts = re.fullmatch(r"pe_(ws|os)_i(\d+)_a(\d+)", row["module"])
            if parts and not row["note"]:
                gates = element_gates(int(parts[2]) ** 2, int(row["ffs"]))
                assert gates == pytest.approx(float(row["nand2_equiv"]), rel=0.10), row
                checked += 1
    assert checked >= 15


def test_the_synthesised_requantizer_is_met_exactly() -> None:
    assert requantizer_gates(512, 105) == 6675


@given(st.integers(4, 256), st.integers(20, 200), st.integers(0, 64), st.integers(0, 64))
def test_wider_elements_are_never_smaller(product: int, registers: int, more: int, further: int) -> None:
    assert element_gates(product + more, registers + further) >= element_gates(product, registers) > 0


def test_arithmetic_follows_the_laws_of_its_source() -> None:
    assert multiply_pj(8, 8) == 0.79
    assert multiply_pj(16, 16) == pytest.approx(3.17, rel=0.005)
    assert add_pj(16) == pytest.approx(0.105)
    assert hop_pj(8) == pytest.approx(2 * 0.072)


def test_an_element_of_the_table_clocks_in_the_range_of_published_chips_with_its_margin() -> None:
    # 45 nm: the gates alone would reach 1-2 GHz or more, published accelerators 0.2-1.4 GHz
    assert 700 < 1e3 / logic_stage_ns(value("multiply_depth")) < 1400
    assert 1000 < 1e3 / (logic_stage_ns(value("multiply_depth")) / value("logic_margin")) < 3000


@pytest.mark.parametrize("standard", STANDARDS)
def test_bandwidth_costs_area_and_power_in_proportion(standard: str) -> None:
    assert phy_area_um2(standard, 0) == 0
    assert phy_area_um2(standard, 8) == pytest.approx(2 * phy_area_um2(standard, 4))
    assert phy_area_um2(standard, 1) > 0
    assert phy_static_mw(standard, 6) == pytest.approx(3 * phy_static_mw(standard, 2))
    assert dram_pj_per_byte(standard) == 8 * value(f"{standard}_energy")


@pytest.mark.parametrize("node_nm", [16, 45, 65, 180])
def test_more_pipeline_stages_clock_faster_but_never_as_the_registers_alone(node_nm: float) -> None:
    tech = technology(node_nm)
    clocks = [mac_clock_mhz(stages, tech) for stages in range(1, 40)]
    assert clocks == sorted(clocks)
    assert clocks[-1] < 1e3 / logic_stage_ns(value("register_depth"), tech)
    with pytest.raises(ValueError, match="at least 1"):
        mac_clock_mhz(0, tech)


def test_published_delay_factors_take_the_fo4_delay_to_what_a_180_nm_library_has() -> None:
    measured = constant("fo4_delay_osu018").value
    assert technology(180).value("fo4_delay") == pytest.approx(measured, rel=0.15)
    # what two stages of the synthesised multiply-accumulate need lies within the margin of the depth that is used
    needed = constant("multiply_add_depth").value / 2 + value("register_depth")
    assert value("multiply_depth") < needed < value("multiply_depth") * value("logic_margin")


def test_energy_by_command_adds_bursts_and_rows_and_is_refused_where_it_is_not_recorded() -> None:
    # one 64-byte burst of DDR4-2400 in an open row took 3123 pJ in DRAMsim3, an activation 8243 pJ
    assert dram_command_pj("ddr4", 64, 0) == pytest.approx(3123, rel=0.005)
    assert dram_command_pj("ddr4", 128, 2) == pytest.approx(2 * 3123 + 2 * 8243, rel=0.005)
    with pytest.raises(UsageError, match=r"'lpddr4' has no recorded energy by command.*ddr4"):
        dram_command_pj("lpddr4", 64, 1)


def test_tpu_v1_ports_have_their_published_share_of_the_die() -> None:
    # two DDR3 ports for 34 GB/s, about 3 % each of at most 331 mm2
    assert phy_area_um2("ddr3", 34) * 1e-6 == pytest.approx(2 * 0.03 * 331, rel=0.01)


def test_an_unknown_standard_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="lpddr4"):
        phy_area_um2("lpdr4", 1)
