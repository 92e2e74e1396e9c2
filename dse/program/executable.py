"""Executable: what `lower` returns. One object gives values, time and metrics of the same program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.program.taskgraph import TaskGraph, Timeline

if TYPE_CHECKING:
    from dse.metrics import Metrics


class Executable(ABC):
    """A compiled network on a given accelerator.

    Call order: `lower` makes it; `estimate()` gives metrics by the fast path (level A); `task_graph()` and a
    simulator give a Timeline, `metrics(timeline)` its metrics; `run(inputs)` gives values. None of these
    changes the object.
    """

    @abstractmethod
    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.int8]]:
        """Execute the program itself on values: graph inputs by name -> graph outputs by name."""

    @abstractmethod
    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        """The timing view of the whole program; `activity` carries data-dependent counts (spikes)."""

    @abstractmethod
    def metrics(self, timeline: Timeline) -> Metrics:
        """Metrics of a simulated timeline."""

    @abstractmethod
    def estimate(self) -> Metrics:
        """Metrics by level A, without building more than needed."""
