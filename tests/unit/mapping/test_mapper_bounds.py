"""Bounds never exceed what a mapping costs, and the arrays of a search say what the cost model says."""

from __future__ import annotations

import math
import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_samples import random_arch, random_mapping, random_problem

from dse.arch import Arch
from dse.arch.arch import load_arch
from dse.core.errors import InfeasibleError
from dse.mapping import CountMode, Mapping, Problem, Solution, TensorAccess, access_energy, best_mapping, evaluate
from dse.mapping.bounds import lay_grid, overlap_free
from dse.mapping.space import Keeps, SearchProblem, lattice
from dse.mapping.spatial import Unrolling
from dse.mapping.tables import RAMP_STEPS, hopeless, promise

EXAMPLES = Path(__file__).parents[3] / "examples"


def unrolling_of(problem: Problem, arch: Arch, mapping: Mapping) -> Unrolling:
    return tuple(
        tuple(math.prod(n for name, n in mapping.spatial.get(axis.name, ()) if name == dim) for dim in problem.dims)
        for axis in arch.axes
    )


def keeps_of(problem: Problem, arch: Arch, mapping: Mapping) -> Keeps:
    bypass = {part.level: part.bypass for part in mapping.temporal}
    return tuple(
        tuple(
            tensor.role in level.holds and tensor.role not in bypass.get(level.name, ()) for tensor in problem.tensors
        )
        for level in arch.levels
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["timeloop", "native"]))
def test_no_mapping_costs_less_than_the_bounds_of_its_space(seed: int, mode: CountMode) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng, capacity=True)
    mapping = random_mapping(rng, problem, arch, perfect=True)
    try:
        cost = evaluate(problem, arch, mapping, mode=mode)
    except InfeasibleError:
        return
    setting = SearchProblem(problem, arch, mode, access_energy(arch), "edp")
    keeps = keeps_of(problem, arch, mapping)
    weights = setting.weights([unrolling_of(problem, arch, mapping)], keeps)
    assert weights.compute_cycles[0] == cost.compute_cycles
    if not weights.valid[0]:
        return
    slack = 1 + 1e-9
    assert weights.least[0, 0] <= cost.energy_pj * slack
    assert weights.least[0, 1:].max(initial=0.0) <= cost.cycles * slack
    tables = setting.tables(weights, 0, keeps)
    grid = lay_grid(tables, RAMP_STEPS)
    whole = grid.outside.shape[0] - 1
    reached = int(np.searchsorted(grid.ramp_edge, cost.ramp_cycles + 1e-9, side="right")) - 1
    assert tables.constant[0] + grid.inside[0, whole, reached] <= cost.energy_pj * slack
    promised = promise(2, tables.constant[0], tables.compute_cycles, grid.inside[0, whole], grid.ramp_edge, 0.0)
    assert promised <= cost.energy_pj * cost.cycles * slack


@given(*(st.integers(1, 7) for _ in range(4)))
def test_copies_of_a_window_are_counted_by_their_starts(n1: int, n2: int, s1: int, s2: int) -> None:
    assert overlap_free(n1, n2, s1, s2) == len({i * s1 + j * s2 for i in range(n1) for j in range(n2)})


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_the_lattice_holds_every_divisor_and_what_divides_it(temporal: list[int]) -> None:
    div, number, below, count, strides = lattice(tuple(temporal))
    for d, whole in enumerate(temporal):
        divisors = [n for n in range(1, whole + 1) if whole % n == 0]
        assert div[d, : number[d]].tolist() == divisors
        for i, n in enumerate(divisors):
            inside = [divisors[j] for j in below[d, i, : count[d, i]]]
            assert sorted(inside) == [m for m in divisors if n % m == 0]
            assert inside == sorted(inside, reverse=True)
    assert all(a == b * n for a, b, n in zip(strides[:-1], strides[1:], number[1:], strict=True))


def test_orders_are_told_apart_only_by_tensors_that_lie_further_in() -> None:
    arch = load_arch(EXAMPLES / "gemmini_like.yaml")
    setting = SearchProblem(layer(), arch, "native", access_energy(arch), "edp")
    roles = [tensor.role for tensor in setting.problem.tensors]
    keeps = tuple(tuple(role in level.holds for role in roles) for level in arch.levels)
    classes = setting.classes(keeps)
    every = (1 << len(setting.live)) - 1
    counts = [int(classes.first[k, every + 1] - classes.first[k, every]) for k in range(len(arch.levels) - 1)]
    # all three tensors move below DRAM, outputs and weights below the scratchpad, weights below the accumulator
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    (innermost,) = classes.rests[classes.first[-1, every] : classes.first[-1, every + 1]]
    weights = roles.index("weight")
    assert bin(innermost[weights]).count("1") == len(setting.live) - len(setting.signature[weights][0])


