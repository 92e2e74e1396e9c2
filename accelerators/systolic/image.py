"""The memory image of a program: where tensors lie, packed weights and channel parameters.

Weights lie in the order the array consumes them (tile by tile, fold by fold, one word per array row), so that every
weight tile is one contiguous read. Activations lie as NHWC bytes with a border for the padding of their consumers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelerators.systolic.layer import Layer
from accelerators.systolic.partition import HostOp
from accelerators.systolic.reduction import block_channel_words, weight_blocks
from accelerators.systolic.tiling import TileGrid
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.requantize import encode_scale
from dse.program.tile.isa import PARAMETER_BYTES, MemoryId
from dse.program.tile.program import Machine, TensorPlacement

Int8Array = npt.NDArray[np.int8]


def weight_layout(grid: TileGrid, machine: Machine, base: int) -> tuple[dict[tuple[int, int], int], int]:
    """Address of the weights of each tile start (n, k), and the bytes of all."""
    reduction, layer = grid.tiling.reduction, grid.layer
    kernel = reduction.kernel[0] * reduction.kernel[1]
    word_bytes = machine.word_bytes[MemoryId.WEIGHT]
    addresses: dict[tuple[int, int], int] = {}
    position = base
    for n in grid.segments["n"]:
        for n_index in range(n.count):
            start_n = n.start + n_index * n.size
            for k in grid.segments["k"]:
                words = k.size
                if grid.grouped:
                    words = block_channel_words(layer, start_n, machine.rows, machine.columns)[1]
                if n_index == 0:
                    addresses[n.start, k.start] = position
                position += k.count * n.size * kernel * words * machine.rows * word_bytes
    return addresses, position - base


def pack_weights(grid: TileGrid, machine: Machine, weights: Int8Array) -> npt.NDArray[np.uint8]:
    """All weight words of a layer in the order of `weight_layout`, as bytes."""
    layer, reduction = grid.layer, grid.tiling.reduction
    blocks = weight_blocks(layer, reduction, weights, machine.columns)
    pieces = []
    for n in grid.segments["n"]:
        for n_index in range(n.count):
            start_n = n.start + n_index * n.size
            for k in grid.segments["k"]:
                for k_index in range(k.count):
                    first, words = k.start + k_index * k.size, k.size
                    if grid.grouped:
                        first, words = block_channel_words(layer, start_n, machine.rows, machine.columns)
                    tile = blocks[start_n : start_n + n.size, :, :, first : first + words]
                    pieces.append(tile.reshape(-1, machine.columns))
    return pack_words(np.concatenate(pieces), machine.weight_bits)


def pack_words(words: Int8Array, weight_bits: int) -> npt.NDArray[np.uint8]:
    """Weight words, int8 of shape (words, columns), to bytes; two 4-bit weights share a byte, the lower first."""
    raw: npt.NDArray[np.uint8] = words.view(np.uint8)
    if weight_bits == 8:
        return raw.ravel()
    if raw.shape[1] % 2:
        raw = np.pad(raw, ((0, 0), (0, 1)))
    nibbles = np.bitwise_and(raw, np.uint8(0x0F))
    packed: npt.NDArray[np.uint8] = (nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)).ravel()
    return packed


def parameter_bytes(layer: Layer, machine: Machine) -> int:
    """Bytes of a layer's channel parameters, padded to whole blocks."""
    return -(-layer.out_channels // machine.columns) * machine.columns * PARAMETER_BYTES


def pack_parameters(
    layer: Layer, machine: Machine, bias: npt.NDArray[np.int64], scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Channel parameters (bias int32, multiplier uint32, shift int8); channels beyond the layer's are neutral.

    Raises
    ------
    ModelError: a bias leaves int32.
    """
    if (np.abs(bias) >= 1 << 31).any():
        raise ModelError(f"layer {layer.name!r}: a bias corrected for the input zero point leaves int32")
    multiplier, shift = encode_scale(scales, machine.requantize)
    channels = -(-layer.out_channels // machine.columns) * machine.columns
    table = np.zeros(channels, np.dtype([("bias", "<i4"), ("multiplier", "<u4"), ("shift", "i1")]))
    table["shift"] = 1
    table["bias"][: layer.out_channels] = bias
    table["multiplier"][: layer.out_channels] = multiplier
    table["shift"][: layer.out_channels] = shift
    return table.view(np.uint8)


def fill_borders(memory: npt.NDArray[np.uint8], placements: Mapping[str, TensorPlacement]) -> None:
    """Write every tensor's zero point over its whole region (the interior is written later)."""
    for place in placements.values():
        memory[place.base : place.base + place.bytes] = np.uint8(place.zero_point & 0xFF)


def host_bytes(graph: Graph, item: HostOp) -> tuple[int, int]:
    """Bytes a host op reads and writes, int8 activations."""
    return sum(graph[name].elements for name in item.reads), graph[item.output].elements
