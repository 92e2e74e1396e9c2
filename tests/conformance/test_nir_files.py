"""The NIR files that real tools exported: sizes, and spikes as hardware and exact simulation have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.linear import connections
from accelerators.neuromorphic.network import Network
from accelerators.neuromorphic.simulate import Activity, compile_network, run_network
from dse.backend import Decisions
from dse.ir import Graph
from dse.ir.spiking import run_spiking
from workloads.nir import NirOptions, read_nir

FOLDER = Path(__file__).parents[2].parent / "shared" / "reference" / "neuromorphic" / "nir"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared NIR files are absent")
HARDWARE_SPIKES = [460, 510, 710, 760]
FINE = Precision(weight_bits=16, state_bits=32)


def run(graph: Graph, drive: np.ndarray, precision: Precision) -> tuple[Network, Activity]:
    network = build_network(graph, precision)
    return network, run_network(compile_network(network), {graph.inputs[0]: drive})


@pytest.mark.parametrize(
    "precision",
    [Precision(), Precision(fraction_bits=0), Precision(weight_bits=4), Precision(fraction_bits=10)],
    ids=str,
)
def test_lif_spikes_in_the_steps_of_exact_simulation_and_hardware(precision: Precision) -> None:
    exact = np.loadtxt(FOLDER / "lif_exact.csv", delimiter=",")
    board = np.loadtxt(FOLDER / "lif_spinnaker2.csv", delimiter=",")
    assert np.flatnonzero(exact[:, 2]).tolist() == np.flatnonzero(board[:, 2]).tolist() == HARDWARE_SPIKES
    graph = read_nir(FOLDER / "lif_norse.nir", NirOptions(dt=1e-4))
    drive = exact[:, 0].astype(int).reshape(-1, 1)
    real = run_spiking(graph, {graph.inputs[0]: drive[:, None]})
    assert np.flatnonzero(real[graph.outputs[0]]).tolist() == HARDWARE_SPIKES
    network, activity = run(graph, drive, precision)
    assert np.flatnonzero(activity.raster(0, network.neurons)).tolist() == HARDWARE_SPIKES


@pytest.mark.parametrize(
    ("name", "neurons", "synapses"),
    [
        ("cnn_sinabs.nir", 8970, [199_712, 541_696, 61_952, 128 * 256, 256 * 10]),
        ("braille_noDelay_bias_zero.nir", 38 + 7, [12 * 38, 38 * 38, 38 * 7]),
        ("braille_noDelay_noBias_subtract.nir", 40 + 7, [12 * 40, 40 * 40, 40 * 7]),
        ("lif_rockpool.nir", 1, [1]),
    ],
)
def test_networks_have_the_neurons_and_synapses_their_files_imply(name: str, neurons: int, synapses: list[int]) -> None:
    graph = read_nir(FOLDER / name)
    assert sorted(connections(graph).values()) == sorted(synapses)
    assert build_network(graph, FINE).neurons == neurons


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero.nir", "braille_noDelay_noBias_subtract.nir"])
def test_recurrent_networks_spike_as_in_real_numbers(name: str, reset: str) -> None:
    graph = read_nir(FOLDER / name, NirOptions(reset=reset))
    drive = (np.random.default_rng(0).random((80, 12)) < 0.2).astype(int)
    real = run_spiking(graph, {graph.inputs[0]: drive[:, None]}, keep=True)
    network, activity = run(graph, drive, FINE)
    total = 0
    for population in network.populations:
        mine = activity.raster(population.first, population.size)[population.lag : population.lag + len(drive)]
        np.testing.assert_array_equal(mine, real[population.name].reshape(len(drive), -1))
        total += int(mine.sum())
    assert total > 20


def test_the_convolutional_network_runs_and_stays_near_real_numbers() -> None:
    graph = read_nir(FOLDER / "cnn_sinabs.nir")
    drive = (np.random.default_rng(0).random((20, 2, 34, 34)) < 0.1).astype(int)
    real = run_spiking(graph, {graph.inputs[0]: drive[:, None]}, keep=True)
    network, activity = run(graph, drive, FINE)
    for population in network.populations[:3]:
        mine = activity.raster(population.first, population.size)[population.lag : population.lag + len(drive)]
        wanted = real[population.name].reshape(len(drive), -1)
        assert wanted.sum() > 100
        # weights of 16 bits move a few spikes by a step
        assert np.abs(mine.astype(int) - wanted).sum() <= 0.01 * wanted.sum()


def test_the_convolutional_network_is_priced_on_loihi() -> None:
    family = NeuromorphicAccelerator()
    hw = family.hardware_model(**family.presets()["loihi"])
    executable = family.lower(read_nir(FOLDER / "cnn_sinabs.nir"), hw, Decisions({"time_steps": 5}))
    metrics = executable.estimate()
    assert metrics.useful_macs > 100_000
    assert metrics.energy_pj["synapse_conv"] == pytest.approx(24.0 * executable._cost.counts["synapse_conv"])
    assert len(np.unique(executable.mapping.core)) <= 128
