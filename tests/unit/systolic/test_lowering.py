"""The compiled program computes what the reference computes, on any hardware and for any layer."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_inputs
from designs import compile_random

from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.program import TileStep
from dse.sim import simulate_a, simulate_c


@pytest.mark.parametrize("seed", range(120))
def test_program_equals_reference_in_any_legal_order(seed: int) -> None:
    rng, graph, hw, executable = compile_random(seed)
    inputs = random_inputs(rng, graph)
    expected = run_quantized(graph, inputs, hw.requantize)
    outputs = executable.run(inputs, order_seed=seed)
    for name in graph.outputs:
        np.testing.assert_array_equal(outputs[name], expected[name])


@pytest.mark.parametrize("seed", range(40))
def test_checker_accepts_compiled_programs(seed: int) -> None:
    _, _, _, executable = compile_random(1000 + seed)
    for step in executable.program.steps:
        if isinstance(step, TileStep):
            assert check(step, executable.program.machine, executable.program.memory_bytes) == []


@pytest.mark.parametrize("seed", range(60))
def test_level_a_equals_level_c_and_metrics_hold(seed: int) -> None:
    _, _, _, executable = compile_random(2000 + seed)
    graph = executable.task_graph()
    fast, slow = simulate_a(graph), simulate_c(graph)
    assert fast.total_cycles == slow.total_cycles
    np.testing.assert_array_equal(fast.start, slow.start)
    np.testing.assert_array_equal(fast.end, slow.end)
    metrics = executable.metrics(fast)  # its constructor checks the invariants
    assert metrics.cycles == fast.total_cycles
    assert metrics.useful_macs == sum(layer.useful_macs for layer in metrics.layers)
    assert all(value >= -1e-9 for layer in metrics.layers for value in layer.losses.values())
