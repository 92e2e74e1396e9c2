"""`dse simulate`: one network on one design, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import accelerator_option, dims_option, parse_dims, workload_option

if TYPE_CHECKING:
    from dse.flow.multicore import MultiCoreResult
    from dse.flow.simulate import SimulationResult
    from dse.program.taskgraph import Timeline


@click.command("simulate", short_help="Simulate a network on an accelerator, layer by layer.")
@workload_option
@accelerator_option
@click.argument("overrides", nargs=-1, metavar="[hardware.NAME=VALUE]...")
@click.option(
    "--level",
    type=click.Choice(["A", "B", "C"]),
    help="Timing level: A closed forms (default), B compiled events (default with shared channels), C event by event.",
)
@click.option("--cores", type=click.IntRange(min=1), help="Run on so many cores that share memory channels.")
@click.option(
    "--split",
    type=click.Choice(["batch", "layers"]),
    default="batch",
    show_default=True,
    help="With --cores: an input for each core, or a stretch of layers for each.",
)
@click.option("--channels", type=click.IntRange(min=1), default=1, show_default=True, help="Shared memory channels.")
@click.option("--dram", metavar="PART", help="Memory channels with the timing of a DRAM part, such as lpddr4_3200.")
@click.option("--trace", type=click.Path(path_type=Path), help="Write a timeline for ui.perfetto.dev to this file.")
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    workload: str,
    accelerator: str,
    overrides: tuple[str, ...],
    level: str | None,
    cores: int | None,
    split: str,
    channels: int,
    dram: str | None,
    trace: Path | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Simulate a network on an accelerator: cycles, utilization, losses, traffic and energy of every layer.

    Only shapes matter, so any network that can be read can be simulated without calibration. With --cores or --dram:
    rate, speed-up, and where the cycles of each engine of the first core went.
    """
    from dse.flow.accelerator import resolve_accelerator
    from dse.flow.simulate import simulate
    from dse.flow.workload import load_workload

    design = resolve_accelerator(accelerator, overrides)
    graph = load_workload(workload, Path(), parse_dims(dims))
    if cores is not None or dram is not None:
        from dse.flow.multicore import simulate_cores

        shared = simulate_cores(
            graph, design, cores or 1, split=split, channels=channels, dram=dram, level=level or "B"
        )
        if trace is not None:
            _write_trace(shared.timeline, shared.clock_mhz, trace)
        _print_cores(shared, workload, accelerator, as_json)
        return
    result = simulate(graph, design, level=level or "A", with_timeline=trace is not None)
    if trace is not None:
        assert result.timeline is not None
        _write_trace(result.timeline, result.metrics.clock_mhz, trace)
    if as_json:
        _print_json(result, workload)
    else:
        _print_tables(result, workload, accelerator)


def _write_trace(timeline: Timeline, clock_mhz: float, path: Path) -> None:
    import json

    from dse.sim import perfetto_trace

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        json.dump(perfetto_trace(timeline, clock_mhz), file)


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


def _print_cores(result: MultiCoreResult, workload: str, accelerator: str, as_json: bool) -> None:
    import json

    from dse.core.progress import make_reporter
    from dse.core.units import count, percent

    losses, busy = result.losses(0), result.channel_busy()
    totals = {
        "cores": result.cores,
        "split": result.split,
        "inputs": result.inputs,
        "cycles": result.timeline.total_cycles,
        "cycles of one core alone": result.single_cycles,
        "inputs per second": round(result.inputs_per_second, 3),
        "speed-up": round(result.speedup, 4),
    }
    if as_json:
        channels = {"channel_busy": busy, "first_core_cycles": losses, "level": result.timeline.level}
        click.echo(json.dumps({"workload": workload, "accelerator": accelerator, **totals, **channels}, indent=2))
        return
    reporter = make_reporter()
    shown = [(name, count(value) if isinstance(value, int) else value) for name, value in totals.items()]
    reporter.table(f"{workload} on {accelerator}, level {result.timeline.level}", ("total", "value"), shown)
    reporter.table("", ("channel", "busy"), [(name, percent(share)) for name, share in busy.items()])
    causes = list(next(iter(losses.values())))
    rows = [(name, *(count(cycles[cause]) for cause in causes)) for name, cycles in losses.items()]
    reporter.table("cycles of the first core's engines", ("engine", *causes), rows)
