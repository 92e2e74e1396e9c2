"""The tables one core is configured with. The simulator runs on them and the RTL's memories hold them.

```
 event (axon, payload)                                  neuron n fires
   -> axon_start[axon], axon_words[axon], axon_base[axon] -> fanout rows fanout_start[n] .. fanout_start[n + 1]
   -> synapse words start .. start + words                 -> packets (core, axon, delay), in order
   -> lane k of a word: neuron row * lanes + k, weight
```

Neuron n lives in lane n % lanes, row n // lanes: one synapse word updates one neuron in each lane, so lanes never
collide. Layouts of the synapse memory:

* ``sparse``: a slot holds (row, weight). The synapses of an axon fill as few words as the fullest lane needs, in
  ascending row order within a lane; an empty slot has weight 0 and row 0.
* ``dense``: a slot holds a weight only; word i of an axon belongs to row ``axon_base + i``. An axon's words span
  the rows from its lowest to its highest target.

An axon without synapses has 0 words. Every firing neuron sends one packet to each core that holds targets of it with a
given delay: an axon belongs to one (source, delay), and its synapses to one destination core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.semantics import (
    MIN_DELAY,
    NeuronProfile,
    NeuronState,
    bits_for,
    charge_bounds,
    deliver,
    step,
)

IntArray = npt.NDArray[np.int32]
Layout = Literal["sparse", "dense"]
#: Core number of the outside world: outputs go there, their axon is the output's index.
OUTSIDE = -1


@dataclass(frozen=True, eq=False)
class CoreTables:
    """Everything one core knows. Arrays are int32.

    Parameters
    ----------
    lanes, layout
        Neurons a synapse word reaches at once, and how synapses lie (module docstring).
    profiles
        Parameter sets; `profile` picks one for each neuron.
    profile, bias, initial_voltage, initial_waiting
        Shape (neurons,).
    axon_start, axon_words, axon_base
        Shape (axons,): first synapse word, number of words, first row (dense; 0 when sparse).
    synapse_row, synapse_weight
        Shape (words, lanes); `synapse_row` is all zero when dense.
    fanout_start
        Shape (neurons + 1,).
    fanout_core, fanout_axon, fanout_delay
        Shape (packets,): destination core (`OUTSIDE` for an output), axon there, steps until it is due (>= 1).
    """

    lanes: int
    layout: Layout
    profiles: tuple[NeuronProfile, ...]
    profile: IntArray
    bias: IntArray
    initial_voltage: IntArray
    initial_waiting: IntArray
    axon_start: IntArray
    axon_words: IntArray
    axon_base: IntArray
    synapse_row: IntArray
    synapse_weight: IntArray
    fanout_start: IntArray
    fanout_core: IntArray
    fanout_axon: IntArray
    fanout_delay: IntArray

    @property
    def neurons(self) -> int:
        return int(self.profile.shape[0])

    @property
    def axons(self) -> int:
        return int(self.axon_start.shape[0])

    def synapses(self, axon: int) -> list[tuple[int, int]]:
        """(target, weight) of one axon in the order a core reads them, weights of zero left out."""
        first = int(self.axon_start[axon])
        found = []
        for index in range(int(self.axon_words[axon])):
            for lane in range(self.lanes):
                weight = int(self.synapse_weight[first + index, lane])
                if weight:
                    dense_row = int(self.axon_base[axon]) + index
                    row = dense_row if self.layout == "dense" else int(self.synapse_row[first + index, lane])
                    found.append((row * self.lanes + lane, weight))
        return found

    def charge_bits(self, largest_payload: int = 1) -> int:
        """Bits an exact charge needs on this core, whatever the activity."""
        incoming: list[list[int]] = [[] for _ in range(self.neurons)]
        for axon in range(self.axons):
            for target, weight in self.synapses(axon):
                incoming[target].append(weight)
        bounds = [charge_bounds(weights, largest_payload) for weights in incoming]
        return max((bits_for(low, high) for low, high in bounds), default=1)


@dataclass(frozen=True, eq=False)
class FieldWidths:
    """Bits of every field of a core's memories, and the words that hold them.

    Fields are packed from bit 0 upwards in the order in which each `*_word` method lists them; signed fields are in
    two's complement.
    """

    weight: int
    state: int
    row: int
    synapse_address: int
    words: int
    profile: int
    refractory: int
    core: int
    axon: int
    delay: int

    def synapse_word(self, rows: Sequence[int], weights: Sequence[int], layout: Layout) -> int:
        """Lane 0 lowest; each lane: weight, then row when sparse."""
        slots = []
        for row, weight in zip(rows, weights, strict=True):
            slots.append((weight, self.weight))
            if layout == "sparse":
                slots.append((row, self.row))
        return packed(slots)

    def axon_word(self, start: int, words: int, base: int) -> int:
        """start, words, base row."""
        return packed([(start, self.synapse_address), (words, self.words), (base, self.row)])

    def profile_word(self, profile: NeuronProfile) -> int:
        """threshold, reset, subtract, keep_current (13 bits), keep_voltage (13 bits), refractory."""
        return packed(
            [
                (profile.threshold, self.state),
                (profile.reset, self.state),
                (int(profile.subtract), 1),
                (profile.keep_current, 13),
                (profile.keep_voltage, 13),
                (profile.refractory, self.refractory),
            ]
        )

    def packet_word(self, core: int, axon: int, delay: int) -> int:
        """axon, core (`OUTSIDE` is all ones), delay - 1."""
        return packed([(axon, self.axon), (core, self.core), (delay - MIN_DELAY, self.delay)])


def packed(fields: Sequence[tuple[int, int]]) -> int:
    """(value, bits) pairs in one integer, the first lowest.

    Raises
    ------
    ValueError: a value does not fit its bits, signed or unsigned.
    """
    word = offset = 0
    for value, bits in fields:
        if not -(1 << bits) // 2 <= value < (1 << bits):
            raise ValueError(f"{value} does not fit a field of {bits} bits")
        word |= (value & ((1 << bits) - 1)) << offset
        offset += bits
    return word


def pack_rows(
    rows: Sequence[Sequence[tuple[int, int]]], lanes: int, layout: Layout
) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
    """Lay the synapses of every axon out in words.

    Parameters
    ----------
    rows
        For each axon its (target, weight) pairs; a target at most once, weights of zero are dropped.

    Returns
    -------
    axon_start, axon_words, axon_base (axons,) and synapse_row, synapse_weight (words, lanes).
    """
    start, words, base = [], [], []
    row_words: list[list[int]] = []
    weight_words: list[list[int]] = []
    for pairs in rows:
        by_lane: list[list[tuple[int, int]]] = [[] for _ in range(lanes)]
        for target, weight in sorted(pairs):
            if weight:
                by_lane[target % lanes].append((target // lanes, weight))
        used = [row for lane in by_lane for row, _ in lane]
        first = min(used, default=0) if layout == "dense" else 0
        count = (max(used) - first + 1 if used else 0) if layout == "dense" else max(map(len, by_lane))
        start.append(len(row_words))
        words.append(count)
        base.append(first)
        new_rows = [[0] * lanes for _ in range(count)]
        new_weights = [[0] * lanes for _ in range(count)]
        for lane, slots in enumerate(by_lane):
            for index, (row, weight) in enumerate(slots):
                word = row - first if layout == "dense" else index
                new_rows[word][lane] = 0 if layout == "dense" else row
                new_weights[word][lane] = weight
        row_words += new_rows
        weight_words += new_weights
    return (
        np.array(start, np.int32),
        np.array(words, np.int32),
        np.array(base, np.int32),
        np.array(row_words, np.int32).reshape(-1, lanes),
        np.array(weight_words, np.int32).reshape(-1, lanes),
    )


@dataclass
class MeshState:
    """Running state of all cores: for the plain reference `run_step`."""

    states: list[list[NeuronState]]
    pending: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    now: int = 0


def initial_state(cores: Sequence[CoreTables]) -> MeshState:
    """All cores before step 0."""
    return MeshState(
        [
            [NeuronState(0, int(v), int(w)) for v, w in zip(core.initial_voltage, core.initial_waiting, strict=True)]
            for core in cores
        ]
    )


def run_step(
    cores: Sequence[CoreTables],
    state: MeshState,
    events: Mapping[int, Sequence[tuple[int, int]]],
    state_bits: int,
    fraction_bits: int = 0,
) -> list[list[int]]:
    """Advance all cores by one step, straight from the tables: slow, and the oracle of simulator and RTL.

    Parameters
    ----------
    events
        (axon, payload) from outside by core, due in this step.

    Returns
    -------
    The neurons of each core that fired, in order.
    """
    charges = [[0] * core.neurons for core in cores]
    due = state.pending.pop(state.now, [])
    due += [(core, axon, payload) for core, items in events.items() for axon, payload in items]
    for target, axon, payload in due:
        deliver(charges[target], cores[target].synapses(axon), payload)
    fired = []
    for index, tables in enumerate(cores):
        profiles = [tables.profiles[int(p)] for p in tables.profile]
        biases = [int(b) for b in tables.bias]
        spikes = step(profiles, biases, state.states[index], charges[index], state_bits, fraction_bits)
        fired.append(spikes)
        for neuron in spikes:
            for packet in range(int(tables.fanout_start[neuron]), int(tables.fanout_start[neuron + 1])):
                destination = int(tables.fanout_core[packet])
                if destination != OUTSIDE:
                    when = state.now + int(tables.fanout_delay[packet])
                    state.pending.setdefault(when, []).append((destination, int(tables.fanout_axon[packet]), 1))
    state.now += 1
    return fired
