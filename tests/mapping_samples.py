"""Random small problems, architectures and mappings for the tests of this room."""

from __future__ import annotations

import math
import random

from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.mapping import Mapping, Problem, TemporalLevel, TensorAccess

DIMS = ("K", "C", "P", "R", "G")


def random_problem(rng: random.Random, largest: int = 6) -> Problem:
    """A conv along one direction with stride, dilation and groups, or a gemm."""
    if rng.random() < 0.35:
        bounds = tuple(rng.randint(1, largest) for _ in range(3))
        accesses = (("weight", ((0,), (1,))), ("input", ((1,), (2,))), ("output", ((0,), (2,))))
        tensors = tuple(TensorAccess(r[0], r, tuple(tuple((d, 1) for d in a) for a in axes)) for r, axes in accesses)
        return Problem("gemm", ("M", "K", "N"), bounds, tensors)
    sizes = (rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, largest), rng.randint(1, 4), rng.randint(1, 2))
    window = ((2, rng.randint(1, 3)), (3, rng.randint(1, 2)))
    return Problem(
        "conv",
        DIMS,
        sizes,
        (
            TensorAccess("w", "weight", (((4, 1),), ((0, 1),), ((1, 1),), ((3, 1),))),
            TensorAccess("i", "input", (((4, 1),), ((1, 1),), window)),
            TensorAccess("o", "output", (((4, 1),), ((0, 1),), ((2, 1),))),
        ),
    )


def random_arch(rng: random.Random, *, levels: int | None = None, capacity: bool = False) -> Arch:
    """Two to four levels; up to two axes of random kinds; ports and prices at random."""
    number = levels or rng.randint(2, 4)
    names = [f"L{k}" for k in range(number)]
    roles = ["input", "weight", "output"]
    axes = []
    below = rng.randrange(number)
    for name in ("x", "y")[: rng.randint(0, 2)]:
        place = below if rng.random() < 0.6 else rng.randrange(number)
        axes.append(
            SpatialAxis.model_validate(
                {
                    "name": name, "size": rng.randint(2, 4), "below": names[place], "reduces": rng.random() < 0.7,
                    "multicast": {role for role in ("input", "weight") if rng.random() < 0.7},
                }
            )
        )  # fmt: skip
    made = []
    for k, name in enumerate(names):
        instances = math.prod(axis.size for axis in axes if names.index(axis.below) < k)
        made.append(
            MemoryLevel.model_validate(
                {
                    "name": name, "instances": instances, "word_bits": rng.choice([8, 16, 32]),
                    "holds": set(roles) if k == 0 else {role for role in roles if rng.random() < 0.75},
                    "shared": rng.random() < 0.6,
                    "capacity_bytes": rng.choice([8, 16, 32, 64, 128]) if capacity and k else None,
                    "double_buffered": rng.random() < 0.3,
                    "read_words_per_cycle": rng.choice([None, 0.5, 1, 4]),
                    "write_words_per_cycle": rng.choice([None, 0.5, 2]),
                    "shared_words_per_cycle": rng.choice([None, None, 2]),
                    "read_energy_pj": rng.choice([1, 2, 6]) * 4 ** (number - k),
                    "write_energy_pj": rng.choice([1, 3, 5]) * 4 ** (number - k),
                }
            )
        )  # fmt: skip
    # drawn beside the stream, so that seeds that tests name keep their architectures
    beside = random.Random(repr([(sorted(level.holds), level.word_bits, level.read_energy_pj) for level in made]))
    made = [
        level.model_copy(
            update={
                "window_reuse": beside.random() < 0.8,
                "transfer_cycles": beside.choice([0.0, 0.0, 0.5, 3.0]),
                "partitions": {
                    role: beside.choice([6, 24, 96])
                    for role in sorted(level.holds)
                    if not level.shared and level.capacity_bytes and beside.random() < 0.4
                },
            }
        )
        for level in made
    ]
    return Arch(
        name="random", clock_mhz=100, levels=tuple(made), axes=tuple(axes),
        compute=Compute(mac_energy_pj=1.0, accumulator_bits=rng.choice([8, 16, 32])),
    )  # fmt: skip


def random_mapping(rng: random.Random, problem: Problem, arch: Arch, *, perfect: bool = False) -> Mapping:
    """Factors drawn from the inside outwards; the outermost level takes what is left, rounded up."""
    left = dict(zip(problem.dims, problem.bounds, strict=True))
    temporal: list[TemporalLevel] = []
    spatial: dict[str, tuple[tuple[str, int], ...]] = {}

    def draw(dim: str, most: int) -> int:
        choices = [n for n in range(1, min(most, left[dim]) + 1) if not perfect or left[dim] % n == 0]
        factor = rng.choice(choices) if rng.random() < 0.6 else 1
        left[dim] = -(-left[dim] // factor)
        return factor

    for level in reversed(arch.levels):
        for axis in reversed(arch.axes):
            if axis.below == level.name:
                room, loops = axis.size, []
                for dim in rng.sample(problem.dims, len(problem.dims)):
                    factor = draw(dim, room)
                    room //= factor
                    loops.append((dim, factor))
                spatial[axis.name] = tuple(reversed(loops))
        order = rng.sample(problem.dims, len(problem.dims))
        outermost = level is arch.levels[0]
        loops = [(dim, left[dim] if outermost else draw(dim, left[dim])) for dim in order]
        bypass = frozenset(role for role in level.holds if not outermost and rng.random() < 0.15)
        temporal.append(TemporalLevel(level.name, tuple(reversed(loops)), bypass))
    return Mapping(tuple(reversed(temporal)), spatial).canonical()
