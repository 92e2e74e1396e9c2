"""`dse run`: search a configuration's design space and emit its winners."""

from __future__ import annotations

from pathlib import Path

import click

from dse.cli.options import quiet_option


@click.command("run", short_help="Search a design space, emit and verify the winners.")
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME without it.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same configuration.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that evaluate designs."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Replaces search.seed of the configuration.")
@quiet_option
def command(
    config: str, overrides: tuple[str, ...], out: Path | None, resume: bool, jobs: int, seed: int | None, quiet: bool
) -> None:
    """Search CONFIG's design space, print the Pareto set, and emit and verify the winners.

    CONFIG is a YAML file or the name of a shipped configuration (dse list configs). KEY=VALUE changes one
    of its values, such as search.trials=100.
    """
    from dse.config import find_config, load_config
    from dse.core.progress import make_reporter

    # before the search is imported: a mistake in the configuration is answered at once
    loaded = load_config(find_config(config), overrides)
    from dse.flow.run import run

    folder = out if out is not None else Path("runs") / loaded.config.name
    reporter = make_reporter(quiet=quiet)
    try:
        run(loaded, out=folder, resume=resume, jobs=jobs, seed=seed, reporter=reporter)
    finally:
        reporter.close()
