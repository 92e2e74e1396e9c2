"""Random integer networks, mappings, drives and chips, seeded."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.network import Csr, Input, Network, Population, Projection
from accelerators.neuromorphic.prices import EVENTS, Prices
from accelerators.neuromorphic.semantics import KEEP_ALL, never

STATE_BITS = 16


def csr(rng: np.random.Generator, sources: int, targets: int, share: float) -> Csr:
    """Random synapses; a target may be missed by all, a source may have none."""
    picked = rng.random((sources, targets)) < share
    start = np.concatenate([[0], np.cumsum(picked.sum(axis=1))]).astype(np.int64)
    weights = rng.integers(-30, 60, int(picked.sum())).astype(np.int16)
    return Csr(start, np.nonzero(picked)[1].astype(np.int32), weights)


def population(rng: np.random.Generator, name: str, shape: tuple[int, ...], first: int) -> Population:
    """Neurons of random parameters: leaky or not, with a current or not, refractory or not, hard or soft reset."""
    size = int(np.prod(shape))
    silent = rng.random() < 0.1

    def some(low: int, high: int, chance: float = 1.0) -> Any:
        values = rng.integers(low, high, size)
        return values * (rng.random(size) < chance)

    keep = np.full(size, KEEP_ALL) if rng.random() < 0.5 else some(0, KEEP_ALL + 1)
    return Population(
        name=name, shape=shape, first=first,
        threshold=np.full(size, never(STATE_BITS)) if silent else some(1, 400), reset=some(-20, 60),
        bias=some(-5, 20, 0.3), initial=some(-50, 100, 0.5),
        keep_current=np.zeros(size, np.int64) if rng.random() < 0.5 else some(1, KEEP_ALL), keep_voltage=keep,
        subtract=bool(rng.random() < 0.5), refractory=int(rng.integers(0, 3)), spiking=not silent,
        lag=int(rng.integers(0, 3)), scale=np.ones(size),
    )  # fmt: skip


def random_network(rng: np.random.Generator) -> Network:
    """One or two inputs, one to three populations, dense, sparse and convolutional projections, loops and delays."""
    shapes = [(int(rng.integers(1, 3)), int(rng.integers(2, 5)), int(rng.integers(2, 5))) for _ in range(4)]
    inputs, first = [], 0
    for index in range(int(rng.integers(1, 3))):
        inputs.append(Input(f"x{index}", shapes[index], first))
        first += inputs[-1].size
    populations, first = [], 0
    for index in range(int(rng.integers(1, 4))):
        shape = shapes[-1 - index] if rng.random() < 0.6 else (int(rng.integers(1, 14)),)
        populations.append(population(rng, f"p{index}", shape, first))
        first += populations[-1].size
    sources = [*inputs, *populations]
    projections = []
    for source, item in enumerate(sources):
        for target, p in enumerate(populations):
            if rng.random() < 0.6 or (source == 0 and target == 0):
                outside = source < len(inputs)
                delay = int(rng.integers(0 if outside else 1, 4))
                if len(item.shape) == len(p.shape) == 3 and rng.random() < 0.5:
                    projections.append(Projection(source, target, delay, conv(rng, item.shape, p.shape)))
                else:
                    weights = csr(rng, item.size, p.size, float(rng.choice([0.2, 0.9])))
                    projections.append(Projection(source, target, delay, weights))
    last = len(populations) - 1
    return Network("random", tuple(inputs), tuple(populations), tuple(projections), ((f"p{last}", last, 0),), 8,
                   STATE_BITS, int(rng.integers(0, 3)))  # fmt: skip


def conv(rng: np.random.Generator, source: tuple[int, ...], target: tuple[int, ...]) -> ConvLayer:
    """A kernel between two given maps; stride, padding and dilation are whatever they are."""
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    weight = rng.integers(-20, 40, (target[0], source[0], *kernel)).astype(np.int16)
    strides, dilations = (int(rng.integers(1, 3)), 1), (1, int(rng.integers(1, 3)))
    pads = (int(rng.integers(0, 2)),) * 4
    return ConvLayer(weight, source, target, strides, pads, dilations, 1)  # type: ignore[arg-type]


def random_drive(rng: np.random.Generator, network: Network, steps: int) -> dict[str, Any]:
    """Spikes on a third of the inputs."""
    return {item.name: (rng.random((steps, *item.shape)) < 0.35).astype(np.int32) for item in network.inputs}


def random_chip(rng: np.random.Generator) -> NeuromorphicHardware:
    """A small mesh with any kind of timing."""
    return NeuromorphicHardware(
        mesh_columns=int(rng.integers(1, 4)), mesh_rows=int(rng.integers(1, 4)), cores_per_tile=int(rng.integers(1, 3)),
        link_buffer=int(rng.integers(1, 3)), messages=str(rng.choice(["simple", "detailed", "detailed"])),  # type: ignore[arg-type]
        synchronization=str(rng.choice(["barrier", "barrier", "tick", "asynchronous"])),  # type: ignore[arg-type]
        tick_us=float(rng.choice([0.05, 0.5])),
    )  # fmt: skip


def random_prices(rng: np.random.Generator) -> Prices:
    """Any prices, some of them zero."""

    def figures(count: int) -> list[int]:
        return [int(value) * int(rng.random() < 0.9) for value in rng.integers(1, 40_000, count)]

    times = dict(zip(EVENTS, figures(len(EVENTS)), strict=True))
    energies = dict(zip(EVENTS, figures(len(EVENTS)), strict=True))
    a, b, c = figures(3)
    d, e, f = figures(3)
    return Prices(energies, times, (a, b, c), (d, e, f), ((1, 500), (2, 900), (4, 2000)))


def random_mapping(rng: np.random.Generator, network: Network, hw: NeuromorphicHardware) -> NeuronMapping:
    """Any neuron on any core."""
    return NeuronMapping(rng.integers(0, hw.cores, network.neurons).astype(np.int32))
