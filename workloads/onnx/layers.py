"""Convolutions, dense layers and products of activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dse.ir.graph import Tensor
from workloads.onnx.geometry import (
    Pads,
    Pair,
    as_map,
    emit_map,
    explicit_padding,
    map_shape,
    padding,
    pair,
    window_output,
)
from workloads.onnx.node import Array, Node


def conv(node: Node) -> None:
    """Conv, 1-D and 2-D, grouped and dilated, with constant weights."""
    weight = node.constant(1, "weight")
    shape, groups = check_conv(node, node.tensor(0).shape, weight)
    rank = weight.ndim
    kernel = kernel_of(node, weight)
    strides, dilations = pair(node, "strides", rank), pair(node, "dilations", rank)
    pads = padding(node, shape, rank, kernel, strides, dilations)
    out = window_output(node, shape, kernel, strides, pads, dilations)
    inputs = (as_map(node, 0), weight_map(node, 1), *_bias(node, weight.shape[0]))
    emit_map(
        node, "conv", inputs, (shape[0], weight.shape[0], *out), rank,
        strides=strides, pads=pads, dilations=dilations, groups=groups, activation="none",
    )  # fmt: skip


def check_conv(node: Node, shape: tuple[int, ...], weight: Array) -> tuple[tuple[int, int, int, int], int]:
    """The input as (N, C, H, W), and the groups, of a convolution whose weights fit it."""
    lifted = map_shape(node, shape, "convolution")
    groups = node.integer("group", 1)
    if weight.ndim != len(shape) or 0 in weight.shape:
        node.fail(f"weight {list(weight.shape)} does not fit the input {list(shape)}")
    if groups < 1 or weight.shape[1] * groups != shape[1] or weight.shape[0] % groups:
        node.fail(f"weight {list(weight.shape)} in {groups} groups does not fit the input {list(shape)}")
    return lifted, groups


def kernel_of(node: Node, weight: Array) -> Pair:
    """Rows and columns of a convolution's kernel, checked against its attribute."""
    kernel = tuple(weight.shape[2:])
    if node.ints("kernel_shape", kernel) != kernel:
        node.fail(f"kernel_shape {list(node.ints('kernel_shape', kernel))} differs from the weight's {list(kernel)}")
    return (kernel[0], kernel[1]) if len(kernel) == 2 else (1, kernel[0])


def weight_map(node: Node, index: int) -> str:
    """Weights of a convolution with two kernel dimensions: those of a 1-D one get a row dimension."""
    tensor = node.tensor(index)
    if len(tensor.shape) == 4:
        return tensor.name
    shape = (*tensor.shape[:2], 1, tensor.shape[2])
    return derived_constant(node, tensor.name, "map", lambda values: values.reshape(shape))


def derived_constant(node: Node, name: str, how: str, change: Callable[[Array], Array]) -> str:
    """A constant made from constant `name`, once however often it is asked for; integers behind it change alike."""
    builder = node.builder
    key = (name, how)
    if key not in builder.derived:
        source = builder.tensors[name]
        assert source.data is not None
        builder.derived[key] = result = node.set_constant(change(source.data), node.internal("weight"))
        if name in builder.dequantized:
            behind = builder.tensors[builder.dequantized[name]]
            builder.dequantized[result] = _changed_integers(node, behind, how, change)
    return builder.derived[key]


def _changed_integers(node: Node, tensor: Tensor, how: str, change: Callable[[Array], Array]) -> str:
    assert tensor.data is not None
    quantization = tensor.quantization
    if how == "transposed" and quantization is not None and quantization.axis is not None:
        quantization = replace(quantization, axis=1 - quantization.axis)
    name = node.internal("integers")
    data = change(tensor.data)
    node.builder.tensors[name] = Tensor(name, data.shape, tensor.dtype, quantization, data)
    return name


def _bias(node: Node, channels: int) -> tuple[str, ...]:
    if not node.has(2):
        return ()
    bias = node.constant(2, "bias")
    if bias.shape != (channels,):
        node.fail(f"bias {list(bias.shape)} does not fit {channels} output channels")
    return (node.inputs[2],)


