"""TFLite files that want harm or that we cannot read: damaged, oversized, or using what is unsupported.

All end in one ModelError of one line, or are read.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the tflite package is not installed")

from tflite_files import TfliteFile

from dse.core.errors import ModelError
from dse.ir.graph import Graph
from workloads.tflite import flat as flat_module
from workloads.tflite import network as network_module
from workloads.tflite import read_model

MODELS = Path(__file__).parents[3].parent / "shared" / "reference" / "models"


def small_network(**changes: Any) -> TfliteFile:
    """Convolution, pool, reshape, dense layer, softmax; `changes` replace options of the convolution."""
    rng = np.random.default_rng(0)
    file = TfliteFile()
    x = file.tensor((1, 8, 8, 3), 0.1, 3)
    weight = file.tensor(scale=np.full(4, 0.01), data=rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8))
    bias = file.tensor(scale=np.full(4, 0.001), data=np.arange(4, dtype=np.int32))
    conv = file.tensor((1, 4, 4, 4), 0.2, -5)
    options = {
        "Padding": 0, "StrideH": 2, "StrideW": 2, "DilationHFactor": 1, "DilationWFactor": 1,
        "FusedActivationFunction": 1, **changes,
    }  # fmt: skip
    file.op("CONV_2D", [x, weight, bias], [conv], "Conv2DOptions", **options)
    pooled = file.tensor((1, 2, 2, 4), 0.2, -5)
    file.op(
        "MAX_POOL_2D", [conv], [pooled], "Pool2DOptions", Padding=1, StrideH=2, StrideW=2,
        FilterHeight=2, FilterWidth=2, FusedActivationFunction=0,
    )  # fmt: skip
    flat = file.tensor((1, 16), 0.2, -5)
    file.op("RESHAPE", [pooled, file.tensor(data=np.array([1, 16], np.int32))], [flat])
    dense = file.tensor(scale=0.02, data=rng.integers(-127, 128, (10, 16)).astype(np.int8))
    logits, result = file.tensor((1, 10), 0.3, 1), file.tensor((1, 10), 1 / 256, -128)
    file.op(
        "FULLY_CONNECTED", [flat, dense, -1], [logits], "FullyConnectedOptions",
        FusedActivationFunction=0, WeightsFormat=0, KeepNumDims=False,
    )  # fmt: skip
    file.op("SOFTMAX", [logits], [result], "SoftmaxOptions", Beta=1.0)
    return file


def save(file: TfliteFile, folder: Path, name: str = "m.tflite") -> Path:
    path = folder / name
    path.write_bytes(file.bytes([0], [len(file.tensors) - 1]))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as error:
        read_model(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_undamaged_network_is_read(tmp_path: Path) -> None:
    graph = read_model(save(small_network(), tmp_path))
    assert [op.kind for op in graph.ops] == ["conv", "max_pool", "flatten", "gemm", "softmax"]
    assert graph[graph.inputs[0]].shape == (1, 3, 8, 8)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = save(small_network(), tmp_path).read_bytes()
    path = tmp_path / "cut.tflite"
    read = 0
    for length in range(0, len(data) - 1, max(1, len(data) // 400)):
        path.write_bytes(data[:length])
        with contextlib.suppress(ModelError):
            read_model(path)
            read += 1
    assert read == 0


def damage(data: bytes, rng: random.Random) -> bytes:
    """Some bytes replaced, biased to values that make big numbers and to whole 32-bit words."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        position = rng.randrange(len(damaged) - 4)
        if rng.random() < 0.5:
            damaged[position] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        else:
            word = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.randrange(1 << 32), len(data)))
            damaged[position : position + 4] = word.to_bytes(4, "little")
    return bytes(damaged)


def outcome(path: Path) -> Graph | None:
    with contextlib.suppress(ModelError):
        return read_model(path)
    return None


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_never_raise_anything_else(seed: int, tmp_path: Path) -> None:
    """500 files each: refused with a ModelError or read."""
    rng = random.Random(seed)
    data = save(small_network(), tmp_path).read_bytes()
    path = tmp_path / "bad.tflite"
    refused = 0
    for _ in range(500):
        path.write_bytes(damage(data, rng))
        refused += outcome(path) is None
    assert refused > 100


@pytest.mark.parametrize("name", ["pmw_okay_nabu", "tflm_mnist_lstm_int8", "ad01_autoencoder_int8"])
def test_damaged_real_networks_never_raise_anything_else(name: str, tmp_path: Path) -> None:
    source = MODELS / f"{name}.tflite"
    if not source.is_file():
        pytest.skip("the shared reference data is absent")
    data, rng, path = source.read_bytes(), random.Random(7), tmp_path / "bad.tflite"
    # most bytes are weights; the structure is aimed at by damaging many places at once
    refused = 0
    for _ in range(60):
        damaged = data
        for _ in range(20):
            damaged = damage(damaged, rng)
        path.write_bytes(damaged)
        refused += outcome(path) is None
    assert refused > 0


