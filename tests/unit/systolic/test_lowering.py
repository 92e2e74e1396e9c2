"""The compiled program computes what the reference computes, on any hardware and for any layer."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_inputs, random_layer

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.program import TileStep
from dse.sim import simulate_a, simulate_c

FAMILY = SystolicAccelerator()


def random_hardware(rng: np.random.Generator, **changes: object) -> SystolicHardware:
    """A small random design; buffers small enough to force tiling."""
    columns = int(rng.integers(2, 9))
    lanes = [lane for lane in range(1, columns + 1) if columns % lane == 0]
    values = {
        "rows": int(rng.integers(2, 9)),
        "columns": columns,
        "dataflow": str(rng.choice(["ws", "os"])),
        "weight_bits": int(rng.choice([4, 8])),
        "activation_kib": float(rng.choice([0.5, 1, 2, 8])),
        "weight_kib": float(rng.choice([0.5, 1, 2, 8])),
        "accumulator_kib": float(rng.choice([0.125, 0.25, 0.5, 2])),
        "vector_lanes": int(rng.choice(lanes)),
        "parameter_channels": 64,
        "requantize": str(rng.choice(["ort", "q31"])),
        "memory_bytes_per_cycle": int(rng.choice([1, 2, 4, 8, 16])),
        "memory_latency_ns": float(rng.integers(0, 40)),
        "descriptors": 1024,
    }
    return SystolicHardware.model_validate({**values, **changes})


def compile_random(seed: int, **changes: object):
    """A random layer on random hardware that can hold it, with random decisions."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        hw = random_hardware(rng, **changes)
        kind = str(rng.choice(["conv", "conv", "conv", "depthwise", "grouped", "gemm"]))
        add = kind == "conv" and hw.requantize == "q31" and bool(rng.random() < 0.5)
        graph = random_layer(rng, weight_bits=hw.weight_bits, add=add, kind=kind)
        decisions = Decisions(
            {
                "gather": bool(rng.random() < 0.7),
                "mapping_objective": str(rng.choice(["latency", "traffic", "balanced"])),
            }
        )
        try:
            return rng, graph, hw, FAMILY.lower(graph, hw, decisions)
        except InfeasibleError:
            continue
    raise AssertionError("no feasible random design in 50 tries")


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
