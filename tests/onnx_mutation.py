"""Damaging ONNX files, in their bytes and in their meaning, and reading what comes out within bounds of time."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import onnx
from onnx import numpy_helper

from dse.compiler import prepare
from dse.core.errors import ModelError
from workloads.onnx import read_model
from workloads.onnx.reader import SUPPORTED_OPS

#: Sizes that break arithmetic somewhere.
SIZES = (-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 7, 1000, 2**20, 2**31 - 1, 2**31, 2**62, 2**63 - 1)
SECONDS = 20


class TooSlow(Exception):  # noqa: N818
    """Reading took longer than `SECONDS`."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` damaged once: half of the time its bytes, else one to three fields of the model."""
    if rng.random() < 0.5:
        return _damaged_bytes(bytearray(data), rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.randint(1, 3)):
        rng.choice((_attribute, _wiring, _operator, _initializer, _shape, _version))(model, rng)
    return model.SerializeToString()


def _damaged_bytes(data: bytearray, rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    at = rng.randrange(len(data))
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        # a piece twice, or one missing
        length = rng.randrange(1, 64)
        return bytes(data[:at] + data[max(0, at - length) :] if rng.random() < 0.5 else data[:at] + data[at + length :])
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(data)


def _attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    if not node.attribute:
        return
    item = rng.choice(node.attribute)
    if item.ints:
        if rng.random() < 0.3:
            item.ints.append(rng.choice(SIZES))
        else:
            item.ints[rng.randrange(len(item.ints))] = rng.choice(SIZES)
    elif rng.random() < 0.3:
        node.attribute.remove(item)
    elif item.type == onnx.AttributeProto.INT:
        item.i = rng.choice(SIZES)
    elif item.type == onnx.AttributeProto.FLOAT:
        item.f = rng.choice((float("nan"), float("inf"), 0.0, -1.0, 1e38))
    else:
        item.s = rng.choice((b"", b"\xff\xfe", b"SAME_UPPER", b"linear", b"reverse"))


def _wiring(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = model.graph.node
    node = rng.choice(nodes)
    names = [
        "",
        *(tensor.name for tensor in model.graph.initializer),
        *(name for item in nodes for name in item.output),
    ]
    if rng.random() < 0.2:
        nodes.remove(node)
    elif node.input and rng.random() < 0.8:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif rng.random() < 0.5:
        node.input.append(rng.choice(names))
    else:
        del node.input[-1:]


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    name = rng.choice(SUPPORTED_OPS)
    node.domain, node.op_type = ("com.microsoft", name[14:]) if name.startswith("com.microsoft.") else ("", name)


def _initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    if tensor.data_type == onnx.TensorProto.INT64 and rng.random() < 0.7:
        try:
            values = numpy_helper.to_array(tensor).copy()
        except ValueError:
            # its type or its shape was damaged before
            return
        if values.size:
            values.ravel()[rng.randrange(values.size)] = rng.choice(SIZES)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    elif tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
    else:
        tensor.data_type = rng.randrange(0, 20)


def _shape(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice(model.graph.input)
    dims = value.type.tensor_type.shape.dim
    if not dims or rng.random() < 0.2:
        value.type.tensor_type.elem_type = rng.randrange(0, 20)
    elif rng.random() < 0.2:
        dims.add().dim_value = rng.choice(SIZES)
    else:
        rng.choice(dims).dim_value = rng.choice(SIZES)


def _version(model: onnx.ModelProto, rng: random.Random) -> None:
    model.opset_import[0].version = rng.randrange(7, 24)


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raises TooSlow in a block that takes longer than `SECONDS`; main thread only."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path) -> str:
    """ "read" or "refused"; anything else that happens is raised.

    Raises
    ------
    TooSlow: reading and preparing took longer than `SECONDS`.
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
