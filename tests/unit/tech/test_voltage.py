"""The clock has its price: supply and energy rise with it, and beyond the range there is no supply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import InfeasibleError, UsageError
from dse.tech import delay_scale, energy_scale, leakage_scale, max_clock_mhz, operating_point, technology, value

LOW, HIGH = value("minimum_vdd"), value("maximum_vdd")
paths = st.floats(0.2, 10)


def test_delay_falls_and_energy_and_leakage_rise_over_the_whole_range() -> None:
    supplies = np.linspace(LOW, HIGH, 400)
    assert np.all(np.diff([delay_scale(v) for v in supplies]) < 0)
    assert np.all(np.diff([energy_scale(v) for v in supplies]) > 0)
    assert np.all(np.diff([leakage_scale(v) for v in supplies]) > 0)


def test_nominal_supply_scales_nothing() -> None:
    nominal = value("nominal_vdd")
    assert delay_scale(nominal) == energy_scale(nominal) == leakage_scale(nominal) == 1


def test_scales_follow_the_published_polynomials() -> None:
    # 45 nm HP, written out: delay and energy at 0.7 V against 0.9 V
    def delay(v: float) -> float:
        return -501.6 * v**3 + 1567 * v**2 - 1619 * v + 566.1

    def energy(v: float) -> float:
        return 1.018 * v**2 - 0.3107 * v + 0.1539

    assert delay_scale(0.7) == pytest.approx(delay(0.7) / delay(0.9), rel=1e-9)
    assert energy_scale(0.7) == pytest.approx(energy(0.7) / energy(0.9), rel=1e-9)


@settings(max_examples=200)
@given(path=paths, share=st.floats(0.01, 1))
def test_the_supply_reaches_the_clock_and_no_lower_one_does(path: float, share: float) -> None:
    clock = max_clock_mhz(path) * share
    point = operating_point(clock, path)
    assert LOW <= point.vdd <= HIGH
    assert path * delay_scale(point.vdd) <= 1e3 / clock * (1 + 1e-9)
    if point.vdd > LOW + 1e-6:
        assert path * delay_scale(point.vdd - 1e-6) > 1e3 / clock
    assert point.energy_scale == energy_scale(point.vdd)
    assert point.leakage_scale == leakage_scale(point.vdd)


@settings(max_examples=200)
@given(path=paths, share=st.floats(0.01, 0.99), more=st.floats(1, 5))
def test_a_faster_clock_never_costs_less_energy(path: float, share: float, more: float) -> None:
    limit = max_clock_mhz(path)
    slow = operating_point(limit * share, path)
    fast = operating_point(min(limit, limit * share * more), path)
    assert fast.energy_scale >= slow.energy_scale
    assert fast.leakage_scale >= slow.leakage_scale


def test_the_clock_costs_strictly_more_above_the_slowest_supply() -> None:
    free = 1e3 / delay_scale(LOW)
    scales = [operating_point(free * step, 1.0).energy_scale for step in (0.5, 1.0, 1.2, 1.6, 2.2, 3.0)]
    assert scales[0] == scales[1]
    assert np.all(np.diff(scales[1:]) > 0)


def test_a_clock_out_of_reach_carries_the_limit() -> None:
    limit = max_clock_mhz(1.25)
    with pytest.raises(InfeasibleError, match="clock_mhz") as caught:
        operating_point(2 * limit, 1.25)
    violation = caught.value.violations[0]
    assert violation.bound == limit
    assert violation.excess == pytest.approx(1)


@pytest.mark.parametrize("vdd", [0.0, LOW - 0.01, HIGH + 0.01, 1.1])
def test_supplies_outside_the_fit_are_refused(vdd: float) -> None:
    for scale in (delay_scale, energy_scale, leakage_scale):
        with pytest.raises(UsageError, match="outside"):
            scale(vdd)


def test_a_fixed_supply_bounds_the_clock_and_is_paid_for_at_every_clock() -> None:
    slow = technology(vdd=0.7)
    limit = max_clock_mhz(1.0, slow)
    assert limit == pytest.approx(1e3 / delay_scale(0.7))
    assert limit < max_clock_mhz(1.0)
    for clock in (1.0, limit / 2, limit):
        assert operating_point(clock, 1.0, slow).vdd == 0.7
    with pytest.raises(InfeasibleError, match="clock_mhz"):
        operating_point(1.01 * limit, 1.0, slow)


@pytest.mark.parametrize("node_nm", [7, 28, 65, 180])
def test_every_node_has_its_own_nominal_supply_at_which_nothing_scales(node_nm: float) -> None:
    tech = technology(node_nm)
    nominal = tech.node.nominal_vdd
    assert delay_scale(nominal, tech) == energy_scale(nominal, tech) == leakage_scale(nominal, tech) == 1
    assert energy_scale(tech.node.minimum_vdd, tech) < 1 < delay_scale(tech.node.minimum_vdd, tech)


@pytest.mark.parametrize(("clock", "path"), [(0, 1), (-5, 1), (100, 0), (100, -1)])
def test_clocks_and_paths_that_cannot_be_are_refused(clock: float, path: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        operating_point(clock, path)
