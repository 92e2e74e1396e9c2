"""A table of mappings for one problem and topology that answers designs: other capacities, rates and prices.

What a mapping moves does not depend on capacities, bandwidths or energies. The table lists, below a first tile, all
mappings that no other matches in traffic and footprint, once and when a design first needs them; a design then is
priced against lists and against the bounds of what is not listed, until nothing left out can be better.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dse.arch import Arch, MemoryLevel
from dse.core.errors import InfeasibleError, UsageError, Violation, nearest
from dse.mapping.bounds import lay_grid
from dse.mapping.cost import CountMode, MappingCost, capacity_words, evaluate, port_time
from dse.mapping.energy import AccessEnergy, access_energy
from dse.mapping.frontier import BLOCK, Prices, below, rank, scan
from dse.mapping.mapper import best_mapping, bypass_choices
from dse.mapping.mapping import Mapping
from dse.mapping.prepare import Weights
from dse.mapping.problem import Problem
from dse.mapping.space import Keeps, SearchProblem
from dse.mapping.spatial import Constraints, Unrolling, unrollings
from dse.mapping.tables import OBJECTIVES, RAMP_STEPS, Floats, Grid, Ints, Tables

#: Objectives that a table answers.
TABLE_OBJECTIVES = tuple(name for name in OBJECTIVES if name != "traffic")
#: What the levels of all designs of a table have in common.
_FIXED = ("word_bits", "instances", "holds", "shared", "window_reuse")
#: Grids that a table keeps at hand; they are made anew when more spaces are open.
_OPEN_GRIDS = 1
_NOTHING = np.zeros(1)
#: A bound that no price brings below an incumbent.
_NEVER = 1e100


@dataclass
class _Space:
    """Lists of one unrolling: `bounds` and `code` of first tiles, and the mappings listed below them so far."""

    bounds: Floats
    first: Ints
    begin: Ints
    count: Ints
    vectors: Floats
    codes: Ints
    used: int = 0
    blocks: Floats = field(init=False)

    def __post_init__(self) -> None:
        edges = range(0, len(self.bounds), BLOCK)
        parts = [self.bounds[at : at + BLOCK].min(axis=0) for at in edges]
        self.blocks = np.array(parts).reshape(len(parts), self.bounds.shape[1])

    def add(self, place: int, vectors: Floats, codes: Ints) -> None:
        """List the mappings below a first tile."""
        number = len(vectors)
        while self.used + number > len(self.vectors):
            self.vectors = np.concatenate((self.vectors, np.zeros_like(self.vectors)))
            self.codes = np.concatenate((self.codes, np.zeros_like(self.codes)))
        self.vectors[self.used : self.used + number] = vectors
        self.codes[self.used : self.used + number] = codes
        self.begin[place], self.count[place] = self.used, number
        self.bounds[place] = vectors.min(axis=0) if number else _NEVER
        block = place // BLOCK
        self.blocks[block] = self.bounds[block * BLOCK : (block + 1) * BLOCK].min(axis=0)
        self.used += number


@dataclass(frozen=True)
class Answer:
    """The best mapping of a design; `mapping` and `cost` are made when asked for.

    `searched` is set when lists would have grown too long and `best_mapping` answered.
    """

    table: MappingTable
    arch: Arch
    energy: AccessEnergy
    objective: str
    energy_pj: float
    cycles: int
    unrolling: Unrolling
    code: tuple[int, ...]
    searched: Mapping | None = None

    @cached_property
    def mapping(self) -> Mapping:
        return self.searched or self.table.mapping_of(self.unrolling, self.code)

    def cost(self) -> MappingCost:
        """The cost model's account of the mapping on the design."""
        return evaluate(self.table.problem, self.arch, self.mapping, mode=self.table.mode, energy=self.energy)


