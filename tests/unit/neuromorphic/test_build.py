"""Quantization of a spiking graph: units, thresholds, decays, clipping, and what the command line makes of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.network import Csr, Network
from accelerators.neuromorphic.semantics import KEEP_ALL, never, shift_of
from accelerators.neuromorphic.simulate import compile_network, run_network
from dse.cli.main import cli
from dse.core.errors import InfeasibleError
from dse.ir import Graph, Op, Tensor
from dse.ir.spiking import run_spiking


def layer(
    weight: np.ndarray, *, threshold: float | None = 1.0, keep: float = 1.0, gain: float = 1.0, current: float = 0.0,
    offset: float = 0.0, **attributes: Any,
) -> Graph:  # fmt: skip
    """One dense layer of neurons; weight (neurons, inputs)."""
    size = len(weight)
    values = {"keep": keep, "gain": gain, "offset": offset, "threshold": threshold, "reset": threshold,
              "current": current or None}  # fmt: skip
    tensors = {"x": Tensor("x", (1, weight.shape[1])), "w": Tensor("w", weight.shape, data=weight.astype(np.float32)),
               "h": Tensor("h", (1, size)), "y": Tensor("y", (1, size))}  # fmt: skip
    names = []
    for key, value in values.items():
        names.append(f"y.{key}" if value is not None else "")
        if value is not None:
            tensors[f"y.{key}"] = Tensor(f"y.{key}", (size,), data=np.full(size, value, np.float32))
    ops = (Op("d", "gemm", ("x", "w"), ("h",), {"activation": "none"}),
           Op("n", "neuron", ("h", *names), ("y",), {"subtract": True, **attributes}))  # fmt: skip
    return Graph("one", tensors, ops, ("x",), ("y",))


def dense(network: Network) -> np.ndarray:
    """Weights of the only projection, (targets, sources)."""
    weights = network.projections[0].weights
    assert isinstance(weights, Csr)
    result = np.zeros((network.populations[0].size, len(weights.start) - 1), int)
    source = np.repeat(np.arange(len(weights.start) - 1), np.diff(weights.start))
    result[weights.targets, source] = weights.weights
    return result


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(0, 1000), st.sampled_from(["layer", "channel"]))
def test_weights_fill_their_bits_and_threshold_follows(bits: int, seed: int, granularity: str) -> None:
    weight = np.random.default_rng(seed).normal(size=(5, 7))
    network = build_network(
        layer(weight), Precision(bits, clip=False, fraction_bits=3, granularity=granularity)  # type: ignore[arg-type]
    )  # fmt: skip
    population, found = network.populations[0], dense(network)
    top = 2 ** (bits - 1) - 1
    largest = np.abs(found).max(axis=1) if granularity == "channel" else np.array([np.abs(found).max()])
    assert (largest == top).all()
    unit = population.scale / 8
    assert (np.abs(found / unit[:, None] - weight) <= 0.5 / unit[:, None] + 1e-6).all()
    assert (np.abs(population.threshold - unit * 8) <= 1).all()


def test_clipping_lowers_the_squared_error_of_weights_with_outliers() -> None:
    weight = np.random.default_rng(0).normal(size=(20, 50))
    weight[0, 0] = 30.0
    errors = []
    for clip in (False, True):
        network = build_network(layer(weight), Precision(4, clip=clip))
        unit = network.populations[0].scale / 64
        errors.append(float(np.square(dense(network) / unit[:, None] - weight).sum()))
    assert errors[1] < 0.9 * errors[0]


def test_a_zero_weight_is_no_synapse() -> None:
    weight = np.array([[1.0, 0.0, 0.001], [0.0, -1.0, 0.5]])
    assert build_network(layer(weight), Precision(4, clip=False)).synapses == 3


@pytest.mark.parametrize(("inclusive", "spikes"), [(False, 0), (True, 4)])
def test_reaching_the_threshold_fires_only_when_inclusive(inclusive: bool, spikes: int) -> None:
    network = build_network(layer(np.array([[1.0]]), inclusive=inclusive, subtract=False), Precision(fraction_bits=0))
    population = network.populations[0]
    assert int(population.threshold[0]) == 127 - inclusive
    network_out = run_network(compile_network(build_network(layer(np.ones((1, 1)), keep=0.0, inclusive=inclusive),
                                                            Precision())), {"x": np.ones((4, 1), int)})  # fmt: skip
    assert len(network_out.spikes) == spikes


def test_a_shifter_gets_the_nearest_decay_it_has() -> None:
    for keep in (0.0, 0.3, 0.6, 0.9, 0.97, 1.0):
        exact = build_network(layer(np.ones((1, 1)), keep=keep), Precision()).populations[0].keep_voltage[0]
        near = build_network(layer(np.ones((1, 1)), keep=keep), Precision(decay="shift")).populations[0].keep_voltage[0]
        possible = [k for k in range(KEEP_ALL + 1) if k == KEEP_ALL or shift_of(k) is not None]
        assert exact == round(keep * KEEP_ALL)
        assert abs(int(near) - int(exact)) == min(abs(k - int(exact)) for k in possible)


def test_a_high_threshold_leaves_room_above_it() -> None:
    network = build_network(layer(np.full((1, 1), 1e-4)), Precision(8, state_bits=12, fraction_bits=2))
    assert 0 < network.populations[0].threshold[0] <= 2**10
    silent = build_network(layer(np.ones((1, 1)), threshold=None), Precision(state_bits=12, fraction_bits=0))
    assert silent.populations[0].threshold[0] == never(12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_integers_of_many_bits_spike_as_real_numbers(seed: int) -> None:
    """Decays are powers of two and weights are eighths, so that nothing rounds."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-8, 12, (4, 5)) / 8
    weight[0, 0] = 127 / 8
    graph = layer(weight, keep=float(rng.choice([0.5, 0.75, 1.0])), current=float(rng.choice([0.0, 0.5])),
                  threshold=2.0, refractory=int(rng.integers(0, 3)))  # fmt: skip
    drive = (rng.random((12, 5)) < 0.5).astype(int)
    network = build_network(graph, Precision(8, state_bits=32, fraction_bits=12, clip=False))
    activity = run_network(compile_network(network), {"x": drive})
    real = run_spiking(graph, {"x": drive[:, None]})["y"][:, 0]
    np.testing.assert_array_equal(activity.raster(0, 4), real)


def test_the_command_line_prices_a_nir_file_and_names_what_does_not_fit(tmp_path: Path) -> None:
    neuron = nir.LIF(np.full(3, 0.01), np.ones(3), np.zeros(3), np.full(3, 0.01))
    nodes = {"input": nir.Input(np.array([2])), "w": nir.Linear(np.ones((3, 2))), "n": neuron,
             "output": nir.Output(np.array([3]))}  # fmt: skip
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "output")]))
    command = ["simulate", "--workload", f"nir:{tmp_path}/net.nir?dt=1e-3", "--accelerator", "loihi"]
    result = CliRunner().invoke(cli, [*command, "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.output[result.output.index("{") :])
    assert data["energy_pj"]["synapse_dense"] > 0
    assert data["summary"]["area_mm2"] == pytest.approx(60)
    result = CliRunner().invoke(cli, [*command, "hardware.fan_in=1"])
    assert isinstance(result.exception, InfeasibleError)
    assert "fan_in: 2 synapses of neuron 0 against a bound of 1" in str(result.exception)
