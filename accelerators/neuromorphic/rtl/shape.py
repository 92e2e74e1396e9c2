"""How large the hardware of a core is, and the contents of its memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.semantics import MIN_DELAY
from accelerators.neuromorphic.tables import OUTSIDE, CoreTables, FieldWidths, Layout
from dse.core.errors import Violation

#: Bits of the count of steps that a neuron of a design still holds still.
REFRACTORY_BITS = 6


@dataclass(frozen=True)
class CoreShape:
    """Sizes of one core's hardware; every core of a mesh may be built to the same one.

    `neurons` is a multiple of `lanes`; `axons`, `synapse_words`, `packets` and `profiles` are depths of memories.
    `charge_bits` holds the exact sum of a step; `widths` the fields of every memory.
    """

    neurons: int
    lanes: int
    layout: Layout
    axons: int
    synapse_words: int
    packets: int
    profiles: int
    charge_bits: int
    fraction_bits: int
    widths: FieldWidths

    @property
    def rows(self) -> int:
        return self.neurons // self.lanes

    @property
    def slot_bits(self) -> int:
        """A lane's part of a synapse word."""
        return self.widths.weight + (self.widths.row if self.layout == "sparse" else 0)


@dataclass(frozen=True)
class CoreImage:
    """Initial contents of a core's memories, a word each entry; fields as `FieldWidths` packs them.

    `neuron`: bias, then profile. `state`: current, voltage, waiting. `fanout`: first packet, number of packets.
    """

    synapses: tuple[int, ...]
    axons: tuple[int, ...]
    profiles: tuple[int, ...]
    neurons: tuple[int, ...]
    states: tuple[int, ...]
    fanouts: tuple[int, ...]
    packets: tuple[int, ...]


def rtl_violations(cores: Sequence[CoreTables]) -> list[Violation]:
    """What of the tables the RTL does not hold: it keeps events for the next step only, and payloads of 1."""
    longest = max((int(delay) for core in cores for delay in core.fanout_delay), default=MIN_DELAY)
    return [Violation("delay of a spike on the RTL", longest, MIN_DELAY, "steps")] if longest > MIN_DELAY else []


