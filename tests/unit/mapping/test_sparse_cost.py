"""Sparse costs equal the mean of counts over random sparse tensors; dense ones do not change."""

from __future__ import annotations

import math
import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_oracle import lay_out
from mapping_samples import random_arch, random_mapping, random_problem

from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.core.errors import UsageError
from dse.mapping import Mapping, Problem, TemporalLevel, TensorAccess, access_energy, best_mapping, evaluate
from dse.mapping.density import Sparsity

SAMPLES = 400
#: y[m, n] += w[m, k] * x[k, n]
GEMM = Problem(
    "gemm",
    ("M", "K", "N"),
    (4, 4, 2),
    (
        TensorAccess("w", "weight", (((0, 1),), ((1, 1),))),
        TensorAccess("x", "input", (((1, 1),), ((2, 1),))),
        TensorAccess("y", "output", (((0, 1),), ((2, 1),))),
    ),
)


def grid(multicast: set[str], reduces: bool, *, near_bits: int = 8) -> Arch:
    """One buffer for all units of two axes."""
    return Arch.model_validate(
        {
            "name": "grid", "clock_mhz": 100, "compute": {"mac_energy_pj": 1.0, "accumulator_bits": 8},
            "levels": [
                {"name": "far", "word_bits": 8, "energy_class": "dram"},
                {"name": "near", "word_bits": near_bits, "capacity_bytes": 64, "read_energy_pj": 3,
                 "write_energy_pj": 5},
            ],
            "axes": [
                {"name": "a", "size": 4, "below": "near", "multicast": sorted(multicast), "reduces": reduces},
                {"name": "b", "size": 2, "below": "near", "multicast": sorted(multicast), "reduces": reduces},
            ],
        }
    )  # fmt: skip


def sampled(
    problem: Problem, arch: Arch, mapping: Mapping, sparsity: Sparsity, seed: int
) -> tuple[dict[str, float], float, float]:
    """Mean accesses of the compute units by tensor, MACs and steps that are not skipped (one unit): walked and counted.

    A read that copies share happens when one of them wants the element; a sum when one of those it adds is wanted.
    """
    rng = np.random.default_rng(seed)
    loops = lay_out(problem, arch, mapping)
    times, spaces = [loop for loop in loops if loop.axis < 0], [loop for loop in loops if loop.axis >= 0]
    leaders = [t for role in (*sparsity.skip, *sparsity.gate) for t, a in enumerate(problem.tensors) if a.role == role]
    skips = [t for t in leaders if problem.tensors[t].role in sparsity.skip]
    totals = dict.fromkeys((a.name for a in problem.tensors), 0)
    macs = skipped = 0
    for _ in range(SAMPLES):
        present = [rng.random(a.extents(problem.bounds)) < sparsity.density.get(a.role, 1.0) for a in problem.tensors]
        for time in product(*(range(loop.count) for loop in times)):
            wanted: list[set[object]] = [set() for _ in problem.tensors]
            for space in product(*(range(loop.count) for loop in spaces)):
                at = [0] * len(problem.dims)
                for loop, i in zip(times + spaces, time + space, strict=True):
                    at[loop.dim] += i * loop.step
                places = [tuple(sum(c * at[d] for d, c in axis) for axis in a.axes) for a in problem.tensors]
                there = [bool(present[t][places[t]]) for t in range(len(problem.tensors))]
                skipped += not all(there[t] for t in skips)
                macs += all(there[t] for t in leaders)
                for t, access in enumerate(problem.tensors):
                    before = leaders[: leaders.index(t)] if t in leaders else leaders
                    if all(there[s] for s in before):
                        apart = tuple(
                            i
                            for loop, i in zip(spaces, space, strict=True)
                            if not (arch.axes[loop.axis].reduces if access.role == "output"
                                    else access.role in arch.axes[loop.axis].multicast)
                        )  # fmt: skip
                        wanted[t].add((apart, places[t]))
            for t, access in enumerate(problem.tensors):
                totals[access.name] += len(wanted[t])
    steps = math.prod(problem.bounds) * SAMPLES
    return {name: n / SAMPLES for name, n in totals.items()}, macs / SAMPLES, 1 - skipped / steps


