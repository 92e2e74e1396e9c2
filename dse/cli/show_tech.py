"""`dse show tech`: every figure of the cost models at a node, with unit, evidence and source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dse.tech import Constant, Technology

LEGEND = "R read in the source or measured, S second-hand, M from memory"


def show_tech(node_nm: float | None, device: str | None, component: str | None, as_json: bool) -> None:
    """Print the table of technology at a node (45 nm high performance unless given); SRAM runs only when asked for.

    Parameters
    ----------
    component
        Only figures whose name or scope contains this.

    Raises
    ------
    UsageError: the node lies outside the published range, or no figure is called so.
    """
    import json
    from dataclasses import asdict

    from dse.core.errors import UsageError, nearest
    from dse.tech import REFERENCE, table, technology

    tech = technology(node_nm or REFERENCE.node_nm, device or REFERENCE.device)
    everything = table(tech)
    records = [item for item in everything if _matches(item, component)]
    if not records:
        names = {item.name for item in everything}
        raise UsageError(f"--component: {component!r} is part of no figure{nearest(component or '', names)}")
    if as_json:
        click.echo(json.dumps([asdict(item) for item in records], indent=2))
        return
    shown = [item for item in records if component is not None or not _is_run(item)]
    _print(tech, shown)
    if len(shown) < len(records):
        click.echo(f"and {len(records) - len(shown)} figures of CACTI's runs: --component sram shows them")


def _is_run(item: Constant) -> bool:
    """Whether a figure is one of the SRAM runs, which are too many to stand between the others."""
    return item.name.startswith("sram_") and " KiB x " in item.scope


def _matches(item: Constant, component: str | None) -> bool:
    return component is None or component.lower() in item.name.lower() or component.lower() in item.scope.lower()


def _print(tech: Technology, records: Sequence[Constant]) -> None:
    from dse.core.progress import make_reporter

    rows = [
        (
            item.name,
            f"{item.value:.6g}",
            item.unit,
            f"{item.node_nm:g}" if item.node_nm is not None else "-",
            item.evidence,
            item.scope,
            item.source,
        )
        for item in records
    ]
    columns = ("constant", "value", "unit", "nm", "evidence", "scope", "source")
    make_reporter().table(f"{tech.node_nm:g} nm {tech.device}; {LEGEND}", columns, rows)
