"""`dse compile`: a network as a program for one accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import accelerator_option, dims_option, parse_dims

if TYPE_CHECKING:
    from dse.flow.compile import Compiled
    from dse.program.tile.program import HostStep

COLUMNS = ("step", "name", "kind", "cycles", "memory", "descriptors", "mapping")


@click.command("compile", short_help="Compile a network to a program: listing, binary, memory map.")
@click.argument("model")
@accelerator_option
@click.argument("overrides", nargs=-1, metavar="[hardware.NAME=VALUE]... [decisions.NAME=VALUE]...")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for listing, binary and tables.")
@click.option(
    "--calib", type=click.Path(path_type=Path), help="Samples to quantize a float MODEL with: .npz of x, or folder."
)
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    model: str,
    accelerator: str,
    overrides: tuple[str, ...],
    output: Path | None,
    calib: Path | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compile MODEL for an accelerator and print its steps, operations left to the host, and its memory.

    A quantized model, or --calib, gives a program with a memory image that can be executed; a float model one to
    time and price. Layers fuse with decisions.fuse_layers=auto, the weights of a step are loaded under the one before
    with decisions.prefetch=auto, see docs/compiler.md.
    """
    from dse.core.progress import make_reporter
    from dse.flow.accelerator import resolve_accelerator
    from dse.flow.compile import compile_network, write_program
    from dse.flow.workload import load_workload

    design = resolve_accelerator(accelerator, overrides)
    graph = load_workload(model, Path(), parse_dims(dims))
    if calib is not None:
        from dse.compiler import Recipe
        from dse.flow.quantize import QuantizeRequest, quantize_model

        bits = design.family.numerics(design.hw).weight_bits
        graph = quantize_model(graph, calib, None, QuantizeRequest(Recipe(weight_bits=bits)), make_reporter()).graph
    compiled = compile_network(graph, design)
    files = write_program(compiled, output) if output is not None else []
    if as_json:
        _print_json(compiled, model, [str(path) for path in files])
        return
    _print_tables(compiled, model, accelerator)
    for path in files:
        click.echo(f"wrote {path}")


def _summary(compiled: Compiled) -> dict[str, int | float | str]:
    memory, program = compiled.memory, compiled.program
    return {
        "steps": len(program.steps),
        "cycles": compiled.metrics.cycles,
        "memory_traffic_bytes": sum(layer.memory_bytes for layer in compiled.metrics.layers),
        "host_bytes": sum(step.read_bytes + step.write_bytes for step in compiled.host_steps),
        "activation_peak_bytes": memory.activation_peak,
        "activation_bound_bytes": memory.activation_bound,
        "constants_bytes": memory.constants_bytes,
        "memory_bytes": program.memory_bytes,
        "image": "with values" if program.image is not None else "none: compiled from shapes",
    }


def _print_json(compiled: Compiled, model: str, files: list[str]) -> None:
    import json

    host = [
        {"name": step.name, "kind": step.kind, "bytes": step.read_bytes + step.write_bytes, "reason": step.reason}
        for step in compiled.host_steps
    ]
    click.echo(json.dumps({"model": model, **_summary(compiled), "host": host, "files": files}, indent=2))


def _host_groups(compiled: Compiled) -> dict[tuple[str, str], list[HostStep]]:
    """Host operations by kind and by why they are there, in order of their first."""
    groups: dict[tuple[str, str], list[HostStep]] = {}
    for step in compiled.host_steps:
        groups.setdefault((step.kind, step.reason), []).append(step)
    return groups


def _print_tables(compiled: Compiled, model: str, accelerator: str) -> None:
    from dse.core.progress import make_reporter
    from dse.core.units import byte_size, count
    from dse.flow.compile import descriptors_at

    reporter = make_reporter()
    rows = [
        (str(index), layer.name, layer.kind, count(layer.cycles), byte_size(layer.memory_bytes),
         str(descriptors_at(compiled.program, index) or "-"), layer.mapping)
        for index, layer in enumerate(compiled.metrics.layers)
    ]  # fmt: skip
    reporter.table(f"{model} on {accelerator}", COLUMNS, rows)
    host = [
        (kind, str(len(steps)), byte_size(sum(s.read_bytes + s.write_bytes for s in steps)), reason,
         ", ".join(step.name for step in steps))
        for (kind, reason), steps in _host_groups(compiled).items()
    ]  # fmt: skip
    reporter.table("", ("left to the host", "ops", "moved", "why", "names"), host or [("nothing", "0", "-", "", "")])
    memory = compiled.memory
    over = memory.activation_peak / memory.activation_bound if memory.activation_bound else 1.0
    summary = _summary(compiled)
    lines = [
        ("memory traffic", byte_size(int(summary["memory_traffic_bytes"])), "one inference"),
        ("activations, peak", byte_size(memory.activation_peak), f"{over:.3f} x the lower bound"),
        ("activations, lower bound", byte_size(memory.activation_bound), "largest sum live in one step"),
        ("constants", byte_size(memory.constants_bytes), "weights, parameters, zero points"),
        ("memory image", str(summary["image"]), ""),
    ]
    reporter.table("", ("memory", "value", ""), lines)
