"""Level B equals the readable level C wherever engines share resources, and both equal the rules played by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_graphs import core_pipelines, random_shared_graph
from test_levels import random_graph

from dse.core.errors import InvariantError
from dse.program.dependences import filling_tasks
from dse.program.taskgraph import Arbitration, TaskGraph, Timeline
from dse.sim import simulate_a, simulate_b, simulate_c
from dse.sim.contention import engine_losses
from dse.sim.precedence import waits_by_task

seeds = st.integers(0, 2**32 - 1)


def assert_same(found: Timeline, expected: Timeline) -> None:
    np.testing.assert_array_equal(found.start, expected.start)
    np.testing.assert_array_equal(found.end, expected.end)
    np.testing.assert_array_equal(found.service, expected.service)
    assert found.total_cycles == expected.total_cycles


class _Played:
    """The rules of docs/simulation.md, played cycle by cycle; nothing taken over from the engines under test."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.waits, self.signals = graph.waits.tolist(), graph.signals.tolist()
        self.needs: dict[int, dict[int, int]] = {task: {} for task in range(graph.tasks)}
        for task, resource, cycles in graph.transfers.tolist():
            self.needs[task][resource] = cycles
        for task in range(graph.tasks):
            if graph.resource[task] >= 0 and graph.service_cycles[task] > 0:
                self.needs[task][int(graph.resource[task])] = int(graph.service_cycles[task])
        self.start, self.end = [-1] * graph.tasks, [-1] * graph.tasks
        self.left = [dict(need) for need in self.needs.values()]
        self.count = graph.initial.tolist()
        # per resource: requests [since, engine, task], the piece under way [end, engine, task, cycles], the last engine
        self.waiting: list[list[list[int]]] = [[] for _ in graph.resources]
        self.piece: list[list[int] | None] = [None for _ in graph.resources]
        self.last: list[int | None] = [None for _ in graph.resources]

    def play(self) -> bool:
        graph = self.graph
        horizon = int((graph.issue_cycles + graph.duration_cycles).sum()) + 4 * graph.tasks + 4
        horizon += 3 * int(graph.all_transfers()[:, 2].sum())
        for cycle in range(horizon):
            for task, semaphore, amount in self.signals:
                if 0 <= self.end[task] == cycle - 1:
                    self.count[semaphore] += amount
            for resource in range(len(graph.resources)):
                self.finish_piece(resource, cycle)
            while any(self.try_start(engine, cycle) for engine in range(len(graph.engines))):
                pass
            for resource in range(len(graph.resources)):
                self.arbitrate(resource, cycle)
        return all(end >= 0 for end in self.end)

    def try_start(self, engine: int, cycle: int) -> bool:
        mine = [task for task in range(self.graph.tasks) if self.graph.engine[task] == engine]
        ahead = [task for task in mine if self.start[task] < 0]
        if not ahead:
            return False
        task, before = ahead[0], [t for t in mine if t < ahead[0]]
        if before and (self.end[before[-1]] < 0 or self.end[before[-1]] > cycle):
            return False
        free = self.end[before[-1]] if before else 0
        if cycle < free + self.graph.issue_cycles[task]:
            return False
        wanted = [(semaphore, amount) for waiting, semaphore, amount in self.waits if waiting == task]
        if any(self.count[semaphore] < amount for semaphore, amount in wanted):
            return False
        for semaphore, amount in wanted:
            self.count[semaphore] -= amount
        self.start[task] = cycle
        for resource in self.needs[task]:
            self.waiting[resource].append([cycle, engine, task])
        if not self.needs[task]:
            self.end[task] = cycle + int(self.graph.duration_cycles[task])
        return True

    def finish_piece(self, resource: int, cycle: int) -> None:
        piece = self.piece[resource]
        if piece is None or piece[0] != cycle:
            return
        self.piece[resource] = None
        _, engine, task, cycles = piece
        self.left[task][resource] -= cycles
        if self.left[task][resource]:
            self.waiting[resource].append([cycle, engine, task])
        elif not any(self.left[task].values()):
            self.end[task] = cycle + int(self.graph.duration_cycles[task]) - max(self.needs[task].values())

    def arbitrate(self, resource: int, cycle: int) -> None:
        if self.piece[resource] is not None or not self.waiting[resource]:
            return
        rule = self.graph.rule(resource)
        oldest = sorted(self.waiting[resource])[: rule.window or None]
        if rule.policy == "priority":
            oldest.sort(key=lambda request: request[1])
        if rule.policy == "round_robin" and self.last[resource] is not None:
            behind = [request for request in oldest if request[1] > self.last[resource]]  # type: ignore[operator]
            oldest = sorted(behind or oldest, key=lambda request: request[1])
        elif rule.policy == "round_robin":
            oldest.sort(key=lambda request: request[1])
        chosen = oldest[0]
        self.waiting[resource].remove(chosen)
        _, engine, task = chosen
        cycles = self.left[task][resource]
        if rule.chunk_cycles:
            cycles = min(cycles, rule.chunk_cycles)
        switched = self.last[resource] not in (None, engine)
        self.piece[resource] = [cycle + cycles + switched * rule.switch_cycles, engine, task, cycles]
        self.last[resource] = engine


