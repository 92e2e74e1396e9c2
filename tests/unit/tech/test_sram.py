"""SRAM prices: equal to the CACTI runs where there are any, and sane between and beyond them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.tech import logic_area_um2, sram, value
from dse.tech.constants import sram_rows
from dse.tech.logic import fitted_register_gates


@pytest.mark.parametrize("row", [r for r in sram_rows() if r.word_bits <= 64], ids=str)
def test_prices_equal_the_measured_macros(row) -> None:
    cost = sram(row.capacity_kib * 1024, row.word_bits)
    assert cost.macros == 1
    assert cost.read_pj == pytest.approx(row.read_pj, rel=1e-9)
    assert cost.write_pj == pytest.approx(row.write_pj, rel=1e-9)
    assert cost.area_um2 == pytest.approx(row.area_mm2 * 1e6, rel=1e-9)
    if row.access_ns is not None:
        assert cost.access_ns == pytest.approx(row.access_ns, rel=1e-9)
    if row.leakage_mw is not None:
        # the runs report tenths of a microwatt
        assert cost.leakage_mw == pytest.approx(row.leakage_mw, abs=1.5e-4, rel=0.1)


@pytest.mark.parametrize("row", [r for r in sram_rows() if r.word_bits > 64], ids=str)
def test_sliced_words_stay_near_the_measured_wide_macros(row) -> None:
    cost = sram(row.capacity_kib * 1024, row.word_bits)
    assert cost.macros == row.word_bits // 64
    assert cost.read_pj == pytest.approx(row.read_pj, rel=0.12)
    assert cost.area_um2 == pytest.approx(row.area_mm2 * 1e6, rel=0.03)
    assert 0.7 <= cost.write_pj / row.write_pj <= 1


def test_between_two_runs_the_price_is_their_geometric_mean() -> None:
    rows = {r.capacity_kib: r for r in sram_rows() if r.word_bits == 64}
    for low in (1, 8, 64, 512):
        middle = sram(low * math.sqrt(2) * 1024, 64)
        high = rows[2 * low]
        assert middle.read_pj == pytest.approx(math.sqrt(rows[low].read_pj * high.read_pj), rel=1e-9)
        assert middle.area_um2 == pytest.approx(1e6 * math.sqrt(rows[low].area_mm2 * high.area_mm2), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(
    size=st.floats(16, 2**25),
    factor=st.floats(1, 4),
    word=st.integers(1, 2048),
    two_port=st.booleans(),
    banks=st.sampled_from([1, 2, 4]),
)
def test_more_capacity_never_costs_less(size: float, factor: float, word: int, two_port: bool, banks: int) -> None:
    small = sram(size, word, banks=banks, two_port=two_port)
    large = sram(size * factor, word, banks=banks, two_port=two_port)
    assert large.area_um2 >= small.area_um2 * (1 - 1e-9)
    if small.macros == large.macros and small.macro_kind == large.macro_kind:
        assert large.read_pj >= small.read_pj * (1 - 1e-9)
        assert large.write_pj >= small.write_pj * (1 - 1e-9)
        assert large.access_ns >= small.access_ns * (1 - 1e-9)
        assert large.leakage_mw >= small.leakage_mw * (1 - 1e-9)


@settings(max_examples=200, deadline=None)
@given(size=st.floats(1, 2**26), word=st.integers(1, 2048), banks=st.integers(1, 4))
def test_every_part_of_a_price_is_positive_and_macros_hold_the_capacity(size: float, word: int, banks: int) -> None:
    cost = sram(size, word, banks=banks)
    assert min(cost.read_pj, cost.write_pj, cost.area_um2, cost.leakage_mw, cost.access_ns) > 0
    assert cost.macros * cost.macro_bytes == pytest.approx(size, rel=1e-9)
    assert cost.macro_bytes <= 2 * 1024 * 1024 * (1 + 1e-9)
    assert cost.macros >= banks * math.ceil(word / 256)


def test_above_the_largest_run_a_memory_becomes_banks_and_wires() -> None:
    two_mib = sram(2 * 2**20, 64)
    eight = sram(8 * 2**20, 64)
    assert eight.macros == 4
    assert eight.area_um2 == pytest.approx(4 * two_mib.area_um2)
    side_mm = math.sqrt(two_mib.area_um2) * 1e-3
    # a square of four macros is one macro longer
    assert eight.access_ns == pytest.approx(two_mib.access_ns + side_mm * value("wire_delay"))
    assert eight.read_pj == pytest.approx(two_mib.read_pj + 64 * side_mm / 2 * value("wire_energy"))


def test_below_one_kib_the_smaller_of_macro_and_register_file_is_taken() -> None:
    floor = sram(1024, 32)
    assert sram(600, 32).area_um2 == floor.area_um2
    assert sram(600, 32).macro_kind == "sram"
    tiny = sram(16, 32)
    assert tiny.macro_kind == "registers"
    assert tiny.area_um2 == pytest.approx(logic_area_um2(128 * fitted_register_gates()))
    assert tiny.area_um2 < floor.area_um2
    assert tiny.read_pj == pytest.approx(32 * value("register_energy"))


def test_shallow_wide_memories_have_wider_macros_instead_of_tiny_ones() -> None:
    shallow, narrow = sram(4096, 256), sram(4096, 64)
    assert (shallow.macros, shallow.macro_bytes) == (2, 2048)
    assert sram(2048, 256).macros == 1
    rows = {row.word_bits: row for row in sram_rows() if row.capacity_kib == 64}
    ratio = rows[256].read_pj / rows[64].read_pj
    assert sram(2048, 256).read_pj == pytest.approx(ratio * sram(2048, 64).read_pj)
    assert sram(2048, 256).area_um2 == pytest.approx(sram(2048, 64).area_um2)
    assert shallow.read_pj > narrow.read_pj


def test_capacity_is_paid_for_down_to_a_kibibyte_a_macro_whatever_the_word() -> None:
    for word in (8, 64, 256, 1024):
        sizes = [1024 * math.ceil(word / 256) * step for step in (1, 1.5, 2, 3, 4, 6, 8, 16)]
        areas = [sram(size, word).area_um2 for size in sizes]
        assert areas == sorted(areas)
        assert len(set(areas)) == len(areas)


def test_two_ports_cost_area_and_leakage_but_no_access_energy_in_one_macro() -> None:
    one, two = sram(8192, 64), sram(8192, 64, two_port=True)
    assert two.area_um2 == pytest.approx(one.area_um2 * value("sram_two_port_factor"))
    assert two.leakage_mw == pytest.approx(one.leakage_mw * value("sram_two_port_factor"))
    assert two.read_pj == pytest.approx(one.read_pj)


def test_an_access_touches_one_bank() -> None:
    halves, half = sram(32768, 64, banks=2), sram(16384, 64)
    assert halves.area_um2 == pytest.approx(2 * half.area_um2)
    assert half.read_pj < halves.read_pj < sram(32768, 64).read_pj


@pytest.mark.parametrize(("size", "word", "banks"), [(0, 8, 1), (-1, 8, 1), (64, 0, 1), (64, 8, 0)])
def test_sizes_that_cannot_be_are_refused(size: int, word: int, banks: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        sram(size, word, banks=banks)
