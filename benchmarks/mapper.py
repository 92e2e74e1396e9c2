"""What the mapper takes: CPU seconds per layer, network and look-up on the example architectures, code compiled.

Run twice (the first run compiles): python benchmarks/mapper.py [zoo:MODEL ...]
"""

from __future__ import annotations

import os
import platform
import random
import resource
import sys
import time
from pathlib import Path

from dse.arch import Arch
from dse.arch.arch import load_arch
from dse.flow.map import MAPPED_KINDS, map_network
from dse.flow.workload import load_workload
from dse.ir import Graph, loop_nest
from dse.mapping import MappingTable, Problem, TensorAccess, access_energy, best_mapping, problem_of

EXAMPLES = Path(__file__).parents[1] / "examples"
#: Architectures whose look-up table is timed: those with few unrollings, for which a table pays.
LOOKED_UP = ("gemmini_like_16x16",)
#: Designs that fill the lists before look-ups are timed, and designs that are timed.
WARM, TIMED = 200, 50


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
    sys.stdout.write(f"{_processor()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}\n")
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
            if arch.name in LOOKED_UP:
                _look_up(arch, model, graph)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(f"peak memory {peak:.0f} MiB\n")


def _look_up(arch: Arch, model: str, graph: Graph) -> None:
    problems = {}
    for op in graph.ops:
        if op.kind in MAPPED_KINDS:
            problem = problem_of(loop_nest(graph, op))
            problems.setdefault(problem.canonical(), problem)
    rng = random.Random(1)
    begin = time.process_time()
    tables = [MappingTable(problem, arch) for problem in problems.values()]
    for _ in range(WARM):
        _answer(tables, _design(rng, arch))
    filled = time.process_time() - begin
    spent = []
    for _ in range(TIMED):
        design = _design(rng, arch)
        begin = time.process_time()
        _answer(tables, design)
        spent.append((time.process_time() - begin) * 1e3)
    sys.stdout.write(
        f"{arch.name:22} {model:14} table: {filled:.2f} CPU s for {WARM} designs, then {TIMED} unseen designs at "
        f"{sum(spent) / TIMED:.2f} ms, the slowest {max(spent):.2f} ms; "
        f"{sum(table.listed for table in tables)} mappings of {len(tables)} layers listed\n"
    )


def _answer(tables: list[MappingTable], design: Arch) -> None:
    prices = access_energy(design)
    for table in tables:
        table.best(design, "edp", energy=prices)


def _design(rng: random.Random, arch: Arch) -> Arch:
    """Other capacities and other bandwidths of the outermost level."""
    levels = [
        level.model_copy(
            update={
                "capacity_bytes": level.capacity_bytes and max(1, level.capacity_bytes >> rng.randint(0, 3)),
                "read_words_per_cycle": level.read_words_per_cycle and rng.choice([0.5, 1, 1.5, 2, 3, 4]),
                "write_words_per_cycle": level.write_words_per_cycle and rng.choice([0.5, 1, 1.5, 2, 3, 4]),
            }
        )
        for level in arch.levels
    ]
    return arch.model_copy(update={"levels": tuple(levels)})


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _say(arch: str, what: str, spent: float, cycles: int, energy_pj: float, note: str) -> None:
    sys.stdout.write(
        f"{arch:22} {what:14} {spent:7.3f} CPU s {cycles:12,} cycles {energy_pj * 1e-6:10.1f} uJ  {note}\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:] or ["zoo:resnet8"])
