"""From a graph to the operations that Vela would schedule, with an estimate of the encoded weights.

Tensors of the network's border lie as NHWC, all others in bricks of 16 channels. Layout changes and host operations
cost nothing here. The size of encoded weights comes from their values: Vela's format is an entropy code, so their
zeroth-order entropy is taken, over kernels padded as the NPU reads them; the test prints how near that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dse.ir import Graph, Op
from dse.peers.vela.blocks import part_kernel_pays
from dse.peers.vela.hardware import Npu
from dse.peers.vela.operation import Activation, FeatureMap, Kind, VelaOperation, Weights, round_up

#: Bytes of bias, multiplier and shift of a channel, and to what a stream of them is padded.
SCALE_BYTES, STREAM_BYTES = 10, 16
#: Bits a weight when only its shape is known.
UNKNOWN_BITS = 8.0
#: An entropy code stays above the entropy by its tables and whole bits; read from the totals of Vela's runs.
CODE_OVERHEAD = 1.05

_VIEWS = ("reshape", "transpose", "flatten", "identity")
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "minimum": "Minimum", "maximum": "Maximum"}
_TABLES = ("sigmoid", "tanh", "hard_swish", "hard_sigmoid", "gelu", "elu", "leaky_relu", "exp")

#: A softmax over r rows of c channels, as Vela breaks it up: (operator, inputs, output) where x is r x c of 8 bits,
#: X the same of 32, o a number a row of 32 bits, k a constant.
_SOFTMAX = (
    ("Sub", "xb", "X"), ("Asr", "Xk", "X"), ("ReduceSum", "X", "o"), ("CLZ", "o", "o"), ("Sub", "ko", "o"),
    ("Sub", "ok", "o"), ("SHL", "oo", "o"), ("Mul", "ok", "o"), ("Add", "ok", "o"), ("Mul", "oo", "o"),
    *((("Sub", "ko", "o"), ("Mul", "oo", "o"), ("Mul", "ok", "o"), ("Add", "oo", "o"), ("Mul", "oo", "o")) * 3)[:-1],
    ("Mul", "Xo", "X"), ("Add", "kX", "X"), ("Asr", "Xo", "x"),
)  # fmt: skip


def operations(graph: Graph, npu: Npu) -> list[VelaOperation]:
    """Operations of a graph for an NPU; ops that it does not run are left out, as Vela counts nothing for the host."""
    found: list[VelaOperation] = []
    for op in graph.ops:
        found.extend(_operations_of(graph, op, npu))
    return found


def encoded_weights(weights: npt.NDArray[np.int8] | None, op_shape: tuple[int, ...], npu: Npu, depthwise: bool) -> int:
    """Estimated bytes of encoded weights (out, in, height, width), padded as the NPU streams them."""
    out, deep, height, width = op_shape
    elements = height * width
    padded_out = round_up(out, npu.micro_block[2] * npu.cores)
    if depthwise:
        stored = padded_out * round_up(elements, 4)
    elif part_kernel_pays(deep, 8, elements):
        stored = padded_out * round_up(elements, 4) * round_up(deep, 8)
    else:
        stored = padded_out * elements * round_up(deep, 32)
    if weights is None:
        return round_up(math.ceil(stored * UNKNOWN_BITS / 8), STREAM_BYTES)
    values = np.concatenate([weights.ravel(), np.zeros(max(0, stored - weights.size), weights.dtype)])
    _, counts = np.unique(values, return_counts=True)
    share = counts / values.size
    bits = -float(share @ np.log2(share)) * CODE_OVERHEAD
    return round_up(math.ceil(values.size * bits / 8), STREAM_BYTES)


def _operations_of(graph: Graph, op: Op, npu: Npu) -> Iterator[VelaOperation]:
    if op.kind in ("conv", "gemm"):
        yield _layer(graph, op, npu)
    elif op.kind in _BINARY and all(graph[name].data is None or graph[name].elements == 1 for name in op.inputs[:2]):
        first, second = (_map(graph, name) for name in op.inputs[:2])
        activation = _activation(op)
        output = _map(graph, op.outputs[0])
        yield VelaOperation(op.name, _BINARY[op.kind], "elementwise", first, output, second, activation=activation)
    elif op.kind in ("max_pool", "average_pool", "global_average_pool"):
        ifm = _map(graph, op.inputs[0])
        kernel = op.attributes.get("kernel") or (ifm.height, ifm.width)
        stride = op.attributes.get("strides") or (1, 1)
        name = "MaxPool" if op.kind == "max_pool" else "AvgPool"
        ofm = _map(graph, op.outputs[0])
        yield VelaOperation(op.name, name, "pool", ifm, ofm, kernel=_pair(kernel), stride=_pair(stride))
    elif op.kind in ("relu", "clip", "requantize", *_TABLES):
        name = "Clamp" if op.kind in ("relu", "clip") else "MemoryCopy"
        activation = "table" if op.kind in _TABLES else "none"
        yield VelaOperation(
            op.name, name, "pool", _map(graph, op.inputs[0]), _map(graph, op.outputs[0]), activation=activation
        )
    elif op.kind == "slice":
        if not _read_in_place(graph, op):
            yield _copy(op.name, _map(graph, op.outputs[0]), _map(graph, op.outputs[0]))
    elif op.kind == "concat":
        # what an NPU operation makes is written in place
        for name in op.inputs:
            if _from_outside(graph, name):
                yield _copy(f"{op.name}/{name}", _map(graph, name), replace(_map(graph, name), layout="NHCWB16"))
    elif op.kind == "softmax":
        yield from _softmax(graph, op)


def _read_in_place(graph: Graph, op: Op) -> bool:
    """Whether a slice of rows or columns only moves the window that layers read through."""
    readers = graph.consumers(op.outputs[0])
    spatial = all(before == after for before, after in zip(
        graph[op.inputs[0]].shape[:2], graph[op.outputs[0]].shape[:2], strict=True
    ))  # fmt: skip
    layers = bool(readers) and all(reader.kind in ("conv", "max_pool", "average_pool") for reader in readers)
    return spatial and layers and op.outputs[0] not in graph.outputs


def _from_outside(graph: Graph, name: str) -> bool:
    """Whether a tensor is an input of the network, perhaps seen under another shape."""
    producer = graph.producer(name)
    while producer is not None and producer.kind in _VIEWS:
        name = producer.inputs[0]
        producer = graph.producer(name)
    return producer is None and graph[name].data is None


def _copy(name: str, ifm: FeatureMap, ofm: FeatureMap) -> VelaOperation:
    """A copy runs as a pooling of one element."""
    return VelaOperation(name, "MemoryCopy", "pool", ifm, ofm)


def _layer(graph: Graph, op: Op, npu: Npu) -> VelaOperation:
    ifm, ofm = _map(graph, op.inputs[0]), _map(graph, op.outputs[0])
    weight = graph[op.inputs[1]]
    if op.kind == "gemm":
        shape, depthwise = (*weight.shape, 1, 1), False
        if len(graph[op.inputs[0]].shape) == 2:
            ifm = FeatureMap(ifm.height, 1, weight.shape[1], layout=ifm.layout, external=ifm.external)
        name, kernel, stride, dilation = "FullyConnected", (1, 1), (1, 1), (1, 1)
    else:
        groups = int(op.attributes["groups"])
        shape, depthwise = weight.shape, groups > 1 and groups == ifm.channels
        name = "DepthwiseConv2D" if depthwise else "Conv2D"
        kernel, stride = _pair(weight.shape[2:]), _pair(op.attributes["strides"])
        dilation = _pair(op.attributes["dilations"])
    data = weight.data if weight.dtype == "int8" else None
    size = encoded_weights(data, tuple(shape), npu, depthwise)
    scales = round_up(SCALE_BYTES * shape[0], STREAM_BYTES)
    return VelaOperation(
        op.name, name, "depthwise" if depthwise else "conv", ifm, ofm, None, kernel, stride, dilation,
        _activation(op), weights=Weights(size, scales),
    )  # fmt: skip


def _softmax(graph: Graph, op: Op) -> Iterator[VelaOperation]:
    border = _map(graph, op.outputs[0])
    rows, channels = border.height * border.width, border.channels
    maps = {
        "x": FeatureMap(rows, 1, channels),
        "b": FeatureMap(rows, 1, 1),
        "X": FeatureMap(rows, 1, channels, 32),
        "o": FeatureMap(rows, 1, 1, 32),
        "k": FeatureMap(1, 1, 1, 32, "NHWC", constant=True),
    }
    across = FeatureMap(rows, channels, 1, layout="NHWC")
    yield VelaOperation(f"{op.name}/0", "MaxPool", "pool", across, maps["b"], kernel=(1, channels))
    for index, (name, inputs, output) in enumerate(_SOFTMAX, start=1):
        second = maps[inputs[1]] if len(inputs) > 1 else None
        kind: Kind = "reduce_sum" if name == "ReduceSum" else "elementwise"
        activation: Activation = "table" if index == 1 else "none"
        yield VelaOperation(
            f"{op.name}/{index}", name, kind, maps[inputs[0]], maps[output], second, activation=activation
        )


def _map(graph: Graph, name: str) -> FeatureMap:
    """A tensor as rows, columns, channels: maps are NCHW in the graph, all else has its channels last."""
    shape = graph[name].shape
    external = name in graph.outputs or _from_outside(graph, name)
    if len(shape) == 4:
        height, width, channels = shape[0] * shape[2], shape[3], shape[1]
    else:
        height, width, channels = math.prod(shape[:-1]), 1, shape[-1] if shape else 1
    bits = 16 if graph[name].dtype == "int16" else 8
    constant = graph[name].data is not None
    linear = external or constant or _reshaped(graph, name)
    return FeatureMap(height, width, channels, bits, "NHWC" if linear else "NHCWB16", constant, external)


def _reshaped(graph: Graph, name: str) -> bool:
    """Whether a tensor is seen under two shapes, which bricks do not allow; a row of channels is one in any shape."""
    producer = graph.producer(name)
    views = [op for op in graph.consumers(name) if op.kind in _VIEWS]
    if producer is not None and producer.kind in _VIEWS:
        views.append(producer)
    if any(op.kind == "softmax" for op in graph.consumers(name)):
        return True
    return any(graph[op.inputs[0]].elements != max(graph[op.inputs[0]].shape) for op in views)


def _activation(op: Op) -> Activation:
    return "none" if op.attributes.get("activation", "none") == "none" else "clamp"


def _pair(values: object) -> tuple[int, int]:
    height, width = (int(value) for value in values)  # type: ignore[attr-defined]
    return height, width
