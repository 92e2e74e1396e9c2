"""Speed of the main path, CPU seconds on one core: compile, levels A and C, interpreter, one search trial.

    python benchmarks/spine.py

Figures depend on the machine; nothing here is asserted.
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
from dse.compiler import calibration_images, prepare, quantize
from dse.sim import simulate_a, simulate_c
from workloads.zoo import ZooFrontend


def cpu_seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Least CPU time of some repetitions, after one to warm caches and compiled code."""
    action()
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        action()
        best = min(best, time.process_time() - begin)
    return best


def main() -> None:
    """Measure and print a table."""
    family = SystolicAccelerator()
    small = prepare(ZooFrontend().load("resnet8", Path("."), {}))
    network = quantize(small, calibration_images(small, 32, 0))
    large = prepare(ZooFrontend().load("resnet50", Path("."), {}))
    preset = SystolicHardware.model_validate(family.presets()["gemmini_16x16"])
    eight, fifty = family.lower(network, SystolicHardware(), Decisions()), family.lower(large, preset, Decisions())
    image = {network.inputs[0]: np.zeros(network[network.inputs[0]].shape, np.int8)}
    designs = iter(range(10_000))

    def trial() -> None:
        # a new size every time, so that no tiling is remembered
        hw = SystolicHardware(activation_kib=8 + next(designs) * 0.25, clock_mhz=200)
        family.lower(network, hw, Decisions()).estimate()

    rows = {
        "search trial: ResNet-8, compile + level A + metrics": cpu_seconds(trial),
        "interpreter: ResNet-8, one image": cpu_seconds(lambda: eight.run(image)),
        "level A: ResNet-8": cpu_seconds(lambda: simulate_a(eight.task_graph())),
        "level C: ResNet-8": cpu_seconds(lambda: simulate_c(eight.task_graph())),
        "level A: ResNet-50 on gemmini_16x16": cpu_seconds(lambda: simulate_a(fifty.task_graph())),
        "level C: ResNet-50 on gemmini_16x16": cpu_seconds(lambda: simulate_c(fifty.task_graph())),
    }
    lines = [f"{name:55s} {seconds * 1e3:9.2f} ms" for name, seconds in rows.items()]
    sys.stdout.write(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
