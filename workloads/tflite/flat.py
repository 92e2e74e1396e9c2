"""Decoding a TFLite flatbuffer, untrusted, into plain Python values.

This is the only place that touches the flatbuffer: offsets in it point anywhere, so that every access may raise, and
all of that ends here in one ModelError. What comes out has bounded counts, but may still be nonsense as a network.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError, nearest

try:
    import tflite
except ImportError as error:
    raise ImportError("TFLite files need the package tflite: pip install 'silicon-dse[tflite]'") from error

#: Flatbuffer offsets are 31 bits: a valid file is never larger.
MAX_FILE_BYTES = (1 << 31) - 1
#: Counts above these are damage or an attack, not a network; they bound the time and memory of decoding.
MAX_SUBGRAPHS, MAX_ITEMS, MAX_RANK, MAX_OPERANDS = 64, 1 << 16, 8, 1 << 12

_OP_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}
_TYPE_NAMES = {code: name for name, code in vars(tflite.TensorType).items() if isinstance(code, int)}
_NUMPY_TYPES = {"INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FLOAT32": "<f4"}

_WINDOW = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
#: Options table of each operator and the fields that are read from it.
_OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, "DilationHFactor", "DilationWFactor")),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, "DilationHFactor", "DilationWFactor")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat", "KeepNumDims")),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "ADD": ("AddOptions", ("FusedActivationFunction", "PotScaleInt16")),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
    "VAR_HANDLE": ("VarHandleOptions", ("Container", "SharedName")),
    "CALL_ONCE": ("CallOnceOptions", ("InitSubgraphIndex",)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "UnidirectionalSequenceLSTMOptions", ("FusedActivationFunction", "CellClip", "ProjClip", "TimeMajor"),
    ),
}  # fmt: skip

_T = TypeVar("_T")


@dataclass(frozen=True)
class RawTensor:
    """A tensor as the file has it: NHWC shape, element type by name, per-axis scales, values when constant."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int
    data: npt.NDArray[Any] | None
    variable: bool


