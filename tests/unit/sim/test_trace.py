"""The trace holds every task where the timeline has it, and counters that add up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_graph_rules import pair

from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim import perfetto_trace, simulate_a, simulate_c
from dse.sim.trace import COUNTER_SAMPLES, busy_until


def contended(seed: int) -> TaskGraph:
    """Three engines on one port, nothing else between them."""
    rng = np.random.default_rng(seed)
    count = 40
    duration = rng.integers(1, 30, count)
    zeros = np.zeros(count, np.int64)
    empty = np.zeros((0, 3), np.int64)
    return TaskGraph(("a", "b", "c"), rng.integers(0, 3, count), rng.integers(0, 9, count), duration, empty, empty,
                     np.zeros(0, np.int64), zeros, zeros, ("move",), zeros, rng.integers(0, duration + 1), ("port",),
                     np.zeros(3, np.int64))  # fmt: skip


def slices(trace: dict) -> list[dict]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_every_task_is_a_slice_on_its_engines_track() -> None:
    timeline = replace(simulate_a(pair()), names=("stem", "head"))
    trace = perfetto_trace(timeline, 200.0)
    found = slices(trace)
    assert [event["args"]["task"] for event in found] == [0, 1, 2, 3]
    assert [event["name"] for event in found] == ["stem", "head", "stem", "head"]
    assert [event["cat"] for event in found] == ["copy", "copy", "multiply", "multiply"]
    tracks = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert [tracks[event["tid"]] for event in found] == ["load", "load", "matmul", "matmul"]
    assert [event["ts"] for event in found] == [5 / 200, 20 / 200, 16 / 200, 41 / 200]  # microseconds
    assert [event["dur"] for event in found] == [10 / 200, 10 / 200, 20 / 200, 20 / 200]
    assert [event["args"]["waited_cycles"] for event in found] == [0, 0, 11, 0]
    assert trace["otherData"] == {"level": "A", "total_cycles": 63, "clock_mhz": 200.0}


def test_steps_without_names_are_numbered() -> None:
    assert [event["name"] for event in slices(perfetto_trace(simulate_a(pair()), 1.0))][:2] == ["step 0", "step 1"]


def test_traces_are_plain_json_and_repeat() -> None:
    first, second = (json.dumps(perfetto_trace(simulate_c(contended(3)), 500.0)) for _ in range(2))
    assert first == second
    assert json.loads(first)["displayTimeUnit"] == "ns"


@pytest.mark.parametrize("seed", range(5))
def test_busy_cycles_equal_counting_them_one_by_one(seed: int) -> None:
    timeline = simulate_c(contended(seed))
    graph = timeline.graph
    served = np.zeros(timeline.total_cycles, np.int64)
    for task in range(graph.tasks):
        begin = int(timeline.end[task] - graph.duration_cycles[task])
        served[begin : begin + int(graph.service_cycles[task])] += 1
    assert served.max() == 1  # one at a time
    edges = np.arange(timeline.total_cycles + 1)
    np.testing.assert_array_equal(busy_until(timeline, 0, edges), np.concatenate([[0], np.cumsum(served)]))


def test_counter_integrates_to_the_service_of_all_tasks() -> None:
    timeline = simulate_c(contended(9))
    counters = [e for e in perfetto_trace(timeline, 1.0)["traceEvents"] if e["ph"] == "C"]
    assert counters[0]["name"] == "port busy fraction"
    assert len(counters) <= COUNTER_SAMPLES + 1
    times = np.array([event["ts"] for event in counters])
    values = np.array([event["args"]["busy"] for event in counters])
    assert ((values >= 0) & (values <= 1)).all()
    assert (times[0], times[-1]) == (0, timeline.total_cycles)
    assert float((values[:-1] * np.diff(times)).sum()) == pytest.approx(timeline.graph.service_cycles.sum(), rel=1e-5)


def test_an_empty_timeline_has_tracks_and_nothing_else() -> None:
    graph = contended(0)
    nothing = {name: getattr(graph, name)[:0] for name in ("engine", "issue_cycles", "duration_cycles", "layer",
                                                           "kind", "resource", "service_cycles")}  # fmt: skip
    timeline: Timeline = simulate_a(replace(graph, **nothing))
    trace = perfetto_trace(timeline, 1.0)
    assert timeline.total_cycles == 0
    assert {event["ph"] for event in trace["traceEvents"]} == {"M"}
