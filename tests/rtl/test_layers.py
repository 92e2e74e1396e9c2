"""Random layers on random designs: reference = interpreter = RTL bit for bit, level A = level C = RTL cycles."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_inputs
from designs import compile_random

from accelerators.systolic.verify import run_rtl
from dse.ir.reference import run_quantized
from dse.sim import simulate_a, simulate_c

LAYERS = 72


@pytest.mark.parametrize("seed", range(LAYERS))
def test_rtl_equals_reference_and_predicted_cycles(seed: int) -> None:
    rng, graph, hw, executable = compile_random(5000 + seed)
    inputs = random_inputs(rng, graph)
    expected = run_quantized(graph, inputs, hw.requantize)
    program_values = executable.run(inputs)
    hardware = run_rtl(executable, inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(program_values[name], expected[name])
        np.testing.assert_array_equal(hardware.outputs[name], expected[name])
    view = executable.task_graph()
    assert simulate_a(view).total_cycles == simulate_c(view).total_cycles == hardware.cycles


def test_random_layers_cover_what_they_claim() -> None:
    """Both dataflows, both weight widths, both modes, every kind of layer and residual adds occur."""
    seen: set[tuple[str, object]] = set()
    for seed in range(LAYERS):
        _, graph, hw, executable = compile_random(5000 + seed)
        layer = graph.ops[0]
        seen |= {("dataflow", hw.dataflow), ("bits", hw.weight_bits), ("mode", hw.requantize), ("op", layer.kind)}
        seen.add(("add", len(graph.ops) > 1))
        if layer.kind == "conv":
            seen |= {("groups", layer.attributes["groups"] > 1), ("stride", max(layer.attributes["strides"]))}
            seen |= {("dilation", max(layer.attributes["dilations"])), ("padded", any(layer.attributes["pads"]))}
        grid = executable.grids[0]
        assert grid is not None
        seen |= {("gather", grid.tiling.reduction.gather), ("tiles", max(grid.totals.values()) > 1)}
    for wanted in (
        ("dataflow", "ws"), ("dataflow", "os"), ("bits", 4), ("bits", 8), ("mode", "ort"), ("mode", "q31"),
        ("op", "conv"), ("op", "gemm"), ("add", True), ("groups", True), ("stride", 2), ("dilation", 2),
        ("padded", True), ("gather", True), ("gather", False), ("tiles", True),
    ):  # fmt: skip
        assert wanted in seen, wanted
