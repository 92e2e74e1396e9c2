"""Mode `timeloop` meets timeloop-model's recorded statistics: counts exactly, cycles to 1, energy to 1e-6."""

from __future__ import annotations

from typing import Any

import pytest
from timeloop_reference import CASES_FILE, ROLES, arch_from, load_cases, mapping_from, prices_of, problem_from

from dse.mapping import Constraints, best_mapping, evaluate

CASES = [case for case in load_cases() if case["strict"]]
needs_reference = pytest.mark.skipif(not CASES_FILE.is_file(), reason="shared references absent")


@needs_reference
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_every_count_cycle_and_energy_equals_timeloop(case: dict[str, Any]) -> None:
    cost = evaluate(problem_from(case), arch_from(case), mapping_from(case), mode="timeloop")
    expected = case["expected"]
    compared = 0
    for level, statistics in expected["levels"].items():
        for tensor, counts in statistics["tensors"].items():
            ours = cost.at(level, tensor)
            assert (ours.tile_words, ours.instances) == (counts["tile_words"], counts["instances"]), (level, tensor)
            for ours_name, name in (("reads", "reads"), ("fills", "fills"), ("updates", "updates")):
                total = counts[f"{name}_per_instance"] * counts["instances"]
                assert getattr(ours, ours_name) == pytest.approx(total, rel=1e-9, abs=1e-6), (level, tensor, name)
                compared += 1
            assert ours.energy_pj == pytest.approx(counts["energy_total_pJ"], rel=1e-6)
    assert compared == 3 * len(cost.traffic)
    assert cost.macs == expected["compute"]["computes"]
    assert cost.compute_cycles == case["compute_cycles_unstalled"]
    assert abs(cost.cycles - expected["cycles"]) <= 1
    assert cost.energy_pj == pytest.approx(expected["energy_pJ"], rel=1e-6)


@needs_reference
def test_the_reference_prices_are_those_of_the_architecture() -> None:
    for case in CASES:
        with_prices = evaluate(
            problem_from(case), arch_from(case), mapping_from(case), mode="timeloop", energy=prices_of(case)
        )
        without = evaluate(problem_from(case), arch_from(case), mapping_from(case), mode="timeloop")
        assert with_prices.energy_pj == without.energy_pj
    assert len(CASES) == 119


@needs_reference
@pytest.mark.parametrize("identity", ["r50c3_opt_eyeriss", "r50c3_opt_gem16", "r50c3_opt_gem32"])
def test_the_mapper_is_never_worse_than_the_reference_optimum(identity: str) -> None:
    case = next(case for case in CASES if case["id"] == identity)
    arch = arch_from(case)
    bypass = {
        level.name: frozenset(ROLES[tensor] for tensor in part.get("bypass", ()))
        for level, part in zip(arch.levels, case["mapping"], strict=True)
    }
    only = {"x1": frozenset("K"), "y2": frozenset("CRS")} if "gem" in identity else {}
    found = best_mapping(
        problem_from(case), arch, "edp", mode="timeloop", constraints=Constraints(bypass=bypass, only=only)
    )
    expected = case["expected"]
    assert found.value <= expected["energy_pJ"] * expected["cycles"] * (1 + 1e-9)
    assert found.cost.cycles == expected["cycles"]
