"""One search space, for fixed unrolling and bypass, as the arrays that the kernel searches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dse.arch import Arch
from dse.mapping.cost import CountMode, capacity_words, element_bits, port_time, words_per_element
from dse.mapping.energy import AccessEnergy
from dse.mapping.orders import OrderClass, Signature, order_classes
from dse.mapping.problem import Problem
from dse.mapping.spatial import Unrolling, divisors, merges
from dse.mapping.tables import Floats, Ints, Tables

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

    @cached_property
    def live(self) -> tuple[int, ...]:
        """Dims with more than one iteration, which are all that the kernel sees (at least one)."""
        return tuple(d for d, bound in enumerate(self.problem.bounds) if bound > 1) or (0,)

    @cached_property
    def below(self) -> tuple[int, ...]:
        """Level above every axis."""
        names = [level.name for level in self.arch.levels]
        return tuple(names.index(axis.below) for axis in self.arch.axes)

    @cached_property
    def width(self) -> Floats:
        """Words of level l that an element of tensor t takes, [t, l]."""
        return np.array(
            [
                [words_per_element(self.arch, level, access, self.mode) for level in self.arch.levels]
                for access in self.problem.tensors
            ]
        )

    @cached_property
    def classes(self) -> tuple[tuple[OrderClass, ...], Ints]:
        """All order classes, and where those of every mask of live dims begin."""
        place = {dim: i for i, dim in enumerate(self.live)}
        signature: Signature = tuple(
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
        found: list[OrderClass] = []
        first = [0]
        for mask in range(1 << len(self.live)):
            found += order_classes(signature, frozenset(i for i in range(len(self.live)) if mask >> i & 1))
            first.append(len(found))
        return tuple(found), np.array(first, np.int64)

    @cached_property
    def class_arrays(self) -> tuple[Ints, Ints]:
        """`class_rests` as masks and `class_stop`, [class, tensor]."""
        rests = [[sum(1 << d for d in rest) for rest in made.rests] for made in self.classes[0]]
        return np.array(rests, np.int64), np.array([made.stops for made in self.classes[0]], np.int64)

    @cached_property
    def accesses(self) -> tuple[Ints, Ints, Ints]:
        """`axis_of`, `coefficient` [tensor, live dim] and the number of axes of every tensor."""
        axis_of = [[access.axis_of(d) for d in self.live] for access in self.problem.tensors]
        coefficient = [
            [dict(access.axes[access.axis_of(d)])[d] if access.axis_of(d) >= 0 else 0 for d in self.live]
            for access in self.problem.tensors
        ]
        axes = [len(access.axes) for access in self.problem.tensors]
        return np.array(axis_of, np.int64), np.array(coefficient, np.int64), np.array(axes, np.int64)


@dataclass
class _Weights:
    """Rows under construction: energy first, then a row for each bounded port, in cycles."""

    own: Floats
    shared: Floats
    constant: Floats


def build(search: SearchProblem, unrolling: Unrolling, keeps: Keeps) -> Tables | None:
    """The arrays of a space; None when its copies of a sliding window are not one regular grid (see docs)."""
    levels = len(search.arch.levels)
    diagonal = _diagonals(search, unrolling, keeps)
    if diagonal is None:
        return None
    diagonals, last_known = diagonal[1], diagonal[2]
    weights = _weights(search, unrolling, keeps)
    temporal = [search.problem.bounds[d] // math.prod(f[d] for f in unrolling) for d in search.live]
    steps = float(math.prod(temporal))
    for tensor in range(len(search.problem.tensors)):
        if last_known[tensor] < 0:
            extra = steps * weights.shared[:, tensor, levels]
            for j in range(diagonals[tensor, levels]):
                _, _, n1, n2, c1, c2, _ = (int(v) for v in diagonal[0][tensor, levels, j])
                g = math.gcd(c1, c2)
                extra = extra * (n1 * n2 - max(0, n1 - c2 // g) * max(0, n2 - c1 // g))
            weights.constant += extra
    limits = np.array([capacity_words(level) for level in search.arch.levels])
    up, down = _ramps(search, unrolling, keeps)
    rests, stops = search.class_arrays
    div, count, below, below_count, strides = _lattice(temporal)
    axis_of, coefficient, axes = search.accesses
    return Tables(
        div, count, below, below_count, strides, _spin(search, unrolling), axis_of, coefficient, axes, axis_of >= 0,
        np.array(keeps).T.copy(), weights.own, weights.shared, weights.constant, up, down, *diagonal, search.width,
        limits, np.array([level.shared for level in search.arch.levels]), search.classes[1], rests, stops,
        steps, float(math.ceil(steps / search.arch.compute.macs_per_cycle)),
    )  # fmt: skip


def _spin(search: SearchProblem, unrolling: Unrolling) -> Ints:
    return np.array(
        [
            [math.prod(f[d] for f, at in zip(unrolling, search.below, strict=True) if at >= level) for d in search.live]
            for level in range(len(search.arch.levels) + 1)
        ],
        np.int64,
    )


def _lattice(temporal: list[int]) -> tuple[Ints, Ints, Ints, Ints, Ints]:
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
    count = np.array([len(items) for items in lists], np.int64)
    strides = np.append(np.cumprod(count[::-1])[::-1][1:], 1).astype(np.int64)
    return div, count, below, below_count, strides


def _pairs(search: SearchProblem, keeps: Keeps, tensor: int) -> list[tuple[int, int]]:
    """(parent, child) levels of a tensor's moves; the last child is the compute units."""
    keepers = [level for level, kept in enumerate(keeps) if kept[tensor]]
    return list(zip(keepers, [*keepers[1:], len(search.arch.levels)], strict=True))


