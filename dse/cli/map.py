"""`dse map`: the best mapping of every layer on an architecture file, and what may rest on the chip between layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dse.cli.options import dims_option, parse_dims
from dse.core.errors import UsageError

if TYPE_CHECKING:
    from dse.arch.rules import Rules
    from dse.flow.map import LayerMapping, NetworkMapping
    from dse.mapping.density import Sparsity

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
@click.option("--alone", is_flag=True, help="Leave out what may rest on the chip between layers.")
@click.option("--steady", is_flag=True, help="The network runs again and again: weights that fit may stay too.")
@click.option("--bypass", "search_bypass", is_flag=True, help="Also choose which tensors pass a level by.")
@click.option("--constraints", type=click.Path(path_type=Path), metavar="FILE", help="Rules for mappings (YAML).")
@click.option("--only", multiple=True, metavar="AXIS=DIM,...", help="Only these dims may run on an axis; repeatable.")
@click.option("--forbid", multiple=True, metavar="AXIS=DIM,...", help="These dims may not; repeatable.")
@click.option(
    "--density", multiple=True, metavar="NAME=SHARE", help="Share of a role's or tensor's values that are not zero."
)
@click.option("--compress", multiple=True, metavar="ROLE", help="Values of this role move without zeros; repeatable.")
@click.option("--gate", multiple=True, metavar="ROLE", help="Zeros of this operand spare energy; repeatable.")
@click.option("--skip", multiple=True, metavar="ROLE", help="Zeros of this operand spare energy and cycles.")
@click.option("--layer", metavar="NAME", help="Draw the loop nest of this layer only.")
@click.option("--draw", is_flag=True, help="Draw the loop nest of every layer that differs.")
@click.option(
    "--svg", type=click.Path(path_type=Path), metavar="PATH",
    help="Write drawings: a file for one --layer, else a folder with one of every layer that differs.",
)  # fmt: skip
@dims_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(
    model: str,
    accelerator: Path,
    objective: str,
    mode: str,
    alone: bool,
    steady: bool,
    search_bypass: bool,
    constraints: Path | None,
    only: tuple[str, ...],
    forbid: tuple[str, ...],
    density: tuple[str, ...],
    compress: tuple[str, ...],
    gate: tuple[str, ...],
    skip: tuple[str, ...],
    layer: str | None,
    draw: bool,
    svg: Path | None,
    dims: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find the best mapping of every layer of MODEL: loops, traffic, energy and cycles, with proof.

    MODEL is zoo:NAME or a model file; the architecture is plain YAML, such as examples/eyeriss_like.yaml.
    """
    import json

    from dse.arch.arch import load_arch
    from dse.core.progress import make_reporter
    from dse.flow.map import MAPPED_KINDS, map_network
    from dse.flow.map_data import mapping_data
    from dse.flow.workload import load_workload

    arch = load_arch(accelerator)
    rules, sparsity = _rules(constraints, only, forbid), _sparsity(density, compress, gate, skip)
    graph = load_workload(model, Path(), parse_dims(dims))
    reporter = make_reporter()
    reporter.stage("map", sum(op.kind in MAPPED_KINDS for op in graph.ops))
    result = map_network(
        graph, arch, objective, mode="timeloop" if mode == "timeloop" else "native", rules=rules, sparsity=sparsity,
        search_bypass=search_bypass, residency=not alone, steady=steady,
        advance=lambda name: reporter.advance(note=name),
    )  # fmt: skip
    reporter.close()
    drawn = _drawn(result, layer, draw or svg is not None)
    if svg is not None:
        _write_drawings(result, drawn, svg, single=layer is not None)
    if as_json:
        click.echo(json.dumps(mapping_data(result, model), indent=2))
        return
    from dse.cli.map_tables import print_tables
    from dse.mapping.draw import loop_nest_lines

    print_tables(result, model)
    for item in drawn if draw or layer else ():
        click.echo(f"\n{item.name}")
        click.echo("\n".join(loop_nest_lines(item.solution.mapping, result.arch, item.solution.cost)))


def _rules(path: Path | None, only: tuple[str, ...], forbid: tuple[str, ...]) -> Rules:
    from dse.arch.rules import Rules, load_rules

    written = Rules(only=_pairs(only, "--only"), forbid=_pairs(forbid, "--forbid"))
    return load_rules(path).joined(written) if path is not None else written


def _pairs(items: tuple[str, ...], option: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for item in items:
        axis, equals, dims = item.partition("=")
        if not axis or not equals or not dims:
            raise UsageError(f"{option} {item!r} is not AXIS=DIM,..., such as rows=C,R")
        found[axis] = found.get(axis, frozenset()) | frozenset(dims.split(","))
    return found


def _sparsity(
    density: tuple[str, ...], compress: tuple[str, ...], gate: tuple[str, ...], skip: tuple[str, ...]
) -> Sparsity:
    from dse.mapping.density import Sparsity

    shares: dict[str, float] = {}
    for item in density:
        name, equals, text = item.rpartition("=")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not name or not equals or share < 0:
            raise UsageError(f"--density {item!r} is not NAME=SHARE, such as weight=0.5")
        shares[name] = share
    return Sparsity(shares, frozenset(compress), gate, skip)


def _drawn(result: NetworkMapping, layer: str | None, every: bool) -> list[LayerMapping]:
    """Layers to draw: the parts of the one that is named, or all that differ."""
    from dse.core.errors import nearest

    if layer is None:
        return [item for item in result.layers if every and not item.same_as]
    found = [item for item in result.layers if layer in (item.op, item.name)]
    if not found:
        names = [item.name for item in result.layers]
        raise UsageError(f"--layer: {layer!r} is not a mapped layer{nearest(layer, names)}")
    return found


def _write_drawings(result: NetworkMapping, drawn: list[LayerMapping], path: Path, *, single: bool) -> None:
    """One file where a single drawing was asked for, else one a layer in a folder that is made."""
    from dse.mapping.svg import loop_nest_svg

    def text(item: LayerMapping) -> str:
        cost = item.solution.cost
        return loop_nest_svg(item.solution.mapping, result.arch, cost, item.problem, title=item.name)

    try:
        if single and len(drawn) == 1 and path.suffix == ".svg":
            path.write_text(text(drawn[0]), encoding="utf-8")
            return
        path.mkdir(parents=True, exist_ok=True)
        for number, item in enumerate(drawn):
            name = "".join(c if c.isalnum() or c in "-_." else "_" for c in item.name).strip(".")
            (path / f"{number:03d}_{name}.svg").write_text(text(item), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--svg {path}: cannot write drawings there ({error.strerror})") from error
