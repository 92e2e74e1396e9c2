"""Fused groups in stripes: values, safety, time and traffic of random chains under random plans."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from designs import FAMILY
from fused_chains import compile_fused, random_chain, random_plan, wide_hardware
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import random_values

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.fusion import GroupPlan
from accelerators.systolic.stripes import stripe_rows, stripes_of
from accelerators.systolic.work import Fused
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, ModelError, UsageError
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.isa import Opcode
from dse.sim import simulate_a, simulate_c

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int) -> tuple[Graph, str, GroupPlan, SystolicExecutable] | None:
    """A chain fused whole on a random design, or None when it does not fit."""
    rng = np.random.default_rng(seed)
    hw = wide_hardware(rng)
    graph = random_chain(rng, hw.weight_bits)
    plan = random_plan(rng, graph, hw)
    if plan is None:
        return None
    try:
        return graph, hw.requantize, plan, compile_fused(graph, hw, plan)
    except InfeasibleError:
        return None


@settings(max_examples=150, deadline=None)
@given(seed=seeds, order=seeds)
def test_fused_chains_equal_the_reference_in_any_legal_order_and_check_clean(seed: int, order: int) -> None:
    found = drawn(seed)
    assume(found is not None)
    assert found is not None
    graph, mode, _, executable = found
    inputs = random_values(np.random.default_rng(order), graph)
    expected = run_quantized(graph, inputs, mode)
    result = executable.run(inputs, order_seed=order)
    for name in graph.outputs:
        np.testing.assert_array_equal(result[name], expected[name])
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_levels_agree_on_fused_chains_and_no_byte_is_moved_in_vain(seed: int) -> None:
    found = drawn(seed)
    assume(found is not None)
    assert found is not None
    _, _, _, executable = found
    view = executable.task_graph()
    fast, slow = simulate_a(view), simulate_c(view)
    np.testing.assert_array_equal(fast.start, slow.start)
    np.testing.assert_array_equal(fast.end, slow.end)
    layer = executable.metrics(fast).layers[0]
    assert layer.memory_bytes >= layer.compulsory_bytes
    assert layer.executed_macs >= layer.useful_macs
    assert min(layer.losses.values()) >= -1e-9


def test_random_chains_cover_what_they_claim() -> None:
    """Chains of every length, rolling and recomputed rows, resident and streamed weights, loops of stripe pairs."""
    seen: Counter[str] = Counter()
    for seed in range(400):
        found = drawn(seed)
        if found is None:
            continue
        plan = found[2]
        seen[f"{len(plan.layers)} layers"] += 1
        seen["resident" if plan.resident else "streamed"] += 1
        seen["rolling" if plan.rolling else "not rolling"] += 1
        seen["several stripes"] += len(plan.runs) > 1
        seen["loop over stripes"] += any(run.count > 1 for run in plan.runs)
        seen["loop over pairs"] += any(run.count > 1 and len(run.stripes) > 1 for run in plan.runs)
        seen["residual"] += plan.group.residual is not None
        seen["bordered last stripe"] += plan.runs[-1].stripes[-1].bordered and len(plan.runs) > 1
        seen["depthwise"] += any(layer.layer.groups > 1 for layer in plan.layers)
    wanted = (
        "2 layers", "3 layers", "4 layers", "resident", "streamed", "rolling", "not rolling", "several stripes",
        "loop over stripes", "loop over pairs", "residual", "bordered last stripe", "depthwise",
    )  # fmt: skip
    assert all(seen[name] >= 2 for name in wanted), seen


def every_row(layers: tuple[object, ...], low: int, high: int) -> list[set[int]]:
    """Rows of each layer's output that output rows [low, high) of the last depend on, one by one."""
    wanted = set(range(low, high))
    result = [wanted]
    for layer in reversed(layers[1:]):
        needed = set()
        for row in wanted:
            for k in range(layer.kernel[0]):  # type: ignore[attr-defined]
                at = row * layer.strides[0] + k * layer.dilations[0] - layer.pads[0]  # type: ignore[attr-defined]
                if 0 <= at < layer.height:  # type: ignore[attr-defined]
                    needed.add(at)
        wanted = needed
        result.append(wanted)
    return result[::-1]


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_stripes_compute_every_row_that_is_read_and_rolling_ones_compute_it_once(seed: int) -> None:
    found = drawn(seed)
    assume(found is not None)
    assert found is not None
    layers = found[2].group.layers
    height = found[2].stripe
    total = layers[-1].out_height
    for low in range(0, total, height):
        rows = stripe_rows(layers, low, min(low + height, total), None)
        for mine, needed in zip(rows, every_row(layers, low, min(low + height, total)), strict=True):
            assert needed <= set(range(mine.low, mine.high))
    rolling = stripes_of(layers, height, rolling=True)
    if rolling is not None:
        for index in range(len(layers)):
            computed = [row for stripe in rolling for row in range(stripe.rows[index].low, stripe.rows[index].high)]
            assert len(computed) == len(set(computed))
            assert every_row(layers, 0, total)[index] <= set(computed)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_fusion_is_never_slower_and_never_moves_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hw = wide_hardware(rng)
    graph = random_chain(rng, hw.weight_bits)
    try:
        plain = FAMILY.lower(graph, hw, Decisions())
        fused = FAMILY.lower(graph, hw, Decisions({"fuse_layers": "auto"}))
    except InfeasibleError:
        assume(False)
    before, after = plain.metrics(simulate_c(plain.task_graph())), fused.metrics(simulate_c(fused.task_graph()))
    assert after.cycles <= before.cycles
    assert sum(layer.memory_bytes for layer in after.layers) <= sum(layer.memory_bytes for layer in before.layers)


def fused_example() -> tuple[Graph, SystolicExecutable]:
    """The first random chain that fits, fused."""
    found = next(item for item in map(drawn, range(50)) if item is not None)
    return found[0], found[3]


def test_fused_programs_can_run_on_the_emitted_hardware() -> None:
    """Whether they do, bit for bit and cycle for cycle, is shown in tests/rtl/test_fused_layers.py."""
    _, executable = fused_example()
    assert any(d.op == Opcode.FORWARD for step in executable.program.tile_steps for d in step.queues["vector"])
    assert FAMILY.rtl_gap(executable) is None


def test_a_tensor_that_stays_on_chip_cannot_be_read_and_the_decision_is_checked() -> None:
    graph, executable = fused_example()
    group = executable.work[0]
    assert isinstance(group, Fused)
    memory = executable.load_inputs(random_values(np.random.default_rng(0), graph))
    with pytest.raises(ModelError, match="never in memory"):
        executable.read(memory, group.group.layers[0].output)
    with pytest.raises(UsageError, match="neither auto nor off"):
        FAMILY.lower(graph, executable.hw, Decisions({"fuse_layers": "on"}))