def _copies(search: SearchProblem, unrolling: Unrolling, tensor: int, parent: int, child: int) -> float:
    """Distinct copies without those of sliding windows over several dims, which depend on tiles."""
    access = search.problem.tensors[tensor]
    sliding = _sliding(search, unrolling, tensor, parent, child)
    total = 1
    for factors, axis, at in zip(unrolling, search.arch.axes, search.below, strict=True):
        if parent <= at < child:
            for d, n in enumerate(factors):
                if not merges(axis, access.role) or (d in access.dims and access.axis_of(d) not in sliding):
                    total *= n
    return float(total)


def _sliding(search: SearchProblem, unrolling: Unrolling, tensor: int, parent: int, child: int) -> dict[int, set[int]]:
    """Axes of the tensor along which copies of several dims merge, with those dims."""
    access = search.problem.tensors[tensor]
    found: dict[int, set[int]] = {}
    for factors, axis, at in zip(unrolling, search.arch.axes, search.below, strict=True):
        if parent <= at < child and merges(axis, access.role):
            for d, n in enumerate(factors):
                if n > 1 and d in access.dims:
                    found.setdefault(access.axis_of(d), set()).add(d)
    return {along: dims for along, dims in found.items() if len(dims) > 1}


def _diagonals(search: SearchProblem, unrolling: Unrolling, keeps: Keeps) -> tuple[Ints, Ints, Ints] | None:
    tensors, levels = len(search.problem.tensors), len(search.arch.levels)
    rows = np.zeros((tensors, levels + 1, 4, 7), np.int64)
    counts = np.zeros((tensors, levels + 1), np.int64)
    last_known = np.full(tensors, -1, np.int64)
    for tensor, access in enumerate(search.problem.tensors):
        for parent, child in _pairs(search, keeps, tensor):
            for along, dims in _sliding(search, unrolling, tensor, parent, child).items():
                carrying = [
                    (axis, at)
                    for factors, axis, at in zip(unrolling, search.arch.axes, search.below, strict=True)
                    if parent <= at < child and any(factors[d] > 1 for d in dims)
                ]
                places = {at for _, at in carrying}
                if len(dims) > 2 or len(places) > 1 or not all(merges(axis, access.role) for axis, _ in carrying):
                    return None
                at = places.pop()
                a, b = sorted(dims)
                units = [
                    math.prod(f[d] for f, place in zip(unrolling, search.below, strict=True) if place == at)
                    for d in (a, b)
                ]
                terms = dict(access.axes[along])
                row = (search.live.index(a), search.live.index(b), *units, terms[a], terms[b], at + 1)
                rows[tensor, child, counts[tensor, child]] = row
                counts[tensor, child] += 1
                if child == levels and at + 1 < levels:
                    last_known[tensor] = max(int(last_known[tensor]), at + 1)
    return rows, counts, last_known


