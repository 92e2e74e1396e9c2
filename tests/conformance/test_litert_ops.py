"""Mode `tflite` against LiteRT's reference kernels, op by op, bit for bit, over random geometry and scales."""

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


def check(file: TfliteFile, inputs: list[int], output: int, values: list[Array], tmp_path: Path) -> int:
    """Outputs compared, all of which must be equal; batches along axis 0 are fed one after the other to LiteRT."""
    content = file.bytes(inputs, [output])
    path = tmp_path / "op.tflite"
    path.write_bytes(content)
    graph = read_model(path)
    interpreter = litert(content)
    expected = []
    for index in range(len(values[0])):
        for tensor, batch in zip(inputs, values, strict=True):
            interpreter.set_tensor(tensor, batch[index])
        interpreter.reset_all_variables()
        interpreter.invoke()
        expected.append(interpreter.get_tensor(output))
    for index, want in enumerate(expected):
        feed = {name: to_nchw(batch[index]) for name, batch in zip(graph.inputs, values, strict=True)}
        got = to_nhwc(run_quantized(graph, feed, "tflite")[graph.outputs[0]])
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    assert len(np.unique(np.stack(expected))) > 1
    return sum(want.size for want in expected)


def int8(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-128, 128, shape).astype(np.int8)


def scale(rng: np.random.Generator, low: float = 1e-3, high: float = 0.3) -> float:
    return float(np.float32(np.exp(rng.uniform(np.log(low), np.log(high)))))


def zero(rng: np.random.Generator) -> int:
    return int(rng.integers(-128, 128))


def pairs() -> tuple[Array, Array]:
    """All 65,536 pairs of int8 values."""
    grid = np.arange(-128, 128).astype(np.int8)
    return np.repeat(grid, 256).reshape(1, 1, -1), np.tile(grid, 256).reshape(1, 1, -1)


@pytest.mark.parametrize("kind", ["ADD", "MUL"])
def test_add_and_mul_exhaustively_over_many_scale_sets(kind: str, tmp_path: Path) -> None:
    """Every pair of operands for 40 sets of scales, powers of two (ties) among them."""
    rng = np.random.default_rng(11)
    a, b = pairs()
    compared = 0
    for trial in range(40):
        scales = [2.0 ** rng.integers(-6, 0) if trial % 4 == 0 else scale(rng, 0.01) for _ in range(3)]
        if kind == "MUL":
            scales[2] = max(scales[2], scales[0] * scales[1] * 1.01)
        file = TfliteFile()
        ends = [file.tensor((1, a.size), item, zero(rng)) for item in scales]
        activation = (NONE, RELU, RELU6)[trial % 3]
        file.op(kind, ends[:2], [ends[2]], f"{kind.title()}Options", FusedActivationFunction=activation)
        try:
            compared += check(file, ends[:2], ends[2], [a, b], tmp_path)
        except AssertionError as error:
            raise AssertionError(f"{kind} scales {scales}: {error}") from error
    assert compared == 40 * 65536


