"""One run priced under many block mappings: what a mapping changes is put together from parts that are kept.

A layer's slicing decides what its own neurons cost each slice and what arrives at each slice; a pair of slicings
decides what is sent. So a plan that changes one layer computes that layer's parts and those between it and its
neighbours, and the rest is looked up. Equal to `cost.cost_of` with `messages="simple"`, to the last picosecond and
femtojoule (tests/property/test_neuromorphic_recost.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.blocks import BlockPlan, slice_of
from accelerators.neuromorphic.cost import energy_of
from accelerators.neuromorphic.cost_kernels import asynchronous_times
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.mapping import incoming, messages_from, slot_bits
from accelerators.neuromorphic.network import CLASSES, Projection
from accelerators.neuromorphic.prices import prices_of, static_mw
from accelerators.neuromorphic.recost_kernels import received, sent
from accelerators.neuromorphic.simulate import Activity, Compiled

Ints = npt.NDArray[np.int64]
#: A population's slicing: number of slices and order.
Slicing = tuple[int, str]


@dataclass(frozen=True, eq=False)
class Link:
    """Projections of one source, target and delay: their synapses onto a core share a message."""

    source: int
    target: int
    delay: int
    projections: tuple[Projection, ...]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """What a link brings to the slices of its target.

    start int64 (elements + 1,), slice int32, synapses int64 (messages, 3) as `mapping.Messages`; receive_ps int64
    (steps, slices); messages: those of the run; synapse_counts: int64 (3,), synapses walked by class.
    """

    start: Ints
    slice: npt.NDArray[np.int32]
    synapses: Ints
    receive_ps: Ints
    messages: int
    synapse_counts: Ints


@dataclass(frozen=True, eq=False)
class Recost:
    """A plan's price.

    Parameters
    ----------
    counts, energy_fj
        As `cost.Cost`.
    step_ps
        int64 (steps,).
    gaps, receives
        int64 (steps, slices): time of each slice in each phase; slices of all populations numbered through.
    static_mw
        Leakage of the whole chip, for `edp`.
    """

    counts: Mapping[str, int]
    energy_fj: Mapping[str, int]
    step_ps: Ints
    gaps: Ints
    receives: Ints
    static_mw: float

    @property
    def total_ps(self) -> int:
        return int(self.step_ps.sum())

    @property
    def total_fj(self) -> int:
        return sum(self.energy_fj.values())

    @property
    def edp(self) -> float:
        """Energy with leakage times time, in J s."""
        seconds = self.total_ps * 1e-12
        return (self.total_fj * 1e-15 + self.static_mw * 1e-3 * seconds) * seconds


class Recoster:
    """Prices block plans of one run on one chip.

    Attributes
    ----------
    links
        The messages a network can send, by source, target and delay.
    """

    def __init__(self, compiled: Compiled, activity: Activity, hw: NeuromorphicHardware) -> None:
        self.compiled, self.activity, self.hw = compiled, activity, hw
        self.network, self.prices = compiled.network, prices_of(hw)
        self.inputs = len(self.network.inputs)
        self.links = _links(self.network.projections)
        self._static_mw = sum(static_mw(hw).values())
        self._slices: dict[tuple[int, Slicing], npt.NDArray[np.int32]] = {}
        self._own: dict[tuple[int, Slicing], Ints] = {}
        self._arrivals: dict[tuple[int, Slicing], Arrivals] = {}
        self._traffic: dict[tuple[int, Slicing, Slicing], tuple[Ints, Ints, npt.NDArray[np.bool_]]] = {}
        self._profiles: dict[tuple[int, Slicing], Ints] = {}
        self._spikes = [self._events(index) for index in range(self.inputs + len(self.network.populations))]
        self._touched = np.unpackbits(activity.touched, axis=1, bitorder="little")
        self._neuron_limits = incoming(self.network, hw.payload_bits)

    # -- prices ----------------------------------------------------------------------------------------------

    def price(self, plan: BlockPlan) -> Recost:
        """Price a plan with simple message timing."""
        unit, counts = self.prices.time, dict.fromkeys(
            ("soma_access", "soma_update", "spike_out", "axon_out", "axon_in", "dendrite", "hop_east_west",
             "hop_north_south", *(f"synapse_{kind}" for kind in CLASSES), "external"), 0)  # fmt: skip
        gaps = np.concatenate([self._neurons(index, plan) for index in range(len(plan.slices))], axis=1)
        receives = np.zeros_like(gaps)
        self._count_neurons(counts)
        for index, link in enumerate(self.links):
            arrivals = self.arrivals(index, self._slicing(plan, link.target))
            first = plan.first[link.target]
            receives[:, first : first + plan.slices[link.target]] += arrivals.receive_ps
            counts["axon_in"] += arrivals.messages
            for kind, number in zip(CLASSES, arrivals.synapse_counts, strict=True):
                counts[f"synapse_{kind}"] += int(number)
                counts["dendrite"] += int(number)
            if link.source < self.inputs:
                counts["external"] += arrivals.messages
                continue
            out, between, _ = self._sent(index, plan)
            start = plan.first[link.source - self.inputs]
            gaps[:, start : start + out.shape[1]] += out * unit["axon_out"]
            counts["axon_out"] += arrivals.messages
            east_west, north_south = self._hops(plan, link, between)
            counts["hop_east_west"] += east_west
            counts["hop_north_south"] += north_south
        step_ps = self._timed(plan, gaps, receives)
        return Recost(counts, energy_of(counts, self.prices), step_ps, gaps, receives, self._static_mw)

    def traffic(self, plan: BlockPlan) -> Ints:
        """Messages of the run from slice to slice, int64 (slices, slices)."""
        whole = np.zeros((plan.cores, plan.cores), np.int64)
        for index, link in enumerate(self.links):
            if link.source >= self.inputs:
                between = self._sent(index, plan)[1]
                row, column = plan.first[link.source - self.inputs], plan.first[link.target]
                whole[row : row + between.shape[0], column : column + between.shape[1]] += between
        return whole

    def fits(self, plan: BlockPlan) -> bool:
        """Whether every limit of `mapping.check_mapping` holds."""
        count, charge = self._neuron_limits
        hw = self.hw
        if plan.cores > hw.cores or self.network.largest_delay > hw.max_delay or count.max(initial=0) > hw.fan_in:
            return False
        if int(charge.max(initial=0)).bit_length() + 1 > hw.charge_bits:
            return False
        used = self.usage(plan)
        bounds = {"neurons_per_core": hw.neurons_per_core, "synapse_bits": hw.synapse_bits, "axons_in": hw.axons_in,
                  "axons_out": hw.axons_out, "profiles": hw.profiles, "fan_out": hw.fan_out}  # fmt: skip
        return all(int(used[name].max(initial=0)) <= bound for name, bound in bounds.items())

    def usage(self, plan: BlockPlan) -> dict[str, Ints]:
        """What each slice holds of what is limited, int64 (slices,) by limit; `fan_out` is the most of a neuron."""
        names = ("neurons_per_core", "synapse_bits", "axons_in", "axons_out", "profiles", "fan_out")
        used = {name: np.zeros(plan.cores, np.int64) for name in names}
        packets = [np.zeros(p.size, np.int64) for p in self.network.populations]
        for index in range(len(plan.slices)):
            part = slice(plan.first[index], plan.first[index] + plan.slices[index])
            which = self.slices(index, self._slicing(plan, index))
            used["neurons_per_core"][part] = np.bincount(which, minlength=plan.slices[index])
            used["profiles"][part] = self._profiles_of(index, self._slicing(plan, index))
        for index, link in enumerate(self.links):
            arrivals = self.arrivals(index, self._slicing(plan, link.target))
            first, slices = plan.first[link.target], plan.slices[link.target]
            part = slice(first, first + slices)
            used["axons_in"][part] += np.bincount(arrivals.slice, minlength=slices)
            used["synapse_bits"][part] += self._synapse_bits(link, arrivals, slices)
            if link.source >= self.inputs:
                packets[link.source - self.inputs] += np.diff(arrivals.start)
        for index, sent_by in enumerate(packets):
            which = self.slices(index, self._slicing(plan, index))
            part = slice(plan.first[index], plan.first[index] + plan.slices[index])
            used["axons_out"][part] = np.bincount(which, sent_by, plan.slices[index]).astype(np.int64)
            used["fan_out"][part] = sent_by.max(initial=0)
        return used

    # -- parts that are kept ---------------------------------------------------------------------------------

    def slices(self, population: int, slicing: Slicing) -> npt.NDArray[np.int32]:
        """The slice of each neuron of a population."""
        key = (population, slicing)
        if key not in self._slices:
            self._slices[key] = slice_of(self.network.populations[population], *slicing)
        return self._slices[key]

    def arrivals(self, link: int, slicing: Slicing) -> Arrivals:
        """What a link brings to a target in slices."""
        key = (link, slicing)
        if key not in self._arrivals:
            self._arrivals[key] = self._arrive(self.links[link], slicing)
        return self._arrivals[key]

    def _arrive(self, link: Link, slicing: Slicing) -> Arrivals:
        slices = slicing[0]
        p = self.network.populations[link.target]
        core = np.zeros(self.network.neurons, np.int32)
        core[p.first : p.first + p.size] = self.slices(link.target, slicing)
        start, where, synapses = messages_from(self.compiled, link.source, link.projections, core, slices)
        steps, elements = self._spikes[link.source]
        unit = self.prices.time
        price = np.array(self.prices.synapse_time, np.int64) + unit["dendrite"]
        receive, total, counts = received(
            steps, elements, start, where, synapses, self.activity.steps, slices, unit["axon_in"], price
        )
        return Arrivals(start, where, synapses, receive, int(total), counts)

    def _neurons(self, index: int, plan: BlockPlan) -> Ints:
        """Time of each slice for its neurons without their messages, int64 (steps, slices)."""
        slicing = self._slicing(plan, index)
        key = (index, slicing)
        if key not in self._own:
            p, unit = self.network.populations[index], self.prices.time
            which, slices = self.slices(index, slicing), slicing[0]
            found = np.tile(np.bincount(which, minlength=slices) * unit["soma_access"], (self.activity.steps, 1))
            touched = self._touched[:, p.first : p.first + p.size]
            step, neuron = np.nonzero(touched)
            flat = np.bincount(step * slices + which[neuron], minlength=found.size)
            found += flat.reshape(found.shape) * unit["soma_update"]
            step, neuron = self._spikes[self.inputs + index]
            flat = np.bincount(step * slices + which[neuron], minlength=found.size)
            self._own[key] = found + flat.reshape(found.shape) * unit["spike_out"]
        return self._own[key]

    def _sent(self, index: int, plan: BlockPlan) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """Messages of a link by step and source slice, from slice to slice, and whether there can be any."""
        link = self.links[index]
        ours, theirs = self._slicing(plan, link.source - self.inputs), self._slicing(plan, link.target)
        key = (index, ours, theirs)
        if key not in self._traffic:
            arrivals = self.arrivals(index, theirs)
            which = self.slices(link.source - self.inputs, ours)
            steps, elements = self._spikes[link.source]
            out, between = sent(
                steps, elements, which, arrivals.start, arrivals.slice, self.activity.steps, ours[0], theirs[0]
            )
            possible = np.zeros((ours[0], theirs[0]), np.bool_)
            possible[np.repeat(which, np.diff(arrivals.start)), arrivals.slice] = True
            self._traffic[key] = (out, between, possible)
        return self._traffic[key]

    def _profiles_of(self, index: int, slicing: Slicing) -> Ints:
        key = (index, slicing)
        if key not in self._profiles:
            pairs = np.unique(
                np.stack([self.slices(index, slicing), self.network.populations[index].profiles[1]]), axis=1
            )
            self._profiles[key] = np.bincount(pairs[0], minlength=slicing[0]).astype(np.int64)
        return self._profiles[key]

    # -- small parts -----------------------------------------------------------------------------------------

    def _slicing(self, plan: BlockPlan, population: int) -> Slicing:
        return plan.slices[population], plan.orders[population]

    def _events(self, source: int) -> tuple[Ints, Ints]:
        """Steps and elements of a source's events, elements from 0 within the source."""
        activity = self.activity
        if source < self.inputs:
            starts, events = activity.input_start, activity.input_events
            first, size = self.network.inputs[source].first, self.network.inputs[source].size
        else:
            p = self.network.populations[source - self.inputs]
            starts, events, first, size = activity.spike_start, activity.spikes, p.first, p.size
        step = np.repeat(np.arange(activity.steps), np.diff(starts))
        mine = (events >= first) & (events < first + size)
        return step[mine], events[mine].astype(np.int64) - first

    def _count_neurons(self, counts: dict[str, int]) -> None:
        counts["soma_access"] = self.network.neurons * self.activity.steps
        counts["soma_update"] = int(self._touched[:, : self.network.neurons].sum())
        counts["spike_out"] = len(self.activity.spikes)

    def _synapse_bits(self, link: Link, arrivals: Arrivals, slices: int) -> Ints:
        classes = arrivals.synapses.sum(axis=1)
        shared = 0
        if self.hw.weight_sharing:
            classes = arrivals.synapses[:, :2].sum(axis=1)
            shared = sum(p.weights.weight.size for p in link.projections if isinstance(p.weights, ConvLayer))
        held = np.bincount(arrivals.slice, classes, slices).astype(np.int64)
        return held * slot_bits(self.hw) + shared * self.hw.weight_bits

    def _hops(self, plan: BlockPlan, link: Link, between: Ints) -> tuple[int, int]:
        """Hops of a link's messages, east-west and north-south."""
        row, column = plan.first[link.source - self.inputs], plan.first[link.target]
        places = self._places(plan)
        away = np.abs(places[row : row + between.shape[0], None] - places[None, column : column + between.shape[1]])
        return int((away[..., 0] * between).sum()), int((away[..., 1] * between).sum())

    def _places(self, plan: BlockPlan) -> Ints:
        return np.array([self.hw.place(int(core)) for core in plan.where], np.int64).reshape(-1, 2)

    def _timed(self, plan: BlockPlan, gaps: Ints, receives: Ints) -> Ints:
        longest = np.maximum(gaps.max(axis=1), receives.max(axis=1))
        if self.hw.synchronization == "barrier":
            tiles = len({tuple(place) for place in self._places(plan).tolist()})
            return np.asarray(longest + self.prices.sync_ps(tiles))
        if self.hw.synchronization == "tick":
            return np.asarray(np.maximum(longest, round(self.hw.tick_us * 1e6)))
        return np.asarray(asynchronous_times(gaps, receives, self._feeds(plan)))

    def _feeds(self, plan: BlockPlan) -> Ints:
        """As `cost._feeds`, for slices instead of cores."""
        feeds = np.full((plan.cores, plan.cores), -1, np.int64)
        away = np.abs(self._places(plan)[:, None] - self._places(plan)[None])
        travel = away[..., 0] * self.prices.time["hop_east_west"] + away[..., 1] * self.prices.time["hop_north_south"]
        for index, link in enumerate(self.links):
            if link.source >= self.inputs:
                possible = self._sent(index, plan)[2]
                row, column = plan.first[link.source - self.inputs], plan.first[link.target]
                part = (slice(row, row + possible.shape[0]), slice(column, column + possible.shape[1]))
                feeds[part] = np.where(possible, travel[part], feeds[part])
        return feeds


def _links(projections: tuple[Projection, ...]) -> tuple[Link, ...]:
    grouped: dict[tuple[int, int, int], list[Projection]] = {}
    for projection in projections:
        grouped.setdefault((projection.source, projection.target, projection.delay), []).append(projection)
    return tuple(Link(*key, tuple(found)) for key, found in sorted(grouped.items()))
