"""ONNX operators that become ops of the Graph: one function a family, each normalising attributes and weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dse.ir.windows import output_size
from workloads.onnx.constants import MAX_ELEMENTS
from workloads.onnx.folding import reshaped_shape, squeezed_shape
from workloads.onnx.node import Array, Node


def conv(node: Node) -> None:
    """Conv, 2-D, grouped and dilated, with constant weights."""
    x, weight = node.tensor(0), node.constant(1, "weight")
    if weight.ndim != 4 or len(x.shape) != 4:
        node.fail(f"only 2-D convolution is supported; input {list(x.shape)}, weight {list(weight.shape)}")
    groups = node.integer("group", 1)
    if groups < 1 or weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        node.fail(f"weight {list(weight.shape)} in {groups} groups does not fit the input {list(x.shape)}")
    kernel = (weight.shape[2], weight.shape[3])
    if node.ints("kernel_shape", kernel) != kernel:
        node.fail(f"kernel_shape {list(node.ints('kernel_shape', kernel))} differs from the weight's {list(kernel)}")
    strides, dilations = _pair(node, "strides"), _pair(node, "dilations")
    pads = _pads(node, x.shape, kernel, strides, dilations)
    inputs: tuple[str, ...] = (node.inputs[0], node.inputs[1])
    if node.has(2):
        bias = node.constant(2, "bias")
        if bias.shape != weight.shape[:1]:
            node.fail(f"bias {list(bias.shape)} does not fit {weight.shape[0]} output channels")
        inputs = (*inputs, node.inputs[2])
    out = _window_output(node, x.shape, kernel, strides, pads, dilations)
    node.emit(
        "conv", inputs, (x.shape[0], weight.shape[0], *out),
        strides=strides, pads=pads, dilations=dilations, groups=groups, activation="none",
    )  # fmt: skip


def gemm(node: Node) -> None:
    """Gemm with a constant B: alpha goes into the weights, beta into the bias, B is stored (out, in)."""
    x = node.tensor(0)
    if node.integer("transA", 0) or len(x.shape) != 2:
        node.fail(f"input A must be (batch, features) and not transposed, got {list(x.shape)}")
    weight = node.constant(1, "B")
    if weight.ndim != 2:
        node.fail(f"B must have two dimensions, got {list(weight.shape)}")
    weight = weight if node.integer("transB", 0) else weight.T
    _check_depth(node, x.shape, weight)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    name = node.inputs[1]
    if not node.integer("transB", 0) or alpha != 1:
        scaled = weight if alpha == 1 else weight * np.float32(alpha)
        name = node.set_constant(scaled, node.internal("weight"))
    inputs: tuple[str, ...] = (node.inputs[0], name)
    if node.has(2):
        bias = node.constant(2, "C")
        outputs = weight.shape[0]
        # a scalar, (M,), (1, M), or (N, M) for one row
        if bias.ndim > 2 or bias.size not in (1, outputs) or (bias.ndim == 2 and bias.shape[0] != 1):
            node.fail(f"C of shape {list(bias.shape)} is not one value per output ({outputs})")
        if bias.shape != (outputs,) or beta != 1:
            row = np.broadcast_to(bias.ravel() * np.float32(beta), (outputs,))
            inputs = (*inputs, node.set_constant(row.astype(np.float32), node.internal("bias")))
        else:
            inputs = (*inputs, node.inputs[2])
    node.emit("gemm", inputs, (x.shape[0], weight.shape[0]), activation="none")


def matmul(node: Node) -> None:
    """MatMul of (batch, features) with a constant matrix."""
    x, weight = node.tensor(0), node.constant(1, "right operand")
    if len(x.shape) != 2 or weight.ndim != 2:
        node.fail(f"only (batch, features) times a constant matrix, got {list(x.shape)} times {list(weight.shape)}")
    _check_depth(node, x.shape, weight.T)
    name = node.set_constant(weight.T, node.internal("weight"))
    node.emit("gemm", (node.inputs[0], name), (x.shape[0], weight.shape[1]), activation="none")


def _check_depth(node: Node, shape: tuple[int, ...], weight: Array) -> None:
    if weight.shape[1] != shape[1]:
        node.fail(f"weights for {weight.shape[1]} features do not fit the input {list(shape)}")


def add(node: Node) -> None:
    """Add, and Sum of any number of operands as a chain of two-operand adds."""
    names = [node.inputs[index] for index in range(len(node.inputs)) if node.tensor(index)]
    if len(names) == 1:
        node.emit("identity", (names[0],), node.tensor(0).shape)
        return
    left = names[0]
    for position, right in enumerate(names[1:], start=2):
        shapes = node.builder.tensors[left].shape, node.builder.tensors[right].shape
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            node.fail(f"shapes {list(shapes[0])} and {list(shapes[1])} do not broadcast")
        last = position == len(names)
        left = node.emit(
            "add", (left, right), shape, output=None if last else node.internal("partial"), activation="none"
        )


def batch_norm(node: Node) -> None:
    """BatchNormalization at inference."""
    x = node.tensor(0)
    if node.integer("training_mode", 0) or node.integer("spatial", 1) != 1 or any(node.outputs[1:]):
        node.fail("only inference is supported (training_mode 0, spatial 1, one output); export the model in eval mode")
    if len(x.shape) < 2:
        node.fail(f"needs a channel dimension, got {list(x.shape)}")
    for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1):
        values = node.constant(index, what)
        if values.shape != (x.shape[1],):
            node.fail(f"{what} of shape {list(values.shape)} does not fit {x.shape[1]} channels")
    node.emit("batch_norm", node.inputs[:5], x.shape, epsilon=node.number("epsilon", 1e-5))


def relu(node: Node) -> None:
    """Relu."""
    node.emit("relu", (node.inputs[0],), node.tensor(0).shape)


def clip(node: Node) -> None:
    """Clip: bounds are attributes before opset 11, inputs since."""
    low, high = -math.inf, math.inf
    if node.opset < 11:
        low, high = node.number("min", low), node.number("max", high)
    else:
        for index, what in ((1, "min"), (2, "max")):
            if node.has(index):
                bound = node.constant(index, what)
                if bound.size != 1:
                    node.fail(f"{what} must be one number, got shape {list(bound.shape)}")
                low, high = (float(bound.ravel()[0]), high) if index == 1 else (low, float(bound.ravel()[0]))
    if not low <= high:
        node.fail(f"bounds {low:g} and {high:g} are not in order")
    node.emit("clip", (node.inputs[0],), node.tensor(0).shape, low=low, high=high)


def pool(node: Node) -> None:
    """MaxPool and AveragePool, 2-D."""
    x = node.tensor(0)
    kernel = node.ints("kernel_shape", ())
    if len(x.shape) != 4 or len(kernel) != 2 or min(kernel) < 1:
        node.fail(f"only 2-D pooling is supported; input {list(x.shape)}, kernel {list(kernel)}")
    if any(node.outputs[1:]):
        node.fail("its second output (indices) is not supported")
    if _pair(node, "dilations") != (1, 1):
        node.fail(f"dilations {list(node.ints('dilations', ()))} are not supported, only [1, 1]")
    strides = _pair(node, "strides")
    window = (kernel[0], kernel[1])
    pads = _pads(node, x.shape, window, strides, (1, 1))
    if node.integer("ceil_mode", 0):
        if node.op_type == "AveragePool" and node.integer("count_include_pad", 0):
            node.fail("ceil_mode together with count_include_pad is not supported")
        pads = _ceil_pads(x.shape, window, strides, pads)
    if any(pad >= size for pad, size in zip(pads, window * 2, strict=True)):
        node.fail(f"pads {list(pads)} reach the kernel's size {list(window)}: a window would see only padding")
    shape = (*x.shape[:2], *_window_output(node, x.shape, window, strides, pads, (1, 1)))
    if node.op_type == "MaxPool":
        node.emit("max_pool", (node.inputs[0],), shape, kernel=window, strides=strides, pads=pads)
        return
    include = bool(node.integer("count_include_pad", 0))
    node.emit(
        "average_pool", (node.inputs[0],), shape,
        kernel=window, strides=strides, pads=pads, count_include_pad=include,
    )  # fmt: skip


def _ceil_pads(
    shape: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """Padding at the far ends that makes room for the partial last window ceil_mode asks for."""
    far = []
    for axis in (0, 1):
        size, before, after = shape[2 + axis], pads[axis], pads[2 + axis]
        count = -(-(size + before + after - kernel[axis]) // strides[axis]) + 1
        # a window that would start in the padding behind the map is dropped
        if (count - 1) * strides[axis] >= size + before:
            count -= 1
        far.append(max(after, (count - 1) * strides[axis] + kernel[axis] - size - before))
    return pads[0], pads[1], far[0], far[1]


def global_average_pool(node: Node) -> None:
    """GlobalAveragePool of NCHW maps."""
    shape = node.tensor(0).shape
    if len(shape) != 4:
        node.fail(f"only NCHW maps are supported, got {list(shape)}")
    node.emit("global_average_pool", (node.inputs[0],), (*shape[:2], 1, 1))


def reduce_mean(node: Node) -> None:
    """ReduceMean over rows and columns is a global average pool; over other axes it is not supported."""
    shape = node.tensor(0).shape
    # an input since opset 18, an attribute before
    axes = node.integers(1, "axes") if node.opset >= 18 and node.has(1) else node.ints("axes", ())
    if len(shape) != 4 or {node.axis(axis, 4) for axis in axes} != {2, 3}:
        node.fail(f"only the mean over axes 2 and 3 of NCHW maps is supported, got axes {list(axes)} of {list(shape)}")
    pooled = (*shape[:2], 1, 1)
    if node.integer("keepdims", 1):
        node.emit("global_average_pool", (node.inputs[0],), pooled)
        return
    pool_name = node.emit("global_average_pool", (node.inputs[0],), pooled, output=node.internal("pooled"))
    node.emit("flatten", (pool_name,), shape[:2], axis=1)


def softmax(node: Node) -> None:
    """Softmax along one axis; before opset 13 over everything from that axis on."""
    shape = node.tensor(0).shape
    axis = node.axis(node.integer("axis", -1 if node.opset >= 13 else 1), len(shape))
    if node.opset < 13:
        wide = [index for index in range(axis, len(shape)) if shape[index] != 1] or [axis]
        if len(wide) > 1:
            node.fail(f"softmax over several dimensions of {list(shape)} from axis {axis} on is not supported")
        axis = wide[0]
    node.emit("softmax", (node.inputs[0],), shape, axis=axis)


def flatten(node: Node) -> None:
    """Flatten to two dimensions."""
    shape = node.tensor(0).shape
    axis = node.integer("axis", 1)
    axis = axis if axis == len(shape) else node.axis(axis, len(shape))
    node.emit("flatten", (node.inputs[0],), (math.prod(shape[:axis]), math.prod(shape[axis:])), axis=axis)


def reshape(node: Node) -> None:
    """Reshape, Squeeze, Unsqueeze: a new shape for the same values."""
    shape = node.tensor(0).shape
    target = reshaped_shape(node, shape) if node.op_type == "Reshape" else squeezed_shape(node, shape)
    node.emit("reshape", (node.inputs[0],), target, shape=target)


def identity(node: Node) -> None:
    """Identity, and Dropout at inference."""
    if node.op_type == "Dropout":
        if any(node.outputs[1:]):
            node.fail("its mask output is not supported")
        if node.has(2) and bool(node.constant(2, "training_mode").any()):
            node.fail("training_mode is set; export the model in eval mode")
    node.emit("identity", (node.inputs[0],), node.tensor(0).shape)


def _pair(node: Node, key: str) -> tuple[int, int]:
    values = node.ints(key, (1, 1))
    if len(values) != 2 or min(values) < 1:
        node.fail(f"{key} {list(values)} must be two positive integers")
    return values[0], values[1]


def _pads(
    node: Node,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Padding as (top, left, bottom, right), `auto_pad` resolved."""
    auto = node.attributes.get("auto_pad", b"NOTSET")
    mode = auto.decode("utf-8", "replace") if isinstance(auto, bytes) else str(auto)
    if mode == "NOTSET":
        pads = node.ints("pads", (0, 0, 0, 0))
        if len(pads) != 4 or min(pads) < 0:
            node.fail(f"pads {list(pads)} must be four integers, none negative")
        return pads[0], pads[1], pads[2], pads[3]
    if mode == "VALID":
        return 0, 0, 0, 0
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        node.fail(f"auto_pad {mode!r} is unknown; known: NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    near, far = [], []
    for size, taps, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        small, big = total // 2, total - total // 2
        near.append(small if mode == "SAME_UPPER" else big)
        far.append(big if mode == "SAME_UPPER" else small)
    return near[0], near[1], far[0], far[1]


def _window_output(
    node: Node,
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
) -> tuple[int, int]:
    out = tuple(
        output_size(shape[2 + axis], kernel[axis], strides[axis], pads[axis], pads[2 + axis], dilations[axis])
        for axis in (0, 1)
    )
    padded = (*shape[:2], shape[2] + pads[0] + pads[2], shape[3] + pads[1] + pads[3])
    if math.prod(padded) > MAX_ELEMENTS:
        node.fail(f"its padded input {list(padded)} is above the limit of {MAX_ELEMENTS:,} elements")
    if min(out) < 1:
        node.fail(f"a kernel of {list(kernel)} does not fit the padded input {list(shape)}")
    return out[0], out[1]


#: Operators that become ops, by ONNX name.
LIVE: dict[str, Callable[[Node], None]] = {
    "Conv": conv, "Gemm": gemm, "MatMul": matmul, "Add": add, "Sum": add, "BatchNormalization": batch_norm,
    "Relu": relu, "Clip": clip, "MaxPool": pool, "AveragePool": pool, "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean, "Softmax": softmax, "Flatten": flatten, "Reshape": reshape, "Squeeze": reshape,
    "Unsqueeze": reshape, "Identity": identity, "Dropout": identity,
}  # fmt: skip
