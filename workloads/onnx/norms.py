"""Normalizations and softmax."""

from __future__ import annotations

import math

import numpy as np

from workloads.onnx.node import Node


def batch_norm(node: Node) -> None:
    """BatchNormalization at inference."""
    x = node.tensor(0)
    if node.integer("training_mode", 0) or node.integer("spatial", 1) != 1 or any(node.outputs[1:]):
        node.fail("only inference is supported (training_mode 0, spatial 1, one output); export the model in eval mode")
    _channels(node)
    for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1):
        values = node.constant(index, what)
        if values.shape != (x.shape[1],):
            node.fail(f"{what} of shape {list(values.shape)} does not fit {x.shape[1]} channels")
    node.emit("batch_norm", node.inputs[:5], x.shape, epsilon=node.number("epsilon", 1e-5))


def _channels(node: Node) -> int:
    shape = node.tensor(0).shape
    if len(shape) < 2:
        node.fail(f"needs a channel dimension, got {list(shape)}")
    return shape[1]


def layer_norm(node: Node) -> None:
    """LayerNormalization and RMSNormalization over all axes from `axis` on."""
    shape = node.tensor(0).shape
    axis = node.axis(node.integer("axis", -1), len(shape))
    if any(node.outputs[1:]):
        node.fail("its statistics as outputs are not supported")
    rms = node.op_type == "RMSNormalization"
    for index, what in ((1, "scale"), *(() if rms or not node.has(2) else ((2, "bias"),))):
        found = node.tensor(index).shape
        if np.broadcast_shapes(shape[axis:], found) != shape[axis:]:
            node.fail(f"{what} {list(found)} does not fit the normalized shape {list(shape[axis:])}")
    inputs = node.inputs[: 3 if node.has(2) and not rms else 2]
    kind = "rms_norm" if rms else "layer_norm"
    node.emit(kind, inputs, shape, axis=axis, epsilon=node.number("epsilon", 1e-5))


def instance_norm(node: Node) -> None:
    """InstanceNormalization: every channel of every image by its own statistics."""
    channels = _channels(node)
    for index, what in ((1, "scale"), (2, "bias")):
        if node.tensor(index).shape != (channels,):
            node.fail(f"{what} {list(node.tensor(index).shape)} does not fit {channels} channels")
    node.emit("instance_norm", node.inputs[:3], node.tensor(0).shape, epsilon=node.number("epsilon", 1e-5))


def group_norm(node: Node) -> None:
    """GroupNormalization; scale and bias per group (opset 18 to 20) are spread over its channels."""
    channels, groups = _channels(node), node.integer("num_groups", 0)
    if groups < 1 or channels % groups:
        node.fail(f"num_groups {groups} must divide the {channels} channels")
    names = []
    for index, what in ((1, "scale"), (2, "bias")):
        shape = node.tensor(index).shape
        if shape == (channels,) and (node.opset >= 21 or groups == channels):
            names.append(node.inputs[index])
        elif shape == (groups,) and node.opset < 21:
            spread = np.repeat(node.constant(index, what), channels // groups)
            names.append(node.set_constant(spread, node.internal(what)))
        else:
            node.fail(f"{what} {list(shape)} fits neither {channels} channels nor {groups} groups")
    epsilon = node.number("epsilon", 1e-5)
    node.emit("group_norm", (node.inputs[0], *names), node.tensor(0).shape, groups=groups, epsilon=epsilon)


def lrn(node: Node) -> None:
    """LRN: local response normalization across channels."""
    size = node.integer("size", 0)
    most = 2 * _channels(node) + 1
    if not 1 <= size <= most or size % 2 == 0:
        node.fail(f"size {size} must be odd and lie in 1..{most} for {_channels(node)} channels")
    node.emit(
        "lrn", (node.inputs[0],), node.tensor(0).shape, size=size, alpha=node.number("alpha", 1e-4),
        beta=node.number("beta", 0.75), bias=node.number("bias", 1.0),
    )  # fmt: skip


def softmax(node: Node) -> None:
    """Softmax and LogSoftmax along one axis; before opset 13 over everything from that axis on."""
    shape = node.tensor(0).shape
    kind = "softmax" if node.op_type == "Softmax" else "log_softmax"
    axis = node.axis(node.integer("axis", -1 if node.opset >= 13 else 1), len(shape))
    wide = [index for index in range(axis, len(shape)) if shape[index] != 1]
    if node.opset >= 13 or len(wide) <= 1:
        axis = axis if node.opset >= 13 or not wide else wide[0]
        node.emit(kind, (node.inputs[0],), shape, axis=axis)
        return
    flat = (*shape[:axis], math.prod(shape[axis:]))
    rows = node.emit("reshape", (node.inputs[0],), flat, output=node.internal("rows"), shape=flat)
    result = node.emit(kind, (rows,), flat, output=node.internal("shares"), axis=axis)
    node.emit("reshape", (result,), shape, shape=shape)
