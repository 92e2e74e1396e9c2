"""The networks of the zoo are the published ones: multiply-accumulates, shapes, layers, reproducible weights."""

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
from workloads.zoo import ZooFrontend, resnet8, resnet50, small


def load(name: str) -> Graph:
    return ZooFrontend().load(name, Path("."), {})


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
    model = resnet8.build(0)
    onnx.checker.check_model(model, full_check=True)
    assert Counter(node.op_type for node in model.graph.node)["BatchNormalization"] == 7


def test_resnet50_has_the_known_multiply_accumulates_and_parameters() -> None:
    graph = load("resnet50")
    assert graph.macs == resnet50.MACS == 4_089_184_256
    assert graph["gpu_0/data_0"].shape == (1, 3, 224, 224)
    # 25.50 M in conv and dense weights, as counted for this file elsewhere
    weights = sum(graph[op.inputs[1]].elements for op in graph.ops if op.kind in ("conv", "gemm"))
    assert weights == 25_502_912
    kinds = Counter(op.kind for op in prepare(graph).ops)
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


def test_a_missing_topology_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resnet50, "_IN_PACKAGE", Path("nowhere.onnx"))
    with pytest.raises(ModelError, match=r"zoo:resnet50.*nowhere\.onnx"):
        load("resnet50")


@pytest.mark.parametrize(("name", "macs"), [("tiny_cnn", 87_840), ("mlp", 64 * 48 + 48 * 32 + 32 * 10)])
def test_small_networks_use_one_of_each(name: str, macs: int) -> None:
    graph = load(name)
    assert graph.macs == macs
    if name == "tiny_cnn":
        kinds = {op.kind for op in graph.ops}
        assert {"max_pool", "average_pool", "clip", "add", "batch_norm", "softmax"} <= kinds
        assert any(op.attributes.get("groups") == 8 for op in graph.ops)


@pytest.mark.parametrize("build", [resnet8.build, small.build_tiny_cnn, small.build_mlp, resnet50.build])
def test_weights_follow_from_the_seed(build: object) -> None:
    first, again, other = (build(seed) for seed in (1, 1, 2))  # type: ignore[operator]
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    assert first.SerializeToString(deterministic=True) != other.SerializeToString(deterministic=True)


def test_available_lists_what_loads_and_nothing_else() -> None:
    available = ZooFrontend().available()
    assert set(available) == {"resnet8", "resnet50", "tiny_cnn", "mlp"}
    assert all(description for description in available.values())
    for name in set(available) - {"resnet50"}:
        graph = load(name)
        assert graph.source == f"zoo:{name}"
        assert graph.name == name


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"zoo:resnet9.*'resnet8'"):
        load("resnet9")
    with pytest.raises(ModelError, match=r"zoo:mlp.*'N'"):
        ZooFrontend().load("mlp", Path("."), {"N": 4})