def conv_transpose(node: Node) -> None:
    """ConvTranspose, 1-D and 2-D, with constant weights."""
    x, weight = node.tensor(0).shape, node.constant(1, "weight")
    shape, rank = map_shape(node, x, "convolution"), len(x)
    groups = node.integer("group", 1)
    if weight.ndim != rank or groups < 1 or 0 in weight.shape or weight.shape[0] != x[1] or x[1] % groups:
        node.fail(f"weight {list(weight.shape)} in {groups} groups does not fit the input {list(x)}")
    kernel = kernel_of(node, weight)
    strides, dilations = pair(node, "strides", rank), pair(node, "dilations", rank)
    extra = pair(node, "output_padding", rank, default=0, least=0)
    full = [
        (shape[2 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 + extra[axis]
        for axis in (0, 1)
    ]
    pads = _transposed_padding(node, rank, full, (shape[2] * strides[0], shape[3] * strides[1]))
    out = full[0] - pads[0] - pads[2], full[1] - pads[1] - pads[3]
    channels = weight.shape[1] * groups
    inputs = (as_map(node, 0), weight_map(node, 1), *_bias(node, channels))
    emit_map(
        node, "conv_transpose", inputs, (shape[0], channels, *out), rank, strides=strides, pads=pads,
        dilations=dilations, groups=groups, output_padding=extra, activation="none",
    )  # fmt: skip


def _transposed_padding(node: Node, rank: int, full: list[int], same: Pair) -> Pads:
    """What is cropped from the full result: `pads`, or what reaches `output_shape` or the size that SAME means."""
    mode = node.choice("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    if "output_shape" in node.attributes:
        wanted = pair(node, "output_shape", rank)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = same
    else:
        return explicit_padding(node, rank) if mode == "NOTSET" else (0, 0, 0, 0)
    total = [size - goal for size, goal in zip(full, wanted, strict=True)]
    if min(total) < 0:
        node.fail(f"an output of {list(wanted)} is larger than the {full} that its kernel reaches")
    small, big = [size // 2 for size in total], [size - size // 2 for size in total]
    near, far = (small, big) if mode == "SAME_UPPER" else (big, small)
    return near[0], near[1], far[0], far[1]


def gemm(node: Node) -> None:
    """Gemm. With a constant B: alpha goes into the weights, beta into the bias, B is stored (out, in)."""
    x, y = node.tensor(0), node.tensor(1)
    if len(x.shape) != 2 or len(y.shape) != 2:
        node.fail(f"A and B must have two dimensions, got {list(x.shape)} and {list(y.shape)}")
    left = _transposed(node, x.name) if node.integer("transA", 0) else x.name
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if y.data is None:
        _gemm_of_activations(node, left, alpha, beta)
        return
    name = y.name if node.integer("transB", 0) else transposed_constant(node, y.name)
    if alpha != 1:
        name = derived_constant(node, name, f"times {alpha!r}", lambda values: values * np.float32(alpha))
    rows, depth = node.builder.tensors[left].shape
    outputs = node.builder.tensors[name].shape[0]
    check_depth(node, depth, node.builder.tensors[name].shape[1])
    row = _row_bias(node, outputs, beta)
    whole = row is not None or not node.has(2)
    product = node.emit(
        "gemm", (left, name, *((row,) if row else ())), (rows, outputs),
        output=None if whole else node.internal("product"), activation="none",
    )  # fmt: skip
    if not whole:
        _add_matrix(node, product, beta)


def _gemm_of_activations(node: Node, left: str, alpha: float, beta: float) -> None:
    right = _transposed(node, node.inputs[1]) if node.integer("transB", 0) else node.inputs[1]
    (rows, depth), (other, outputs) = node.builder.tensors[left].shape, node.builder.tensors[right].shape
    check_depth(node, depth, other)
    last = alpha == 1 and not node.has(2)
    product = node.emit("matmul", (left, right), (rows, outputs), output=None if last else node.internal("product"))
    if alpha != 1:
        factor = node.set_constant(np.asarray(alpha, np.float32), node.internal("alpha"))
        output = node.internal("scaled") if node.has(2) else None
        product = node.emit("mul", (product, factor), (rows, outputs), output=output)
    if node.has(2):
        _add_matrix(node, product, beta)


def _add_matrix(node: Node, product: str, beta: float) -> None:
    shape, bias = node.builder.tensors[product].shape, node.tensor(2)
    name = bias.name
    if np.broadcast_shapes(shape, bias.shape) != shape:
        node.fail(f"C of shape {list(bias.shape)} does not fit the product {list(shape)}")
    if beta != 1:
        factor = node.set_constant(np.asarray(beta, np.float32), node.internal("beta"))
        name = node.emit("mul", (name, factor), bias.shape, output=node.internal("weighted"))
    node.emit("add", (product, name), shape, activation="none")


def _row_bias(node: Node, outputs: int, beta: float) -> str | None:
    """C as one value per output, or None when it is absent or anything else (a matrix, an activation)."""
    if not node.has(2):
        return None
    bias = node.tensor(2)
    if bias.data is None or len(bias.shape) > 2 or bias.elements not in (1, outputs):
        return None
    if len(bias.shape) == 2 and bias.shape[0] != 1:
        return None
    if bias.shape == (outputs,) and beta == 1:
        return bias.name
    row = np.broadcast_to(bias.data.ravel() * np.float32(beta), (outputs,))
    return node.set_constant(row.astype(np.float32), node.internal("bias"))


def matmul(node: Node) -> None:
    """MatMul: a dense layer where the right operand is a constant matrix, else a product of two activations."""
    a, b = node.tensor(0), node.tensor(1)
    if not a.shape or not b.shape:
        node.fail("a single number is no operand")
    left = a.name if len(a.shape) > 1 else _reshaped(node, a.name, (1, *a.shape))
    right = b.name if len(b.shape) > 1 else _reshaped(node, b.name, (*b.shape, 1))
    shape_a, shape_b = node.builder.tensors[left].shape, node.builder.tensors[right].shape
    check_depth(node, shape_a[-1], shape_b[-2])
    stack = _broadcast(node, shape_a[:-2], shape_b[:-2])
    full = (*stack, shape_a[-2], shape_b[-1])
    final = (*stack, *(() if len(a.shape) == 1 else full[-2:-1]), *(() if len(b.shape) == 1 else full[-1:]))
    output = None if final == full else node.internal("product")
    if node.builder.tensors[right].data is not None and len(shape_b) == 2 and a.data is None:
        name = dense(node, left, transposed_constant(node, right), full, output)
    else:
        name = node.emit("matmul", (left, right), full, output=output)
    if final != full:
        node.emit("reshape", (name,), final, shape=final)


def dense(node: Node, x: str, weight: str, shape: tuple[int, ...], output: str | None) -> str:
    """A gemm over the last axis of `x`, of any rank: flattened to rows before and given its shape back behind."""
    if len(shape) == 2:
        return node.emit("gemm", (x, weight), shape, output=output, activation="none")
    rows = _reshaped(node, x, (math.prod(shape[:-1]), node.builder.tensors[x].shape[-1]))
    flat = (math.prod(shape[:-1]), shape[-1])
    product = node.emit("gemm", (rows, weight), flat, output=node.internal("rows"), activation="none")
    return node.emit("reshape", (product,), shape, output=output, shape=shape)


def _broadcast(node: Node, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(first, second)
    except ValueError:
        node.fail(f"stacks of {list(first)} and {list(second)} matrices do not broadcast")


def _reshaped(node: Node, name: str, shape: tuple[int, ...]) -> str:
    if node.builder.tensors[name].data is not None:
        return derived_constant(node, name, f"as {shape}", lambda values: values.reshape(shape))
    return node.emit("reshape", (name,), shape, output=node.internal("reshaped"), shape=shape)


def _transposed(node: Node, name: str) -> str:
    if node.builder.tensors[name].data is not None:
        return transposed_constant(node, name)
    shape = node.builder.tensors[name].shape
    return node.emit("transpose", (name,), shape[::-1], output=node.internal("transposed"), perm=(1, 0))


def transposed_constant(node: Node, name: str) -> str:
    """A constant matrix, transposed."""
    return derived_constant(node, name, "transposed", lambda values: values.T)


def check_depth(node: Node, features: int, rows: int) -> None:
    """Refuse a product whose inner dimensions differ."""
    if features != rows:
        node.fail(f"weights for {rows} features do not fit {features} of the input {list(node.tensor(0).shape)}")
