"""Calibration and validation of the GPU family as `dse calibrate gpu` and `dse validate gpu` reach them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from accelerators.gpu.calibration import fit_all
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.measured import Measured
from accelerators.gpu.presets import load, preset, preset_documents
from accelerators.gpu.userdata import user_rows
from accelerators.gpu.validation import errors, validate


class GpuCalibration:
    """What stands behind the entry point `gpu` of group `dse.calibrations`."""

    def presets(self) -> Sequence[str]:
        """Names of the GPUs that a calibration may start from."""
        return list(preset_documents())

    def calibrate(self, base: str, data: Path, seed: int) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
        """Fit a preset (by name or file) to measured rows.

        Returns
        -------
        The calibrated preset as a document, and a row a fitted key: rows, error before, cross-validated error.

        Raises
        ------
        UsageError: unknown preset, unreadable or too few measurements.
        """
        path = Path(base)
        hw = load(path) if path.suffix in (".yaml", ".yml") else preset(base)
        sets = user_rows(data)
        fitted, fits = fit_all(hw, sets, seed=seed)
        before = {found.key: _mape(hw, sets, found.key) for found in fits}
        document = {
            "family": "gpu",
            "description": f"{base} calibrated on {sum(map(len, sets))} rows of {data.name}",
            "source": f"preset {base}; constants fitted by dse calibrate gpu, seed {seed}",
            "hardware": fitted.model_dump(mode="json", exclude_defaults=True),
        }
        rows: list[Mapping[str, Any]] = [
            {
                "class": found.key,
                "rows": found.rows,
                "before_mape": before[found.key],
                "cross_validated_mape": found.cross_validated_mape,
                "constants": dict(found.values),
            }
            for found in fits
        ]
        return document, rows

    def validate(
        self, folder: Path | None, *, calibrated: bool, only: Sequence[str], progress: Callable[[str], None] | None
    ) -> list[Mapping[str, Any]]:
        """Scores by GPU and op on the measurements of a folder, or on those that ship."""
        scores = validate(folder, calibrated=calibrated, only=only, progress=progress)
        return [
            {
                "gpu": score.gpu,
                "op": score.op,
                "constants": "calibrated" if score.fitted else "zero-fit",
                "count": score.count,
                "mape": score.mape,
                "median": score.median,
                "p90": score.p90,
            }
            for score in scores
        ]


def _mape(hw: GpuHardware, sets: Sequence[Measured], key: str) -> float:
    """Mean error in percent of the rows that a key covers."""
    kernel, _, dtype = key.partition("/")
    covered = [one for one in sets if one.dtype == dtype and f"{one.key.partition('/')[0]}.".startswith(f"{kernel}.")]
    return float(np.mean(np.concatenate([errors(hw, one) for one in covered])))
