"""Small TFLite files written for tests, and LiteRT's reference kernels to run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite

Array = npt.NDArray[Any]

_TYPES = {"int8": "INT8", "uint8": "UINT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float32": "FLOAT32"}


@dataclass
class TfliteFile:
    """One subgraph under construction; tensors are known by their index, shapes are NHWC."""

    tensors: list[dict[str, Any]] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)

    def tensor(
        self,
        shape: tuple[int, ...] = (),
        scale: float | Array | None = None,
        zero_point: int = 0,
        *,
        dtype: str = "int8",
        data: Array | None = None,
        axis: int = 0,
        variable: bool = False,
    ) -> int:
        if data is not None:
            shape, dtype = data.shape, str(data.dtype)
        scales = None if scale is None else np.atleast_1d(np.asarray(scale, np.float32))
        self.tensors.append({
            "shape": shape, "dtype": dtype, "scales": scales, "zero_point": zero_point,
            "data": data, "axis": axis, "variable": variable,
        })  # fmt: skip
        return len(self.tensors) - 1

    def op(
        self,
        kind: str,
        inputs: list[int],
        outputs: list[int],
        options: str = "",
        intermediates: list[int] | None = None,
        **fields: Any,
    ) -> None:
        self.ops.append({
            "kind": kind, "inputs": inputs, "outputs": outputs, "options": options,
            "fields": fields, "intermediates": intermediates,
        })  # fmt: skip

    def bytes(self, inputs: list[int], outputs: list[int]) -> bytes:
        builder = flatbuffers.Builder(1024)
        kinds = sorted({op["kind"] for op in self.ops})
        buffers = [_table(builder, "Buffer")]
        tensors = []
        for index, tensor in enumerate(self.tensors):
            buffer = 0
            if tensor["data"] is not None:
                buffer = len(buffers)
                data = builder.CreateNumpyVector(np.frombuffer(tensor["data"].tobytes(), np.uint8))
                buffers.append(_table(builder, "Buffer", Data=data))
            tensors.append(self._tensor(builder, index, tensor, buffer))
        ops = [self._op(builder, op, kinds) for op in self.ops]
        subgraph = _table(
            builder, "SubGraph",
            Tensors=_offsets(builder, tensors), Operators=_offsets(builder, ops),
            Inputs=_ints(builder, inputs), Outputs=_ints(builder, outputs),
        )  # fmt: skip
        codes = []
        for kind in kinds:
            code = getattr(tflite.BuiltinOperator, kind)
            codes.append(
                _table(builder, "OperatorCode", DeprecatedBuiltinCode=min(code, 127), Version=1, BuiltinCode=code)
            )
        model = _table(
            builder, "Model", Version=3, Subgraphs=_offsets(builder, [subgraph]),
            OperatorCodes=_offsets(builder, codes), Buffers=_offsets(builder, buffers),
        )  # fmt: skip
        builder.Finish(model, b"TFL3")
        return bytes(builder.Output())

    def _tensor(self, builder: Any, index: int, tensor: dict[str, Any], buffer: int) -> int:
        quantization = {}
        if tensor["scales"] is not None:
            zero_points = np.full(len(tensor["scales"]), tensor["zero_point"], np.int64)
            quantization["Quantization"] = _table(
                builder, "QuantizationParameters",
                Scale=builder.CreateNumpyVector(tensor["scales"]), ZeroPoint=builder.CreateNumpyVector(zero_points),
                QuantizedDimension=tensor["axis"],
            )  # fmt: skip
        return _table(
            builder, "Tensor", Shape=_ints(builder, list(tensor["shape"])), Buffer=buffer,
            Type=getattr(tflite.TensorType, _TYPES[tensor["dtype"]]), Name=builder.CreateString(f"t{index}"),
            IsVariable=tensor["variable"], **quantization,
        )  # fmt: skip

    def _op(self, builder: Any, op: dict[str, Any], kinds: list[str]) -> int:
        fields: dict[str, Any] = {"OpcodeIndex": kinds.index(op["kind"])}
        if op["options"]:
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, op["options"])
            fields["BuiltinOptions"] = _table(builder, op["options"], **op["fields"])
        if op["intermediates"]:
            fields["Intermediates"] = _ints(builder, op["intermediates"])
        return _table(
            builder, "Operator", Inputs=_ints(builder, op["inputs"]), Outputs=_ints(builder, op["outputs"]), **fields
        )


def _table(builder: Any, name: str, **fields: Any) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for key, value in fields.items():
        getattr(tflite, f"{name}Add{key}")(builder, value)
    return int(getattr(tflite, f"{name}End")(builder))


def _ints(builder: Any, values: list[int]) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, np.int32)))


def _offsets(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def litert(content: bytes) -> Any:
    """An allocated LiteRT interpreter with reference kernels that keeps every intermediate tensor.

    LiteRT 2 refuses biases whose quantized dimension does not exist (an older converter wrote 3 for vectors); the
    kernels never read that field, which is set to 0 here.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    data = bytearray(content)
    subgraph = tflite.Model.GetRootAsModel(data, 0).Subgraphs(0)
    for index in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(index)
        quantization = tensor.Quantization()
        if quantization is not None and quantization.QuantizedDimension() >= max(tensor.ShapeLength(), 1):
            table = quantization._tab
            position = table.Pos + table.Offset(16)
            data[position : position + 4] = bytes(4)
    interpreter = Interpreter(
        model_content=bytes(data), num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )  # fmt: skip
    interpreter.allocate_tensors()
    return interpreter


def to_nchw(values: Array) -> Array:
    """An activation of a file as the Graph holds it."""
    return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values


def to_nhwc(values: Array) -> Array:
    """An activation of the Graph as the file holds it."""
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
