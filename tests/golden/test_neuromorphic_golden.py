"""Small networks with their edges, drives and mappings written out, and what they must cost.

The files hold plain data so that another simulator can be given the same networks. `neurons` lists threshold, reset,
subtract, keep_current, keep_voltage, bias, initial potential and steps held still; `edges` source, target, weight,
delay, where sources below `inputs` are inputs. Written by the slow oracle of the tests: `python
tests/golden/test_neuromorphic_golden.py` from the checkout with tests/ on the path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spiking_oracle import Pricer, simulate

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.cost import cost_of
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapping import message_table
from accelerators.neuromorphic.network import Csr, Input, Network, Population, Projection
from accelerators.neuromorphic.prices import prices_of
from accelerators.neuromorphic.simulate import compile_network, run_network

FOLDER = Path(__file__).parent / "neuromorphic"
FILES = sorted(FOLDER.glob("*.json"))


def network_of(data: dict[str, Any]) -> Network:
    """One population a neuron, so that every neuron may differ in all it has."""
    populations = []
    for index, row in enumerate(data["neurons"]):
        threshold, reset, subtract, keep_current, keep_voltage, bias, initial, lag = row
        columns = [np.array([v], np.int64) for v in (threshold, reset, bias, initial, keep_current, keep_voltage)]
        populations.append(Population(f"n{index}", (1,), index, *columns, bool(subtract), 0, True, lag, np.ones(1)))
    inputs = tuple(Input(f"x{index}", (1,), index) for index in range(data["inputs"]))
    projections = []
    for source, target, weight, delay in data["edges"]:
        synapse = Csr(np.array([0, 1], np.int64), np.zeros(1, np.int32), np.array([weight], np.int16))
        projections.append(Projection(source, target, delay, synapse))
    return Network(data["name"], inputs, tuple(populations), tuple(projections), (("n0", 0, 0),), 8, 24, 0)


def drive_of(data: dict[str, Any]) -> dict[str, Any]:
    values = np.zeros((data["inputs"], data["steps"], 1), np.int32)
    for step, element in data["drive"]:
        values[element, step, 0] = 1
    return {f"x{index}": values[index] for index in range(data["inputs"])}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_networks_spike_and_cost_as_written(path: Path) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    network, hw = network_of(data), NeuromorphicHardware(**data["hardware"])
    mapping = NeuronMapping(np.array(data["cores"], np.int32))
    compiled = compile_network(network)
    activity = run_network(compiled, drive_of(data), data["steps"])
    step = np.repeat(np.arange(data["steps"]), np.diff(activity.spike_start))
    assert np.stack([step, activity.spikes], axis=1).tolist() == data["expected"]["spikes"]
    cost = cost_of(network, activity, mapping, message_table(compiled, mapping, hw.cores), hw, prices_of(hw))
    assert {name: count for name, count in cost.counts.items() if count} == data["expected"]["counts"]
    assert cost.total_fj == data["expected"]["energy_fj"]
    assert cost.step_ps.tolist() == data["expected"]["step_ps"]


def test_golden_networks_are_there_and_busy() -> None:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in FILES]
    assert len(found) == 3
    for data in found:
        assert len(data["expected"]["spikes"]) > 20
        assert data["expected"]["counts"]["hop_east_west"] > 0
    assert {data["hardware"]["synchronization"] for data in found} == {"barrier", "tick", "asynchronous"}


def written(seed: int, hardware: dict[str, Any]) -> dict[str, Any]:
    """A random network of few neurons, and what the oracle says about it."""
    rng = np.random.default_rng(seed)
    inputs, neurons, steps = 4, 12, 20
    rows = [
        [int(rng.integers(20, 90)), int(rng.integers(0, 20)), int(rng.random() < 0.5), int(rng.choice([0, 2048])),
         int(rng.choice([4096, 3900])), int(rng.integers(0, 6)), int(rng.integers(0, 20)), int(rng.integers(0, 2))]
        for _ in range(neurons)
    ]  # fmt: skip
    edges = []
    for source in range(inputs + neurons):
        for target in range(neurons):
            if rng.random() < 0.3:
                low = 0 if source < inputs else 1
                edges.append([source, target, int(rng.integers(-25, 60)) or 1, int(rng.integers(low, low + 2))])
    drive = [[step, element] for step in range(steps) for element in range(inputs) if rng.random() < 0.4]
    data = {"name": f"golden{seed}", "inputs": inputs, "steps": steps, "neurons": rows, "edges": edges, "drive": drive,
            "hardware": hardware, "cores": [int(c) for c in rng.integers(0, 6, neurons)]}  # fmt: skip
    network, hw = network_of(data), NeuromorphicHardware(**hardware)
    run = simulate(network, drive_of(data), steps)
    pricer = Pricer(network, data["cores"], hw, prices_of(hw))
    times = pricer.run(run)
    spikes = [[step, neuron] for step, fired in enumerate(run.spikes) for neuron in fired]
    counts = {name: count for name, count in pricer.counts.items() if count}
    return {**data, "expected": {"spikes": spikes, "counts": counts, "energy_fj": sum(pricer.energy.values()),
                                 "step_ps": times}}  # fmt: skip


def main() -> None:
    """Write the files again."""
    mesh = {"mesh_columns": 3, "mesh_rows": 2, "prices": "loihi_calibrated", "link_buffer": 1}
    for seed, synchronization in enumerate(("barrier", "tick", "asynchronous")):
        data = written(seed, {**mesh, "synchronization": synchronization, "tick_us": 2.0})
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        (FOLDER / f"{synchronization}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
