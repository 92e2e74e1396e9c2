"""The search loop: its outcome depends on seed and batch alone, a recorded run is repeated exactly, and it searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from analytic_family import AnalyticFamily, FixedNetworks

from dse.core.errors import EXIT_BUG
from dse.metrics import hypervolume
from dse.search import Evaluation, Evaluator, SearchOutcome, SearchPlan, Trial, build_space, evaluation_map, search
from dse.search.driver import PROPOSALS_PER_DESIGN, minimised
from dse.search.evaluate import parse_constraints
from dse.search.pool import WorkerError, worker_pool
from dse.search.samplers import generation_sampler, sampler_kind
from dse.search.space import Values
from dse.search.winners import pareto_trials

OBJECTIVES = ("latency_ms", "energy_uj", "area_mm2", "sqnr_db")
FAMILY = AnalyticFamily()
SPACE = build_space(FAMILY, hardware={}, decisions={"reuse": 1}, choices={}, marks={})
EVALUATOR = Evaluator(FAMILY, SPACE, FixedNetworks(), parse_constraints(FAMILY, ["area_mm2 <= 0.3"], {}))
SAMPLERS = ("random", "nsga2", "tpe")


def searched(
    plan: SearchPlan, *, known: Mapping[str, Evaluation] | None = None, evaluator: Evaluator = EVALUATOR
) -> tuple[SearchOutcome, list[Values]]:
    """The outcome and the points that had to be evaluated."""
    asked: list[Values] = []

    def evaluate(points: Sequence[Values]) -> Iterator[Evaluation]:
        asked.extend(points)
        return map(evaluator.evaluate, points)

    outcome = search(
        evaluator.space, evaluator, plan, evaluate=evaluate, known=known or {}, on_batch=lambda batch: None
    )
    return outcome, asked


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_recorded_run_is_repeated_without_evaluating_anything(sampler: str) -> None:
    plan = SearchPlan(OBJECTIVES, 60, 10, sampler, seed=3)  # type: ignore[arg-type]
    first, asked = searched(plan)
    assert len(asked) == first.simulated
    known = {trial.evaluation.digest: trial.evaluation for trial in first.trials}
    again, asked_again = searched(plan, known=known)
    assert not asked_again
    assert again == first


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kept", [1, 17, 40])
def test_a_run_cut_anywhere_ends_as_the_whole_one(sampler: str, kept: int) -> None:
    plan = SearchPlan(OBJECTIVES, 60, 10, sampler, seed=4)  # type: ignore[arg-type]
    whole, _ = searched(plan)
    known = {trial.evaluation.digest: trial.evaluation for trial in whole.trials[:kept]}
    resumed, asked = searched(plan, known=known)
    assert resumed == whole
    assert len(asked) == sum(trial.evaluation.status != "rejected" for trial in whole.trials[kept:])


def test_two_workers_find_what_one_process_finds() -> None:
    plan = SearchPlan(OBJECTIVES, 40, 8, "nsga2", seed=5)
    alone, _ = searched(plan)
    with evaluation_map(EVALUATOR, 2) as evaluate:
        shared = search(SPACE, EVALUATOR, plan, evaluate=evaluate, known={}, on_batch=lambda batch: None)
    assert shared == alone


def test_the_order_in_which_results_arrive_does_not_matter() -> None:
    plan = SearchPlan(OBJECTIVES, 40, 10, "tpe", seed=6)
    whole, _ = searched(plan)

    def backwards(points: Sequence[Values]) -> Iterator[Evaluation]:
        return map(EVALUATOR.evaluate, reversed(points))

    turned = search(SPACE, EVALUATOR, plan, evaluate=backwards, known={}, on_batch=lambda batch: None)
    assert turned == whole


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_are_spent_on_distinct_designs_and_batches_tell_all(sampler: str) -> None:
    batches: list[Sequence[Trial]] = []
    plan = SearchPlan(OBJECTIVES, 95, 10, sampler, seed=0)  # type: ignore[arg-type]
    outcome = search(
        SPACE, EVALUATOR, plan, evaluate=lambda points: map(EVALUATOR.evaluate, points), known={},
        on_batch=batches.append,
    )  # fmt: skip
    names = [trial.evaluation.digest for trial in outcome.trials]
    assert len(set(names)) == len(names)
    assert [trial.number for trial in outcome.trials] == list(range(len(names)))
    assert [trial for batch in batches for trial in batch] == outcome.trials
    assert outcome.simulated == 95
    assert len(batches) == 10


def test_a_small_space_is_searched_to_its_end_and_no_further() -> None:
    choices = {"hardware.lanes": [1, 2, 4], "hardware.weight_bits": [4, 8]}
    small = build_space(FAMILY, hardware={}, decisions={}, choices=choices, marks={})
    for sampler in SAMPLERS:
        plan = SearchPlan(OBJECTIVES, 200, 10, sampler)  # type: ignore[arg-type]
        outcome, asked = searched(plan, evaluator=Evaluator(FAMILY, small, FixedNetworks()))
        assert len(asked) == small.size == outcome.simulated
        assert outcome.repeats <= 20 * PROPOSALS_PER_DESIGN * 10


def test_nothing_to_search_is_one_evaluation() -> None:
    point = build_space(FAMILY, hardware={"lanes": 8}, decisions={}, choices=None, marks={})
    outcome, asked = searched(SearchPlan(OBJECTIVES, 1, 1), evaluator=Evaluator(FAMILY, point, FixedNetworks()))
    assert asked == [{}]
    assert outcome.trials[0].evaluation.feasible


def test_a_space_without_feasible_designs_ends() -> None:
    never = Evaluator(FAMILY, SPACE, FixedNetworks(), parse_constraints(FAMILY, ["lanes <= 0"], {}))
    outcome, asked = searched(SearchPlan(OBJECTIVES, 20, 10, "tpe"), evaluator=never)
    assert not asked
    assert outcome.simulated == 0
    assert {trial.evaluation.status for trial in outcome.trials} == {"rejected"}


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_samplers_find_more_than_chance(sampler: str) -> None:
    wide = build_space(
        FAMILY,
        hardware={},
        decisions={},
        choices={
            "hardware.lanes": list(range(1, 65)),
            "hardware.buffer_kib": list(range(1, 65)),
            "hardware.style": ["wide", "deep"],
            "hardware.weight_bits": [4, 8],
            "hardware.clock_mhz": [50.0 * step for step in range(1, 21)],
            "decisions.reuse": [1, 2, 4],
        },
        marks={},
    )
    evaluator = Evaluator(FAMILY, wide, FixedNetworks(), EVALUATOR.constraints)

    def volume(name: str, seed: int) -> float:
        outcome, _ = searched(SearchPlan(OBJECTIVES, 240, 20, name, seed), evaluator=evaluator)  # type: ignore[arg-type]
        front = pareto_trials(outcome.trials, OBJECTIVES)
        points = np.array([minimised(trial.evaluation.summary, OBJECTIVES) for trial in front])
        return hypervolume(points * [1 / 0.005, 1 / 0.005, 1 / 0.3, 1 / 30.0], (1.0, 1.0, 1.0, 0.0))

    seeds = range(3)
    assert sum(volume(sampler, seed) for seed in seeds) > sum(volume("random", seed) for seed in seeds)


def test_seed_and_generation_decide_the_sampler_and_nothing_else() -> None:
    plans = [SearchPlan(OBJECTIVES, 40, 10, "nsga2", seed) for seed in (0, 0, 1)]
    first, same, other = (searched(plan)[0] for plan in plans)
    assert first == same
    assert [t.evaluation.digest for t in first.trials] != [t.evaluation.digest for t in other.trials]


def test_the_population_is_a_multiple_of_the_batch() -> None:
    import optuna

    for batch in (1, 7, 20, 50, 64, 300):
        sampler = generation_sampler("nsga2", seed=0, generation=0, batch=batch)
        assert isinstance(sampler, optuna.samplers.NSGAIISampler)
        assert sampler._population_size % batch == 0
        assert 50 <= sampler._population_size < 50 + batch


def test_optuna_speaks_as_loud_as_before() -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    searched(SearchPlan(OBJECTIVES, 2, 2, "random"))
    assert optuna.logging.get_verbosity() == before


def _die(_: int) -> int:
    import os

    os._exit(3)


def test_a_dead_worker_is_one_clear_error() -> None:
    with pytest.raises(WorkerError, match="--resume") as error, worker_pool(2) as run_all:
        list(run_all(_die, [1, 2]))
    assert error.value.exit_code == EXIT_BUG


def test_auto_is_nsga2_and_every_other_name_itself() -> None:
    assert sampler_kind("auto") == "nsga2"
    assert all(sampler_kind(name) == name for name in ("nsga2", "tpe", "random"))  # type: ignore[arg-type]
