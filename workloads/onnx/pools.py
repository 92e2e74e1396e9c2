"""Pooling of maps with one or two spatial dimensions."""

from __future__ import annotations

from workloads.onnx.geometry import Pads, Pair, as_map, emit_map, map_shape, padding, pair, window_output
from workloads.onnx.node import Node


def pool(node: Node) -> None:
    """MaxPool and AveragePool, 1-D and 2-D."""
    x = node.tensor(0)
    shape, rank = map_shape(node, x.shape, "pooling"), len(x.shape)
    if "kernel_shape" not in node.attributes:
        node.fail("kernel [] is missing (attribute kernel_shape)")
    if any(node.outputs[1:]):
        node.fail("its second output (indices) is not supported")
    if node.integer("storage_order", 0):
        node.fail("storage_order 1 is not supported, only 0")
    kind = "max_pool" if node.op_type == "MaxPool" else "average_pool"
    window, strides, pads, out = pool_window(node, shape, rank)
    include = {} if kind == "max_pool" else {"count_include_pad": bool(node.integer("count_include_pad", 0))}
    emit_map(
        node, kind, (as_map(node, 0),), (*shape[:2], *out), rank,
        kernel=window, strides=strides, pads=pads, **include,
    )  # fmt: skip


def pool_window(node: Node, shape: tuple[int, int, int, int], rank: int) -> tuple[Pair, Pair, Pads, Pair]:
    """Kernel, strides, pads (ceil_mode made explicit) and output size of a pool."""
    window, strides = pair(node, "kernel_shape", rank), pair(node, "strides", rank)
    if pair(node, "dilations", rank) != (1, 1):
        node.fail(f"dilations {list(node.ints('dilations', ()))} are not supported, only 1")
    pads = padding(node, shape, rank, window, strides, (1, 1))
    if node.integer("ceil_mode", 0):
        if node.op_type != "MaxPool" and node.integer("count_include_pad", 0):
            node.fail("ceil_mode together with count_include_pad is not supported")
        pads = _ceil_pads(shape, window, strides, pads)
    if any(pad >= size for pad, size in zip(pads, window * 2, strict=True)):
        node.fail(f"pads {list(pads)} reach the kernel's size {list(window)}: a window would see only padding")
    return window, strides, pads, window_output(node, shape, window, strides, pads, (1, 1))


def _ceil_pads(shape: tuple[int, ...], kernel: Pair, strides: Pair, pads: Pads) -> Pads:
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


def global_pool(node: Node) -> None:
    """GlobalAveragePool of maps is an op of its own; everything else is a reduction."""
    shape = node.tensor(0).shape
    if len(shape) < 3:
        node.fail(f"needs spatial dimensions, got {list(shape)}")
    small = (*shape[:2], *(1,) * (len(shape) - 2))
    if node.op_type == "GlobalAveragePool" and len(shape) == 4:
        node.emit("global_average_pool", (node.inputs[0],), small)
        return
    kind = "reduce_max" if node.op_type == "GlobalMaxPool" else "reduce_mean"
    node.emit(kind, (node.inputs[0],), small, axes=tuple(range(2, len(shape))), keepdims=True)
