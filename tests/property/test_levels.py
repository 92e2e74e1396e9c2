"""Levels A and C agree, task by task, with each other and with a machine played cycle by cycle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import InvariantError
from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim import simulate_a, simulate_c

seeds = st.integers(0, 2**32 - 1)


def random_graph(seed: int, *, shared: bool = False, runnable: bool = True) -> TaskGraph:
    """Random tasks on random engines.

    Written down in an order in which they can run, so that no wait asks for more than was signalled before it
    (`runnable`), and then left interleaved as they are. With `shared`, any engine may use any resource.
    """
    rng = np.random.default_rng(seed)
    engines, count, semaphores = int(rng.integers(1, 5)), int(rng.integers(0, 30)), int(rng.integers(1, 7))
    producer, consumer = rng.integers(0, engines, semaphores), rng.integers(0, engines, semaphores)
    initial = rng.integers(0, 3, semaphores)
    held = initial.copy()
    engine = rng.integers(0, engines, count)
    longest = int(rng.choice([2, 5, 40]))
    waits, signals = [], []
    for task in range(count):
        for semaphore in np.flatnonzero(consumer == engine[task]).tolist():
            most = int(held[semaphore]) if runnable else 2
            if most and rng.random() < 0.6:
                waits.append((task, semaphore, int(rng.integers(1, most + 1))))
                held[semaphore] -= waits[-1][2]
        for semaphore in np.flatnonzero(producer == engine[task]).tolist():
            if rng.random() < 0.6:
                signals.append((task, semaphore, int(rng.integers(1, 4))))
                held[semaphore] += signals[-1][2]
    rng.shuffle(waits)
    rng.shuffle(signals)
    duration = rng.integers(0, longest + 1, count)
    resources = int(rng.integers(1, 3)) if shared else engines
    resource = rng.integers(-1, resources, count) if shared else np.where(rng.random(count) < 0.5, engine, -1)
    return TaskGraph(
        engines=tuple(f"engine{i}" for i in range(engines)),
        engine=engine,
        issue_cycles=rng.integers(0, int(rng.choice([1, 4])) + 1, count),
        duration_cycles=duration,
        waits=np.array(waits, np.int64).reshape(-1, 3),
        signals=np.array(signals, np.int64).reshape(-1, 3),
        initial=initial,
        layer=np.zeros(count, np.int64),
        kind=np.zeros(count, np.int64),
        kinds=("work",),
        resource=resource,
        service_cycles=np.where(resource >= 0, (duration * rng.random(count)).astype(np.int64), 0),
        resources=tuple(f"resource{i}" for i in range(resources)),
        final_cycles=rng.integers(0, 4, engines),
    )


class _Played:
    """The rules of `dse.program.taskgraph`, played cycle by cycle with nothing but counters."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.todo = [np.flatnonzero(graph.engine == e).tolist() for e in range(len(graph.engines))]
        self.free_at = [0] * len(graph.engines)
        self.queued: list[list[tuple[int, int, int]]] = [[] for _ in graph.resources]  # request cycle, engine, task
        self.served_until = [0] * len(graph.resources)
        self.start, self.end = [-1] * graph.tasks, [-1] * graph.tasks
        self.taken = [0] * len(graph.initial)

    def holds(self, task: int, cycle: int) -> bool:
        for waiting, semaphore, amount in self.graph.waits.tolist():
            if waiting == task:
                seen = sum(a for t, s, a in self.graph.signals.tolist() if s == semaphore and 0 <= self.end[t] < cycle)
                if self.graph.initial[semaphore] + seen - self.taken[semaphore] < amount:
                    return False
        return True

    def play(self) -> bool:
        """Run to the end; False when nothing can move any more."""
        graph = self.graph
        horizon = int(graph.issue_cycles.sum() + graph.duration_cycles.sum()) + 2 * graph.tasks + 2
        for cycle in range(horizon):
            while self.start_some(cycle):
                pass
            for number in range(len(graph.resources)):
                self.serve(number, cycle)
        return not any(self.todo)

    def start_some(self, cycle: int) -> bool:
        moved = False
        for engine, tasks in enumerate(self.todo):
            if not tasks or (self.start[tasks[0]] >= 0):
                continue
            task = tasks[0]
            if cycle < self.free_at[engine] + self.graph.issue_cycles[task] or not self.holds(task, cycle):
                continue
            for waiting, semaphore, amount in self.graph.waits.tolist():
                self.taken[semaphore] += amount if waiting == task else 0
            self.start[task] = cycle
            number = int(self.graph.resource[task])
            if number >= 0 and self.graph.service_cycles[task]:
                self.queued[number].append((cycle, engine, task))
            else:
                self.finish(engine, cycle + int(self.graph.duration_cycles[task]))
            moved = True
        return moved

    def serve(self, number: int, cycle: int) -> None:
        if self.queued[number] and self.served_until[number] <= cycle:
            entry = min(self.queued[number])
            self.queued[number].remove(entry)
            _, engine, task = entry
            self.served_until[number] = cycle + int(self.graph.service_cycles[task])
            self.finish(engine, cycle + int(self.graph.duration_cycles[task]))

    def finish(self, engine: int, end: int) -> None:
        task = self.todo[engine].pop(0)
        self.end[task] = self.free_at[engine] = end


