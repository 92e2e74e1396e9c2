"""Layers and machines as keys of caches: equal where tilings and their cycles are."""

from __future__ import annotations

from accelerators.systolic.layer import Layer
from dse.program.tile.program import Machine


class LayerKey:
    """Carries the layer through a cache; compared by shape only."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def __hash__(self) -> int:
        return hash(self.layer.shape_key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerKey) and other.layer.shape_key() == self.layer.shape_key()


class MachineKey:
    """Carries the machine through a cache; compared by what tilings and their cycles depend on."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.key = (
            machine.rows, machine.columns, machine.dataflow, machine.weight_bits, machine.vector_lanes,
            machine.memory_bytes_per_cycle, machine.memory_latency_cycles, tuple(machine.words.items()),
            machine.requantize, machine.descriptors,
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MachineKey) and other.key == self.key
