"""What GPU estimates take: CPU seconds per GEMM, per lowered and estimated network, per simulated one, code compiled.

Run twice (the first run compiles): python benchmarks/gpu.py [zoo:MODEL ...]
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from accelerators.gpu import GpuAccelerator, GpuHardware, gemm, preset
from dse.backend import Decisions
from dse.compiler import prepare
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.sim import simulate_c

GEMMS = 50_000


def cpu_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Least process time of some calls."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        call()
        best = min(best, time.process_time() - begin)
    return best


def out(line: str) -> None:
    sys.stdout.write(line + "\n")


def timed(graph: Graph, hw: GpuHardware, decisions: Decisions) -> str:
    """Latency of a network, and what finding it takes."""
    family = GpuAccelerator()
    executable = family.lower(graph, hw, decisions)
    whole = cpu_seconds(lambda: family.lower(graph, hw, decisions).estimate())
    simulated = cpu_seconds(lambda: simulate_c(executable.task_graph()), 1)
    return (
        f"{executable.estimate().latency_ms:.3f} ms; lowered and estimated in {1e3 * whole:.2f} ms CPU, "
        f"level C ({executable.task_graph().tasks} tasks) in {simulated:.2f} s"
    )


def main(models: list[str]) -> None:
    out(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    sizes = np.random.default_rng(0).integers(16, 8192, (3, GEMMS))
    for gpu, dtype in (("h100_sxm", "bf16"), ("a100_sxm_80", "bf16"), ("v100_sxm2", "fp32"), ("p100_pcie", "fp32")):
        hw = preset(gpu)
        spent = cpu_seconds(lambda hw=hw, dtype=dtype: gemm(hw, *sizes, dtype=dtype), 3)  # type: ignore[misc]
        out(f"{gpu} {dtype}: {GEMMS / spent:,.0f} GEMM estimates a CPU second")
    for model in models:
        graph = prepare(load_workload(model, Path()))
        for gpu, batch in (("h100_sxm", 1), ("h100_sxm", 64), ("titan_x_pascal", 16)):
            out(f"{model} {gpu} batch {batch}: {timed(graph, preset(gpu), Decisions({'batch': batch}))}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["zoo:resnet50", "zoo:mobilenet_v2"])
