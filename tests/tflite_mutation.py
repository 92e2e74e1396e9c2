"""Damaging TFLite files, in their bytes and in their tables, and reading what comes out within bounds of time."""

from __future__ import annotations

import random
from pathlib import Path

import flatbuffers
import numpy as np
from onnx_mutation import SIZES, time_limit
from tflite_files import TfliteFile

from dse.compiler import prepare
from dse.core.errors import ModelError
from workloads.tflite import read_model

_WORDS = (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000)


def wide_file(seed: int) -> TfliteFile:
    """Convolution and sum on int16, between changes of width."""
    rng = np.random.default_rng(seed)
    file = TfliteFile()
    x, wide = file.tensor((1, 6, 6, 3), 0.1, 3), file.tensor((1, 6, 6, 3), 4e-4, dtype="int16")
    file.op("QUANTIZE", [x], [wide])
    weight = file.tensor(scale=np.full(3, 0.01), data=rng.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8))
    bias = file.tensor(scale=np.full(3, 4e-6), data=np.arange(3, dtype=np.int64))
    first, both = (file.tensor((1, 6, 6, 3), scale, dtype="int16") for scale in (7e-4, 1e-3))
    file.op(
        "CONV_2D", [wide, weight, bias], [first], "Conv2DOptions", Padding=0, StrideH=1, StrideW=1,
        DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=1,
    )  # fmt: skip
    file.op("ADD", [first, wide], [both], "AddOptions", FusedActivationFunction=0, PotScaleInt16=False)
    file.op("QUANTIZE", [both], [file.tensor((1, 6, 6, 3), 0.2, -5)])
    return file


def small_file(seed: int) -> TfliteFile:
    """Convolution, add, mean, dense layer, softmax; seeded weights and shapes."""
    rng = np.random.default_rng(seed)
    channels, size = int(rng.integers(1, 5)), int(rng.integers(4, 9))
    file = TfliteFile()
    x = file.tensor((1, size, size, channels), 0.1, 3)
    weight = file.tensor(scale=np.full(4, 0.01), data=rng.integers(-127, 128, (4, 3, 3, channels)).astype(np.int8))
    bias = file.tensor(scale=np.full(4, 0.001), data=np.arange(4, dtype=np.int32))
    first, both, pooled = (file.tensor((1, size, size, 4), scale, -5) for scale in (0.2, 0.3, 0.3))
    file.op(
        "CONV_2D", [x, weight, bias], [first], "Conv2DOptions", Padding=0, StrideH=1, StrideW=1,
        DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=1,
    )  # fmt: skip
    file.op("ADD", [first, first], [both], "AddOptions", FusedActivationFunction=0)
    file.op(
        "AVERAGE_POOL_2D", [both], [pooled], "Pool2DOptions", Padding=0, StrideH=1, StrideW=1,
        FilterHeight=2, FilterWidth=2, FusedActivationFunction=0,
    )  # fmt: skip
    axes = file.tensor(data=np.array([1, 2], np.int32))
    averaged = file.tensor((1, 4), 0.3, -5)
    file.op("MEAN", [pooled, axes], [averaged], "ReducerOptions", KeepDims=False)
    dense = file.tensor(scale=0.02, data=rng.integers(-127, 128, (10, 4)).astype(np.int8))
    logits, result = file.tensor((1, 10), 0.3, 1), file.tensor((1, 10), 1 / 256, -128)
    file.op(
        "FULLY_CONNECTED", [averaged, dense, -1], [logits], "FullyConnectedOptions",
        FusedActivationFunction=0, WeightsFormat=0, KeepNumDims=False,
    )  # fmt: skip
    file.op("SOFTMAX", [logits], [result], "SoftmaxOptions", Beta=1.0)
    return file


def small_bytes(seed: int) -> bytes:
    """`small_file`, or for every third seed `wide_file`, as it lies on disk."""
    file = wide_file(seed) if seed % 3 == 2 else small_file(seed)
    return file.bytes([0], [len(file.tensors) - 1])


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` damaged once: cut, spliced, single bytes, or whole words where the tables lie (not in weights)."""
    damaged = bytearray(data)
    kind, at = rng.randrange(8), rng.randrange(len(data))
    if kind == 0:
        return bytes(damaged[:at])
    if kind == 1:
        length = rng.randrange(1, 64)
        return bytes(
            damaged[:at] + damaged[at + length :] if rng.random() < 0.5 else damaged[: at + length] + data[at:]
        )
    places = _table_words(data)
    for _ in range(rng.randint(1, 3)):
        if kind < 5:
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            continue
        # an offset, a length or a field of a table: small changes keep it plausible
        place = rng.choice(places)
        old = int.from_bytes(damaged[place : place + 4], "little")
        new = rng.choice((*_WORDS, *(size & 0xFFFFFFFF for size in SIZES), old + 1, old - 1, old ^ 4, len(data)))
        damaged[place : place + 4] = (new & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(damaged)


def _table_words(data: bytes) -> list[int]:
    """Positions of aligned words that hold a small number: offsets, lengths, sizes and codes rather than weights."""
    words = np.frombuffer(data[: len(data) & ~3], np.uint32)
    small = np.flatnonzero((words > 0) & (words < 1 << 16)) * flatbuffers.number_types.UOffsetTFlags.bytewidth
    return [int(place) for place in small] or [0]


def outcome(path: Path) -> str:
    """ "read" or "refused"; anything else that happens is raised.

    Raises
    ------
    TooSlow: reading and preparing took too long.
    ValueError: the refusal has more than one line.
    """
    with time_limit():
        try:
            prepare(read_model(path))
        except ModelError as error:
            if "\n" in str(error):
                raise ValueError(f"a refusal of more than one line: {error}") from error
            return "refused"
    return "read"
