"""Where the cycles of an engine went, and how many of them other users of its channels cost."""

from __future__ import annotations

import numpy as np

from dse.core.errors import InvariantError
from dse.program.taskgraph import Timeline


def engine_losses(timeline: Timeline, engine: str) -> dict[str, int]:
    """Cycles of one engine by cause; they sum up to the timeline's total.

    busy: its tasks at work; issue: between them; contention: its own transfers, or those of the task it waited for,
    stood behind others; memory: it waited for a task with transfers, for other reasons; dependency: it waited for any
    other task; tail: behind its last task.

    A wait belongs to the task whose signal came last (of several, the lowest in the graph).

    Raises
    ------
    ValueError: no such engine.
    InvariantError: the causes do not sum up to the total.
    """
    graph = timeline.graph
    if engine not in graph.engines:
        raise ValueError(f"{engine!r} is no engine of the graph; it has {', '.join(graph.engines)}")
    mine = np.flatnonzero(graph.engine == graph.engines.index(engine))
    contended = timeline.contended_cycles()
    start, end = timeline.start[mine], timeline.end[mine]
    previous = np.concatenate([[0], end[:-1]]) if len(mine) else end
    issue = graph.issue_cycles[mine]
    waited = start - previous - issue
    moves = np.zeros(graph.tasks, bool)
    moves[graph.all_transfers()[:, 0]] = True
    losses = {
        "busy": int(graph.duration_cycles[mine].sum()),
        "issue": int(issue.sum()),
        "contention": int(contended[mine].sum()),
        "memory": 0,
        "dependency": 0,
    }
    for place in np.flatnonzero(waited > 0).tolist():
        cycles = int(waited[place])
        source = _released_by(timeline, int(mine[place]))
        if source >= 0 and moves[source]:
            behind = min(cycles, int(contended[source]))
            losses["contention"] += behind
            losses["memory"] += cycles - behind
        else:
            losses["dependency"] += cycles
    losses["tail"] = timeline.total_cycles - (int(end[-1]) if len(mine) else 0)
    if sum(losses.values()) != timeline.total_cycles:
        raise InvariantError(f"{engine}: losses {losses} do not sum up to {timeline.total_cycles} cycles")
    return losses


def _released_by(timeline: Timeline, task: int) -> int:
    """The task whose signal let a task start: the one that ended a cycle before; -1 when none did."""
    graph = timeline.graph
    semaphores = graph.waits[graph.waits[:, 0] == task, 1]
    giving = graph.signals[np.isin(graph.signals[:, 1], semaphores), 0]
    found = giving[timeline.end[giving] + 1 == timeline.start[task]]
    return int(found.min()) if len(found) else -1
