"""`dse map` on every zoo network and every example architecture: CPU seconds, proofs and what resting tensors save.

Run twice (the first run compiles): python benchmarks/map_zoo.py [zoo:MODEL ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dse.arch.arch import load_arch
from dse.flow.map import map_network
from dse.flow.workload import available_models, load_workload

EXAMPLES = Path(__file__).parents[1] / "examples"
OBJECTIVE = "edp"


def main(models: list[str]) -> None:
    """A line per network and architecture, then the sum and the largest gaps."""
    sys.stdout.write(
        "| network | architecture | layers | alone, CPU s | with residency, CPU s | largest gap | gap of residency | "
        "energy saved |\n|---|---|---|---|---|---|---|---|\n"
    )
    archs = [load_arch(path) for path in sorted(EXAMPLES.glob("*.yaml"))]
    spent_all, worst, number = 0.0, 0.0, 0
    for model in models:
        graph = load_workload(model, Path(), {})
        for arch in archs:
            begin = time.process_time()
            map_network(graph, arch, OBJECTIVE)
            alone = time.process_time() - begin
            begin = time.process_time()
            result = map_network(graph, arch, OBJECTIVE, residency=True)
            both = time.process_time() - begin
            assert result.alone is not None
            assert result.resting is not None
            saved = 1 - result.resting.energy_pj / result.alone.energy_pj
            sys.stdout.write(
                f"| {model.removeprefix('zoo:')} | {arch.name} | {len(result.layers)} | {alone:.2f} | {both:.2f} | "
                f"{result.gap:.4f} | {result.resting.gap:.4f} | {100 * saved:.1f} % |\n"
            )
            spent_all, number = spent_all + both, number + 1
            worst = max(worst, result.gap, result.resting.gap)
    sys.stdout.write(f"{number} runs, {spent_all:.1f} CPU s with residency, largest gap {worst:.4f}\n")


if __name__ == "__main__":
    main(sys.argv[1:] or [name for name in available_models() if name.startswith("zoo:")])
