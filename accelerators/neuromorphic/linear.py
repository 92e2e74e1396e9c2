"""What lies between two populations of neurons: linear ops, composed into one set of synapses.

Cores know synapses and neurons, nothing between. Pools, scales, reshapes and layers without neurons of their own are
therefore multiplied into the weights; a convolution stays one (its kernel is shared) where the composition is a
convolution again, and becomes a sparse matrix where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dse.core.errors import ModelError
from dse.ir import Graph, Op

Floats = npt.NDArray[np.float64]
Pads = tuple[int, int, int, int]

LINEAR_KINDS = (
    "conv", "gemm", "sum_pool", "average_pool", "global_average_pool", "mul", "add", "reshape", "flatten", "identity",
    "delay",
)  # fmt: skip
_SHAPING = ("reshape", "flatten", "identity")
_POOLS = ("sum_pool", "average_pool", "global_average_pool")


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """A convolution as synapses. `weight` (M, C / groups, R, S); input (C, H, W), output (M, P, Q)."""

    weight: npt.NDArray[Any]
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    strides: tuple[int, int]
    pads: Pads
    dilations: tuple[int, int]
    groups: int

    def matrix(self) -> sparse.csr_matrix:
        """Unrolled: (inputs, outputs), channel-major both; taps with weight zero are kept."""
        entries = [self._taps(r, s) for r in range(self.weight.shape[2]) for s in range(self.weight.shape[3])]
        source, target, value = (np.concatenate(column) for column in zip(*entries, strict=True))
        shape = (math.prod(self.input_shape), math.prod(self.output_shape))
        return sparse.csr_matrix((value, (source, target)), shape=shape)

    def _taps(self, r: int, s: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """All synapses through kernel position (r, s)."""
        (_, height, width), (outputs, rows, columns) = self.input_shape, self.output_shape
        y = np.arange(rows) * self.strides[0] - self.pads[0] + r * self.dilations[0]
        x = np.arange(columns) * self.strides[1] - self.pads[1] + s * self.dilations[1]
        p, q = np.flatnonzero((y >= 0) & (y < height)), np.flatnonzero((x >= 0) & (x < width))
        place = (y[p][:, None] * width + x[q][None, :]).ravel()
        there = (p[:, None] * columns + q[None, :]).ravel()
        inside, out_group = self.weight.shape[1], outputs // self.groups
        m = np.repeat(np.arange(outputs), inside)
        c = (m // out_group) * inside + np.tile(np.arange(inside), outputs)
        source = c[:, None] * (height * width) + place[None, :]
        target = m[:, None] * (rows * columns) + there[None, :]
        value = np.broadcast_to(self.weight[:, :, r, s].reshape(-1)[:, None], source.shape)
        return source.ravel(), target.ravel(), value.ravel()

    @property
    def taps(self) -> int:
        """Synapses of the unrolled convolution, those of weight zero included."""

        def reached(axis: int) -> int:
            size, count = self.input_shape[axis + 1], self.output_shape[axis + 1]
            places = np.arange(count) * self.strides[axis] - self.pads[axis]
            taps = np.arange(self.weight.shape[axis + 2]) * self.dilations[axis]
            index = places[:, None] + taps[None, :]
            return int(((index >= 0) & (index < size)).sum())

        return int(self.output_shape[0] * self.weight.shape[1] * reached(0) * reached(1))


@dataclass(frozen=True)
class Path:
    """Ops from a source tensor to the input of a population, in order; `delay` steps of a loop (0 or 1)."""

    source: str
    delay: int
    ops: tuple[Op, ...]


def paths_into(graph: Graph, tensor: str) -> list[Path]:
    """All linear paths that end in `tensor`, each from a graph input or a neuron.

    Raises
    ------
    ModelError: an op on the way is not linear.
    """
    producers = {op.outputs[0]: op for op in graph.ops}

    def walk(name: str) -> list[Path]:
        op = producers.get(name)
        if op is None:
            return [Path(name, 0, ())] if graph[name].data is None else []
        if op.kind == "previous":
            return [Path(str(op.attributes["source"]), 1, ())]
        if op.kind == "neuron":
            return [Path(name, 0, ())]
        if op.kind not in LINEAR_KINDS or op.attributes.get("activation", "none") != "none":
            what = op.kind if op.kind not in LINEAR_KINDS else f"{op.kind} with {op.attributes['activation']}"
            raise ModelError(
                f"{graph.source or graph.name}: op {op.name!r} ({what}) is neither a neuron nor linear; between "
                f"neurons cores take {', '.join(LINEAR_KINDS)}"
            )
        reading = [item for item in op.inputs if item and graph[item].data is None]
        if op.kind == "mul" and len(reading) != 1:
            raise ModelError(f"{graph.source or graph.name}: op {op.name!r} multiplies two activations")
        return [Path(p.source, p.delay, (*p.ops, op)) for item in reading for p in walk(item)]

    return walk(tensor)


def offset_of(graph: Graph, tensor: str) -> Floats:
    """What `tensor` holds when no source is active: the biases on the way, shape of one sample, flat."""
    from dse.ir.reference import run_op_float

    producers = {op.outputs[0]: op for op in graph.ops}

    def walk(name: str) -> npt.NDArray[Any]:
        op = producers.get(name)
        if op is None or op.kind in ("neuron", "previous"):
            data = graph[name].data
            return np.zeros(graph[name].shape, np.float32) if data is None else data
        values = {item: walk(item) for item in op.inputs if item and graph[item].data is None}
        if op.kind == "delay":
            return values[op.inputs[0]]
        if op.kind == "sum_pool":
            return _apply(pool_layer(graph, op), values[op.inputs[0]]).reshape(graph[op.outputs[0]].shape)
        return run_op_float(graph, op, values)[op.outputs[0]]

    return np.asarray(walk(tensor), np.float64).reshape(-1)


def _apply(layer: ConvLayer, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(layer.matrix().T @ values.reshape(-1), np.float32)


def _size(graph: Graph, tensor: str) -> int:
    return math.prod(graph[tensor].shape[1:])


def conv_layer(graph: Graph, op: Op) -> ConvLayer:
    """A conv op as synapses."""
    weight = _values(graph, op.inputs[1])
    _, channels, height, width = graph[op.inputs[0]].shape
    _, outputs, rows, columns = graph[op.outputs[0]].shape
    a = op.attributes
    return ConvLayer(weight, (channels, height, width), (outputs, rows, columns), tuple(a["strides"]), tuple(a["pads"]),
                     tuple(a["dilations"]), int(a["groups"]))  # fmt: skip


def pool_layer(graph: Graph, op: Op) -> ConvLayer:
    """A sum or average pool as a depthwise convolution of equal weights.

    Raises
    ------
    ModelError: an average that leaves padding out of the count differs from place to place.
    """
    _, channels, height, width = graph[op.inputs[0]].shape
    _, _, rows, columns = graph[op.outputs[0]].shape
    if op.kind == "global_average_pool":
        kernel, strides, pads = (height, width), (1, 1), (0, 0, 0, 0)
    else:
        kernel, strides = tuple(op.attributes["kernel"]), tuple(op.attributes["strides"])
        pads = tuple(op.attributes["pads"])
    if op.kind == "average_pool" and any(pads) and not op.attributes["count_include_pad"]:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} averages without its padding; its weights would differ "
            "from place to place: use count_include_pad"
        )
    value = 1.0 if op.kind == "sum_pool" else 1.0 / math.prod(kernel)
    weight = np.full((channels, 1, *kernel), value)
    shape = (channels, height, width), (channels, rows, columns)
    return ConvLayer(weight, *shape, strides, pads, (1, 1), channels)


def composed(graph: Graph, path: Path) -> list[tuple[int, ConvLayer | sparse.csr_matrix]]:
    """The synapses of a path: (delay in steps, weights), one entry for each delay that occurs on it.

    A matrix has shape (sources, targets). The delay of a loop is included.
    """
    factor, ops = _without_factors(graph, [op for op in path.ops if op.kind not in (*_SHAPING, "add")])
    if all(op.kind in ("conv", *_POOLS) for op in ops):
        layer = _as_convolution([pool_layer(graph, op) if op.kind in _POOLS else conv_layer(graph, op) for op in ops])
        if layer is not None:
            return [(path.delay, replace(layer, weight=layer.weight * factor))]
    size = _size(graph, path.source)
    found = [(path.delay, factor * sparse.identity(size, format="csr"))]
    for op in ops:
        if op.kind == "delay":
            steps = _values(graph, op.inputs[1]).reshape(-1).astype(np.int64)
            found = [
                (delay + int(k), matrix @ sparse.diags((steps == k).astype(np.float64), format="csr"))
                for delay, matrix in found
                for k in np.unique(steps)
            ]
        else:
            following = _matrix(graph, op)
            found = [(delay, matrix @ following) for delay, matrix in found]
    return [(delay, sparse.csr_matrix(matrix)) for delay, matrix in found]


def _without_factors(graph: Graph, ops: Sequence[Op]) -> tuple[float, list[Op]]:
    """Multiplications by a single number, gathered in front of the other ops."""
    factor, kept = 1.0, []
    for op in ops:
        constants = [_values(graph, name) for name in op.inputs if graph[name].data is not None]
        if op.kind == "mul" and constants and (constants[0] == constants[0].flat[0]).all():
            factor *= float(constants[0].flat[0])
        else:
            kept.append(op)
    return factor, kept


def _as_convolution(layers: Sequence[ConvLayer]) -> ConvLayer | None:
    """One convolution equal to `layers` in a row, or None when there is none."""
    if not layers:
        return None
    result = layers[0]
    for layer in layers[1:]:
        joined = _pool_then_conv(result, layer)
        if joined is None:
            return None
        result = joined
    return result


def _pool_then_conv(pool: ConvLayer, conv: ConvLayer) -> ConvLayer | None:
    """A pool without overlap, padding or remainder, then a convolution: a convolution over the map before the pool."""
    kernel, channels = pool.weight.shape[2:], pool.input_shape[0]
    exact = all(pool.input_shape[i + 1] == pool.output_shape[i + 1] * kernel[i] for i in (0, 1))
    uniform = pool.groups == channels == pool.weight.shape[0] and (pool.weight == pool.weight.flat[0]).all()
    if not (exact and uniform and tuple(kernel) == pool.strides and not any(pool.pads)):
        return None
    sizes = [((conv.weight.shape[i + 2] - 1) * conv.dilations[i] + 1) * kernel[i] for i in (0, 1)]
    weight = np.zeros((*conv.weight.shape[:2], *sizes))
    for r in range(conv.weight.shape[2]):
        for s in range(conv.weight.shape[3]):
            top, left = r * conv.dilations[0] * kernel[0], s * conv.dilations[1] * kernel[1]
            block = conv.weight[:, :, r, s, None, None] * pool.weight.flat[0]
            weight[:, :, top : top + kernel[0], left : left + kernel[1]] = block
    pads = tuple(pad * kernel[i % 2] for i, pad in enumerate(conv.pads))
    strides = (conv.strides[0] * kernel[0], conv.strides[1] * kernel[1])
    if conv.dilations != (1, 1):
        # the gaps between taps would be stored as synapses of weight zero
        return None
    return ConvLayer(weight, pool.input_shape, conv.output_shape, strides, pads, (1, 1), conv.groups)


def _matrix(graph: Graph, op: Op) -> sparse.csr_matrix:
    if op.kind == "gemm":
        return sparse.csr_matrix(_values(graph, op.inputs[1]).T)
    if op.kind == "mul":
        constant = next(name for name in op.inputs if graph[name].data is not None)
        shape = graph[op.outputs[0]].shape
        return sparse.diags(np.broadcast_to(_values(graph, constant), shape).reshape(-1), format="csr")
    return (conv_layer(graph, op) if op.kind == "conv" else pool_layer(graph, op)).matrix()


def _values(graph: Graph, name: str) -> Floats:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: constant {name!r} has no values; a spiking network needs them")
    return data.astype(np.float64)


def connections(graph: Graph) -> Mapping[str, int]:
    """Synapses that each weighted op of the graph implies, unrolled and before pools are multiplied in, by op name."""
    found: dict[str, int] = {}
    for op in graph.ops:
        if op.kind == "gemm":
            found[op.name] = math.prod(graph[op.inputs[1]].shape)
        elif op.kind == "conv":
            found[op.name] = conv_layer(graph, op).taps
    return found
