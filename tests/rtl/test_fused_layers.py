"""Fused chains on the hardware: reference = interpreter = RTL bit for bit, level A = level C = RTL cycles."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fused_chains import compile_fused, random_chain, random_plan, wide_hardware
from random_networks import random_values
from rtl_parity import assert_rtl_equals_reference

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.verify import emit
from dse.backend import VerificationCase
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.program.tile.isa import Opcode
from dse.rtl.verilog_sim import available_simulators, run_testbench
from dse.sim import simulate_a

#: Amaranth's simulator runs about 1000 cycles a second: longer programs are left to the interpreter.
LONGEST = 2500


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


def traits(graph: Graph, executable: SystolicExecutable) -> set[str]:
    """What a chain exercises."""
    hw = executable.hw
    forwards = [d for step in executable.program.tile_steps for d in step.queues["vector"] if d.op == Opcode.FORWARD]
    found = {
        "add": any(op.kind == "add" for op in graph.ops),
        "wide words": hw.rows > hw.columns,
        "narrow words": hw.rows < hw.columns,
        "groups": hw.columns > hw.vector_lanes,
        "lines": any(d["height"] > 1 and d["width"] > 1 for d in forwards),
        "blocks": any(d["n_blocks"] > 1 for d in forwards),
        "loops": any(d["out_inc0"] for d in forwards),
    }
    return {hw.dataflow, hw.requantize} | {name for name, holds in found.items() if holds}


WANTED = ("ws", "os", "ort", "q31", "add", "wide words", "narrow words", "groups", "lines", "blocks", "loops")


def chains() -> dict[int, tuple[Graph, SystolicExecutable]]:
    """The first random chains that add to what those before them exercise, until each trait has come twice."""
    kept: dict[int, tuple[Graph, SystolicExecutable]] = {}
    seen: Counter[str] = Counter()
    for seed in range(2000):
        item = drawn(seed)
        if item is not None and any(seen[name] < 2 for name in traits(*item)):
            kept[seed] = item
            seen.update(traits(*item))
        if all(seen[name] >= 2 for name in WANTED):
            break
    return kept


CHAIN = chains()


@pytest.mark.parametrize("seed", CHAIN)
def test_fused_chain_on_rtl_equals_reference_and_predicted_cycles(seed: int) -> None:
    graph, executable = CHAIN[seed]
    assert_rtl_equals_reference(graph, executable, seed)


def test_emitted_fused_chain_passes_its_testbench(tmp_path: Path) -> None:
    simulators = [item for item in available_simulators() if item.kind == "iverilog"]
    if not simulators:
        pytest.skip("Icarus Verilog is not installed")
    seed, (graph, executable) = next(iter(CHAIN.items()))
    inputs = random_values(np.random.default_rng(seed), graph)
    case = VerificationCase("chain", executable, inputs, run_quantized(graph, inputs, executable.hw.requantize))
    emit(executable, [case], tmp_path)
    result = run_testbench(tmp_path, simulator=simulators[0])
    assert result.passed, result.output
    assert result.cycles == simulate_a(executable.task_graph()).total_cycles


def test_chains_cover_what_they_claim() -> None:
    """Both dataflows and modes, words wider and narrower than a block, several lines, blocks and stripes."""
    seen = Counter(name for item in CHAIN.values() for name in traits(*item))
    assert all(seen[name] >= 2 for name in WANTED), seen
