"""Cost of one mapping: accesses of every tensor at every level, energy, cycles. Two documented ways to count.

`timeloop` counts as Timeloop does, one element a word. `native` differs where Timeloop is silent: elements have
their width and share words, a drain reads the level it leaves, the first tiles and the last drain take time.
`docs/mapping.md` lists the differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from dse.arch import Arch, MemoryLevel
from dse.core.errors import InfeasibleError, Violation
from dse.mapping.density import acting_share
from dse.mapping.energy import AccessEnergy, access_energy
from dse.mapping.loops import Nest, nest_of
from dse.mapping.mapping import Mapping
from dse.mapping.movement import compute_steps, entries, movement
from dse.mapping.problem import Problem, TensorAccess

CountMode = Literal["timeloop", "native"]


@dataclass(frozen=True)
class TensorTraffic:
    """Elements of one tensor at one level, over all working instances.

    `reads` leave the level downwards (and upwards when `native` drains), `fills` arrive from above, `updates` from
    below; expected values where zeros spare accesses, else whole numbers. `tile_words` is the full tile of one
    instance.
    """

    level: str
    tensor: str
    role: str
    tile_words: int
    instances: int
    reads: float
    fills: float
    updates: float
    energy_pj: float


@dataclass(frozen=True)
class MappingCost:
    """Cost of a mapping.

    `cycles` include stalls and, in mode `native`, the ramp; `compute_cycles` do not. `limit` names what sets the
    cycles: "compute" or the level whose port is busiest.
    """

    mode: CountMode
    traffic: tuple[TensorTraffic, ...]
    macs: int
    mac_energy_pj: float
    compute_cycles: int
    ramp_cycles: float
    cycles: int
    limit: str
    peak_units: int

    @cached_property
    def energy_pj(self) -> float:
        """Energy of accesses and MACs; no leakage, no network."""
        return math.fsum([self.mac_energy_pj, *(item.energy_pj for item in self.traffic)])

    @property
    def utilization(self) -> float:
        """MACs over units times cycles."""
        return self.macs / (self.peak_units * self.cycles)

    def at(self, level: str, tensor: str) -> TensorTraffic:
        """Traffic of a tensor at a level that keeps it; KeyError otherwise."""
        for item in self.traffic:
            if (item.level, item.tensor) == (level, tensor):
                return item
        raise KeyError((level, tensor))


def element_bits(arch: Arch, access: TensorAccess) -> int:
    """Bits of an element: operands as wide as the compute units take them, outputs as their partial sums."""
    compute = arch.compute
    return {"input": compute.input_bits, "weight": compute.weight_bits, "output": compute.accumulator_bits}[access.role]


def moved_bits(arch: Arch, access: TensorAccess) -> float:
    """Bits that an element takes on its way: all of its own, or of compressed ones the mean and the bit of its mask."""
    bits = element_bits(arch, access)
    return access.density * bits + 1 if access.compressed else bits


def words_per_element(arch: Arch, level: MemoryLevel, access: TensorAccess, mode: CountMode) -> float:
    """Words of `level` that move with an element: one in mode `timeloop`, its share of the bits in mode `native`."""
    whole = element_bits(arch, access) if mode == "timeloop" else level.word_bits
    return moved_bits(arch, access) / whole


def words_held(arch: Arch, level: MemoryLevel, access: TensorAccess, mode: CountMode) -> float:
    """Words of `level` that an element of a tile takes, zeros included: a tile may happen to have none.

    None where the whole tensor is resident: its room is taken from the capacity beforehand.
    """
    if access.resident == level.name:
        return 0.0
    return 1.0 if mode == "timeloop" else element_bits(arch, access) / level.word_bits


def capacity_words(level: MemoryLevel, role: str | None = None) -> float:
    """Words a tile may take in one instance: half of a double-buffered level; infinite without capacity.

    With `role` those of its partition, where the level has one for it.
    """
    if role in level.partitions:
        return level.partitions[role] * 8 / level.word_bits / (2 if level.double_buffered else 1)
    if level.capacity_bytes is None:
        return math.inf
    return level.capacity_bytes * 8 / level.word_bits / (2 if level.double_buffered else 1)


def evaluate(
    problem: Problem,
    arch: Arch,
    mapping: Mapping,
    *,
    mode: CountMode = "native",
    energy: AccessEnergy | None = None,
) -> MappingCost:
    """Exact cost of a mapping, residual tiles included.

    Parameters
    ----------
    energy
        Prices in pJ; those of the architecture unless given.

    Raises
    ------
    UsageError: the mapping does not belong to problem and architecture.
    InfeasibleError: its tiles exceed a level; names level and excess.
    """
    nest = nest_of(problem, arch, mapping)
    check_capacity(nest, mode)
    prices = energy or access_energy(arch)
    traffic = tuple(
        item for tensor in range(len(problem.tensors)) for item in _tensor_traffic(nest, tensor, mode, prices)
    )
    steps = compute_steps(nest)
    compute_cycles = math.ceil(steps / arch.compute.macs_per_cycle)
    busiest, limit = _port_cycles(nest, traffic, mode)
    ramp = _ramp_cycles(nest, mode) if mode == "native" else 0.0
    cycles = math.ceil(max(compute_cycles, busiest) + ramp - 1e-9)
    return MappingCost(
        mode,
        traffic,
        problem.macs,
        problem.macs * prices.mac_pj,
        compute_cycles,
        ramp,
        cycles,
        limit if busiest > compute_cycles else "compute",
        arch.units * max(1, math.ceil(arch.compute.macs_per_cycle)),
    )


def check_capacity(nest: Nest, mode: CountMode) -> None:
    """Raise InfeasibleError when tiles exceed a level; all levels that do so are named."""
    broken = []
    for position, level in enumerate(nest.arch.levels):
        sizes = nest.sizes(position)
        needed = {
            access: access.words(sizes) * words_held(nest.arch, level, access, mode)
            for kept, access in zip(nest.keeps[position], nest.problem.tensors, strict=True)
            if kept
        }
        parts = [(access.name, words, capacity_words(level, access.role)) for access, words in needed.items()]
        if level.shared:
            parts = [("tiles", math.fsum(needed.values()), capacity_words(level))]
        broken += [
            Violation(f"{name} in level {level.name}", words, limit, "words")
            for name, words, limit in parts
            if words > limit + 1e-9
        ]
    if broken:
        raise InfeasibleError(f"mapping of {nest.problem.name}", broken)


def _tensor_traffic(nest: Nest, tensor: int, mode: CountMode, prices: AccessEnergy) -> list[TensorTraffic]:
    access = nest.problem.tensors[tensor]
    keepers = nest.keepers(tensor)
    found: list[TensorTraffic] = []
    for place, position in enumerate(keepers):
        child = keepers[place + 1] if place + 1 < len(keepers) else len(nest.arch.levels)
        below = movement(nest, tensor, position, child)
        above = movement(nest, tensor, keepers[place - 1], position) if place else None
        acting = acting_share(nest, tensor, position) if child == len(nest.arch.levels) else 1
        updates: float
        if access.role == "output":
            first = above.first if above else access.words(nest.problem.bounds)
            updates = acting * below.sent
            reads = acting * (below.sent - first) + (above.into if above and mode == "native" else 0)
            fills = above.into - above.first if above else 0
        else:
            reads, updates = acting * below.sent, 0
            fills = above.into if above else 0
        level = nest.arch.levels[position]
        words = words_per_element(nest.arch, level, access, mode)
        energy = words * (reads * prices.read_pj[position] + (fills + updates) * prices.write_pj[position])
        found.append(
            TensorTraffic(
                level.name, access.name, access.role, access.words(nest.sizes(position)), nest.instances(position),
                reads, fills, updates, energy,
            )
        )  # fmt: skip
    return found


def _port_cycles(nest: Nest, traffic: tuple[TensorTraffic, ...], mode: CountMode) -> tuple[float, str]:
    """Cycles of the busiest port, words shared evenly by the working instances, and its level.

    In mode `native` a tile takes `transfer_cycles` of its parent's port besides: operands of the read port, outputs
    of the write port.
    """
    busiest, name = 0.0, "compute"
    for position, level in enumerate(nest.arch.levels):
        instances = nest.instances(position)
        reads = writes = 0.0
        for access in nest.problem.tensors:
            per_word = words_per_element(nest.arch, level, access, mode) / instances
            for item in traffic:
                if (item.level, item.tensor) == (level.name, access.name):
                    reads += item.reads * per_word
                    writes += (item.fills + item.updates) * per_word
        fetched, drained = _tiles_moved(nest, position) if mode == "native" and level.transfer_cycles else (0, 0)
        for words, tiles, rate in (
            (reads, fetched, level.read_words_per_cycle),
            (writes, drained, level.write_words_per_cycle),
            (reads + writes, fetched + drained, level.shared_words_per_cycle),
        ):
            cycles = words / rate + tiles * level.transfer_cycles if rate is not None else 0.0
            if cycles > busiest:
                busiest, name = cycles, level.name
    return busiest, name


def _tiles_moved(nest: Nest, parent: int) -> tuple[int, int]:
    """Operand tiles that leave an instance of a level for those below, and output tiles that arrive from there."""
    found = [0, 0]
    for tensor, access in enumerate(nest.problem.tensors):
        for above, child in pairwise(nest.keepers(tensor)):
            if above == parent:
                copies = distinct_copies(nest, tensor, parent, child)
                found[access.role == "output"] += entries(nest, tensor, child) * copies
    return found[0], found[1]


def _ramp_cycles(nest: Nest, mode: CountMode) -> float:
    """Cycles in which nothing overlaps: every level's first operand tiles arrive, its last output tile leaves.

    A tile moves at the slower of the two ports between which it passes; the parent sends it once per distinct copy.
    """
    total = 0.0
    levels = nest.arch.levels
    for tensor, access in enumerate(nest.problem.tensors):
        keepers = nest.keepers(tensor)
        inward = access.role != "output"
        for parent, child in pairwise(keepers):
            words = access.words(nest.sizes(child))
            up = words * distinct_copies(nest, tensor, parent, child)
            total += max(
                up * words_per_element(nest.arch, levels[parent], access, mode) * port_time(levels[parent], inward),
                words
                * words_per_element(nest.arch, levels[child], access, mode)
                * port_time(levels[child], not inward),
            )
    return total


def port_time(level: MemoryLevel, reading: bool) -> float:
    """Cycles a word takes through the read or write port of an instance; 0 when it is unbounded."""
    own = level.read_words_per_cycle if reading else level.write_words_per_cycle
    return max((1 / rate for rate in (own, level.shared_words_per_cycle) if rate is not None), default=0.0)


def distinct_copies(nest: Nest, tensor: int, parent: int, child: int) -> int:
    """Different tiles of `tensor` among the copies of `child` below one instance of `parent`, at full tiles.

    Copies along an axis that does not multicast (operands) or reduce (outputs) are all different.
    """
    access = nest.problem.tensors[tensor]
    total = 1
    offsets: dict[int, set[int]] = {}
    for loop in nest.outside(child):
        if loop.temporal or loop.level < parent:
            continue
        axis = nest.arch.axes[loop.axis]
        merges = axis.reduces if access.role == "output" else access.role in axis.multicast
        along = access.axis_of(loop.dim)
        if not merges:
            total *= loop.count
        elif along >= 0:
            step = loop.step * dict(access.axes[along])[loop.dim]
            offsets[along] = {o + i * step for o in offsets.get(along, {0}) for i in range(loop.count)}
    return total * math.prod(len(found) for found in offsets.values())
