"""A compiled network on the RTL: the reference's values and the predicted cycles."""

from __future__ import annotations

import numpy as np
from random_networks import random_values

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.verify import rtl_gap, run_rtl
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.sim import simulate_a, simulate_c


def assert_rtl_equals_reference(graph: Graph, executable: SystolicExecutable, seed: int) -> None:
    """Reference = interpreter = RTL on random inputs, bit for bit; level A = level C = RTL cycles."""
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
