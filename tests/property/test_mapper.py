"""The mapper's optimum equals brute force over its stated space, for every objective, and never lies to the user."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import pairwise, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_samples import random_arch, random_problem

from dse.arch import Arch
from dse.core.errors import InfeasibleError, UsageError
from dse.mapping import (
    Constraints,
    Mapping,
    MappingCost,
    Problem,
    TemporalLevel,
    TensorAccess,
    best_mapping,
    evaluate,
    pareto_mappings,
)


def divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def splits(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (number,)
        return
    for n in divisors(number):
        for rest in splits(number // n, parts - 1):
            yield (n, *rest)


def every_mapping(problem: Problem, arch: Arch) -> Iterator[Mapping]:
    """The slow way: factors for every level and axis, all orders of all levels but the innermost."""
    slots = len(arch.levels) + len(arch.axes)
    for factors in product(*(list(splits(bound, slots)) for bound in problem.bounds)):
        units = [math.prod(f[len(arch.levels) + a] for f in factors) for a in range(len(arch.axes))]
        if any(n > axis.size for n, axis in zip(units, arch.axes, strict=True)):
            continue
        spatial = {
            axis.name: tuple((d, f[len(arch.levels) + a]) for d, f in zip(problem.dims, factors, strict=True))
            for a, axis in enumerate(arch.axes)
        }
        blocks = []
        for k, _ in enumerate(arch.levels):
            loops = [(d, f[k]) for d, f in zip(problem.dims, factors, strict=True) if f[k] > 1]
            blocks.append([tuple(loops)] if k == len(arch.levels) - 1 else list(permutations(loops)))
        for orders in product(*blocks):
            temporal = (TemporalLevel(level.name, loops) for level, loops in zip(arch.levels, orders, strict=True))
            yield Mapping(tuple(temporal), spatial)


def key(objective: str, cost: MappingCost) -> float:
    energy, cycles = cost.energy_pj, cost.cycles
    return {"energy": energy, "latency": cycles, "edp": energy * cycles, "ed2p": energy * cycles**2}[objective]


def small_case(seed: int) -> tuple[Problem, Arch]:
    rng = random.Random(seed)
    problem, arch = random_problem(rng, 4), random_arch(rng, levels=rng.choice([2, 2, 3]), capacity=True)
    while sum(bound > 1 for bound in problem.bounds) > 3 or problem.macs > 48:
        problem = random_problem(rng, 4)
    return problem, arch


def brute_force(problem: Problem, arch: Arch, mode: str) -> list[MappingCost]:
    found = []
    for mapping in every_mapping(problem, arch):
        try:
            found.append(evaluate(problem, arch, mapping, mode=mode))  # type: ignore[arg-type]
        except InfeasibleError:
            continue
    return found


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["timeloop", "native"]))
def test_the_optimum_equals_brute_force_for_every_objective(seed: int, mode: str) -> None:
    problem, arch = small_case(seed)
    costs = brute_force(problem, arch, mode)
    for objective in ("energy", "latency", "edp", "ed2p"):
        if not costs:
            with pytest.raises(InfeasibleError, match="words against a bound of"):
                best_mapping(problem, arch, objective, mode=mode)  # type: ignore[arg-type]
            continue
        found = best_mapping(problem, arch, objective, mode=mode)  # type: ignore[arg-type]
        assert found.value == pytest.approx(min(key(objective, cost) for cost in costs), rel=1e-9)
        assert found.gap == 0


def test_constraints_are_obeyed_or_refused_with_the_reason() -> None:
    problem, arch = fixed_case()
    free = best_mapping(problem, arch, "latency")
    bound = best_mapping(problem, arch, "latency", constraints=Constraints(forbid={"x": frozenset({"M", "K"})}))
    assert bound.value >= free.value
    assert {dim for dim, _ in bound.mapping.spatial["x"]} <= {"N"}
    fixed = best_mapping(problem, arch, "energy", constraints=Constraints(unroll={"x": {"K": 2}}))
    assert dict(fixed.mapping.spatial["x"])["K"] == 2
    kept = best_mapping(problem, arch, "energy", constraints=Constraints(bypass={"near": frozenset({"weight"})}))
    assert all((item.level, item.role) != ("near", "weight") for item in kept.cost.traffic)
    for rules, message in (
        (Constraints(forbid={"z": frozenset("K")}), "'z' is not an axis"),
        (Constraints(unroll={"x": {"K": 8}}), "needs 8 units of axis 'x', which has 4"),
        (Constraints(unroll={"x": {"K": 3}}), "do not divide the 8 iterations of K; the nearest divisor is"),
        (Constraints(unroll={"x": {"K": 2}}, forbid={"x": frozenset("K")}), "both forbidden"),
        (Constraints(keep={"near": frozenset({"input"})}, bypass={"near": frozenset({"input"})}), "told to bypass"),
    ):
        with pytest.raises(UsageError, match=message):
            best_mapping(problem, arch, "energy", constraints=rules)
    with pytest.raises(UsageError, match="did you mean 'energy'"):
        best_mapping(problem, arch, "enrgy")


def test_bypass_search_is_never_worse_and_sometimes_better() -> None:
    problem, arch = fixed_case(write_energy_pj=500)
    kept = best_mapping(problem, arch, "energy")
    free = best_mapping(problem, arch, "energy", search_bypass=True)
    assert free.value < kept.value


def test_the_front_holds_no_dominated_point_and_both_ends() -> None:
    problem, arch = fixed_case(read_words_per_cycle=1)
    front = pareto_mappings(problem, arch)
    assert front[0].cost.energy_pj == pytest.approx(best_mapping(problem, arch, "energy").cost.energy_pj)
    assert front[-1].cost.cycles == best_mapping(problem, arch, "latency").cost.cycles
    for a, b in pairwise(front):
        assert a.cost.energy_pj < b.cost.energy_pj
        assert a.cost.cycles > b.cost.cycles


def test_least_traffic_is_found_whatever_the_energies_say() -> None:
    problem, arch = fixed_case()
    found = best_mapping(problem, arch, "traffic")
    least = min(
        sum((item.reads + item.updates) * 8 for item in cost.traffic if item.level == "far")
        for cost in brute_force(problem, arch, "native")
    )
    assert found.value == pytest.approx(least, rel=1e-6)


def fixed_case(**near: object) -> tuple[Problem, Arch]:
    role = {"w": "weight", "x": "input", "y": "output"}
    axes = {"w": (0, 1), "x": (1, 2), "y": (0, 2)}
    tensors = tuple(TensorAccess(name, role[name], tuple(((d, 1),) for d in dims)) for name, dims in axes.items())
    arch = Arch.model_validate(
        {
            "name": "fixed", "clock_mhz": 100, "compute": {"accumulator_bits": 8},
            "levels": [
                {"name": "far", "word_bits": 8, "energy_class": "dram"},
                {"name": "near", "word_bits": 8, "capacity_bytes": 24, "energy_class": "register", **near},
            ],
            "axes": [{"name": "x", "size": 4, "below": "near", "multicast": ["input", "weight"], "reduces": True}],
        }
    )  # fmt: skip
    return Problem("fc", ("M", "K", "N"), (4, 8, 4), tensors), arch
