"""Reading an ONNX file, untrusted, into a normalised Graph.

Shapes are inferred here, node by node, because every op is normalised here anyway and because a wrong shape must
name the node it comes from. Whatever is wrong with a file ends in one ModelError.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import defs

from dse.core.errors import ModelError, nearest
from dse.ir.graph import Graph, Tensor
from workloads.onnx.arithmetic import ELEMENT_TYPES
from workloads.onnx.computing import compute
from workloads.onnx.constants import MAX_ELEMENTS, ConstantLoader
from workloads.onnx.folding import FOLDED, constant, constant_of_shape, range_of, shape_of, size_of
from workloads.onnx.node import GraphBuilder, Node
from workloads.onnx.nodes import LIVE
from workloads.onnx.qdq import to_integers

#: A protobuf message cannot be larger; nothing bigger is read into memory.
MAX_FILE_BYTES = (2 << 30) - 1
OLDEST_OPSET = 7

_ALWAYS_CONSTANT = {
    "Constant": constant, "ConstantOfShape": constant_of_shape, "Shape": shape_of, "Size": size_of, "Range": range_of,
}  # fmt: skip
_FIRST_OUTPUT_OPTIONAL = ("LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM", "Split", "If")
SUPPORTED_OPS = tuple(sorted({*LIVE, *FOLDED, *_ALWAYS_CONSTANT, "If"}))


def read_model(path: Path, dims: Mapping[str, int] | None = None, *, source: str | None = None) -> Graph:
    """Read an ONNX file.

    Parameters
    ----------
    path
        The file; external data is looked for in its folder and nowhere else.
    dims
        Sizes of symbolic dimensions: by their name, or as INPUT.AXIS for a dimension without a name. And values of
        inputs that hold one whole number, by the name of the input: such an input becomes a constant.
    source
        How messages call the model; the file's name when not given.

    Raises
    ------
    ModelError: anything that keeps the file from being read.
    """
    source = path.name if source is None else source
    model = _parse(path, source)
    _check_names(model, source)
    return _read(model, path, dict(dims or {}), source)


def _read(model: onnx.ModelProto, path: Path, dims: dict[str, int], source: str) -> Graph:
    opset = _opset(model, source)
    if not model.graph.node:
        raise ModelError(f"{source}: holds no network (its graph has no nodes); is it a complete ONNX file?")
    if len(model.graph.sparse_initializer):
        raise ModelError(f"{source}: sparse initializers are not supported; store the weights dense")
    builder = GraphBuilder(source, ConstantLoader(source, path.parent))
    for tensor in model.graph.initializer:
        _read_initializer(builder, tensor, tensor.name)
    inputs = _read_inputs(model.graph, builder, dims)
    for index, proto in enumerate(model.graph.node):
        _read_node(builder, proto, index, opset)
    return _finish(model.graph, builder, path.stem, inputs)


def _read_initializer(builder: GraphBuilder, tensor: onnx.TensorProto, name: str) -> None:
    if name in builder.tensors:
        raise ModelError(f"{builder.source}: initializer {name!r} appears twice")
    data = builder.constants.decode(tensor, name)
    builder.tensors[name] = Tensor(name, data.shape, str(data.dtype), data=data)


def _parse(path: Path, source: str) -> onnx.ModelProto:
    try:
        if not path.is_file():
            kind = "is no ordinary file" if path.exists() else "does not exist"
            present = sorted(entry.name for entry in path.parent.glob("*.onnx")) if path.parent.is_dir() else []
            raise ModelError(f"{source}: the model file {kind}{nearest(path.name, present) if present else ''}")
        # before parsing: protobuf would read the whole file first
        size = os.path.getsize(path)
        if not 0 < size <= MAX_FILE_BYTES:
            raise ModelError(f"{source}: a file of {size:,} bytes; an ONNX file has 1 to {MAX_FILE_BYTES:,}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{source}: is not an ONNX file, or is damaged or cut off ({size:,} bytes)") from error
    return model


def _check_names(model: onnx.ModelProto, source: str) -> None:
    """Names must be text: protobuf hands out those that are not UTF-8 as bytes, or raises, by implementation."""
    try:
        names: list[Any] = [entry.domain for entry in model.opset_import]
        for graph in _graphs(model.graph):
            names += [graph.name, *(tensor.name for tensor in graph.initializer)]
            for node in graph.node:
                names += [node.name, node.op_type, node.domain, *node.input, *node.output]
                names += [item.name for item in node.attribute]
            for value in (*graph.input, *graph.output):
                names += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    except UnicodeDecodeError as error:
        raise ModelError(f"{source}: is damaged: a name in it is not UTF-8 text") from error
    for name in names:
        if not isinstance(name, str):
            raise ModelError(f"{source}: is damaged: the name {name!r} in it is not UTF-8 text")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the branches in it."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.HasField("g"):
                yield from _graphs(item.g)


def _opset(model: onnx.ModelProto, source: str) -> int:
    """Version of the default operator set, within what is supported."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    newest = defs.onnx_opset_version()
    if not versions:
        raise ModelError(f"{source}: names no opset; is it a complete ONNX file?")
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise ModelError(f"{source}: opset {versions[0]} is not supported, only {OLDEST_OPSET} to {newest}")
    return int(versions[0])


