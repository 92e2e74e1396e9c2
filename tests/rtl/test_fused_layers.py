"""Fused chains on the hardware: reference = interpreter = RTL bit for bit, level A = level C = RTL cycles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from fused_chains import compile_fused, random_chain, random_plan, wide_hardware
from random_networks import random_values

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.verify import rtl_gap, run_rtl
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.program.tile.isa import Opcode
from dse.sim import simulate_a, simulate_c

#: Amaranth's simulator runs about 1000 cycles a second: longer programs are left to the interpreter.
LONGEST = 1200
CHAINS = 16


def drawn(seed: int) -> tuple[Graph, SystolicExecutable] | None:
    """A chain fused whole under a random plan; None when it does not fit, or takes too long here."""
    rng = np.random.default_rng(seed)
    hw = wide_hardware(rng)
    graph = random_chain(rng, hw.weight_bits)
    plan = random_plan(rng, graph, hw)
    if plan is None:
        return None
    try:
        executable = compile_fused(graph, hw, plan)
    except InfeasibleError:
        return None
    if len(executable.program.steps) > 1 or simulate_a(executable.task_graph()).total_cycles > LONGEST:
        return None
    return graph, executable


def chains() -> list[tuple[int, Graph, SystolicExecutable]]:
    found = ((seed, drawn(seed)) for seed in range(10_000))
    kept: list[tuple[int, Graph, SystolicExecutable]] = []
    for seed, item in found:
        if item is not None:
            kept.append((seed, *item))
        if len(kept) == CHAINS:
            break
    return kept


CHAIN = {seed: (graph, executable) for seed, graph, executable in chains()}


@pytest.mark.parametrize("seed", CHAIN)
def test_fused_chain_on_rtl_equals_reference_and_predicted_cycles(seed: int) -> None:
    graph, executable = CHAIN[seed]
    assert rtl_gap(executable) is None
    inputs = random_values(np.random.default_rng(seed), graph)
    expected = run_quantized(graph, inputs, executable.hw.requantize)
    program_values = executable.run(inputs)
    hardware = run_rtl(executable, inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(program_values[name], expected[name])
        np.testing.assert_array_equal(hardware.outputs[name], expected[name])
    view = executable.task_graph()
    assert simulate_a(view).total_cycles == simulate_c(view).total_cycles == hardware.cycles


def test_chains_cover_what_they_claim() -> None:
    """Both dataflows and modes, words wider and narrower than a block, several lines, blocks and stripes."""
    seen: Counter[str] = Counter()
    for graph, executable in CHAIN.values():
        hw = executable.hw
        seen.update([hw.dataflow, hw.requantize, "add" if any(op.kind == "add" for op in graph.ops) else "plain"])
        seen["wide words"] += hw.rows > hw.columns
        seen["narrow words"] += hw.rows < hw.columns
        seen["groups"] += hw.columns > hw.vector_lanes
        forwards = [d for step in executable.program.tile_steps for d in step.queues["vector"]
                    if d.op == Opcode.FORWARD]  # fmt: skip
        seen["lines"] += any(d["height"] > 1 and d["width"] > 1 for d in forwards)
        seen["blocks"] += any(d["n_blocks"] > 1 for d in forwards)
        seen["loops"] += any(d["out_inc0"] for d in forwards)
    wanted = ("ws", "os", "ort", "q31", "add", "wide words", "narrow words", "groups", "lines", "blocks", "loops")
    assert all(seen[name] >= 2 for name in wanted), seen
