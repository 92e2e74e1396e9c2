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
    dram_pj_per_byte,
    hop_pj,
    logic_area_um2,
    logic_stage_ns,
    multiply_pj,
    pe_flip_flops,
    pe_gates,
    phy_area_um2,
    phy_static_mw,
    requantizer_gates,
    value,
)
from dse.tech.constants import pe_rows

AREA = Path(__file__).parents[3].parent / "shared" / "reference" / "rtl" / "asic_area.csv"


@pytest.mark.parametrize("row", pe_rows(), ids=str)
def test_pe_area_meets_every_synthesised_row_within_five_percent(row) -> None:
    sizes = (row.dataflow, row.activation_bits, row.weight_bits, row.accumulator_bits)
    assert pe_gates(*sizes) == pytest.approx(row.gates, rel=0.05)
    assert pe_flip_flops(*sizes) == row.flip_flops
    # the library's own area, without the placement density that ours adds
    cells = logic_area_um2(pe_gates(*sizes)) * value("placement_density")
    assert cells == pytest.approx(row.area_um2, rel=0.05)


@pytest.mark.skipif(not AREA.is_file(), reason="shared references absent")
def test_pe_area_meets_all_libraries_of_the_reference_within_fifteen_percent() -> None:
    checked = 0
    with AREA.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            parts = re.fullmatch(r"pe_(ws|os)_i(\d+)_a(\d+)", row["module"])
            if parts and not row["note"]:
                bits = int(parts[2])
                gates = pe_gates(parts[1], bits, bits, int(parts[3]))
                bound = 0.10 if row["lib"] == "nangate45" else 0.15
                assert gates == pytest.approx(float(row["nand2_equiv"]), rel=bound), row
                checked += 1
    assert checked >= 15


def test_the_synthesised_requantizer_is_met_exactly() -> None:
    assert requantizer_gates(512, 105) == 6675


@given(
    st.sampled_from(["ws", "os"]), st.integers(2, 16), st.integers(2, 16), st.integers(8, 48), st.integers(0, 3)
)
def test_wider_elements_are_never_smaller(dataflow, activation: int, weight: int, accumulator: int, which: int) -> None:
    sizes = [activation, weight, accumulator]
    wider = [size + (i == which) for i, size in enumerate(sizes)]
    assert pe_gates(dataflow, *wider) >= pe_gates(dataflow, *sizes)
    assert pe_gates(dataflow, *sizes) > 0


def test_four_bit_weights_save_a_quarter_of_the_element_or_more() -> None:
    assert pe_gates("ws", 8, 4, 16) < 0.75 * pe_gates("ws", 8, 8, 19)


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


def test_tpu_v1_ports_have_their_published_share_of_the_die() -> None:
    # two DDR3 ports for 34 GB/s, about 3 % each of at most 331 mm2
    assert phy_area_um2("ddr3", 34) * 1e-6 == pytest.approx(2 * 0.03 * 331, rel=0.01)


def test_an_unknown_standard_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="lpddr4"):
        phy_area_um2("lpdr4", 1)
