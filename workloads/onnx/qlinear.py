"""QuantizeLinear, DequantizeLinear and the QLinear operators: integers with static scales.

uint8 becomes int8: value and zero point both less 128, which changes no real value; uint16 becomes int16 likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from dse.ir.graph import Quantization, Tensor
from workloads.onnx.arithmetic import broadcast
from workloads.onnx.geometry import as_map, emit_map, map_shape, padding, pair, window_output
from workloads.onnx.layers import check_conv, check_depth, kernel_of
from workloads.onnx.node import Array, Node
from workloads.onnx.pools import pool_window

#: What an integer loses on its way to a signed type of the same width.
_OFFSETS = {"int8": 0, "uint8": 128, "int16": 0, "uint16": 1 << 15}
#: That type.
_SIGNED = {"int8": "int8", "uint8": "int8", "int16": "int16", "uint16": "int16"}


def quantization_at(
    node: Node, at: int, dtype: str | None = None, axis: int | None = None, *, wide: bool = False
) -> Quantization:
    """The quantization in inputs `at` (scale) and `at` + 1 (zero point, 0 when absent), constants both.

    `dtype` is that of the quantized tensor where the zero point is absent; `axis` that of a scale per slice; with
    `wide` it may have 16 bits, which QLinear operators do not.
    """
    scale = node.constant(at, "scale").astype(np.float32)
    if scale.ndim > 1 or not (np.isfinite(scale).all() and (scale > 0).all()) or not scale.size:
        node.fail(f"scale {node.inputs[at]!r} must be one positive number, or one per channel")
    if scale.size > 1 and axis is None:
        node.fail(f"scale {node.inputs[at]!r} has {scale.size} values, where only one per tensor is supported")
    zero = node.constant(at + 1, "zero point") if node.has(at + 1) else np.zeros(1, dtype or "uint8")
    if str(zero.dtype) not in (*_OFFSETS, "int32"):
        node.fail(
            f"zero points of type {zero.dtype} are not supported, only INT8, UINT8, INT16, UINT16 and (biases) INT32"
        )
    if zero.dtype.itemsize == 2 and not wide:
        node.fail(f"integers of type {zero.dtype} are supported by QuantizeLinear and DequantizeLinear only")
    if not zero.size or (zero != zero.ravel()[0]).any():
        node.fail(f"zero point {node.inputs[at + 1]!r} differs by channel, which is not supported")
    offset = _OFFSETS.get(str(zero.dtype), 0)
    channels = axis if scale.size > 1 else None
    bits = 16 if zero.dtype.itemsize == 2 else 8
    return Quantization(tuple(float(value) for value in scale.ravel()), int(zero.ravel()[0]) - offset, channels, bits)


def as_signed(values: Array) -> Array:
    """uint8 less 128 as int8, uint16 less 32768 as int16; other integers as they are."""
    offset = _OFFSETS.get(str(values.dtype), 0)
    return (values.astype(np.int64) - offset).astype(_SIGNED[str(values.dtype)]) if offset else values


def operand(node: Node, index: int, axis: int | None = None) -> str:
    """Input `index`, quantized by the scale and zero point behind it, as an int8 tensor."""
    tensor = node.tensor(index)
    return integer_tensor(node, tensor, quantization_at(node, index + 1, tensor.dtype, axis))


def integer_tensor(node: Node, tensor: Tensor, quantization: Quantization) -> str:
    """`tensor` with a quantization: a constant gets a copy, an integer input of the network learns it here."""
    builder, axis = node.builder, quantization.axis
    if axis is not None and (axis >= len(tensor.shape) or tensor.shape[axis] != len(quantization.scale)):
        node.fail(f"{len(quantization.scale)} scales do not fit axis {axis} of {list(tensor.shape)}")
    if tensor.data is not None:
        key = (tensor.name, repr(quantization))
        if key not in builder.derived:
            if tensor.dtype not in (*_OFFSETS, "int32"):
                node.fail(f"{tensor.name!r} holds {tensor.dtype}, not integers of 8 or 16 (or, for biases, 32) bits")
            data = as_signed(tensor.data)
            name = node.internal("integers")
            builder.tensors[name] = Tensor(name, data.shape, str(data.dtype), quantization, data)
            builder.derived[key] = name
        return builder.derived[key]
    if tensor.quantization is None and tensor.dtype in _OFFSETS:
        if any(tensor.name in op.inputs or tensor.name in op.outputs for op in builder.ops):
            node.fail(f"reads {tensor.name!r} as quantized integers, which another node takes or makes as plain ones")
        builder.tensors[tensor.name] = replace(tensor, dtype=_SIGNED[tensor.dtype], quantization=quantization)
    elif tensor.quantization != quantization:
        found = "no quantization" if tensor.quantization is None else f"scale {tensor.quantization.scale[0]:g}"
        node.fail(f"reads {tensor.name!r} on scale {quantization.scale[0]:g}, but it has {found}")
    return tensor.name


# -- between real and integer ----------------------------------------------------------------------------------------


def quantize_linear(node: Node) -> None:
    """QuantizeLinear to integers of 8 or 16 bits, one scale per tensor."""
    x = node.tensor(0)
    if node.integer("block_size", 0) or (not node.has(2) and node.integer("output_dtype", 2) not in (0, 2)):
        node.fail("block_size and output_dtype are not supported; give the type by the zero point")
    if x.dtype != "float32":
        node.fail(f"its input must be FLOAT, not {x.dtype}")
    quantization = quantization_at(node, 1, "uint8", wide=True)
    node.emit("quantize", (x.name,), x.shape, dtype=f"int{quantization.bits}", quantization=quantization)


def dequantize_linear(node: Node) -> None:
    """DequantizeLinear; of a constant (weights) it is a constant again, its integers kept at hand."""
    x = node.tensor(0)
    if node.integer("block_size", 0):
        node.fail("block_size is not supported")
    axis = node.axis(node.integer("axis", 1), len(x.shape)) if node.constant(1, "scale").size > 1 else None
    quantization = quantization_at(node, 1, x.dtype, axis, wide=True)
    name = integer_tensor(node, x, quantization)
    if x.data is None:
        node.emit("dequantize", (name,), x.shape, dtype="float32")
        return
    integers = node.builder.tensors[name].data
    assert integers is not None
    scale = np.asarray(quantization.scale, np.float32)
    shape = [-1 if place == axis else 1 for place in range(len(x.shape))] if axis is not None else ()
    real = (integers.astype(np.int64) - quantization.zero_point).astype(np.float32) * scale.reshape(shape)
    node.builder.dequantized[node.set_constant(real.astype(np.float32))] = name


# -- layers ----------------------------------------------------------------------------------------------------------


def _weights(node: Node, index: int, axis: int) -> str:
    name = operand(node, index, axis)
    quantization = node.builder.tensors[name].quantization
    if quantization is None or quantization.zero_point != 0:
        node.fail("weights must be symmetric: zero point 0 for int8, 128 for uint8")
    return name


def _integer_bias(node: Node, index: int, channels: int) -> tuple[str, ...]:
    if not node.has(index):
        return ()
    bias = node.constant(index, "bias")
    if bias.dtype != np.int32 or bias.size != channels:
        node.fail(f"bias {bias.dtype} {list(bias.shape)} must be int32, one value for each of {channels} outputs")
    if bias.shape == (channels,):
        return (node.inputs[index],)
    return (node.set_constant(bias.reshape(channels), node.internal("bias")),)


def qlinear_conv(node: Node) -> None:
    """QLinearConv, 1-D and 2-D."""
    operand(node, 0)
    weight = node.constant(3, "weight")
    integers = _weights(node, 3, 0)
    shape, groups = check_conv(node, node.tensor(0).shape, weight)
    rank, kernel = weight.ndim, kernel_of(node, weight)
    strides, dilations = pair(node, "strides", rank), pair(node, "dilations", rank)
    pads = padding(node, shape, rank, kernel, strides, dilations)
    out = window_output(node, shape, kernel, strides, pads, dilations)
    if rank == 3:
        tensor, lifted = node.builder.tensors[integers], node.internal("kernel")
        assert tensor.data is not None
        wide = tensor.data[:, :, None]
        node.builder.tensors[lifted] = replace(tensor, name=lifted, shape=wide.shape, data=wide)
        integers = lifted
    inputs = (as_map(node, 0), integers, *_integer_bias(node, 8, weight.shape[0]))
    emit_map(
        node, "conv", inputs, (shape[0], weight.shape[0], *out), rank, dtype="int8",
        quantization=quantization_at(node, 6), strides=strides, pads=pads, dilations=dilations, groups=groups,
        activation="none",
    )  # fmt: skip


def qlinear_matmul(node: Node) -> None:
    """QLinearMatMul: a dense layer where B is a constant matrix, else a product of two activations."""
    a, b = node.tensor(0), node.tensor(3)
    if min(len(a.shape), len(b.shape)) < 2:
        node.fail(f"operands must have two dimensions or more, got {list(a.shape)} and {list(b.shape)}")
    check_depth(node, a.shape[-1], b.shape[-2])
    left, quantization = operand(node, 0), quantization_at(node, 6)
    if b.data is not None and len(b.shape) == 2 and a.data is None:
        _dense(node, left, _transposed(node, _weights(node, 3, 1)), quantization)
        return
    right = operand(node, 3)
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    node.emit("matmul", (left, right), shape, dtype="int8", quantization=quantization)


def _transposed(node: Node, name: str) -> str:
    """A quantized constant matrix transposed, with the axis of its scales."""
    tensor = node.builder.tensors[name]
    assert tensor.data is not None
    assert tensor.quantization is not None
    axis = tensor.quantization.axis
    turned = replace(tensor.quantization, axis=None if axis is None else 1 - axis)
    result = node.internal("weight")
    node.builder.tensors[result] = replace(
        tensor, name=result, shape=tensor.shape[::-1], data=tensor.data.T, quantization=turned
    )
    return result


def _dense(node: Node, x: str, weight: str, quantization: Quantization, bias: tuple[str, ...] = ()) -> None:
    """A gemm over the last axis of `x`, flattened to rows around it."""
    shape = (*node.builder.tensors[x].shape[:-1], node.builder.tensors[weight].shape[0])
    rows = (int(np.prod(shape[:-1])), shape[-1])
    flat = len(shape) == 2
    if not flat:
        wide = (rows[0], node.builder.tensors[x].shape[-1])
        x = node.emit("reshape", (x,), wide, output=node.internal("rows"), shape=wide)
    name = node.emit(
        "gemm", (x, weight, *bias), rows, output=None if flat else node.internal("product"), dtype="int8",
        quantization=quantization, activation="none",
    )  # fmt: skip
    if not flat:
        node.emit("reshape", (name,), shape, shape=shape)


def qgemm(node: Node) -> None:
    """com.microsoft.QGemm with a constant B and integer output."""
    x, weight = operand(node, 0), node.constant(3, "B")
    if node.integer("transA", 0) or len(node.tensor(0).shape) != 2 or weight.ndim != 2:
        node.fail("A must be (batch, features), not transposed, and B a matrix")
    if node.number("alpha", 1.0) != 1 or not node.has(7):
        node.fail("only alpha 1 and a quantized output are supported")
    turned = bool(node.integer("transB", 0))
    integers = _weights(node, 3, 0 if turned else 1)
    integers = integers if turned else _transposed(node, integers)
    outputs, features = node.builder.tensors[integers].shape
    check_depth(node, node.tensor(0).shape[1], features)
    _dense(node, x, integers, quantization_at(node, 7), _integer_bias(node, 6, outputs))


# -- elementwise, pools ----------------------------------------------------------------------------------------------


def qlinear_binary(node: Node) -> None:
    """com.microsoft.QLinearAdd and QLinearMul of tensors of equal shape."""
    shape = broadcast(node, (0, 3))
    names = operand(node, 0), operand(node, 3)
    found = [list(node.tensor(index).shape) for index in (0, 3)]
    if any(tuple(item) != shape for item in found):
        node.fail(
            f"operands of different shapes {found[0]} and {found[1]} are not supported: onnxruntime rounds them by a "
            "rule of their own"
        )
    quantization = quantization_at(node, 6)
    if node.op_type.endswith("Add"):
        node.emit("add", names, shape, dtype="int8", quantization=quantization, activation="none")
    else:
        node.emit("mul", names, shape, dtype="int8", quantization=quantization)


def qlinear_unary(node: Node) -> None:
    """com.microsoft.QLinearSigmoid and QLinearLeakyRelu: a table of 256 entries in onnxruntime."""
    sigmoid = node.op_type.endswith("Sigmoid")
    more: dict[str, Any] = {} if sigmoid else {"alpha": node.number("alpha", 0.01)}
    x, quantization = operand(node, 0), quantization_at(node, 3)
    kind = "sigmoid" if sigmoid else "leaky_relu"
    node.emit(kind, (x,), node.tensor(0).shape, dtype="int8", quantization=quantization, **more)


def qlinear_concat(node: Node) -> None:
    """com.microsoft.QLinearConcat: output scale and zero point, then (tensor, scale, zero point) each."""
    count = (len(node.inputs) - 2) // 3
    if count < 1 or len(node.inputs) != 2 + 3 * count:
        node.fail(f"{len(node.inputs)} inputs are not a scale, a zero point and three for each operand")
    names = tuple(operand(node, 2 + 3 * place) for place in range(count))
    shapes = [node.tensor(2 + 3 * place).shape for place in range(count)]
    axis = node.axis(node.integer("axis", 1), len(shapes[0]))
    if len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) > 1:
        node.fail(f"shapes {', '.join(str(list(shape)) for shape in shapes)} cannot be joined along axis {axis}")
    joined = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
    node.emit("concat", names, joined, dtype="int8", quantization=quantization_at(node, 0), axis=axis)


def qlinear_pool(node: Node) -> None:
    """com.microsoft.QLinearGlobalAveragePool and QLinearAveragePool of NCHW maps."""
    if node.integer("channels_last", 0):
        node.fail("channels_last 1 is not supported, only NCHW")
    x, quantization = operand(node, 0), quantization_at(node, 3)
    shape, rank = map_shape(node, node.tensor(0).shape, "pooling"), len(node.tensor(0).shape)
    if rank != 4:
        node.fail(f"only NCHW maps are supported, got {list(node.tensor(0).shape)}")
    if "Global" in node.op_type:
        node.emit("global_average_pool", (x,), (*shape[:2], 1, 1), dtype="int8", quantization=quantization)
        return
    window, strides, pads, out = pool_window(node, shape, rank)
    node.emit(
        "average_pool", (x,), (*shape[:2], *out), dtype="int8", quantization=quantization, kernel=window,
        strides=strides, pads=pads, count_include_pad=bool(node.integer("count_include_pad", 0)),
    )  # fmt: skip


QLINEAR: dict[str, Callable[[Node], None]] = {
    "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear, "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul, "com.microsoft.QuantizeLinear": quantize_linear,
    "com.microsoft.DequantizeLinear": dequantize_linear, "com.microsoft.QGemm": qgemm,
    "com.microsoft.QLinearAdd": qlinear_binary, "com.microsoft.QLinearMul": qlinear_binary,
    "com.microsoft.QLinearSigmoid": qlinear_unary, "com.microsoft.QLinearLeakyRelu": qlinear_unary,
    "com.microsoft.QLinearConcat": qlinear_concat, "com.microsoft.QLinearGlobalAveragePool": qlinear_pool,
    "com.microsoft.QLinearAveragePool": qlinear_pool,
}  # fmt: skip
