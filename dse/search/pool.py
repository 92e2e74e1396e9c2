"""Evaluation of many points: in this process, or on worker processes that end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from dse.core.errors import EXIT_BUG, DseError
from dse.search.driver import EvaluationMap
from dse.search.evaluate import Evaluation, Evaluator
from dse.search.space import Values


class WorkerError(DseError):
    """A worker process vanished; the run folder is intact."""

    exit_code = EXIT_BUG


@contextmanager
def evaluation_map(evaluator: Evaluator, jobs: int) -> Iterator[EvaluationMap]:
    """A map over points, for the length of a `with` block.

    Parameters
    ----------
    jobs
        Worker processes; 1 evaluates in this process and starts none.

    Raises
    ------
    WorkerError: a worker died (out of memory, killed).
    """
    if jobs == 1:
        yield lambda points: map(evaluator.evaluate, points)
        return
    with worker_pool(jobs, _hold, evaluator) as run_all:
        yield lambda points: run_all(_evaluate, points)


@contextmanager
def worker_pool(
    jobs: int, start: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]]:
    """A map(function, items) on `jobs` processes with results in order; up to 1 job runs in this process.

    `start(*arguments)` runs first in each worker process.

    Raises
    ------
    WorkerError: a worker died.
    """
    if jobs <= 1:
        yield map
        return
    # spawn, not fork: the parent has threads (progress, compiled kernels), and a fork would inherit the folder's lock
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(start, arguments))

    def run_all(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process died, most likely for want of memory; "
                "what was evaluated is kept: go on with --resume and fewer --jobs"
            ) from error

    try:
        yield run_all
    except BaseException:
        # an interrupt must not wait for what the workers are at; a public call for this comes with Python 3.14
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(start: Callable[..., None] | None, arguments: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """A killed parent closes nothing: without this its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


_evaluator: Evaluator | None = None


def _hold(evaluator: Evaluator) -> None:
    global _evaluator
    _evaluator = evaluator


def _evaluate(values: Values) -> Evaluation:
    assert _evaluator is not None
    return _evaluator.evaluate(values)
