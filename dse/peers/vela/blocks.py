"""Vela's choice of the block: how many outputs are made at once, so that both buffers fit and little is re-read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from dse.core.errors import UsageError
from dse.peers.vela.hardware import Npu
from dse.peers.vela.operation import VelaOperation, round_up

#: Largest block of outputs (height, width, depth), and the largest part of a kernel handled at once.
BLOCK_LIMIT = (32, 64, 128)
SUBKERNEL_LIMIT = 8
#: Depth in which a block grows while the outputs are deeper.
SPLIT_DEPTH = 16
OUTPUT_BANKS = 2
BANK_BYTES = 1024

Traversal = Literal["depth_first", "part_kernel", "depthwise"]


@dataclass(frozen=True)
class Block:
    """A block of outputs and the inputs it needs, (height, width, depth) each, and how the kernel is walked."""

    ofm: tuple[int, int, int]
    ifm: tuple[int, int, int]
    traversal: Traversal
    accumulator_bits: int


def part_kernel_pays(channels: int, bits: int, kernel_elements: int) -> bool:
    """Whether a convolution walks kernel positions inside a few channels, which shallow inputs fill better."""
    if channels <= 8:
        return True
    deep = channels / round_up(channels, 32 if bits == 8 else 16)
    step = 4 if bits == 8 else 2
    part = channels / round_up(channels, 8) * (kernel_elements / round_up(kernel_elements, step))
    return part >= deep


def traversal_of(operation: VelaOperation) -> Traversal:
    """How the kernel is walked."""
    if operation.kind == "depthwise":
        return "depthwise"
    larger = _larger_input(operation)
    if operation.kind == "conv" and part_kernel_pays(larger[2], operation.ifm.bits, math.prod(operation.kernel)):
        return "part_kernel"
    return "depth_first"


@lru_cache(maxsize=4096)
def best_block(operation: VelaOperation, npu: Npu) -> Block:
    """The block of least relative fetches that fits the shared buffer.

    Raises
    ------
    UsageError: no block fits.
    """
    traversal = traversal_of(operation)
    bits = operation.ifm.bits
    pooling = operation.kind in ("pool", "reduce_sum")
    accumulator_bits = 40 if bits == 16 and (not pooling or operation.kind == "reduce_sum") else 32
    search = _Search(operation, npu, traversal, accumulator_bits)
    for depth in _depths(operation.ofm.channels, npu):
        search.depth(depth)
    if search.best is None:
        raise UsageError(f"{operation.name}: no block of outputs fits the buffer of {npu.name}")
    height, width, depth = search.best
    return Block(search.best, search.inputs(height, width, depth), traversal, accumulator_bits)


def _larger_input(operation: VelaOperation) -> tuple[int, int, int]:
    second = operation.ifm2
    return second.shape if second is not None and second.elements > operation.ifm.elements else operation.ifm.shape


def _depths(channels: int, npu: Npu) -> list[int]:
    """Depths that are tried, least first."""
    step = npu.micro_block[2]
    last = round_up(min(channels, BLOCK_LIMIT[2]), step)
    depth = max(step, min(last, SPLIT_DEPTH))
    found: list[int] = []
    while True:
        if depth < channels:
            depth = round_up(depth, SPLIT_DEPTH)
        if depth > last:
            return found
        found.append(depth)
        depth += step


class _Search:
    """The search over heights and widths of one depth after the other; ties go to later, better covering blocks."""

    def __init__(self, operation: VelaOperation, npu: Npu, traversal: Traversal, accumulator_bits: int) -> None:
        self.operation, self.npu = operation, npu
        self.elementwise = operation.kind == "elementwise"
        self.equal_depth = operation.kind in ("elementwise", "pool", "depthwise")
        self.accumulator_bits = accumulator_bits
        self.ifm_shape = _larger_input(operation)
        channels, bits = self.ifm_shape[2], operation.ifm.bits
        if bits == 16:
            self.ifm_depth = round_up(min(channels, 16), 4)
        else:
            limit = 16 if traversal == "part_kernel" else 32
            self.ifm_depth = round_up(min(channels, limit), npu.input_depth_granule)
        spans = operation.dilated_kernel
        self.repeats = math.prod(-(-span // SUBKERNEL_LIMIT) for span in spans)
        sizes = (operation.ofm.height, operation.ofm.width)
        self.heights, self.widths = (
            np.arange(step, round_up(min(size, limit), step) + 1, step)
            for step, size, limit in zip(npu.micro_block[:2], sizes, BLOCK_LIMIT[:2], strict=True)
        )
        self.dead = np.zeros((self.heights.size, self.widths.size), bool)
        self.best: tuple[int, int, int] | None = None
        self.cost = self.coverage = np.float32(np.inf)

    def inputs(self, height: int, width: int, depth: int) -> tuple[int, int, int]:
        """Inputs behind a block of outputs."""
        sizes = [
            round_up((out - 1) * stride + min(span, SUBKERNEL_LIMIT), step)
            for out, stride, span, step in zip(
                (height, width), self.operation.stride, self.operation.dilated_kernel, self.npu.micro_block[:2],
                strict=True,
            )
        ]  # fmt: skip
        return sizes[0], sizes[1], depth if self.equal_depth else self.ifm_depth

    def depth(self, depth: int) -> None:
        """Try every height and width at one depth."""
        for i, height in enumerate(self.heights):
            for j, width in enumerate(self.widths):
                if self.dead[i, j]:
                    continue
                ifm = self.inputs(int(height), int(width), depth)
                block = (self._clipped(int(height)), int(width), depth)
                if self._fits(block, ifm):
                    self._offer((int(height), int(width), depth), block, ifm)
                else:
                    self.dead[i, j] = True

    def _clipped(self, height: int) -> int:
        """A one-dimensional convolution needs one row only, though the array makes two."""
        ofm = self.operation.ofm
        one_row = ofm.height == 1 and self.operation.kernel[0] == 1 and self.npu.micro_block[0] == 2
        return min(height, ofm.height) if one_row else height

    def _fits(self, block: tuple[int, int, int], ifm: tuple[int, int, int]) -> bool:
        npu, operation = self.npu, self.operation
        bits = operation.ifm.bits
        granule = (npu.elementwise_granules if self.elementwise else npu.input_granules)[bits]
        ifm_bytes = ifm[0] * ifm[1] * round_up(ifm[2] * bits // 8, 8)
        ifm_banks = round_up(-(-ifm_bytes // BANK_BYTES) * 2, granule)
        room = npu.banks - max(-(-operation.table_bytes // 1024), npu.reserved_banks) - OUTPUT_BANKS
        if not self.elementwise:
            bytes_ = block[0] * block[1] * round_up(block[2], 8) * self.accumulator_bits // 8
            return ifm_banks + round_up(-(-bytes_ // BANK_BYTES) * 2, self._accumulator_granule()) <= room
        scalar = operation.ifm.elements == 1 or (operation.ifm2 is not None and operation.ifm2.elements == 1)
        return ifm_banks * (1 if scalar and bits <= 16 else 2) <= room

    def _accumulator_granule(self) -> int:
        return self.npu.accumulator_granules[self.accumulator_bits]

    def _offer(self, whole: tuple[int, int, int], block: tuple[int, int, int], ifm: tuple[int, int, int]) -> None:
        cost = self._cost(whole, block, ifm)
        if cost > self.cost:
            return
        if cost == self.cost:
            # among equals only small blocks compete, by how much of the input they see
            seen = min(self.ifm_shape[0], ifm[0]) * min(self.ifm_shape[1], ifm[1])
            coverage = np.float32(self.ifm_shape[0] * self.ifm_shape[1]) / np.float32(max(seen, 1))
            if coverage > self.coverage or whole[0] > 4 or whole[1] > 4:
                return
            self.coverage = coverage
        else:
            self.coverage = np.float32(np.inf)
        self.cost, self.best = cost, whole

    def _cost(self, whole: tuple[int, int, int], block: tuple[int, int, int], ifm: tuple[int, int, int]) -> np.float32:
        operation, ofm = self.operation, self.operation.ofm
        single: type[np.float32] = np.float32
        if self.elementwise:
            cost = single(ofm.elements) / single(math.prod(whole))
        else:
            full = [-(-size // part) for size, part in zip(ofm.shape, block, strict=True)]
            blocks = [single(size) / single(part) for size, part in zip(ofm.shape, block, strict=True)]
            weights = single(0)
            if operation.kind in ("conv", "depthwise"):
                weights = single(math.prod(operation.kernel) * self.ifm_shape[2] * full[0] * full[1])
                if operation.kind == "conv":
                    weights *= blocks[2] * single(block[2])
            inputs = single(ifm[0] * ifm[1] * self.ifm_shape[2] * self.repeats) * blocks[1] * blocks[0]
            if not self.equal_depth:
                inputs *= single(full[2])
            cost = (inputs + weights) / single(ofm.elements)
        whole_input = math.prod(self.ifm_shape) < math.prod(ifm) * 2
        return single(cost / single(2)) if whole_input else single(cost)


def clip(shape: tuple[int, int, int], block: tuple[int, int, int]) -> tuple[int, int, int]:
    """A block no larger than the tensor."""
    return min(shape[0], block[0]), min(shape[1], block[1]), min(shape[2], block[2])


def parts(shape: tuple[int, int, int], block: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """Blocks along every dimension, the last one begun."""
    return -(-np.array(shape, np.int64) // np.array(block, np.int64))
