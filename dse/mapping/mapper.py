"""The exact mapper: the best mapping of a stated space, with the proof that there is no better one.

The space: every unrolling of divisors over the axes, every split of the rest over the levels into divisors, every
order of the loops of a level, and on request every bypass. Spaces are ordered by a lower bound and searched
depth first; a space or a tile whose bound does not beat the incumbent is left out, which proves the incumbent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dse.arch import Arch
from dse.core.errors import InfeasibleError, InvariantError, UsageError, Violation, nearest
from dse.mapping.cost import CountMode, MappingCost, capacity_words, evaluate
from dse.mapping.descent import search_space
from dse.mapping.energy import AccessEnergy, access_energy
from dse.mapping.mapping import Mapping
from dse.mapping.prepare import Weights
from dse.mapping.problem import Problem
from dse.mapping.space import Keeps, SearchProblem
from dse.mapping.spatial import Constraints, Unrolling, unrollings
from dse.mapping.tables import OBJECTIVES, RAMP_STEPS, Floats, Ints, keys, worse

#: Relative difference at which kernel and cost model may not disagree.
_AGREEMENT = 1e-9


@dataclass(frozen=True)
class Solution:
    """The best mapping: what it costs, and the work of proving it.

    `value` is the objective (pJ, cycles, pJ * cycles, pJ * cycles^2 or bits); `bound` a proven lower bound of it.
    """

    mapping: Mapping
    cost: MappingCost
    objective: str
    value: float
    bound: float
    spaces: int
    evaluated: int

    @property
    def gap(self) -> float:
        """Relative distance between value and bound; 0 when proven optimal."""
        return 0.0 if self.value <= 0 else max(0.0, 1 - self.bound / self.value)


@dataclass
class _Incumbent:
    best: Floats
    tiles: Ints
    orders: Ints
    unrolling: Unrolling | None = None
    keeps: Keeps | None = None


def best_mapping(
    problem: Problem,
    arch: Arch,
    objective: str = "edp",
    *,
    mode: CountMode = "native",
    constraints: Constraints | None = None,
    search_bypass: bool = False,
    energy: AccessEnergy | None = None,
    cycles_below: float = math.inf,
) -> Solution:
    """The best mapping of `problem` on `arch`.

    Parameters
    ----------
    objective
        One of `OBJECTIVES`; ties are decided by cycles, for latency and traffic by energy.
    search_bypass
        Also decide which tensors stop at which level (else every level keeps what it holds).
    cycles_below
        Only mappings that take fewer cycles.

    Raises
    ------
    UsageError: unknown objective or a constraint that cannot be obeyed.
    InfeasibleError: no mapping fits; names the level and the excess of the smallest tiles.
    """
    if objective not in OBJECTIVES:
        raise UsageError(f"{objective!r} is not an objective{nearest(objective, OBJECTIVES)}")
    rules = constraints or Constraints()
    rules.check(problem, arch)
    setting = SearchProblem(problem, arch, mode, energy or access_energy(arch), objective, rules)
    found = _search_all(setting, rules, search_bypass, cycles_below)
    incumbent, spaces, evaluated = found
    if incumbent.unrolling is None or incumbent.keeps is None:
        raise _nothing_fits(setting, rules, search_bypass, cycles_below)
    tiles = [setting.tile(incumbent.unrolling, [int(e) for e in row]) for row in incumbent.tiles]
    mapping = setting.mapping(incumbent.unrolling, incumbent.keeps, tiles, [int(o) for o in incumbent.orders])
    cost = evaluate(problem, arch, mapping, mode=mode, energy=setting.energy)
    if abs(cost.cycles - incumbent.best[3]) > 1 or (
        objective != "traffic" and abs(cost.energy_pj / incumbent.best[2] - 1) > _AGREEMENT
    ):
        raise InvariantError(
            f"mapper and cost model disagree on {mapping}: {incumbent.best[2]} pJ, {incumbent.best[3]} cycles "
            f"against {cost.energy_pj} pJ, {cost.cycles} cycles"
        )
    value = float(incumbent.best[0])
    return Solution(mapping, cost, objective, value, value, spaces, evaluated)


def pareto_mappings(
    problem: Problem,
    arch: Arch,
    *,
    mode: CountMode = "native",
    constraints: Constraints | None = None,
    search_bypass: bool = False,
    limit: int = 64,
) -> list[Solution]:
    """Mappings of which none takes both less energy and fewer cycles than another, least energy first.

    Every point is an exact search for the least energy in fewer cycles than the point before. At most `limit`
    points are returned: those of least energy. Raises as `best_mapping`.
    """
    front: list[Solution] = []
    below = math.inf
    while len(front) < limit:
        try:
            found = best_mapping(
                problem, arch, "energy", mode=mode, constraints=constraints, search_bypass=search_bypass,
                cycles_below=below,
            )  # fmt: skip
        except InfeasibleError:
            if not front:
                raise
            break
        front.append(found)
        below = found.cost.cycles
    return front


def bypass_choices(problem: Problem, arch: Arch, rules: Constraints, search_bypass: bool) -> list[Keeps]:
    """What every level keeps: as the architecture and the constraints say, or every choice that they leave open."""
    fixed: list[list[bool]] = []
    open_places: list[tuple[int, int]] = []
    for k, level in enumerate(arch.levels):
        row = []
        for t, tensor in enumerate(problem.tensors):
            holds = tensor.role in level.holds and tensor.role not in rules.bypass.get(level.name, ())
            row.append(holds)
            if search_bypass and holds and k and tensor.role not in rules.keep.get(level.name, ()):
                open_places.append((k, t))
        fixed.append(row)
    for t, tensor in enumerate(problem.tensors):
        if not any(row[t] for row in fixed):
            raise UsageError(f"no level of {arch.name} keeps the {tensor.role} {tensor.name!r}")
    choices = []
    for number in range(len(open_places) + 1):
        for dropped in combinations(open_places, number):
            keeps = tuple(
                tuple(kept and (k, t) not in dropped for t, kept in enumerate(row)) for k, row in enumerate(fixed)
            )
            if all(any(row[t] for row in keeps) for t in range(len(problem.tensors))):
                choices.append(keeps)
    return choices


def _search_all(
    setting: SearchProblem, rules: Constraints, search_bypass: bool, cycles_below: float
) -> tuple[_Incumbent, int, int]:
    levels, dims = len(setting.arch.levels), len(setting.live)
    incumbent = _Incumbent(
        np.array([math.inf, math.inf, math.inf, math.inf, cycles_below]),
        np.zeros((levels, dims), np.int64),
        np.zeros(max(1, levels - 1), np.int64),
    )
    number = OBJECTIVES.index(setting.objective)
    spaces = evaluated = 0
    choices = unrollings(setting.problem, setting.arch, rules)
    bypasses = bypass_choices(setting.problem, setting.arch, rules, search_bypass)
    for energy, cycles, u, keeps, weights in _spaces(setting, choices, bypasses):
        if cycles >= cycles_below or worse(number, energy, cycles, incumbent.best[0], incumbent.best[1]):
            continue
        before = incumbent.best[:4].copy()
        _, tried = search_space(
            setting.tables(weights, u, keeps), RAMP_STEPS, number, incumbent.best, incumbent.tiles, incumbent.orders
        )
        spaces, evaluated = spaces + 1, evaluated + int(tried)
        if not np.array_equal(before, incumbent.best[:4]):
            incumbent.unrolling, incumbent.keeps = choices[u], keeps
    return incumbent, spaces, evaluated


def _spaces(
    setting: SearchProblem, choices: list[Unrolling], bypasses: list[Keeps]
) -> list[tuple[float, float, int, Keeps, Weights]]:
    """Spaces with their least energy and cycles, the most promising first."""
    number = OBJECTIVES.index(setting.objective)
    found: list[tuple[float, float, int, Keeps, Weights]] = []
    for keeps in bypasses:
        weights = setting.weights(choices, keeps)
        ports = np.maximum(weights.compute_cycles, weights.least[:, 1:].max(axis=1, initial=0.0))
        found += [
            (float(weights.least[u, 0]), float(ports[u]), u, keeps, weights)
            for u in np.flatnonzero(weights.valid).tolist()
        ]
    return sorted(found, key=lambda item: keys(number, item[0], item[1]))


def _nothing_fits(setting: SearchProblem, rules: Constraints, search_bypass: bool, cycles_below: float) -> Exception:
    """The smallest tiles of the first choice of bypass against the levels, or the limit on cycles."""
    problem, arch = setting.problem, setting.arch
    keeps = bypass_choices(problem, arch, rules, search_bypass)[-1]
    broken = []
    for k, level in enumerate(arch.levels):
        sizes = problem.bounds if k == 0 else (1,) * len(problem.bounds)
        needed = [
            (access.words(sizes) * float(setting.held[t, k]), capacity_words(level, access.role))
            for t, access in enumerate(problem.tensors)
            if keeps[k][t]
        ]
        if level.shared:
            needed = [(sum(words for words, _ in needed), capacity_words(level))]
        for words, room in needed:
            if words > room + 1e-9:
                what = "whole tensors" if k == 0 else "smallest tiles"
                broken.append(Violation(f"{what} in level {level.name}", words, room, "words"))
    if not broken and math.isfinite(cycles_below):
        fewest = problem.macs / arch.peak_macs_per_cycle
        broken.append(Violation("cycles", fewest, cycles_below, "cycles", "no mapping takes fewer"))
    if not broken:
        fixed = [f"units of axis {name}" for name in rules.unroll] + [f"loops of level {name}" for name in rules.loops]
        hint = f"with the constraints on {', '.join(fixed)} no tile fits" if fixed else "no tile fits"
        broken.append(Violation("constraints", len(fixed), 0, "demands", hint))
    return InfeasibleError(f"no mapping of {problem.name} on {arch.name}", broken)
