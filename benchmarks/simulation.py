"""Speed of the timing levels and of the DRAM channel, CPU seconds on one core.

    python benchmarks/simulation.py

Networks run on several cores that share one memory channel, so levels B and C do the same work; level A has no part
in that. Figures depend on the machine; nothing here is asserted but that B equals C.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare
from dse.program.taskgraph import Arbitration, TaskGraph
from dse.sim import simulate_a, simulate_b, simulate_c
from dse.sim.dram_commands import run_commands
from dse.sim.dram_parts import dram_part
from dse.sim.dram_service import interleaved_cycles_per_burst
from dse.sim.dram_streams import interleaved_streams
from dse.sim.multicore import Channels, batch_parallel
from workloads.zoo import ZooFrontend

RULES = {
    "whole transfers": Arbitration("fifo"),
    "pieces of 64": Arbitration("fifo", 64),
    "round robin, pieces of 64": Arbitration("round_robin", 64, window=8, switch_cycles=2),
}


def cpu_seconds(action: Callable[[], object], repeats: int) -> float:
    """Least CPU time of some repetitions, after one to warm caches and compiled code."""
    action()
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        action()
        best = min(best, time.process_time() - begin)
    return best


def program(network: str) -> TaskGraph:
    """A zoo network on the Gemmini preset."""
    family = SystolicAccelerator()
    hw = SystolicHardware.model_validate(family.presets()["gemmini_16x16"])
    return family.lower(prepare(ZooFrontend().load(network, Path("."), {})), hw, Decisions()).task_graph()


def main() -> None:
    """Measure and print a table."""
    sys.stdout.write(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    for network, cores in (("resnet8", 4), ("resnet50", 1), ("resnet50", 4), ("mobilenet_v2", 8)):
        single = program(network)
        a = cpu_seconds(lambda graph=single: simulate_a(graph), 9)  # type: ignore[misc]
        for name, rule in RULES.items():
            channels = Channels(dict.fromkeys(single.resources, "memory"), arbitration=rule)
            graph = batch_parallel(single, cores, channels)
            assert (simulate_b(graph).end == simulate_c(graph).end).all()
            b = cpu_seconds(lambda graph=graph: simulate_b(graph), 9)  # type: ignore[misc]
            c = cpu_seconds(lambda graph=graph: simulate_c(graph), 1)  # type: ignore[misc]
            sys.stdout.write(
                f"{network} x {cores}, {name:26s} {graph.tasks:6d} tasks  A of one core {a * 1e3:5.2f} ms  "
                f"B {b * 1e3:6.2f} ms ({graph.tasks / b * 1e-6:.2f} M tasks/s)  "
                f"C {c * 1e3:8.1f} ms ({graph.tasks / c * 1e-3:.1f} k tasks/s)  B is {c / b:.0f}x C\n"
            )
    part = dram_part("ddr4_2400")
    stream = interleaved_streams(part, 30_000, 512, 2, 1)
    commands = cpu_seconds(lambda: run_commands(part, *stream, 100_000), 5)
    closed = cpu_seconds(lambda: [interleaved_cycles_per_burst(part, int(n), 2, 1) for n in np.full(100, 512)], 5)
    sys.stdout.write(f"DRAM commands: {100_000 / commands * 1e-6:.2f} M cycles/s; closed form {closed * 1e4:.1f} us\n")


if __name__ == "__main__":
    main()
