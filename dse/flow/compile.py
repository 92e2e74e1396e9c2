"""`dse compile`: a network as a tile program on one design, with its files and the figures of its memory."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dse.compiler import prepare, require_activation_bits
from dse.core.errors import UsageError
from dse.flow.accelerator import Design
from dse.ir import Graph
from dse.metrics import Metrics
from dse.program.tile.container import encode_program
from dse.program.tile.executable import TileExecutable
from dse.program.tile.listing import listing
from dse.program.tile.memory_map import MemoryMap, Region
from dse.program.tile.program import HostStep, TileProgram, TileStep


@dataclass(frozen=True, eq=False)
class Compiled:
    """A program with its memory map and its metrics at level A."""

    program: TileProgram
    memory: MemoryMap
    metrics: Metrics

    @property
    def host_steps(self) -> tuple[HostStep, ...]:
        """Operations left to the host, in order."""
        return tuple(step for step in self.program.steps if isinstance(step, HostStep))


def compile_network(graph: Graph, design: Design) -> Compiled:
    """Compile a network for a design.

    Parameters
    ----------
    graph
        Quantized networks give a program with a memory image; others one to time and price only.

    Raises
    ------
    UsageError: the family does not compile to tile programs.
    InfeasibleError: the design breaks a limit, or the network does not fit.
    ModelError: an op cannot be compiled.
    """
    design.require_buildable()
    prepared = prepare(graph)
    require_activation_bits(prepared, design.family.numerics(design.hw).activation_bits, design.family.name)
    executable = design.family.lower(prepared, design.hw, design.decisions)
    if not isinstance(executable, TileExecutable):
        raise UsageError(f"the {design.family.name} family does not compile to tile programs; systolic does")
    return Compiled(executable.program, executable.memory_map, executable.estimate())


def write_program(compiled: Compiled, folder: Path) -> list[Path]:
    """Write `program.txt` (listing), `program.bin`, `memory.csv` (the memory map) and `steps.csv` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, Callable[[Path], None]] = {
        "program.txt": lambda path: _write_listing(compiled.program, path),
        "program.bin": lambda path: _write_binary(compiled.program, path),
        "memory.csv": lambda path: _write_memory(compiled.memory, path),
        "steps.csv": lambda path: _write_steps(compiled, path),
    }
    paths = []
    for name, write in writers.items():
        paths.append(folder / name)
        write(paths[-1])
    return paths


def _write_listing(program: TileProgram, path: Path) -> None:
    parts = [
        listing(step)
        if isinstance(step, TileStep)
        else f"host {step.name}: {step.kind}, reads {step.read_bytes} bytes, writes {step.write_bytes} bytes"
        f" ({step.reason})\n"
        for step in program.steps
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _write_binary(program: TileProgram, path: Path) -> None:
    path.write_bytes(encode_program(program))


def _write_memory(memory: MemoryMap, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [item.name for item in fields(Region)])
        writer.writeheader()
        writer.writerows(asdict(region) for region in sorted(memory.regions, key=lambda r: (r.base, r.first)))


def _write_steps(compiled: Compiled, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "name", "kind", "cycles", "useful_macs", "memory_bytes", "descriptors", "mapping"))
        for index, layer in enumerate(compiled.metrics.layers):
            writer.writerow(
                (index, layer.name, layer.kind, layer.cycles, layer.useful_macs, layer.memory_bytes,
                 descriptors_at(compiled.program, index), layer.mapping)
            )  # fmt: skip


def descriptors_of(step: TileStep | HostStep) -> int:
    """Descriptors in the longest queue of a step; 0 for a host operation."""
    return max(map(len, step.queues.values())) if isinstance(step, TileStep) else 0


def descriptors_at(program: TileProgram, layer: int) -> int:
    """`descriptors_of` the step that begins with a layer; 0 for a layer inside a step of several."""
    return next((descriptors_of(step) for step in program.steps if step.layer == layer), 0)
