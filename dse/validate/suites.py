"""Which suites there are and where in a folder of references their files lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from dse.core.errors import UsageError
from dse.validate.scalesim import scalesim_suite
from dse.validate.suite import Suite

_SUITES: Mapping[str, tuple[str, Callable[[Path], Suite]]] = {
    "scalesim": ("systolic/scalesim_calc.csv", scalesim_suite),
}


def available_suites(folder: Path) -> dict[str, Suite]:
    """The suites whose reference files lie in `folder`, by name.

    Raises
    ------
    UsageError: `folder` holds none of the reference files, or one is damaged.
    """
    suites = {name: build(folder / file) for name, (file, build) in _SUITES.items() if (folder / file).is_file()}
    if not suites:
        files = ", ".join(file for file, _ in _SUITES.values())
        raise UsageError(f"{folder}: holds no reference file; looked for {files}")
    return suites
