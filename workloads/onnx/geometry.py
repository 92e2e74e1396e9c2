"""Windows of convolutions and pools: attributes of one or two spatial dimensions brought to two.

A one-dimensional layer becomes a two-dimensional one over maps of one row, between two reshapes that move nothing.
"""

from __future__ import annotations

import math
from typing import Any

from dse.ir.windows import output_size
from workloads.onnx.constants import MAX_ELEMENTS
from workloads.onnx.node import Node

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def map_shape(node: Node, shape: tuple[int, ...], what: str) -> tuple[int, int, int, int]:
    """(N, C, H, W) of a map of one or two spatial dimensions."""
    if len(shape) == 3:
        return shape[0], shape[1], 1, shape[2]
    if len(shape) != 4:
        node.fail(f"only 1-D and 2-D {what} is supported, got an input of shape {list(shape)}")
    return shape[0], shape[1], shape[2], shape[3]


def as_map(node: Node, index: int) -> str:
    """Input `index` as a map of two spatial dimensions: reshaped when it has one."""
    tensor = node.tensor(index)
    if len(tensor.shape) == 4:
        return tensor.name
    shape = map_shape(node, tensor.shape, "data")
    return node.emit("reshape", (tensor.name,), shape, output=node.internal("map"), shape=shape)


def emit_map(
    node: Node, kind: str, inputs: tuple[str, ...], shape: tuple[int, int, int, int], rank: int, /, **more: Any
) -> None:
    """Emit an op on maps as this node's result; back to one spatial dimension where the node has one."""
    if rank == 4:
        node.emit(kind, inputs, shape, **more)
        return
    name = node.emit(kind, inputs, shape, output=node.internal("row"), **more)
    flat = (shape[0], shape[1], shape[3])
    node.emit("reshape", (name,), flat, shape=flat)


def pair(node: Node, key: str, rank: int, default: int = 1, least: int = 1) -> Pair:
    """A list attribute of one number per spatial dimension, as (rows, columns)."""
    values = node.ints(key, (default,) * (rank - 2))
    if len(values) != rank - 2 or min(values) < least:
        kind = "positive" if least == 1 else "non-negative"
        node.fail(f"{key} {list(values)} must be {rank - 2} {kind} integers")
    return (values[0], values[1]) if rank == 4 else (default, values[0])


def padding(
    node: Node, shape: tuple[int, int, int, int], rank: int, kernel: Pair, strides: Pair, dilations: Pair
) -> Pads:
    """Padding as (top, left, bottom, right), `auto_pad` resolved."""
    mode = node.choice("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    if mode == "NOTSET":
        return explicit_padding(node, rank)
    if mode == "VALID":
        return 0, 0, 0, 0
    near, far = [], []
    for size, taps, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        small, big = total // 2, total - total // 2
        near.append(small if mode == "SAME_UPPER" else big)
        far.append(big if mode == "SAME_UPPER" else small)
    return near[0], near[1], far[0], far[1]


def explicit_padding(node: Node, rank: int) -> Pads:
    """The `pads` attribute as (top, left, bottom, right)."""
    count = 2 * (rank - 2)
    pads = node.ints("pads", (0,) * count)
    if len(pads) != count or min(pads) < 0:
        node.fail(f"pads {list(pads)} must be {count} integers, none negative")
    return (pads[0], pads[1], pads[2], pads[3]) if rank == 4 else (0, pads[0], 0, pads[1])


def window_output(
    node: Node, shape: tuple[int, int, int, int], kernel: Pair, strides: Pair, pads: Pads, dilations: Pair
) -> Pair:
    """Rows and columns behind a window over a map."""
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
