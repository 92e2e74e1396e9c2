"""Which statements are convolutions or dense layers, so that every back end takes them.

A statement qualifies when one of its two factors is a constant (the weights) and the other lies in memory as the op
wants it: [batch,] channel, row, column for a convolution, row, column for a dense layer. Weights may have any order of
axes, they are turned when the graph is built. Everything else stays an einsum.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dse.ir.einsum import AxisIndex
from dse.ir.windows import output_size
from workloads.einsum.statement import Statement, TensorAccess


@dataclass(frozen=True)
class Layer:
    """A conv or gemm: its two tensors, the axes of the weights in the op's order, and the op's attributes.

    `weight_axes` are positions in the statement's tensor, None where the op has an axis of extent 1 that the statement
    leaves out. `batched` says whether the statement itself has the batch (row) axis.
    """

    kind: str
    x: str
    weight: str
    weight_axes: tuple[int | None, ...]
    attributes: Mapping[str, Any]
    batched: bool


def recognise(
    statement: Statement, bounds: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], weights: Collection[str]
) -> Layer | None:
    """The layer that a statement is, or None.

    Parameters
    ----------
    bounds, shapes
        Extents of the dims, shapes of the tensors.
    weights
        Names of the tensors that are constants.
    """
    constants = [factor for factor in statement.factors if factor.tensor in weights]
    others = [factor for factor in statement.factors if factor.tensor not in weights]
    if len(constants) != 1 or len(others) != 1:
        return None
    plain = [_plain(index) for index in constants[0].axes]
    weight_dims = [dim for dim in plain if dim is not None]
    if len(set(weight_dims)) != len(plain) or shapes[constants[0].tensor] != tuple(bounds[dim] for dim in weight_dims):
        return None
    return _dense(statement, others[0], constants[0].tensor, weight_dims, bounds, shapes) or _convolution(
        statement, others[0], constants[0].tensor, weight_dims, bounds, shapes
    )


def _plain(index: AxisIndex) -> str | None:
    """The dim of an axis that is indexed by one dim only."""
    pairs, offset = index
    return pairs[0][0] if not offset and len(pairs) == 1 and pairs[0][1] == 1 else None


def _dense(
    statement: Statement,
    x: TensorAccess,
    weight: str,
    weight_dims: list[str],
    bounds: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
) -> Layer | None:
    """O[n,m] += X[n,k] * W[m,k], or without n."""
    dims = [dim for dim in map(_plain, x.axes) if dim is not None]
    output = list(statement.output)
    if len(dims) != len(x.axes) or len(dims) not in (1, 2) or len(output) != len(dims):
        return None
    depth, outputs, batched = dims[-1], output[-1], len(dims) == 2
    if depth in output or sorted(weight_dims) != sorted((outputs, depth)):
        return None
    if batched and (dims[0] != output[0] or dims[0] in weight_dims):
        return None
    if shapes[x.tensor] != tuple(bounds[dim] for dim in dims):
        return None
    axes = (weight_dims.index(outputs), weight_dims.index(depth))
    return Layer("gemm", x.tensor, weight, axes, {"activation": "none"}, batched)


def _convolution(
    statement: Statement,
    x: TensorAccess,
    weight: str,
    weight_dims: list[str],
    bounds: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
) -> Layer | None:
    """O[n,k,p,q] += I[n,c,p+r,q+s] * W[k,c,r,s], or depthwise O[n,c,p,q] += I[n,c,p+r,q+s] * W[c,r,s]."""
    output = list(statement.output)
    lead = [dim for dim in map(_plain, x.axes[:-2]) if dim is not None]
    if len(output) not in (3, 4) or len(x.axes) != len(output) or len(lead) != len(output) - 2:
        return None
    batched, channel, out_channel = len(output) == 4, lead[-1], output[-3]
    if batched and (lead[0] != output[0] or lead[0] in weight_dims):
        return None
    if shapes[x.tensor][:-2] != tuple(bounds[dim] for dim in lead):
        return None
    windows = []
    for axis in (-2, -1):
        window = _window(x.axes[axis], output[axis], weight_dims, bounds, shapes[x.tensor][axis])
        if window is None:
            return None
        windows.append(window)
    (stride_h, dilation_h, row), (stride_w, dilation_w, column) = windows
    depthwise = channel == out_channel
    kernel = [dim for dim in (row, column) if dim is not None]
    expected = [out_channel, *([] if depthwise else [channel]), *kernel]
    if sorted(weight_dims) != sorted(expected) or (not depthwise and channel in output):
        return None

    def position(dim: str | None) -> int | None:
        return None if dim is None else weight_dims.index(dim)

    attributes = {
        "strides": (stride_h, stride_w), "pads": (0, 0, 0, 0), "dilations": (dilation_h, dilation_w),
        "groups": bounds[channel] if depthwise else 1, "activation": "none",
    }  # fmt: skip
    axes = (position(out_channel), None if depthwise else position(channel), position(row), position(column))
    return Layer("conv", x.tensor, weight, axes, attributes, batched)


def _window(
    index: AxisIndex, out_dim: str, weight_dims: list[str], bounds: Mapping[str, int], extent: int
) -> tuple[int, int, str | None] | None:
    """(stride, dilation, kernel dim or None) of stride * out_dim + dilation * kernel dim that spans `extent`."""
    pairs, offset = index
    coefficients = dict(pairs)
    stride = coefficients.pop(out_dim, 0)
    if offset or stride < 1 or len(coefficients) > 1 or out_dim in weight_dims:
        return None
    if not coefficients:
        return (stride, 1, None) if output_size(extent, 1, stride, 0, 0) == bounds[out_dim] else None
    kernel_dim, dilation = next(iter(coefficients.items()))
    if kernel_dim not in weight_dims or dilation < 1:
        return None
    if output_size(extent, bounds[kernel_dim], stride, 0, 0, dilation) != bounds[out_dim]:
        return None
    return stride, dilation, kernel_dim