def test_add_of_a_broadcast_channel_constant(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    file = TfliteFile()
    x = file.tensor((1, 3, 4, 5), 0.05, 3)
    constant = file.tensor(scale=0.02, zero_point=-7, data=int8(rng, 5))
    y = file.tensor((1, 3, 4, 5), 0.06, 1)
    file.op("ADD", [x, constant], [y], "AddOptions", FusedActivationFunction=NONE)
    check(file, [x], y, [int8(rng, 4, 1, 3, 4, 5)], tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_convolutions_of_random_geometry(seed: int, tmp_path: Path) -> None:
    """Strides, dilations, groups, depth multipliers, padding, per-tensor and per-channel scales, activations."""
    rng = np.random.default_rng(seed)
    depthwise = seed % 2 == 1
    height, width = (int(n) for n in rng.integers(9, 14, 2))
    kernel, stride = (int(n) for n in rng.integers(1, 4, 2)), int(rng.integers(1, 4))
    kernel_h, kernel_w = kernel
    dilation = 2 if stride == 1 and rng.random() < 0.5 else 1
    channels, groups = 4, 2 if seed % 4 == 2 else 1
    outputs = channels * 3 if depthwise else 6
    weight_shape = (1, kernel_h, kernel_w, outputs) if depthwise else (outputs, kernel_h, kernel_w, channels // groups)
    padding = SAME if rng.random() < 0.6 else VALID
    reach_h, reach_w = ((k - 1) * dilation + 1 for k in (kernel_h, kernel_w))
    rows = -(-height // stride) if padding == SAME else (height - reach_h) // stride + 1
    columns = -(-width // stride) if padding == SAME else (width - reach_w) // stride + 1
    scales = np.exp(rng.uniform(-7, -4, outputs)) if seed % 3 else np.exp(rng.uniform(-7, -4, 1))
    file = TfliteFile()
    x = file.tensor((1, height, width, channels), 0.05, zero(rng))
    weight = file.tensor(scale=scales, data=int8(rng, *weight_shape), axis=3 if depthwise else 0)
    bias_scale = np.float32(0.05) * scales.astype(np.float32)
    bias = file.tensor(scale=bias_scale, data=rng.integers(-3000, 3000, outputs).astype(np.int32))
    y = file.tensor((1, rows, columns, outputs), 0.07, zero(rng))
    options = {
        "Padding": padding, "StrideH": stride, "StrideW": stride, "DilationHFactor": dilation,
        "DilationWFactor": dilation, "FusedActivationFunction": (NONE, RELU, RELU6)[seed % 3],
    }  # fmt: skip
    if depthwise:
        file.op("DEPTHWISE_CONV_2D", [x, weight, bias], [y], "DepthwiseConv2DOptions", DepthMultiplier=3, **options)
    else:
        file.op("CONV_2D", [x, weight, bias], [y], "Conv2DOptions", **options)
    check(file, [x], y, [int8(rng, 3, 1, height, width, channels)], tmp_path)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_dense_layers(per_channel: bool, keep: bool, tmp_path: Path) -> None:
    """4,000 outputs; a map in front is flattened in the file's order; kept dimensions are rows."""
    rng = np.random.default_rng(5)
    for trial in range(4):
        scales = np.exp(rng.uniform(-7, -5, 50 if per_channel else 1))
        file = TfliteFile()
        x = file.tensor((2, 3, 2, 8), scale(rng), zero(rng))
        weight = file.tensor(scale=scales, data=int8(rng, 50, 8 if keep else 48))
        bias = file.tensor(
            scale=np.float32(file.tensors[x]["scales"][0]) * scales, data=rng.integers(-3000, 3000, 50).astype(np.int32)
        )
        y = file.tensor((2, 3, 2, 50) if keep else (2, 50), scale(rng, 0.02), zero(rng))
        activation = (NONE, RELU)[trial % 2]
        file.op(
            "FULLY_CONNECTED", [x, weight, bias], [y], "FullyConnectedOptions",
            FusedActivationFunction=activation, WeightsFormat=0, KeepNumDims=keep,
        )  # fmt: skip
        check(file, [x], y, [int8(rng, 10, 2, 3, 2, 8)], tmp_path)


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("activation", [NONE, RELU, RELU6])
def test_pools_of_random_geometry(kind: str, activation: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for padding in (SAME, VALID):
        for _ in range(4):
            kernel, stride = int(rng.integers(1, 5)), int(rng.integers(1, 4))
            size = -(-9 // stride) if padding == SAME else (9 - kernel) // stride + 1
            quantization = scale(rng, 0.02), zero(rng) // 2
            file = TfliteFile()
            x = file.tensor((1, 9, 9, 3), *quantization)
            y = file.tensor((1, size, size, 3), *quantization)
            file.op(
                kind, [x], [y], "Pool2DOptions", Padding=padding, StrideH=stride, StrideW=stride,
                FilterHeight=kernel, FilterWidth=kernel, FusedActivationFunction=activation,
            )  # fmt: skip
            check(file, [x], y, [int8(rng, 2, 1, 9, 9, 3)], tmp_path)


@pytest.mark.parametrize("keep", [False, True])
def test_mean_over_the_map(keep: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    for height, width in ((7, 7), (4, 4), (25, 5), (1, 3)):
        for same in (False, True):
            first = scale(rng), zero(rng)
            file = TfliteFile()
            x = file.tensor((1, height, width, 16), *first)
            axes = file.tensor(data=np.array([1, 2], np.int32))
            y = file.tensor((1, 1, 1, 16) if keep else (1, 16), *(first if same else (first[0] * 0.7, zero(rng) // 4)))
            file.op("MEAN", [x, axes], [y], "ReducerOptions", KeepDims=keep)
            check(file, [x], y, [int8(rng, 6, 1, height, width, 16)], tmp_path)


@pytest.mark.parametrize(("kind", "output"), [("LOGISTIC", (1 / 256, -128)), ("TANH", (1 / 128, 0))])
def test_logistic_and_tanh_exhaustively(kind: str, output: tuple[float, int], tmp_path: Path) -> None:
    """Every int8 input for 60 input scales."""
    rng = np.random.default_rng(9)
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    for trial in range(60):
        file = TfliteFile()
        x = file.tensor((1, 256), 2.0 ** -(trial % 8) if trial < 8 else scale(rng), zero(rng))
        y = file.tensor((1, 256), *output)
        file.op(kind, [x], [y])
        check(file, [x], y, [values], tmp_path)


@pytest.mark.parametrize("shape", [(3, 10), (1, 2, 3, 5), (2, 1000)])
def test_softmax(shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    for _ in range(10):
        file = TfliteFile()
        x, y = file.tensor(shape, scale(rng, 0.01), zero(rng)), file.tensor(shape, 1 / 256, -128)
        file.op("SOFTMAX", [x], [y], "SoftmaxOptions", Beta=1.0)
        check(file, [x], y, [np.clip(rng.normal(0, 40, (5, *shape)), -128, 127).astype(np.int8)], tmp_path)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("QUANTIZE", "int8"), ("QUANTIZE", "uint8"), ("RELU", "int8"), ("RELU6", "int8")]
)
def test_changes_of_scale_exhaustively(kind: str, dtype: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    for _ in range(30):
        first = scale(rng, 0.01)
        file = TfliteFile()
        x = file.tensor((1, 256), first, zero(rng))
        y = file.tensor((1, 256), first * float(rng.uniform(0.4, 2)), zero(rng) + 128 * (dtype == "uint8"), dtype=dtype)
        file.op(kind, [x], [y])
        check(file, [x], y, [values], tmp_path)


def test_moves_keep_the_files_element_order(tmp_path: Path) -> None:
    """Pad, concatenation, strided slice, split, transpose and reshapes between ranks, against LiteRT."""
    rng = np.random.default_rng(14)
    quantization = 0.1, 5
    file = TfliteFile()
    x = file.tensor((1, 4, 6, 3), *quantization)
    padded = file.tensor((1, 7, 7, 3), *quantization)
    file.op("PAD", [x, file.tensor(data=np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))], [padded])
    joined = file.tensor((1, 7, 7, 6), *quantization)
    file.op("CONCATENATION", [padded, padded], [joined], "ConcatenationOptions", Axis=-1, FusedActivationFunction=NONE)
    sliced = file.tensor((1, 3, 5, 4), *quantization)
    bounds = [file.tensor(data=np.array(item, np.int32)) for item in ([0, 1, 1, -5], [1, 6, -1, 9], [1, 2, 1, 1])]
    file.op("STRIDED_SLICE", [joined, *bounds], [sliced], "StridedSliceOptions", BeginMask=0, EndMask=8)
    file.tensors[sliced]["shape"] = (1, 3, 5, 5)
    turned = file.tensor((1, 5, 5, 3), *quantization)
    file.op("TRANSPOSE", [sliced, file.tensor(data=np.array([0, 3, 2, 1], np.int32))], [turned])
    flat = file.tensor((5, 15), *quantization)
    file.op("RESHAPE", [turned, file.tensor(data=np.array([5, 15], np.int32))], [flat])
    parts = [file.tensor((5, 6), *quantization), file.tensor((5, 9), *quantization)]
    sizes, axis = file.tensor(data=np.array([6, -1], np.int32)), file.tensor(data=np.array(1, np.int32))
    file.op("SPLIT_V", [flat, sizes, axis], parts, "SplitVOptions", NumSplits=2)
    back = file.tensor((1, 3, 5, 3), *quantization)
    file.op("RESHAPE", [parts[1], file.tensor(data=np.array([1, 3, 5, 3], np.int32))], [back])
    check(file, [x], back, [int8(rng, 3, 1, 4, 6, 3)], tmp_path)


def lstm_file(rng: np.random.Generator, *, time_major: bool, clip: float, cell_exponent: int) -> tuple[Any, ...]:
    """A random integer LSTM of 7 inputs and 5 cells over 9 steps of 2 sequences."""
    features, hidden, steps, batch = 7, 5, 9, 2
    file = TfliteFile()
    shape = (steps, batch) if time_major else (batch, steps)
    x = file.tensor((*shape, features), 0.02, 11)
    inputs = [x]
    inputs += [file.tensor(scale=scale(rng, 0.01, 0.03), data=int8(rng, hidden, features)) for _ in range(4)]
    inputs += [file.tensor(scale=scale(rng, 0.01, 0.03), data=int8(rng, hidden, hidden)) for _ in range(4)]
    inputs += [-1] * 3
    inputs += [
        file.tensor(scale=0.02 * file.tensors[inputs[1 + gate]]["scales"], data=bias)
        for gate, bias in enumerate(rng.integers(-4000, 4000, (4, hidden)).astype(np.int32))
    ]
    inputs += [-1, -1, file.tensor((batch, hidden), 0.007, variable=True)]
    inputs += [file.tensor((batch, hidden), 2.0**cell_exponent, dtype="int16", variable=True)]
    inputs += [-1] * 4
    intermediates = [file.tensor((0,), 1.0) for _ in range(4)] + [file.tensor((0,), 0.007)]
    y = file.tensor((*shape, hidden), 0.007)
    file.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [y], "UnidirectionalSequenceLSTMOptions", intermediates,
        FusedActivationFunction=4, CellClip=clip, ProjClip=0.0, TimeMajor=time_major,
    )  # fmt: skip
    return file, x, y, (*shape, features)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize(("clip", "cell_exponent"), [(0.0, -11), (10.0, -12), (0.5, -12), (0.0, -15)])
def test_lstm_of_random_weights(time_major: bool, clip: float, cell_exponent: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(15)
    for _ in range(3):
        file, x, y, shape = lstm_file(rng, time_major=time_major, clip=clip, cell_exponent=cell_exponent)
        check(file, [x], y, [int8(rng, 4, *shape)], tmp_path)
