"""One search as arrays: problem and architecture once, then all unrollings of a bypass at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from dse.arch import Arch
from dse.mapping.cost import CountMode, capacity_words, moved_bits, port_time, words_held, words_per_element
from dse.mapping.energy import AccessEnergy
from dse.mapping.mapping import Mapping, TemporalLevel
from dse.mapping.orders import Signature, class_of, order_classes
from dse.mapping.prepare import Setting, Weights, weigh
from dse.mapping.problem import Problem
from dse.mapping.spatial import Constraints, Unrolling, divisors, merges
from dse.mapping.tables import Array, Floats, Ints, Tables

#: What each level keeps: `Keeps[level][tensor]`.
Keeps = tuple[tuple[bool, ...], ...]
#: Weight of energy in objective `traffic`, in bits per pJ: it decides between equal traffic only.
TIE_WEIGHT = 1e-12


@dataclass(frozen=True)
class SearchProblem:
    """Problem, architecture, way to count and prices: what all spaces of one search share."""

    problem: Problem
    arch: Arch
    mode: CountMode
    energy: AccessEnergy
    objective: str
    rules: Constraints = field(default_factory=Constraints)

    @cached_property
    def live(self) -> tuple[int, ...]:
        """Dims with more than one iteration, which are all that the kernel sees (at least one)."""
        return tuple(d for d, bound in enumerate(self.problem.bounds) if bound > 1) or (0,)

    @cached_property
    def width(self) -> Floats:
        """Words of level l that move with an element of tensor t, [t, l]."""
        return np.array(
            [
                [words_per_element(self.arch, level, access, self.mode) for level in self.arch.levels]
                for access in self.problem.tensors
            ]
        )

    @cached_property
    def held(self) -> Floats:
        """Words of level l that an element of tensor t takes in a tile, [t, l]."""
        return np.array(
            [
                [words_held(self.arch, level, access, self.mode) for level in self.arch.levels]
                for access in self.problem.tensors
            ]
        )

    @cached_property
    def _filled(self) -> Floats:
        """As `held`, in a partition of its own as if that were as large as the level's other ones."""
        sizes = [
            [
                capacity_words(level) / capacity_words(level, access.role) if level.partitions else 1.0
                for level in self.arch.levels
            ]
            for access in self.problem.tensors
        ]
        filled: Floats = self.held * np.array(sizes)
        return filled

    @cached_property
    def leads(self) -> Floats:
        """Density of tensor s where its zeros spare the compute units an access to tensor t, else 1, [t, s]."""
        found = np.ones((len(self.problem.tensors),) * 2)
        for t in range(len(self.problem.tensors)):
            for s in self.problem.leads(t):
                found[t, s] = self.problem.tensors[s].density
        return found

    @cached_property
    def signature(self) -> Signature:
        """Per tensor the live dims that index it and those that slide a window."""
        place = {dim: i for i, dim in enumerate(self.live)}
        return tuple(
            (
                frozenset(place[d] for d in access.dims if d in place),
                frozenset(
                    place[d]
                    for axis in access.axes
                    if sum(e in place for e, _ in axis) > 1
                    for d, _ in axis
                    if d in place
                ),
            )
            for access in self.problem.tensors
        )

    def classes(self, keeps: Keeps) -> BlockClasses:
        """Order classes of every block; only tensors that a level further in keeps tell orders apart."""
        concerned = tuple(
            tuple(t for t in range(len(self.problem.tensors)) if any(row[t] for row in keeps[k + 1 :]))
            for k in range(max(1, len(keeps) - 1))
        )
        return _block_classes(self.signature, concerned, len(self.live), self._orders)

    @cached_property
    def _orders(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Orders that a user allows, per level and from the innermost dim outwards; none: all orders."""
        place = {self.problem.dims[d]: i for i, d in enumerate(self.live)}
        return tuple(
            tuple(
                tuple(place[dim] for dim in reversed(order) if dim in place)
                for order in self.rules.order.get(level.name, ())
            )
            for level in self.arch.levels
        )

    @cached_property
    def _loops(self) -> Ints:
        """Mask of the live dims that may loop in time at every level."""
        names = [self.problem.dims[d] for d in self.live]
        allowed = [self.rules.loops.get(level.name, names) for level in self.arch.levels]
        return np.array([sum(1 << i for i, name in enumerate(names) if name in dims) for dims in allowed], np.int64)

    @cached_property
    def setting(self) -> Setting:
        """What the compiled weights need."""
        tensors, arch = self.problem.tensors, self.arch
        names = [level.name for level in arch.levels]
        axis_of = [[access.axis_of(d) for d in self.live] for access in tensors]
        coefficient = [
            [dict(access.axes[access.axis_of(d)])[d] if access.axis_of(d) >= 0 else 0 for d in self.live]
            for access in tensors
        ]
        ports = [
            (k, kind, rate)
            for k, level in enumerate(arch.levels)
            for kind, rate in enumerate(
                (level.read_words_per_cycle, level.write_words_per_cycle, level.shared_words_per_cycle)
            )
            if rate is not None
        ]
        inward = [access.role != "output" for access in tensors]
        prices = [[self._prices(t, k) for k in range(len(names))] for t in range(len(tensors))]
        return Setting(
            np.array([self.problem.bounds[d] for d in self.live], np.int64),
            np.array(axis_of, np.int64),
            np.array(coefficient, np.int64),
            np.array([len(access.axes) for access in tensors], np.int64),
            np.array([access.words(self.problem.bounds) for access in tensors], np.float64),
            np.array([access.role == "output" for access in tensors]),
            np.array([names.index(axis.below) for axis in arch.axes], np.int64),
            np.array([[merges(axis, access.role) for access in tensors] for axis in arch.axes], np.bool_).reshape(
                len(arch.axes), len(tensors)
            ),
            self.width,
            np.array([[read for read, _ in row] for row in prices]),
            np.array([[write for _, write in row] for row in prices]),
            np.array([port[:2] for port in ports], np.int64).reshape(len(ports), 2),
            np.array([port[2] for port in ports], np.float64),
            np.array([arch.levels[port[0]].transfer_cycles * (self.mode == "native") for port in ports], np.float64),
            np.array([[port_time(level, inwards) for level in arch.levels] for inwards in inward]),
            np.array([[port_time(level, not inwards) for level in arch.levels] for inwards in inward]),
            self.mode == "native",
            self._mac_energy(),
            arch.compute.macs_per_cycle,
            self.leads,
        )

    def _mac_energy(self) -> float:
        energy = self.problem.macs * self.energy.mac_pj
        return energy * TIE_WEIGHT if self.objective == "traffic" else energy

    def _prices(self, tensor: int, level: int) -> tuple[float, float]:
        """Of a word: pJ, or for objective `traffic` bits at the outermost level with energy to decide ties."""
        read, write = self.energy.read_pj[level], self.energy.write_pj[level]
        if self.objective != "traffic":
            return read, write
        bits = 0.0
        if level == 0:
            bits = moved_bits(self.arch, self.problem.tensors[tensor]) / float(self.width[tensor, level])
        return bits + read * TIE_WEIGHT, bits + write * TIE_WEIGHT

    def weights(self, choices: Sequence[Unrolling], keeps: Keeps) -> Weights:
        """Weights of many unrollings under one choice of bypass."""
        units = np.ones((len(choices), len(self.arch.axes), len(self.live)), np.int64)
        if self.arch.axes:
            units[:] = np.array(choices, np.int64)[:, :, list(self.live)]
        weights: Weights = weigh(self.setting, units, np.array(keeps))
        return weights

    def tables(self, weights: Weights, u: int, keeps: Keeps) -> Tables:
        """The arrays of one space."""
        w, p = weights, self.setting
        _, first, rests, stops = self.classes(keeps)
        return Tables(
            *lattice(tuple(w.temporal[u].tolist())), w.spin[u], p.axis_of, p.coefficient, p.axes, _kept(keeps),
            w.own[u], w.shared[u], w.setup[u], w.constant[u], w.ramp_up[u], w.ramp_down[u],
            w.diagonal[u], w.diagonals[u], w.last_known[u], self._filled, *self._limits, self._loops,
            self._slides, first, rests, stops, float(w.steps[u]), float(w.compute_cycles[u]),
        )  # fmt: skip

    def divisors_in_time(self, unrolling: Unrolling) -> list[list[int]]:
        """Divisors of what an unrolling leaves of every live dim."""
        return [divisors(self.problem.bounds[d] // math.prod(f[d] for f in unrolling)) for d in self.live]

    def tile(self, unrolling: Unrolling, place: Sequence[int] | int) -> list[int]:
        """Iterations in time of a tile, from its positions in the lattice, or from its flat position."""
        lists = self.divisors_in_time(unrolling)
        if isinstance(place, int):
            positions = []
            for items in reversed(lists):
                place, e = divmod(place, len(items))
                positions.append(e)
            place = positions[::-1]
        return [items[e] for items, e in zip(lists, place, strict=True)]

    def mapping(
        self, unrolling: Unrolling, keeps: Keeps, tiles: Sequence[Sequence[int]], orders: Sequence[int]
    ) -> Mapping:
        """The mapping with these tiles (of every level, in time) and order classes (of every block but the last)."""
        temporal = []
        for k, level in enumerate(self.arch.levels):
            last = k == len(self.arch.levels) - 1
            inner = [1] * len(self.live) if last else tiles[k + 1]
            order = range(len(self.live)) if last else self.classes(keeps).orders[orders[k]]
            factors = [outer // part for outer, part in zip(tiles[k], inner, strict=True)]
            loops = tuple((self.problem.dims[self.live[i]], factors[i]) for i in reversed(order) if factors[i] > 1)
            bypass = frozenset(
                tensor.role
                for t, tensor in enumerate(self.problem.tensors)
                if tensor.role in level.holds and not keeps[k][t]
            )
            temporal.append(TemporalLevel(level.name, loops, bypass))
        spatial = {
            axis.name: tuple((self.problem.dims[d], n) for d, n in enumerate(factors) if n > 1)
            for axis, factors in zip(self.arch.axes, unrolling, strict=True)
        }
        return Mapping(tuple(temporal), spatial)

    @cached_property
    def _slides(self) -> Array:
        return np.array([level.window_reuse for level in self.arch.levels])

    @cached_property
    def _limits(self) -> tuple[Floats, Array]:
        levels = self.arch.levels
        return np.array([capacity_words(level) for level in levels]), np.array([level.shared for level in levels])


@lru_cache(maxsize=256)
def _kept(keeps: Keeps) -> Array:
    return np.array(keeps).T.copy()


class BlockClasses(NamedTuple):
    """Loop orders from the innermost dim outwards; `first[k, mask]` where those of block k and a mask of dims begin.

    `rests`, `stops` [class, tensor]: mask of the dims that the tensor rests during, and the dim it stops at or -1.
    """

    orders: tuple[tuple[int, ...], ...]
    first: Ints
    rests: Ints
    stops: Ints


@lru_cache(maxsize=256)
def _block_classes(
    signature: Signature,
    concerned: tuple[tuple[int, ...], ...],
    dims: int,
    demanded: tuple[tuple[tuple[int, ...], ...], ...],
) -> BlockClasses:
    orders: list[tuple[int, ...]] = []
    first = np.zeros((len(concerned), (1 << dims) + 1), np.int64)
    for k, tensors in enumerate(concerned):
        part = tuple(signature[t] for t in tensors)
        for mask in range(1 << dims):
            first[k, mask] = len(orders)
            present = frozenset(i for i in range(dims) if mask >> i & 1)
            if demanded[k]:
                orders += dict.fromkeys(tuple(d for d in order if d in present) for order in demanded[k])
            else:
                orders += [made.order for made in order_classes(part, present)]
        first[k, 1 << dims] = len(orders)
    made = [class_of(signature, order) for order in orders]
    rests = np.array([[sum(1 << d for d in rest) for rest in item.rests] for item in made], np.int64)
    return BlockClasses(tuple(orders), first, rests, np.array([item.stops for item in made], np.int64))


@lru_cache(maxsize=4096)
def lattice(temporal: tuple[int, ...]) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """`div`, `number`, `below`, `below_count` and `strides` of `Tables` for the iterations in time of every dim."""
    lists = [divisors(n) for n in temporal]
    widest = max(len(items) for items in lists)
    div = np.ones((len(lists), widest), np.int64)
    below = np.zeros((len(lists), widest, widest), np.int64)
    below_count = np.zeros((len(lists), widest), np.int64)
    for d, items in enumerate(lists):
        div[d, : len(items)] = items
        for i, n in enumerate(items):
            # the largest first: among equal bounds the largest tile leaves most freedom inside
            inner = [j for j, m in reversed(list(enumerate(items))) if n % m == 0]
            below[d, i, : len(inner)] = inner
            below_count[d, i] = len(inner)
    count = [len(items) for items in lists]
    strides = [math.prod(count[d + 1 :]) for d in range(len(count))]
    return div, np.array(count, np.int64), below, below_count, np.array(strides, np.int64)
