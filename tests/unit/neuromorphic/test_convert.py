"""From ReLUs to spikes: the digits networks keep their accuracy; what cannot be converted says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.convert import Conversion, Converted, convert
from accelerators.neuromorphic.executable import NeuromorphicExecutable
from accelerators.neuromorphic.mapping import fitting_mapping
from accelerators.neuromorphic.maxpool import average_instead, relu_instead
from accelerators.neuromorphic.simulate import compile_network
from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor
from dse.ir.reference import run_float
from workloads.onnx import read_model
from workloads.zoo.digits import CNN, MLP, SEEDS, Topology, build_cnn, build_mlp, dataset

CHIP = NeuromorphicAccelerator().hardware_model(mesh_columns=16, mesh_rows=16, payload_bits=8, charge_bits=32)
CALIBRATION = 300


def network(topology: Topology, seed: int, folder: Path) -> Graph:
    path = folder / "net.onnx"
    path.write_bytes((build_mlp if topology is MLP else build_cnn)(seed).SerializeToString())
    return read_model(path)


def on_cores(converted: Converted, bits: int) -> NeuromorphicExecutable:
    payload = CHIP.payload_bits if converted.conversion.coding == "direct" else 0
    hw = CHIP.model_copy(update={"weight_bits": bits, "payload_bits": payload})
    precision = Precision(bits, payload_bits=payload, granularity="channel" if bits < 8 else "layer")
    compiled = compile_network(build_network(converted.graph, precision, converted.input_scale(payload)))
    return NeuromorphicExecutable(compiled, hw, fitting_mapping(compiled.network, compiled, hw), {}, converted)


@pytest.mark.parametrize("topology", [MLP, CNN], ids=lambda t: t.name)
def test_digits_keep_their_accuracy_in_eight_steps(topology: Topology, tmp_path: Path) -> None:
    data = dataset(topology)
    lost: dict[int, list[float]] = {8: [], 4: []}
    for seed in SEEDS:
        graph = network(topology, seed, tmp_path)
        name = graph.inputs[0]
        logits = run_float(graph, {name: data.test_images})[graph.outputs[0]]
        reached = float((logits.argmax(axis=1) == data.test_labels).mean())
        conversion = Conversion(steps=8, coding="direct", max_pool="relu")
        converted = convert(graph, conversion, {name: data.train_images[:CALIBRATION]})
        for bits, found in lost.items():
            result = on_cores(converted, bits).evaluate({name: data.test_images}, data.test_labels)
            found.append(100 * (reached - result.accuracy))
            assert result.spikes > 50
            assert result.synaptic_events > result.spikes
            assert result.energy_uj > 0
    assert np.mean(lost[8]) <= 0.5
    assert np.mean(lost[4]) <= 1.5


def test_rates_alone_keep_the_perceptron(tmp_path: Path) -> None:
    data = dataset(MLP)
    graph = network(MLP, 0, tmp_path)
    name = graph.inputs[0]
    converted = convert(graph, Conversion(steps=16), {name: data.train_images[:CALIBRATION]})
    result = on_cores(converted, 8).evaluate({name: data.test_images}, data.test_labels)
    logits = run_float(graph, {name: data.test_images})[graph.outputs[0]]
    assert result.accuracy >= float((logits.argmax(axis=1) == data.test_labels).mean()) - 0.01


def test_many_steps_approach_the_activations(tmp_path: Path) -> None:
    """Without compensation and with thresholds at the maximum, error falls as one over the steps."""
    data = dataset(MLP)
    graph = network(MLP, 1, tmp_path)
    name = graph.inputs[0]
    sample = data.test_images[:1]
    wanted = run_float(graph, {name: sample})[graph.outputs[0]]
    errors = []
    for steps in (8, 64, 512):
        conversion = Conversion(steps, "percentile", 100.0, "direct", compensate=False)
        executable = on_cores(convert(graph, conversion, {name: data.train_images}), 8)
        found = executable.run({name: sample})[graph.outputs[0]]
        errors.append(float(np.abs(found - wanted).max()))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.05 * np.abs(wanted).max()


@pytest.mark.parametrize(("steps", "value"), [(8, 0.0), (8, 1.0), (8, 0.49), (5, 0.7)])
def test_rate_coding_spikes_as_often_as_the_value_says(tmp_path: Path, steps: int, value: float) -> None:
    graph = network(MLP, 0, tmp_path)
    converted = convert(graph, Conversion(steps=steps), {graph.inputs[0]: dataset(MLP).train_images[:50]})
    spikes = converted.encode(graph.inputs[0], np.full(64, value * converted.amplitude[graph.inputs[0]]), 0)
    assert set(np.unique(spikes)) <= {0, 1}
    assert (spikes.sum(axis=0) == int(np.floor(value * steps + 0.5))).all()
    with pytest.raises(ModelError, match="negative values, which no rate can be"):
        converted.encode(graph.inputs[0], np.full(64, -0.5), 0)


def pooled(kernel: tuple[int, int], strides: tuple[int, int], size: tuple[int, int], out: tuple[int, int]) -> Graph:
    tensors = {"x": Tensor("x", (1, 2, *size)), "y": Tensor("y", (1, 2, *out))}
    attributes = {"kernel": kernel, "strides": strides, "pads": (0, 0, 0, 0)}
    return Graph("pool", tensors, (Op("pool", "max_pool", ("x",), ("y",), attributes),), ("x",), ("y",))


@pytest.mark.parametrize(
    ("kernel", "strides", "size", "out"),
    [((2, 2), (2, 2), (4, 6), (2, 3)), ((3, 3), (2, 2), (7, 7), (3, 3)), ((1, 2), (1, 2), (3, 4), (3, 2))],
)
def test_max_pools_of_relus_are_exact(
    kernel: tuple[int, int], strides: tuple[int, int], size: tuple[int, int], out: tuple[int, int]
) -> None:
    graph = pooled(kernel, strides, size, out)
    x = np.random.default_rng(0).normal(size=(3, 2, *size)).astype(np.float32)
    wanted = run_float(graph, {"x": x})["y"]
    np.testing.assert_allclose(run_float(relu_instead(graph), {"x": x})["y"], wanted, atol=1e-6)
    averaged = run_float(average_instead(graph), {"x": x})["y"]
    assert averaged.shape == wanted.shape
    assert np.abs(averaged - wanted).max() > 0.1


def single(kind: str, **attributes: Any) -> Graph:
    tensors = {"x": Tensor("x", (1, 2, 4, 4)), "h": Tensor("h", (1, 2, 4, 4)), "y": Tensor("y", (1, 2, 4, 4)),
               "w": Tensor("w", (2, 2, 1, 1), data=np.ones((2, 2, 1, 1), np.float32))}  # fmt: skip
    layer = Op("conv", "conv", ("h", "w"), ("y",), {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1),
                                                    "groups": 1, "activation": "none"})  # fmt: skip
    return Graph("g", tensors, (Op("odd", kind, ("x",), ("h",), attributes), layer), ("x",), ("y",))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (single("sigmoid"), r"op 'odd' \(sigmoid\) has no spiking form; convertible: conv"),
        (single("tanh"), r"op 'odd' \(tanh\) has no spiking form"),
        (single("clip", low=-1.0, high=1.0), "op 'odd' clips below -1; a rate starts at 0"),
        (pooled((2, 2), (2, 2), (4, 4), (2, 2)), "op 'pool' is a max pool.*set max_pool to 'relu'"),
    ],
)
def test_what_has_no_spiking_form_is_named(graph: Graph, message: str) -> None:
    x = np.ones((2, 2, 4, 4), np.float32)
    with pytest.raises(ModelError, match=message):
        convert(graph, Conversion(), {"x": x})
