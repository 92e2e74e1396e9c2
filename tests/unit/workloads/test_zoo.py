"""The networks of the zoo have the published topologies, seeded weights and a front end that names what is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from dse.compiler import prepare
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.reference import run_float
from workloads.zoo import ZooFrontend, packaged, resnet8, resnet50
from workloads.zoo.builder import ModelBuilder
from workloads.zoo.frontend import BUILDERS
from workloads.zoo.table import networks

#: Built, read and run in full by the tests; what is larger is built without values elsewhere.
SMALL = [name for name, row in networks().items() if row.parameters < 2_000_000]


def load(name: str) -> Graph:
    return ZooFrontend().load(name, Path("."), {})


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_resnet8_has_exactly_the_multiply_accumulates_of_mlperf_tiny() -> None:
    graph = load("resnet8")
    assert graph.macs == prepare(graph).macs == resnet8.MACS == 12_501_632


def test_resnet8_is_the_published_topology() -> None:
    graph = load("resnet8")
    assert Counter(op.kind for op in graph.ops) == {
        "conv": 9, "batch_norm": 7, "relu": 7, "add": 3, "global_average_pool": 1, "flatten": 1, "gemm": 1,
        "softmax": 1,
    }  # fmt: skip
    shapes = [graph[op.outputs[0]].shape[1:] for op in graph.ops if op.kind == "add"]
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert graph["input"].shape == (1, 3, 32, 32)
    shortcuts = [op for op in graph.ops if op.kind == "conv" and graph[op.inputs[1]].shape[2:] == (1, 1)]
    assert [op.attributes["strides"] for op in shortcuts] == [(2, 2), (2, 2)]
    for op in shortcuts:
        assert [reader.kind for reader in graph.consumers(op.outputs[0])] == ["add"]
    # TensorFlow's SAME padding of a stride-2 kernel of 3 on an even size: only behind
    strided = [op for op in graph.ops if op.kind == "conv" and op.attributes["strides"] == (2, 2)]
    assert {op.attributes["pads"] for op in strided} == {(0, 0, 1, 1), (0, 0, 0, 0)}


def test_resnet8_is_written_with_its_batch_norms() -> None:
    assert operators(resnet8.build(0))["BatchNormalization"] == 7


#: Layers as their papers count them.
LAYERS = {
    "ds_cnn": {"Conv": 9, "Gemm": 1},
    "mobilenet_v1_025_96": {"Conv": 27, "Gemm": 1},
    "autoencoder": {"Gemm": 10},
    "resnet18": {"Conv": 20, "Gemm": 1, "Add": 8},
    "mobilenet_v1": {"Conv": 27, "Gemm": 1},
    "mobilenet_v2": {"Conv": 52, "Gemm": 1, "Add": 10},
    # 16 blocks: 49 convs and 32 in squeeze-and-excite; 33 activations, and 2 in every squeeze-and-excite
    "efficientnet_b0": {"Conv": 81, "Gemm": 1, "Add": 9, "Sigmoid": 33 + 32},
    "squeezenet1_0": {"Conv": 26, "Concat": 8, "MaxPool": 3},
    "squeezenet1_1": {"Conv": 26, "Concat": 8, "MaxPool": 3},
    "tiny_yolo_v2": {"Conv": 9, "MaxPool": 6, "LeakyRelu": 8},
    "tiny_yolo_v3": {"Conv": 13, "MaxPool": 6, "LeakyRelu": 11, "Resize": 1, "Concat": 1},
    "unet_small": {"Conv": 18, "MaxPool": 3, "Resize": 3, "Concat": 3},
    "lstm_kws": {"LSTM": 1, "Gemm": 1},
    "bilstm_kws": {"LSTM": 2, "Gemm": 1},
    "gru_kws": {"GRU": 2, "Gemm": 1},
    "lstm_lm": {"LSTM": 2, "Gemm": 1, "Gather": 1},
    "crnn": {"Conv": 7, "MaxPool": 4, "BatchNormalization": 3, "LSTM": 2, "Gemm": 2},
    # 6 dense layers and 2 products of attention in each of 2 layers
    "encoder_tiny": {"MatMul": 16, "Softmax": 2, "LayerNormalization": 4, "Erf": 2},
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_as_many_as_published(name: str) -> None:
    found = operators(BUILDERS[name](0))
    assert {kind: found[kind] for kind in LAYERS[name]} == LAYERS[name]
    assert set(found) == set(networks()[name].operators)


def test_recurrent_layers_stay_whole_and_run_in_the_directions_they_name() -> None:
    directions = {}
    for name in ("lstm_kws", "bilstm_kws", "gru_kws", "lstm_lm", "crnn"):
        for node in BUILDERS[name](0).graph.node:
            if node.op_type in ("LSTM", "GRU"):
                attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
                directions.setdefault(name, set()).add(attributes["direction"])
                assert attributes.get("linear_before_reset", 0) == (node.op_type == "GRU")
    both, one = {b"bidirectional"}, {b"forward"}
    assert directions == {"lstm_kws": one, "bilstm_kws": both, "gru_kws": one, "lstm_lm": one, "crnn": both}


def test_resnet50_is_the_packages_topology_without_fills() -> None:
    kinds = Counter(op.kind for op in prepare(load("resnet50")).ops)
    assert kinds["conv"] == 53
    assert kinds["global_average_pool"] == 1
    assert "batch_norm" not in kinds


def test_resnet50_weights_are_he_normal_and_keep_activations_in_range() -> None:
    graph = load("resnet50")
    for op in graph.ops:
        if op.kind == "conv":
            data = graph[op.inputs[1]].data
            assert data is not None
            assert data.std() == pytest.approx((2 / data[0].size) ** 0.5, rel=0.05)
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    values = run_float(graph, {"gpu_0/data_0": image}, keep=True)
    spreads = [float(values[op.outputs[0]].std()) for op in graph.ops if op.kind == "add"]
    assert all(0.1 < spread < 100 for spread in spreads)


@pytest.mark.parametrize("name", ["densenet121", "inception_v1", "inception_v2", "shufflenet", "squeezenet_caffe"])
def test_no_fill_is_left_in_a_packaged_topology(name: str) -> None:
    model = packaged.build(name, 0)
    assert "ConstantOfShape" not in operators(model)
    # Caffe's norms without a scale of their own are stored as ones and zeros, not filled
    stored = {item.name for item in onnx.load(packaged.topology_path(name)).graph.initializer}
    seeded = [item for item in model.graph.initializer if item.name not in stored]
    assert len(seeded) > 25
    for item in seeded:
        assert np.ptp(onnx.numpy_helper.to_array(item)) > 0, item.name


def test_a_missing_topology_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged.FILES, "resnet50", "nowhere")
    with pytest.raises(ModelError, match=r"zoo:resnet50.*light_nowhere\.onnx"):
        load("resnet50")
    with pytest.raises(ModelError, match="reinstall onnx"):
        resnet50.topology_path()


def test_tiny_cnn_uses_one_of_each() -> None:
    graph = load("tiny_cnn")
    kinds = {op.kind for op in graph.ops}
    assert {"max_pool", "average_pool", "clip", "add", "batch_norm", "softmax"} <= kinds
    assert any(op.attributes.get("groups") == 8 for op in graph.ops)


@pytest.mark.parametrize("name", [*SMALL, "resnet50"])
def test_weights_follow_from_the_seed(name: str) -> None:
    first, again, other = (BUILDERS[name](seed).SerializeToString(deterministic=True) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_he_normal_weights_have_the_spread_of_their_fan_in() -> None:
    seeded = 0
    for name in SMALL:
        if networks()[name].correct:
            continue
        model = BUILDERS[name](0)
        weights = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type in ("Conv", "Gemm") and (weight := weights.get(node.input[1])) is not None:
                # the spread of 1,000 samples is known to 2.2 %, four times that is allowed
                if weight.size < 1000:
                    continue
                assert weight.std() == pytest.approx((2 / weight[0].size) ** 0.5, rel=0.09), (name, node.name)
                seeded += 1
    assert seeded > 100


def test_every_network_is_listed_with_its_counts() -> None:
    available = ZooFrontend().available()
    assert set(available) == set(BUILDERS) == set(networks())
    assert available["mobilenet_v2"] == "MobileNetV2, 1x3x224x224, 300.8 M MACs, 3.505 M parameters, seeded weights"
    assert available["digits_mlp"].endswith("1x64, 6.464 k MACs, 6.57 k parameters, trained weights")


@pytest.mark.parametrize("name", SMALL)
def test_a_network_loads_under_its_name(name: str) -> None:
    graph = load(name)
    assert graph.source == f"zoo:{name}"
    assert graph.name == name


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"zoo:resnet9.*'resnet8'"):
        load("resnet9")
    with pytest.raises(ModelError, match=r"zoo:mlp.*'N'"):
        ZooFrontend().load("mlp", Path("."), {"N": 4})


def test_a_builder_takes_no_unknown_activation_and_no_misshapen_weight() -> None:
    model = ModelBuilder("net", 0, (1, 2, 4, 4))
    with pytest.raises(ValueError, match="'swish' is not an activation; relu"):
        model.activate(model.input, "act", "swish")
    trained = ModelBuilder("net", 0, (1, 4), trained={"dense.weight": np.zeros((3, 5))})
    with pytest.raises(ValueError, match=r"'dense.weight' has shape \(3, 5\), \(3, 4\) is needed"):
        trained.dense(trained.input, "dense", (4, 3))
