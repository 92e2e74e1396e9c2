"""Cross-layer equalization: moving scale between consecutive layers without changing what the network computes.

A relu does not care for a positive factor, so channel i of a layer may be divided by s_i where the next layer
multiplies it again. s_i = sqrt(r1_i * r2_i) / r2_i gives channel i the same largest weight in both layers. Channels
of one tensor then share its range fairly: per-tensor scales, of activations and of weights, waste fewer codes.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, eq. 11.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op

Reals = npt.NDArray[np.float64]

#: Ops between two layers that a positive factor of each channel passes through.
_TRANSPARENT = ("max_pool", "average_pool", "global_average_pool", "relu", "identity", "flatten", "reshape")
#: Chains of layers pull at each other: repeated until no factor changes by more than this share.
_TOLERANCE = 1e-3
_MAX_ROUNDS = 50
#: Factors of one round stay within 2**-8 .. 2**8: a nearly dead channel must not blow up its partner.
_LARGEST_FACTOR = 2.0**8


#: Two layers with weights, the second reading what the first makes.
Pair = tuple[Op, Op]


def equalize(graph: Graph) -> Graph:
    """The prepared float graph with equalized weights and biases; its outputs are the same up to float rounding.

    Pairs of layers that anything else reads between (a residual, an output of the graph) stay as they are, as do
    layers behind relu6 and layers that share their weights.

    Raises
    ------
    ModelError: weights of a pair have no values.
    """
    pairs = equalizable_pairs(graph)
    constants: dict[str, Reals] = {}
    for pair in pairs:
        for op in pair:
            for name in op.inputs[1:]:
                if name:
                    constants[name] = _values(graph, op, name)
    for _ in range(_MAX_ROUNDS):
        change = max((_balance(pair, constants) for pair in pairs), default=0.0)
        if change <= _TOLERANCE:
            break
    tensors = dict(graph.tensors)
    for name, values in constants.items():
        tensors[name] = replace(tensors[name], data=values.astype(np.float32))
    return replace(graph, tensors=tensors)


def equalizable_pairs(graph: Graph) -> list[Pair]:
    """Every pair of layers with nothing but channel-wise, positively homogeneous ops between, in order."""
    uses = Counter(name for op in graph.ops for name in op.inputs if name)
    found = []
    for op in graph.ops:
        if not _owns_weights(op, uses) or op.attributes.get("activation", "none") not in ("none", "relu"):
            continue
        second = _next_layer(graph, op)
        if second is not None and _owns_weights(second, uses):
            found.append((op, second))
    return found


def _owns_weights(op: Op, uses: Counter[str]) -> bool:
    return op.kind in ("conv", "gemm") and all(uses[name] == 1 for name in op.inputs[1:] if name)


def _next_layer(graph: Graph, first: Op) -> Op | None:
    """The layer that alone reads the output of `first`, through ops that let positive factors pass."""
    name = first.outputs[0]
    while True:
        readers = graph.consumers(name)
        if len(readers) != 1 or name in graph.outputs:
            return None
        (reader,) = readers
        if reader.kind in ("conv", "gemm"):
            return reader if reader.inputs[0] == name else None
        if reader.kind not in _TRANSPARENT or not _keeps_channels(graph, reader):
            return None
        name = reader.outputs[0]


def _keeps_channels(graph: Graph, op: Op) -> bool:
    """Whether the values of one channel stay together: for a reshape, when it is (N, C, ...) -> (N, C * ...)."""
    if op.kind not in ("flatten", "reshape"):
        return True
    before, after = graph[op.inputs[0]].shape, graph[op.outputs[0]].shape
    return after == before or (len(after) == 2 and after[0] == before[0] and after[1] == math.prod(before[1:]))


def _values(graph: Graph, op: Op, name: str) -> Reals:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: constant {name!r} has no values to equalize")
    return data.astype(np.float64)


def _balance(pair: Pair, constants: dict[str, Reals]) -> float:
    """Apply one round of factors to a pair; returns the largest relative change."""
    first, second = (constants[op.inputs[1]] for op in pair)
    groups = int(pair[1].attributes["groups"]) if pair[1].kind == "conv" else 1
    outputs, depth = len(second) // groups, second.shape[1]
    # weights of the second layer by the channel of the first that they multiply
    by_depth = second.reshape(groups, outputs, depth, -1).transpose(0, 2, 1, 3)
    by_channel = by_depth.reshape(len(first), -1)
    of_first = np.abs(first).reshape(len(first), -1).max(axis=1)
    of_second = np.abs(by_channel).max(axis=1)
    alive = (of_first > 0) & (of_second > 0) & np.isfinite(of_first) & np.isfinite(of_second)
    ratio = np.divide(of_first, of_second, out=np.ones_like(of_first), where=alive)
    factors = np.clip(np.sqrt(ratio), 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    first /= factors.reshape((-1,) + (1,) * (first.ndim - 1))
    bias = pair[0].inputs[2] if len(pair[0].inputs) > 2 else ""
    if bias:
        constants[bias] /= factors
    scaled = (by_channel * factors[:, None]).reshape(groups, depth, outputs, -1).transpose(0, 2, 1, 3)
    constants[pair[1].inputs[1]] = scaled.reshape(second.shape)
    return float(np.abs(factors - 1).max())
