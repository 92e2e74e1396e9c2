"""Which values rest on the chip: dynamic programming over the steps of a network, on what the levels hold.

A state is the set of values that rest after a step, with their levels; a step may let each value that it writes rest
in one of the levels or not. A layer is mapped by the exact mapper for every way its own values can rest and the room
that is left. Energy, cycles and traffic add up, so that one label a state suffices; for products of energy and cycles
all labels are kept of which none is better in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from dse.core.errors import InfeasibleError
from dse.mapping.layers import LayerMapper, PartMapping, objective_keys, resting_levels, total
from dse.mapping.residency import Plan, Step, pass_cost, room_of, weights_of

#: States, and labels of a state, that are followed; beyond, the most promising are, and the result says so.
MAX_STATES, MAX_LABELS = 256, 256
#: What rests after a step: (value, level).
State = frozenset[tuple[str, str]]


class _Label(NamedTuple):
    energy: float
    cycles: float
    bits: float
    before: _Label | None
    chosen: StepMapping | None


@dataclass(frozen=True)
class StepMapping:
    """A step, the levels of those of its values that rest, its parts (none for a pass), and what it costs."""

    step: Step
    resident: dict[str, str]
    parts: tuple[PartMapping, ...]
    energy_pj: float
    cycles: int
    bits: float


@dataclass(frozen=True)
class Residency:
    """The steps with what rests. `exact` is False when states were left out; `value` is the objective of the network
    and `bound` a lower bound of it that holds in either case. `pinned` is the level where all weights stay from one
    inference to the next, or empty.
    """

    steps: tuple[StepMapping, ...]
    value: float
    bound: float
    exact: bool
    pinned: str = ""

    @property
    def gap(self) -> float:
        """Relative distance between value and bound; 0 when the choice is proven best."""
        return 0.0 if self.value <= 0 else max(0.0, 1 - self.bound / self.value)

    @property
    def energy_pj(self) -> float:
        return math.fsum(step.energy_pj for step in self.steps)

    @property
    def cycles(self) -> int:
        return sum(step.cycles for step in self.steps)

    @property
    def bits(self) -> float:
        """Bits that cross the outermost level."""
        return math.fsum(step.bits for step in self.steps)

    @property
    def sums(self) -> tuple[float, int, float]:
        """pJ, cycles and bits at the outermost level."""
        return self.energy_pj, self.cycles, self.bits

    @property
    def resting(self) -> dict[str, str]:
        """Level of every value that rests."""
        return {name: level for step in self.steps for name, level in step.resident.items()}


def nothing_rests(plan: Plan, mapper: LayerMapper, advance: Callable[[str], None] | None = None) -> Residency:
    """The network with every value in the outermost level.

    Raises
    ------
    InfeasibleError: a layer does not fit.
    """
    found = []
    for step in plan.steps:
        found.append(_step(plan, step, {}, {}, mapper))
        if advance is not None and step.ways:
            advance(step.op)
    energy, cycles = math.fsum(s.energy_pj for s in found), sum(s.cycles for s in found)
    value = objective_keys(mapper.objective, energy, cycles, math.fsum(s.bits for s in found))[0]
    return Residency(tuple(found), value, value, True)


def best_residency(plan: Plan, mapper: LayerMapper, *, steady: bool = False) -> Residency:
    """What should rest where, so that the network's objective is least.

    Every layer is mapped for the same objective; the sums over layers decide what rests.

    Parameters
    ----------
    steady
        The network runs again and again: the weights of all layers together may also stay in one level for good.

    Raises
    ------
    InfeasibleError: a layer does not fit even when nothing rests.
    """
    best = _with_pinned(plan, mapper, "", {})
    weights = weights_of(plan, mapper)
    for level in resting_levels(mapper.arch) if steady and weights else ():
        fits = level.capacity_bytes is None or sum(weights.values()) < level.capacity_bytes
        if fits and mapper.may_rest("weight", level):
            try:
                other = _with_pinned(plan, mapper, level.name, weights)
            except InfeasibleError:
                continue
            best = min(best, other, key=lambda found: objective_keys(mapper.objective, *found.sums))
    return best


def _with_pinned(plan: Plan, mapper: LayerMapper, pinned: str, weights: dict[str, int]) -> Residency:
    states: dict[State, list[_Label]] = {frozenset(): [_Label(0.0, 0, 0.0, None, None)]}
    exact = True
    costs = _Costs(plan, mapper, pinned, weights)
    for place in range(len(plan.steps)):
        following: dict[State, list[_Label]] = {}
        for state, labels in states.items():
            for chosen in _choices(costs, place, state):
                made = costs.step(place, {**dict(state), **chosen})
                if made is None:
                    continue
                ended = frozenset(
                    (name, level) for name, level in {**dict(state), **chosen}.items() if plan.values[name].last > place
                )
                following.setdefault(ended, []).extend(
                    _Label(a.energy + made.energy_pj, a.cycles + made.cycles, a.bits + made.bits, a, made)
                    for a in labels
                )
        if not following:
            costs.raise_first(place)
        states, whole = _thinned(following, mapper.objective)
        exact = exact and whole
    best = min(
        (label for labels in states.values() for label in labels),
        key=lambda label: objective_keys(mapper.objective, *label[:3]),
    )
    value = objective_keys(mapper.objective, *best[:3])[0]
    return Residency(tuple(_walk_back(best)), value, value if exact else costs.bound(), exact, pinned)


def _choices(costs: _Costs, place: int, state: State) -> Iterator[dict[str, str]]:
    """Where the values that a step writes may rest beside those that rest already."""
    plan, mapper = costs.plan, costs.mapper
    names = [name for name in plan.steps[place].writes if plan.values[name].levels]
    capacity = {level.name: level.capacity_bytes for level in mapper.arch.levels}
    for levels in product(*(("", *plan.values[name].levels) for name in names)):
        chosen = {name: level for name, level in zip(names, levels, strict=True) if level}
        taken = costs.room(place, {**dict(state), **chosen})
        if all((limit := capacity[level]) is None or size < limit for level, size in taken.items()):
            yield chosen


def occupied(plan: Plan, place: int, resting: dict[str, str], mapper: LayerMapper) -> dict[str, int]:
    """Bytes by level that resting values take during a step."""
    taken: dict[str, int] = {}
    for name, level in resting.items():
        taken[level] = taken.get(level, 0) + room_of(plan.values[name], place, plan, mapper)
    return taken


def _step(
    plan: Plan, step: Step, resident: dict[str, str], room: dict[str, int], mapper: LayerMapper,
    pinned: dict[str, str] | None = None,
) -> StepMapping:  # fmt: skip
    own = {name: level for name, level in resident.items() if name in (*step.reads, *step.writes)}
    if not step.ways:
        return StepMapping(step, own, (), *pass_cost(step, plan, own, mapper))
    tensors = {**(pinned or {}), **{name: own[value] for name, value in step.tensors.items() if value in own}}
    parts = mapper.best(step.ways, tensors, room)
    return StepMapping(step, own, parts, *total(parts))


class _Costs:
    """Costs of steps, computed once for each way their own values rest and the room that is taken."""

    def __init__(
        self, plan: Plan, mapper: LayerMapper, pinned: str = "", weights: dict[str, int] | None = None
    ) -> None:
        self.plan, self.mapper = plan, mapper
        self.pinned = dict.fromkeys(weights or {}, pinned)
        self.always = {pinned: sum(weights.values())} if pinned and weights else {}
        self.known: dict[object, StepMapping | InfeasibleError] = {}

    def room(self, place: int, resting: dict[str, str]) -> dict[str, int]:
        """Bytes by level that are taken during a step."""
        taken = occupied(self.plan, place, resting, self.mapper)
        for level, size in self.always.items():
            taken[level] = taken.get(level, 0) + size
        return taken

    def step(self, place: int, resting: dict[str, str]) -> StepMapping | None:
        step = self.plan.steps[place]
        own = frozenset((n, level) for n, level in resting.items() if n in (*step.reads, *step.writes))
        room = self.room(place, resting) if step.ways else {}
        key = (place, own, frozenset(room.items()))
        if key not in self.known:
            try:
                self.known[key] = _step(self.plan, step, dict(own), room, self.mapper, self.pinned)
            except InfeasibleError as error:
                self.known[key] = error
        found = self.known[key]
        return None if isinstance(found, InfeasibleError) else found

    def raise_first(self, place: int) -> None:
        """Raise why a step does not fit when nothing rests."""
        _step(self.plan, self.plan.steps[place], {}, dict(self.always), self.mapper, self.pinned)
        raise AssertionError("unreachable: nothing may rest in every state that is followed")

    def bound(self) -> float:
        """Every step as though it alone decided what rests: no sum over the network is less."""
        least: list[tuple[float, float, float]] = []
        for place, step in enumerate(self.plan.steps):
            names = [name for name in (*step.reads, *step.writes) if self.plan.values[name].levels]
            options = [
                made
                for levels in product(*(("", *self.plan.values[name].levels) for name in names))
                if (made := self.step(place, {n: v for n, v in zip(names, levels, strict=True) if v})) is not None
            ]
            least.append(
                (min(o.energy_pj for o in options), min(o.cycles for o in options), min(o.bits for o in options))
            )
        energy, cycles, bits = (sum(column) for column in zip(*least, strict=True))
        return objective_keys(self.mapper.objective, energy, cycles, bits)[0]


def _thinned(states: dict[State, list[_Label]], objective: str) -> tuple[dict[State, list[_Label]], bool]:
    """(states with only the labels that can still be best, whether nothing that could be was left out)."""
    exact = True
    for state, labels in states.items():
        labels.sort(key=lambda label: objective_keys(objective, *label[:3]) if _additive(objective) else label[:2])
        kept = labels[:1]
        if not _additive(objective):
            for label in labels[1:]:
                if label.cycles < kept[-1].cycles:
                    kept.append(label)
            if len(kept) > MAX_LABELS:
                kept = sorted(kept, key=lambda label: objective_keys(objective, *label[:3]))[:MAX_LABELS]
                exact = False
        states[state] = kept
    if len(states) > MAX_STATES:
        ranked = sorted(states, key=lambda s: min(objective_keys(objective, *a[:3]) for a in states[s]))
        # the state in which nothing rests is always feasible further on
        states = {s: states[s] for s in {*ranked[:MAX_STATES], frozenset()} if s in states}
        exact = False
    return states, exact


def _additive(objective: str) -> bool:
    return objective in ("energy", "latency", "traffic")


def _walk_back(label: _Label) -> list[StepMapping]:
    steps: list[StepMapping] = []
    at: _Label | None = label
    while at is not None and at.chosen is not None:
        steps.append(at.chosen)
        at = at.before
    return steps[::-1]
