"""How a shared resource chooses, piece by piece, worked out by hand; and the rules that a graph's sharing must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_graph_rules import pair

from dse.core.errors import InvariantError
from dse.program.taskgraph import Arbitration, TaskGraph, Timeline
from dse.sim import simulate_b, simulate_c

LEVELS = [simulate_b, simulate_c]
Simulate = Callable[[TaskGraph], Timeline]


def users(requests: list[tuple[int, int]], rule: Arbitration, *, again: int = 0) -> TaskGraph:
    """An engine for each request (cycle of the request, service), all on one channel; `again`: each asks once more."""
    engines = len(requests)
    engine = np.tile(np.arange(engines), 2 if again else 1)
    count = len(engine)
    first = np.array([cycle for cycle, _ in requests])
    service = np.array([cycles for _, cycles in requests])
    zeros = np.zeros(count, np.int64)
    empty = np.zeros((0, 3), np.int64)
    return TaskGraph(
        engines=tuple(f"user{i}" for i in range(engines)),
        engine=engine,
        issue_cycles=np.concatenate([first, np.zeros(count - engines, np.int64)]),
        duration_cycles=np.concatenate([service, np.full(count - engines, again)]),
        waits=empty,
        signals=empty,
        initial=np.zeros(0, np.int64),
        layer=zeros,
        kind=zeros,
        kinds=("move",),
        resource=zeros,
        service_cycles=np.concatenate([service, np.full(count - engines, again)]),
        resources=("channel",),
        final_cycles=np.zeros(engines, np.int64),
        arbitration=(rule,),
    )


def served(timeline: Timeline) -> list[tuple[int, int, int]]:
    """Engine, begin and end of every stretch of service."""
    assert timeline.service is not None
    return [(int(timeline.graph.engine[task]), begin, end) for _, task, begin, end in timeline.service.tolist()]


@pytest.mark.parametrize("simulate", LEVELS)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # user2 asks in cycle 0, user0 and user1 in cycle 1 while it is served
        (Arbitration("fifo"), [(2, 0, 4), (0, 4, 8), (1, 8, 12)]),
        (Arbitration("round_robin"), [(2, 0, 4), (0, 4, 8), (1, 8, 12)]),
        # behind each piece its owner asks anew, so it stands behind those that asked meanwhile
        (Arbitration("fifo", 2), [(2, 0, 2), (0, 2, 4), (1, 4, 6), (2, 6, 8), (0, 8, 10), (1, 10, 12)]),
        # the lowest engine wins every piece
        (Arbitration("priority", 2), [(2, 0, 2), (0, 2, 6), (1, 6, 10), (2, 10, 12)]),
        # only the oldest request is looked at: first come, first served again
        (Arbitration("priority", 2, window=1), [(2, 0, 2), (0, 2, 4), (1, 4, 6), (2, 6, 8), (0, 8, 10), (1, 10, 12)]),
        # another engine's piece costs three cycles more; the first of all and one's own do not
        (Arbitration("priority", 2, switch_cycles=3), [(2, 0, 2), (0, 2, 9), (1, 9, 16), (2, 16, 21)]),
    ],
)
def test_policies_by_hand(simulate: Simulate, rule: Arbitration, expected: list[tuple[int, int, int]]) -> None:
    found = simulate(users([(1, 4), (1, 4), (0, 4)], rule))
    assert served(found) == expected
    assert found.total_cycles == expected[-1][2]


@pytest.mark.parametrize("simulate", LEVELS)
def test_round_robin_passes_a_greedy_engine(simulate: Simulate) -> None:
    rule = Arbitration("round_robin")
    found = simulate(users([(0, 3), (0, 3), (1, 3)], rule, again=3))
    assert [engine for engine, _, _ in served(found)] == [0, 1, 2, 0, 1, 2]
    first_come = simulate(users([(0, 3), (0, 3), (1, 3)], Arbitration("priority"), again=3))
    assert [engine for engine, _, _ in served(first_come)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("simulate", LEVELS)
def test_small_pieces_let_a_short_transfer_pass_a_long_one(simulate: Simulate) -> None:
    whole = simulate(users([(0, 1000), (10, 8)], Arbitration("fifo")))
    pieces = simulate(users([(0, 1000), (10, 8)], Arbitration("fifo", 16)))
    assert whole.end.tolist() == [1000, 1008]
    assert pieces.end.tolist() == [1008, 24]
    assert pieces.contended_cycles().tolist() == [8, 6]


@pytest.mark.parametrize("simulate", LEVELS)
def test_a_task_on_two_resources_waits_for_the_slower(simulate: Simulate) -> None:
    # task 0 needs the channel for 6 of its 10 cycles and the link for 4; task 1 holds the link until cycle 9
    graph = replace(
        users([(1, 6), (0, 9)], Arbitration()),
        duration_cycles=np.array([10, 9]),
        resource=np.array([0, 1]),
        resources=("channel", "link"),
        transfers=np.array([[0, 1, 4]]),
        arbitration=(),
    )
    found = simulate(graph)
    # channel 1 to 7, link 9 to 13, then the 10 - 6 cycles that follow the longest transfer
    assert served(found) == [(0, 1, 7), (1, 0, 9), (0, 9, 13)]
    assert found.end.tolist() == [17, 9]
    assert found.contended_cycles().tolist() == [6, 0]


@pytest.mark.parametrize("simulate", LEVELS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transfers": np.array([[4, 0, 1]])}, "transfers: task is 4"),
        ({"transfers": np.array([[2, 1, 1]])}, "transfers: resource is 1; 0 to 0 are valid"),
        ({"transfers": np.array([[2, 0, 0]])}, "transfers: task 2 is served 0 cycles; the least is 1"),
        ({"transfers": np.array([[2, 0, 21]])}, "task 2 occupies its resource beyond its own duration"),
        ({"transfers": np.array([[0, 0, 1]])}, "transfers: task 0 uses resource 0 twice"),
        ({"transfers": np.array([[0, 1]])}, r"transfers has shape \(1, 2\)"),
        ({"arbitration": (Arbitration(), Arbitration())}, "2 arbitrations for 1 resources"),
        ({"arbitration": (Arbitration("lottery"),)}, "port: policy 'lottery' is none of fifo, round_robin, priority"),
        ({"arbitration": (Arbitration(chunk_cycles=-1),)}, "port: .* negative number; the least is 0"),
    ],
)
def test_sharing_that_means_nothing_is_refused(simulate: Simulate, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        simulate(pair(**changes))
