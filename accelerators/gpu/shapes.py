"""Shapes of layers as the kernel models take them: products, convolutions, recurrent layers, einsums."""

from __future__ import annotations

import math

from accelerators.gpu.kernels import Form
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.graph import Op
from dse.ir.loopnest import GATES, loop_nest


def matmul_shape(graph: Graph, op: Op, batch: int) -> dict[str, int]:
    """m, n, k, batch of a product; inputs of the batch are further rows of a layer, further products of a matmul."""
    left, right = graph[op.inputs[0]], graph[op.inputs[1]]
    if op.kind == "gemm":
        return {"m": left.shape[0] * batch, "n": right.shape[0], "k": left.shape[1], "batch": 1}
    m, k = (1, *left.shape)[-2:]
    n = right.shape[-1] if len(right.shape) > 1 else 1
    stacked = math.prod(graph[op.outputs[0]].shape) // (m * n)
    if right.data is not None and len(right.shape) <= 2:
        return {"m": m * stacked * batch, "n": n, "k": k, "batch": 1}
    return {"m": m, "n": n, "k": k, "batch": stacked * batch}


def conv_shape(graph: Graph, op: Op, batch: int) -> tuple[Form, dict[str, int]]:
    """The form of a convolution ("conv" or "depthwise") and the fields of `ConvProblems`, with `groups`.

    Uneven padding and dilation become an input of the same output size without padding. A transposed convolution is
    described as the convolution whose gradient it is.
    """
    x, weight, y = graph[op.inputs[0]], graph[op.inputs[1]], graph[op.outputs[0]]
    groups = int(op.attributes["groups"])
    if op.kind == "conv_transpose":
        x, y = y, x
    channels, filters = x.shape[1] // groups, y.shape[1] // groups
    kernel, strides = weight.shape[2:], tuple(op.attributes["strides"])
    top, left, bottom, right = op.attributes["pads"]
    size, pads = list(x.shape[2:]), [top, left]
    plain = (top, left) == (bottom, right) and tuple(op.attributes["dilations"]) == (1, 1)
    if not plain or op.kind == "conv_transpose":
        size = [(out - 1) * step + k for out, step, k in zip(y.shape[2:], strides, kernel, strict=True)]
        pads = [0, 0]
    deep = groups > 1 and channels == 1
    shape = {
        "batch": x.shape[0] * batch,
        "channels": max(x.shape[1], y.shape[1]) if deep else channels, "height": size[0], "width": size[1],
        "filters": filters * groups if deep else filters, "kernel_height": kernel[0], "kernel_width": kernel[1],
        "stride_height": strides[0], "stride_width": strides[1], "pad_height": pads[0], "pad_width": pads[1],
        "groups": groups,
    }  # fmt: skip
    return ("depthwise" if deep else "conv"), shape


def recurrent_shape(graph: Graph, op: Op, batch: int) -> tuple[dict[str, int], int]:
    """hidden, batch, steps, inputs, directions of a recurrent layer; and the elements of its recurrent weights."""
    steps, rows, features = graph[op.inputs[0]].shape
    directions, gate_rows, _ = graph[op.inputs[1]].shape
    hidden = gate_rows // GATES[op.kind]
    shape = {"hidden": hidden, "batch": rows * batch, "steps": steps, "inputs": features, "directions": directions}
    return shape, graph[op.inputs[2]].elements


def einsum_shape(graph: Graph, op: Op, batch: int) -> dict[str, int]:
    """m, n, k, batch of an einsum of two factors.

    Raises
    ------
    ModelError: it has another number of factors.
    """
    nest = loop_nest(graph, op)
    if len(nest.accesses) != 3:
        raise ModelError(
            f"{graph.source or graph.name}: einsum {op.name!r} has {len(nest.accesses) - 1} factors; a GPU kernel "
            "multiplies two: write it as a chain of einsums"
        )
    used = [{dim for axis in access.axes for dim in axis} for access in nest.accesses[:2]]
    shape = {"m": 1, "n": 1, "k": 1, "batch": batch}
    for dim, size in nest.bounds.items():
        both, reduced = dim in used[0] and dim in used[1], dim in nest.reduction
        name = "k" if reduced else "batch" if both else "m" if dim in used[0] else "n"
        shape[name] *= size
    return shape
