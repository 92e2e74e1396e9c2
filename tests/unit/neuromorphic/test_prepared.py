"""Networks are made once; their accuracy is measured on the run's own data; options of NIR files reach the network."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.decisions import DEFAULTS
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.prepared import prepared_network, shown_images
from dse.backend import Decisions, Samples
from dse.core.errors import ModelError, UsageError
from dse.ir import Graph
from dse.ir.reference import run_float
from workloads.nir import NirOptions, read_nir
from workloads.nir.frontend import NirFrontend
from workloads.nir.options import parse_reference
from workloads.onnx import read_model
from workloads.zoo.digits import MLP, build_mlp, dataset

HW = NeuromorphicHardware()


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    path = tmp_path_factory.mktemp("mlp") / "mlp.onnx"
    path.write_bytes(build_mlp(0).SerializeToString())
    return read_model(path)


def samples_of(graph: Graph, labels: bool = True) -> Samples:
    data, name = dataset(MLP), graph.inputs[0]
    test = {name: data.test_images[:60]}
    return Samples(16, 0, {name: data.train_images[:100]}, test, data.test_labels[:60] if labels else None)


def test_accuracy_is_the_share_of_right_classes_and_rises_with_bits(mlp: Graph) -> None:
    samples = samples_of(mlp)
    wide, narrow = (
        prepared_network(mlp, HW.model_copy(update={"weight_bits": bits}), {**DEFAULTS, "time_steps": 8}, samples)
        for bits in (8, 3)
    )
    logits = run_float(mlp, samples.test or {})[mlp.outputs[0]]
    ann = float((logits.argmax(axis=1) == samples.labels).mean())
    assert abs(wide.quality()["accuracy"] - ann) <= 0.05
    assert wide.quality()["sqnr_db"] > narrow.quality()["sqnr_db"] + 3
    # by hand, from the values the executable gives
    executable = NeuromorphicAccelerator(samples).lower(mlp, HW, Decisions({"time_steps": 8}))
    right = 0
    assert samples.labels is not None
    for index, label in enumerate(samples.labels):
        image = {name: values[index : index + 1] for name, values in shown_images(wide).items()}
        right += int(executable.run(image)[mlp.outputs[0]].argmax()) == int(label)
    assert executable.estimate().accuracy["accuracy"] == round(right / 60, 6)


def test_a_network_is_made_once_for_all_chips_and_anew_for_other_widths_or_data(mlp: Graph) -> None:
    first, second = samples_of(mlp), samples_of(mlp)
    chosen = {**DEFAULTS, "time_steps": 4}
    one = prepared_network(mlp, HW, chosen, first)
    assert prepared_network(mlp, HW.model_copy(update={"lanes": 4, "mesh_rows": 2}), chosen, first) is one
    assert prepared_network(mlp, HW.model_copy(update={"weight_bits": 5}), chosen, first) is not one
    assert prepared_network(mlp, HW, chosen, second) is not one
    # a conversion serves all widths
    other = prepared_network(mlp, HW.model_copy(update={"state_bits": 20}), chosen, first)
    assert other.converted is one.converted


def test_without_data_synthetic_samples_stand_in_and_outside_a_run_nothing_is_measured(mlp: Graph) -> None:
    chosen = {**DEFAULTS, "time_steps": 4}
    assert prepared_network(mlp, HW, chosen, None).quality() == {}
    found = prepared_network(mlp, HW, chosen, Samples(8, 3)).quality()
    assert set(found) == {"sqnr_db"}
    assert 0 < found["sqnr_db"] <= 300
    with pytest.raises(UsageError, match="'direct' needs cores that take payloads"):
        prepared_network(mlp, HW, {**chosen, "coding": "direct"}, None)


def save_lif(path: Path) -> Path:
    neuron = nir.LIF(np.full(3, 0.02), np.ones(3), np.zeros(3), np.full(3, 0.3), v_reset=np.zeros(3))
    nodes = {"input": nir.Input(np.array([2])), "w": nir.Linear(np.full((3, 2), 4.0)), "n": neuron,
             "output": nir.Output(np.array([3]))}  # fmt: skip
    nir.write(path / "net.nir", nir.NIRGraph(nodes, [("input", "w"), ("w", "n"), ("n", "output")]))
    return path / "net.nir"


@pytest.mark.parametrize("options", ["dt=1e-3", "dt=4e-3", "dt=4e-3&reset=subtract", "dt=8e-3&integration=exponential"])
def test_options_of_a_file_decide_its_spikes(tmp_path: Path, options: str) -> None:
    """A leaky neuron of a constant drive, stepped by hand under each option."""
    save_lif(tmp_path)
    graph = NirFrontend().load(f"net.nir?{options}", tmp_path, {})
    family = NeuromorphicAccelerator()
    executable = family.lower(graph, HW.model_copy(update={"weight_bits": 16, "state_bits": 32}), Decisions({}))
    drive = np.ones((40, 2), np.int32)
    found = executable.run({graph.inputs[0]: drive})[graph.outputs[0]].reshape(40, 3)
    chosen = parse_reference(f"net.nir?{options}")[1]
    step = chosen.dt / 0.02 if chosen.integration == "euler" else 1 - np.exp(-chosen.dt / 0.02)
    potential, expected = 0.0, []
    for _ in range(40):
        potential += step * (8.0 - potential)
        expected.append(int(potential > 0.3))
        if expected[-1]:
            potential = potential - 0.3 if chosen.reset == "subtract" else 0.0
    assert found[:, 0].tolist() == expected
    assert sum(expected) > 0


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.nir?step=1", "'step' is no option of a NIR file"),
        ("net.nir?reset=soft", "reset='soft' is not possible"),
        ("net.nir?dt=soon", "dt='soon' is not a time step"),
        ("net.nir?dt=-1", "dt='-1' is not a time step"),
        ("net.nir?dt=nan", "dt='nan' is not a time step"),
        ("net.nir?integration=rk4", "integration='rk4' is not possible"),
    ],
)
def test_options_that_are_none_are_named(tmp_path: Path, reference: str, message: str) -> None:
    save_lif(tmp_path)
    with pytest.raises(ModelError, match=message):
        NirFrontend().load(reference, tmp_path, {})


def test_dimensions_and_nested_graphs(tmp_path: Path) -> None:
    """A graph inside a graph is taken apart: the same spikes as its flat form."""
    with pytest.raises(ModelError, match="has no dimension 'n' to bind"):
        NirFrontend().load(str(save_lif(tmp_path)), tmp_path, {"n": 3})
    flat = read_nir(tmp_path / "net.nir", NirOptions(dt=4e-3))
    neuron = nir.LIF(np.full(3, 0.02), np.ones(3), np.zeros(3), np.full(3, 0.3), v_reset=np.zeros(3))
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([2])), "w": nir.Linear(np.full((3, 2), 4.0)), "n": neuron,
         "output": nir.Output(np.array([3]))},
        [("input", "w"), ("w", "n"), ("n", "output")],
    )  # fmt: skip
    nodes = {"input": nir.Input(np.array([2])), "block": inner, "output": nir.Output(np.array([3]))}
    nir.write(tmp_path / "nested.nir", nir.NIRGraph(nodes, [("input", "block"), ("block", "output")]))
    nested = read_nir(tmp_path / "nested.nir", NirOptions(dt=4e-3))
    drive = (np.random.default_rng(0).random((30, 2)) < 0.5).astype(np.int32)
    spikes = []
    for graph in (flat, nested):
        executable = NeuromorphicAccelerator().lower(graph, HW, Decisions({}))
        spikes.append(executable.run({graph.inputs[0]: drive})[graph.outputs[0]])
    assert spikes[0].sum() > 0
    assert (spikes[0].reshape(-1) == spikes[1].reshape(-1)).all()
