"""`dse init`: a starting point of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from dse.core.errors import UsageError

#: Files of `dse/cli/starter` that are copied.
STARTER_FILES = ("run.yaml", "design.yaml")


@click.command("init", short_help="Write a starter configuration and design.")
@click.argument("folder", required=False, default=".", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Write a commented run configuration and a design of your own into FOLDER (here by default).

    Existing files are never overwritten.
    """
    from importlib import resources

    existing = [folder / name for name in STARTER_FILES if (folder / name).exists()]
    if existing:
        raise UsageError(f"{existing[0]} exists already; choose another folder, such as dse init {folder / 'new'}")
    folder.mkdir(parents=True, exist_ok=True)
    starter = resources.files("dse.cli") / "starter"
    for name in STARTER_FILES:
        (folder / name).write_text((starter / name).read_text(encoding="utf-8"), encoding="utf-8")
        click.echo(f"wrote {folder / name}")
    click.echo(f"next: dse run {folder / 'run.yaml'}")
    click.echo(f"      dse simulate --workload zoo:resnet8 --accelerator {folder / 'design.yaml'}")