def _weights(search: SearchProblem, unrolling: Unrolling, keeps: Keeps) -> _Weights:
    levels, tensors = len(search.arch.levels), len(search.problem.tensors)
    ports = [
        (k, kind, rate)
        for k, level in enumerate(search.arch.levels)
        for kind, rate in (
            ("read", level.read_words_per_cycle),
            ("write", level.write_words_per_cycle),
            ("both", level.shared_words_per_cycle),
        )
        if rate is not None
    ]
    instances = [
        math.prod(math.prod(f) for f, at in zip(unrolling, search.below, strict=True) if at < k) for k in range(levels)
    ]
    shape = (1 + len(ports), tensors, levels + 1)
    made = _Weights(np.zeros(shape), np.zeros(shape), np.zeros(shape[0]))
    made.constant[0] = _mac_energy(search)
    for tensor in range(tensors):
        pairs = _pairs(search, keeps, tensor)
        for place, (level, child) in enumerate(pairs):
            copies = _copies(search, unrolling, tensor, level, child)
            first = _first_visits(search, unrolling, tensor, level, outermost=place == 0)
            moves = _moves(search, tensor, inner=place > 0, first=first / instances[level])
            width = float(search.width[tensor, level])
            read, write = _prices(search, tensor, level)
            for row, rate_read, rate_write in [
                (0, instances[level] * width * read, instances[level] * width * write),
                *(
                    (1 + q, width / rate * (kind != "write"), width / rate * (kind != "read"))
                    for q, (k, kind, rate) in enumerate(ports)
                    if k == level
                ),
            ]:
                for (below, above, constant), weight in zip(moves, (rate_read, rate_write), strict=True):
                    made.shared[row, tensor, child] += below * copies * weight
                    made.own[row, tensor, level] += above * weight
                    made.constant[row] += constant * weight
    return made


def _moves(search: SearchProblem, tensor: int, *, inner: bool, first: float) -> tuple[tuple[float, float, float], ...]:
    """Reads and writes of an instance: per word sent below, per word exchanged above, and fixed."""
    if search.problem.tensors[tensor].role != "output":
        return (1, 0, 0), (0, float(inner), 0)
    drains = float(inner and search.mode == "native")
    return (1, drains, -first), (1, float(inner), -first if inner else 0)


def _first_visits(search: SearchProblem, unrolling: Unrolling, tensor: int, level: int, *, outermost: bool) -> float:
    """Words that outputs find untouched at a level, over all instances."""
    access = search.problem.tensors[tensor]
    words = float(access.words(search.problem.bounds))
    if outermost:
        return words
    for factors, at in zip(unrolling, search.below, strict=True):
        if at < level:
            words *= math.prod(n for d, n in enumerate(factors) if d not in access.dims)
    return words


def _mac_energy(search: SearchProblem) -> float:
    energy = search.problem.macs * search.energy.mac_pj
    return energy * TIE_WEIGHT if search.objective == "traffic" else energy


def _prices(search: SearchProblem, tensor: int, level: int) -> tuple[float, float]:
    """Of a word: pJ, or for objective `traffic` bits at the outermost level with energy to decide ties."""
    read, write = search.energy.read_pj[level], search.energy.write_pj[level]
    if search.objective != "traffic":
        return read, write
    bits = 0.0
    if level == 0:
        bits = element_bits(search.arch, search.problem.tensors[tensor]) / float(search.width[tensor, level])
    return bits + read * TIE_WEIGHT, bits + write * TIE_WEIGHT


def _ramps(search: SearchProblem, unrolling: Unrolling, keeps: Keeps) -> tuple[Floats, Floats]:
    tensors, levels = len(search.problem.tensors), len(search.arch.levels)
    up, down = np.zeros((tensors, levels)), np.zeros((tensors, levels))
    if search.mode == "native":
        for tensor, access in enumerate(search.problem.tensors):
            inward = access.role != "output"
            for parent, child in _pairs(search, keeps, tensor)[:-1]:
                copies = _copies(search, unrolling, tensor, parent, child)
                up[tensor, child] = (
                    copies * search.width[tensor, parent] * port_time(search.arch.levels[parent], inward)
                )
                down[tensor, child] = search.width[tensor, child] * port_time(search.arch.levels[child], not inward)
    return up, down
