"""Fitting the few physical constants of a kernel class to measured rows, bounded, with cross-validation.

The residual is log(model / measured) under a robust loss, so that a few odd kernels do not pull the rest. Every
constant is drawn towards the value it starts from by a prior whose strength cross-validation chooses: with 60 rows a
strong one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accelerators.gpu.constants import RULES
from accelerators.gpu.gemm_kernel import FloatArray
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.measured import Measured, environment, predict, values_for

_MATMUL = ("launch_us", "peak_efficiency", "dram_efficiency", "l2_efficiency", "latency_cycles", "fill_cycles",
           "exposure", "warp_saturation", "split_us", "wave_smoothing", "sm_bytes_clk")  # fmt: skip
#: Constants that are fitted for an op.
FITTED: Mapping[str, tuple[str, ...]] = {
    "gemm": (*_MATMUL, "narrow_rate"),
    "conv": (*_MATMUL, "implicit_efficiency", "fused_efficiency", "staged_efficiency", "transform_passes"),
    "elementwise": ("launch_us", "dram_efficiency"),
    "softmax": ("launch_us", "dram_efficiency", "row_ns"),
    "layer_norm": ("launch_us", "dram_efficiency", "row_ns"),
    **dict.fromkeys(("lstm", "gru", "rnn"), (
        "call_us", "step_us", "peak_efficiency", "dram_efficiency", "l2_efficiency", "latency_cycles", "fill_cycles",
        "warp_saturation", "sm_bytes_clk", "narrow_rate")),
}  # fmt: skip
#: Strengths of the prior that cross-validation weighs: squared log error that a constant's whole range costs, in rows.
PRIORS = (0.02, 0.3, 3.0, 30.0)
FOLDS = 3
_ROBUST_SCALE = 0.1


@dataclass(frozen=True)
class Fit:
    """Fitted constants of one key, and their error in percent on rows that the fit did not see (by folds)."""

    key: str
    values: Mapping[str, float]
    rows: int
    cross_validated_mape: float
    prior: float


def fit(hw: GpuHardware, sets: Sequence[Measured], *, key: str = "", seed: int = 0) -> Fit:
    """Fit the constants that sets share, and keep them under `key` (the sets' own, when they have one).

    Parameters
    ----------
    sets
        Rows of one class; environments may differ, what they fix is not fitted.

    Raises
    ------
    ValueError: no set, or sets of several keys without one to keep the result under.
    """
    keys = {key} if key else {rows.key for rows in sets}
    if len(keys) != 1:
        raise ValueError(f"sets of one key are fitted together, not of {sorted(keys)}")
    wanted = FITTED[sets[0].op]
    if any(rows.protocol == "eager" for rows in sets):
        wanted = (*wanted, "host_us")
    fixed = set.intersection(*(set(environment(rows.environment).constants) for rows in sets))
    wanted = tuple(name for name in wanted if name not in fixed)
    rng = np.random.default_rng(seed)
    start = _start(hw, sets)
    folds = [rng.integers(0, FOLDS, len(rows)) for rows in sets]
    scores = []
    for prior in PRIORS:
        errors = []
        for fold in range(FOLDS):
            trained = [rows.take(part != fold) for rows, part in zip(sets, folds, strict=True)]
            found = _solve(hw, trained, start, wanted, prior)
            errors += [_errors(hw, rows.take(part == fold), found) for rows, part in zip(sets, folds, strict=True)]
        scores.append(100 * float(np.concatenate(errors).mean()))
    best = int(np.argmin(scores))
    found = _solve(hw, sets, start, wanted, PRIORS[best])
    values = {name: float(f"{found[name]:.5g}") for name in wanted}
    return Fit(keys.pop(), values, sum(map(len, sets)), scores[best], PRIORS[best])


def fit_all(hw: GpuHardware, sets: Sequence[Measured], *, seed: int = 0) -> tuple[GpuHardware, list[Fit]]:
    """Fit every key of the sets, the general before the special: what several keys share is where each begins.

    Returns
    -------
    The calibrated GPU and the fits in the order they were made.
    """
    paths: dict[str, list[Measured]] = {}
    for rows in sets:
        kernel, _, dtype = rows.key.partition("/")
        parts = kernel.split(".")
        for length in range(1, len(parts) + 1):
            paths.setdefault(f"{'.'.join(parts[:length])}/{dtype}", []).append(rows)
    fits: list[Fit] = []
    for key in sorted(paths, key=lambda name: (name.count("."), name)):
        members = paths[key]
        children = {rows.key for rows in members}
        if children == {key} or len({_child(key, name) for name in children}) > 1:
            found = fit(hw, members, key=key, seed=seed)
            hw = apply(hw, [found])
            fits.append(found)
    return hw, fits


def _child(key: str, name: str) -> str:
    """The part of a longer key that distinguishes it below `key`."""
    depth = key.partition("/")[0].count(".") + 1
    parts = name.partition("/")[0].split(".")
    return parts[depth] if len(parts) > depth else ""


def apply(hw: GpuHardware, fits: Sequence[Fit]) -> GpuHardware:
    """The GPU with fitted constants in its calibration."""
    merged = {key: dict(values) for key, values in hw.constants.items()}
    for found in fits:
        merged.setdefault(found.key, {}).update(found.values)
    return hw.model_copy(update={"constants": merged})


def _start(hw: GpuHardware, sets: Sequence[Measured]) -> dict[str, float]:
    """Where a fit begins: the constants in force, the protocol's floors read off the shortest rows."""
    start = values_for(hw, sets[0])
    if sets[0].op in ("lstm", "gru", "rnn"):
        return start
    if all(_calibrated(hw, rows) for rows in sets):
        return start
    floor = min(float(np.quantile(rows.seconds, 0.02)) for rows in sets) * 1e6
    if sets[0].protocol == "eager":
        start["host_us"] = float(np.clip(floor, RULES["host_us"].low, RULES["host_us"].high))
    elif not sets[0].environment:
        start["launch_us"] = float(np.clip(0.8 * floor, RULES["launch_us"].low, RULES["launch_us"].high))
    return start


def _calibrated(hw: GpuHardware, rows: Measured) -> bool:
    """Whether a more general key of these rows was fitted before."""
    kernel, _, dtype = rows.key.partition("/")
    parts = kernel.split(".")
    return any(f"{'.'.join(parts[:length])}/{dtype}" in hw.constants for length in range(1, len(parts) + 1))


def _solve(
    hw: GpuHardware, sets: Sequence[Measured], start: Mapping[str, float], names: Sequence[str], prior: float
) -> dict[str, float]:
    """Bounded robust least squares in the unit box of the constants' bounds."""
    from scipy.optimize import least_squares

    low = np.array([RULES[name].low for name in names])
    high = np.array([RULES[name].high for name in names])
    origin = (np.array([start[name] for name in names]) - low) / (high - low)
    count = sum(map(len, sets))

    def unpack(unit: FloatArray) -> dict[str, float]:
        return {**start, **dict(zip(names, (low + unit * (high - low)).tolist(), strict=True))}

    def residuals(unit: FloatArray) -> FloatArray:
        values = unpack(unit)
        logs = [np.log(predict(hw, rows, values) / rows.seconds) for rows in sets]
        weighted = np.concatenate(logs) / np.sqrt(count)
        return np.concatenate([weighted, (unit - origin) * np.sqrt(prior / count)])

    best = None
    for begin in _starts(origin, names):
        solution = least_squares(
            residuals, begin, bounds=(0, 1), loss="soft_l1", f_scale=_ROBUST_SCALE / np.sqrt(count),
            diff_step=0.01, max_nfev=25,
        )  # fmt: skip
        if best is None or solution.cost < best.cost:
            best = solution
    assert best is not None
    return unpack(best.x)


def _starts(origin: FloatArray, names: Sequence[str]) -> list[FloatArray]:
    """The origin and one start with twice the warps to saturate an SM: the residual has two basins in it."""
    inside = np.clip(origin, 0.02, 0.98)
    starts = [inside]
    if "warp_saturation" in names:
        other = inside.copy()
        other[list(names).index("warp_saturation")] = 0.7
        starts.append(other)
    return starts


def _errors(hw: GpuHardware, rows: Measured, values: Mapping[str, float]) -> FloatArray:
    found: FloatArray = np.abs(predict(hw, rows, values) / rows.seconds - 1)
    return found
