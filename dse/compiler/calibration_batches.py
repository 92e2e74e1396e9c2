"""Cutting a set of samples into batches whose tensors all fit in memory at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from dse.core.errors import UsageError
from dse.ir.graph import Graph

#: Elements of all tensors of one batch: keeps a float run of a ResNet-50 below 1 GiB.
_BATCH_ELEMENTS = 1 << 26


def sample_count(inputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Samples of a set of inputs by name.

    Raises
    ------
    UsageError: there are none, or the inputs differ in their number.
    """
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise UsageError(f"inputs of one set must have as many samples each, got {counts}")
    count = next(iter(counts.values()), 0)
    if count < 1:
        raise UsageError("a set of samples needs at least 1 sample, got 0")
    return count


def batches(graph: Graph, inputs: Mapping[str, npt.NDArray[Any]]) -> Iterator[slice]:
    """Slices of the leading dimension, in order, each small enough to keep every tensor of `graph`.

    Raises
    ------
    UsageError: see `sample_count`.
    """
    count = sample_count(inputs)
    per_sample = sum(
        math.prod(graph[name].shape[1:]) for op in graph.ops for name in op.outputs if len(graph[name].shape) > 1
    )
    step = max(1, _BATCH_ELEMENTS // max(1, per_sample))
    for first in range(0, count, step):
        yield slice(first, first + step)