@pytest.mark.parametrize(("inside", "expected"), [((5.0, 3.0), False), ((9.0, 7.0), True), ((np.inf, 3.0), True)])
def test_a_ramp_that_less_energy_needs_counts_against_it(inside: tuple[float, ...], expected: bool) -> None:
    # incumbent 10 pJ x 10 cycles; 4 pJ and 10 cycles so far; the second step of ramp takes 10 cycles more
    best = np.array([100.0, 10.0, 10.0, 10.0, np.inf])
    assert hopeless(2, 4.0, 10.0, np.array(inside), np.array([0.0, 10.0]), 0.0, best) == expected


def layer() -> Problem:
    """A convolution too large to try all mappings."""
    window = (((2, 2), (4, 1)), ((3, 2), (5, 1)))
    return Problem(
        "conv",
        ("M", "C", "P", "Q", "R", "S"),
        (64, 48, 14, 28, 3, 3),
        (
            TensorAccess("w", "weight", (((0, 1),), ((1, 1),), ((4, 1),), ((5, 1),))),
            TensorAccess("i", "input", (((1, 1),), *window)),
            TensorAccess("o", "output", (((0, 1),), ((2, 1),), ((3, 1),))),
        ),
    )


@cache
def optimum(name: str, objective: str) -> Solution:
    return best_mapping(layer(), load_arch(EXAMPLES / f"{name}.yaml"), objective)


@pytest.mark.parametrize("name", ["gemmini_like", "eyeriss_like", "vector_unit"])
def test_no_neighbour_of_a_large_layers_optimum_beats_it(name: str) -> None:
    arch = load_arch(EXAMPLES / f"{name}.yaml")
    rng = random.Random(3)
    for objective in ("energy", "edp"):
        best = optimum(name, objective)
        tried = 0
        for _ in range(400):
            try:
                cost = evaluate(layer(), arch, neighbour(rng, best.mapping))
            except InfeasibleError:
                continue
            tried += 1
            value = cost.energy_pj * (cost.cycles if objective == "edp" else 1)
            assert value >= best.value * (1 - 1e-9)
        assert tried > 50


def neighbour(rng: random.Random, mapping: Mapping) -> Mapping:
    """A few prime factors moved to other levels, and some levels' loops in another order."""
    loops = [dict(part.loops) for part in mapping.temporal]
    for _ in range(rng.randint(0, 3)):
        source = rng.choice([k for k, items in enumerate(loops) if items])
        dim = rng.choice(list(loops[source]))
        count = loops[source][dim]
        prime = next((p for p in range(2, count + 1) if count % p == 0), 1)
        target = rng.randrange(len(loops))
        loops[source][dim] //= prime
        loops[target][dim] = loops[target].get(dim, 1) * prime
    parts = []
    for part, items in zip(mapping.temporal, loops, strict=True):
        order = rng.sample(list(items), len(items)) if rng.random() < 0.5 else list(items)
        parts.append(type(part)(part.level, tuple((dim, items[dim]) for dim in order if items[dim] > 1), part.bypass))
    return Mapping(tuple(parts), mapping.spatial)


@pytest.mark.parametrize("name", ["gemmini_like", "eyeriss_like"])
def test_a_larger_memory_or_a_faster_port_is_never_worse(name: str) -> None:
    arch = load_arch(EXAMPLES / f"{name}.yaml")
    prices = access_energy(arch)
    found = []
    for factor in (1, 2, 4):
        levels = [
            level.model_copy(
                update={
                    "capacity_bytes": level.capacity_bytes and level.capacity_bytes * factor,
                    "read_words_per_cycle": level.read_words_per_cycle and level.read_words_per_cycle * factor,
                }
            )
            for level in arch.levels
        ]
        larger = arch.model_copy(update={"levels": tuple(levels)})
        found.append(best_mapping(layer(), larger, "edp", energy=prices).value)
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(found))
