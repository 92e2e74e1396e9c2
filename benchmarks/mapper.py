"""What the mapper takes: CPU seconds per layer and network on the example architectures, one core, code compiled.

Run: python benchmarks/mapper.py [zoo:MODEL ...]
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from dse.arch.arch import load_arch
from dse.flow.map import map_network
from dse.flow.workload import load_workload
from dse.mapping import Problem, TensorAccess, best_mapping

EXAMPLES = Path(__file__).parents[1] / "examples"


def conv3_x() -> Problem:
    """The 3 x 3 convolution of ResNet-50's third stage: 128 channels in and out, 28 x 28 pixels."""
    window = (((2, 1), (4, 1)), ((3, 1), (5, 1)))
    return Problem(
        "conv3_x",
        ("M", "C", "P", "Q", "R", "S"),
        (128, 128, 28, 28, 3, 3),
        (
            TensorAccess("w", "weight", (((0, 1),), ((1, 1),), ((4, 1),), ((5, 1),))),
            TensorAccess("i", "input", (((1, 1),), *window)),
            TensorAccess("o", "output", (((0, 1),), ((2, 1),), ((3, 1),))),
        ),
    )


def main(models: list[str]) -> None:
    """Print one line per architecture and workload."""
    for path in sorted(EXAMPLES.glob("*.yaml")):
        arch = load_arch(path)
        best_mapping(conv3_x(), arch, "edp")  # compiles, or loads what was compiled before
        begin = time.process_time()
        found = best_mapping(conv3_x(), arch, "edp")
        spent = time.process_time() - begin
        _say(arch.name, "conv3_x", spent, found.cost.cycles, found.cost.energy_pj, f"{found.evaluated} evaluated")
        for model in models:
            graph = load_workload(model, Path())
            begin = time.process_time()
            result = map_network(graph, arch, "edp")
            spent = time.process_time() - begin
            unique = sum(not layer.same_as for layer in result.layers)
            _say(arch.name, model, spent, result.cycles, result.energy_pj, f"{unique} of {len(result.layers)} layers")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"peak memory {peak:.0f} MiB\n")


def _say(arch: str, what: str, spent: float, cycles: int, energy_pj: float, note: str) -> None:
    sys.stdout.write(
        f"{arch:22} {what:14} {spent:7.3f} CPU s {cycles:12,} cycles {energy_pj * 1e-6:10.1f} uJ  {note}\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:] or ["zoo:resnet8"])
