"""A timeline as Chrome trace JSON: it opens in Perfetto (ui.perfetto.dev) and in chrome://tracing.

One track an engine with a slice a task; one counter a shared resource with its busy fraction over time, and, from
the levels that model sharing, one track a resource with a slice for every stretch of service.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dse.program.taskgraph import Timeline

IntArray = npt.NDArray[np.int64]

#: Samples of each resource counter over the whole run.
COUNTER_SAMPLES = 256
_PROCESS, _RESOURCES = 1, 2


def perfetto_trace(timeline: Timeline, clock_mhz: float) -> dict[str, Any]:
    """Chrome trace of a timeline, plain data for `json.dump`.

    Parameters
    ----------
    timeline
        Of any level; `names` label the slices (the step's number where it has none).
    clock_mhz
        > 0; turns cycles into the microseconds that the format counts in.

    Returns
    -------
    The same data for the same timeline: no clock, no random number enters.
    """
    graph = timeline.graph
    events: list[dict[str, Any]] = [_metadata("process_name", 0, f"accelerator, level {timeline.level}")]
    for number, engine in enumerate(graph.engines):
        events.append(_metadata("thread_name", number + 1, engine))
        events.append({**_metadata("thread_sort_index", number + 1, ""), "args": {"sort_index": number}})
        events += _slices(timeline, number, clock_mhz)
    for number, resource in enumerate(graph.resources):
        events += _counter(timeline, number, resource, clock_mhz)
    if timeline.service is not None and len(timeline.service):
        events += _services(timeline, clock_mhz)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "level": timeline.level,
            "total_cycles": int(timeline.total_cycles),
            "clock_mhz": float(clock_mhz),
        },
    }


def _metadata(kind: str, thread: int, name: str, process: int = _PROCESS) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}


def _services(timeline: Timeline, clock_mhz: float) -> list[dict[str, Any]]:
    """A process of its own with a track a shared resource; slices are named by the engine that is served."""
    graph = timeline.graph
    events = [_metadata("process_name", 0, "shared resources", _RESOURCES)]
    events += [_metadata("thread_name", number + 1, name, _RESOURCES) for number, name in enumerate(graph.resources)]
    assert timeline.service is not None
    for resource, task, begin, end in timeline.service.tolist():
        events.append(
            {
                "ph": "X",
                "pid": _RESOURCES,
                "tid": resource + 1,
                "ts": begin / clock_mhz,
                "dur": (end - begin) / clock_mhz,
                "name": graph.engines[graph.engine[task]],
                "cat": "service",
                "args": {"task": task, "start_cycle": begin, "cycles": end - begin},
            }
        )
    return events


def _slices(timeline: Timeline, engine: int, clock_mhz: float) -> list[dict[str, Any]]:
    graph = timeline.graph
    contended = timeline.contended_cycles()
    events = []
    previous_end = 0
    for task in np.flatnonzero(graph.engine == engine).tolist():
        start, end = int(timeline.start[task]), int(timeline.end[task])
        layer, kind = int(graph.layer[task]), graph.kinds[graph.kind[task]]
        waited = start - previous_end - int(graph.issue_cycles[task])
        previous_end = end
        name = timeline.names[layer] if layer < len(timeline.names) else f"step {layer}"
        events.append(
            {
                "ph": "X",
                "pid": _PROCESS,
                "tid": engine + 1,
                "ts": start / clock_mhz,
                "dur": (end - start) / clock_mhz,
                "name": name,
                "cat": kind,
                "args": {
                    "kind": kind,
                    "task": task,
                    "step": layer,
                    "start_cycle": start,
                    "cycles": end - start,
                    "waited_cycles": waited,
                    "contended_cycles": int(contended[task]),
                },
            }
        )
    return events


def _counter(timeline: Timeline, resource: int, name: str, clock_mhz: float) -> list[dict[str, Any]]:
    """Busy fraction of a resource in each of `COUNTER_SAMPLES` equal spans of the run."""
    edges = np.unique(np.linspace(0, timeline.total_cycles, COUNTER_SAMPLES + 1).astype(np.int64))
    if len(edges) < 2:
        return []
    busy = np.diff(busy_until(timeline, resource, edges)) / np.diff(edges)
    counter = {"ph": "C", "pid": _PROCESS, "tid": 0, "name": f"{name} busy fraction"}
    samples = [
        {**counter, "ts": int(edge) / clock_mhz, "args": {"busy": round(float(value), 6)}}
        for edge, value in zip(edges[:-1], busy, strict=True)
    ]
    return [*samples, {**counter, "ts": int(edges[-1]) / clock_mhz, "args": {"busy": 0.0}}]


def busy_until(timeline: Timeline, resource: int, cycle: IntArray) -> IntArray:
    """Cycles that a resource has served before each given cycle: int64, shape of `cycle`.

    A level that does not model sharing serves each transfer from the start of its task on.
    """
    if timeline.service is None:
        rows = timeline.graph.all_transfers()
        rows = rows[rows[:, 1] == resource]
        begin = np.sort(timeline.start[rows[:, 0]])
        finish = np.sort(timeline.start[rows[:, 0]] + rows[:, 2])
    else:
        rows = timeline.service[timeline.service[:, 0] == resource]
        begin, finish = np.sort(rows[:, 2]), np.sort(rows[:, 3])
    return _area(begin, cycle) - _area(finish, cycle)


def _area(edge: IntArray, cycle: IntArray) -> IntArray:
    """Sum of max(cycle - e, 0) over sorted `edge`."""
    count = np.searchsorted(edge, cycle)
    sums = np.concatenate([[0], np.cumsum(edge)]).astype(np.int64)
    return np.asarray(count * cycle - sums[count], np.int64)
