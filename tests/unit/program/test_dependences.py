"""The task behind each wait equals what counting tokens one by one finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.program.dependences import FROM_START, NEVER, filling_tasks


def counted(waits: np.ndarray, signals: np.ndarray, initial: np.ndarray) -> list[int]:
    """Hands out tokens: each carries the task that made it; a wait is filled by the last one it takes."""
    result = [0] * len(waits)
    for semaphore, count in enumerate(initial.tolist()):
        tokens = [FROM_START] * count
        for task, _, amount in sorted(row for row in signals.tolist() if row[1] == semaphore):
            tokens += [task] * amount
        taken = 0
        for row in sorted((r for r in range(len(waits)) if waits[r, 1] == semaphore), key=lambda r: waits[r, 0]):
            taken += int(waits[row, 2])
            result[row] = tokens[taken - 1] if taken <= len(tokens) else NEVER
    return result


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_filling_tasks_equal_tokens_handed_out_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    semaphores = int(rng.integers(1, 5))

    def rows(tasks: int) -> np.ndarray:
        pairs = [(t, s) for t in range(tasks) for s in range(semaphores) if rng.random() < 0.5]
        rng.shuffle(pairs)
        return np.array([(t, s, int(rng.integers(1, 4))) for t, s in pairs], np.int64).reshape(-1, 3)

    waits, signals = rows(int(rng.integers(0, 8))), rows(int(rng.integers(0, 8)))
    signals[:, 0] += 100
    initial = rng.integers(0, 4, semaphores)
    assert filling_tasks(waits, signals, initial).tolist() == counted(waits, signals, initial)
