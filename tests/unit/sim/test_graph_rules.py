"""Graphs that no level can time are refused, and the error names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dse.core.errors import InvariantError
from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim import simulate_a, simulate_c

LEVELS = [simulate_a, simulate_c]


def rows(*values: tuple[int, int, int]) -> np.ndarray:
    return np.array(values, np.int64).reshape(-1, 3)


def pair(**changes: Any) -> TaskGraph:
    """A load that a multiply waits for, twice."""
    graph = TaskGraph(
        engines=("load", "matmul"),
        engine=np.array([0, 0, 1, 1]),
        issue_cycles=np.array([5, 5, 5, 5]),
        duration_cycles=np.array([10, 10, 20, 20]),
        waits=rows((2, 0, 1), (3, 0, 1)),
        signals=rows((0, 0, 1), (1, 0, 1)),
        initial=np.array([0, 0]),
        layer=np.array([0, 1, 0, 1]),
        kind=np.array([0, 0, 1, 1]),
        kinds=("copy", "multiply"),
        resource=np.array([0, 0, -1, -1]),
        service_cycles=np.array([8, 8, 0, 0]),
        resources=("port",),
        final_cycles=np.array([2, 2]),
    )
    return replace(graph, **changes)


@pytest.mark.parametrize("simulate", LEVELS)
def test_times_follow_the_rules_by_hand(simulate: Callable[[TaskGraph], Timeline]) -> None:
    found = simulate(pair())
    assert found.start.tolist() == [5, 20, 16, 41]  # 15 + 1; 36 + 5
    assert found.end.tolist() == [15, 30, 36, 61]
    assert found.total_cycles == 63
    assert found.busy_cycles("load") == 20


@pytest.mark.parametrize("simulate", LEVELS)
def test_an_engine_without_tasks_still_reports(simulate: Callable[[TaskGraph], Timeline]) -> None:
    graph = pair(engines=("load", "matmul", "idle"), final_cycles=np.array([2, 2, 100]))
    assert simulate(graph).total_cycles == 100


@pytest.mark.parametrize("simulate", LEVELS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signals": rows((0, 0, 1))}, r"deadlock: matmul task 3 \(multiply, step 1\) waits for semaphore 0$"),
        (
            {"waits": rows((0, 1, 1), (2, 0, 1)), "signals": rows((0, 0, 1), (3, 1, 1))},
            r"deadlock: load task 0 \(copy, step 0\) waits for semaphore 1; matmul task 2 .* waits for semaphore 0$",
        ),
        ({"duration_cycles": np.array([10, -1, 20, 20])}, "task 1: duration_cycles is -1"),
        ({"issue_cycles": np.array([5, 5, 5])}, r"issue_cycles has shape \(3,\), engine \(4,\)"),
        ({"engine": np.array([0, 0, 1, 2])}, "engine is 2; 0 to 1 are valid"),
        ({"resource": np.array([0, 1, -1, -1])}, "resource is 1; -1 to 0 are valid"),
        ({"final_cycles": np.array([2])}, r"final_cycles has shape \(1,\) for 2 engines"),
        ({"service_cycles": np.array([8, 11, 0, 0])}, "task 1 occupies its resource beyond its own duration"),
        ({"initial": np.array([0, -1])}, "semaphore 1 starts below 0"),
        ({"waits": rows((4, 0, 1))}, "waits: task is 4"),
        ({"signals": rows((0, 2, 1))}, "signals: semaphore is 2; 0 to 1"),
        ({"signals": rows((0, 0, 0))}, "signals: task 0, semaphore 0: amount 0"),
        ({"waits": rows((3, 0, 1), (2, 0, 1), (3, 0, 1))}, "waits: task 3 names semaphore 0 twice"),
        ({"waits": rows((1, 0, 1), (3, 0, 1))}, "waits: semaphore 0 belongs to one engine, but load and matmul"),
        ({"signals": rows((0, 0, 1), (3, 0, 1))}, "signals: semaphore 0 belongs to one engine, but load and matmul"),
        ({"waits": np.zeros((2, 2), np.int64)}, r"waits has shape \(2, 2\)"),
    ],
)
def test_graphs_that_cannot_be_timed_are_refused(
    simulate: Callable[[TaskGraph], Timeline], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvariantError, match=message):
        simulate(pair(**changes))