@pytest.mark.parametrize("content", [b"", b"\0", b"hello world, no model", b"\x1c\0\0\0TFL3", b"\xff" * 64])
def test_files_that_are_no_tflite(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    assert "m.tflite" in refusal(path)


def test_missing_files_folders_and_impossible_names(tmp_path: Path) -> None:
    save(small_network(), tmp_path, "resnet.tflite")
    assert "does not exist; did you mean 'resnet.tflite'" in refusal(tmp_path / "resnett.tflite")
    (tmp_path / "folder.tflite").mkdir()
    assert "is no ordinary file" in refusal(tmp_path / "folder.tflite")
    assert "m" in refusal(tmp_path / "m\0.tflite")


def test_size_is_checked_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    with path.open("wb") as stream:
        stream.truncate(3 << 30)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read although too big"))
    assert "3,221,225,472 bytes" in refusal(path)


def test_constants_are_limited_in_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MAX_CONSTANT_BYTES", 100)
    assert "constants above 100 bytes in total" in refusal(save(small_network(), tmp_path))


def test_counts_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_module, "MAX_ITEMS", 3)
    assert "at most 3 are read" in refusal(save(small_network(), tmp_path))


def reshaped(tensor: int, shape: tuple[int, ...]) -> Callable[[TfliteFile], None]:
    return lambda file: file.tensors[tensor].update(shape=shape)


def scaled(tensor: int, scales: Any) -> Callable[[TfliteFile], None]:
    return lambda file: file.tensors[tensor].update(scales=np.asarray(scales, np.float32))


def kind(op: int, name: str) -> Callable[[TfliteFile], None]:
    return lambda file: file.ops[op].update(kind=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (reshaped(3, (1, 5, 4, 4)), "declared as [1, 5, 4, 4], but comes out as [1, 4, 4, 4]"),
        (reshaped(0, (1, 8, 8, 2)), "do not fit an input of 2 channels"),
        (reshaped(0, (1, 0, 8, 3)), "must have 1 to"),
        (reshaped(0, (1 << 20, 1 << 20, 1, 3)), "must have 1 to"),
        (reshaped(5, (1, 17)), "cannot take the shape [1, 17]"),
        (scaled(3, [0.0]), "needs one positive quantization scale"),
        (scaled(0, [0.1, 0.2]), "needs one positive quantization scale, it has 2"),
        (scaled(1, [0.1, 0.2]), "have 2 scales for 4 output channels"),
        (scaled(4, [0.3]), "have different quantizations"),
        (scaled(3, [np.nan]), "negative or not finite"),
        (kind(2, "LOGISTIC"), "op 2 (LOGISTIC): its output must have scale 0.00390625"),
        (
            kind(2, "FLOOR"),
            "op 2 (FLOOR): this operator is not supported; supported: ADD, ASSIGN_VARIABLE, AVERAGE_POOL_2D",
        ),
        (kind(0, "DEPTHWISE_CONV_2D"), "has no DepthwiseConv2DOptions"),
        (lambda file: file.tensors[0].update(dtype="float32"), "must be quantized to int8 first"),
        (
            lambda file: file.tensors[2].update(data=np.zeros(5, np.int32), shape=(5,)),
            "bias must be int32 of shape [4]",
        ),
        (lambda file: file.ops[1].update(inputs=[8]), "op 1 (MAX_POOL_2D): reads tensor 't8', which nothing before"),
        (lambda file: file.ops[1].update(inputs=[99]), "refers to tensor 99; there are"),
        (lambda file: file.ops[1].update(inputs=[]), "input 0 is missing"),
        (lambda file: file.ops[4].update(outputs=[8]), "has values already"),
    ],
)
def test_what_is_wrong_is_named(change: Callable[[TfliteFile], None], words: str, tmp_path: Path) -> None:
    file = small_network()
    change(file)
    assert words in refusal(save(file, tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"StrideH": 0}, "StrideH is 0, it must be 1"),
        ({"StrideW": -3}, "StrideW is -3"),
        ({"DilationHFactor": 0}, "DilationHFactor is 0"),
        ({"DilationHFactor": 9, "Padding": 1}, "does not fit into 8"),
        ({"Padding": 2}, "padding 2 is unknown"),
        ({"FusedActivationFunction": 2}, "the fused activation RELU_N1_TO_1 is not supported"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, int], words: str, tmp_path: Path) -> None:
    assert words in refusal(save(small_network(**options), tmp_path))


def test_dimensions_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no dimension 'N' to bind; a TFLite file fixes its shapes"):
        read_model(save(small_network(), tmp_path), {"N": 2})