@settings(max_examples=500, deadline=None)
@given(seeds)
def test_b_equals_c_on_random_graphs_with_sharing(seed: int) -> None:
    graph = random_shared_graph(seed)
    b, c = simulate_b(graph), simulate_c(graph)
    assert (b.level, c.level) == ("B", "C")
    assert_same(b, c)


@pytest.mark.parametrize("seed", range(60))
def test_both_equal_the_rules_played_cycle_by_cycle(seed: int) -> None:
    graph = random_shared_graph(seed)
    played = _Played(graph)
    assert played.play()
    for simulate in (simulate_b, simulate_c):
        found = simulate(graph)
        assert found.start.tolist() == played.start
        assert found.end.tolist() == played.end


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_b_equals_a_when_nothing_is_shared(seed: int) -> None:
    graph = random_graph(seed)
    a, b = simulate_a(graph), simulate_b(graph)
    np.testing.assert_array_equal(a.start, b.start)
    np.testing.assert_array_equal(a.end, b.end)
    assert a.total_cycles == b.total_cycles


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_both_levels_agree_on_what_deadlocks(seed: int) -> None:
    graph = random_shared_graph(seed, runnable=False)
    outcomes: list[Any] = []
    for simulate in (simulate_b, simulate_c):
        try:
            outcomes.append(simulate(graph).end.tolist())
        except InvariantError as error:
            outcomes.append(sorted(str(error).removeprefix("deadlock: ").split("; ")))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_a_resource_serves_one_at_a_time_and_all_that_is_asked(seed: int) -> None:
    graph = random_shared_graph(seed)
    service = simulate_b(graph).service
    assert service is not None
    for number in range(len(graph.resources)):
        mine = service[service[:, 0] == number]
        assert (mine[1:, 2] >= mine[:-1, 3]).all()
        asked = graph.all_transfers()
        asked = asked[asked[:, 1] == number]
        switch = graph.rule(number).switch_cycles
        engines = graph.engine[mine[:, 1]]
        switches = int((engines[1:] != engines[:-1]).sum())
        assert (mine[:, 3] - mine[:, 2]).sum() == asked[:, 2].sum() + switch * switches
        assert set(mine[:, 1].tolist()) == set(asked[:, 0].tolist())


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_losses_of_every_engine_sum_up_to_the_total(seed: int) -> None:
    timeline = simulate_b(random_shared_graph(seed))
    for engine in timeline.graph.engines:
        losses = engine_losses(timeline, engine)  # raises unless they sum up
        assert min(losses.values()) >= 0


@settings(max_examples=200, deadline=None)
@given(seeds, st.booleans())
def test_waits_are_filled_by_the_same_tasks_as_without_compiled_code(seed: int, runnable: bool) -> None:
    graph = random_shared_graph(seed, runnable=runnable)
    filled, begin = waits_by_task(graph)
    order = np.argsort(graph.waits[:, 0], kind="stable")
    np.testing.assert_array_equal(filled, filling_tasks(graph.waits, graph.signals, graph.initial)[order])
    np.testing.assert_array_equal(begin, np.searchsorted(graph.waits[order, 0], np.arange(graph.tasks + 1)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rule", [Arbitration(), Arbitration("round_robin", 16, 4, 2), Arbitration("priority", 5)])
def test_b_equals_c_on_cores_with_finite_buffers(rule: Arbitration, channels: int) -> None:
    graph = core_pipelines(5, 60, 3, rule, channels=channels)
    b = simulate_b(graph)
    assert_same(b, simulate_c(graph))
    assert b.contended_cycles().any()
    alone = simulate_b(core_pipelines(5, 60, 3, Arbitration(rule.policy, rule.chunk_cycles), channels=5))
    assert b.total_cycles > alone.total_cycles


def test_random_graphs_cover_what_can_differ() -> None:
    graphs = [random_shared_graph(seed) for seed in range(100)]
    contended = [graph for graph in graphs if simulate_b(graph).contended_cycles().any()]
    assert len(contended) >= 50
    for policy in ("fifo", "round_robin", "priority"):
        assert sum(any(rule.policy == policy for rule in graph.arbitration) for graph in contended) >= 10
    assert sum(len(graph.transfers) > 0 for graph in contended) >= 30
    assert sum(any(rule.switch_cycles for rule in graph.arbitration) for graph in contended) >= 10
