"""A user's own measurements: one CSV with a column for the op, its type, its shape and its time.

Columns: `op` (a key of `SHAPES`), `dtype`, `latency_us` or `latency_ms`, the op's shape columns; optional `protocol`
(graph, stream, eager; default stream), `direction`, `training` (0 or 1), `environment`. Other ops' columns stay empty.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from accelerators.gpu.hardware import DTYPES
from accelerators.gpu.measured import DEFAULTS, SHAPES, Measured, environment
from accelerators.gpu.protocol import PROTOCOLS
from accelerators.gpu.references import Row, collect, read
from dse.core.errors import UsageError, nearest

#: Fewer rows than this are not fitted: cross-validation would say nothing.
LEAST_ROWS = 60
_DIRECTIONS = ("forward", "backward_data", "backward_weights")


def user_rows(path: Path) -> list[Measured]:
    """Sets of a user's file.

    Raises
    ------
    UsageError: the file cannot be read, has fewer than `LEAST_ROWS` rows, or a row is wrong (named by line and column).
    """
    rows = read(path)
    if len(rows) < LEAST_ROWS:
        raise UsageError(f"{path}: {len(rows)} rows are too few to calibrate; at least {LEAST_ROWS} are needed")
    numbered = iter(range(1, len(rows) + 1))
    sets = collect(rows, lambda row: ("", _measured(path, next(numbered), row)))
    return sets[""]


def _measured(path: Path, number: int, row: Row) -> Measured:
    where = f"{path}: row {number}"
    op = _choice(where, row, "op", tuple(SHAPES), None)
    dtype = _choice(where, row, "dtype", tuple(DTYPES), None)
    protocol = _choice(where, row, "protocol", PROTOCOLS, "stream")
    direction = _choice(where, row, "direction", _DIRECTIONS, "forward")
    training = _choice(where, row, "training", ("0", "1"), "0") == "1"
    name = (row.get("environment") or "").strip()
    environment(name)
    shape = {column: np.array([_whole(where, row, column)], dtype=np.int64) for column in SHAPES[op]}
    kernel = {"conv": f"conv.{direction}"}.get(op, op)
    if op in ("lstm", "gru", "rnn"):
        kernel = f"{'rnn_train' if training else 'rnn'}.{direction}.{op}"
    return Measured(op, f"{kernel}/{dtype}", dtype, shape, np.array([_seconds(where, row)]), protocol,  # type: ignore[arg-type]
                    direction, name, training)  # fmt: skip


def _choice(where: str, row: Row, column: str, choices: tuple[str, ...], default: str | None) -> str:
    value = (row.get(column) or "").strip() or default
    if value is None:
        raise UsageError(f"{where} has no {column!r}")
    if value not in choices:
        raise UsageError(f"{where}: {column} is {value!r}{nearest(value, choices)}")
    return value


def _whole(where: str, row: Row, column: str) -> int:
    text = (row.get(column) or "").strip()
    least = 0 if column in ("inputs", "pad_height", "pad_width") else 1
    if not text and column in DEFAULTS:
        return DEFAULTS[column]
    try:
        value = float(text)
    except ValueError as error:
        raise UsageError(f"{where}: {column} must be a whole number, not {text!r}") from error
    if value != int(value) or value < least:
        raise UsageError(f"{where}: {column} must be a whole number of at least {least}, not {text}")
    return int(value)


def _seconds(where: str, row: Row) -> float:
    for column, unit in (("latency_us", 1e-6), ("latency_ms", 1e-3)):
        text = (row.get(column) or "").strip()
        if text:
            try:
                value = float(text) * unit
            except ValueError as error:
                raise UsageError(f"{where}: {column} must be a number, not {text!r}") from error
            if not 0 < value < 1e4:
                raise UsageError(f"{where}: {column} must be positive and below 10,000 s, not {text}")
            return value
    raise UsageError(f"{where} has neither 'latency_us' nor 'latency_ms'")
