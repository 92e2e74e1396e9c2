"""The neuromorphic core's RTL against the integer semantics: spikes, states, packets and cycles, step by step."""

import itertools

import numpy as np
import pytest
from neuro_designs import Bits, random_mesh, random_tables, run_core, run_mesh

from accelerators.neuromorphic.rtl import rtl_violations, step_cycles
from accelerators.neuromorphic.rtl.cycles import deliver_cycles
from accelerators.neuromorphic.tables import OUTSIDE, initial_state, run_step

SEEDS = range(100)
STEPS = 10


def design(seed):
    rng = np.random.default_rng(seed)
    lanes = int(rng.choice([1, 2, 4]))
    neurons, axons = lanes * int(rng.integers(1, 9)), int(rng.integers(1, 12))
    bits = Bits(int(rng.choice([12, 16, 20])), int(rng.choice([4, 8])), int(rng.integers(0, 3)))
    tables = random_tables(
        rng, neurons, axons, lanes, "sparse" if rng.random() < 0.5 else "dense", bits, highest_threshold=300
    )
    steps = [
        [int(axon) for axon in rng.choice(axons, size=int(rng.integers(0, axons + 1)), replace=False)]
        for _ in range(STEPS)
    ]
    return tables, bits, steps


@pytest.mark.parametrize("group", range(4))
def test_a_thousand_event_streams_give_the_semantics_spikes_states_packets_and_the_models_cycles(group):
    streams = spikes = 0
    for seed in itertools.islice(SEEDS, group, None, 4):
        tables, bits, steps = design(seed)
        shape, found = run_core(tables, bits, steps)
        state = initial_state([tables])
        for events, step in zip(steps, found, strict=True):
            fired = run_step([tables], state, {0: [(axon, 1) for axon in events]}, bits.state, bits.fraction)[0]
            packets = [
                int(tables.fanout_axon[p])
                for n in fired
                for p in range(tables.fanout_start[n], tables.fanout_start[n + 1])
            ]
            assert step.fired == fired, seed
            assert step.states == state.states[0], seed
            assert step.packets == packets, seed
            assert step.cycles == step_cycles(shape, tables, events, fired), seed
            # packets that a core of a mesh would get again are not looped back here
            state.pending.clear()
            streams, spikes = streams + 1, spikes + len(fired)
    assert streams == 250
    assert spikes > 200


@pytest.mark.parametrize("seed", range(6))
def test_a_mesh_of_cores_gives_the_semantics_outputs_and_states(seed):
    rng = np.random.default_rng(1000 + seed)
    bits = Bits(16, 8, 0)
    columns, rows = ((2, 2), (2, 2), (3, 1), (1, 3), (2, 2), (3, 2))[seed]
    count = columns * rows
    cores = random_mesh(rng, count, int(rng.choice([1, 2])), bits)
    steps = [[(c, axon) for c in range(count) for axon in range(2) if rng.random() < 0.7] for _ in range(8)]
    found = run_mesh(cores, bits, columns, rows, steps)
    state = initial_state(cores)
    sent = 0
    for events, (outputs, states) in zip(steps, found, strict=True):
        by_core: dict[int, list[tuple[int, int]]] = {}
        for core, axon in events:
            by_core.setdefault(core, []).append((axon, 1))
        fired = run_step(cores, state, by_core, bits.state, bits.fraction)
        expected = sorted(
            int(tables.fanout_axon[p])
            for tables, neurons in zip(cores, fired, strict=True)
            for n in neurons
            for p in range(tables.fanout_start[n], tables.fanout_start[n + 1])
            if tables.fanout_core[p] == OUTSIDE
        )
        assert sorted(outputs) == expected
        assert states == state.states
        sent += len(expected)
    assert sent > 0


def test_a_long_run_of_synapses_takes_one_word_a_cycle():
    """At least a synaptic operation a cycle and lane: the overhead of an event is hidden behind the one before."""
    assert deliver_cycles([100] * 50) - deliver_cycles([100] * 49) == 100
    assert deliver_cycles([1] * 50) - deliver_cycles([1] * 49) == 1


def test_a_delay_of_more_than_a_step_is_refused_with_the_limit():
    tables, bits, _ = design(1)
    assert bits.state in (12, 16, 20)
    assert rtl_violations([tables]) == []
    tables.fanout_delay[:1] = 3
    (violation,) = rtl_violations([tables])
    assert (violation.value, violation.bound) == (3, 1)