def _read_inputs(graph: onnx.GraphProto, builder: GraphBuilder, dims: dict[str, int]) -> tuple[str, ...]:
    source, names = builder.source, []
    symbols: set[str] = set()
    inputs = {value.name for value in graph.input}
    for name, size in dims.items():
        if size < 1 and name not in inputs:
            raise ModelError(f"{source}: dimension {name!r} is bound to {size}, it must be at least 1")
    for value in graph.input:
        # before IR version 4 initializers were listed among the inputs
        if value.name in builder.tensors:
            if builder.tensors[value.name].data is None:
                raise ModelError(f"{source}: input {value.name!r} appears twice")
            continue
        if value.type.WhichOneof("value") != "tensor_type" or not value.type.tensor_type.HasField("shape"):
            raise ModelError(f"{source}: input {value.name!r} is not a tensor with a shape")
        dtype = ELEMENT_TYPES.get(value.type.tensor_type.elem_type)
        if dtype is None:
            raise ModelError(f"{source}: input {value.name!r} must hold floats, integers up to 64 bits, or BOOL")
        shape = []
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            symbols.add(dim.dim_param or f"{value.name}.{axis}")
            shape.append(_dimension(source, value.name, axis, dim, dims))
        if value.name in dims:
            _bind_input(builder, value.name, shape, dtype, dims[value.name])
            symbols.add(value.name)
            continue
        if np.prod(shape, dtype=np.float64) > MAX_ELEMENTS:
            raise ModelError(f"{source}: input {value.name!r} of shape {shape} is above {MAX_ELEMENTS:,} elements")
        builder.tensors[value.name] = Tensor(value.name, tuple(shape), dtype)
        names.append(value.name)
    for name in dims:
        if name not in symbols:
            raise ModelError(f"{source}: has no dimension {name!r} to bind{nearest(name, symbols)}")
    return tuple(names)


def _bind_input(builder: GraphBuilder, name: str, shape: list[int], dtype: str, number: int) -> None:
    """The input `name` becomes a constant: what a caller binds to one number."""
    if dtype == "float32" or np.prod(shape, dtype=np.float64) != 1:
        raise ModelError(
            f"{builder.source}: input {name!r} is {dtype} of shape {shape}; only an input of one whole number can be "
            "bound to a value"
        )
    limits = np.array([0, 1]) if dtype == "bool" else np.array([np.iinfo(dtype).min, np.iinfo(dtype).max])
    if not limits[0] <= number <= limits[1]:
        raise ModelError(f"{builder.source}: input {name!r} ({dtype}) cannot hold {number}")
    builder.tensors[name] = Tensor(name, tuple(shape), dtype, data=np.full(shape, number, dtype))


def _dimension(source: str, name: str, axis: int, dim: Any, dims: Mapping[str, int]) -> int:
    # -1 is how some exporters write a free dimension
    if dim.WhichOneof("value") == "dim_value" and dim.dim_value != -1:
        if dim.dim_value < 1:
            raise ModelError(f"{source}: dimension {axis} of input {name!r} is {dim.dim_value}, it must be at least 1")
        return int(dim.dim_value)
    symbol = dim.dim_param or f"{name}.{axis}"
    if symbol not in dims:
        raise ModelError(
            f"{source}: dimension {axis} of input {name!r} is free ({symbol!r}); bind it with --dim {symbol}=VALUE"
        )
    return dims[symbol]


