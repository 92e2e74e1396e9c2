"""Random task graphs whose engines contend for shared resources."""

from __future__ import annotations

import numpy as np

from dse.program.taskgraph import POLICIES, Arbitration, TaskGraph


def random_arbitration(rng: np.random.Generator) -> Arbitration:
    """A random rule; small numbers, so that they bind."""
    return Arbitration(
        policy=str(rng.choice(POLICIES)),
        chunk_cycles=int(rng.choice([0, 1, 3, 8])),
        window=int(rng.choice([0, 1, 2, 3])),
        switch_cycles=int(rng.choice([0, 0, 2])),
    )


def random_shared_graph(seed: int, *, runnable: bool = True) -> TaskGraph:
    """Random tasks of several engines and cores, each on any of several resources, some on two or three at once.

    Tasks stand in an order in which they can run, so no wait asks for more than was signalled before it (unless not
    `runnable`).
    """
    rng = np.random.default_rng(seed)
    engines, count = int(rng.integers(1, 9)), int(rng.integers(0, 60))
    semaphores, resources = int(rng.integers(1, 10)), int(rng.integers(1, 5))
    producer, consumer = rng.integers(0, engines, semaphores), rng.integers(0, engines, semaphores)
    initial = rng.integers(0, 3, semaphores)
    held, engine = initial.copy(), rng.integers(0, engines, count)
    waits, signals, transfers = [], [], []
    duration = rng.integers(0, int(rng.choice([2, 6, 40])) + 1, count)
    resource = np.where(rng.random(count) < 0.6, rng.integers(0, resources, count), -1)
    service = np.where(resource >= 0, (duration * rng.choice([0.0, 0.5, 1.0], count)).astype(np.int64), 0)
    for task in range(count):
        for semaphore in np.flatnonzero(consumer == engine[task]).tolist():
            most = int(held[semaphore]) if runnable else 2
            if most and rng.random() < 0.5:
                waits.append((task, semaphore, int(rng.integers(1, most + 1))))
                held[semaphore] -= waits[-1][2]
        for semaphore in np.flatnonzero(producer == engine[task]).tolist():
            if rng.random() < 0.6:
                signals.append((task, semaphore, int(rng.integers(1, 4))))
                held[semaphore] += signals[-1][2]
        for other in range(resources):
            if other != resource[task] and duration[task] and rng.random() < 0.25:
                transfers.append((task, other, int(rng.integers(1, duration[task] + 1))))
    for table in (waits, signals, transfers):
        rng.shuffle(table)
    return TaskGraph(
        engines=tuple(f"engine{i}" for i in range(engines)),
        engine=engine,
        issue_cycles=rng.integers(0, int(rng.choice([1, 4])) + 1, count),
        duration_cycles=duration,
        waits=np.array(waits, np.int64).reshape(-1, 3),
        signals=np.array(signals, np.int64).reshape(-1, 3),
        initial=initial,
        layer=rng.integers(0, 3, count),
        kind=np.zeros(count, np.int64),
        kinds=("work",),
        resource=resource,
        service_cycles=service,
        resources=tuple(f"resource{i}" for i in range(resources)),
        final_cycles=rng.integers(0, 4, engines),
        transfers=np.array(transfers, np.int64).reshape(-1, 3),
        arbitration=tuple(random_arbitration(rng) for _ in range(resources)) if rng.random() < 0.9 else (),
    )


def core_pipelines(
    cores: int, tiles: int, seed: int, rule: Arbitration, *, channels: int = 1, buffers: int = 2
) -> TaskGraph:
    """Cores of a load, a compute and a store engine with finite buffers between them, and shared channels.

    Loads and stores of core i use channel i mod `channels`. 3 * cores * tiles tasks.
    """
    rng = np.random.default_rng(seed)
    per_core, tasks = 3 * tiles, 3 * cores * tiles
    task = np.arange(tasks)
    core, stage, tile = task // per_core, task % 3, task % per_core // 3
    duration = rng.integers(1, 60, tasks)
    moving = stage != 1
    one = np.ones(tasks, np.int64)
    # semaphores of a core: loaded, load buffer free, computed, result buffer free
    wait = [(task[stage == 1], 0), (task[stage == 0], 1), (task[stage == 2], 2), (task[stage == 1], 3)]
    signal = [(task[stage == 0], 0), (task[stage == 1], 1), (task[stage == 1], 2), (task[stage == 2], 3)]

    def table(rows: list[tuple[np.ndarray, int]]) -> np.ndarray:
        parts = [np.stack([which, 4 * core[which] + number, one[which]], axis=1) for which, number in rows]
        return np.concatenate(parts)

    return TaskGraph(
        engines=tuple(f"core{i}.{name}" for i in range(cores) for name in ("load", "compute", "store")),
        engine=3 * core + stage,
        issue_cycles=one,
        duration_cycles=duration + 4 * moving,
        waits=table(wait),
        signals=table(signal),
        initial=np.tile([0, buffers, 0, buffers], cores),
        layer=tile * 4 // max(tiles, 1),
        kind=stage,
        kinds=("load", "compute", "store"),
        resource=np.where(moving, core % channels, -1),
        service_cycles=np.where(moving, duration, 0),
        resources=tuple(f"dram{i}" for i in range(channels)),
        final_cycles=np.zeros(3 * cores, np.int64),
        arbitration=(rule,) * channels,
    )
