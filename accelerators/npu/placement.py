"""Where tensors and constants lie in external memory, and for how long they are needed.

Feature maps that are never needed together share bytes, first fit by size; one with a border of zero points keeps its
bytes for itself, because the border is written once, before the program starts. Constants lie behind them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accelerators.npu.layer import ConvLayer, Partition, is_map, outputs_of
from dse.ir import Graph
from dse.program.tile.memory_map import Region
from dse.program.tile.program import TensorPlacement

ALIGNMENT = 64


@dataclass
class ConstantSpace:
    """Addresses for what lives always."""

    next: int
    regions: list[Region]
    last_step: int

    def take(self, name: str, kind: str, size: int) -> int:
        """Address of `size` fresh bytes, aligned."""
        base = self.next
        self.next = _aligned(base + size)
        self.regions.append(Region(name, kind, base, size, 0, self.last_step))
        return base


@dataclass(frozen=True)
class Placed:
    """Placements by name, their regions, the end of the highest, and the least end any placement could have."""

    placements: dict[str, TensorPlacement]
    regions: list[Region]
    peak: int
    bound: int


def place_tensors(graph: Graph, parts: Partition) -> Placed:
    """Placements of every feature map that owns bytes, with the border that its readers need."""
    drafts = _drafts(graph, parts)
    times = _lifetimes(graph, parts, drafts)
    taken: list[tuple[int, int, int, int]] = []
    placements: dict[str, TensorPlacement] = {}
    for name in sorted(drafts, key=lambda item: (-drafts[item].bytes, item)):
        first, last = (0, len(parts.work)) if any(drafts[name].halo) else times[name]
        base = 0
        for low, high, begin, end in sorted(taken):
            if begin <= last and first <= end and low < base + drafts[name].bytes and base < high:
                base = high
        taken.append((base, _aligned(base + drafts[name].bytes), first, last))
        placements[name] = replace(drafts[name], base=base)
    regions = [Region(n, "tensor", p.base, p.bytes, *times[n]) for n, p in placements.items()]
    bound = max(
        (
            sum(_aligned(drafts[n].bytes) for n, (a, b) in times.items() if a <= step <= b)
            for step in range(len(parts.work) + 1)
        ),
        default=0,
    )
    return Placed(placements, regions, max((high for _, high, _, _ in taken), default=0), bound)


def _drafts(graph: Graph, parts: Partition) -> dict[str, TensorPlacement]:
    """Geometry of every tensor, at address 0."""
    halos: dict[str, tuple[int, ...]] = {}
    for item in parts.work:
        if isinstance(item, ConvLayer):
            before = halos.get(item.input, (0, 0, 0, 0))
            halos[item.input] = tuple(max(a, b) for a, b in zip(before, item.border(), strict=True))
    drafts = {}
    for name in dict.fromkeys([*graph.inputs, *(name for item in parts.work for name in outputs_of(item))]):
        tensor = graph[name]
        if is_map(graph, name):
            batch, channels, height, width = tensor.shape
        else:
            batch, channels, height, width = math.prod(tensor.shape[:-1]), math.prod(tensor.shape[-1:]), 1, 1
        zero = tensor.quantization.zero_point if tensor.quantization else 0
        top, left, bottom, right = halos.get(name, (0, 0, 0, 0))
        drafts[name] = TensorPlacement(name, 0, batch, channels, height, width, (top, left, bottom, right), zero)
    return drafts


def _lifetimes(graph: Graph, parts: Partition, drafts: dict[str, TensorPlacement]) -> dict[str, tuple[int, int]]:
    """First and last step that needs each tensor: inputs from the start, outputs to the end."""
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(drafts, 0)
    for index, item in enumerate(parts.work):
        for name in outputs_of(item):
            first.setdefault(name, index)
            last[name] = max(last[name], index)
        for name in item.inputs:
            last[name] = max(last[name], index)
    for name in graph.outputs:
        owner = parts.source.get(name, name)
        if owner in last:
            last[owner] = len(parts.work)
    return {name: (first[name], last[name]) for name in drafts}


def fill_borders(memory: npt.NDArray[np.uint8], placements: Sequence[TensorPlacement]) -> None:
    """Write the zero point over every tensor that has a border; its interior is written later."""
    for place in placements:
        if any(place.halo):
            memory[place.base : place.base + place.bytes] = np.uint8(place.zero_point & 0xFF)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
