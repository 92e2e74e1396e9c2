"""Programs of the NPU family compute what the reference computes, are safe, and take the same time at every level."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_inputs, random_layer
from npu_designs import random_npu
from random_networks import random_network, random_values
from recurrent_networks import recurrent_graph

from accelerators.npu import NpuAccelerator
from accelerators.npu.executable import NpuExecutable
from dse.backend import Decisions
from dse.compiler import quantize
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.sim import simulate_a, simulate_c

FAMILY = NpuAccelerator()


def compiled(graph: Graph, rng: np.random.Generator, **changes: object) -> NpuExecutable:
    """The graph on the first random NPU that it fits."""
    hiding = bool(rng.integers(4))
    decisions = Decisions({"latency_hiding": hiding, "fuse_residual": bool(rng.integers(4))})
    if not hiding:
        changes["dma_channels"] = 1
    for _ in range(50):
        try:
            return FAMILY.lower(graph, random_npu(rng, **changes), decisions)
        except InfeasibleError:
            continue
    raise AssertionError("no random design fits")


def assert_equal_reference(executable: NpuExecutable, inputs: dict[str, np.ndarray], seed: int) -> None:
    graph = executable.graph
    expected = run_quantized(graph, inputs, executable.hw.requantize)
    outputs = executable.run(inputs, order_seed=seed)
    for name in graph.outputs:
        np.testing.assert_array_equal(outputs[name], expected[name])


def assert_safe(executable: NpuExecutable) -> None:
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []


def assert_levels_agree(executable: NpuExecutable) -> None:
    graph = executable.task_graph()
    fast, slow = simulate_a(graph), simulate_c(graph)
    assert fast.total_cycles == slow.total_cycles
    np.testing.assert_array_equal(fast.end, slow.end)
    # the constructor checks sums, floors and losses
    assert executable.metrics(fast).cycles == fast.total_cycles


@pytest.mark.parametrize("seed", range(60))
def test_a_layer_equals_the_reference_in_any_legal_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_layer(rng, add=seed % 4 == 0, kind="gemm" if seed % 5 == 1 else "conv")
    executable = compiled(graph, rng)
    assert_equal_reference(executable, random_inputs(rng, graph), seed)
    assert_safe(executable)
    assert_levels_agree(executable)


@pytest.mark.parametrize("seed", range(40))
def test_a_network_of_chained_layers_equals_the_reference_in_any_legal_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_network(seed)
    executable = compiled(graph, rng)
    assert_equal_reference(executable, random_values(rng, graph), seed)
    assert_safe(executable)
    assert_levels_agree(executable)


@pytest.mark.parametrize("seed", range(12))
def test_an_lstm_equals_the_reference_and_its_program_does_not_grow_with_the_sequence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = []
    for steps in (7, 19):
        sizes_of = np.random.default_rng(seed)
        batch, inputs_per_step, hidden = (int(sizes_of.integers(1, top)) for top in (4, 20, 24))
        outputs = [("y", "yh"), ("y",), ("yh",)][seed % 3]
        graph = recurrent_graph(sizes_of, "lstm", (steps, batch, inputs_per_step, hidden), outputs=outputs)
        graph = quantize(graph, {"x": rng.normal(0, 1, graph["x"].shape).astype(np.float32)})
        executable = compiled(graph, np.random.default_rng(seed), weight_kib=16.0, activation_kib=16.0)
        inputs = {name: rng.integers(-128, 128, graph[name].shape).astype(np.int8) for name in graph.inputs}
        assert_equal_reference(executable, inputs, seed)
        assert_safe(executable)
        assert_levels_agree(executable)
        sizes.append(sum(len(queue) for step in executable.program.tile_steps for queue in step.queues.values()))
    assert sizes[0] == sizes[1]