def total(graph: TaskGraph, end: list[int]) -> int:
    """When the last engine reports."""
    reports = []
    for engine, final in enumerate(graph.final_cycles.tolist()):
        reports.append(final + max((end[t] for t in range(graph.tasks) if graph.engine[t] == engine), default=0))
    return max(reports)


def assert_equal(found: Timeline, start: list[int], end: list[int], cycles: int) -> None:
    assert found.start.tolist() == start
    assert found.end.tolist() == end
    assert found.total_cycles == cycles


@settings(max_examples=500, deadline=None)
@given(seeds)
def test_a_equals_c_when_nothing_is_shared(seed: int) -> None:
    graph = random_graph(seed)
    a, c = simulate_a(graph), simulate_c(graph)
    assert (a.level, c.level) == ("A", "C")
    assert_equal(a, c.start.tolist(), c.end.tolist(), c.total_cycles)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_both_levels_equal_the_rules_played_cycle_by_cycle(seed: int) -> None:
    graph = random_graph(seed)
    played = _Played(graph)
    assert played.play()
    for simulate in (simulate_a, simulate_c):
        assert_equal(simulate(graph), played.start, played.end, total(graph, played.end))


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_c_shares_resources_oldest_first_then_lower_engine(seed: int) -> None:
    graph = random_graph(seed, shared=True)
    played = _Played(graph)
    assert played.play()
    assert_equal(simulate_c(graph), played.start, played.end, total(graph, played.end))


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_a_is_a_lower_bound_when_resources_are_shared(seed: int) -> None:
    graph = random_graph(seed, shared=True)
    a, c = simulate_a(graph), simulate_c(graph)
    assert (a.start <= c.start).all()
    assert (a.end <= c.end).all()
    assert a.total_cycles <= c.total_cycles


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_both_levels_agree_on_what_deadlocks(seed: int) -> None:
    graph = random_graph(seed, runnable=False)
    played = _Played(graph)
    runs = played.play()
    messages = []
    for simulate in (simulate_a, simulate_c):
        try:
            found = simulate(graph)
        except InvariantError as error:
            messages.append(sorted(str(error).removeprefix("deadlock: ").split("; ")))
        else:
            assert_equal(found, played.start, played.end, total(graph, played.end))
    assert len(messages) == (0 if runs else 2)
    if not runs:
        assert messages[0] == messages[1]


def test_random_graphs_cover_contention_and_deadlock() -> None:
    slower = [random_graph(seed, shared=True) for seed in range(60)]
    assert sum(simulate_c(graph).total_cycles > simulate_a(graph).total_cycles for graph in slower) >= 10
    runs = [_Played(random_graph(seed, runnable=False)).play() for seed in range(60)]
    assert 10 <= sum(runs) <= 50


@pytest.mark.parametrize("simulate", [simulate_a, simulate_c])
def test_a_ring_of_many_engines_passes_one_token(simulate: object) -> None:
    # worst case for a worklist: one task can run at a time, on the next engine
    engines, rounds = 40, 25
    count = engines * rounds
    task = np.arange(count)
    ones = np.ones(count, np.int64)
    graph = TaskGraph(
        engines=tuple(str(i) for i in range(engines)),
        engine=task % engines,
        issue_cycles=0 * ones,
        duration_cycles=2 * ones,
        waits=np.stack([task, task % engines, ones], axis=1),
        signals=np.stack([task, (task + 1) % engines, ones], axis=1),
        initial=np.eye(1, engines, dtype=np.int64)[0],
        layer=0 * ones,
        kind=0 * ones,
        kinds=("hop",),
        resource=-ones,
        service_cycles=0 * ones,
        resources=(),
        final_cycles=np.zeros(engines, np.int64),
    )
    found = simulate(graph)  # type: ignore[operator]
    np.testing.assert_array_equal(found.start, 3 * task)
    assert found.total_cycles == 3 * count - 1
