"""SRAM prices: near the CACTI runs where there are any, never falling with size, and sane beyond the runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dse.tech import logic_area_um2, sram, technology, value
from dse.tech.logic import fitted_register_gates
from dse.tech.sram import without_falls
from dse.tech.sram_table import QUANTITIES, macro_tables

REFERENCE = Path(__file__).parents[3].parent / "shared" / "reference" / "mapper" / "cacti_sram.json"
RUNS = macro_tables()[45.0]


def run_at(capacity: float, width: float, node_nm: float = 45) -> dict[str, float]:
    table = macro_tables()[node_nm]
    found = table.macros(np.array([float(capacity)]), np.array([float(width)]))[0]
    return dict(zip(QUANTITIES, map(float, found), strict=True))


@pytest.mark.skipif(not REFERENCE.is_file(), reason="shared references absent")
def test_the_table_holds_the_reference_runs() -> None:
    checked = 0
    for row in json.loads(REFERENCE.read_text(encoding="utf-8")):
        # the row of 16 bits is a wider run scaled down by the tool around CACTI
        if "KiB" not in row or row["width_bits"] == 16:
            continue
        found = run_at(row["KiB"] * 1024, row["width_bits"], row["tech_nm"])
        assert found["read_pj"] == pytest.approx(row["read_pJ"], rel=2e-4)
        assert found["write_pj"] == pytest.approx(row["write_pJ"], rel=2e-4)
        assert found["area_um2"] == pytest.approx(row["area_mm2"] * 1e6, rel=6e-3)
        if "read_latency_ns" in row:
            assert found["access_ns"] == pytest.approx(row["read_latency_ns"], rel=2e-4)
        checked += 1
    assert checked == 28


@pytest.mark.parametrize("node_nm", [22, 32, 45, 65, 90])
@pytest.mark.parametrize("width", [16, 32, 64])
def test_prices_lie_within_a_sixth_of_the_runs(node_nm: float, width: int) -> None:
    tech = technology(node_nm)
    for capacity in RUNS.capacities:
        cost, measured = sram(float(capacity), width, tech=tech), run_at(capacity, width, node_nm)
        for name in ("read_pj", "write_pj", "area_um2"):
            assert getattr(cost, name) == pytest.approx(measured[name], rel=1 / 6), (capacity, name)
        if capacity < 2**20:  # above, two banks are faster than the one macro that was run
            assert cost.access_ns == pytest.approx(measured["access_ns"], rel=0.18), capacity
        assert cost.access_ns <= measured["access_ns"] * 1.005
        assert cost.leakage_mw == pytest.approx(measured["leakage_mw"], rel=0.2), capacity


@settings(max_examples=300, deadline=None)
@given(
    size=st.floats(1, 2**25),
    factor=st.floats(1, 8),
    word=st.integers(1, 4096),
    wider=st.integers(1, 4096),
    two_port=st.booleans(),
    banks=st.sampled_from([1, 2, 4]),
    node_nm=st.sampled_from([7, 22, 28, 45, 65, 130]),
)
def test_more_capacity_or_wider_words_never_cost_less_area_or_energy(
    size: float, factor: float, word: int, wider: int, two_port: bool, banks: int, node_nm: float
) -> None:
    tech = technology(node_nm)
    small = sram(size, word, banks=banks, two_port=two_port, tech=tech)
    large = sram(size * factor, word + wider, banks=banks, two_port=two_port, tech=tech)
    for name in ("area_um2", "read_pj", "write_pj"):
        assert getattr(large, name) >= getattr(small, name) * (1 - 1e-9), name
    deeper = sram(size * factor, word, banks=banks, two_port=two_port, tech=tech)
    assert deeper.access_ns >= small.access_ns * (1 - 1e-9)
    if small.macro_kind == "sram":  # flip-flops leak more than the smallest macro
        assert large.leakage_mw >= small.leakage_mw * (1 - 1e-9)


def test_the_word_of_48_bits_that_was_the_smaller_macro_is_not_any_more() -> None:
    raw = [run_at(64 * 1024, width)["area_um2"] for width in (16, 32, 64, 128, 256)]
    assert raw != sorted(raw)  # CACTI's own areas do fall with the width
    areas = np.array([sram(64 * 1024, width).area_um2 for width in range(1, 300)])
    assert np.all(np.diff(areas) >= -1e-9 * areas[:-1])


surfaces = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 5), st.just(5)), elements=st.floats(-5, 5)
)


@settings(max_examples=200, deadline=None)
@given(surfaces)
def test_without_falls_is_the_nearest_surface_that_never_falls(raw) -> None:
    found = without_falls(raw)
    held = [0, 1, 3, 4]  # all but the access time, which may fall along the width
    assert np.all(np.diff(found, axis=0) >= -1e-12)
    assert np.all(np.diff(found[:, :, held], axis=1) >= -1e-12)
    for k in held:
        # no surface without falls is nearer than half the deepest fall between any two points in order
        deepest = max(
            raw[i, j, k] - raw[a, b, k]
            for i in range(raw.shape[0])
            for j in range(raw.shape[1])
            for a in range(i, raw.shape[0])
            for b in range(j, raw.shape[1])
        )
        assert np.max(np.abs(found[:, :, k] - raw[:, :, k])) == pytest.approx(deepest / 2, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(raw=surfaces)
def test_a_surface_without_falls_is_left_as_it_is(raw) -> None:
    rising = np.cumsum(np.cumsum(np.abs(raw), axis=0), axis=1)
    assert np.allclose(without_falls(rising), rising, rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(size=st.floats(1, 2**26), word=st.integers(1, 4096), banks=st.integers(1, 4))
def test_every_part_of_a_price_is_positive_and_macros_hold_the_capacity(size: float, word: int, banks: int) -> None:
    cost = sram(size, word, banks=banks)
    assert min(cost.read_pj, cost.write_pj, cost.area_um2, cost.leakage_mw, cost.access_ns) > 0
    assert cost.macros * cost.macro_bytes == pytest.approx(size, rel=1e-9)
    assert cost.macro_bytes <= 2 * 1024 * 1024 * (1 + 1e-9)
    if cost.macro_kind == "sram":
        assert cost.macros >= banks * math.ceil(word / 256)


def test_a_node_between_two_of_cacti_lies_between_their_prices() -> None:
    for word in (16, 64, 512):
        low, middle, high = (sram(50_000, word, tech=technology(nm)) for nm in (22, 28, 32))
        share = math.log(28 / 22) / math.log(32 / 22)
        for name in ("read_pj", "area_um2", "access_ns"):
            ends = math.log(getattr(low, name)), math.log(getattr(high, name))
            assert math.log(getattr(middle, name)) == pytest.approx(ends[0] + share * (ends[1] - ends[0]), rel=1e-6)


@pytest.mark.parametrize(("nearest", "beyond"), [(22, 16), (22, 7), (90, 130), (90, 180)])
def test_outside_cacti_memories_follow_the_factors_of_logic(nearest: float, beyond: float) -> None:
    here, there = technology(nearest), technology(beyond)
    known, scaled = sram(30_000, 64, tech=here), sram(30_000, 64, tech=there)
    for name, kind in (("read_pj", "energy"), ("area_um2", "area"), ("access_ns", "delay"), ("leakage_mw", "area")):
        factor = there.factor(kind) / here.factor(kind)
        assert getattr(scaled, name) == pytest.approx(getattr(known, name) * factor, rel=1e-9)


def test_above_the_largest_run_a_memory_becomes_banks_and_wires() -> None:
    eight = sram(8 * 2**20, 64)
    assert (eight.macros, eight.macro_bytes) == (4, 2 * 2**20)
    largest = sram(2 * 2**20, 64)
    assert 3 < eight.area_um2 / largest.area_um2 < 5
    # a square of four macros is one macro longer, which half of all words and the slowest access have to cross
    side_mm = math.sqrt(run_at(2 * 2**20, 64)["area_um2"]) * 1e-3
    assert eight.access_ns == pytest.approx(
        run_at(2 * 2**20, 64)["access_ns"] + side_mm * value("wire_delay"), rel=0.03
    )
    assert eight.read_pj == pytest.approx(
        run_at(2 * 2**20, 64)["read_pj"] + 32 * side_mm * value("wire_energy"), rel=0.1
    )


def test_below_one_kib_a_macro_stays_as_large_until_flip_flops_have_less_area() -> None:
    floor = sram(1024, 32)
    assert sram(600, 32).area_um2 == pytest.approx(floor.area_um2)
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
    assert shallow.read_pj > narrow.read_pj


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


@pytest.mark.parametrize(("size", "word"), [(2**32, 64), (4096, 2**18)])
def test_sizes_beyond_what_is_priced_are_refused(size: int, word: int) -> None:
    with pytest.raises(ValueError, match="outside the measured range"):
        sram(size, word)
