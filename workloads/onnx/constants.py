"""Constant tensors of a model file, untrusted: decoded within a budget, external data only from the model's folder."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from dse.core.errors import ModelError

Array = npt.NDArray[Any]

#: All constants of a model together, fills by ConstantOfShape included.
MAX_CONSTANT_BYTES = 2 << 30
#: Elements of any one tensor.
MAX_ELEMENTS = (1 << 31) - 1

_FLOATS = (
    onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
)  # fmt: skip
_INTEGERS = (
    onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT16, onnx.TensorProto.UINT16,
    onnx.TensorProto.INT32, onnx.TensorProto.UINT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL,
)  # fmt: skip


class ConstantLoader:
    """Decodes the TensorProtos of one model and keeps count of their bytes.

    Parameters
    ----------
    source
        The model, for messages.
    folder
        The model file's folder; external data must lie in it.
    """

    def __init__(self, source: str, folder: Path) -> None:
        self._source, self._folder, self._bytes = source, folder, 0

    def charge(self, name: str, shape: tuple[int, ...], item_bytes: int) -> None:
        """Count a constant against the limits.

        Raises
        ------
        ModelError: a negative dimension, too many elements, or all constants together too big.
        """
        if any(size < 0 for size in shape):
            raise ModelError(f"{self._source}: constant {name!r} has a negative dimension in its shape {list(shape)}")
        elements = math.prod(shape)
        if elements > MAX_ELEMENTS:
            raise ModelError(
                f"{self._source}: constant {name!r} of shape {list(shape)} has {elements:,} elements, "
                f"above the limit of {MAX_ELEMENTS:,}"
            )
        self._bytes += elements * item_bytes
        if self._bytes > MAX_CONSTANT_BYTES:
            raise ModelError(
                f"{self._source}: with {name!r} of shape {list(shape)} the constants take {self._bytes:,} bytes, "
                f"above the limit of {MAX_CONSTANT_BYTES:,}"
            )

    def decode(self, tensor: onnx.TensorProto, name: str) -> Array:
        """The values of a TensorProto; floats of every width become float32.

        Raises
        ------
        ModelError: wrong number of values, an unsupported element type, external data that may not be read.
        """
        kind = tensor.data_type
        if kind not in _FLOATS + _INTEGERS:
            known = dict(zip(onnx.TensorProto.DataType.values(), onnx.TensorProto.DataType.keys(), strict=True))
            raise ModelError(
                f"{self._source}: constant {name!r} has element type {known.get(kind, kind)}; "
                "supported: FLOAT, DOUBLE, FLOAT16, BFLOAT16, integers up to 64 bits, BOOL"
            )
        shape = tuple(tensor.dims)
        item_bytes = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
        self.charge(name, shape, item_bytes)
        if tensor.HasField("segment"):
            raise ModelError(f"{self._source}: constant {name!r} is stored in segments, which are not supported")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = self._with_external(tensor, name, math.prod(shape) * item_bytes)
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{self._source}: constant {name!r} of shape {list(shape)} is damaged: {error}") from error
        if array.shape != shape:
            raise ModelError(f"{self._source}: constant {name!r} holds {list(array.shape)}, not {list(shape)}")
        return array.astype(np.float32) if kind in _FLOATS and array.dtype != np.float32 else array

    def _with_external(self, tensor: onnx.TensorProto, name: str, size: int) -> onnx.TensorProto:
        """The tensor with its bytes read from the file beside the model."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = self._external_path(location, name)
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError:
            raise ModelError(
                f"{self._source}: constant {name!r}: offset and length of its external data must be integers"
            ) from None
        if length != size or offset < 0:
            raise ModelError(
                f"{self._source}: constant {name!r}: {length:,} bytes at offset {offset:,} of {location!r} "
                f"cannot hold its {size:,} bytes"
            )
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read(size)
        except OSError as error:
            raise ModelError(
                f"{self._source}: constant {name!r}: cannot read external data {location!r}: {error.strerror}"
            ) from error
        if len(data) != size:
            raise ModelError(
                f"{self._source}: constant {name!r} needs bytes {offset:,} to {offset + size:,} of {location!r}, "
                "which is shorter"
            )
        filled = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, name=tensor.name)
        filled.raw_data = data
        return filled

    def _external_path(self, location: str | bytes, name: str) -> Path:
        """Path of an external data file, checked to be an ordinary file inside the model's folder."""
        if isinstance(location, bytes):
            raise ModelError(f"{self._source}: constant {name!r}: external data {location!r} is no UTF-8 text")
        parts = Path(location).parts
        if not location or Path(location).is_absolute() or ".." in parts or "\\" in location or "\0" in location:
            raise ModelError(
                f"{self._source}: constant {name!r} has its data in {location!r}; external data must be a relative "
                "path inside the model's folder"
            )
        path = self._folder
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise ModelError(
                    f"{self._source}: constant {name!r}: external data {location!r} goes through a symbolic link, "
                    "which could leave the model's folder; copy the file instead"
                )
        if not os.path.isfile(path):
            raise ModelError(f"{self._source}: constant {name!r}: there is no external data file {location!r}")
        return path
