"""The Pareto set equals the obvious definition; winners are spread over it and cover what they must."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dse.search import Evaluation, Trial, choose_winners, pareto_trials

OBJECTIVES = ("latency_ms", "energy_uj", "sqnr_db")


def trial(number: int, latency: float, energy: float, sqnr: float, flow: str = "ws", feasible: bool = True) -> Trial:
    summary = {"latency_ms": latency, "energy_uj": energy, "sqnr_db": sqnr}
    values = {"hardware.dataflow": flow, "hardware.rows": number}
    return Trial(number, Evaluation(values, f"{number:012x}", "ok" if feasible else "infeasible", {}, summary))


figures = st.tuples(*[st.integers(0, 4)] * 3, st.sampled_from(["ws", "os"]), st.booleans())
populations = st.lists(figures, min_size=0, max_size=25).map(
    lambda rows: [trial(i, float(a), float(b), float(c), flow, ok) for i, (a, b, c, flow, ok) in enumerate(rows)]
)


def dominates(first: Trial, second: Trial) -> bool:
    a, b = first.evaluation.summary, second.evaluation.summary
    pairs = [(a["latency_ms"], b["latency_ms"]), (a["energy_uj"], b["energy_uj"]), (-a["sqnr_db"], -b["sqnr_db"])]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


@given(populations)
def test_the_pareto_set_is_what_nothing_feasible_dominates(trials: list[Trial]) -> None:
    feasible = [item for item in trials if item.evaluation.feasible]
    expected = []
    for index, item in enumerate(feasible):
        twin = any(other.evaluation.summary == item.evaluation.summary for other in feasible[:index])
        if not twin and not any(dominates(other, item) for other in feasible):
            expected.append(item)
    assert pareto_trials(trials, OBJECTIVES) == expected


@given(populations, st.integers(0, 6))
def test_winners_are_distinct_members_of_the_front_and_cover_both_dataflows(trials: list[Trial], count: int) -> None:
    front = pareto_trials(trials, OBJECTIVES)
    winners = choose_winners(front, OBJECTIVES, count, ["hardware.dataflow"])
    chosen = [winner.trial for winner in winners]
    assert len(chosen) == min(count, len(front)) == len({item.number for item in chosen})
    assert all(item in front for item in chosen)
    flows = {item.evaluation.values["hardware.dataflow"] for item in front}
    if count >= len(flows):
        assert {item.evaluation.values["hardware.dataflow"] for item in chosen} == flows
    assert winners == choose_winners(front, OBJECTIVES, count, ["hardware.dataflow"])


def test_roles_are_best_first_objective_knee_then_the_other_bests() -> None:
    front = [trial(0, 1.0, 9.0, 20.0), trial(1, 9.0, 1.0, 20.0), trial(2, 2.0, 2.0, 21.0), trial(3, 5.0, 5.0, 40.0)]
    winners = choose_winners(front, OBJECTIVES, 4, [])
    assert [(winner.trial.number, winner.reason) for winner in winners] == [
        (0, "best latency_ms"), (3, "knee"), (1, "best energy_uj"), (2, "best sqnr_db"),
    ]  # fmt: skip


def test_a_place_given_for_coverage_says_so() -> None:
    front = [trial(0, 1.0, 9.0, 20.0), trial(1, 2.0, 8.0, 20.0), trial(2, 9.0, 7.0, 20.0, "os")]
    winners = choose_winners(front, OBJECTIVES, 2, ["hardware.dataflow"])
    assert [winner.trial.number for winner in winners] == [0, 2]
    assert winners[1].reason == "knee, with dataflow os"


def test_places_beyond_the_roles_go_to_the_most_distant_design() -> None:
    rng = np.random.default_rng(1)
    angles = np.sort(rng.uniform(0, np.pi / 2, 30))
    front = [trial(i, float(1 - np.cos(a)), float(1 - np.sin(a)), 20.0) for i, a in enumerate(angles)]
    winners = choose_winners(front, ("latency_ms", "energy_uj"), 6, [])
    assert {winner.reason for winner in winners[3:]} == {"farthest from the others"}
    points = np.array([[w.trial.evaluation.summary[name] for name in ("latency_ms", "energy_uj")] for w in winners])
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(6, 1)]
    assert gaps.min() > 0.1
