"""Constants of a layer as the machine reads them: weights, corrected bias, requantization scales."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelerators.systolic.layer import Layer
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.quantized import conv_scales


def _check_accumulators(
    layer: Layer, weights: npt.NDArray[np.int8], bias: npt.NDArray[np.int64], zero_point: int
) -> None:
    """No int8 input may drive a sum, bias included, out of the 32 bits of an accumulator.

    Sums on the way may wrap: they are taken modulo 2**32, so that only the last one counts.
    """
    positive = np.maximum(weights, 0).sum(axis=1, dtype=np.int64)
    negative = np.minimum(weights, 0).sum(axis=1, dtype=np.int64)
    low, high = -128 - zero_point, 127 - zero_point
    most = np.maximum(np.abs(positive * high + negative * low + bias), np.abs(positive * low + negative * high + bias))
    if most.size and int(most.max()) >= 1 << 31:
        channel = int(most.argmax())
        raise ModelError(
            f"layer {layer.name!r}: the sum of channel {channel} may reach {int(most[channel])}, beyond the 32 bits of "
            "an accumulator; split its reduction into several layers"
        )


def layer_constants(
    graph: Graph, layer: Layer
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Weights as stored, bias with the input zero point folded in, and requantization scales per channel."""
    op = layer.op
    weights = graph[op.inputs[1]].data
    quantization = graph[op.inputs[0]].quantization
    if weights is None or quantization is None:
        raise ModelError(f"layer {layer.name!r}: quantized weights and input quantization are needed to compile values")
    if op.kind == "gemm" and layer.kernel != (1, 1):
        weights = weights.reshape(layer.out_channels, layer.in_channels, *layer.kernel)
    sums = weights.reshape(layer.out_channels, -1).astype(np.int64).sum(axis=1)
    bias = np.zeros(layer.out_channels, np.int64)
    if len(op.inputs) > 2 and op.inputs[2]:
        data = graph[op.inputs[2]].data
        assert data is not None
        bias = bias + data.astype(np.int64)
    _check_accumulators(layer, weights.reshape(layer.out_channels, -1), bias, quantization.zero_point)
    scales = np.broadcast_to(conv_scales(graph, op), (layer.out_channels,))
    return weights, bias - quantization.zero_point * sums, scales
