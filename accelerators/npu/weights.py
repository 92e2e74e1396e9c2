"""Constants of a layer: weights in the order the array takes them, their encoded size, bias and scales.

The memory image of a program holds weights as the array reads them, so that the interpreter needs no decoder. Time,
traffic and energy are those of the encoded stream: a canonical Huffman code over the values of the layer, whose code
lengths come from the actual weights, tile by tile. Zeros that only fill the array (padding, off the diagonal of
depthwise layers) are no part of the stream.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.npu.layer import ConvLayer
from accelerators.npu.tiles import Tiling, WeightTile
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.quantized import conv_scales
from dse.ir.requantize import encode_scale
from dse.program.tile.isa import PARAMETER_BYTES
from dse.program.tile.program import Machine

Int8Array = npt.NDArray[np.int8]

#: A tile's stream ends at a burst of this many bytes.
STREAM_BYTES = 16
#: Bits a weight in a stream without an entropy code; with 2:4 sparsity each kept weight names its place besides.
PLAIN_BITS, PLACE_BITS = 8, 2
#: A code table: a length of 4 bits for each of 256 values.
TABLE_BYTES = 128
#: A channel's parameters in memory: 9 bytes.
PARAMETER_TYPE = np.dtype([("bias", "<i4"), ("multiplier", "<u4"), ("shift", "i1")])
#: Channels whose weights are all but zero have scales below this.
VANISHING_SCALE = 2.0**-32
#: Longest code word; rarer values share the longest length.
MAX_CODE_BITS = 15


@dataclass(frozen=True)
class Stream:
    """What the decoder reads for one weight tile: encoded bytes, and how many weights come out."""

    bytes: int
    weights: int


def is_sparse(weights: Int8Array) -> bool:
    """Whether every group of four weights along the input channels holds two zeros (out, in, kh, kw).

    A ragged last group counts as filled with zeros.
    """
    out, depth = weights.shape[:2]
    padded = np.zeros((out, -(-depth // 4) * 4, *weights.shape[2:]), bool)
    padded[:, :depth] = weights != 0
    return bool((padded.reshape(out, -1, 4, *weights.shape[2:]).sum(axis=2) <= 2).all())


def code_lengths(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Huffman code lengths in bits of int8 values: int64, shape (256,), index value + 128; 0 for absent values."""
    counts = np.bincount(values.astype(np.int64).ravel() + 128, minlength=256)
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (int(count), index, (index,)) for index, count in enumerate(counts) if count
    ]
    lengths = np.zeros(256, np.int64)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        lengths[list(members)] += 1
        heapq.heappush(heap, (first[0] + second[0], min(first[1], second[1]), members))
    if lengths.max(initial=0) <= MAX_CODE_BITS:
        return lengths
    # too long for the decoder's table: all values take the fixed length that tells them apart
    return np.where(counts > 0, max(1, math.ceil(math.log2((counts > 0).sum()))), 0).astype(np.int64)


