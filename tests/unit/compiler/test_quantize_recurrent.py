"""Quantized LSTM, GRU and RNN layers: close to float, on scales that share an accumulator; refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recurrent_layers import HIDDEN, recurrent_layer

from dse.compiler import (
    accuracy,
    calibration_images,
    layer_noise,
    observe_ranges,
    prepare,
    quantize,
    require_quantizable,
    sqnr_db,
    weight_bits_total,
)
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.quantized import dequantize, quantization_of, quantize_inputs
from dse.ir.reference import run_float, run_quantized
from workloads.onnx import export_quantized
from workloads.zoo import ZooFrontend


def samples(graph: Graph, count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((count, *graph["x"].shape[1:])).astype(np.float32)}


@pytest.mark.parametrize("name", ["lstm_kws", "bilstm_kws", "gru_kws"])
def test_keyword_spotters_keep_25_db(name: str) -> None:
    graph = prepare(ZooFrontend().load(name, Path("."), {}))
    quantized = quantize(graph, calibration_images(graph, 64, 0))
    for mode in ("ort", "q31"):
        figures = accuracy(graph, quantized, mode, calibration_images(graph, 8, 1))
        assert figures["sqnr_db"] >= 25


def test_a_language_model_takes_tokens_and_quantizes_its_table() -> None:
    graph = prepare(ZooFrontend().load("lstm_lm", Path("."), {}))
    rng = np.random.default_rng(0)
    tokens = {graph.inputs[0]: rng.integers(0, 10_000, graph[graph.inputs[0]].shape)}
    quantized = quantize(graph, tokens)
    kept = quantize_inputs(quantized, tokens)
    assert kept[graph.inputs[0]].dtype == np.int64
    assert accuracy(graph, quantized, "q31", tokens)["sqnr_db"] >= 20


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("options", [{"bias"}, {"bias", "state", "before_reset"}, {"bias", "lengths"}])
def test_single_layers_stay_close_to_float(kind: str, options: set[str]) -> None:
    graph = recurrent_layer(kind, "bidirectional", 5, options)
    quantized = quantize(graph, samples(graph, 64, 0))
    inputs = samples(graph, 64, 1)
    wanted = run_float(graph, inputs)["y"]
    got = run_quantized(quantized, quantize_inputs(quantized, inputs), "ort")["y"]
    assert sqnr_db(wanted, dequantize(got, quantization_of(quantized, "y"))) > 25


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_both_products_have_one_unit_and_weights_their_full_range(kind: str) -> None:
    graph = recurrent_layer(kind, "bidirectional", 1, {"bias"})
    quantized = quantize(graph, samples(graph, 16, 0))
    (op,) = quantized.ops
    of = {name: quantization_of(quantized, name) for name in (*op.inputs[:4], "y")}
    units = [
        np.float32(of[first].scale[0]) * np.array(of[second].scale, np.float32)
        for first, second in (("x", op.inputs[1]), ("y", op.inputs[2]))
    ]
    np.testing.assert_allclose(units[0], units[1], rtol=1e-6)
    np.testing.assert_allclose(np.array(of[op.inputs[3]].scale), np.tile(units[0], 2), rtol=1e-6)
    largest = np.maximum(*(np.abs(quantized[name].data.astype(int)).max(axis=(0, 2)) for name in op.inputs[1:3]))
    # every row of one of the two matrices uses the largest code
    assert set(largest.tolist()) == {127}
    assert of["y"].zero_point == 0
    assert np.frexp(of["y"].scale[0])[0] == 0.5


def test_ranges_inside_a_layer_are_those_of_a_slow_walk() -> None:
    graph = recurrent_layer("rnn", "forward", 2, {"bias"})
    inputs = samples(graph, 7, 0)
    w, r, b = (graph[name].data[0].astype(np.float64) for name in "wrb")
    h, most = np.zeros((2, HIDDEN)), 0.0
    for x in inputs["x"].astype(np.float64):
        total = x @ w.T + h @ r.T + b[:HIDDEN] + b[HIDDEN:]
        most, h = max(most, float(np.abs(total).max())), np.tanh(total)
    low, high = observe_ranges(graph, inputs)["cell:0:gate0"]
    assert -low == high == pytest.approx(most, rel=1e-5)


def test_a_row_without_weights_and_a_silent_input_quantize() -> None:
    graph = recurrent_layer("lstm", "forward", 0, {"bias"})
    empty = {name: np.zeros_like(graph[name].data) for name in "wr"}
    empty["b"] = graph["b"].data
    tensors = {**graph.tensors, **{name: replace(graph[name], data=data) for name, data in empty.items()}}
    quantized = quantize(replace(graph, tensors=tensors), {"x": np.zeros((5, 2, 3), np.float32)})
    y = run_quantized(quantized, {"x": np.zeros((5, 2, 3), np.int8)}, "q31")["y"]
    wanted = run_float(replace(graph, tensors=tensors), {"x": np.zeros((5, 2, 3), np.float32)})["y"]
    np.testing.assert_allclose(dequantize(y, quantization_of(quantized, "y")), wanted, atol=0.02)


def without(graph: Graph, **changes: Any) -> Graph:
    (op,) = graph.ops
    return replace(graph, ops=(op.with_attributes(**changes),))


def test_layers_without_integer_form_are_named() -> None:
    plain = recurrent_layer("lstm", "forward", 0, {"bias"})
    for graph, message in (
        (recurrent_layer("lstm", "forward", 0, {"peepholes"}), r"'cell' \(lstm\) has peepholes"),
        (without(plain, input_forget=True), r"couples its forget gate"),
        (without(plain, activations=("sigmoid", "relu", "tanh")), r"gate function 'relu'; int8 takes one of sigmoid"),
        (replace(plain, outputs=("y", "last_c")), r"last cell state 'last_c' is read"),
    ):
        with pytest.raises(ModelError, match=message):
            require_quantizable(graph)
    tensors = {**plain.tensors, "w": replace(plain["w"], data=None)}
    with pytest.raises(ModelError, match=r"reads 'w', computed at run time"):
        require_quantizable(replace(plain, tensors=tensors, inputs=("x", "w")))
    data = plain["w"].data.copy()
    data[0, 0, 0] = np.nan
    broken = replace(plain, tensors={**plain.tensors, "w": replace(plain["w"], data=data)})
    with pytest.raises(ModelError, match=r"'cell' .* not finite during calibration"):
        quantize(broken, samples(broken, 2, 0))


def test_both_matrices_are_counted_and_judged() -> None:
    graph = recurrent_layer("lstm", "bidirectional", 0, {"bias"})
    quantized = quantize(graph, samples(graph, 16, 0))
    assert weight_bits_total(quantized) == 8 * 2 * 16 * (3 + 4)
    (row,) = layer_noise(graph, quantized, "ort", samples(graph, 4, 1))
    assert (row.kind, row.weight_bits, row.low) == ("lstm", 8, -1.0)
    assert row.weight_sqnr_db is not None
    assert row.weight_sqnr_db > 30
    assert row.sqnr_db > 25


def test_onnx_has_no_form_for_integer_layers_and_says_so() -> None:
    graph = recurrent_layer("gru", "forward", 0, {"bias"})
    with pytest.raises(ModelError, match=r"'cell' \(gru\) has no integer form in ONNX"):
        export_quantized(quantize(graph, samples(graph, 4, 0)))
