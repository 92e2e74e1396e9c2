"""Pareto front and exact hypervolume of points in a few objectives."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_OBJECTIVES = 4


def pareto_front(points: npt.ArrayLike, *, maximise: Sequence[bool] | None = None) -> IntArray:
    """Indices, ascending, of the points that no other point dominates.

    A point dominates another when it is no worse in every objective and better in one. Of equal points the first
    is kept, so that the result does not depend on anything but the order given.

    Parameters
    ----------
    points : float, shape (n, objectives)
    maximise
        Per objective, whether more is better; default: less is better everywhere.

    Raises
    ------
    ValueError: wrong shape, or a coordinate is not a number.
    """
    values = _minimised(points, maximise)
    # in lexicographic order a point can only be dominated by one before it
    order = np.lexsort((np.arange(len(values)), *values.T[::-1])) if values.size else np.arange(len(values))[:1]
    front = np.empty((0, values.shape[1]))
    kept: list[int] = []
    for index in order:
        candidate = values[index]
        if not bool((front <= candidate).all(axis=1).any()):
            front = np.vstack((front, candidate))
            kept.append(int(index))
    return np.array(sorted(kept), np.int64)


def hypervolume(points: npt.ArrayLike, reference: Sequence[float], *, maximise: Sequence[bool] | None = None) -> float:
    """Volume that the points dominate up to `reference`: exact, for one to four objectives.

    Parameters
    ----------
    points : float, shape (n, objectives)
        Points that are not better than the reference in every objective add nothing.
    reference
        The worst corner, one value per objective.
    maximise
        As in `pareto_front`.

    Raises
    ------
    ValueError: wrong shape, a coordinate is not a number, or more than four objectives.

    Method: sweep along the last objective; in three dimensions the area below a staircase is kept up to date,
    in four the three-dimensional volume is taken per slab.
    """
    values = _minimised(points, maximise)
    corner = _minimised([list(reference)], maximise)[0]
    if len(corner) != values.shape[1]:
        raise ValueError(f"reference has {len(corner)} values, the points {values.shape[1]} objectives")
    if len(corner) > MAX_OBJECTIVES:
        raise ValueError(f"{len(corner)} objectives: hypervolume is exact for at most {MAX_OBJECTIVES}")
    inside = values[(values < corner).all(axis=1)]
    # distances from the corner: the volume of boxes that all start at the origin
    boxes = corner - inside[pareto_front(inside)] if len(inside) else inside
    return _volume(boxes)


def _minimised(points: npt.ArrayLike, maximise: Sequence[bool] | None) -> FloatArray:
    values = np.array(points, np.float64)
    if values.ndim != 2:
        raise ValueError(f"points must have shape (n, objectives), not {values.shape}")
    if np.isnan(values).any():
        row = int(np.isnan(values).any(axis=1).argmax())
        raise ValueError(f"point {row} has a coordinate that is not a number")
    if maximise is not None:
        if len(maximise) != values.shape[1]:
            raise ValueError(f"maximise has {len(maximise)} entries, the points {values.shape[1]} objectives")
        values[:, np.array(maximise, bool)] *= -1
    return values


def _volume(boxes: FloatArray) -> float:
    """Volume of the union of boxes [0, box)."""
    if not len(boxes):
        return 0.0
    dimensions = boxes.shape[1]
    if dimensions == 1:
        return float(boxes.max())
    ordered = boxes[np.argsort(-boxes[:, -1], kind="stable")]
    heights = ordered[:, -1]
    if dimensions <= 3:
        return _staircase_volume(ordered[:, :-1], heights)
    slabs = np.append(heights[:-1] - heights[1:], heights[-1])
    # a slab is covered by the boxes at least as high
    return float(sum(_volume(ordered[: i + 1, :-1]) * slab for i, slab in enumerate(slabs) if slab))


def _staircase_volume(bases: FloatArray, heights: FloatArray) -> float:
    """Volume of boxes with `bases` of one or two sides and `heights` in falling order."""
    stairs = _Staircase()
    total = 0.0
    for i, base in enumerate(bases):
        stairs.insert(float(base[0]), float(base[1]) if len(base) == 2 else 1.0)
        below = heights[i + 1] if i + 1 < len(heights) else 0.0
        total += stairs.area * (heights[i] - below)
    return float(total)


class _Staircase:
    """Area of the union of rectangles [0, x) x [0, y); corners kept with x rising and y falling."""

    def __init__(self) -> None:
        self.xs: list[float] = []
        self.ys: list[float] = []
        self.area = 0.0

    def insert(self, x: float, y: float) -> None:
        """Add a rectangle; the area grows by what was uncovered."""
        end = bisect_left(self.xs, x)
        if end < len(self.xs) and self.ys[end] >= y:
            return
        last = end + 1 if end < len(self.xs) and self.xs[end] == x else end
        first = end
        while first > 0 and self.ys[first - 1] <= y:
            first -= 1
        # strips below the new top, between the corners that it swallows
        left = self.xs[first - 1] if first else 0.0
        for i in range(first, last):
            self.area += (self.xs[i] - left) * (y - self.ys[i])
            left = self.xs[i]
        if left < x:
            right_height = self.ys[last] if last < len(self.ys) else 0.0
            self.area += (x - left) * (y - right_height)
        self.xs[first:last] = [x]
        self.ys[first:last] = [y]
