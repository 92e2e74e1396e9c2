"""The Pareto set of a search and the choice of designs from it that become hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.metrics.pareto import pareto_front
from dse.search.driver import Trial, minimised

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Winner:
    """A chosen design of the Pareto set and the reason for choosing it."""

    trial: Trial
    reason: str


def pareto_trials(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Feasible trials that no other one beats in every objective, in trial order."""
    feasible = [trial for trial in trials if trial.evaluation.feasible]
    if not feasible:
        return []
    points = np.array([minimised(trial.evaluation.summary, objectives) for trial in feasible], dtype=np.float64)
    kept = sorted(int(index) for index in pareto_front(points))
    return [feasible[index] for index in kept]


def choose_winners(front: Sequence[Trial], objectives: Sequence[str], count: int, cover: Sequence[str]) -> list[Winner]:
    """Up to `count` designs spread over the front, deterministic.

    The roles are filled in turn: best of the first objective, the knee (nearest to the ideal point, objectives
    scaled to the front's extent), best of each other objective, then whatever lies farthest from those chosen.
    As soon as only as many places are left as values of the knobs in `cover` are missing among the chosen, a
    place goes to a design that has such a value.
    """
    if not front:
        return []
    scaled = _scaled(np.array([minimised(item.evaluation.summary, objectives) for item in front], dtype=np.float64))
    owed = {
        (knob, repr(item.evaluation.values[knob])) for knob in cover for item in front if knob in item.evaluation.values
    }
    has = [{(knob, repr(value)) for knob, value in item.evaluation.values.items()} & owed for item in front]
    chosen: list[int] = []
    winners: list[Winner] = []
    while len(chosen) < min(count, len(front)):
        free = [index for index in range(len(front)) if index not in chosen]
        missing = owed.difference(*(has[index] for index in chosen))
        if missing and len(missing) >= count - len(chosen):
            # All places left are owed: take those that pay off most missing values first.
            most = max(len(has[index] & missing) for index in free)
            free = [index for index in free if len(has[index] & missing) == most]
        index, reason = _pick(scaled, objectives, len(chosen), chosen, free)
        paid = sorted(missing & has[index])
        if paid and len(free) < len(front) - len(chosen):
            reason += ", with " + ", ".join(f"{knob.partition('.')[2]} {value.strip(chr(39))}" for knob, value in paid)
        chosen.append(index)
        winners.append(Winner(front[index], reason))
    return winners


def _pick(
    scaled: FloatArray, objectives: Sequence[str], place: int, chosen: Sequence[int], free: Sequence[int]
) -> tuple[int, str]:
    """The free design that suits the role of this place; ties go to the earlier trial."""
    distance = np.linalg.norm(scaled, axis=1)
    if place == 1:
        return min(free, key=lambda index: (distance[index], index)), "knee"
    column = 0 if place == 0 else place - 1
    if column < len(objectives):
        return min(
            free, key=lambda index: (scaled[index, column], distance[index], index)
        ), f"best {objectives[column]}"

    def gap(index: int) -> Any:
        return min(float(np.linalg.norm(scaled[index] - scaled[other])) for other in chosen)

    return max(free, key=lambda index: (gap(index), -index)), "farthest from the others"


def _scaled(points: FloatArray) -> FloatArray:
    """Each objective to [0, 1] over the front; an objective that does not vary is 0."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - low) / np.where(high > low, high - low, 1.0), dtype=np.float64)
