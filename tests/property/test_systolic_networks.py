"""Whole random networks on random systolic designs: values, time and metrics hold beyond the single layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from designs import FAMILY, random_hardware
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import random_network, random_values

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.metrics import Metrics
from dse.program.tile.checker import check
from dse.sim import simulate_a, simulate_c

seeds = st.integers(0, 2**32 - 1)


def compiled(seed: int) -> tuple[Graph, SystolicHardware, SystolicExecutable]:
    """A random network on a random design with random decisions; weights may have fewer bits than the array."""
    rng = np.random.default_rng(seed)
    # a kernel of 3 x 3 over a few channels fits a quarter of a KiB nowhere
    hw = random_hardware(rng, activation_kib=float(rng.choice([1, 2, 8])), weight_kib=float(rng.choice([1, 2, 8])))
    graph = random_network(seed, weight_bits=int(rng.choice([bits for bits in (4, 8) if bits <= hw.weight_bits])))
    objective = str(rng.choice(["latency", "traffic", "balanced"]))
    decisions = {"gather": bool(rng.random() < 0.7), "fuse_residual": bool(rng.random() < 0.8)}
    executable = FAMILY.lower(graph, hw, Decisions({**decisions, "mapping_objective": objective}))
    assert isinstance(executable, SystolicExecutable)
    return graph, hw, executable


@settings(max_examples=120, deadline=None)
@given(seed=seeds, order=seeds)
def test_networks_equal_the_reference_in_any_legal_order_and_check_clean(seed: int, order: int) -> None:
    try:
        graph, hw, executable = compiled(seed)
    except InfeasibleError:
        assume(False)
    inputs = random_values(np.random.default_rng(order), graph)
    expected = run_quantized(graph, inputs, hw.requantize)
    found = executable.run(inputs, order_seed=order)
    assert list(found) == list(graph.outputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(found[name], expected[name])
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []


@settings(max_examples=80, deadline=None)
@given(seed=seeds)
def test_levels_agree_and_metrics_are_sums_of_their_parts(seed: int) -> None:
    try:
        graph, hw, executable = compiled(seed)
    except InfeasibleError:
        assume(False)
    view = executable.task_graph()
    fast, slow = simulate_a(view), simulate_c(view)
    np.testing.assert_array_equal(fast.start, slow.start)
    np.testing.assert_array_equal(fast.end, slow.end)
    assert fast.total_cycles == slow.total_cycles
    metrics = executable.metrics(fast)
    assert metrics.useful_macs == graph.macs
    assert_parts_sum_up(metrics, hw.pes)


def assert_parts_sum_up(metrics: Metrics, pes: int) -> None:
    """Cycles, losses, bytes and energy of every layer, and of the network from its layers."""
    assert metrics.cycles == sum(layer.cycles for layer in metrics.layers)
    assert 0 <= metrics.utilization <= 1
    for layer in metrics.layers:
        assert min(layer.losses.values()) >= -1e-9, (layer.name, layer.losses)
        assert math.fsum(layer.losses.values()) + layer.useful_macs / pes == pytest.approx(layer.cycles, rel=1e-12)
        assert layer.cycles * pes >= layer.executed_macs >= layer.useful_macs
        assert layer.memory_bytes >= layer.compulsory_bytes
        assert min(layer.energy_pj.values()) >= 0
        if layer.traffic:
            port = [row for row in layer.traffic if row.level == "memory"]
            assert sum(row.read_bytes + row.write_bytes for row in port) == layer.memory_bytes
    dynamic = math.fsum(value for name, value in metrics.energy_pj.items() if name != "static")
    assert dynamic == pytest.approx(math.fsum(v for layer in metrics.layers for v in layer.energy_pj.values()))
    seconds = metrics.cycles / (metrics.clock_mhz * 1e6)
    assert metrics.energy_pj["static"] == pytest.approx(math.fsum(metrics.static_mw.values()) * seconds * 1e9)


def test_random_networks_cover_what_they_claim() -> None:
    """Batches, fused adds, host operations, several outputs, an output used inside, strides past kernels."""
    seen: set[str] = set()
    for seed in range(150):
        graph = random_network(seed)
        kinds = [op.kind for op in graph.ops]
        seen |= set(kinds)
        seen |= {"batch"} if graph[graph.inputs[0]].shape[0] > 1 else set()
        seen |= {"outputs"} if len(graph.outputs) > 1 else set()
        seen |= {"used output"} if any(graph.consumers(name) for name in graph.outputs) else set()
        seen |= {"two inputs"} if len(graph.inputs) > 1 else set()
        for op in graph.ops:
            if op.kind == "conv":
                kernel, strides = op.attributes["kernel"], op.attributes["strides"]
                size = graph[op.inputs[0]].shape[2:]
                seen |= {"stride past kernel"} if strides[0] > kernel[0] else set()
                seen |= {"kernel past image"} if kernel[0] > size[0] else set()
                seen |= {"asymmetric"} if op.attributes["pads"][:2] != op.attributes["pads"][2:] else set()
                seen |= {"grouped"} if op.attributes["groups"] > 1 else set()
                seen |= {"dilated"} if max(op.attributes["dilations"]) > 1 else set()
            if op.kind == "add" and {graph.producer(name) for name in op.inputs} & {None}:
                seen.add("add of an input")
            if op.kind == "gemm" and graph[graph.producer(op.inputs[0]).inputs[0]].shape[2:] != (1, 1):
                seen.add("flattened map")
    for wanted in (
        "conv", "gemm", "add", "max_pool", "global_average_pool", "batch", "outputs", "used output", "two inputs",
        "stride past kernel", "kernel past image", "asymmetric", "grouped", "dilated", "add of an input",
        "flattened map",
    ):  # fmt: skip
        assert wanted in seen, wanted
