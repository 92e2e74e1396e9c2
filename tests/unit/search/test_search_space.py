"""The space of a search: what may be a knob, what a point means as a design, how a point is named."""

from __future__ import annotations

import pytest
from analytic_family import AnalyticFamily
from hypothesis import given
from hypothesis import strategies as st

from dse.config.marked_yaml import Mark
from dse.core.errors import ConfigError, InfeasibleError
from dse.search import build_space
from dse.search.space import digest

FAMILY = AnalyticFamily()


def space(choices: dict[str, list[object]] | None, **hardware: object):  # type: ignore[no-untyped-def]
    return build_space(FAMILY, hardware=hardware, decisions={"reuse": 1}, choices=choices, marks={})


def test_an_empty_choice_of_knobs_means_every_knob_of_the_family() -> None:
    full = space({})
    assert [knob.name for knob in full.knobs] == sorted(knob.name for knob in FAMILY.space())
    assert full.size == 6 * 5 * 2 * 2 * 3 * 3
    assert space(None).size == 1


def test_configured_knobs_replace_choices_and_leave_the_rest_fixed() -> None:
    narrow = space({"hardware.lanes": [8, 2, 64]}, buffer_kib=16)
    assert [(knob.name, knob.choices) for knob in narrow.knobs] == [("hardware.lanes", (2, 8, 64))]
    hw, decisions = narrow.design(FAMILY, {"hardware.lanes": 64})
    assert (hw.lanes, hw.buffer_kib, decisions.get("reuse", 0)) == (64, 16, 1)


def test_a_single_choice_fixes_its_parameter() -> None:
    fixed = space({"hardware.lanes": [16], "decisions.reuse": [2]})
    assert not fixed.knobs
    hw, decisions = fixed.design(FAMILY, {})
    assert (hw.lanes, decisions.get("reuse", 0)) == (16, 2)


def test_a_key_that_is_no_knob_is_refused_with_the_nearest_at_its_line() -> None:
    marks = {("search", "space", "hardware.lane"): Mark("run.yaml", 7)}
    with pytest.raises(ConfigError, match=r"run.yaml:7: search.space.hardware.lane: .*did you mean 'hardware.lanes'"):
        build_space(FAMILY, hardware={}, decisions={}, choices={"hardware.lane": [1, 2]}, marks=marks)


def test_a_choice_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hardware.lanes.*at most 64, not 65"):
        space({"hardware.lanes": [1, 65]})


def test_a_combination_the_hardware_model_refuses_is_infeasible_and_no_error_of_the_configuration() -> None:
    both = space({"hardware.lanes": [1, 2], "hardware.style": ["wide", "deep"]})
    with pytest.raises(InfeasibleError, match="deep needs two lanes"):
        both.design(FAMILY, {"hardware.lanes": 1, "hardware.style": "deep"})


@given(st.data())
def test_every_index_vector_is_a_point_and_points_have_distinct_names(data: st.DataObject) -> None:
    full = space({})
    bounds = {knob.name: len(knob.choices) - 1 for knob in full.knobs}
    draw = [{name: data.draw(st.integers(0, high)) for name, high in bounds.items()} for _ in range(2)]
    first, second = (full.values(indices) for indices in draw)
    assert (digest(first) == digest(second)) == (draw[0] == draw[1])
    assert digest(dict(reversed(first.items()))) == digest(first)
