"""`dse calibrate`: fit a family's physical constants to measured times."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("calibrate", short_help="Fit a family's physical constants to measured times.")
@click.argument("family", metavar="FAMILY")
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Measured times (CSV).")
@click.option("--preset", "base", required=True, metavar="NAME", help="Design to start from: a name or a preset file.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Preset to write; by default NAME_calibrated.yaml."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the cross-validation's folds."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(family: str, data: Path, base: str, out: Path | None, seed: int, as_json: bool) -> None:
    """Fit FAMILY's preset to at least 60 measured rows and write it back as a calibrated preset.

    The error printed is cross-validated: on rows that the fit did not see. docs/gpu.md describes the columns.
    """
    import json

    from dse.core.progress import make_reporter
    from dse.flow.calibrate import calibrate

    result = calibrate(family, base, data, out or Path(f"{Path(base).stem}_calibrated.yaml"), seed=seed)
    if as_json:
        click.echo(json.dumps({"preset": str(result.path), "fits": result.rows}, indent=2))
        return
    rows = [
        (row["class"], str(row["rows"]), f"{row['before_mape']:.1f} %", f"{row['cross_validated_mape']:.1f} %")
        for row in result.rows
    ]
    make_reporter().table("", ("class", "rows", "before", "cross-validated"), rows)
    click.echo(f"wrote {result.path}")
