"""Pareto front and hypervolume against definitions computed the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.metrics import hypervolume, pareto_front

# few distinct values: ties and duplicates are the rule, and volumes are small whole numbers
CORNER = 5
grids = st.integers(1, 4).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, CORNER + 1)] * d), min_size=0, max_size=12).map(
        lambda rows: np.array(rows, float).reshape(-1, d)
    )
)


def slow_front(points: np.ndarray) -> list[int]:
    def dominates(a: np.ndarray, b: np.ndarray) -> bool:
        return all(a <= b) and any(a < b)

    front = []
    for i, p in enumerate(points):
        beaten = any(dominates(q, p) for q in points)
        repeated = any(all(points[j] == p) for j in range(i))
        if not beaten and not repeated:
            front.append(i)
    return front


def count_cells(points: np.ndarray, corner: int) -> int:
    """Unit cells [c, c + 1) below the corner that some point dominates."""
    cells = itertools.product(range(corner), repeat=points.shape[1])
    return sum(any(all(p <= cell) for p in points) for cell in cells)


@settings(max_examples=300, deadline=None)
@given(grids)
def test_front_is_the_definition(points: np.ndarray) -> None:
    assert pareto_front(points).tolist() == slow_front(points)


@settings(max_examples=300, deadline=None)
@given(grids)
def test_hypervolume_counts_the_dominated_cells(points: np.ndarray) -> None:
    assert hypervolume(points, [CORNER] * points.shape[1]) == count_cells(points, CORNER)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_hypervolume_equals_inclusion_and_exclusion_on_real_numbers(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    for _ in range(30):
        points = rng.normal(size=(rng.integers(1, 8), dimensions))
        corner = rng.normal(loc=0.8, size=dimensions)
        boxes = np.maximum(corner - points, 0)
        expected = 0.0
        for size in range(1, len(boxes) + 1):
            for chosen in itertools.combinations(range(len(boxes)), size):
                expected -= (-1) ** size * boxes[list(chosen)].min(axis=0).prod()
        assert hypervolume(points, corner) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(grids, st.integers(0, 15))
def test_maximising_equals_minimising_the_negative(points: np.ndarray, mask: int) -> None:
    d = points.shape[1]
    maximise = [bool(mask >> i & 1) for i in range(d)]
    sign = np.where(maximise, -1.0, 1.0)
    corner = [CORNER] * d
    assert pareto_front(points * sign, maximise=maximise).tolist() == pareto_front(points).tolist()
    assert hypervolume(points * sign, sign * corner, maximise=maximise) == hypervolume(points, corner)


@settings(max_examples=100, deadline=None)
@given(grids, st.randoms(use_true_random=False))
def test_order_changes_neither_the_front_as_a_set_nor_the_volume(points: np.ndarray, random) -> None:
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = points[order] if order else points
    rows = {tuple(points[i]) for i in pareto_front(points)}
    assert {tuple(shuffled[i]) for i in pareto_front(shuffled)} == rows
    corner = [CORNER] * points.shape[1]
    assert hypervolume(shuffled, corner) == hypervolume(points, corner)


@settings(max_examples=100, deadline=None)
@given(grids)
def test_only_the_front_gives_volume(points: np.ndarray) -> None:
    corner = [CORNER] * points.shape[1]
    assert hypervolume(points[pareto_front(points)], corner) == hypervolume(points, corner)


def test_of_equal_points_the_first_stays() -> None:
    assert pareto_front([[1, 2], [0, 3], [1, 2], [0, 3]]).tolist() == [0, 1]


def test_infinite_coordinates_are_beaten_but_not_refused() -> None:
    assert pareto_front([[np.inf, np.inf], [1, 1], [0, np.inf]]).tolist() == [1, 2]
    assert hypervolume([[np.inf, 0], [1, 1]], [2, 2]) == 1


def test_no_points_have_an_empty_front_and_no_volume() -> None:
    assert pareto_front(np.empty((0, 3))).tolist() == []
    assert hypervolume(np.empty((0, 3)), [1, 1, 1]) == 0


def test_malformed_points_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        pareto_front([1.0, 2.0])
    with pytest.raises(ValueError, match="point 1 "):
        pareto_front([[0, 1], [np.nan, 1]])
    with pytest.raises(ValueError, match="maximise has 1"):
        pareto_front([[0, 1]], maximise=[True])
    with pytest.raises(ValueError, match="reference has 1"):
        hypervolume([[0, 1]], [1])
    with pytest.raises(ValueError, match="at most 4"):
        hypervolume([[0] * 5], [1] * 5)
