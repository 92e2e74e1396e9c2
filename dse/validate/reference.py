"""Reading reference files: CSV with comment lines, errors that name file and column."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from dse.core.errors import UsageError


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file by column name; lines that start with # are comments.

    Raises
    ------
    UsageError: the file cannot be read, has no rows, or lacks one of `columns` in some row.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: reference file cannot be read: {error}") from error
    if not rows:
        raise UsageError(f"{path}: reference file has no rows")
    for number, row in enumerate(rows, 1):
        for column in columns:
            if not row.get(column):
                raise UsageError(f"{path}: row {number} has no {column!r}")
    return rows


def shipped(name: str) -> Path:
    """A reference file that ships with the package; its first comment lines name the source."""
    return Path(str(resources.files("dse.validate") / "data" / name))
