"""The mesh's RTL against the cycle model, queue by queue, and against the integer simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spiking_networks import random_drive, random_network

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.emitted import mesh_program, mesh_timing
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.network import Network
from accelerators.neuromorphic.rtl.run import run_mesh
from accelerators.neuromorphic.simulate import compile_network, run_network

STEPS = 6


def network_of(rng: np.random.Generator) -> Network:
    """Any network whose spikes arrive in the next step."""
    network = random_network(rng)
    inputs = len(network.inputs)
    links = tuple(p if p.source < inputs else replace(p, delay=1) for p in network.projections)
    return replace(network, projections=links)


@pytest.mark.parametrize("seed", range(8))
def test_mesh_cycles_and_spikes_equal_the_rtl(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, rows = ((2, 2), (3, 1), (1, 3), (2, 2), (3, 2), (2, 2), (1, 1), (2, 3))[seed]
    network = network_of(rng)
    hw = NeuromorphicHardware(
        mesh_columns=columns, mesh_rows=rows, neurons_per_core=64, synapse_kib=4, axons_in=256, axons_out=512,
        lanes=int(rng.choice([1, 2])), link_buffer=int(rng.choice([2, 3, 4])), state_bits=16, charge_bits=20,
        profiles=64, fraction_bits=network.fraction_bits,
    )  # fmt: skip
    mapping = NeuronMapping(rng.integers(0, hw.cores, network.neurons).astype(np.int32))
    program = mesh_program(network, mapping, hw)
    activity = run_network(compile_network(network), random_drive(rng, network, STEPS), STEPS)
    timing = mesh_timing(program, activity)
    found = run_mesh(program.configuration.cores, program.shape, columns, rows, hw.link_buffer, program.given(activity))
    for step, done in enumerate(found):
        fired = sorted(
            neuron for neuron, (core, index) in enumerate(program.configuration.local) if index in done.fired[core]
        )
        assert fired == activity.spikes[activity.spike_start[step] : activity.spike_start[step + 1]].tolist()
        assert done.given_cycles == timing.given_cycles[step]
        assert list(done.idle_after) == timing.idle_after[step].tolist()
        assert done.run_cycles == timing.run_cycles[step]
    free = ~timing.held_up
    assert (timing.idle_after == timing.closed_form)[free].all()
