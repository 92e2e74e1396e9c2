"""Fast simulation and pricing against the slow oracle, to the last picosecond and femtojoule."""

from __future__ import annotations

import numpy as np
import pytest
from spiking_networks import random_chip, random_drive, random_mapping, random_network, random_prices
from spiking_oracle import Pricer, simulate

from accelerators.neuromorphic.cost import cost_of
from accelerators.neuromorphic.mapping import message_table
from accelerators.neuromorphic.simulate import compile_network, run_network

STEPS = 8


def compare(seed: int) -> tuple[int, int]:
    """One random case; returns spikes and messages, so that a test can tell that something happened."""
    rng = np.random.default_rng(seed)
    network, hw, prices = random_network(rng), random_chip(rng), random_prices(rng)
    mapping, drive = random_mapping(rng, network, hw), random_drive(rng, network, STEPS)
    compiled = compile_network(network)
    activity = run_network(compiled, drive, STEPS)
    oracle = simulate(network, drive, STEPS)
    for step in range(STEPS):
        mine = activity.spikes[activity.spike_start[step] : activity.spike_start[step + 1]]
        assert mine.tolist() == oracle.spikes[step]
        bits = np.unpackbits(activity.touched[step], bitorder="little")[: network.neurons]
        assert set(np.flatnonzero(bits)) == oracle.touched[step]
    assert activity.synaptic_events == oracle.events
    cost = cost_of(network, activity, mapping, message_table(compiled, mapping, hw.cores), hw, prices)
    pricer = Pricer(network, mapping.core.tolist(), hw, prices)
    assert cost.step_ps.tolist() == pricer.run(oracle)
    assert {name: count for name, count in cost.counts.items() if count} == {
        name: count for name, count in pricer.counts.items() if count
    }
    assert cost.total_fj == sum(pricer.energy.values())
    for event, energy in cost.energy_fj.items():
        assert energy == pricer.energy[event]
    return len(activity.spikes), cost.counts["axon_out"]


@pytest.mark.parametrize("block", range(10))
def test_counts_energy_and_latency_equal_the_oracle_on_200_random_networks(block: int) -> None:
    found = [compare(1000 + 20 * block + index) for index in range(20)]
    assert sum(spikes for spikes, _ in found) > 200
    assert sum(messages for _, messages in found) > 200
