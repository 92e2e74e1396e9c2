"""The closed forms of a mapping's cost equal an interpreter that walks its loops; limits are named when broken."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_oracle import interpret, lay_out, tiles_entering
from mapping_samples import random_arch, random_mapping, random_problem
from pydantic import ValidationError

from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.core.errors import ConfigError, DseError, InfeasibleError, UsageError
from dse.ir.loopnest import Access, LoopNest
from dse.mapping import Mapping, TemporalLevel, access_energy, evaluate, problem_of
from dse.mapping.loops import nest_of
from dse.mapping.movement import entries

GEMM = problem_of(
    LoopNest(
        "fc", {"M": 6, "K": 10, "N": 4},
        (Access("w", ({"M": 1}, {"K": 1}), (0, 0), "weight"), Access("x", ({"K": 1}, {"N": 1}), (0, 0), "input"),
         Access("y", ({"M": 1}, {"N": 1}), (0, 0), "output")),
        frozenset({"K"}),
    )
)  # fmt: skip


def two_levels(**inner: object) -> Arch:
    levels = (
        {"name": "far", "word_bits": 8, "energy_class": "dram"},
        {"name": "near", "word_bits": 8, "capacity_bytes": 4096, **inner},
    )
    return Arch(
        name="two", clock_mhz=100, levels=tuple(MemoryLevel.model_validate(level) for level in levels),
        axes=(SpatialAxis(name="x", size=4, below="near", reduces=True),), compute=Compute(accumulator_bits=8),
    )  # fmt: skip


def mapped(far: str, near: str, x: str = "") -> Mapping:
    def loops(text: str) -> tuple[tuple[str, int], ...]:
        return tuple((part[0], int(part[1:])) for part in text.split())

    return Mapping((TemporalLevel("far", loops(far)), TemporalLevel("near", loops(near))), {"x": loops(x)})


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from(["timeloop", "native"]))
def test_counts_equal_an_interpreter_that_walks_the_loops(seed: int, mode: str) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng)
    mapping = random_mapping(rng, problem, arch)
    cost = evaluate(problem, arch, mapping, mode=mode)  # type: ignore[arg-type]
    counted, steps = interpret(problem, arch, mapping, mode)
    ours = {(item.level, item.tensor): (item.reads, item.fills, item.updates) for item in cost.traffic}
    assert ours == counted
    assert cost.compute_cycles == steps


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_tiles_that_enter_equal_an_interpreter_that_walks_the_loops(seed: int) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng)
    mapping = random_mapping(rng, problem, arch)
    nest = nest_of(problem, arch, mapping)
    loops = lay_out(problem, arch, mapping)
    for tensor, access in enumerate(problem.tensors):
        for child in nest.keepers(tensor):
            assert entries(nest, tensor, child) == tiles_entering(problem, arch, loops, access, child)


def test_a_tile_takes_its_transfer_cycles_of_the_port_it_passes() -> None:
    mapping = mapped("N4 K5", "M6 K2")
    plain = two_levels(word_bits=8)
    far = plain.levels[0].model_copy(update={"read_words_per_cycle": 1.0, "transfer_cycles": 7.0})
    slow = plain.model_copy(update={"levels": (far, plain.levels[1])})
    fast = plain.model_copy(update={"levels": (far.model_copy(update={"transfer_cycles": 0.0}), plain.levels[1])})
    # 20 tiles of weights and 20 of inputs leave; outputs pass the write port, which is unbounded
    assert evaluate(GEMM, slow, mapping).cycles - evaluate(GEMM, fast, mapping).cycles == 40 * 7
    assert evaluate(GEMM, slow, mapping, mode="timeloop") == evaluate(GEMM, fast, mapping, mode="timeloop")


def test_without_reuse_of_the_window_every_tile_is_fetched_whole() -> None:
    window = LoopNest(
        "conv", {"P": 8, "R": 3},
        (Access("i", ({"P": 1, "R": 1},), (0,), "input"), Access("w", ({"R": 1},), (0,), "weight"),
         Access("o", ({"P": 1},), (0,), "output")),
        frozenset({"R"}),
    )  # fmt: skip
    mapping = mapped("P4", "P2 R3")
    kept, whole = (evaluate(problem_of(window), two_levels(window_reuse=reuse), mapping) for reuse in (True, False))
    assert (kept.at("near", "i").fills, whole.at("near", "i").fills) == (10, 4 * 4)


def test_a_partition_bounds_its_own_role_only() -> None:
    mapping = mapped("N4 K5", "M6 K2")
    roomy = two_levels(shared=False, capacity_bytes=1, partitions={"input": 2, "weight": 12, "output": 6})
    assert evaluate(GEMM, roomy, mapping).macs == 240
    tight = two_levels(shared=False, capacity_bytes=99, partitions={"weight": 11})
    with pytest.raises(InfeasibleError, match="w in level near"):
        evaluate(GEMM, tight, mapping)
    for changes, message in (
        ({"shared": True, "partitions": {"input": 1}}, "needs shared: false"),
        ({"shared": False, "holds": {"weight"}, "partitions": {"input": 1}}, "which it does not hold"),
    ):
        with pytest.raises(ValidationError, match=message):
            two_levels(**changes)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_cost_is_the_sum_of_its_parts_and_cycles_respect_the_peak(seed: int) -> None:
    rng = random.Random(seed)
    problem, arch = random_problem(rng), random_arch(rng)
    cost = evaluate(problem, arch, random_mapping(rng, problem, arch))
    parts = [item.energy_pj for item in cost.traffic]
    assert cost.energy_pj == pytest.approx(sum(parts) + problem.macs, rel=1e-12)
    assert cost.cycles >= max(cost.compute_cycles, problem.macs / arch.peak_macs_per_cycle)
    assert min(item.reads for item in cost.traffic) >= 0
    assert 0 < cost.utilization <= 1


def test_native_packs_elements_into_words_and_charges_drains() -> None:
    mapping = mapped("N4 K5", "M6 K2")
    wide = evaluate(GEMM, two_levels(word_bits=32), mapping)
    prices = access_energy(two_levels(word_bits=32))
    weights, outputs = wide.at("near", "w"), wide.at("near", "y")
    assert weights.energy_pj == pytest.approx(
        (weights.reads * prices.read_pj[1] + weights.fills * prices.write_pj[1]) / 4
    )
    quiet = evaluate(GEMM, two_levels(word_bits=32), mapping, mode="timeloop")
    drained = wide.at("far", "y").updates
    assert outputs.reads - quiet.at("near", "y").reads == drained == 24


def test_native_waits_for_the_first_tiles_and_the_last_drain() -> None:
    mapping = mapped("N4 K5", "M6 K2")
    slow = two_levels(read_words_per_cycle=2, write_words_per_cycle=0.5)
    cost = evaluate(GEMM, slow, mapping)
    # weights 12 and inputs 2 words enter at half a word a cycle, outputs 6 words leave at two
    assert cost.ramp_cycles == 12 / 0.5 + 2 / 0.5 + 6 / 2
    overlapped = evaluate(GEMM, slow, mapping, mode="timeloop")
    assert overlapped.ramp_cycles == 0
    assert overlapped.limit == "near"


def test_residual_tiles_take_only_the_time_and_words_they_have() -> None:
    # K 10 over 4 units: three steps, the last with two units
    cost = evaluate(GEMM, two_levels(), mapped("K3", "M6 N4", "K4"), mode="timeloop")
    assert cost.compute_cycles == 3 * 24
    assert cost.at("far", "w").reads == 60
    assert cost.at("near", "w").reads == 6 * 10 * 4


def test_the_words_that_no_iteration_touches_are_left_out_only_when_asked() -> None:
    strided = LoopNest(
        "conv", {"M": 2, "P": 4, "R": 1, "G": 2, "C": 3},
        (Access("w", ({"M": 1}, {"C": 1}, {"R": 1}), (0,) * 3, "weight"),
         Access("i", ({"G": 3, "C": 1}, {"P": 2, "R": 1}), (0, 0), "input"),
         Access("o", ({"G": 2, "M": 1}, {"P": 1}), (0, 0), "output")),
        frozenset({"C", "R"}),
    )  # fmt: skip
    dense, boxed = problem_of(strided), problem_of(strided, dense=False)
    sizes = (2, 4, 1, 2, 2)
    assert (dense.tensors[1].words(sizes), boxed.tensors[1].words(sizes)) == (4 * 4, 5 * 7)
    assert dense.tensors[1].words(dense.bounds) == 24


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (mapped("K3", "M6 N4"), "factors of K cover 3 of 10"),
        (mapped("K6", "M6 N4 K2"), "outermost factor 6 of K leaves whole steps empty; 5 covers"),
        (mapped("K2", "M6 N4", "K5"), "axis 'x' has 4 units, not 5"),
        (mapped("Q2", "M6 N4 K10"), "'Q' is not a dim of fc"),
        (Mapping((TemporalLevel("nea", ()),), {}), "did you mean 'near'"),
        (Mapping((), {"z": ()}), "'z' is not an axis of two"),
        (Mapping((TemporalLevel("far", (), frozenset({"input"})), TemporalLevel("near", (), frozenset({"input"}))), {}),
         "factors of M cover"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_the_space_says_why(mapping: Mapping, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(GEMM, two_levels(), mapping)


def test_tiles_beyond_a_level_name_it_and_the_excess() -> None:
    with pytest.raises(InfeasibleError, match=r"tiles in level near: 124 words against a bound of 64 words") as caught:
        evaluate(GEMM, two_levels(capacity_bytes=64), mapped("", "M6 N4 K10"))
    assert caught.value.violations[0].excess == pytest.approx(60 / 64)
    with pytest.raises(InfeasibleError, match="w in level near: 60 words against a bound of 32 words"):
        evaluate(GEMM, two_levels(capacity_bytes=64, double_buffered=True, shared=False), mapped("", "M6 N4 K10"))


def test_prices_come_from_the_tables_at_node_and_supply_or_stand_in_the_file() -> None:
    arch = two_levels()
    with pytest.raises(ConfigError, match="sram without capacity"):
        access_energy(two_levels(capacity_bytes=None))
    prices = access_energy(two_levels(read_energy_pj=3))
    assert prices.read_pj[1] == 3
    assert math.isclose(prices.read_pj[0], 64.0)  # 8 bits of LPDDR4 at 8 pJ
    small, low = (access_energy(arch.model_copy(update=change)) for change in ({"node_nm": 22}, {"vdd": 0.7}))
    here = access_energy(arch)
    for other in (small, low):
        assert other.mac_pj < here.mac_pj
        assert other.read_pj[1] < here.read_pj[1]
        assert other.read_pj[0] == here.read_pj[0]  # external memory has a supply of its own
    replaced = access_energy(arch.model_copy(update={"prices": (("multiply8_energy_aladdin", 0.2),)}))
    assert math.isclose(here.mac_pj - replaced.mac_pj, 0.79 - 0.2)


def test_operand_registers_are_paid_at_every_mac() -> None:
    arch = two_levels()
    compute = arch.compute.model_copy(update={"operand_registers": True})
    more = access_energy(arch.model_copy(update={"compute": compute})).mac_pj - access_energy(arch).mac_pj
    bits = compute.input_bits + compute.weight_bits + compute.accumulator_bits
    assert math.isclose(more, 2 * 0.009 * bits)  # a read and a write of every bit


def test_errors_derive_from_ours() -> None:
    assert issubclass(InfeasibleError, DseError)
