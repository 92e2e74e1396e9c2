"""Mappings in blocks: every layer in slices on cores of its own, and where on the mesh those cores lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.network import Network, Population

Ints = npt.NDArray[np.int64]
ORDERS = ("channel", "spatial", "round_robin")


@dataclass(frozen=True, eq=False)
class NeuronMapping:
    """`core` int32 (neurons,): where each neuron lies. A core walks its neurons in ascending number."""

    core: npt.NDArray[np.int32]

    def walk(self, cores: int) -> tuple[Ints, npt.NDArray[np.int32]]:
        """Neurons in the order in which cores visit them: bounds (cores + 1,) and neurons."""
        order = np.argsort(self.core, kind="stable").astype(np.int32)
        return np.searchsorted(self.core[order], np.arange(cores + 1)).astype(np.int64), order


@dataclass(frozen=True)
class BlockPlan:
    """A mapping in few numbers.

    Parameters
    ----------
    slices, orders
        By population: how many cores hold it, and how it is cut (`ORDERS`).
    places
        Core of each slice, populations one after the other; all different. Empty: slice i on core i.
    """

    slices: tuple[int, ...]
    orders: tuple[str, ...]
    places: tuple[int, ...] = ()

    @property
    def cores(self) -> int:
        """Cores in use."""
        return sum(self.slices)

    @property
    def first(self) -> tuple[int, ...]:
        """First slice of each population, all slices numbered through."""
        return tuple(int(n) for n in np.cumsum([0, *self.slices[:-1]]))

    @property
    def where(self) -> Ints:
        """Core of each slice, int64 (cores in use,)."""
        return np.array(self.places or range(self.cores), np.int64)


def slice_of(population: Population, slices: int, order: str) -> npt.NDArray[np.int32]:
    """The slice of each neuron of a population, int32 (size,); slices differ by one neuron at most.

    Parameters
    ----------
    order
        "channel" by number (channel-major), "spatial" by place (all channels of a place together), "round_robin" neuron
        i on slice i modulo the slices.
    """
    index = np.arange(population.size)
    if order == "round_robin":
        return (index % slices).astype(np.int32)
    if order == "spatial" and len(population.shape) == 3:
        index = index.reshape(population.shape[0], -1).T.reshape(-1).argsort()
    return (index * slices // population.size).astype(np.int32)


def plan_mapping(network: Network, plan: BlockPlan) -> NeuronMapping:
    """The core of every neuron under a plan."""
    core = np.empty(network.neurons, np.int32)
    where = plan.where
    for p, slices, order, first in zip(network.populations, plan.slices, plan.orders, plan.first, strict=True):
        core[p.first : p.first + p.size] = where[first + slice_of(p, slices, order)]
    return NeuronMapping(core)


def block_mapping(network: Network, cores_per_layer: Sequence[int], order: str = "channel") -> NeuronMapping:
    """Layers on consecutive cores, each in equal slices of one order."""
    return plan_mapping(network, BlockPlan(tuple(cores_per_layer), (order,) * len(cores_per_layer)))
