"""The optimum of sparse problems, and of problems with tensors at rest, equals brute force over the space."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_brute_force import every_mapping, key, small_case

from dse.arch import Arch
from dse.core.errors import InfeasibleError
from dse.mapping import Mapping, MappingCost, Problem, access_energy, best_mapping, evaluate
from dse.mapping.cost import element_bits
from dse.mapping.density import Sparsity
from dse.mapping.layers import with_bypass, with_residents, with_room
from dse.mapping.spatial import Constraints


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["timeloop", "native"]))
def test_the_sparse_optimum_equals_brute_force(seed: int, mode: str) -> None:
    problem, arch = small_case(seed)
    rng = random.Random(seed)
    roles = rng.sample(["input", "weight"], 2)
    sparsity = Sparsity(
        {"input": rng.choice([0.2, 0.6, 1.0]), "weight": rng.choice([0.3, 0.8])},
        frozenset(role for role in ("input", "weight", "output") if rng.random() < 0.4),
        gate=tuple(roles[:1]), skip=tuple(roles[1:]) if rng.random() < 0.5 else (),
    )  # fmt: skip
    sparse = sparsity.apply(problem)
    made, prices = sparsity.arch(sparse, arch), sparsity.energy(sparse, access_energy(arch))
    costs: list[MappingCost] = []
    for mapping in every_mapping(sparse, made):
        try:
            costs.append(evaluate(sparse, made, mapping, mode=mode, energy=prices))  # type: ignore[arg-type]
        except InfeasibleError:
            continue
    for objective in ("energy", "latency", "edp"):
        if not costs:
            with pytest.raises(InfeasibleError):
                best_mapping(sparse, made, objective, mode=mode, energy=prices)  # type: ignore[arg-type]
            continue
        found = best_mapping(sparse, made, objective, mode=mode, energy=prices)  # type: ignore[arg-type]
        assert found.value == pytest.approx(min(key(objective, cost) for cost in costs), rel=1e-9)


def fits_beside(problem: Problem, arch: Arch, cost: MappingCost, level: int, name: str, whole: int) -> bool:
    """Whether tiles and the tensor at rest share the level: counted anew, in bits."""
    part = arch.levels[level]
    assert part.capacity_bytes is not None
    room = (part.capacity_bytes - whole) * 8 / (2 if part.double_buffered else 1)
    bits = {
        item.tensor: item.tile_words * element_bits(arch, next(a for a in problem.tensors if a.name == item.tensor))
        for item in cost.traffic
        if item.level == part.name and item.tensor != name
    }
    return (sum(bits.values()) if part.shared else max(bits.values(), default=0)) <= room


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_a_tensor_at_rest_spares_outer_levels_and_takes_its_room(seed: int) -> None:
    problem, arch = small_case(seed)
    rng = random.Random(seed)
    access = rng.choice(problem.tensors)
    places = [k for k, part in enumerate(arch.levels) if k and part.instances == 1 and access.role in part.holds]
    if not places:
        return
    level, name = places[0], access.name
    whole = math.ceil(access.words(problem.bounds) * element_bits(arch, access) / 8)
    capacity = arch.levels[level].capacity_bytes
    assert capacity is not None
    resting = with_residents(problem, {name: arch.levels[level].name})
    if whole >= capacity:
        with pytest.raises(InfeasibleError, match=f"resting tensors in level {arch.levels[level].name}"):
            with_room(arch, {arch.levels[level].name: whole})
        return
    less = with_room(arch, {arch.levels[level].name: whole})
    rules, prices = with_bypass(arch, Constraints(), resting), access_energy(arch)
    # the slow way: a roomy level, tiles counted here
    roomy = arch.model_copy(
        update={"levels": tuple(p if k != level else p.model_copy(update={"capacity_bytes": 1 << 20})
                                for k, p in enumerate(arch.levels))}
    )  # fmt: skip
    costs = []
    for mapping in every_mapping(problem, roomy):
        outer = tuple(
            replace(part, bypass=frozenset({access.role}) & arch.levels[k].holds) if k < level else part
            for k, part in enumerate(mapping.temporal)
        )
        try:
            cost = evaluate(problem, roomy, Mapping(outer, mapping.spatial), energy=prices)
        except InfeasibleError:
            continue
        if fits_beside(problem, arch, cost, level, name, whole):
            costs.append(cost)
    for objective in ("energy", "latency"):
        if not costs:
            with pytest.raises(InfeasibleError):
                best_mapping(resting, less, objective, constraints=rules, energy=prices)
            continue
        found = best_mapping(resting, less, objective, constraints=rules, energy=prices)
        assert found.value == pytest.approx(min(key(objective, cost) for cost in costs), rel=1e-9)
        assert all(item.level != arch.levels[0].name for item in found.cost.traffic if item.tensor == name)
