"""Equalization changes no output, balances what it may, leaves alone what it must, and helps where scales differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnx_networks import RandomCnn, make_model, save

from dse.compiler import Recipe, accuracy, calibration_images, equalize, prepare, quantize
from dse.compiler.equalize import equalizable_pairs
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.reference import run_float
from workloads.onnx import read_model


def convolutions(folder: Path, *, groups: int = 1, activation: str = "Relu", spread: float = 1.0) -> Graph:
    """conv 3 -> 8, activation, max pool, conv 8 -> 8 in groups, relu, flatten, dense; channels differ by `spread`."""
    rng = np.random.default_rng(0)
    factors = np.geomspace(1, spread, 8).astype(np.float32)
    weights = {
        "w1": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * factors[:, None, None, None],
        "b1": rng.normal(size=8).astype(np.float32) * factors,
        "w2": rng.normal(size=(8, 8 // groups, 3, 3)).astype(np.float32),
        "w3": rng.normal(size=(5, 8 * 4 * 4)).astype(np.float32),
    }
    inside = 8 // groups
    for row in range(8):
        first = row // (8 // groups) * inside
        weights["w2"][row] /= factors[first : first + inside, None, None]
    limits = {"low": 0.0, "high": 6.0} if activation == "Clip" else {}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["a", *limits], ["b"], "act"),
        helper.make_node("MaxPool", ["b"], ["c"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "w2"], ["d"], "second", pads=[1, 1, 1, 1], group=groups),
        helper.make_node("Relu", ["d"], ["e"], "act2"),
        helper.make_node("Flatten", ["e"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "dense", transB=1),
    ]
    return make_graph(nodes, weights | limits, folder)


def make_graph(nodes: list[object], weights: dict[str, object], folder: Path) -> Graph:
    model = make_model(nodes, {"x": (1, 3, 8, 8)}, ["y"], weights)  # type: ignore[arg-type]
    return prepare(read_model(save(model, folder)))


def outputs_of(graph: Graph, seed: int) -> np.ndarray:
    return np.concatenate([v.ravel() for v in run_float(graph, calibration_images(graph, 4, seed)).values()])


@pytest.mark.parametrize("seed", range(12))
def test_outputs_stay_the_same(seed: int, tmp_path: Path) -> None:
    graph = prepare(read_model(save(RandomCnn(np.random.default_rng(seed)).build(), tmp_path)))
    np.testing.assert_allclose(outputs_of(equalize(graph), seed), outputs_of(graph, seed), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_channels_get_the_same_largest_weight_on_both_sides(groups: int, tmp_path: Path) -> None:
    graph = convolutions(tmp_path, groups=groups, spread=100.0)
    even = equalize(graph)
    np.testing.assert_allclose(outputs_of(even, 1), outputs_of(graph, 1), rtol=1e-3, atol=1e-3)
    assert [(a.name, b.name) for a, b in equalizable_pairs(graph)] == [("first", "second"), ("second", "dense")]
    first, second, dense = (even[op.inputs[1]].data for op in even.ops if op.kind in ("conv", "gemm"))
    assert first is not None
    assert second is not None
    assert dense is not None
    inside = 8 // groups
    for channel in range(8):
        group, column = divmod(channel, inside)
        reading = second[group * inside : (group + 1) * inside, column]
        assert np.abs(first[channel]).max() == pytest.approx(np.abs(reading).max(), rel=0.01)
        columns = dense[:, channel * 16 : (channel + 1) * 16]
        assert np.abs(second[channel]).max() == pytest.approx(np.abs(columns).max(), rel=0.01)


def test_relu6_stops_it_and_constants_are_untouched(tmp_path: Path) -> None:
    graph = convolutions(tmp_path, activation="Clip", spread=10.0)
    assert [a.name for a, _ in equalizable_pairs(graph)] == ["second"]
    first = next(op for op in graph.ops if op.name == "first")
    np.testing.assert_array_equal(equalize(graph)[first.inputs[1]].data, graph[first.inputs[1]].data)


def test_residuals_outputs_and_shared_weights_stop_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = {"w": rng.normal(size=(3, 3, 3, 3)), "v": rng.normal(size=(3, 3, 3, 3))}
    conv = {"pads": [1, 1, 1, 1]}
    residual = [
        helper.make_node("Conv", ["x", "w"], ["a"], "one", **conv),
        helper.make_node("Conv", ["a", "v"], ["b"], "two", **conv),
        helper.make_node("Add", ["a", "b"], ["y"], "sum"),
    ]
    assert equalizable_pairs(make_graph(residual, weights, tmp_path)) == []
    shared = [
        helper.make_node("Conv", ["x", "w"], ["a"], "one", **conv),
        helper.make_node("Conv", ["a", "w"], ["y"], "two", **conv),
    ]
    assert equalizable_pairs(make_graph(shared, weights, tmp_path)) == []
    chain = make_graph([shared[0], helper.make_node("Conv", ["a", "v"], ["y"], "two", **conv)], weights, tmp_path)
    assert len(equalizable_pairs(chain)) == 1
    assert equalizable_pairs(replace(chain, outputs=("a", "y"))) == []


def test_it_rescues_per_tensor_scales_from_uneven_channels(tmp_path: Path) -> None:
    graph = convolutions(tmp_path, spread=1000.0)
    images, test = calibration_images(graph, 16, 0), calibration_images(graph, 16, 1)
    recipe = Recipe(per_channel=False)
    before = accuracy(graph, quantize(graph, images, recipe), "ort", test)["sqnr_db"]
    even = equalize(graph)
    after = accuracy(even, quantize(even, images, recipe), "ort", test)["sqnr_db"]
    assert after > before + 10


def test_dead_channels_and_missing_values_are_borne(tmp_path: Path) -> None:
    graph = convolutions(tmp_path)
    name = graph.ops[0].inputs[1]
    data = graph[name].data
    assert data is not None
    dead = data.copy()
    dead[3] = 0
    with_dead = replace(graph, tensors={**graph.tensors, name: replace(graph[name], data=dead)})
    assert np.isfinite(outputs_of(equalize(with_dead), 0)).all()
    without = replace(graph, tensors={**graph.tensors, name: replace(graph[name], data=None)}, inputs=("x", name))
    with pytest.raises(ModelError, match=r"'first'.*has no values to equalize"):
        equalize(without)