@dataclass
class MappingTable:
    """All mappings of `problem` worth knowing on the topology of `largest`, listed as designs ask for them.

    Parameters
    ----------
    largest
        The topology: levels with word widths, roles and instances, axes, compute units; its capacities are the
        largest that a design may have. Bandwidths and energies are each design's own, and so are the transfer cycles
        of levels that have some.
    patience
        First tiles whose mappings one answer may have to list; beyond, `best_mapping` answers.
    """

    problem: Problem
    largest: Arch
    mode: CountMode = "native"
    constraints: Constraints = field(default_factory=Constraints)
    patience: int = 1000

    def __post_init__(self) -> None:
        self.constraints.check(self.problem, self.largest)
        levels = self.largest.levels
        unit = AccessEnergy((1.0,) * len(levels), (1.0,) * len(levels), 1.0)
        self._setting = SearchProblem(self.problem, self.largest, self.mode, unit, "energy", self.constraints)
        probe = self._setting.setting
        ports = [(k, kind) for kind in (0, 1, 3, 4) for k in range(len(levels))]
        self._setting.__dict__["setting"] = probe._replace(
            port=np.array(ports, np.int64), rate=np.ones(len(ports)),
            setup=np.array([float(kind > 2 and levels[k].transfer_cycles > 0) for k, kind in ports]),
            send=np.ones_like(probe.send), take=np.ones_like(probe.take),
        )  # fmt: skip
        self._keeps: Keeps = bypass_choices(self.problem, self.largest, self.constraints, False)[0]
        self._pairs = [(k, t) for k in range(1, len(levels)) for t, kept in enumerate(self._keeps[k]) if kept]
        choices = unrollings(self.problem, self.largest, self.constraints)
        weights = self._setting.weights(choices, self._keeps)
        self._choices = [choices[u] for u in np.flatnonzero(weights.valid)]
        self._weights = Weights(*(part[weights.valid] for part in weights))  # type: ignore[arg-type]
        self._bounds = np.hstack([self._weights.least[:, 1:], np.zeros((len(self._choices), 2 * len(self._pairs)))])
        self._spaces: dict[int, _Space] = {}
        self._grids: OrderedDict[int, tuple[Tables, Grid]] = OrderedDict()

    @property
    def listed(self) -> int:
        """Mappings in the lists now."""
        return sum(space.used for space in self._spaces.values())

    def best(self, arch: Arch, objective: str = "edp", *, energy: AccessEnergy | None = None) -> Answer:
        """The best mapping on a design of the table's topology: as `best_mapping` finds it, proven in the same space.

        Raises
        ------
        UsageError: the design is of another topology or exceeds the table's capacities, or an unknown objective.
        InfeasibleError: no mapping fits.
        """
        if objective not in TABLE_OBJECTIVES:
            raise UsageError(f"{objective!r} is not an objective of a table{nearest(objective, TABLE_OBJECTIVES)}")
        self._check(arch)
        prices = energy or access_energy(arch)
        design, number = self._prices(arch, prices), OBJECTIVES.index(objective)
        best = np.full(5, math.inf)
        w = self._weights
        chosen, lists = (-1, -1), 0
        for u, key in zip(*rank(design, self._bounds, w.instances, w.compute_cycles, number), strict=True):
            if key > best[0]:
                break
            space = self._open(int(u))
            place = 0
            while place >= 0:
                place, found = scan(
                    design, space.blocks, space.bounds, space.begin, space.count, space.vectors, w.instances[u],
                    w.compute_cycles[u], number, best, _NOTHING,
                )  # fmt: skip
                chosen = (int(u), found) if found >= 0 else chosen
                if place >= 0:
                    lists += 1
                    if lists > self.patience:
                        return self._searched(arch, objective, prices)
                    space.add(place, *below(*self._grid(int(u)), self._pair_array, space.first[place]))
                    self._bounds[u] = space.bounds.min(axis=0)
        if chosen[1] < 0:
            raise InfeasibleError(
                f"no mapping of {self.problem.name} on {arch.name}",
                [Violation("mappings that fit", 0, 1, "mappings", "capacities are too small for any tile")],
            )
        code = tuple(self._spaces[chosen[0]].codes[chosen[1]].tolist())
        return Answer(self, arch, prices, objective, float(best[2]), int(best[3]), self._choices[chosen[0]], code)

    def _searched(self, arch: Arch, objective: str, energy: AccessEnergy) -> Answer:
        found = best_mapping(self.problem, arch, objective, mode=self.mode, constraints=self.constraints, energy=energy)
        cost = found.cost
        return Answer(self, arch, energy, objective, cost.energy_pj, cost.cycles, (), (), found.mapping)

    def mapping_of(self, unrolling: Unrolling, code: tuple[int, ...]) -> Mapping:
        """The mapping that a code of this table stands for."""
        tiles = [[items[-1] for items in self._setting.divisors_in_time(unrolling)]]
        tiles += [self._setting.tile(unrolling, flat) for flat in code[::2]]
        return self._setting.mapping(unrolling, self._keeps, tiles, code[1::2])

    @cached_property
    def _pair_array(self) -> Ints:
        return np.array(self._pairs, np.int64).reshape(len(self._pairs), 2)

    def _grid(self, u: int) -> tuple[Tables, Grid]:
        if u not in self._grids:
            tables = self._setting.tables(self._weights, u, self._keeps)
            self._grids[u] = (tables, lay_grid(tables, RAMP_STEPS[:1]))
            if len(self._grids) > _OPEN_GRIDS:
                self._grids.popitem(last=False)
        return self._grids[u]

    def _open(self, u: int) -> _Space:
        """The lists of an unrolling, with the bounds of all first tiles when it is new."""
        if u not in self._spaces:
            levels = len(self.largest.levels)
            if levels == 1:
                vectors, codes = self._weights.constant[u : u + 1, 1:].copy(), np.zeros((1, 0), np.int64)
            else:
                vectors, codes = below(*self._grid(u), self._pair_array, np.zeros(0, np.int64))
            number = len(vectors)
            if number > BLOCK:
                together = _clustered(vectors)
                vectors, codes = vectors[together], codes[together]
            if levels <= 2:
                place = np.arange(number)
                self._spaces[u] = _Space(vectors, codes, place, np.ones_like(place), vectors, codes, number)
            else:
                unknown = np.full(number, -1)
                self._spaces[u] = _Space(
                    vectors, codes[:, :2].copy(), np.zeros(number, np.int64), unknown,
                    np.zeros((64, vectors.shape[1])), np.zeros((64, codes.shape[1]), np.int64),
                )  # fmt: skip
            self._bounds[u] = vectors.min(axis=0) if number else _NEVER
        return self._spaces[u]

    def _check(self, arch: Arch) -> None:
        """Refuse a design that is not of this topology or exceeds it."""
        if arch is self.largest:
            return
        mine, theirs = self.largest, arch
        for what, a, b in (
            ("axes", mine.axes, theirs.axes),
            ("compute units", _without_price(mine), _without_price(theirs)),
            ("levels", [level.name for level in mine.levels], [level.name for level in theirs.levels]),
        ):
            if a != b:
                raise UsageError(f"table of {mine.name}: {theirs.name} has other {what}; build a table for it")
        for a, b in zip(mine.levels, theirs.levels, strict=True):
            if any(getattr(a, name) != getattr(b, name) for name in _FIXED):
                raise UsageError(
                    f"table of {mine.name}: level {b.name!r} of {theirs.name} differs in more than capacity, "
                    f"bandwidth and energy; build a table for it"
                )
            if b.transfer_cycles and not a.transfer_cycles:
                raise UsageError(
                    f"table of {mine.name}: level {b.name!r} of {theirs.name} has transfer_cycles, the table's level "
                    f"has none; build a table for it"
                )
            for role in sorted(a.holds):
                if _room(b, role) > _room(a, role):
                    raise UsageError(
                        f"table of {mine.name}: {theirs.name}'s level {b.name!r} holds {_room(b, role):g} words "
                        f"a tile, the table goes up to {_room(a, role):g}"
                    )

    def _role(self, tensor: int) -> str:
        return self.problem.tensors[tensor].role

    def _prices(self, arch: Arch, energy: AccessEnergy) -> Prices:
        levels = arch.levels
        rows = [
            (
                energy.read_pj[k], energy.write_pj[k],
                *(1 / rate if rate else 0.0 for rate in (
                    level.read_words_per_cycle, level.write_words_per_cycle, level.shared_words_per_cycle
                )),
                float(level.shared),
                *(
                    level.transfer_cycles * (rate is not None and self.mode == "native") for rate in (
                        level.read_words_per_cycle, level.write_words_per_cycle, level.shared_words_per_cycle
                    )
                ),
            )
            for k, level in enumerate(levels)
        ]  # fmt: skip
        pairs = []
        for k, t in self._pairs:
            inward = self.problem.tensors[t].role != "output"
            parents = [p for p in range(k) if self._keeps[p][t]]
            sent, taken = 0.0, 0.0
            if parents:
                sent = port_time(levels[parents[-1]], inward)
                taken = port_time(levels[k], not inward) * float(self._setting.width[t, k])
            pairs.append((sent, taken, float(k), float(self._setting.held[t, k]), _room(levels[k], self._role(t))))
        fixed = (self.problem.macs * energy.mac_pj, float(self.mode == "native"))
        return Prices(np.array(rows), np.array(pairs).reshape(len(pairs), 5), np.array(fixed))


def _clustered(vectors: Floats) -> Ints:
    """An order in which neighbours are alike: halved again and again along the number that spreads most."""
    spread = np.log(vectors - vectors.min(axis=0) + 1)
    order = np.arange(len(vectors))
    waiting = [(0, len(vectors))]
    while waiting:
        begin, end = waiting.pop()
        if end - begin <= BLOCK:
            continue
        part = order[begin:end]
        along = int(np.argmax(np.ptp(spread[part], axis=0)))
        # halves are whole blocks, so that no block straddles two of them
        middle = (end - begin) // 2 // BLOCK * BLOCK or BLOCK
        order[begin:end] = part[np.argsort(spread[part, along], kind="stable")]
        waiting += [(begin, begin + middle), (begin + middle, end)]
    return order


def _room(level: MemoryLevel, role: str) -> float:
    """Words that a tile, or where a level is shared all tiles together, may take."""
    return capacity_words(level) if level.shared else capacity_words(level, role)


def _without_price(arch: Arch) -> object:
    return arch.compute.model_copy(update={"mac_energy_pj": None})
