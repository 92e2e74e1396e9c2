"""`dse validate`: how far the models are from recorded figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dse.validate import SuiteResult

#: Rows shown of a long suite.
_SHOWN = 24


@click.command("validate", short_help="Hold the models against recorded figures: chips, synthesis, CACTI, peers.")
@click.argument("suite", required=False, metavar="[SUITE]")
@click.option(
    "--reference", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of further reference files."
)
@click.option("--all", "every", is_flag=True, help="Print every row of a long suite, not only the worst.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def command(suite: str | None, reference: Path | None, every: bool, as_json: bool) -> None:
    """Predict what was measured or published and print the error: of all suites in short, of one SUITE row by row.

    A figure with a bound must keep it; the others are information.
    """
    import json
    from dataclasses import asdict

    from dse.core.errors import UsageError, nearest
    from dse.flow.calibrate import families
    from dse.validate import available_suites, run_suite, shipped_suites

    if suite in families():
        _family(suite, reference, as_json)
        return
    suites = shipped_suites()
    if reference is not None:
        suites |= available_suites(reference)
    if suite is not None and suite not in suites:
        raise UsageError(f"{suite!r} is not a suite{nearest(suite, suites)}")
    results = [run_suite(item) for name, item in suites.items() if suite in (None, name)]
    if as_json:
        click.echo(json.dumps([{**asdict(item), "max_error": item.max_error} for item in results], indent=2))
        return
    _summary(results)
    if suite is not None:
        _rows(results[0], every)


def _family(name: str, reference: Path | None, as_json: bool) -> None:
    """Errors of a family that is calibrated on measurements, by design and op."""
    import json

    from dse.core.progress import make_reporter
    from dse.flow.calibrate import family

    scores = family(name).validate(reference / name if reference else None, calibrated=True, only=(), progress=None)
    if as_json:
        click.echo(json.dumps(scores, indent=2))
        return
    columns = ("gpu", "op", "constants", "count", "mape", "median", "p90")

    def shown(value: object) -> str:
        return f"{value:.1f} %" if isinstance(value, float) else str(value)

    rows = [[shown(row[key]) for key in columns] for row in scores]
    make_reporter().table("", columns, rows)


def _summary(results: list[SuiteResult]) -> None:
    from dse.core.progress import make_reporter
    from dse.core.units import percent

    rows = [
        (
            item.name,
            str(item.count),
            str(len(item.comparisons)),
            str(item.exact),
            f"{item.mape:.2f} %",
            percent(item.max_error),
            str(item.beyond) if any(c.bound is not None for _, c in item.comparisons) else "-",
            item.source,
        )
        for item in results
    ]
    columns = ("suite", "rows", "figures", "exact rows", "mean error", "largest", "beyond bound", "against")
    make_reporter().table("", columns, rows)


def _rows(result: SuiteResult, every: bool) -> None:
    from dse.core.progress import make_reporter
    from dse.core.units import percent

    shown = list(result.comparisons)
    if not every and len(shown) > _SHOWN:
        shown = sorted(shown, key=lambda pair: -pair[1].relative_error)[:_SHOWN]
    rows = [
        (
            label,
            item.quantity,
            f"{item.predicted:.5g}",
            f"{item.recorded:.5g}",
            percent(item.relative_error),
            "-" if item.bound is None else percent(item.bound),
            "" if item.within else "beyond",
        )
        for label, item in shown
    ]
    left = len(result.comparisons) - len(shown)
    title = f"the {len(shown)} worst of {len(result.comparisons)} figures; --all prints all" if left else ""
    make_reporter().table(title, ("row", "figure", "predicted", "recorded", "error", "bound", ""), rows)
    for quantity in dict.fromkeys(item.quantity for _, item in result.comparisons):
        errors = [item.relative_error for _, item in result.comparisons if item.quantity == quantity]
        mean, largest = percent(sum(errors) / len(errors)), percent(max(errors))
        click.echo(f"{quantity}: mean {mean}, largest {largest} over {len(errors)} rows")
    for note in result.notes:
        click.echo(note)
