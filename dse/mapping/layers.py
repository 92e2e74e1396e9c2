"""The best mapping of a whole op: its parts, tensors that rest on the chip, room that others leave, searched once.

A tensor that rests in a level lies there whole before and after the op: levels further out pass it by, its room is
taken from the capacity, and its tiles in that level take none. Everything else is the mapper's usual problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from dse.arch import Arch, MemoryLevel
from dse.arch.rules import Rules
from dse.core.errors import InfeasibleError, Violation
from dse.mapping.cost import CountMode, evaluate, moved_bits, port_time, words_per_element
from dse.mapping.density import Sparsity
from dse.mapping.energy import AccessEnergy, access_energy
from dse.mapping.mapper import Solution, best_mapping
from dse.mapping.nests import Part
from dse.mapping.problem import Problem
from dse.mapping.rules import constraints_of
from dse.mapping.spatial import Constraints
from dse.mapping.tables import OBJECTIVES, keys


@dataclass(frozen=True)
class PartMapping:
    """A part with its best mapping; `kept_at` is the level where its `kept` tensor rests, or empty.

    `extra_pj`, `extra_cycles`, `extra_bits` are what the mapping does not show: loads of the kept tensor, and values
    that an output resumes from.
    """

    part: Part
    solution: Solution
    kept_at: str
    extra_pj: float
    extra_cycles: int
    extra_bits: float
    outer_bits: float

    @property
    def energy_pj(self) -> float:
        return self.part.repeat * self.solution.cost.energy_pj + self.extra_pj

    @property
    def cycles(self) -> int:
        return self.part.repeat * self.solution.cost.cycles + self.extra_cycles

    @property
    def bits(self) -> float:
        """Bits that cross the outermost level."""
        return self.part.repeat * self.outer_bits + self.extra_bits


def total(parts: tuple[PartMapping, ...]) -> tuple[float, int, float]:
    """(pJ, cycles, bits at the outermost level) of parts that run one after the other."""
    energy = math.fsum(part.energy_pj for part in parts)
    return energy, sum(part.cycles for part in parts), math.fsum(part.bits for part in parts)


def objective_keys(objective: str, energy: float, cycles: float, bits: float) -> tuple[float, float]:
    """What an objective compares, first and second."""
    if objective == "traffic":
        return bits, energy
    first, second = keys(OBJECTIVES.index(objective), energy, cycles)
    return float(first), float(second)


#: Bytes set aside, what was found, and for which problem.
_Known = tuple[dict[str, int], Solution | InfeasibleError, Problem]


@dataclass
class LayerMapper:
    """Maps ops of one network on one architecture; problems of equal canonical form and room are searched once."""

    arch: Arch
    objective: str
    mode: CountMode = "native"
    rules: Rules = field(default_factory=Rules)
    search_bypass: bool = False
    sparsity: Sparsity = field(default_factory=Sparsity)
    searched: int = 0

    def __post_init__(self) -> None:
        self._known: dict[tuple[object, ...], list[_Known]] = {}

    @cached_property
    def energy(self) -> AccessEnergy:
        """Prices of the architecture as given: room that is set aside does not make a memory cheaper."""
        return access_energy(self.arch)

    def best(
        self,
        ways: tuple[tuple[Part, ...], ...],
        resident: Mapping[str, str] | None = None,
        room: Mapping[str, int] | None = None,
    ) -> tuple[PartMapping, ...]:
        """The best of the ways to do an op.

        Parameters
        ----------
        resident
            Level of every tensor of the op that rests on the chip.
        room
            Bytes of every level that are set aside, those of `resident` included.

        Raises
        ------
        InfeasibleError: no way fits; the first way's reason.
        UsageError: a constraint that cannot be obeyed.
        """
        found: tuple[PartMapping, ...] | None = None
        failure: InfeasibleError | None = None
        for way in ways:
            for level in ("", *(self._kept_levels() if any(part.kept for part in way) else ())):
                try:
                    tried = self._way(way, level, dict(resident or {}), dict(room or {}))
                except InfeasibleError as error:
                    failure = failure or error
                    continue
                if found is None or self._keys(tried) < self._keys(found):
                    found = tried
        if found is None:
            assert failure is not None
            raise failure
        return found

    def _keys(self, parts: tuple[PartMapping, ...]) -> tuple[float, float]:
        return objective_keys(self.objective, *total(parts))

    def _kept_levels(self) -> list[str]:
        return [level.name for level in resting_levels(self.arch) if self.may_rest("weight", level)]

    def may_rest(self, role: str, level: MemoryLevel) -> bool:
        """Whether rules let a tensor of a role rest in a level, passing by all levels further out."""
        outer = self.arch.levels[: [item.name for item in self.arch.levels].index(level.name)]
        return (
            role in level.holds
            and role not in self.rules.bypass.get(level.name, ())
            and self.rules.stationary.get(level.name, role) == role
            and all(role not in self.rules.keep.get(item.name, ()) for item in outer)
        )

    def _way(
        self, way: tuple[Part, ...], level: str, resident: dict[str, str], room: dict[str, int]
    ) -> tuple[PartMapping, ...]:
        if level:
            for part in way:
                if part.kept:
                    resident[part.kept] = level
                    room[level] = room.get(level, 0) + self.bytes_of(part.problem, part.kept)
        return tuple(self._part(part, level if part.kept else "", resident, room) for part in way)

    def _part(self, part: Part, kept_at: str, resident: Mapping[str, str], room: dict[str, int]) -> PartMapping:
        solution = self.solve(part.problem, resident, room)
        energy, cycles, bits = 0.0, 0.0, 0.0
        for name, times, inward in (
            (part.kept if kept_at else "", part.loads, kept_at),
            (part.resumes, part.repeat, self._outermost_keeper(part)),
        ):
            if name:
                one = self._transfer(part.problem, name, inward)
                energy, cycles, bits = energy + times * one[0], cycles + times * one[1], bits + times * one[2]
        outer = self._outer_bits(part.problem, solution)
        return PartMapping(part, solution, kept_at, energy, math.ceil(cycles - 1e-9), bits, outer)

    def _outermost_keeper(self, part: Part) -> str:
        """The level beneath the outermost that takes what a part's output resumes from; empty: compute units."""
        return next((level.name for level in self.arch.levels[1:] if "output" in level.holds), "")

    def _transfer(self, problem: Problem, name: str, into: str) -> tuple[float, float, float]:
        """(pJ, cycles, bits) of moving a whole tensor from the outermost level; nothing else goes on meanwhile."""
        access = self._sparse(problem).tensors[position(problem, name)]
        elements = access.words(problem.bounds)
        names = [level.name for level in self.arch.levels]
        words = elements * words_per_element(self.arch, self.arch.levels[0], access, self.mode)
        energy, cycles = words * self.energy.read_pj[0], words * port_time(self.arch.levels[0], True)
        if into:
            k = names.index(into)
            written = elements * words_per_element(self.arch, self.arch.levels[k], access, self.mode)
            energy += written * self.energy.write_pj[k]
            cycles = max(cycles, written * port_time(self.arch.levels[k], False))
        return energy, cycles, elements * moved_bits(self.arch, access)

    def _outer_bits(self, problem: Problem, solution: Solution) -> float:
        outermost = self.arch.levels[0].name
        sparse = self._sparse(problem)
        bits = {access.name: moved_bits(self.arch, access) for access in sparse.tensors}
        moved = (item for item in solution.cost.traffic if item.level == outermost)
        return math.fsum((item.reads + item.fills + item.updates) * bits[item.tensor] for item in moved)

    def _sparse(self, problem: Problem) -> Problem:
        return problem if self.sparsity.dense else self.sparsity.apply(problem)

    def bytes_of(self, problem: Problem, name: str) -> int:
        """Bytes of a whole operand."""
        access = problem.tensors[position(problem, name)]
        return math.ceil(access.words(problem.bounds) * operand_bits(self.arch, access.role) / 8)

    def solve(self, problem: Problem, resident: Mapping[str, str], room: Mapping[str, int]) -> Solution:
        """The best mapping of one problem; an optimum that also fits less room is the optimum there.

        Raises
        ------
        As `best`.
        """
        asked = self._sparse(with_residents(problem, resident))
        taken = {name: size for name, size in room.items() if size}
        known = self._known.setdefault((asked.canonical(),), [])
        arch = self.sparsity.arch(asked, with_room(self.arch, taken))
        constraints = with_bypass(self.arch, constraints_of(self.rules, asked, self.arch), asked)
        prices = self.sparsity.energy(asked, self.energy)
        for before, result, names in known:
            less = all(before.get(name, 0) <= taken.get(name, 0) for name in {*before, *taken})
            more = all(before.get(name, 0) >= taken.get(name, 0) for name in {*before, *taken})
            if isinstance(result, InfeasibleError):
                if less:
                    raise result
            elif (more and less) or (less and _fits(asked, arch, result, self.mode, prices)):
                return renamed(result, names, problem)
        self.searched += 1
        try:
            found = best_mapping(
                asked, arch, self.objective, mode=self.mode, constraints=constraints, search_bypass=self.search_bypass,
                energy=prices,
            )  # fmt: skip
        except InfeasibleError as error:
            known.append((taken, error, asked))
            raise
        known.append((taken, found, asked))
        return found


