"""`dse rtl`: the Verilog of one design."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.options import accelerator_option


@click.command("rtl", short_help="Emit the Verilog of a design.")
@accelerator_option
@click.argument("overrides", nargs=-1, metavar="[hardware.NAME=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the Verilog; made if missing.")
def command(accelerator: str, overrides: tuple[str, ...], out: Path) -> None:
    """Emit the Verilog of a design, with its parameters beside it."""
    from dse.flow.accelerator import resolve_accelerator
    from dse.flow.emit import emit_design

    design = resolve_accelerator(accelerator, overrides)
    for path in emit_design(design, out):
        click.echo(f"wrote {path}")