def hardware_shape(hw: NeuromorphicHardware, outputs: int) -> CoreShape:
    """The core of a design, whatever it will hold: its memories are as deep as the design's parameters say.

    Parameters
    ----------
    outputs
        Packets to the outside that a network can tell apart: they share the axon field.
    """
    neurons = -(-hw.neurons_per_core // hw.lanes) * hw.lanes
    row = bits_of(neurons // hw.lanes - 1)
    words = max(1, hw.synapse_bits // (hw.lanes * (hw.weight_bits + row)))
    widths = FieldWidths(
        weight=hw.weight_bits,
        state=hw.state_bits,
        row=row,
        synapse_address=bits_of(words),
        words=bits_of(neurons // hw.lanes),
        profile=bits_of(hw.profiles - 1),
        refractory=REFRACTORY_BITS,
        core=bits_of(hw.cores),
        axon=bits_of(max(hw.axons_in, outputs) - 1),
        delay=1,
    )
    return CoreShape(
        neurons, hw.lanes, "sparse", hw.axons_in, words, hw.axons_out, hw.profiles, hw.charge_bits, hw.fraction_bits,
        widths,
    )  # fmt: skip


def capacity_violations(cores: Sequence[CoreTables], shape: CoreShape) -> list[Violation]:
    """Which memories of a core are too small for one of the tables, at the worst."""
    needs = {
        "neurons of an emitted core": (lambda t: t.neurons, shape.neurons),
        "axons of an emitted core": (lambda t: t.axons, shape.axons),
        "synapse words of an emitted core": (lambda t: len(t.synapse_weight), shape.synapse_words),
        "packets of an emitted core": (lambda t: len(t.fanout_core), shape.packets),
        "profiles of an emitted core": (lambda t: len(t.profiles), shape.profiles),
        "steps a neuron holds still": (_longest_wait, (1 << shape.widths.refractory) - 1),
    }  # fmt: skip
    found = []
    for name, (amount, bound) in needs.items():
        worst = max((amount(tables) for tables in cores), default=0)
        if worst > bound:
            hint = "lanes pad a word whose neurons they do not share" if name.startswith("synapse") else ""
            found.append(Violation(name, worst, bound, "", hint))
    return found


def _longest_wait(tables: CoreTables) -> int:
    waits = [profile.refractory for profile in tables.profiles]
    return max([*waits, int(tables.initial_waiting.max(initial=0))])


def shape_of(cores: Sequence[CoreTables], state_bits: int, weight_bits: int, fraction_bits: int) -> CoreShape:
    """The least core that holds each of `cores`."""
    lanes, layout = cores[0].lanes, cores[0].layout
    neurons = max(1, max(-(-core.neurons // lanes) for core in cores)) * lanes
    axons = max(1, max(core.axons for core in cores))
    words = max(1, max(len(core.synapse_weight) for core in cores))
    packets = max(1, max(len(core.fanout_core) for core in cores))
    profiles = max(len(core.profiles) for core in cores)
    outputs = max((int(a) for core in cores for a in core.fanout_axon), default=0)
    longest = max((int(count) for core in cores for count in core.axon_words), default=0)
    refractory = max((profile.refractory for core in cores for profile in core.profiles), default=0)
    waiting = max((int(steps) for core in cores for steps in core.initial_waiting), default=0)
    widths = FieldWidths(
        weight=weight_bits,
        state=state_bits,
        row=bits_of(neurons // lanes - 1),
        synapse_address=bits_of(words),
        words=bits_of(longest),
        profile=bits_of(profiles - 1),
        refractory=bits_of(max(refractory, waiting)),
        core=bits_of(len(cores)),
        axon=bits_of(max(axons - 1, outputs)),
        delay=1,
    )
    return CoreShape(
        neurons, lanes, layout, axons, words, packets, profiles,
        max(core.charge_bits() for core in cores), fraction_bits, widths,
    )  # fmt: skip


def image_of(core: CoreTables, shape: CoreShape) -> CoreImage:
    """Memory contents of one core; neurons beyond the tables' never fire and have no fan-out."""
    widths = shape.widths
    synapses = tuple(
        widths.synapse_word([int(r) for r in rows], [int(w) for w in weights], shape.layout)
        for rows, weights in zip(core.synapse_row, core.synapse_weight, strict=True)
    )
    axons = tuple(
        widths.axon_word(int(start), int(words), int(base))
        for start, words, base in zip(core.axon_start, core.axon_words, core.axon_base, strict=True)
    )
    mask = (1 << widths.state) - 1
    neurons = tuple(
        (int(bias) & mask) | int(profile) << widths.state for bias, profile in zip(core.bias, core.profile, strict=True)
    )
    states = tuple(
        (int(voltage) & mask) << widths.state | int(waiting) << 2 * widths.state
        for voltage, waiting in zip(core.initial_voltage, core.initial_waiting, strict=True)
    )
    address = bits_of(shape.packets)
    starts = [int(start) for start in core.fanout_start]
    fanouts = tuple(first | (last - first) << address for first, last in pairwise(starts))
    outside = (1 << widths.core) - 1
    packets = tuple(
        widths.packet_word(outside if destination == OUTSIDE else int(destination), int(axon), int(delay))
        for destination, axon, delay in zip(core.fanout_core, core.fanout_axon, core.fanout_delay, strict=True)
    )
    profiles = tuple(widths.profile_word(profile) for profile in core.profiles)
    return CoreImage(synapses, axons, profiles, neurons, states, fanouts, packets)


def bits_of(largest: int) -> int:
    """Bits of an unsigned field that holds 0..largest; at least one."""
    return max(1, largest.bit_length())
