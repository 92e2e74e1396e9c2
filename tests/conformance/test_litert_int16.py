"""Activations of 16 bits against LiteRT's reference kernels (16x8), op by op and as networks, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the tflite package is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT (ai-edge-litert) is not installed")

from tflite_files import Array, TfliteFile, litert, to_nchw, to_nhwc

from dse.ir.reference import run_quantized
from workloads.tflite import read_model

SAME, VALID = 0, 1
NONE, RELU, RELU6 = 0, 1, 3
MODES = ("tflite", "ort", "q31")


def compared(file: TfliteFile, inputs: list[int], output: int, values: list[Array], tmp_path: Path) -> int:
    """Outputs compared, equal in every mode; batches along axis 0 are fed one after the other to LiteRT."""
    content = file.bytes(inputs, [output])
    path = tmp_path / "op.tflite"
    path.write_bytes(content)
    graph, interpreter = read_model(path), litert(content)
    seen = []
    for index in range(len(values[0])):
        for tensor, batch in zip(inputs, values, strict=True):
            interpreter.set_tensor(tensor, batch[index])
        interpreter.invoke()
        seen.append(interpreter.get_tensor(output))
        feed = {name: to_nchw(batch[index]) for name, batch in zip(graph.inputs, values, strict=True)}
        for mode in MODES:
            got = to_nhwc(run_quantized(graph, feed, mode)[graph.outputs[0]])
            assert got.dtype == seen[-1].dtype
            np.testing.assert_array_equal(got, seen[-1], err_msg=mode)
    every = np.stack(seen)
    # values that stand still, or all saturate, would prove nothing
    assert len(np.unique(every)) > min(20, every.size // 4)
    assert np.mean((every == 32767) | (every == -32768)) < 0.6
    return every.size


def int16(rng: np.random.Generator, *shape: int) -> Array:
    """Values of all magnitudes, both ends among them."""
    values = rng.integers(-32768, 32768, shape) >> rng.integers(0, 14, shape)
    values.ravel()[:2] = -32768, 32767
    return values.astype(np.int16)


def weights(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-127, 128, shape).astype(np.int8)


def biases(rng: np.random.Generator, count: int, magnitude: int) -> Array:
    return rng.integers(-magnitude, magnitude, count).astype(np.int64)


@pytest.mark.parametrize("seed", range(10))
def test_convolutions_of_random_geometry(seed: int, tmp_path: Path) -> None:
    """Dense and depthwise, strides, dilations, SAME and VALID, with and without activation."""
    rng = np.random.default_rng(seed)
    depthwise, size, channels = seed % 2 == 1, int(rng.integers(7, 12)), 4
    kernel, stride = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    dilation = 2 if stride == 1 and rng.random() < 0.5 else 1
    padding, reach = (SAME if rng.random() < 0.5 else VALID), (kernel - 1) * dilation + 1
    outputs = channels * 2 if depthwise else 6
    out = -(-size // stride) if padding == SAME else (size - reach) // stride + 1
    depth = kernel * kernel * (1 if depthwise else channels)
    file = TfliteFile()
    x = file.tensor((1, size, size, channels), 3e-4, dtype="int16")
    shape = (1, kernel, kernel, outputs) if depthwise else (outputs, kernel, kernel, channels)
    scales = np.exp(rng.uniform(np.log(1e-3), np.log(1e-2), outputs)).astype(np.float32)
    weight = file.tensor(scale=scales, data=weights(rng, *shape), axis=3 if depthwise else 0)
    bias = file.tensor(scale=scales * np.float32(3e-4), data=biases(rng, outputs, 1 << 20))
    y = file.tensor((1, out, out, outputs), float(3e-4 * 5e-3 * 60 * np.sqrt(depth)), dtype="int16")
    options: dict[str, Any] = {
        "Padding": padding, "StrideH": stride, "StrideW": stride, "DilationHFactor": dilation,
        "DilationWFactor": dilation, "FusedActivationFunction": (NONE, RELU, RELU6)[seed % 3],
    }  # fmt: skip
    if depthwise:
        file.op("DEPTHWISE_CONV_2D", [x, weight, bias], [y], "DepthwiseConv2DOptions", DepthMultiplier=2, **options)
    else:
        file.op("CONV_2D", [x, weight, bias], [y], "Conv2DOptions", **options)
    assert compared(file, [x], y, [int16(rng, 3, 1, size, size, channels)], tmp_path) == 3 * out * out * outputs


def dense_file(kind: str, depth: int, rng: np.random.Generator) -> tuple[TfliteFile, int]:
    """A dense layer of 12 outputs, or the 1x1 convolution that is the same, and the index of its output."""
    dense, file = kind == "FULLY_CONNECTED", TfliteFile()
    scales = rng.uniform(1e-3, 1e-2, 12).astype(np.float32)
    ends = [(1, depth), (1, 12)] if dense else [(1, 1, 1, depth), (1, 1, 1, 12)]
    x = file.tensor(ends[0], 2e-4, dtype="int16")
    matrix = weights(rng, 12, depth)
    weight = file.tensor(scale=scales, data=matrix if dense else matrix.reshape(12, 1, 1, depth))
    bias = file.tensor(scale=scales * np.float32(2e-4), data=biases(rng, 12, 1 << 20))
    y = file.tensor(ends[1], 2e-4 * 0.3 * depth**0.5, dtype="int16")
    if dense:
        file.op(
            kind, [x, weight, bias], [y], "FullyConnectedOptions",
            FusedActivationFunction=NONE, WeightsFormat=0, KeepNumDims=False,
        )  # fmt: skip
    else:
        file.op(
            kind, [x, weight, bias], [y], "Conv2DOptions", Padding=VALID, StrideH=1, StrideW=1,
            DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=NONE,
        )  # fmt: skip
    return file, y


@pytest.mark.parametrize("depth", [5, 64, 700])
def test_dense_layers_equal_a_convolution_and_are_one_code_from_litert_float_kernel(depth: int, tmp_path: Path) -> None:
    values = int16(np.random.default_rng(1), 200, 1, 1, 1, depth)
    file, y = dense_file("CONV_2D", depth, np.random.default_rng(depth))
    assert compared(file, [0], y, [values], tmp_path) == 200 * 12
    dense, _ = dense_file("FULLY_CONNECTED", depth, np.random.default_rng(depth))
    path = tmp_path / "dense.tflite"
    path.write_bytes(dense.bytes([0], [y]))
    graph, of_conv, of_dense = read_model(path), litert(file.bytes([0], [y])), litert(path.read_bytes())
    assert [op.kind for op in graph.ops] == ["gemm"]
    off = 0
    for value in values:
        of_conv.set_tensor(0, value)
        of_dense.set_tensor(0, value.reshape(1, depth))
        of_conv.invoke()
        of_dense.invoke()
        got = run_quantized(graph, {graph.inputs[0]: value.reshape(1, depth)}, "ort")[graph.outputs[0]]
        np.testing.assert_array_equal(got, of_conv.get_tensor(y).reshape(1, 12))
        far = np.abs(of_dense.get_tensor(y).astype(int) - got)
        assert far.max() <= 1
        off += int(far.sum())
    assert off < 0.15 * 200 * 12


@pytest.mark.parametrize("kind", ["ADD", "MUL"])
@pytest.mark.parametrize("seed", range(8))
def test_sums_and_products_of_two_activations(kind: str, seed: int, tmp_path: Path) -> None:
    """60,000 pairs each; scales of all ratios, powers of two (ties) among them."""
    rng = np.random.default_rng([seed, kind == "ADD"])
    a, b = (float(2.0 ** rng.integers(-15, -9)) if seed % 4 == 0 else float(rng.uniform(1e-5, 1e-3)) for _ in range(2))
    c = 1.5 * (a + b) if kind == "ADD" else a * b * 32768 / 3
    file = TfliteFile()
    ends = [file.tensor((1, 60_000), item, dtype="int16") for item in (a, b, c)]
    more = {"PotScaleInt16": False} if kind == "ADD" else {}
    file.op(kind, ends[:2], [ends[2]], f"{kind.title()}Options", FusedActivationFunction=(NONE, RELU)[seed % 2], **more)
    pair = [int16(rng, 1, 1, 60_000) for _ in range(2)]
    assert compared(file, ends[:2], ends[2], pair, tmp_path) == 60_000


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_pools(kind: str, padding: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(padding)
    file = TfliteFile()
    out = 5 if padding == SAME else 4
    x, y = file.tensor((1, 9, 9, 3), 1e-3, dtype="int16"), file.tensor((1, out, out, 3), 1e-3, dtype="int16")
    file.op(
        kind, [x], [y], "Pool2DOptions", Padding=padding, StrideH=2, StrideW=2, FilterHeight=3, FilterWidth=3,
        FusedActivationFunction=NONE,
    )  # fmt: skip
    assert compared(file, [x], y, [int16(rng, 30, 1, 9, 9, 3)], tmp_path) == 30 * out * out * 3


@pytest.mark.parametrize("ratio", [1.0, 0.37, 1.9])
def test_global_means(ratio: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    file = TfliteFile()
    x, y = file.tensor((1, 7, 6, 5), 1e-3, dtype="int16"), file.tensor((1, 5), 1e-3 / ratio, dtype="int16")
    file.op("MEAN", [x, file.tensor(data=np.array([1, 2], np.int32))], [y], "ReducerOptions", KeepDims=False)
    assert compared(file, [x], y, [int16(rng, 60, 1, 7, 6, 5)], tmp_path) == 60 * 5


@pytest.mark.parametrize("types", [("int16", "int8"), ("int8", "int16"), ("int16", "int16")])
def test_changes_of_scale_and_width_over_all_values(types: tuple[str, str], tmp_path: Path) -> None:
    before, after = types
    every = np.arange(-128, 128) if before == "int8" else np.arange(-32768, 32768)
    for trial in range(6):
        rng = np.random.default_rng(trial)
        scale = float(rng.uniform(1e-4, 2e-4)) * (256 if before == "int8" else 1)
        ratio = (256 if before == "int16" else 1 / 256) if before != after else 1
        file = TfliteFile()
        x = file.tensor((1, every.size), scale, -9 if before == "int8" else 0, dtype=before)
        y = file.tensor(
            (1, every.size), scale * ratio * float(rng.uniform(0.8, 1.3)), 5 if after == "int8" else 0, dtype=after
        )
        file.op("QUANTIZE", [x], [y])
        assert compared(file, [x], y, [every.reshape(1, 1, -1).astype(before)], tmp_path) == every.size


def test_a_residual_network_from_int8_over_int16_to_int8(tmp_path: Path) -> None:
    """Two convolutions around an addition, a mean and a dense layer, with changes of width at both ends."""
    rng = np.random.default_rng(0)
    file = TfliteFile()
    narrow = file.tensor((1, 8, 8, 4), 0.02, 3)
    x = file.tensor((1, 8, 8, 4), 1e-4, dtype="int16")
    file.op("QUANTIZE", [narrow], [x])
    ends = [x]
    for place in range(2):
        scales = rng.uniform(2e-3, 6e-3, 4).astype(np.float32)
        weight = file.tensor(scale=scales, data=weights(rng, 4, 3, 3, 4))
        bias = file.tensor(scale=scales * np.float32(1e-4), data=biases(rng, 4, 1 << 22))
        ends.append(file.tensor((1, 8, 8, 4), 2e-4, dtype="int16"))
        file.op(
            "CONV_2D", [ends[-2], weight, bias], [ends[-1]], "Conv2DOptions", Padding=SAME, StrideH=1, StrideW=1,
            DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=(RELU, NONE)[place],
        )  # fmt: skip
    total, mean = file.tensor((1, 8, 8, 4), 3e-4, dtype="int16"), file.tensor((1, 1, 1, 4), 1e-4, dtype="int16")
    file.op("ADD", ends[1:], [total], "AddOptions", FusedActivationFunction=NONE, PotScaleInt16=False)
    file.op("MEAN", [total, file.tensor(data=np.array([1, 2], np.int32))], [mean], "ReducerOptions", KeepDims=True)
    weight = file.tensor(scale=0.01, data=weights(rng, 10, 1, 1, 4))
    bias = file.tensor(scale=1e-6, data=biases(rng, 10, 999))
    logits, last = file.tensor((1, 1, 1, 10), 2e-4, dtype="int16"), file.tensor((1, 1, 1, 10), 0.05, -4)
    file.op(
        "CONV_2D", [mean, weight, bias], [logits], "Conv2DOptions", Padding=VALID, StrideH=1, StrideW=1,
        DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=NONE,
    )  # fmt: skip
    file.op("QUANTIZE", [logits], [last])
    samples = rng.integers(-128, 128, (40, 1, 8, 8, 4)).astype(np.int8)
    assert compared(file, [narrow], last, [samples], tmp_path) == 400