def streams(
    layer: ConvLayer, tiling: Tiling, weights: Int8Array | None, *, encode: bool, sparse: bool
) -> dict[WeightTile, Stream]:
    """The stream of every weight tile; without values a weight takes 8 bits."""
    lengths = code_lengths(weights) if weights is not None and encode else None
    result = {}
    for tile in tiling.weight_tiles():
        channels = slice(tile.block * tiling.columns, (tile.block + tile.blocks) * tiling.columns)
        outputs = min(channels.stop, layer.out_channels) - channels.start
        depth = layer.in_channels // layer.groups
        if layer.groups == 1:
            low, high = tile.word * tiling.rows, min((tile.word + tile.words) * tiling.rows, layer.in_channels)
        else:
            low, high = 0, depth
        count = outputs * (high - low) * layer.kernel[0] * layer.kernel[1]
        kept = count // 2 if sparse else count
        bits = kept * (PLAIN_BITS + (PLACE_BITS if sparse else 0))
        if weights is not None and lengths is not None:
            values = weights[channels, low:high].astype(np.int64) + 128
            coded = int(lengths[values].sum()) + (8 * TABLE_BYTES if tile == tiling.first_tile() else 0)
            bits = min(bits, coded)
        size = -(-math.ceil(bits / 8) // STREAM_BYTES) * STREAM_BYTES
        result[tile] = Stream(size, kept)
    return result


def dense(layer: ConvLayer, weights: Int8Array) -> Int8Array:
    """Weights of any layer as (out, in per group, kh, kw)."""
    return weights.reshape(layer.out_channels, layer.in_channels // layer.groups, *layer.kernel)


def pack_tile(layer: ConvLayer, tiling: Tiling, weights: Int8Array, tile: WeightTile) -> npt.NDArray[np.uint8]:
    """Bytes of a weight tile: block, kernel row, kernel column, channel word, array row, column."""
    rows, columns = tiling.rows, tiling.columns
    words = np.zeros((tile.blocks, *layer.kernel, tile.words, rows, columns), np.int8)
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for index in range(tile.blocks):
        first = (tile.block + index) * columns
        begin = (tile.word + (index * tile.words if tiling.diagonal_blocks else 0)) * rows
        for lane in range(min(columns, layer.out_channels - first)):
            origin = (first + lane) // per_out * per_in - begin
            low, high = max(0, origin), min(origin + per_in, tile.words * rows)
            if low >= high:
                continue
            lane_words = np.zeros((tile.words * rows, *layer.kernel), np.int8)
            lane_words[low:high] = weights[first + lane, low - origin : high - origin]
            shaped = lane_words.reshape(tile.words, rows, *layer.kernel)
            words[index, ..., lane] = shaped.transpose(2, 3, 0, 1)
    return words.view(np.uint8).ravel()


def layer_constants(graph: Graph, layer: ConvLayer) -> tuple[Int8Array, npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Weights (out, in per group, kh, kw), bias with the input zero point folded in, and scales per channel.

    Raises
    ------
    ModelError: no values, or a sum may leave the 32 bits of an accumulator.
    """
    op = layer.op
    data, quantization = graph[op.inputs[1]].data, graph[op.inputs[0]].quantization
    if data is None or quantization is None:
        raise ModelError(f"layer {layer.name!r}: quantized weights and input quantization are needed to compile values")
    weights = dense(layer, data)
    flat = weights.reshape(layer.out_channels, -1).astype(np.int64)
    bias = np.zeros(layer.out_channels, np.int64)
    if len(op.inputs) > 2 and op.inputs[2]:
        bias_data = graph[op.inputs[2]].data
        assert bias_data is not None
        bias = bias + bias_data.astype(np.int64)
    most = np.abs(flat).sum(axis=1) * 255 + np.abs(bias)
    if most.size and int(most.max()) >= 1 << 31:
        raise ModelError(
            f"layer {layer.name!r}: the sum of channel {int(most.argmax())} may reach {int(most.max())}, beyond the "
            "32 bits of an accumulator; split its reduction into several layers"
        )
    scales = np.broadcast_to(conv_scales(graph, op), (layer.out_channels,))
    return weights, bias - quantization.zero_point * flat.sum(axis=1), scales


def pack_parameters(
    name: str, machine: Machine, bias: npt.NDArray[np.int64], scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Channel parameters (bias int32, multiplier uint32, shift int8), whole blocks; missing channels are neutral.

    Raises
    ------
    ModelError: a bias leaves int32, or a scale cannot be encoded.
    """
    if (np.abs(bias) >= 1 << 31).any():
        raise ModelError(f"layer {name!r}: a bias corrected for the input zero point leaves int32")
    # a sum of 32 bits times such a scale is below a half: it rounds to nothing, whatever the inputs are
    vanishing = scales < VANISHING_SCALE
    try:
        multiplier, shift = encode_scale(np.where(vanishing, 1.0, scales), machine.requantize)
    except ValueError as error:
        raise ModelError(f"layer {name!r}: {error}") from error
    multiplier = np.where(vanishing, 0, multiplier)
    table = np.zeros(-(-bias.size // machine.columns) * machine.columns, PARAMETER_TYPE)
    table["shift"] = 1
    for field, values in (("bias", bias), ("multiplier", multiplier), ("shift", shift)):
        table[field][: bias.size] = values
    return table.view(np.uint8)


def parameter_bytes(channels: int, machine: Machine) -> int:
    """Bytes of the parameters of so many channels, whole blocks."""
    return -(-channels // machine.columns) * machine.columns * PARAMETER_BYTES
