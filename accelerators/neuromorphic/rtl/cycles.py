"""Cycles of a step, in closed form: equal to the RTL for every step that the network does not hold up."""

from __future__ import annotations

from collections.abc import Sequence

from accelerators.neuromorphic.rtl.burst import WALK_CYCLES
from accelerators.neuromorphic.rtl.neuron import LATENCY
from accelerators.neuromorphic.rtl.shape import CoreShape
from accelerators.neuromorphic.tables import CoreTables

#: Cycles from the last synapse word's address to its charge, and from the last packet's address to its departure.
ACCUMULATE, LAST_PACKET = 4, 5


def step_cycles(shape: CoreShape, tables: CoreTables, events: Sequence[int], fired: Sequence[int]) -> int:
    """Cycles from `go` to `idle` of a core whose packets are always taken.

    Parameters
    ----------
    events
        Axons delivered in this step, in order.
    fired
        Neurons that fired in it, in order.

    Source: equal to the RTL, step by step (tests/rtl/test_neuro_core.py).
    """
    runs = [int(tables.axon_words[axon]) for axon in events]
    packets = [int(tables.fanout_start[n + 1] - tables.fanout_start[n]) for n in fired]
    return 1 + deliver_cycles(runs) + update_cycles(shape.neurons) + emit_cycles(packets)


def deliver_cycles(runs: Sequence[int]) -> int:
    """Synapse words of all events, one a cycle; an event without synapses takes a cycle as well."""
    return _walk_cycles(runs) + (ACCUMULATE if runs else 0)


def update_cycles(neurons: int) -> int:
    """One neuron a cycle through the pipeline."""
    return neurons + LATENCY + 5


def emit_cycles(packets: Sequence[int]) -> int:
    """Packets of all neurons that fired, one a cycle, until the walk is over and the last packet was taken."""
    end = _walk_cycles(packets)
    sent = [index for index, count in enumerate(packets) if count]
    if not sent:
        return end
    return max(end, _walk_cycles(packets[: sent[-1] + 1]) + LAST_PACKET)


def _walk_cycles(runs: Sequence[int]) -> int:
    """A walk over runs of words; three states pass when there is none."""
    return WALK_CYCLES + sum(max(1, length) for length in runs) if runs else 3
