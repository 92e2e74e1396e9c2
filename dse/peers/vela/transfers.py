"""Bytes that an operation moves: how often inputs and weights are fetched, and what short bursts cost on top."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dse.peers.vela.blocks import SUBKERNEL_LIMIT, Block, clip, parts
from dse.peers.vela.hardware import Memory, Npu
from dse.peers.vela.operation import BRICK_CHANNELS, FeatureMap, VelaOperation, round_up


@dataclass(frozen=True)
class Accesses:
    """Elements read and written, and how often all weights are fetched."""

    ifm: int
    ifm2: int
    ofm: int
    weight_fetches: int


def accesses(operation: VelaOperation, block: Block, *, depth: int | None = None) -> Accesses:
    """Accesses of an operation, or of a slice of `depth` output channels."""
    ofm_channels = operation.ofm.channels if depth is None else depth
    ofm = (operation.ofm.height, operation.ofm.width, ofm_channels)
    written = _stored(operation.ofm, ofm)
    if operation.kind == "elementwise":
        return Accesses(*_elementwise_reads(operation), written, 0)
    rows, columns, deep = (int(count) for count in parts(ofm, clip(ofm, block.ofm)))
    if operation.kind in ("depthwise", "pool"):
        deep = 1
    ifm_block = clip(operation.ifm.shape, block.ifm)
    subkernels = math.prod(-(-size // SUBKERNEL_LIMIT) for size in operation.kernel)
    fetched = _stored(operation.ifm, (ifm_block[0], ifm_block[1], operation.ifm.channels))
    weighted = operation.kind in ("conv", "depthwise")
    return Accesses(fetched * subkernels * rows * columns * deep, 0, written, rows * columns if weighted else 0)


def burst_bytes(
    npu: Npu, memory: Memory, tensor: FeatureMap, block: tuple[int, int, int], elements: int, *, read: bool
) -> int:
    """Bytes that `elements` cost when they come in bursts as short as block and layout make them."""
    _, width, depth = block
    bits = tensor.bits
    if tensor.layout == "NHCWB16":
        # the stride of a row of bricks is compared with the depth of a block, as the peer does
        if tensor.width * bits * BRICK_CHANNELS // 8 == depth:
            burst = bits * width * depth
        else:
            burst = BRICK_CHANNELS * bits * width * (1 if read else npu.cores)
    else:
        whole_pixels = tensor.channels * bits // 8 == depth
        if read:
            burst = bits * width * depth if whole_pixels else bits * depth
        elif depth <= BRICK_CHANNELS and whole_pixels:
            burst = bits * width * depth
        else:
            burst = min(64 * 8, BRICK_CHANNELS * bits * npu.cores, depth * bits)
    length = min(memory.burst_bytes, burst // 8)
    return elements * bits // 8 * memory.burst_bytes // length


def _stored(tensor: FeatureMap, shape: tuple[int, int, int]) -> int:
    height, width, channels = shape
    return height * width * (channels if tensor.layout == "NHWC" else round_up(channels, BRICK_CHANNELS))


def _elementwise_reads(operation: VelaOperation) -> tuple[int, int]:
    """Elements read of both inputs; 8-bit scalars stand in the command and are not read."""
    one, two = operation.ifm, operation.ifm2
    every = _stored(one, operation.ofm.shape)
    if one.elements == 1:
        if one.bits > 8:
            return _stored(one, one.shape), 0
        return 0, every if two is not None else 0
    if two is None:
        return every, 0
    if two.elements > 1:
        return every, every
    return every, _stored(one, two.shape) if two.bits > 8 else 0
