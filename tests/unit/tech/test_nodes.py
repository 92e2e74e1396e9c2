"""Scaling between nodes: the published factors exactly, straight lines between, and nothing beyond."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.errors import UsageError
from dse.tech import REFERENCE, Technology, logic_area_um2, multiply_pj, node, sram, technology, value
from dse.tech.nodes import node_rows

REFERENCES = Path(__file__).parents[3].parent / "shared" / "reference" / "tech"
PUBLISHED = (7, 10, 14, 16, 20, 32, 45, 65, 90, 130, 180)


@pytest.mark.skipif(not REFERENCES.is_dir(), reason="shared references absent")
def test_polynomials_and_areas_are_the_published_ones() -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (REFERENCES / name).open(encoding="utf-8") as stream:
            return list(csv.DictReader(line for line in stream if not line.startswith("#")))

    areas = {float(row["node_nm"]): float(row["area_rel_180"]) for row in rows("stillmaker_baas_2017_area.csv")}
    shipped = {(row.device, row.node_nm): row for row in node_rows()}
    checked = 0
    for row in rows("stillmaker_baas_2017.csv"):
        nm = float(row["node"].lstrip("HLP"))
        for device in [row["node"][:2]] if row["node"][0] in "HL" else ["HP", "LP"]:
            found = shipped.pop((device, nm))
            assert found.delay == tuple(float(row[key]) for key in ("d3", "d2", "d1", "d0"))
            assert found.energy == tuple(float(row[key]) for key in ("e2", "e1", "e0"))
            assert found.area == areas[nm]
            checked += 1
    assert checked == 22
    assert not shipped


@pytest.mark.parametrize("row", node_rows(), ids=lambda row: f"{row.node_nm:g}{row.device}")
def test_delay_falls_and_energy_rises_over_the_whole_range_of_every_node(row) -> None:
    place = node(row.node_nm, row.device)
    assert place.minimum_vdd < place.nominal_vdd <= place.maximum_vdd
    supplies = np.linspace(place.minimum_vdd, place.maximum_vdd, 300)
    delays, energies = [place.delay(v) for v in supplies], [place.energy(v) for v in supplies]
    assert min(delays) > 0
    assert min(energies) > 0
    assert np.all(np.diff(delays) < 0)
    assert np.all(np.diff(energies) > 0)


def test_the_factor_from_45_to_65_nm_written_out() -> None:
    # 65 nm at 1.1 V against 45 nm HP at 0.9 V, by hand from the published coefficients
    energy_65 = 3.755 * 1.1**2 - 4.398 * 1.1 + 1.975
    energy_45 = 1.018 * 0.9**2 - 0.3107 * 0.9 + 0.1539
    assert multiply_pj(8, 8, technology(65)) == pytest.approx(0.79 * energy_65 / energy_45, rel=1e-12)
    assert logic_area_um2(700, technology(65)) == pytest.approx(logic_area_um2(700) * 0.08 / 0.053, rel=1e-12)


@given(st.sampled_from(list(pairwise(PUBLISHED))), st.floats(0, 1), st.sampled_from(["HP", "LP"]))
def test_a_node_between_two_published_ones_lies_between_them(pair, share: float, device: str) -> None:
    low, high = pair
    between = node(low * (high / low) ** share, device)
    ends = [node(low, device), node(high, device)]
    assert min(e.area for e in ends) * (1 - 1e-9) <= between.area <= max(e.area for e in ends) * (1 + 1e-9)
    vdd = between.nominal_vdd
    if all(e.minimum_vdd <= vdd <= e.maximum_vdd for e in ends):
        energies = sorted(e.energy(vdd) for e in ends)
        assert energies[0] * (1 - 1e-9) <= between.energy(vdd) <= energies[1] * (1 + 1e-9)


@pytest.mark.parametrize("node_nm", PUBLISHED[1:])
def test_a_smaller_node_costs_less_energy_and_area(node_nm: float) -> None:
    smaller = technology(PUBLISHED[PUBLISHED.index(node_nm) - 1])
    here = technology(node_nm)
    assert multiply_pj(8, 8, smaller) < multiply_pj(8, 8, here)
    assert logic_area_um2(1000, smaller) < logic_area_um2(1000, here)
    small, large = sram(65536, 64, tech=smaller), sram(65536, 64, tech=here)
    assert small.read_pj < large.read_pj
    assert small.area_um2 < large.area_um2


@pytest.mark.parametrize(("asked", "close"), [(6.9, "7 nm"), (3, "7 nm"), (181, "180 nm"), (250, "180 nm")])
def test_beyond_the_published_nodes_nothing_is_said(asked: float, close: str) -> None:
    with pytest.raises(UsageError, match=f"{asked:g} nm lies outside 7 to 180 nm.*nearest is {close}"):
        technology(asked)


def test_a_supply_outside_the_range_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"1.3 V lies outside 0.6 to 0.94 V.*nearest is 0.94 V"):
        technology(45, vdd=1.3)


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'HPC' is not a device; did you mean 'HP'"):
        technology(45, "HPC")


@given(st.sampled_from(["register_energy", "nand2_area", "fo4_delay", "lpddr4_energy"]), st.floats(1e-6, 1e6))
def test_a_replaced_price_is_taken_as_it_is_at_the_node_asked_for(name: str, figure: float) -> None:
    assert technology(28, overrides={name: figure}).value(name) == figure
    assert technology(28).value(name) != figure or math.isclose(technology(28).value(name), figure)


def test_factors_on_memories_scale_what_they_say() -> None:
    plain = sram(65536, 64)
    twice = sram(65536, 64, tech=technology(overrides={"sram_read_factor": 2, "sram_area_factor": 3}))
    assert twice.read_pj == pytest.approx(2 * plain.read_pj)
    assert twice.area_um2 == pytest.approx(3 * plain.area_um2)
    assert twice.write_pj == pytest.approx(plain.write_pj)


@pytest.mark.parametrize(
    ("name", "figure", "words"),
    [
        ("registr_energy", 1.0, "did you mean 'register_energy'"),
        ("nominal_vdd", 1.0, "is not a component price"),
        ("multiply8_energy_horowitz", 1.0, "did you mean 'multiply8_energy_aladdin'"),
        ("register_energy", 0.0, "positive number, not 0"),
        ("register_energy", math.inf, "positive number, not inf"),
    ],
)
def test_a_wrong_override_is_refused(name: str, figure: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        technology(overrides={name: figure})


def test_the_tables_hold_unchanged_at_their_own_node() -> None:
    assert technology() == REFERENCE == Technology()
    for kind in ("energy", "delay", "area", "wire", "none"):
        assert REFERENCE.factor(kind) == 1
    assert value("nominal_vdd") == 0.9
    with pytest.raises(UsageError, match="not a kind of figure"):
        technology(65).factor("volume")
