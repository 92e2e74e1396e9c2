"""An integer spiking network: populations of neurons, inputs, and the projections between them.

Neurons are numbered through all populations, channel-major within one (channel, row, column). Sources of projections
are the inputs and the populations, in that order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.semantics import NeuronProfile

Ints = npt.NDArray[np.int64]
SynapseClass = Literal["dense", "sparse", "conv"]
CLASSES: tuple[SynapseClass, ...] = ("dense", "sparse", "conv")
#: From this share of possible synapses on, a matrix counts as dense.
_DENSE_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Csr:
    """Synapses by source: those of source i are `targets[start[i]:start[i+1]]` with `weights`, targets ascending.

    start int64 (sources + 1,), targets int32 (within the target population), weights int16.
    """

    start: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one layer. Arrays are int64 (size,), in units of the state; `first` is its first neuron's number.

    `spiking` False: it never fires and its potential is its output. `lag`: steps behind the input, held still at
    first. `scale`: state units of one real unit.
    """

    name: str
    shape: tuple[int, ...]
    first: int
    threshold: Ints
    reset: Ints
    bias: Ints
    initial: Ints
    keep_current: Ints
    keep_voltage: Ints
    subtract: bool
    refractory: int
    spiking: bool
    lag: int
    scale: npt.NDArray[np.float64]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def profiles(self) -> tuple[tuple[NeuronProfile, ...], npt.NDArray[np.int32]]:
        """Distinct parameter sets, and which of them each neuron has."""
        columns = np.stack([self.threshold, self.reset, self.keep_current, self.keep_voltage])
        unique, index = np.unique(columns, axis=1, return_inverse=True)
        profiles = tuple(
            NeuronProfile(int(t), int(r), self.subtract, int(c), int(v), self.refractory) for t, r, c, v in unique.T
        )
        return profiles, index.reshape(-1).astype(np.int32)


@dataclass(frozen=True)
class Input:
    """Events from outside; `scale`: payload of one real unit (1 for spikes)."""

    name: str
    shape: tuple[int, ...]
    first: int
    scale: float = 1.0

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from a source (inputs first, then populations) to a population, all of one delay in steps."""

    source: int
    target: int
    delay: int
    weights: Csr | ConvLayer

    @property
    def synapses(self) -> int:
        """Synapses, a convolution's unrolled."""
        return self.weights.taps if isinstance(self.weights, ConvLayer) else len(self.weights.targets)

    @property
    def synapse_class(self) -> SynapseClass:
        """Which price a synaptic event has: by how its weights lie in memory."""
        if isinstance(self.weights, ConvLayer):
            return "conv"
        possible = (len(self.weights.start) - 1) * (int(self.weights.targets.max(initial=0)) + 1)
        return "dense" if len(self.weights.targets) >= _DENSE_SHARE * possible else "sparse"


@dataclass(frozen=True, eq=False)
class Network:
    """A whole network. `outputs`: (graph tensor, population, steps by which it lags its input).

    `weight_bits`, `state_bits`, `fraction_bits`, `payload_bits`: the widths it was made for (payload 0: binary).
    """

    name: str
    inputs: tuple[Input, ...]
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    outputs: tuple[tuple[str, int, int], ...]
    weight_bits: int
    state_bits: int
    fraction_bits: int
    payload_bits: int = 0

    @property
    def neurons(self) -> int:
        return sum(population.size for population in self.populations)

    @property
    def synapses(self) -> int:
        return sum(projection.synapses for projection in self.projections)

    @property
    def latency_steps(self) -> int:
        """Steps from an input to the output it takes part in: layers hand on in the step after."""
        return max((lag for _, _, lag in self.outputs), default=0)

    @property
    def largest_delay(self) -> int:
        return max((projection.delay for projection in self.projections), default=1)

    def source_name(self, index: int) -> str:
        """Name of an input or population by source number."""
        found = self.inputs[index] if index < len(self.inputs) else self.populations[index - len(self.inputs)]
        return found.name