def _fits(problem: Problem, arch: Arch, solution: Solution, mode: CountMode, energy: AccessEnergy) -> bool:
    try:
        evaluate(problem, arch, solution.mapping, mode=mode, energy=energy)
    except InfeasibleError:
        return False
    return True


def renamed(solution: Solution, before: Problem, problem: Problem) -> Solution:
    """The solution of an equal problem with this one's tensor names."""
    names = {old.name: new.name for old, new in zip(before.tensors, problem.tensors, strict=True)}
    if all(old == new for old, new in names.items()):
        return solution
    traffic = tuple(replace(item, tensor=names[item.tensor]) for item in solution.cost.traffic)
    return replace(solution, cost=replace(solution.cost, traffic=traffic))


def position(problem: Problem, name: str) -> int:
    """Position of a tensor; KeyError when the problem has none of that name."""
    for place, access in enumerate(problem.tensors):
        if access.name == name:
            return place
    raise KeyError(name)


def operand_bits(arch: Arch, role: str) -> int:
    """Bits of an element at rest: between layers outputs are as wide as the inputs that they become."""
    return arch.compute.weight_bits if role == "weight" else arch.compute.input_bits


def resting_levels(arch: Arch) -> list[MemoryLevel]:
    """Levels in which a whole tensor can rest: one instance for all compute units, and not a partition a role."""
    return [level for level in arch.levels[1:] if level.instances == 1 and (level.shared or len(level.holds) == 1)]


