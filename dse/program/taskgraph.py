"""TaskGraph: the timing view that every family shares. Timeline: what a simulation makes of it.

Tasks run in order on named engines; they meet through counting semaphores. An engine's next task starts

    start = max(end of its predecessor on the engine + issue_cycles, every awaited semaphore's time + 1)
    end   = start + duration_cycles

(`end` is the clock edge that commits the last effect; signals are counted at `end`, seen at `end + 1`.)
The first task of an engine counts `issue_cycles` from cycle 0.

A task may move data over shared resources (memory channels, links of an on-chip network). All its transfers are
requested when it starts and go on side by side; when the last one is through,

    end = that cycle + duration_cycles - service cycles of its longest transfer

so that a task which nobody disturbs still lasts `duration_cycles`. How a resource chooses among its requests is its
`Arbitration`; docs/simulation.md has the definition in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


#: How a shared resource picks the next of its requests.
POLICIES = ("fifo", "round_robin", "priority")


@dataclass(frozen=True)
class Arbitration:
    """How a shared resource serves its requests.

    Parameters
    ----------
    policy
        "fifo": oldest request first, in one cycle the lower engine; "round_robin": the next engine by number
        after the one served last; "priority": the lowest engine.
    chunk_cycles
        A transfer is served in pieces of at most so many cycles; behind each piece it asks anew. 0: in one piece.
    window
        Only so many of the oldest requests are looked at (the depth of the controller's queue). 0: all.
    switch_cycles
        Cycles lost when a piece belongs to another engine than the one before (turnaround, row miss).
    """

    policy: str = "fifo"
    chunk_cycles: int = 0
    window: int = 0
    switch_cycles: int = 0


def _no_transfers() -> IntArray:
    return np.zeros((0, 3), np.int64)


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
    transfers
        int64, shape (n, 3): task, resource, service cycles: transfers beside the one of `resource`, for tasks that
        use several resources at once (a link and a channel, the channels that addresses are spread over).
    arbitration
        One for each of `resources`, or empty: first come, first served, in one piece.
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
    transfers: IntArray = field(default_factory=_no_transfers)
    arbitration: tuple[Arbitration, ...] = ()

    @property
    def tasks(self) -> int:
        return int(self.engine.shape[0])

    def all_transfers(self) -> IntArray:
        """Every transfer that takes time: int64, shape (n, 3): task (ascending), resource, service cycles."""
        own = np.flatnonzero((self.resource >= 0) & (self.service_cycles > 0))
        rows = np.concatenate(
            [np.stack([own, self.resource[own], self.service_cycles[own]], axis=1), self.transfers]
        ).astype(np.int64)
        rows = rows[rows[:, 2] > 0]
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def rule(self, resource: int) -> Arbitration:
        """The arbitration of a resource."""
        return self.arbitration[resource] if self.arbitration else Arbitration()


@dataclass(frozen=True, eq=False)
class Timeline:
    """Start and end of every task of a TaskGraph, and the cycle at which all engines have reported done.

    `level` is "A", "B", "C" or "rtl"; `names` label the steps (index = TaskGraph.layer). `service` tells when shared
    resources served whom: int64, shape (n, 4): resource, task, begin, end, by resource and begin; None from a level
    that does not model sharing.
    """

    graph: TaskGraph
    start: IntArray
    end: IntArray
    total_cycles: int
    level: str
    names: Sequence[str] = field(default_factory=tuple)
    service: IntArray | None = None

    def contended_cycles(self) -> IntArray:
        """Cycles by which sharing lengthened each task: int64, shape (tasks,); 0 where nothing was in the way."""
        return np.asarray(self.end - self.start - self.graph.duration_cycles, np.int64)

    def busy_cycles(self, engine: str) -> int:
        """Cycles an engine spends between start and end of its tasks."""
        mask = self.graph.engine == self.graph.engines.index(engine)
        return int((self.end - self.start)[mask].sum())