@dataclass(frozen=True)
class RawOperator:
    """An operator as the file has it; tensors by index, -1 = absent."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class RawSubgraph:
    """Tensors and operators of one subgraph."""

    tensors: tuple[RawTensor, ...]
    operators: tuple[RawOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def decode_file(path: Path, source: str) -> tuple[RawSubgraph, ...]:
    """Every subgraph of a TFLite file, the main one first.

    Raises
    ------
    ModelError: the file is missing, oversized, no TFLite file, damaged, or beyond the limits on counts.
    """
    data = _read_bytes(path, source)
    if data[4:8] != b"TFL3":
        raise ModelError(f"{source}: is not a TFLite file (no TFL3 mark in its first 8 bytes)")
    try:
        return _decode(data, source)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError) as error:
        # offsets that lead out of the file, or tables where other tables should be
        raise ModelError(f"{source}: is damaged or cut off ({len(data):,} bytes)") from error


def _read_bytes(path: Path, source: str) -> bytes:
    try:
        if not path.is_file():
            kind = "is no ordinary file" if path.exists() else "does not exist"
            present = sorted(entry.name for entry in path.parent.glob("*.tflite")) if path.parent.is_dir() else []
            raise ModelError(f"{source}: the model file {kind}{nearest(path.name, present) if present else ''}")
        size = os.path.getsize(path)
        if not 8 <= size <= MAX_FILE_BYTES:
            raise ModelError(f"{source}: a file of {size:,} bytes; a TFLite file has 8 to {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decode(data: bytes, source: str) -> tuple[RawSubgraph, ...]:
    model = tflite.Model.GetRootAsModel(data, 0)
    if model.Version() != 3:
        raise ModelError(f"{source}: schema version {model.Version()} is not supported, only 3")
    codes = tuple(_op_name(code) for code in _tables(model, "OperatorCodes", source, MAX_ITEMS))
    buffers = _tables(model, "Buffers", source, MAX_ITEMS)
    subgraphs = _tables(model, "Subgraphs", source, MAX_SUBGRAPHS)
    if not subgraphs:
        raise ModelError(f"{source}: holds no network (no subgraph)")
    return tuple(_subgraph(subgraph, codes, buffers, source) for subgraph in subgraphs)


def _tables(parent: Any, name: str, source: str, limit: int) -> list[Any]:
    length = getattr(parent, f"{name}Length")()
    if length > limit:
        raise ModelError(f"{source}: claims {length:,} {name}, at most {limit:,} are read")
    return [_present(getattr(parent, name)(index)) for index in range(length)]


def _present(value: _T | None) -> _T:
    if value is None:
        raise ValueError("a table is missing")
    return value


def _integers(parent: Any, name: str, limit: int) -> tuple[int, ...]:
    if getattr(parent, f"{name}IsNone")():
        return ()
    if getattr(parent, f"{name}Length")() > limit:
        raise ValueError(f"{name} is too long")
    return tuple(int(value) for value in np.atleast_1d(getattr(parent, f"{name}AsNumpy")()))


def _op_name(code: Any) -> str:
    # codes above 127 do not fit the older field
    value = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if value == tflite.BuiltinOperator.CUSTOM:
        return f"CUSTOM {(code.CustomCode() or b'?').decode('utf-8', 'replace')!r}"
    return str(_OP_NAMES.get(value, f"operator {value}"))


def _subgraph(subgraph: Any, codes: tuple[str, ...], buffers: list[Any], source: str) -> RawSubgraph:
    tensors = tuple(
        _tensor(index, tensor, buffers, source)
        for index, tensor in enumerate(_tables(subgraph, "Tensors", source, MAX_ITEMS))
    )
    operators = tuple(
        _operator(index, operator, codes, len(tensors), source)
        for index, operator in enumerate(_tables(subgraph, "Operators", source, MAX_ITEMS))
    )
    ends = [_references(subgraph, name, len(tensors), f"{source}: the subgraph") for name in ("Inputs", "Outputs")]
    if -1 in ends[0] or -1 in ends[1]:
        raise ModelError(f"{source}: an input or output of the subgraph is absent")
    return RawSubgraph(tensors, operators, ends[0], ends[1])


def _references(parent: Any, name: str, tensors: int, who: str) -> tuple[int, ...]:
    indices = _integers(parent, name, MAX_OPERANDS)
    for index in indices:
        if not -1 <= index < tensors:
            raise ModelError(f"{who} refers to tensor {index}; there are {tensors}")
    return indices


def _tensor(index: int, tensor: Any, buffers: list[Any], source: str) -> RawTensor:
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    what = f"{source}: tensor {index} ({name!r})"
    shape = _integers(tensor, "Shape", MAX_RANK)
    dtype = str(_TYPE_NAMES.get(tensor.Type(), f"type {tensor.Type()}"))
    if tensor.Sparsity() is not None:
        raise ModelError(f"{what} is sparse, which is not supported; store it dense")
    scale, zero_point, axis = _quantization(tensor.Quantization(), what)
    if tensor.Buffer() >= len(buffers):
        raise ModelError(f"{what} refers to buffer {tensor.Buffer()}; there are {len(buffers)}")
    data = _values(buffers[tensor.Buffer()], shape, dtype, what)
    return RawTensor(index, name, shape, dtype, scale, zero_point, axis, data, bool(tensor.IsVariable()))


def _quantization(table: Any, what: str) -> tuple[tuple[float, ...], tuple[int, ...], int]:
    if table is None or not table.ScaleLength():
        return (), (), 0
    scale = np.atleast_1d(table.ScaleAsNumpy())
    zero_point = _integers(table, "ZeroPoint", len(scale)) or (0,) * len(scale)
    if len(zero_point) != len(scale):
        raise ModelError(f"{what} has {len(scale)} scales but {len(zero_point)} zero points")
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise ModelError(f"{what} has a scale that is negative or not finite")
    return tuple(scale.tolist()), zero_point, int(table.QuantizedDimension())


def _values(buffer: Any, shape: tuple[int, ...], dtype: str, what: str) -> npt.NDArray[Any] | None:
    if buffer.Offset() > 1:
        raise ModelError(f"{what} keeps its values behind the flatbuffer (a file above 2 GiB), which is not supported")
    if buffer.DataIsNone() or not buffer.DataLength() or dtype not in _NUMPY_TYPES:
        return None
    data = buffer.DataAsNumpy()
    wanted = int(np.prod([max(size, 0) for size in shape], dtype=np.float64)) * np.dtype(_NUMPY_TYPES[dtype]).itemsize
    if data.size != wanted:
        raise ModelError(
            f"{what} of shape {list(shape)} and type {dtype} has {data.size} bytes of values, not {wanted}"
        )
    # a view: tensors that share a buffer do not multiply it
    return np.frombuffer(memoryview(data), _NUMPY_TYPES[dtype]).reshape(shape)


def _operator(index: int, operator: Any, codes: tuple[str, ...], tensors: int, source: str) -> RawOperator:
    if operator.OpcodeIndex() >= len(codes):
        raise ModelError(f"{source}: op {index} refers to operator code {operator.OpcodeIndex()}; it has {len(codes)}")
    kind = codes[operator.OpcodeIndex()]
    who = f"{source}: op {index} ({kind})"
    inputs, outputs, intermediates = (
        _references(operator, name, tensors, who) for name in ("Inputs", "Outputs", "Intermediates")
    )
    return RawOperator(index, kind, inputs, outputs, intermediates, _options(operator, kind, who))


def _options(operator: Any, kind: str, who: str) -> dict[str, Any]:
    if kind not in _OPTIONS:
        return {}
    table_name, fields = _OPTIONS[kind]
    table = operator.BuiltinOptions()
    if table is None or operator.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, table_name):
        raise ModelError(f"{who} has no {table_name}")
    options = getattr(tflite, table_name)()
    options.Init(table.Bytes, table.Pos)
    read: dict[str, Callable[[], Any]] = {field: getattr(options, field) for field in fields}
    return {field: value() for field, value in read.items()}
