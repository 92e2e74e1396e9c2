"""What holds a run up: the core that ends most steps, in which phase, and the busiest link."""

from __future__ import annotations

import numpy as np

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.cost import Cost
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.network import Network

#: Columns of `Cost.link_messages`.
DIRECTIONS = ("east", "west", "south", "north")


def binding_core(cost: Cost) -> int:
    """The core that was the last to finish in most steps; of several the lowest."""
    return int(cost.binding_core.argmax())


def busiest_link(cost: Cost, hw: NeuromorphicHardware) -> tuple[tuple[int, int], str, int] | None:
    """Tile (column, row), direction and messages of the link with most of them; None when no link carries any."""
    flat = int(cost.link_messages.argmax())
    tile, direction = divmod(flat, len(DIRECTIONS))
    messages = int(cost.link_messages[tile, direction])
    return (divmod(tile, hw.mesh_rows), DIRECTIONS[direction], messages) if messages else None


def binding_text(cost: Cost, network: Network, mapping: NeuronMapping, hw: NeuromorphicHardware) -> str:
    """Core and link in a line, for tables and reports."""
    core = binding_core(cost)
    steps = len(cost.step_ps)
    held = np.flatnonzero(mapping.core == core)
    layers = [p.name for p in network.populations if ((held >= p.first) & (held < p.first + p.size)).any()]
    sending, receiving = int(cost.core_gaps[:, core].sum()), int(cost.core_receives[:, core].sum())
    phase = "updating and sending" if sending >= receiving else "receiving"
    share = round(100 * int(cost.binding_core[core]) / max(1, steps))
    text = f"core {core} ({', '.join(layers) or 'empty'}) ends {share} % of the steps, most of its time {phase}"
    link = busiest_link(cost, hw)
    if link is None:
        return text
    (column, row), direction, messages = link
    return f"{text}; busiest link: tile ({column}, {row}) {direction}, {messages:,} messages"
