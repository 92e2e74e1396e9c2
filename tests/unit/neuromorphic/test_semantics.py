"""The definition of a core's arithmetic, and the tables that carry a network into it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spiking_networks import STATE_BITS, random_drive, random_mapping, random_network

from accelerators.neuromorphic.configure import configure
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.semantics import (
    KEEP_ALL,
    NeuronProfile,
    NeuronState,
    bits_for,
    charge_bounds,
    decay,
    never,
    saturate,
    shift_decay,
    shift_of,
    state_range,
    update,
)
from accelerators.neuromorphic.simulate import compile_network, run_network
from accelerators.neuromorphic.tables import FieldWidths, initial_state, pack_rows, packed, run_step

states = st.integers(-(1 << 23), (1 << 23) - 1)


@given(states, st.integers(0, KEEP_ALL))
def test_decay_is_the_product_truncated_toward_zero(value: int, keep: int) -> None:
    assert decay(value, keep) == int(Fraction(value * keep, 4096))
    assert abs(decay(value, keep)) <= abs(value)


@given(states, st.integers(0, 12))
def test_a_shifter_decays_as_the_multiplier_does(value: int, shift: int) -> None:
    keep = KEEP_ALL - (1 << (12 - shift))
    assert shift_of(keep) == shift
    assert shift_decay(value, shift) == decay(value, keep)


def test_only_powers_of_two_are_shifts() -> None:
    possible = [keep for keep in range(KEEP_ALL + 1) if shift_of(keep) is not None]
    assert possible == sorted(KEEP_ALL - 2**s for s in range(13))


@given(st.integers(-(1 << 30), 1 << 30), st.integers(-(1 << 30), 1 << 30))
def test_bits_hold_what_they_are_asked_for(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    bits = bits_for(low, high)
    least, most = state_range(bits)
    assert least <= low
    assert high <= most
    if bits > 1:
        least, most = state_range(bits - 1)
        assert low < least or high > most


@given(st.lists(st.integers(-128, 127), max_size=8), st.integers(1, 7), st.data())
def test_no_activity_leaves_the_charge_bounds(weights: list[int], payload: int, data: st.DataObject) -> None:
    low, high = charge_bounds(weights, payload)
    active = [data.draw(st.integers(0, payload)) for _ in weights]
    assert low <= sum(w * a for w, a in zip(weights, active, strict=True)) <= high


def test_a_neuron_fires_above_its_threshold_and_not_at_it() -> None:
    profile = NeuronProfile(threshold=10, reset=3)
    assert update(profile, 0, NeuronState(), 10, 16) == (NeuronState(10, 10, 0), False)
    assert update(profile, 0, NeuronState(), 11, 16) == (NeuronState(11, 3, 0), True)
    soft = NeuronProfile(threshold=10, reset=10, subtract=True, refractory=2)
    assert update(soft, 5, NeuronState(voltage=8), 1, 16) == (NeuronState(6, 4, 2), True)
    # held still: potential and bias wait, the current does not
    cuba = NeuronProfile(threshold=10, keep_current=2048)
    assert update(cuba, 5, NeuronState(8, 7, 2), 3, 16) == (NeuronState(7, 7, 1), False)


def test_states_saturate_and_the_silent_never_fire() -> None:
    quiet = NeuronProfile(threshold=never(8))
    state = NeuronState()
    for _ in range(5):
        state, fired = update(quiet, 0, state, 100, 8)
        assert not fired
    assert state.voltage == 127 == saturate(1000, 8)
    state, _ = update(quiet, 0, NeuronState(voltage=-100), -100, 8)
    assert state.voltage == -128
    assert update(quiet, 0, NeuronState(), 1, 8, 4)[0].voltage == 16


@pytest.mark.parametrize("layout", ["sparse", "dense"])
@pytest.mark.parametrize("lanes", [1, 3, 4])
def test_words_hold_the_synapses_they_were_given(layout: str, lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    rows = [[(int(t), int(rng.integers(-8, 8))) for t in rng.permutation(20)[: rng.integers(0, 12)]] for _ in range(9)]
    start, words, base, row, weight = pack_rows(rows, lanes, layout)  # type: ignore[arg-type]
    assert words.sum() == len(weight) == len(row)
    for axon, pairs in enumerate(rows):
        found = {}
        for index in range(words[axon]):
            for lane in range(lanes):
                value = int(weight[start[axon] + index, lane])
                at = base[axon] + index if layout == "dense" else row[start[axon] + index, lane]
                if value:
                    found[int(at) * lanes + lane] = value
        assert found == {target: value for target, value in pairs if value}
        fullest = max((sum(1 for t, w in pairs if w and t % lanes == k) for k in range(lanes)), default=0)
        if layout == "sparse":
            assert words[axon] == fullest


def test_fields_are_packed_from_the_lowest_bit() -> None:
    assert packed([(3, 4), (-1, 3), (1, 1)]) == 0b1_111_0011
    with pytest.raises(ValueError, match="16 does not fit a field of 4 bits"):
        packed([(16, 4)])
    widths = FieldWidths(weight=4, state=8, row=3, synapse_address=6, words=5, profile=2, refractory=2, core=3, axon=5,
                         delay=2)  # fmt: skip
    assert widths.synapse_word([5, 1], [-1, 2], "sparse") == 0b001_0010_101_1111
    assert widths.synapse_word([0, 0], [-1, 2], "dense") == 0b0010_1111
    assert widths.packet_word(-1, 9, 1) == 0b00_111_01001
    assert widths.axon_word(33, 2, 5) == 0b101_00010_100001
    profile = NeuronProfile(5, -1, True, 4096, 1, 3)
    assert widths.profile_word(profile) == 5 | 255 << 8 | 1 << 16 | 4096 << 17 | 1 << 30 | 3 << 43


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_tables_spike_as_the_simulation_does(seed: int, layout: str) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    mapping = random_mapping(rng, network, NeuromorphicHardware(mesh_columns=2, mesh_rows=2))
    drive = random_drive(rng, network, 8)
    chip = configure(network, mapping, lanes=int(rng.integers(1, 5)), layout=layout)  # type: ignore[arg-type]
    activity = run_network(compile_network(network), drive, 12)
    state = initial_state(chip.cores)
    frames = []
    for step in range(8):
        flat = [drive[item.name][step].reshape(-1) for item in network.inputs]
        firsts = [item.first for item in network.inputs]
        frames.append({f + int(i): int(v[i]) for f, v in zip(firsts, flat, strict=True) for i in np.flatnonzero(v)})
    number = {place: neuron for neuron, place in enumerate(chip.local)}
    for step in range(12):
        fired = run_step(chip.cores, state, chip.events(frames, step), STATE_BITS, network.fraction_bits)
        found = sorted(number[core, index] for core, spikes in enumerate(fired) for index in spikes)
        assert found == activity.spikes[activity.spike_start[step] : activity.spike_start[step + 1]].tolist()
    bounds = [core.charge_bits() for core in chip.cores]
    assert max(bounds) <= 24
