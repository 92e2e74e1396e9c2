"""The exact mapper: the best mapping of a stated space, with the proof that there is no better one.

The space: every unrolling of divisors over the axes, every split of the rest over the levels into divisors, every
order of the loops of a level, and on request every bypass. Spaces are ordered by a lower bound and searched
depth first; a space or a tile whose bound does not beat the incumbent is left out, which proves the incumbent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np

from dse.arch import Arch
from dse.core.errors import InfeasibleError, InvariantError, UsageError, Violation, nearest
from dse.mapping.bounds import least_inside, level_bound
from dse.mapping.cost import CountMode, MappingCost, capacity_words, evaluate
from dse.mapping.descent import search
from dse.mapping.energy import AccessEnergy, access_energy
from dse.mapping.mapping import Mapping, TemporalLevel
from dse.mapping.problem import Problem
from dse.mapping.space import Keeps, SearchProblem, build
from dse.mapping.spatial import Constraints, Unrolling, unrollings
from dse.mapping.tables import OBJECTIVES, Floats, Ints, State, Tables, cycles_of, keys, worse

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
    setting = SearchProblem(problem, arch, mode, energy or access_energy(arch), objective)
    found = _search_all(setting, rules, search_bypass, cycles_below)
    incumbent, spaces, evaluated = found
    if incumbent.unrolling is None or incumbent.keeps is None:
        raise _nothing_fits(setting, rules, search_bypass, cycles_below)
    mapping = _mapping_of(setting, incumbent)
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
    bypasses = bypass_choices(setting.problem, setting.arch, rules, search_bypass)
    spaces = evaluated = 0
    floor = _energy_floor(setting)
    macs_per_cycle = setting.arch.compute.macs_per_cycle
    for units, group in groupby(unrollings(setting.problem, setting.arch, rules), key=_units):
        fewest = setting.problem.macs / units / macs_per_cycle
        if worse(number, floor, fewest, incumbent.best[0], incumbent.best[1]):
            continue
        for bound, _, unrolling, keeps, tables in _spaces(setting, list(group), bypasses):
            if bound[1] >= cycles_below or worse(number, *bound, incumbent.best[0], incumbent.best[1]):
                continue
            before = incumbent.best[:4].copy()
            spaces += 1
            evaluated += _search_space(tables, number, incumbent)
            if not np.array_equal(before, incumbent.best[:4]):
                incumbent.unrolling, incumbent.keeps = unrolling, keeps
    return incumbent, spaces, evaluated


def _units(unrolling: Unrolling) -> int:
    return math.prod(math.prod(factors) for factors in unrolling)


_Space = tuple[tuple[float, float], int, Unrolling, Keeps, Tables]


def _spaces(setting: SearchProblem, choices: list[Unrolling], bypasses: list[Keeps]) -> list[_Space]:
    """Spaces with (least energy, least cycles), the most promising first."""
    number = OBJECTIVES.index(setting.objective)
    found: list[_Space] = []
    for unrolling in choices:
        for keeps in bypasses:
            tables = build(setting, unrolling, keeps)
            if tables is not None:
                bound = (_least_energy(setting, tables), cycles_of(tables, tables.constant, 0.0))
                found.append((bound, len(found), unrolling, keeps, tables))
    return sorted(found, key=lambda item: (keys(number, *item[0]), item[1]))


def _energy_floor(setting: SearchProblem) -> float:
    """Energy of the MACs alone, whatever the mapping."""
    energy = setting.problem.macs * setting.energy.mac_pj
    return 0.0 if setting.objective == "traffic" else energy


def _least_energy(setting: SearchProblem, tables: Tables) -> float:
    """Energy of what is fixed, and of every word entering every level once."""
    least = float(tables.constant[0])
    for tensor, access in enumerate(setting.problem.tensors):
        whole = access.words(setting.problem.bounds)
        for level in range(1, tables.kept.shape[1]):
            if tables.kept[tensor, level] and not any(len(axis) > 1 for axis in access.axes):
                per_instance = whole / math.prod(
                    int(tables.spin[0, d] // tables.spin[level, d])
                    for d in range(tables.number.shape[0])
                    if tables.indexes[tensor, d]
                )
                least += per_instance * float(tables.own[0, tensor, level] + tables.shared[0, tensor, level])
    return least


def _search_space(tables: Tables, objective: int, incumbent: _Incumbent) -> int:
    levels = tables.kept.shape[1]
    tensors, dims = tables.axis_of.shape
    lattice = int(np.prod(tables.number))
    here, inside = np.zeros((levels, lattice)), np.zeros((levels, lattice))
    for level in range(levels - 1, 0, -1):
        level_bound(tables, level, here[level])
        here[level] += inside[level]
        inside[level - 1] = here[level]
        least_inside(tables, inside[level - 1])
    cycles = cycles_of(tables, tables.constant, 0.0)
    full = lattice - 1
    if worse(objective, float(tables.constant[0] + inside[0, full]), cycles, *incumbent.best[:2]):
        return 0
    state = State(
        np.zeros((levels, dims), np.int64),
        np.zeros((levels, tables.constant.shape[0])),
        np.zeros(levels),
        np.ones((levels, tensors)),
        np.ones((levels, tensors)),
        np.full((levels, tensors), -1, np.int64),
        np.zeros((levels, tensors), np.int64),
        np.ones(levels),
    )
    state.tiles[0] = tables.number - 1
    state.rows[0] = tables.constant
    if levels == 1:
        return _single_level(tables, objective, incumbent)
    _, evaluated = search(tables, state, inside, here, objective, incumbent.best, incumbent.tiles, incumbent.orders)
    return int(evaluated)


def _single_level(tables: Tables, objective: int, incumbent: _Incumbent) -> int:
    energy, cycles = float(tables.constant[0]), math.ceil(cycles_of(tables, tables.constant, 0.0) - 1e-9)
    if cycles < incumbent.best[4] and not worse(objective, energy, cycles, *incumbent.best[:2]):
        incumbent.best[:4] = (*keys(objective, energy, cycles), energy, cycles)
        incumbent.tiles[0] = tables.number - 1
    return 1


def _mapping_of(setting: SearchProblem, incumbent: _Incumbent) -> Mapping:
    assert incumbent.unrolling is not None
    assert incumbent.keeps is not None
    problem, arch = setting.problem, setting.arch
    left = [problem.bounds[d] // math.prod(f[d] for f in incumbent.unrolling) for d in setting.live]
    tables = [[n for n in range(1, whole + 1) if whole % n == 0] for whole in left]
    temporal = []
    for k, level in enumerate(arch.levels):
        last = k == len(arch.levels) - 1
        inner = [1 if last else tables[i][int(incumbent.tiles[k + 1, i])] for i in range(len(left))]
        factors = {i: whole // part for i, (whole, part) in enumerate(zip(left, inner, strict=True))}
        order = range(len(left)) if last else setting.classes[0][int(incumbent.orders[k])].order
        loops = tuple((problem.dims[setting.live[i]], factors[i]) for i in reversed(order) if factors[i] > 1)
        bypass = frozenset(
            tensor.role
            for t, tensor in enumerate(problem.tensors)
            if tensor.role in level.holds and not incumbent.keeps[k][t]
        )
        temporal.append(TemporalLevel(level.name, loops, bypass))
        left = inner
    spatial = {
        axis.name: tuple((problem.dims[d], n) for d, n in enumerate(factors) if n > 1)
        for axis, factors in zip(arch.axes, incumbent.unrolling, strict=True)
    }
    return Mapping(tuple(temporal), spatial)


def _nothing_fits(setting: SearchProblem, rules: Constraints, search_bypass: bool, cycles_below: float) -> Exception:
    """The smallest tiles of the first choice of bypass against the levels, or the limit on cycles."""
    problem, arch = setting.problem, setting.arch
    keeps = bypass_choices(problem, arch, rules, search_bypass)[-1]
    broken = []
    for k, level in enumerate(arch.levels):
        sizes = problem.bounds if k == 0 else (1,) * len(problem.bounds)
        needed = [
            access.words(sizes) * float(setting.width[t, k]) for t, access in enumerate(problem.tensors) if keeps[k][t]
        ]
        words = sum(needed) if level.shared else max(needed, default=0.0)
        if words > capacity_words(level) + 1e-9:
            what = "whole tensors" if k == 0 else "smallest tiles"
            broken.append(Violation(f"{what} in level {level.name}", words, capacity_words(level), "words"))
    if not broken and math.isfinite(cycles_below):
        fewest = problem.macs / arch.peak_macs_per_cycle
        broken.append(Violation("cycles", fewest, cycles_below, "cycles", "no mapping takes fewer"))
    if not broken:
        demand = {name: dict(factors) for name, factors in rules.unroll.items()}
        broken.append(Violation("unrolling", len(demand), 0, "axes", "the demanded unrolling leaves no tile that fits"))
    return InfeasibleError(f"no mapping of {problem.name} on {arch.name}", broken)
