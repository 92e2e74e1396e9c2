"""Every layer the builder writes is the layer its name promises: onnxruntime on it equals the formula written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.zoo import dense_prediction, mobile, recurrent, transformer
from workloads.zoo.builder import ModelBuilder, he_normal, pair

ort = pytest.importorskip("onnxruntime")
Array = np.ndarray[Any, np.dtype[Any]]


def run(model: onnx.ModelProto, x: Array) -> Array:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {"input": x})
    return outputs[0]


def weights_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {item.name: onnx.numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}


def image(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def slow_conv(x: Array, weight: Array, stride: tuple[int, int], pads: tuple[int, int, int, int], groups: int) -> Array:
    """One output at a time; pads (top, left, bottom, right)."""
    padded = np.pad(x[0].astype(np.float64), ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    out, inside, r, s = weight.shape
    rows = (padded.shape[1] - r) // stride[0] + 1
    columns = (padded.shape[2] - s) // stride[1] + 1
    result = np.zeros((1, out, rows, columns))
    for k in range(out):
        first = k // (out // groups) * inside
        for p in range(rows):
            for q in range(columns):
                y, z = p * stride[0], q * stride[1]
                result[0, k, p, q] = (padded[first : first + inside, y : y + r, z : z + s] * weight[k]).sum()
    return result


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 4]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]),
    st.integers(4, 9), st.integers(5, 9), st.booleans(),
)  # fmt: skip
def test_conv_pads_as_tensorflow_does_or_by_the_number_given(
    r: int, s: int, stride: int, groups: int, rows: int, columns: int, same: bool
) -> None:
    model = ModelBuilder("net", 0, (1, 4, rows, columns))
    out = model.conv(
        model.input, "conv", (4, 8), (r, s), stride=stride, groups=groups, padding=None if same else 2
    )  # fmt: skip
    x, pads = image((1, 4, rows, columns)), (2, 2, 2, 2)
    if same:
        totals = [
            max((math.ceil(size / stride) - 1) * stride + k - size, 0) for size, k in ((rows, r), (columns, s))
        ]  # fmt: skip
        pads = (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
    shape = (1, 8, (rows + pads[0] + pads[2] - r) // stride + 1, (columns + pads[1] + pads[3] - s) // stride + 1)
    built = model.model(out, shape)
    expected = slow_conv(x, weights_of(built)["conv.weight"], (stride, stride), pads, groups)
    np.testing.assert_allclose(run(built, x), expected, atol=1e-4)


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "none": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x), "silu": lambda x: x * sigmoid(x),
}  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_unit_is_conv_norm_and_activation(activation: str) -> None:
    model = ModelBuilder("net", 1, (1, 3, 6, 5))
    built = model.model(
        model.unit(model.input, "unit", (3, 4), 3, bias=True, activation=activation, gain=3.0), (1, 4, 6, 5)
    )  # fmt: skip
    x, w = image((1, 3, 6, 5)), weights_of(built)

    def channel(name: str) -> Array:
        return w[f"unit.{name}"][:, None, None]

    y = slow_conv(x, w["unit.conv.weight"], (1, 1), (1, 1, 1, 1), 1) + channel("conv.bias")
    y = (y - channel("bn.mean")) / np.sqrt(channel("bn.variance") + 1e-3) * channel("bn.scale") + channel("bn.bias")
    np.testing.assert_allclose(run(built, x), ACTIVATIONS[activation](y), atol=1e-4)
    assert 3 * 0.7 <= w["unit.bn.scale"].min() <= w["unit.bn.scale"].max() <= 3 * 1.3


def slow_lstm(x: Array, w: Array, r: Array, b: Array) -> Array:
    """States over (steps, features); ONNX orders gates i, o, f, c."""
    hidden = r.shape[1]
    h, c, states = np.zeros(hidden), np.zeros(hidden), []
    for step in x:
        gates = w @ step + r @ h + b[: 4 * hidden] + b[4 * hidden :]
        i, o, f, g = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


def slow_gru(x: Array, w: Array, r: Array, b: Array) -> Array:
    """States over (steps, features); gates z, r, h, the reset applied after the product."""
    hidden = r.shape[1]
    wb, rb = np.split(b, 2)
    h, states = np.zeros(hidden), []
    for step in x:
        z, s, n = np.split(w @ step + wb, 3)
        hz, hs, hn = np.split(r @ h + rb, 3)
        z, s = sigmoid(z + hz), sigmoid(s + hs)
        h = (1 - z) * np.tanh(n + s * hn) + z * h
        states.append(h)
    return np.array(states)


def test_the_gru_spotter_is_two_layers_and_a_dense_layer_on_the_last_state() -> None:
    model = recurrent.build_gru_kws(2)
    x, w = image((1, 49, 10)), weights_of(model)
    y: Array = x[0].astype(np.float64)
    for name in ("gru1", "gru2"):
        y = slow_gru(y, *(w[f"{name}.{key}"][0] for key in "WRB"))
    np.testing.assert_allclose(run(model, x)[0], w["dense.weight"] @ y[-1] + w["dense.bias"], atol=1e-4)


def test_the_bidirectional_spotter_reads_both_ways_and_takes_the_mean_over_time() -> None:
    model = recurrent.build_bilstm_kws(2)
    x, w = image((1, 49, 10)), weights_of(model)
    y: Array = x[0].astype(np.float64)
    for name in ("lstm1", "lstm2"):
        there = slow_lstm(y, *(w[f"{name}.{key}"][0] for key in "WRB"))
        back = slow_lstm(y[::-1], *(w[f"{name}.{key}"][1] for key in "WRB"))[::-1]
        y = np.concatenate([there, back], axis=1)
    np.testing.assert_allclose(run(model, x)[0], w["dense.weight"] @ y.mean(axis=0) + w["dense.bias"], atol=1e-4)


def test_the_language_model_scores_every_word_after_every_token() -> None:
    model = recurrent.build_lstm_lm(1)
    tokens, w = np.random.default_rng(0).integers(0, 10_000, (35, 1)), weights_of(model)
    y: Array = w["embedding.weight"][tokens[:, 0]]
    for name in ("lstm1", "lstm2"):
        y = slow_lstm(y, *(w[f"{name}.{key}"][0] for key in "WRB"))
    np.testing.assert_allclose(run(model, tokens), y @ w["words.weight"].T + w["words.bias"], atol=1e-3)


def test_the_encoder_is_attention_and_two_dense_layers_each_summed_and_normalised() -> None:
    model = transformer.build_encoder_tiny(3)
    image_in, w = image((1, 64, 128)), weights_of(model)

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.scale"] + w[f"{name}.bias"]

    x: Array = image_in[0].astype(np.float64)
    for layer in ("layer1", "layer2"):
        heads = []
        for head in range(2):
            part = slice(64 * head, 64 * (head + 1))
            q, k, v = (linear(x, f"{layer}.attention.{key}")[:, part] for key in ("query", "key", "value"))
            scores = np.exp(q @ k.T / 8)
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v)
        x = norm(x + linear(np.concatenate(heads, axis=1), f"{layer}.attention.output"), f"{layer}.norm1")
        inner = linear(x, f"{layer}.inner")
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = norm(x + linear(inner, f"{layer}.outer"), f"{layer}.norm2")
    np.testing.assert_allclose(run(model, image_in)[0], x, atol=1e-4)


def test_squeeze_and_excite_scales_channels_by_a_gate_of_their_means() -> None:
    model = ModelBuilder("net", 4, (1, 8, 5, 5))
    built = model.model(mobile._squeeze_excite(model, model.input, "se", 8, 2), (1, 8, 5, 5))
    x, w = image((1, 8, 5, 5)), weights_of(built)
    narrow = w["se.reduce.weight"][:, :, 0, 0] @ x[0].mean(axis=(1, 2)) + w["se.reduce.bias"]
    gate = sigmoid(w["se.expand.weight"][:, :, 0, 0] @ (narrow * sigmoid(narrow)) + w["se.expand.bias"])
    np.testing.assert_allclose(run(built, x)[0], x[0] * gate[:, None, None], atol=1e-5)


def test_upsampling_repeats_every_pixel() -> None:
    model = ModelBuilder("net", 0, (1, 2, 3, 4))
    x = image((1, 2, 3, 4))
    built = model.model(dense_prediction._upsample(model, model.input, "up"), (1, 2, 6, 8))
    np.testing.assert_array_equal(run(built, x), x.repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.parametrize("number", [5, 6])
def test_the_last_pool_of_tiny_yolo_keeps_the_size(number: int) -> None:
    model = ModelBuilder("net", 0, (1, 1, 4, 4))
    x = image((1, 1, 4, 4))
    padded = np.pad(x[0, 0], ((0, 1), (0, 1)), constant_values=-np.inf)
    step, size = (2, 2) if number == 5 else (1, 4)
    expected = [[padded[y * step :, z * step :][:2, :2].max() for z in range(size)] for y in range(size)]
    built = model.model(dense_prediction._pool(model, model.input, number), (1, 1, size, size))
    np.testing.assert_array_equal(run(built, x)[0, 0], np.array(expected))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(20, 60), st.integers(0, 1000))
def test_he_normal_has_mean_zero_and_the_spread_of_its_fan_in(fan_in: int, rows: int, seed: int) -> None:
    values = he_normal(np.random.default_rng(seed), (rows * 20, fan_in))
    # five standard errors of a normal sample's mean and spread
    spread, count = math.sqrt(2 / fan_in), values.size
    assert abs(float(values.mean())) < 5 * spread / math.sqrt(count)
    assert abs(float(values.std()) - spread) < 5 * spread / math.sqrt(2 * count)
    assert values.dtype == np.float32


def test_a_size_is_given_once_or_for_each_axis() -> None:
    assert pair(3) == (3, 3)
    assert pair((10, 4)) == (10, 4)
