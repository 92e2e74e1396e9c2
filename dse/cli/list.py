"""`dse list`: what there is."""

from __future__ import annotations

import click

#: Column names, and the rows as text.
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


@click.command("list", short_help="List accelerators, presets, models, configs or commands.")
@click.argument("what", metavar="WHAT", type=click.Choice(["accelerators", "presets", "models", "configs", "commands"]))
def command(what: str) -> None:
    """List what there is: WHAT is accelerators (families), presets, models, configs or commands."""
    from dse.core.progress import make_reporter

    columns, rows = {
        "accelerators": _accelerators,
        "presets": _presets,
        "models": _models,
        "configs": _configs,
        "commands": _commands,
    }[what]()
    make_reporter().table("", columns, rows)


def _accelerators() -> Table:
    from dse.core import registry
    from dse.core.errors import UsageError

    rows: list[tuple[str, ...]] = []
    for name in registry.names(registry.BACKENDS):
        origin = registry.provenance(registry.BACKENDS, name)
        try:
            can = registry.load(registry.BACKENDS, name).capabilities
        except UsageError as error:
            # a broken plug-in must be seen, and must not hide the others
            rows.append((name, "-", "-", "-", origin, str(error)))
            continue
        exact, rtl = ("yes" if flag else "no" for flag in (can.exact, can.rtl))
        rows.append((name, " ".join(can.levels), exact, rtl, origin, can.description))
    return ("family", "levels", "exact", "rtl", "from", "description"), rows


def _presets() -> Table:
    from dse.flow.accelerator import presets, resolve_accelerator

    rows: list[tuple[str, ...]] = []
    for name, family in presets().items():
        design = resolve_accelerator(name)
        arch = design.family.arch(design.hw)
        cost = design.family.cost(design.hw)
        rows.append((name, family, f"{arch.peak_macs_per_cycle:g}", f"{arch.clock_mhz:g}", f"{cost.area_mm2:.2f}"))
    return ("preset", "family", "MACs/cycle", "clock MHz", "area mm2"), rows


def _models() -> Table:
    from dse.flow.workload import available_models, frontends

    loaded, broken = frontends()
    rows: list[tuple[str, ...]] = list(available_models().items())
    rows += [(f"FILE{suffix}", f"read by the {item.name} front end") for item in loaded for suffix in item.suffixes]
    rows += [("-", reason) for reason in broken]
    return ("model", "description"), rows


def _configs() -> Table:
    from dse.config import shipped_configs

    rows: list[tuple[str, ...]] = [(name, str(path)) for name, path in shipped_configs().items()]
    return ("config", "file"), rows


def _commands() -> Table:
    from dse.cli.main import COMMANDS, cli

    context = click.Context(cli)
    rows: list[tuple[str, ...]] = []
    for name in COMMANDS:
        found = cli.get_command(context, name)
        assert found is not None
        rows.append((name, found.get_short_help_str()))
    return ("command", "description"), rows