def _read_node(builder: GraphBuilder, proto: onnx.NodeProto, index: int, opset: int) -> None:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    op_type = f"{domain}.{proto.op_type}" if domain else proto.op_type
    name = proto.name or f"{op_type}_{index}"
    # an LSTM may be asked for its last state alone
    if not any(proto.output) or not (proto.output[0] or op_type in _FIRST_OUTPUT_OPTIONAL):
        raise ModelError(f"{builder.source}: node {name!r} ({op_type}, opset {opset}) has no output")
    try:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute}
    except ValueError as error:
        raise ModelError(f"{builder.source}: node {name!r} ({op_type}, opset {opset}): {error}") from error
    inputs = tuple(builder.aliases.get(item, item) for item in proto.input)
    node = Node(name, op_type, opset, inputs, tuple(proto.output), attributes, builder)
    if op_type not in SUPPORTED_OPS:
        node.fail(f"this operator is not supported; supported: {', '.join(SUPPORTED_OPS)}")
    try:
        if op_type == "If":
            _read_branch(node, opset)
        else:
            _convert(node)
    except (ValueError, IndexError, ArithmeticError) as error:
        # NumPy's word on operands that do not fit each other: the file's fault, not ours
        node.fail(f"is malformed: {error}")


def _convert(node: Node) -> None:
    if node.op_type in _ALWAYS_CONSTANT:
        _ALWAYS_CONSTANT[node.op_type](node)
    elif node.op_type in FOLDED and node.all_constant():
        source = node.constant(0, "operand")
        try:
            with np.errstate(all="ignore"):
                result = FOLDED[node.op_type](node, source)
        except TypeError as error:
            # element types that NumPy has no such operation for
            node.fail(f"is malformed: {error}")
        if not np.may_share_memory(result, source):
            node.builder.constants.charge(node.outputs[0], result.shape, result.itemsize)
        node.set_constant(result)
    elif node.op_type in LIVE:
        first = len(node.builder.ops)
        LIVE[node.op_type](node)
        if node.all_constant():
            compute(node, first)
    else:
        node.fail("is supported on constants only (shape arithmetic)")


def _read_branch(node: Node, opset: int) -> None:
    """If: the branch that a constant condition takes, read in place; its tensors get names of their own."""
    if node.tensor(0).data is None:
        node.fail(
            f"the condition {node.inputs[0]!r} is computed from inputs; where it follows from an input of one whole "
            "number, bind that input: --dim INPUT=VALUE"
        )
    condition = node.constant(0, "the condition")
    if condition.size != 1:
        node.fail(f"the condition must be one truth value, got shape {list(condition.shape)}")
    branch = node.attributes.get("then_branch" if condition.any() else "else_branch")
    if not isinstance(branch, onnx.GraphProto):
        node.fail("has no branch for its condition")
    if len(branch.output) != len(node.outputs):
        node.fail(f"a branch of {len(branch.output)} outputs does not fit its {len(node.outputs)}")
    builder = node.builder
    outer = dict(builder.aliases)
    for tensor in branch.initializer:
        builder.aliases[tensor.name] = node.internal(tensor.name)
        _read_initializer(builder, tensor, builder.aliases[tensor.name])
    for index, proto in enumerate(branch.node):
        inner = onnx.NodeProto()
        inner.CopyFrom(proto)
        fresh = {name: node.internal(name) for name in proto.output if name}
        del inner.output[:]
        inner.output.extend(fresh.get(name, "") for name in proto.output)
        _read_node(builder, inner, index, opset)
        # only now: a node may read an outer tensor of the name it writes
        builder.aliases.update(fresh)
    results = [builder.aliases.get(value.name, value.name) for value in branch.output]
    builder.aliases = outer
    for name, result in zip(node.outputs, results, strict=True):
        tensor = builder.tensors.get(result)
        if tensor is None:
            node.fail(f"its branch does not produce {result!r}")
        if name and tensor.data is not None:
            node.set_constant(tensor.data, name)
        elif name:
            node.emit("identity", (result,), tensor.shape, output=name)


def _finish(graph: onnx.GraphProto, builder: GraphBuilder, name: str, inputs: tuple[str, ...]) -> Graph:
    outputs = tuple(value.name for value in graph.output)
    if not outputs or not inputs:
        raise ModelError(f"{builder.source}: has {len(inputs)} inputs and {len(outputs)} outputs; both are needed")
    for output in outputs:
        if output not in builder.tensors:
            raise ModelError(f"{builder.source}: output {output!r} is produced by no node")
    used = {*inputs, *outputs, *(name for op in builder.ops for name in (*op.inputs, *op.outputs))}
    tensors = {name: tensor for name, tensor in builder.tensors.items() if name in used}
    result = Graph(graph.name or name, tensors, tuple(builder.ops), inputs, outputs, builder.source)
    return to_integers(result, builder.tensors, builder.dequantized)
