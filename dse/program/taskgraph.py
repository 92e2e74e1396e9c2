"""TaskGraph: the timing view that every family shares. Timeline: what a simulation makes of it.

Tasks run in order on named engines; they meet through counting semaphores. An engine's next task starts

    start = max(end of its predecessor on the engine + issue_cycles, every awaited semaphore's time + 1)
    end   = start + duration_cycles

(`end` is the clock edge that commits the last effect; signals are counted at `end`, seen at `end + 1`.)
The first task of an engine counts `issue_cycles` from cycle 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """Tasks in per-engine program order (tasks of different engines may interleave freely).

    Parameters
    ----------
    engines
        Engine names.
    engine, issue_cycles, duration_cycles
        int64, shape (tasks,): engine index; cycles from the predecessor's end (or cycle 0) to the earliest
        start; cycles from start to end.
    waits, signals
        int64, shape (n, 3): task, semaphore, amount. Each semaphore has one consuming and one producing
        engine unless `shared_semaphores`; amounts > 0.
    initial
        int64, shape (semaphores,): initial counts.
    layer, kind
        int64, shape (tasks,): step index and index into `kinds`, for traces and per-layer tables.
    resource, service_cycles
        int64, shape (tasks,): the shared resource a task occupies (-1: none) and for how long, out of its
        duration; `resources` names them.
    final_cycles
        int64, shape (engines,): cycles after an engine's last task until the engine reports done.
    """

    engines: tuple[str, ...]
    engine: IntArray
    issue_cycles: IntArray
    duration_cycles: IntArray
    waits: IntArray
    signals: IntArray
    initial: IntArray
    layer: IntArray
    kind: IntArray
    kinds: tuple[str, ...]
    resource: IntArray
    service_cycles: IntArray
    resources: tuple[str, ...]
    final_cycles: IntArray

    @property
    def tasks(self) -> int:
        return int(self.engine.shape[0])


@dataclass(frozen=True, eq=False)
class Timeline:
    """Start and end of every task of a TaskGraph, and the cycle at which all engines have reported done.

    `level` is "A", "B", "C" or "rtl"; `names` label the steps (index = TaskGraph.layer).
    """

    graph: TaskGraph
    start: IntArray
    end: IntArray
    total_cycles: int
    level: str
    names: Sequence[str] = field(default_factory=tuple)

    def busy_cycles(self, engine: str) -> int:
        """Cycles an engine spends between start and end of its tasks."""
        mask = self.graph.engine == self.graph.engines.index(engine)
        return int((self.end - self.start)[mask].sum())
