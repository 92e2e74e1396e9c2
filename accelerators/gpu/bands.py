"""What error to expect of an estimate: the mean errors that `dse validate gpu` found, looked up by kernel.

`data/validated.json` is the output of `dse validate gpu --json`; nothing in it is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from accelerators.gpu.hardware import DTYPES, GpuHardware
from accelerators.gpu.presets import preset
from accelerators.gpu.references import PRESETS


@dataclass(frozen=True)
class Band:
    """Mean absolute error in percent of kernels like this one, on `rows` measurements; `scope` says how alike.

    "gpu": the same architecture and type; "type": another architecture; "op": another type as well.
    """

    percent: float
    rows: int
    scope: str


def band(hw: GpuHardware, kernel_class: str, dtype: str) -> Band | None:
    """The expected error of a kernel of a class ("gemm", "conv.forward", ...); None where nothing was measured.

    Scores of calibrated constants are taken where the GPU has constants of its own for the class, else those of the
    constants that its architecture shares.
    """
    calibrated = any(key.partition("/")[0] == kernel_class.partition(".")[0] for key in hw.constants)
    parts = kernel_class.split(".")
    wanted = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    scores = [row for row in validated() if row["constants"] == ("calibrated" if calibrated else "zero-fit")]
    same_op = [row for row in scores if _op(row) in wanted or _op(row).startswith(f"{kernel_class}.")]
    rate = DTYPES[dtype][2]
    same_type = [row for row in same_op if DTYPES[_dtype(row)][2] == rate]
    same_gpu = [row for row in same_type if preset(PRESETS[str(row["gpu"])]).architecture == hw.architecture]
    for scope, rows in (("gpu", same_gpu), ("type", same_type), ("op", same_op)):
        if rows:
            count = sum(int(row["count"]) for row in rows)
            return Band(sum(float(row["mape"]) * int(row["count"]) for row in rows) / count, count, scope)
    return None


def joint_percent(seconds: Sequence[float], bands: Sequence[Band | None]) -> float | None:
    """Error to expect of a sum of kernels, in percent, were all to err in the same direction; None without any band.

    Kernels without a band count with the largest of the others.
    """
    known = [item.percent for item in bands if item is not None]
    if not known or sum(seconds) <= 0:
        return None
    parts = [(item.percent if item else max(known)) * time for item, time in zip(bands, seconds, strict=True)]
    return sum(parts) / sum(seconds)


@cache
def validated() -> Sequence[Mapping[str, Any]]:
    """The scores that ship: rows of gpu, op, constants, count, mape, median, p90."""
    text = (resources.files("accelerators.gpu") / "data" / "validated.json").read_text(encoding="utf-8")
    rows: Sequence[Mapping[str, Any]] = json.loads(text)
    return rows


def _op(row: Mapping[str, Any]) -> str:
    return str(row["op"]).partition("/")[0]


def _dtype(row: Mapping[str, Any]) -> str:
    return str(row["op"]).partition("/")[2]
