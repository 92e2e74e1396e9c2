"""LSTM, GRU and RNN equal onnxruntime to 1e-5 in every form that exporters write; composed sequence networks too."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_networks import make_model, save
from sequence_networks import crnn, transformer

from dse.compiler import prepare
from dse.core.errors import ModelError
from dse.ir.reference import run_float
from workloads.onnx import read_model

ort = pytest.importorskip("onnxruntime")
STEPS, BATCH, FEATURES, HIDDEN = 6, 3, 5, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def cell(kind: str, direction: str, options: frozenset[str], seed: int = 0, **attributes: Any) -> onnx.ModelProto:
    """One recurrent node with the optional inputs named in `options`, all its outputs given."""
    rng = np.random.default_rng(seed)
    directions, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    inputs = {"x": (STEPS, BATCH, FEATURES)}
    weights: dict[str, Any] = {
        "w": rng.normal(0, 0.5, (directions, gates * HIDDEN, FEATURES)),
        "r": rng.normal(0, 0.5, (directions, gates * HIDDEN, HIDDEN)),
    }
    names = ["x", "w", "r", "", "", "", "", ""]
    if "bias" in options:
        names[3], weights["b"] = "b", rng.normal(0, 0.5, (directions, 2 * gates * HIDDEN))
    if "lengths" in options:
        names[4], weights["lengths"] = "lengths", np.array([6, 2, 4], np.int32)
    if "state" in options:
        names[5], inputs["h"] = "h", (directions, BATCH, HIDDEN)
    if kind == "LSTM" and "state" in options:
        names[6], inputs["c"] = "c", (directions, BATCH, HIDDEN)
    if kind == "LSTM" and "peepholes" in options:
        names[7], weights["p"] = "p", rng.normal(0, 0.5, (directions, 3 * HIDDEN))
    while not names[-1]:
        names.pop()
    outputs = ["y", "last_h", *(["last_c"] if kind == "LSTM" else [])]
    node = helper.make_node(kind, names, outputs, "cell", hidden_size=HIDDEN, direction=direction, **attributes)
    return make_model([node], inputs, outputs, weights, opset=14)


def compare(model: onnx.ModelProto, folder: Path, tolerance: float = 1e-5) -> None:
    graph = read_model(save(model, folder))
    rng = np.random.default_rng(1)
    inputs = {name: rng.standard_normal(graph[name].shape).astype(graph[name].dtype) for name in graph.inputs}
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, expected in zip(graph.outputs, session.run(None, inputs), strict=True):
        assert expected.shape == graph[name].shape
        for candidate in (graph, prepare(graph)):
            np.testing.assert_allclose(run_float(candidate, inputs)[name], expected, rtol=0, atol=tolerance)


SETS = [frozenset(s) for s in ((), ("bias",), ("bias", "lengths"), ("bias", "state"), ("bias", "lengths", "state"))]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_equal_onnxruntime(kind: str, direction: str, tmp_path: Path) -> None:
    for seed, options in enumerate(SETS):
        compare(cell(kind, direction, options, seed), tmp_path)


@pytest.mark.parametrize(("direction", "options"), [*itertools.product(["forward", "bidirectional"], SETS[1:])])
def test_gru_with_the_reset_behind_the_matrix(direction: str, options: frozenset[str], tmp_path: Path) -> None:
    compare(cell("GRU", direction, options, linear_before_reset=1), tmp_path)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lstm_peepholes_clip_and_coupled_gates(direction: str, tmp_path: Path) -> None:
    options = frozenset(("bias", "state", "peepholes"))
    compare(cell("LSTM", direction, options), tmp_path)
    compare(cell("LSTM", direction, options, clip=0.5), tmp_path)
    compare(cell("LSTM", direction, frozenset(("bias",)), input_forget=1), tmp_path)


@pytest.mark.parametrize(("kind", "names"), [
    ("LSTM", ["HardSigmoid", "Relu", "Softsign"]), ("GRU", ["Sigmoid", "Relu"]), ("RNN", ["Relu"]), ("RNN", ["Elu"]),
])  # fmt: skip
def test_other_gate_functions(kind: str, names: list[str], tmp_path: Path) -> None:
    compare(cell(kind, "forward", frozenset(("bias",)), activations=names), tmp_path)
    compare(cell(kind, "bidirectional", frozenset(("bias",)), activations=names * 2), tmp_path)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_batch_first_layout_is_the_same_network_turned(kind: str, tmp_path: Path) -> None:
    """onnxruntime does not run layout 1, so the oracle is layout 0 on turned tensors."""
    plain = cell(kind, "bidirectional", frozenset(("bias", "state")))
    turned = cell(kind, "bidirectional", frozenset(("bias", "state")), layout=1)
    for value in turned.graph.input:
        dims = value.type.tensor_type.shape.dim
        first, second = dims[0].dim_value, dims[1].dim_value
        dims[0].dim_value, dims[1].dim_value = second, first
    graph, expected = read_model(save(turned, tmp_path, "turned.onnx")), read_model(save(plain, tmp_path))
    rng = np.random.default_rng(2)
    inputs = {name: rng.standard_normal(expected[name].shape).astype(np.float32) for name in expected.inputs}
    wanted = run_float(expected, inputs)
    got = run_float(graph, {name: values.transpose(1, 0, 2) for name, values in inputs.items()})
    np.testing.assert_array_equal(got["y"], wanted["y"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(got["last_h"], wanted["last_h"].transpose(1, 0, 2))


def test_last_state_alone_may_be_asked_for(tmp_path: Path) -> None:
    model = cell("LSTM", "forward", frozenset(("bias",)))
    model.graph.node[0].output[0] = ""
    del model.graph.output[0]
    compare(model, tmp_path)


def test_macs_of_a_recurrent_layer_are_its_matrix_products(tmp_path: Path) -> None:
    graph = read_model(save(cell("LSTM", "bidirectional", frozenset(("bias",))), tmp_path))
    assert graph.macs == 2 * STEPS * BATCH * 4 * HIDDEN * (FEATURES + HIDDEN)
    assert graph.parameters == 2 * 4 * HIDDEN * (FEATURES + HIDDEN + 2)


@pytest.mark.parametrize(("change", "words"), [
    ({"activations": ["Sigmoid", "Tanh", "Cube"]}, ["'Cube'", "sigmoid"]),
    ({"activation_alpha": [0.5], "activations": ["HardSigmoid", "Tanh", "Tanh"]}, ["activation_alpha"]),
])  # fmt: skip
def test_what_a_cell_cannot_do_is_named(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read_model(save(cell("LSTM", "forward", frozenset(), **change), tmp_path))
    for word in ("'cell'", "LSTM", "opset 14", *words):
        assert word in str(error.value)


# -- networks ---------------------------------------------------------------------------------------------------------


def test_a_transformer_encoder_equals_onnxruntime_and_counts_its_attention(tmp_path: Path) -> None:
    """MACs: four projections and two products of activations a layer, then two dense layers."""
    tokens, width, heads, layers = 7, 16, 4, 2
    model = transformer(5, tokens, width, heads, layers)
    path = save(model, tmp_path)
    graph = read_model(path, {"batch": 3})
    ids = np.random.default_rng(4).integers(0, 50, (3, tokens))
    expected = ort.InferenceSession(str(path)).run(None, {"ids": ids})[0]
    for candidate in (graph, prepare(graph)):
        np.testing.assert_allclose(run_float(candidate, {"ids": ids})[graph.outputs[0]], expected, rtol=0, atol=1e-5)
    per_layer = 4 * tokens * width * width + 2 * tokens * tokens * width + 4 * tokens * width * width
    assert graph.macs == 3 * layers * per_layer


def test_a_crnn_with_stacked_lstms_equals_onnxruntime(tmp_path: Path) -> None:
    compare(crnn(6), tmp_path)
    graph = read_model(save(crnn(6), tmp_path))
    assert sum(op.kind == "lstm" for op in graph.ops) == 2


def test_a_batch_runs_on_a_graph_read_for_one(tmp_path: Path) -> None:
    path = save(transformer(8, 5, 8, 2, 1), tmp_path)
    one, three = read_model(path, {"batch": 1}), read_model(path, {"batch": 3})
    ids = np.random.default_rng(9).integers(0, 50, (3, 5))
    np.testing.assert_allclose(
        run_float(one, {"ids": ids})[one.outputs[0]], run_float(three, {"ids": ids})[three.outputs[0]], atol=1e-6
    )
