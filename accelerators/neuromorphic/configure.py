"""The tables of every core, from a network and its mapping: what the RTL is configured with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.network import Network
from accelerators.neuromorphic.tables import OUTSIDE, CoreTables, Layout, pack_rows


@dataclass(frozen=True, eq=False)
class Configuration:
    """A whole chip: tables by core, how input elements enter, and where neurons lie.

    `entries`: by input element (numbered through all inputs) its (core, axon, delay) triples; an event given for step
    t is injected in step t + delay. `local`: (core, index in the core) of every neuron.
    """

    cores: tuple[CoreTables, ...]
    entries: tuple[tuple[tuple[int, int, int], ...], ...]
    local: tuple[tuple[int, int], ...]

    def events(self, frames: Sequence[Mapping[int, int]], step: int) -> dict[int, list[tuple[int, int]]]:
        """(axon, payload) by core due in a step, from payloads by input element for each step given."""
        due: dict[int, list[tuple[int, int]]] = {}
        for given, frame in enumerate(frames[: step + 1]):
            for element, payload in frame.items():
                for core, axon, delay in self.entries[element]:
                    if given + delay == step:
                        due.setdefault(core, []).append((axon, payload))
        return due


def configure(
    network: Network, mapping: NeuronMapping, *, lanes: int, layout: Layout = "sparse", cores: int | None = None
) -> Configuration:
    """Build the tables. Every (source, delay, destination core) is an axon of that core, numbered by source.

    Parameters
    ----------
    cores
        Tables to make; those beyond the mapped cores are empty. None: as many as the mapping has.
    """
    cores = cores or int(mapping.core.max(initial=0)) + 1
    inputs = sum(item.size for item in network.inputs)
    local = _local(mapping, cores)
    axons: list[list[list[tuple[int, int]]]] = [[] for _ in range(cores)]
    packets: list[list[tuple[int, int, int]]] = [[] for _ in range(inputs + network.neurons)]
    for element, groups in enumerate(_synapses(network)):
        for delay in sorted(groups):
            by_core: dict[int, dict[int, int]] = {}
            for target, weight in groups[delay]:
                core, index = local[target]
                row = by_core.setdefault(core, {})
                row[index] = row.get(index, 0) + weight
            for core in sorted(by_core):
                packets[element].append((core, len(axons[core]), delay))
                axons[core].append(list(by_core[core].items()))
    outputs = _outputs(network)
    tables = []
    for core in range(cores):
        members = np.flatnonzero(mapping.core == core)
        sent = [packets[inputs + int(n)] + outputs.get(int(n), []) for n in members]
        tables.append(_core(network, members, axons[core], sent, lanes, layout))
    return Configuration(tuple(tables), tuple(map(tuple, packets[:inputs])), tuple(local))


def _local(mapping: NeuronMapping, cores: int) -> list[tuple[int, int]]:
    used = [0] * cores
    local = []
    for core in mapping.core:
        local.append((int(core), used[core]))
        used[core] += 1
    return local


def _outputs(network: Network) -> dict[int, list[tuple[int, int, int]]]:
    """Packets to the outside by neuron: the axon is the neuron's place among all outputs."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    number = 0
    for _, index, _ in network.outputs:
        population = network.populations[index]
        for neuron in range(population.first, population.first + population.size):
            found.setdefault(neuron, []).append((OUTSIDE, number, 1))
            number += 1
    return found


def _synapses(network: Network) -> list[dict[int, list[tuple[int, int]]]]:
    """By source element, inputs first: (target neuron, weight) by delay, kernels unrolled, weights of zero dropped."""
    inputs = sum(item.size for item in network.inputs)
    bounds = [item.first for item in network.inputs] + [inputs + p.first for p in network.populations]
    found: list[dict[int, list[tuple[int, int]]]] = [{} for _ in range(inputs + network.neurons)]
    for projection in network.projections:
        first, base = network.populations[projection.target].first, bounds[projection.source]
        if isinstance(projection.weights, ConvLayer):
            matrix = projection.weights.matrix().tocoo()
            triples = zip(matrix.row, matrix.col, matrix.data, strict=True)
        else:
            start = projection.weights.start
            source = np.repeat(np.arange(len(start) - 1), np.diff(start))
            triples = zip(source, projection.weights.targets, projection.weights.weights, strict=True)
        for element, target, weight in triples:
            if weight:
                row = found[base + int(element)].setdefault(projection.delay, [])
                row.append((first + int(target), int(weight)))
    return found


def _core(
    network: Network,
    members: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]],
    axons: Sequence[Sequence[tuple[int, int]]],
    sent: Sequence[Sequence[tuple[int, int, int]]],
    lanes: int,
    layout: Layout,
) -> CoreTables:
    profiles: dict[object, int] = {}
    rows = []
    for neuron in members:
        population = next(p for p in network.populations if p.first <= neuron < p.first + p.size)
        unique, which = population.profiles
        place = int(neuron) - population.first
        profile = profiles.setdefault(unique[which[place]], len(profiles))
        rows.append((profile, int(population.bias[place]), int(population.initial[place]), population.lag))
    columns = np.array(rows, np.int32).reshape(-1, 4).T
    flat = np.array([packet for packets in sent for packet in packets], np.int32).reshape(-1, 3).T
    start, words, base, synapse_row, synapse_weight = pack_rows(axons, lanes, layout)
    return CoreTables(
        lanes=lanes, layout=layout, profiles=tuple(profiles),  # type: ignore[arg-type]
        profile=columns[0], bias=columns[1], initial_voltage=columns[2], initial_waiting=columns[3],
        axon_start=start, axon_words=words, axon_base=base, synapse_row=synapse_row, synapse_weight=synapse_weight,
        fanout_start=np.cumsum([0, *map(len, sent)]).astype(np.int32),
        fanout_core=flat[0], fanout_axon=flat[1], fanout_delay=flat[2],
    )  # fmt: skip
