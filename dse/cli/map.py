"""`dse map`: the best mapping of every layer on an architecture file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import dims_option, parse_dims
from dse.core.errors import UsageError

if TYPE_CHECKING:
    from dse.flow.map import NetworkMapping
    from dse.mapping import Constraints

OBJECTIVE_NAMES = ("energy", "latency", "edp", "ed2p", "traffic")


@click.command("map", short_help="Find the provably best mapping of every layer on an architecture file.")
@click.argument("model", metavar="MODEL")
@click.option(
    "--accelerator", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Architecture (YAML)."
)
@click.option(
    "--objective", type=click.Choice(OBJECTIVE_NAMES), default="edp", show_default=True, help="What is least."
)
@click.option(
    "--mode",
    type=click.Choice(["native", "timeloop"]),
    default="native",
    show_default=True,
    help="How words, drains and the first tiles count; see docs/mapping.md.",
)
@click.option("--bypass", "search_bypass", is_flag=True, help="Also choose which tensors pass a level by.")
@click.option("--only", multiple=True, metavar="AXIS=DIM,...", help="Only these dims may run on an axis; repeatable.")
@click.option("--forbid", multiple=True, metavar="AXIS=DIM,...", help="These dims may not; repeatable.")
@click.option("--layer", metavar="NAME", help="Draw the loop nest of this layer only.")
@click.option("--draw", is_flag=True, help="Draw the loop nest of every layer that differs.")
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    model: str,
    accelerator: Path,
    objective: str,
    mode: str,
    search_bypass: bool,
    only: tuple[str, ...],
    forbid: tuple[str, ...],
    layer: str | None,
    draw: bool,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the best mapping of every conv and gemm of MODEL: loops, traffic, energy and cycles, with proof.

    MODEL is zoo:NAME or an .onnx file; the architecture is plain YAML, such as examples/eyeriss_like.yaml.
    """
    import json

    from dse.arch.arch import load_arch
    from dse.core.progress import make_reporter
    from dse.flow.map import MAPPED_KINDS, map_network
    from dse.flow.workload import load_workload

    arch = load_arch(accelerator)
    graph = load_workload(model, Path(), parse_dims(dims))
    reporter = make_reporter()
    reporter.stage("map", sum(op.kind in MAPPED_KINDS for op in graph.ops))
    result = map_network(
        graph, arch, objective, mode="timeloop" if mode == "timeloop" else "native",
        constraints=_constraints(only, forbid), search_bypass=search_bypass,
        advance=lambda name: reporter.advance(note=name),
    )  # fmt: skip
    reporter.close()
    if as_json:
        click.echo(json.dumps({"workload": model, **result.to_dict()}, indent=2))
        return
    _print_tables(result, model)
    _draw(result, layer, draw)


def _constraints(only: tuple[str, ...], forbid: tuple[str, ...]) -> Constraints:
    from dse.mapping import Constraints

    return Constraints(only=_pairs(only, "--only"), forbid=_pairs(forbid, "--forbid"))


def _pairs(items: tuple[str, ...], option: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for item in items:
        axis, equals, dims = item.partition("=")
        if not axis or not equals or not dims:
            raise UsageError(f"{option} {item!r} is not AXIS=DIM,..., such as rows=C,R")
        found[axis] = found.get(axis, frozenset()) | frozenset(dims.split(","))
    return found


def _print_tables(result: NetworkMapping, model: str) -> None:
    from dse.core.progress import make_reporter
    from dse.core.units import count, percent

    rows = [
        (
            layer.op, layer.kind, count(layer.problem.macs), count(layer.solution.cost.cycles),
            percent(layer.solution.cost.utilization), layer.solution.cost.limit,
            f"{layer.solution.cost.energy_pj * 1e-6:.3f}",
            "optimal" if layer.solution.gap == 0 else f"gap {percent(layer.solution.gap)}",
            f"as {layer.same_as}" if layer.same_as else str(layer.solution.mapping),
        )
        for layer in result.layers
    ]  # fmt: skip
    reporter = make_reporter()
    columns = ("layer", "kind", "MACs", "cycles", "util", "limit", "energy uJ", "proof", "mapping")
    reporter.table(f"{model} on {result.arch.name}, least {result.objective}, counted {result.mode}", columns, rows)
    traffic: dict[tuple[str, str], list[float]] = {}
    for layer in result.layers:
        for item in layer.solution.cost.traffic:
            sums = traffic.setdefault((item.level, item.role), [0.0] * 4)
            for k, value in enumerate((item.reads, item.fills, item.updates, item.energy_pj)):
                sums[k] += value
    reporter.table(
        "",
        ("level", "tensor", "reads", "fills", "updates", "energy uJ"),
        [(*key, *(count(v) for v in sums[:3]), f"{sums[3] * 1e-6:.3f}") for key, sums in traffic.items()],
    )
    totals = [
        ("cycles", count(result.cycles)),
        ("latency ms", f"{result.cycles / result.arch.clock_mhz / 1e3:.4f}"),
        ("energy uJ", f"{result.energy_pj * 1e-6:.3f}"),
        *([("network uJ", f"{result.network_pj * 1e-6:.3f}")] if result.network_pj else []),
        *((f"not mapped: {kind}", str(number)) for kind, number in sorted(result.unmapped.items())),
    ]
    reporter.table("", ("total", "value"), totals)


def _draw(result: NetworkMapping, layer: str | None, every: bool) -> None:
    from dse.core.errors import nearest
    from dse.mapping.draw import loop_nest_lines

    names = [item.op for item in result.layers]
    if layer is not None and layer not in names:
        raise UsageError(f"--layer: {layer!r} is not a mapped layer{nearest(layer, names)}")
    for item in result.layers:
        if item.op == layer or (every and layer is None and not item.same_as):
            click.echo(f"\n{item.op}")
            click.echo("\n".join(loop_nest_lines(item.solution.mapping, result.arch, item.solution.cost)))