@pytest.mark.parametrize(
    ("gate", "skip"), [(("weight",), ()), (("input",), ()), (("weight", "input"), ()), (("input",), ("weight",))]
)
@pytest.mark.parametrize(("multicast", "reduces"), [(set(), False), ({"input", "weight"}, True)])
@pytest.mark.parametrize("spatial", [{}, {"a": (("M", 4),)}, {"a": (("K", 4),), "b": (("N", 2),)}])
def test_accesses_macs_and_cycles_equal_the_mean_over_random_sparse_tensors(
    gate: tuple[str, ...], skip: tuple[str, ...], multicast: set[str], reduces: bool, spatial: dict
) -> None:
    sparsity = Sparsity({"weight": 0.4, "input": 0.7}, gate=gate, skip=skip)
    arch = grid(multicast, reduces)
    used = {dim for loops in spatial.values() for dim, _ in loops}
    rest = tuple((d, n) for d, n in zip(GEMM.dims, GEMM.bounds, strict=True) if d not in used)
    mapping = Mapping((TemporalLevel("far", ()), TemporalLevel("near", rest)), spatial)
    problem = sparsity.apply(GEMM)
    made = sparsity.arch(problem, arch)
    cost = evaluate(problem, made, mapping, energy=sparsity.energy(problem, access_energy(arch)))
    reads, macs, left = sampled(GEMM, arch, mapping, sparsity, 7)
    for name in ("w", "x"):
        assert cost.at("near", name).reads == pytest.approx(reads[name], rel=0.05)
    # all sums are drained once: 8 reads of the output that no zero spares
    assert cost.at("near", "y").updates == pytest.approx(reads["y"], rel=0.05)
    assert cost.mac_energy_pj == pytest.approx(macs, rel=0.05)
    dense = evaluate(GEMM, arch, mapping).compute_cycles
    assert cost.compute_cycles == pytest.approx(dense * left, rel=0.05, abs=1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_compressed_tensors_move_their_nonzeros_and_a_mask(seed: int) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng)
    mapping = random_mapping(rng, problem, arch)
    dense = evaluate(problem, arch, mapping)
    sparsity = Sparsity({"weight": 0.25}, compressed=frozenset({"weight"}))
    cost = evaluate(sparsity.apply(problem), arch, mapping)
    for item, other in zip(cost.traffic, dense.traffic, strict=True):
        assert (item.reads, item.fills, item.updates) == (other.reads, other.fills, other.updates)
        share = (0.25 * 8 + 1) / 8 if item.role == "weight" else 1
        assert item.energy_pj == pytest.approx(share * other.energy_pj)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["timeloop", "native"]))
def test_a_density_of_one_changes_nothing(seed: int, mode: str) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng)
    mapping = random_mapping(rng, problem, arch)
    sparsity = Sparsity({"weight": 1.0}, gate=("weight",), skip=("input",))
    sparse = sparsity.apply(problem)
    assert sparsity.arch(sparse, arch) == arch
    assert evaluate(sparse, arch, mapping, mode=mode).traffic == evaluate(problem, arch, mapping, mode=mode).traffic  # type: ignore[arg-type]


def test_tiles_keep_room_for_zeros_so_that_no_tile_overflows() -> None:
    sparsity = Sparsity({"weight": 0.1, "input": 0.1}, compressed=frozenset({"weight", "input"}))
    arch = Arch(
        name="tight", clock_mhz=100, compute=Compute(accumulator_bits=8),
        levels=(MemoryLevel(name="far", word_bits=8, energy_class="dram"),
                MemoryLevel(name="near", word_bits=8, capacity_bytes=3, energy_class="register")),
        axes=(SpatialAxis(name="x", size=2, below="near"),),
    )  # fmt: skip
    found = best_mapping(sparsity.apply(GEMM), arch, "energy")
    assert sum(item.tile_words for item in found.cost.traffic if item.level == "near") <= 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"density": {"weight": 0.0}}, "density of 'weight': 0 is not above 0"),
        ({"density": {"weight": 1.5}}, "at most 1"),
        ({"gate": ("output",)}, "gate takes input or weight, not 'output'"),
        ({"skip": ("wieght",)}, "did you mean 'weight'"),
        ({"gate": ("weight",), "skip": ("weight",)}, "either gated or skipped"),
        ({"compressed": frozenset({"in"})}, "compressed takes"),
    ],
)
def test_wrong_sparsity_says_what_is_right(wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Sparsity(**wrong)
