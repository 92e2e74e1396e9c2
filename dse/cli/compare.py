"""`dse compare`: one network on many platforms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import dims_option, parse_dims, workload_option

if TYPE_CHECKING:
    from dse.flow.compare import Platform

COLUMNS = ("platform", "kind", "latency ms", "cycles", "MHz", "util", "energy uJ", "area mm2", "memory", "scope")


@click.command("compare", short_help="One network on many platforms, peers' formulas beside ours.")
@workload_option
@click.argument("platforms", nargs=-1, required=True, metavar="PLATFORM...")
@click.option("--level", type=click.Choice(["A", "B", "C"]), default="A", show_default=True, help="Timing level.")
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(workload: str, platforms: tuple[str, ...], level: str, dims: tuple[str, ...], as_json: bool) -> None:
    """Compare what platforms make of a network.

    A PLATFORM is a preset, a family or a design file, or a peer: vela:ethos-u55-128, nvdla_sheet:2048,
    scalesim:32x32-ws. One that cannot run the network stands in the table with its reason.
    """
    from dse.flow.compare import compare
    from dse.flow.workload import load_workload

    graph = load_workload(workload, Path(), parse_dims(dims))
    found = compare(graph, platforms, level=level)
    if as_json:
        import dataclasses
        import json

        click.echo(json.dumps({"workload": workload, "platforms": list(map(dataclasses.asdict, found))}, indent=2))
        return
    from dse.core.progress import make_reporter

    reporter = make_reporter()
    reporter.table(f"{workload}, {graph.macs:,} MACs", COLUMNS, [_row(p) for p in found if not p.reason])
    for platform in found:
        if platform.reason:
            click.echo(f"{platform.name}: {platform.reason}")


def _row(platform: Platform) -> tuple[str, ...]:
    from dse.core.units import byte_size, count, percent

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    return (
        platform.name,
        platform.kind,
        shown(platform.latency_ms),
        "-" if platform.cycles is None else count(platform.cycles),
        shown(platform.clock_mhz),
        "-" if platform.utilization is None else percent(platform.utilization),
        shown(platform.energy_uj),
        shown(platform.area_mm2),
        "-" if platform.memory_bytes is None else byte_size(platform.memory_bytes),
        platform.scope,
    )
