"""`dse simulate`: one network on one design, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import accelerator_option, dims_option, parse_dims, workload_option

if TYPE_CHECKING:
    from dse.flow.simulate import SimulationResult


@click.command("simulate", short_help="Simulate a network on an accelerator, layer by layer.")
@workload_option
@accelerator_option
@click.argument("overrides", nargs=-1, metavar="[hardware.NAME=VALUE]...")
@click.option(
    "--level",
    type=click.Choice(["A", "C"]),
    default="A",
    show_default=True,
    help="Timing level: A closed forms, C event by event.",
)
@click.option("--trace", type=click.Path(path_type=Path), help="Write a timeline for ui.perfetto.dev to this file.")
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    workload: str,
    accelerator: str,
    overrides: tuple[str, ...],
    level: str,
    trace: Path | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Simulate a network on an accelerator: cycles, utilization, losses, traffic and energy of every layer.

    Only shapes matter, so any network that can be read can be simulated without calibration.
    """
    from dse.flow.accelerator import resolve_accelerator
    from dse.flow.simulate import simulate
    from dse.flow.workload import load_workload

    design = resolve_accelerator(accelerator, overrides)
    graph = load_workload(workload, Path(), parse_dims(dims))
    result = simulate(graph, design, level=level, with_timeline=trace is not None)
    if trace is not None:
        _write_trace(result, trace)
    if as_json:
        _print_json(result, workload)
    else:
        _print_tables(result, workload, accelerator)


def _write_trace(result: SimulationResult, path: Path) -> None:
    import json

    from dse.sim import perfetto_trace

    assert result.timeline is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        json.dump(perfetto_trace(result.timeline, result.metrics.clock_mhz), file)


def _print_json(result: SimulationResult, workload: str) -> None:
    import json

    document = {
        "workload": workload,
        "family": result.design.family.name,
        "hardware": result.design.hw.model_dump(mode="json"),
        "decisions": dict(result.design.decisions.values),
        **result.metrics.to_dict(),
    }
    click.echo(json.dumps(document, indent=2))


def _print_tables(result: SimulationResult, workload: str, accelerator: str) -> None:
    from dse.cli.layer_table import LAYER_COLUMNS, layer_rows, loss_lines, total_rows
    from dse.core.progress import make_reporter

    reporter = make_reporter()
    metrics = result.metrics
    reporter.table(f"{workload} on {accelerator}, level {metrics.level}", LAYER_COLUMNS, layer_rows(metrics))
    reporter.table("", ("array cycles lost to", "cycles", "share"), loss_lines(metrics))
    reporter.table("", ("total", "value", "unit"), total_rows(metrics))
