"""Where everything lies in external memory, and for how long it is needed.

Activations live from the step that writes them to the last step that reads them; tensors that are never live together
share addresses. The border of a padded tensor is written once, before the program starts, so its bytes may only be
shared with a tensor of the same geometry and zero point, whose border is the same. Constants live always.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from accelerators.systolic.allocation import Live, allocate, live_bound
from accelerators.systolic.layer import Layer
from accelerators.systolic.partition import Partition
from accelerators.systolic.recurrent import sequence_outputs
from accelerators.systolic.work import Fused, Work, reads_of, writes_of
from dse.ir import Graph
from dse.program.tile.memory_map import Region
from dse.program.tile.program import TensorPlacement

ALIGNMENT = 64


@dataclass
class ConstantSpace:
    """Addresses for what lives always, behind the activations."""

    next: int
    regions: list[Region]
    last_step: int

    def take(self, name: str, kind: str, size: int) -> int:
        """Address of `size` fresh bytes, aligned."""
        base = self.next
        self.next = -(-(base + size) // ALIGNMENT) * ALIGNMENT
        self.regions.append(Region(name, kind, base, size, 0, self.last_step))
        return base


def place_tensors(
    graph: Graph, parts: Partition, work: Sequence[Work]
) -> tuple[dict[str, TensorPlacement], list[Region], int, int]:
    """Placements of all activation tensors that own bytes in memory, with the border their consumers need.

    Returns
    -------
    Placements by name, their regions, the end of the highest, and the lower bound of that end.
    """
    drafts = _drafts(graph, work)
    times = _lifetimes(graph, parts, work, drafts)
    items: list[Live] = []
    slot_of: dict[str, str] = {}
    for name, members in _slots(drafts, times).items():
        for member in members:
            slot_of[member] = name
        bordered = any(drafts[members[0]].halo)
        first, last = (0, len(work)) if bordered else times[members[0]]
        items.append(Live(name, drafts[members[0]].bytes, first, last))
    found = allocate(items, ALIGNMENT)
    bound = live_bound([Live(name, place.bytes, *times[name]) for name, place in drafts.items()], ALIGNMENT)
    placements = {name: replace(place, base=found.address[slot_of[name]]) for name, place in drafts.items()}
    regions = [Region(n, "tensor", p.base, p.bytes, *times[n]) for n, p in placements.items()]
    return placements, regions, found.peak, bound


def _drafts(graph: Graph, work: Sequence[Work]) -> dict[str, TensorPlacement]:
    """Geometry of every tensor in memory, at address 0."""
    halos: dict[str, tuple[int, ...]] = {}
    for item in work:
        layer = item.group.layers[0] if isinstance(item, Fused) else item
        if isinstance(layer, Layer):
            before = halos.get(layer.input, (0, 0, 0, 0))
            halos[layer.input] = tuple(max(a, b) for a, b in zip(before, _border(layer), strict=True))
    drafts = {}
    sequences = sequence_outputs(graph)
    for name in dict.fromkeys([*graph.inputs, *(name for item in work for name in writes_of(item))]):
        tensor = graph[name]
        if len(tensor.shape) == 4 and name not in sequences:
            batch, channels, height, width = tensor.shape
        else:
            # row by row: what dense layers and the host read
            batch, channels, height, width = math.prod(tensor.shape[:-1]), math.prod(tensor.shape[-1:]), 1, 1
        zero = tensor.quantization.zero_point if tensor.quantization else 0
        top, left, bottom, right = halos.get(name, (0, 0, 0, 0))
        drafts[name] = TensorPlacement(name, 0, batch, channels, height, width, (top, left, bottom, right), zero)
    return drafts


def _border(layer: Layer) -> tuple[int, int, int, int]:
    """Padding that windows really reach: bottom and right may fall short of the declared pads."""
    top, left, _, _ = layer.pads
    reach = [
        (outputs - 1) * stride + (kernel - 1) * dilation + 1 - pad - size
        for outputs, stride, kernel, dilation, pad, size in zip(
            (layer.out_height, layer.out_width), layer.strides, layer.kernel, layer.dilations, (top, left),
            (layer.height, layer.width), strict=True,
        )
    ]  # fmt: skip
    return top, left, max(reach[0], 0), max(reach[1], 0)


def _lifetimes(
    graph: Graph, parts: Partition, work: Sequence[Work], drafts: Mapping[str, TensorPlacement]
) -> dict[str, tuple[int, int]]:
    """First and last step that needs each tensor: inputs from the start, outputs to the end."""
    written: dict[str, int] = {}
    last = dict.fromkeys(drafts, 0)
    for index, item in enumerate(work):
        for name in writes_of(item):
            written.setdefault(name, index)
            last[name] = index
        for name in reads_of(item):
            last[name] = max(last[name], index)
    for name in graph.outputs:
        owner = parts.source.get(name, name)
        if owner in last:
            last[owner] = len(work)
    return {name: (0 if name in graph.inputs else written[name], last[name]) for name in drafts}


def _slots(drafts: Mapping[str, TensorPlacement], times: Mapping[str, tuple[int, int]]) -> dict[str, list[str]]:
    """Tensors by slot: one each, except that bordered tensors of one geometry take turns in as few as possible."""
    slots: dict[str, list[str]] = {}
    free_at: dict[TensorPlacement, list[tuple[int, str]]] = {}
    for name in sorted(drafts, key=lambda item: times[item]):
        place = drafts[name]
        if not any(place.halo):
            slots[name] = [name]
            continue
        entries = free_at.setdefault(replace(place, name=""), [])
        open_slot = min((entry for entry in entries if entry[0] < times[name][0]), default=None)
        if open_slot is None:
            slots[name] = [name]
            entries.append((times[name][1], name))
        else:
            entries.remove(open_slot)
            slots[open_slot[1]].append(name)
            entries.append((times[name][1], open_slot[1]))
    return slots
