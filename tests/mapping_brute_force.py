"""Every mapping of a small problem, the slow way, and what objectives compare."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import permutations, product

from mapping_samples import random_arch, random_problem

from dse.arch import Arch
from dse.mapping import Mapping, MappingCost, Problem, TemporalLevel


def splits(number: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ordered products of `parts` divisors."""
    if parts == 1:
        yield (number,)
        return
    for n in range(1, number + 1):
        if number % n == 0:
            for rest in splits(number // n, parts - 1):
                yield (n, *rest)


def every_mapping(problem: Problem, arch: Arch) -> Iterator[Mapping]:
    """Factors for every level and axis, all orders of all levels but the innermost."""
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
    """The value of an objective."""
    energy, cycles = cost.energy_pj, cost.cycles
    return {"energy": energy, "latency": cycles, "edp": energy * cycles, "ed2p": energy * cycles**2}[objective]


def small_case(seed: int) -> tuple[Problem, Arch]:
    """A problem and an architecture small enough to try everything."""
    rng = random.Random(seed)
    problem, arch = random_problem(rng, 4), random_arch(rng, levels=rng.choice([2, 2, 3]), capacity=True)
    while sum(bound > 1 for bound in problem.bounds) > 3 or problem.macs > 48:
        problem = random_problem(rng, 4)
    return problem, arch
