"""Errors of the models on public measurements: before any fit, and on rows that a calibration did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from accelerators.gpu.calibration import fit_all
from accelerators.gpu.gemm_kernel import BoolArray, FloatArray
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.measured import Measured, predict
from accelerators.gpu.presets import preset
from accelerators.gpu.references import PRESETS, aiconfigurator, deepbench, neusight

#: File, its reader, and the rows a calibration is given: a count per GPU and type, or None for half of them.
_FILES: tuple[tuple[str, Callable[[Path], dict[str, list[Measured]]], int | None], ...] = (
    ("gemm_a100_h100.csv.gz", aiconfigurator, 60),
    ("deepbench.csv.gz", deepbench, None),
    ("fp32_ops_a100_v100.csv.gz", neusight, None),
)
SEED = 1


@dataclass(frozen=True)
class Score:
    """Errors of one class of kernels on one GPU, in percent of the measured time."""

    gpu: str
    op: str
    fitted: bool
    count: int
    mape: float
    median: float
    p90: float


def shipped_folder() -> Path:
    """Where the measurement files lie that ship with the package."""
    return Path(str(resources.files("accelerators.gpu") / "data"))


def validate(
    folder: Path | None = None,
    *,
    calibrated: bool = True,
    seed: int = SEED,
    only: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> list[Score]:
    """Score the models on every measurement file of a folder.

    Parameters
    ----------
    folder
        Holds the measurement files; those that ship when None.
    calibrated
        Whether also to calibrate on part of the rows; the scores of both are on the other rows.
    only
        Classes to score ("gemm", "conv", ...); all when empty.
    progress
        Told each GPU as its turn comes.
    """
    scores: list[Score] = []
    for file, reader, rows in _FILES:
        path = (folder or shipped_folder()) / file
        if not path.is_file():
            continue
        for gpu, sets in reader(path).items():
            chosen = [one for one in sets if not only or _class(one.key) in only]
            if gpu in PRESETS and chosen:
                if progress is not None:
                    progress(gpu)
                scores += score_gpu(gpu, preset(PRESETS[gpu]), chosen, rows, calibrated=calibrated, seed=seed)
    return scores


def score_gpu(
    gpu: str, hw: GpuHardware, sets: Sequence[Measured], rows: int | None, *, calibrated: bool, seed: int
) -> list[Score]:
    """Split the rows of one GPU, calibrate on one part when asked, and score the other."""
    masks = split(sets, rows, seed)
    rest = [one.take(~mask) for one, mask in zip(sets, masks, strict=True)]
    scores = list(_scores(gpu, hw, rest, fitted=False))
    if calibrated:
        fitted_hw, _ = fit_all(hw, [one.take(mask) for one, mask in zip(sets, masks, strict=True)], seed=seed)
        scores += _scores(gpu, fitted_hw, rest, fitted=True)
    return scores


def split(sets: Sequence[Measured], rows: int | None, seed: int) -> list[BoolArray]:
    """Masks of the rows to calibrate on: `rows` at random of each type over its sets, or half of each set."""
    rng = np.random.default_rng(seed)
    if rows is None:
        return [rng.permutation(len(one)) < len(one) / 2 for one in sets]
    masks: dict[int, BoolArray] = {}
    for key in sorted({one.key for one in sets}):
        members = [index for index, one in enumerate(sets) if one.key == key]
        sizes = [len(sets[index]) for index in members]
        picked = rng.permutation(sum(sizes)) < rows
        masks.update(zip(members, np.split(picked, np.cumsum(sizes)[:-1]), strict=True))
    return [masks[index] for index in range(len(sets))]


def errors(hw: GpuHardware, rows: Measured) -> FloatArray:
    """Relative errors in percent: float64 (n,)."""
    found: FloatArray = 100 * np.abs(predict(hw, rows) / rows.seconds - 1)
    return found


def _scores(gpu: str, hw: GpuHardware, sets: Sequence[Measured], *, fitted: bool) -> Iterable[Score]:
    groups: dict[str, list[FloatArray]] = {}
    for one in sets:
        groups.setdefault(reported(one), []).append(errors(hw, one))
    for name, parts in groups.items():
        joined = np.concatenate(parts)
        if joined.size:
            yield Score(gpu, name, fitted, joined.size, float(joined.mean()), float(np.median(joined)),
                        float(np.quantile(joined, 0.9)))  # fmt: skip


def reported(rows: Measured) -> str:
    """The class a row is reported under: cells of a recurrent direction, and elementwise ops, are taken together."""
    kernel, _, dtype = rows.key.partition("/")
    parts = kernel.split(".")
    kept = parts[:2] if parts[0] in ("conv", "gemm") else parts[:1] if parts[0] == "elementwise" else parts[:2]
    return f"{'.'.join(kept)}/{dtype}"


def _class(key: str) -> str:
    return key.partition("/")[0].partition(".")[0]


def by_class(scores: Sequence[Score]) -> Mapping[tuple[str, str, bool], Score]:
    """Scores by GPU, class and whether calibrated."""
    return {(score.gpu, score.op, score.fitted): score for score in scores}
