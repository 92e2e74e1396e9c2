"""What may fuse and at what price: chains, exact prices, plans inside their memories, equal results every time."""

from __future__ import annotations

import numpy as np
import pytest
from designs import FAMILY
from fused_chains import compile_fused, random_chain, random_plan, wide_hardware
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import NetworkDraw

from accelerators.systolic.fusion_choose import Cutting, _group_price, within_budget
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.work import Fused
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.program.tile.isa import MemoryId
from dse.sim import simulate_a

#: Slow memory and large scratchpads: whatever may fuse does.
EAGER = SystolicHardware(
    rows=4, columns=4, activation_kib=64, weight_kib=16, accumulator_kib=4, memory_bytes_per_cycle=1, clock_mhz=100,
    descriptors=1024,
)  # fmt: skip
FUSE = Decisions({"fuse_layers": "auto"})


def pair(*, batch: int = 1) -> tuple[NetworkDraw, str, str]:
    """Two pointwise layers; returns the first one's output and the second one's."""
    draw = NetworkDraw(np.random.default_rng(1))
    first = draw.conv(draw.input((batch, 4, 12, 12)), 16, (1, 1), pads=(0, 0, 0, 0))
    return draw, first, draw.conv(first, 4, (1, 1), pads=(0, 0, 0, 0))


def groups(graph: Graph) -> list[int]:
    """Layers of each fused group."""
    return [len(item.group.layers) for item in FAMILY.lower(graph, EAGER, FUSE).work if isinstance(item, Fused)]


def test_a_pair_that_nobody_else_reads_fuses() -> None:
    draw, _, last = pair()
    assert groups(draw.graph(last)) == [2]


def test_a_tensor_that_is_an_output_or_read_twice_does_not_stay_on_chip() -> None:
    draw, first, last = pair()
    assert groups(draw.graph(first, last)) == []
    draw, first, last = pair()
    other = draw.conv(first, 3, (1, 1), pads=(0, 0, 0, 0))
    assert groups(draw.graph(last, other)) == []


def test_batches_do_not_fuse_and_host_operations_end_a_chain() -> None:
    draw, _, last = pair(batch=2)
    assert groups(draw.graph(last)) == []
    draw = NetworkDraw(np.random.default_rng(2))
    pooled = draw.max_pool(draw.conv(draw.input((1, 4, 12, 12)), 16, (1, 1), pads=(0, 0, 0, 0)))
    assert groups(draw.graph(draw.conv(pooled, 4, (1, 1), pads=(0, 0, 0, 0)))) == []


@pytest.mark.parametrize("seed", range(12))
def test_the_price_of_a_group_is_the_program_that_is_emitted_and_plans_fit(seed: int) -> None:
    checked = 0
    for number in range(12):
        rng = np.random.default_rng((seed, number))
        hw = wide_hardware(rng)
        graph = random_chain(rng, hw.weight_bits)
        plan = random_plan(rng, graph, hw)
        if plan is None:
            continue
        target = machine(hw)
        assert plan.activation_bound <= plan.activation_words <= target.words[MemoryId.ACTIVATION]
        for layer in plan.layers:
            assert layer.n * layer.y * layer.layer.out_width <= target.half(MemoryId.ACCUMULATOR)
            assert layer.buffer.base + layer.buffer.rows * layer.buffer.pitch <= plan.activation_words
        price = _group_price(plan, target)
        try:
            executable = compile_fused(graph, hw, plan)
        except InfeasibleError:
            continue
        assert price is not None
        if len(executable.program.steps) == 1:
            assert simulate_a(executable.task_graph()).total_cycles == price.cycles
        assert executable.estimate().layers[0].memory_bytes == price.bytes
        checked += 1
    assert checked > 0


def test_the_same_network_compiles_to_the_same_program() -> None:
    draw, _, last = pair()
    one, other = (FAMILY.lower(draw.graph(last), EAGER, FUSE).program for _ in range(2))
    assert one.steps == other.steps
    np.testing.assert_array_equal(one.image, other.image)


prices = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(chains=st.lists(prices, min_size=1, max_size=4))
def test_cuttings_stay_within_the_cycles_of_no_fusion_and_no_single_change_saves_more(
    chains: list[list[tuple[int, int]]],
) -> None:
    cuttings = [[Cutting(0.0, cycles, size, ()) for cycles, size in options] for options in chains]
    budget = sum(options[0].cycles for options in cuttings)
    chosen = within_budget(cuttings)
    spent = sum(cut.cycles for cut in chosen)
    assert spent <= budget
    for cut, options in zip(chosen, cuttings, strict=True):
        assert cut in options
        assert not any(other.bytes < cut.bytes and spent - cut.cycles + other.cycles <= budget for other in options)
    # the fastest cuttings are where it starts
    fastest = [min(options, key=lambda item: (item.cycles, item.bytes)) for options in cuttings]
    assert sum(cut.bytes for cut in chosen) <= sum(cut.bytes for cut in fastest)
