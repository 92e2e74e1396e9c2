"""Recurrent layers on the hardware: reference = interpreter = RTL bit for bit, level A = level C = RTL cycles."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from recurrent_networks import element_hardware, random_recurrent
from rtl_parity import assert_rtl_equals_reference

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.executable import SystolicExecutable
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.sim import simulate_a

FAMILY = SystolicAccelerator()
#: Amaranth's simulator runs some hundred cycles a second: longer layers are left to the interpreter.
LONGEST = 3000
#: Layers of each kind: the long ones of several steps are few.
WANTED = {"lstm": 6, "gru": 6, "rnn": 3}


def drawn(seed: int) -> tuple[Graph, SystolicExecutable] | None:
    """A random layer on a random design; None when it does not fit, or takes too long here."""
    rng = np.random.default_rng(seed)
    graph, hw = random_recurrent(rng), element_hardware(rng)
    try:
        executable = FAMILY.lower(graph, hw, Decisions())
    except InfeasibleError:
        return None
    if simulate_a(executable.task_graph()).total_cycles > LONGEST:
        return None
    return graph, executable


def layers() -> dict[int, tuple[Graph, SystolicExecutable]]:
    kept: dict[int, tuple[Graph, SystolicExecutable]] = {}
    left = Counter(WANTED)
    for seed in range(10_000):
        item = drawn(seed)
        if item is not None and left[item[0].ops[0].kind]:
            kept[seed] = item
            left[item[0].ops[0].kind] -= 1
        if not left.total():
            break
    return kept


LAYER = layers()


@pytest.mark.parametrize("seed", LAYER)
def test_recurrent_layer_on_rtl_equals_reference_and_predicted_cycles(seed: int) -> None:
    graph, executable = LAYER[seed]
    assert_rtl_equals_reference(graph, executable, seed)


def test_layers_cover_what_they_claim() -> None:
    """Every cell, both directions, dataflows and modes, resident and streamed weights, lanes beside the words."""
    seen: Counter[str] = Counter()
    for graph, executable in LAYER.values():
        op, hw = graph.ops[0], executable.hw
        seen.update([op.kind, op.attributes["direction"], hw.dataflow, hw.requantize])
        seen["both GRUs"] |= 1 + op.attributes.get("linear_before_reset", 0) if op.kind == "gru" else 0
        seen["several steps"] += graph["x"].shape[0] > 1
        seen["parts"] += hw.rows % hw.vector_lanes != 0
        seen["groups"] += hw.columns > hw.vector_lanes
        seen[executable.program.tile_steps[0].notes["mapping"].rsplit(", ", 1)[1]] += 1
    wanted = ("lstm", "gru", "rnn", "forward", "reverse", "bidirectional", "ws", "os", "ort", "q31", "several steps",
              "parts", "groups", "weights resident", "weights streamed every step")  # fmt: skip
    assert all(seen[name] for name in wanted), seen
    assert seen["both GRUs"] == 3
