"""The mapper's optimum equals brute force over its stated space, for every objective, and never lies to the user."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_brute_force import every_mapping, key, small_case
from mapping_samples import random_arch, random_problem

from dse.arch import Arch
from dse.core.errors import InfeasibleError, UsageError
from dse.mapping import (
    AccessEnergy,
    Constraints,
    Mapping,
    MappingCost,
    MappingTable,
    Problem,
    TensorAccess,
    access_energy,
    best_mapping,
    evaluate,
    pareto_mappings,
)


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


def random_rules(rng: random.Random, problem: Problem, arch: Arch) -> Constraints:
    """Dims that may loop at each level, and for some levels one or two orders of them."""
    loops, order = {}, {}
    for level in arch.levels:
        if rng.random() < 0.6:
            loops[level.name] = frozenset(dim for dim in problem.dims if rng.random() < 0.7)
        if rng.random() < 0.5:
            order[level.name] = tuple(tuple(rng.sample(problem.dims, len(problem.dims))) for _ in range(2))
    return Constraints(loops=loops, order=order)


def obeys(mapping: Mapping, rules: Constraints, innermost: str) -> bool:
    for part in mapping.temporal:
        dims = [dim for dim, _ in part.loops]
        if not set(dims) <= rules.loops.get(part.level, set(dims)):
            return False
        orders = rules.order.get(part.level)
        # the order of the innermost loops changes nothing: the compute units hold no tile
        if orders and part.level != innermost and not any(sorted(dims, key=o.index) == dims for o in orders):
            return False
    return True


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_the_optimum_under_rules_for_loops_equals_brute_force(seed: int) -> None:
    problem, arch = small_case(seed)
    rules = random_rules(random.Random(seed), problem, arch)
    costs = []
    for mapping in every_mapping(problem, arch):
        if obeys(mapping, rules, arch.levels[-1].name):
            try:
                costs.append(evaluate(problem, arch, mapping))
            except InfeasibleError:
                continue
    for objective in ("energy", "edp"):
        if not costs:
            with pytest.raises(InfeasibleError):
                best_mapping(problem, arch, objective, constraints=rules)
            with pytest.raises(InfeasibleError):
                MappingTable(problem, arch, constraints=rules).best(arch, objective)
            continue
        found = best_mapping(problem, arch, objective, constraints=rules)
        assert obeys(found.mapping, rules, arch.levels[-1].name)
        assert found.value == pytest.approx(min(key(objective, cost) for cost in costs), rel=1e-9)
        answer = MappingTable(problem, arch, constraints=rules).best(arch, objective)
        assert key(objective, answer.cost()) == pytest.approx(found.value, rel=1e-9)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Constraints(loops={"neer": frozenset("K")}), "did you mean 'near'"),
        (Constraints(loops={"near": frozenset("Q")}), "'Q' is not a dim of fc"),
        (Constraints(order={"far": (("M", "K", "N", "M"),)}), "names a dim twice"),
        (Constraints(order={"far": (("M", "K"),)}), "N may loop at level 'far', but the order"),
    ],
)
def test_rules_for_loops_that_make_no_sense_are_refused(rules: Constraints, message: str) -> None:
    problem, arch = fixed_case()
    with pytest.raises(UsageError, match=message):
        best_mapping(problem, arch, "energy", constraints=rules)


def improved(rng: random.Random, arch: Arch) -> Arch:
    """The same levels with more capacity and bandwidth and less time a tile, some of them."""
    levels = tuple(
        level.model_copy(
            update={
                "capacity_bytes": level.capacity_bytes and level.capacity_bytes * rng.choice([1, 2, 3]),
                "partitions": {role: size * rng.choice([1, 2]) for role, size in level.partitions.items()},
                "read_words_per_cycle": level.read_words_per_cycle and level.read_words_per_cycle * rng.choice([1, 2]),
                "write_words_per_cycle": rng.choice([level.write_words_per_cycle, None]),
                "transfer_cycles": level.transfer_cycles * rng.choice([1, 0.5]),
            }
        )
        for level in arch.levels
    )
    return arch.model_copy(update={"levels": levels})


def optimum(problem: Problem, arch: Arch, objective: str) -> float:
    """Value of the best mapping; infinite where none fits."""
    try:
        return best_mapping(problem, arch, objective).value
    except InfeasibleError:
        return math.inf


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["energy", "latency", "edp"]))
def test_more_capacity_and_bandwidth_is_never_worse(seed: int, objective: str) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng, 6), random_arch(rng, capacity=True)
    assert optimum(problem, improved(rng, arch), objective) <= optimum(problem, arch, objective) * (1 + 1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_least_energy_rises_with_every_price_and_scales_with_all(seed: int) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng, 6), random_arch(rng)
    prices = access_energy(arch)
    dearer = AccessEnergy(
        tuple(pj * rng.choice([1, 1.5]) for pj in prices.read_pj),
        tuple(pj * rng.choice([1, 1.5]) for pj in prices.write_pj),
        prices.mac_pj,
    )
    twice = AccessEnergy(
        tuple(2 * pj for pj in prices.read_pj), tuple(2 * pj for pj in prices.write_pj), 2 * prices.mac_pj
    )
    least, more, double = (best_mapping(problem, arch, "energy", energy=e).value for e in (prices, dearer, twice))
    assert least <= more * (1 + 1e-12)
    assert more <= 1.5 * least * (1 + 1e-12)
    assert double == pytest.approx(2 * least, rel=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["energy", "latency", "edp", "ed2p", "traffic"]))
def test_neither_the_order_of_dims_nor_that_of_tensors_matters(seed: int, objective: str) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng, 6), random_arch(rng, capacity=True)
    places = rng.sample(range(len(problem.dims)), len(problem.dims))
    tensors = [
        replace(
            access,
            axes=tuple(
                tuple((places.index(dim), c) for dim, c in axis) for axis in rng.sample(access.axes, len(access.axes))
            ),
        )
        for access in problem.tensors
    ]
    shuffled = replace(
        problem,
        dims=tuple(problem.dims[place] for place in places),
        bounds=tuple(problem.bounds[place] for place in places),
        tensors=tuple(rng.sample(tensors, len(tensors))),
    )
    assert optimum(shuffled, arch, objective) == pytest.approx(optimum(problem, arch, objective), rel=1e-9)


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
