"""Random systolic designs and the layers compiled for them, for tests of compiler, simulators and RTL."""

from __future__ import annotations

import numpy as np
from builders import random_layer

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.core.errors import InfeasibleError
from dse.ir import Graph

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


def compile_random(
    seed: int, **changes: object
) -> tuple[np.random.Generator, Graph, SystolicHardware, SystolicExecutable]:
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
