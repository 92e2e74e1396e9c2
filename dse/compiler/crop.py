"""One output tile of a layer as a graph of its own: the piece of a network that verification runs on hardware.

The tile keeps the whole reduction. Its input is the part of the feature map under its windows; padding remains where
the windows leave the map. Values of the full network, cropped alike, make the tile's inputs and expected outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor
from dse.ir.reference import run_quantized


@dataclass(frozen=True)
class Window:
    """An output tile: rows [y, y + height), columns [x, x + width), the first `channels` output channels."""

    y: int
    x: int
    height: int
    width: int
    channels: int


@dataclass(frozen=True, eq=False)
class Tile:
    """A cropped layer, its input values and the values the full network has there."""

    graph: Graph
    inputs: Mapping[str, npt.NDArray[Any]]
    expected: Mapping[str, npt.NDArray[Any]]


def crop_conv(graph: Graph, conv: Op, add: Op | None, window: Window, values: Mapping[str, npt.NDArray[Any]]) -> Tile:
    """The tile `window` of a conv and the residual add behind it, if any.

    `values` holds the full network's tensors by name (batch of at least 1; the first image is taken).

    Of a grouped conv the tile has the groups that make the first `channels` outputs, each of them whole.

    Raises
    ------
    ModelError: the window leaves the output.
    """
    out = add.outputs[0] if add is not None else conv.outputs[0]
    _, channels, height, width = graph[out].shape
    if window.y + window.height > height or window.x + window.width > width or window.channels > channels:
        raise ModelError(f"tile {window} leaves the output {(channels, height, width)} of {conv.name!r}")
    source = graph[conv.inputs[0]]
    per_group_out, per_group_in = channels // conv.attributes["groups"], graph[conv.inputs[1]].shape[1]
    groups = conv.attributes["groups"]
    if groups > 1:
        groups = -(-window.channels // per_group_out)
        window = replace(window, channels=groups * per_group_out)
    kernel = graph[conv.inputs[1]].shape[2:]
    rows, pad_y = _under(window.y, window.height, conv, 0, source.shape[2], kernel[0])
    columns, pad_x = _under(window.x, window.width, conv, 1, source.shape[3], kernel[1])
    tensors: dict[str, Tensor] = {}
    inputs: dict[str, npt.NDArray[Any]] = {}

    def take(name: str, part: tuple[slice, ...], *, called: str) -> None:
        data = np.ascontiguousarray(values[name][(slice(0, 1), *part)])
        inputs[called] = data
        tensors[called] = replace(graph[name], name=called, shape=data.shape, data=None)

    take(conv.inputs[0], (slice(0, groups * per_group_in), rows, columns), called=conv.inputs[0])
    for name in conv.inputs[1:]:
        if name:
            tensors[name] = _first_channels(graph[name], window.channels)
    output_part = (
        slice(0, window.channels),
        slice(window.y, window.y + window.height),
        slice(window.x, window.x + window.width),
    )
    shape = (1, window.channels, window.height, window.width)
    tensors[conv.outputs[0]] = replace(graph[conv.outputs[0]], shape=shape)
    ops = [conv.with_attributes(pads=(pad_y[0], pad_x[0], pad_y[1], pad_x[1]), groups=groups)]
    names = [conv.inputs[0]]
    if add is not None:
        other = next(name for name in add.inputs if name != conv.outputs[0])
        # the conv's own input, needed once more, is there another part of the same tensor
        called = f"{other}:residual" if other == conv.inputs[0] else other
        take(other, output_part, called=called)
        names.append(called)
        tensors[out] = replace(graph[out], shape=shape)
        ops.append(replace(add, inputs=tuple(called if name == other else name for name in add.inputs)))
    tile = Graph(f"{graph.name}:{conv.name}", tensors, tuple(ops), tuple(names), (out,), graph.source)
    return Tile(tile, inputs, {out: np.ascontiguousarray(values[out][(slice(0, 1), *output_part)])})


def crop_gemm(graph: Graph, gemm: Op, values: Mapping[str, npt.NDArray[Any]]) -> Tile:
    """A dense layer for the first image, whole."""
    name, out = gemm.inputs[0], gemm.outputs[0]
    data = values[name][:1].reshape(1, -1)
    tensors = {name: replace(graph[name], shape=data.shape, data=None)}
    for constant in gemm.inputs[1:]:
        if constant:
            tensors[constant] = graph[constant]
    tensors[out] = replace(graph[out], shape=(1, graph[out].shape[1]))
    tile = Graph(f"{graph.name}:{gemm.name}", tensors, (gemm,), (name,), (out,), graph.source)
    return Tile(tile, {name: np.ascontiguousarray(data)}, {out: values[out][:1].reshape(1, -1)})


def _under(start: int, count: int, conv: Op, axis: int, size: int, kernel: int) -> tuple[slice, tuple[int, int]]:
    """Input positions under `count` outputs from `start` along an axis, and the padding that remains."""
    stride, dilation = conv.attributes["strides"][axis], conv.attributes["dilations"][axis]
    low = start * stride - conv.attributes["pads"][axis]
    high = low + (count - 1) * stride + (kernel - 1) * dilation + 1
    inside = slice(max(low, 0), max(min(high, size), max(low, 0) + 1))
    return inside, (max(-low, 0), max(high - size, 0))


def _first_channels(tensor: Tensor, channels: int) -> Tensor:
    """A weight or bias tensor reduced to its first output channels, quantization included."""
    assert tensor.data is not None
    data = np.ascontiguousarray(tensor.data[:channels])
    quantization = tensor.quantization
    if quantization is not None and len(quantization.scale) > 1:
        quantization = replace(quantization, scale=quantization.scale[:channels])
    return replace(tensor, shape=data.shape, data=data, quantization=quantization)


def crop_recurrent(
    graph: Graph, op: Op, outputs: Sequence[str], steps: int, values: Mapping[str, npt.NDArray[Any]], mode: str
) -> Tile:
    """The first `steps` time steps of a recurrent layer, in both directions if it has two.

    A layer that walks backwards begins at another step than in the network, so that the reference runs the piece anew
    in requantization mode `mode`. `outputs` are those of the op that the piece gives.
    """
    name = op.inputs[0]
    data = np.ascontiguousarray(values[name][:steps])
    tensors = {name: replace(graph[name], shape=data.shape, data=None)}
    tensors |= {constant: graph[constant] for constant in op.inputs[1:] if constant}
    for output in op.outputs:
        if output:
            shape = graph[output].shape
            # of the outputs only the sequence of states has four dimensions
            tensors[output] = replace(graph[output], shape=(data.shape[0], *shape[1:]) if len(shape) == 4 else shape)
    piece = Graph(f"{graph.name}:{op.name}", tensors, (op,), (name,), tuple(outputs), graph.source)
    inputs = {name: data}
    return Tile(piece, inputs, run_quantized(piece, inputs, mode))