def with_residents(problem: Problem, resident: Mapping[str, str]) -> Problem:
    """The problem with the levels where tensors rest."""
    if not any(access.name in resident for access in problem.tensors):
        return problem
    tensors = tuple(replace(access, resident=resident.get(access.name, "")) for access in problem.tensors)
    return replace(problem, tensors=tensors)


def with_room(arch: Arch, room: Mapping[str, int]) -> Arch:
    """The architecture with bytes of its levels set aside.

    Raises
    ------
    InfeasibleError: a level has no byte left; names the level and the excess.
    """
    levels, broken = [], []
    for level in arch.levels:
        taken = room.get(level.name, 0)
        if level.capacity_bytes is None or not taken:
            levels.append(level)
        elif taken >= level.capacity_bytes:
            broken.append(
                Violation(f"resting tensors in level {level.name}", taken, level.capacity_bytes, "bytes",
                          "nothing is left for tiles")
            )  # fmt: skip
        else:
            levels.append(level.model_copy(update={"capacity_bytes": level.capacity_bytes - taken}))
    if broken:
        raise InfeasibleError(f"tensors that stay on {arch.name}", broken)
    return arch.model_copy(update={"levels": tuple(levels)})


def with_bypass(arch: Arch, constraints: Constraints, problem: Problem) -> Constraints:
    """The constraints, and that tensors at rest pass by all levels further out."""
    bypass = {name: set(roles) for name, roles in constraints.bypass.items()}
    names = [level.name for level in arch.levels]
    for access in problem.tensors:
        for name in names[: names.index(access.resident)] if access.resident else ():
            bypass.setdefault(name, set()).add(access.role)
    return replace(constraints, bypass={name: frozenset(roles) for name, roles in bypass.items()})
