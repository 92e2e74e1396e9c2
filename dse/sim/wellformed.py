"""What a TaskGraph must satisfy before any level simulates it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse.core.errors import InvariantError
from dse.program.taskgraph import POLICIES, TaskGraph

IntArray = npt.NDArray[np.int64]


def check_graph(graph: TaskGraph) -> None:
    """Check indices, signs and the one-producer, one-consumer rule of semaphores.

    Raises
    ------
    InvariantError: names the first task or semaphore that breaks a rule.
    """
    _check_tasks(graph)
    _check_transfers(graph)
    for name, table in (("waits", graph.waits), ("signals", graph.signals)):
        _check_table(graph, name, table)
    if (graph.initial < 0).any():
        raise InvariantError(f"semaphore {int(np.argmin(graph.initial))} starts below 0")


def _check_tasks(graph: TaskGraph) -> None:
    for name in ("issue_cycles", "duration_cycles", "service_cycles"):
        values = getattr(graph, name)
        if values.shape != graph.engine.shape:
            raise InvariantError(f"{name} has shape {values.shape}, engine {graph.engine.shape}")
        if (values < 0).any():
            task = int(np.argmax(values < 0))
            raise InvariantError(f"task {task}: {name} is {int(values[task])}; the least is 0")
    _check_range("engine", graph.engine, 0, len(graph.engines))
    _check_range("resource", graph.resource, -1, len(graph.resources))
    if graph.final_cycles.shape != (len(graph.engines),):
        raise InvariantError(f"final_cycles has shape {graph.final_cycles.shape} for {len(graph.engines)} engines")
    longer = (graph.resource >= 0) & (graph.service_cycles > graph.duration_cycles)
    if longer.any():
        task = int(np.argmax(longer))
        raise InvariantError(f"task {task} occupies its resource beyond its own duration")


def _check_transfers(graph: TaskGraph) -> None:
    extra = graph.transfers
    if len(extra):
        if extra.ndim != 2 or extra.shape[1] != 3:
            raise InvariantError(f"transfers has shape {extra.shape}; (n, 3) is expected")
        _check_range("transfers: task", extra[:, 0], 0, graph.tasks)
        _check_range("transfers: resource", extra[:, 1], 0, len(graph.resources))
        if (extra[:, 2] < 1).any():
            task, _, cycles = extra[int(np.argmax(extra[:, 2] < 1))]
            raise InvariantError(f"transfers: task {task} is served {cycles} cycles; the least is 1")
        longer = extra[:, 2] > graph.duration_cycles[extra[:, 0]]
        if longer.any():
            task = int(extra[int(np.argmax(longer)), 0])
            raise InvariantError(f"task {task} occupies its resource beyond its own duration")
        rows = graph.all_transfers()
        pairs = np.sort(rows[:, 0] * len(graph.resources) + rows[:, 1])
        twice = pairs[1:] == pairs[:-1]
        if twice.any():
            task, resource = divmod(int(pairs[int(np.argmax(twice))]), len(graph.resources))
            raise InvariantError(f"transfers: task {task} uses resource {resource} twice")
    if len(graph.arbitration) not in (0, len(graph.resources)):
        raise InvariantError(f"{len(graph.arbitration)} arbitrations for {len(graph.resources)} resources")
    for name, rule in zip(graph.resources, graph.arbitration, strict=False):
        if rule.policy not in POLICIES:
            raise InvariantError(f"resource {name}: policy {rule.policy!r} is none of {', '.join(POLICIES)}")
        if min(rule.chunk_cycles, rule.window, rule.switch_cycles) < 0:
            raise InvariantError(f"resource {name}: {rule} has a negative number; the least is 0")


def _check_table(graph: TaskGraph, name: str, table: IntArray) -> None:
    if table.ndim != 2 or table.shape[1] != 3:
        raise InvariantError(f"{name} has shape {table.shape}; (n, 3) is expected")
    _check_range(f"{name}: task", table[:, 0], 0, graph.tasks)
    _check_range(f"{name}: semaphore", table[:, 1], 0, len(graph.initial))
    if (table[:, 2] < 1).any():
        row = table[int(np.argmax(table[:, 2] < 1))]
        raise InvariantError(f"{name}: task {row[0]}, semaphore {row[1]}: amount {row[2]}; the least is 1")
    pairs = np.sort(table[:, 1] * graph.tasks + table[:, 0], kind="stable")
    twice = pairs[1:] == pairs[:-1]
    if twice.any():
        semaphore, task = divmod(int(pairs[int(np.argmax(twice))]), graph.tasks)
        raise InvariantError(f"{name}: task {task} names semaphore {semaphore} twice")
    semaphores, engine = table[:, 1], graph.engine[table[:, 0]]
    owner = np.zeros(len(graph.initial), np.int64)
    owner[semaphores] = engine
    split = owner[semaphores] != engine
    if split.any():
        at = int(np.argmax(split))
        users = f"{graph.engines[engine[at]]} and {graph.engines[owner[semaphores[at]]]}"
        raise InvariantError(f"{name}: semaphore {semaphores[at]} belongs to one engine, but {users} use it")


def _check_range(name: str, values: IntArray, low: int, end: int) -> None:
    outside = (values < low) | (values >= end)
    if outside.any():
        raise InvariantError(f"{name} is {int(values[np.argmax(outside)])}; {low} to {end - 1} are valid")


def deadlock(graph: TaskGraph, stuck: Sequence[tuple[int, Sequence[int]]]) -> InvariantError:
    """The error of a graph that does not run to its end.

    Parameters
    ----------
    stuck
        The first task that cannot start on each engine that stands, with the semaphores that it waits for.
    """
    parts = []
    for task, semaphores in stuck:
        waits = ", ".join(str(semaphore) for semaphore in semaphores)
        kind, engine = graph.kinds[graph.kind[task]], graph.engines[graph.engine[task]]
        parts.append(f"{engine} task {task} ({kind}, step {graph.layer[task]}) waits for semaphore {waits}")
    return InvariantError("deadlock: " + "; ".join(parts))
