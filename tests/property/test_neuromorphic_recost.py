"""Plans priced from kept parts against the cost model itself: equal to the last picosecond and femtojoule."""

from __future__ import annotations

import numpy as np
import pytest
from spiking_networks import random_chip, random_drive, random_network, random_prices

from accelerators.neuromorphic.blocks import ORDERS, BlockPlan, plan_mapping
from accelerators.neuromorphic.cost import cost_of
from accelerators.neuromorphic.mapping import check_mapping, core_usage, message_table
from accelerators.neuromorphic.recost import Recoster
from accelerators.neuromorphic.simulate import compile_network, run_network

STEPS = 6


def random_plan(rng: np.random.Generator, sizes: list[int], cores: int) -> BlockPlan:
    """A slice or more a layer, any order, any cores."""
    slices = [1] * len(sizes)
    for _ in range(cores - len(sizes)):
        layer = int(rng.integers(len(sizes)))
        if rng.random() < 0.6 and slices[layer] < sizes[layer]:
            slices[layer] += 1
    places = rng.permutation(cores)[: sum(slices)]
    return BlockPlan(tuple(slices), tuple(str(rng.choice(ORDERS)) for _ in sizes), tuple(int(core) for core in places))


@pytest.mark.parametrize("block", range(4))
def test_plans_priced_from_parts_equal_the_cost_model(block: int) -> None:
    sent = plans = 0
    for seed in range(2000 + 15 * block, 2015 + 15 * block):
        rng = np.random.default_rng(seed)
        network, hw = random_network(rng), random_chip(rng).model_copy(update={"messages": "simple"})
        sizes = [p.size for p in network.populations]
        if hw.cores < len(sizes):
            continue
        compiled = compile_network(network)
        activity = run_network(compiled, random_drive(rng, network, STEPS), STEPS)
        recoster = Recoster(compiled, activity, hw)
        recoster.prices = random_prices(rng)
        for _ in range(3):  # later plans reuse parts of earlier ones
            plan = random_plan(rng, sizes, hw.cores)
            mapping = plan_mapping(network, plan)
            messages = message_table(compiled, mapping, hw.cores)
            expected = cost_of(network, activity, mapping, messages, hw, recoster.prices)
            found = recoster.price(plan)
            assert found.counts == expected.counts
            assert found.energy_fj == expected.energy_fj
            assert found.step_ps.tolist() == expected.step_ps.tolist()
            assert (found.gaps == expected.core_gaps[:, plan.where]).all()
            assert (found.receives == expected.core_receives[:, plan.where]).all()
            assert recoster.traffic(plan).sum() == expected.counts["axon_out"]
            sent, plans = sent + expected.counts["axon_out"], plans + 1
    assert plans > 20
    assert sent > 300


@pytest.mark.parametrize("sharing", [False, True])
def test_limits_from_parts_are_those_of_the_mapping(sharing: bool) -> None:
    fitting = broken = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        hw = random_chip(rng).model_copy(
            update={
                "mesh_columns": 3,
                "mesh_rows": 2,
                "weight_sharing": sharing,
                "axons_in": int(rng.integers(8, 40)),
                "axons_out": int(rng.integers(8, 80)),
                "neurons_per_core": int(rng.integers(4, 30)),
                "synapse_kib": float(rng.choice([0.05, 0.3, 1.0])),
                "fan_out": int(rng.integers(1, 6)),
                "profiles": int(rng.integers(4, 20)),
            }
        )
        compiled = compile_network(network)
        activity = run_network(compiled, random_drive(rng, network, 1), 1)
        recoster = Recoster(compiled, activity, hw)
        plan = random_plan(rng, [p.size for p in network.populations], 6)
        mapping = plan_mapping(network, plan)
        messages = message_table(compiled, mapping, hw.cores)
        limits = core_usage(network, mapping, messages, hw, hw.cores)
        used = recoster.usage(plan)
        for name, (amounts, _) in limits.items():
            assert used[name].tolist() == amounts[plan.where].tolist(), name
        assert recoster.fits(plan) == (not check_mapping(network, mapping, messages, hw))
        fitting, broken = fitting + recoster.fits(plan), broken + (not recoster.fits(plan))
    assert fitting > 3
    assert broken > 3
