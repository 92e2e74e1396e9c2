"""Calibrating a family's models to measured times, through the entry points of group `dse.calibrations`.

A plug-in is a class with `presets()`, `calibrate(base, data, seed)` and `validate(folder, ...)`; `dse` knows no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from dse.core.errors import UsageError, nearest
from dse.core.registry import load, names

CALIBRATIONS = "dse.calibrations"


class Calibration(Protocol):
    """What a family offers for calibration and validation."""

    def presets(self) -> Sequence[str]:
        """Names of designs that a calibration may start from."""
        ...

    def calibrate(self, base: str, data: Path, seed: int) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
        """The calibrated preset as a document, and what was fitted: a row a class of kernels."""
        ...

    def validate(
        self, folder: Path | None, *, calibrated: bool, only: Sequence[str], progress: Callable[[str], None] | None
    ) -> list[Mapping[str, Any]]:
        """A row for each design and op: count, mean, median and 90th percentile of the error in percent."""
        ...


@dataclass(frozen=True)
class CalibrationResult:
    """A preset written to `path`, and a row for each fitted class."""

    path: Path
    rows: list[Mapping[str, Any]]


def families() -> list[str]:
    """Families that can be calibrated, sorted."""
    return names(CALIBRATIONS)


def family(name: str) -> Calibration:
    """The calibration of a family.

    Raises
    ------
    UsageError: no family of that name can be calibrated.
    """
    if name not in families():
        raise UsageError(f"{name!r} is not a family that can be calibrated{nearest(name, families())}")
    plugin: Calibration = load(CALIBRATIONS, name)
    return plugin


def calibrate(name: str, base: str, data: Path, out: Path, *, seed: int = 0) -> CalibrationResult:
    """Fit a family's preset to a CSV of measurements and write the result as a preset file.

    Raises
    ------
    UsageError: unknown family or preset, measurements that cannot be used, `out` exists already.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; choose another name with --out")
    document, rows = family(name).calibrate(base, data, seed)
    out.write_text(yaml.safe_dump(dict(document), sort_keys=False, width=120), encoding="utf-8")
    return CalibrationResult(out, rows)
