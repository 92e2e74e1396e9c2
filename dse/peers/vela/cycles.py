"""Cycles of the NPU for an operation: blocks of outputs through the MAC array and the output unit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dse.peers.vela.blocks import SUBKERNEL_LIMIT, Block, clip, parts
from dse.peers.vela.hardware import Memory, Npu
from dse.peers.vela.operation import FeatureMap, VelaOperation
from dse.peers.vela.transfers import burst_bytes

#: Bytes of bias, multiplier and shift of an output channel, and the bytes a memory read brings.
SCALE_BYTES, READ_BYTES = 10, 256


@dataclass(frozen=True)
class Placement:
    """Memories that an operation reads from and writes to."""

    ifm: Memory
    ofm: Memory
    ifm2: Memory | None = None
    weights: Memory | None = None


def operation_cycles(
    operation: VelaOperation,
    npu: Npu,
    block: Block,
    placement: Placement,
    *,
    depth: int | None = None,
    first: bool = True,
    last: bool = True,
) -> int:
    """Cycles of an operation, or of a slice of its output channels.

    Parameters
    ----------
    depth
        Output channels of the slice; all by default.
    first, last
        Whether the slice waits for its first inputs, and for its last outputs to be written.
    """
    if depth is not None:
        operation = replace(operation, ofm=replace(operation.ofm, channels=depth))
    if operation.kind == "elementwise":
        return _elementwise_cycles(operation, npu, block, placement)
    micro = _micro_block(operation, npu)
    ofm_block = clip(operation.ofm.shape, block.ofm)
    blocks = float(parts(operation.ofm.shape, micro).prod()) / float(parts(ofm_block, micro).prod())
    output = float(math.ceil(output_cycles_per_element(operation, npu, block) * math.prod(ofm_block)))
    if operation.kind in ("conv", "depthwise") and operation.weights and placement.weights:
        output = max(output, SCALE_BYTES * ofm_block[2] * placement.weights.read_latency_cycles / READ_BYTES)
    compute = float(_mac_cycles_per_block(operation, npu, block, micro))
    fetch = _fetch_cycles(operation, npu, block, placement)
    write = _write_cycles(operation, npu, block, placement)
    # commands are issued for four blocks in flight
    issue = ((abs(write - fetch) if blocks > 1 else 0) + compute + output) / 4
    compute, output = max(compute, issue), max(output, issue)
    if compute > output:
        cycles = int(compute * blocks)
        if last:
            cycles = int(cycles + output)
    else:
        cycles = int(output * blocks + compute)
    return cycles + (write if last else 0) + (fetch if first else 0)


def output_cycles_per_element(operation: VelaOperation, npu: Npu, block: Block) -> float:
    """Cycles the output unit takes for an element: the slower of its scaling and the activation."""
    name, rates = operation.operator, npu.output_cycles
    if operation.kind == "elementwise" and operation.ifm.bits == 32:
        index = 1 if operation.ifm2 is not None else 0
    elif name == "Mul" and operation.ofm.bits == 32:
        index = 2
    elif name == "Mul" or (operation.kind != "elementwise" and block.accumulator_bits == 40):
        index = 3
    elif name in ("Add", "Sub"):
        index = 5
    elif name == "MaxPool":
        index = 6
    else:
        index = 7
    activation = npu.activation_cycles[("table", "clamp", "none").index(operation.activation)]
    return max(rates[index], activation)


def _micro_block(operation: VelaOperation, npu: Npu) -> tuple[int, int, int]:
    """Outputs made at once: four in a row where the two rows of the array would idle."""
    height, _, depth = npu.micro_block
    ofm = operation.ofm
    row = height == 2 and operation.kind == "conv" and ofm.height == 1 and ofm.width % 2 == 0
    return (1, 4, depth) if row and operation.kernel[0] == 1 else npu.micro_block


def _mac_cycles_per_block(operation: VelaOperation, npu: Npu, block: Block, micro: tuple[int, int, int]) -> int:
    """Cycles of the MAC array for a block, subkernel by subkernel, with the stalls of its pipeline."""
    ifm_block, ofm_block = clip(operation.ifm.shape, block.ifm), clip(operation.ofm.shape, block.ofm)
    rows, columns, deep = (int(count) for count in parts(ofm_block, micro))
    area = rows * columns
    least = 32 * micro[2] // 8  # weights of a micro block take this long to be decoded
    total = 0
    height, width = operation.kernel
    for x in range(0, width, SUBKERNEL_LIMIT):
        for y in range(0, height, SUBKERNEL_LIMIT):
            elements = min(height - y, SUBKERNEL_LIMIT) * min(width - x, SUBKERNEL_LIMIT)
            steps, cycles = _steps(operation, npu, block, elements, area, deep, least)
            delay = _delay(npu, block, steps, rows, columns, deep)
            if operation.kind == "conv" and block.traversal == "part_kernel":
                passes = -(-ifm_block[2] // 8)
                cycles, delay = cycles * passes, delay * passes
            total += cycles + delay
    if operation.kind in ("conv", "reduce_sum"):
        total *= -(-operation.ifm.channels // ifm_block[2])
    return total // npu.cores


def _steps(
    operation: VelaOperation, npu: Npu, block: Block, elements: int, area: int, deep: int, least: int
) -> tuple[int, int]:
    """(steps over a subkernel, cycles of a block in it), for one pass over the channels."""
    bits = operation.ifm.bits
    if operation.kind == "pool":
        cycles = max(4, elements) * area * deep
        # the native core multiplies by half the bits, not by the bytes
        return 1, cycles if npu.small else cycles * (bits // 2)
    if operation.kind == "depthwise":
        steps = -(-elements // 4)
        return steps, max(least, 4 * area * (bits // 8)) * steps * deep
    steps = elements
    if operation.kind == "conv" and block.traversal == "part_kernel":
        steps = -(-elements // (2 if bits == 16 else 4))
    return steps, max(least, 4 * area) * steps * deep


def _delay(npu: Npu, block: Block, steps: int, rows: int, columns: int, deep: int) -> int:
    """Stalls when a block is too small to fill the pipeline."""
    wide = block.accumulator_bits == 40
    if npu.small:
        each = 7 if wide else 3
    else:
        each = 3 if wide and npu.macs <= 128 else 2
    stalls = 0
    if rows * columns == 1:
        if deep == 1:
            stalls = each * steps
        elif steps > 1:
            stalls = each * (steps - 1) * deep
    if npu.small and wide and deep > 1 and (rows == 1 or columns == 1):
        stalls += each * deep
    return stalls


def _elementwise_cycles(operation: VelaOperation, npu: Npu, block: Block, placement: Placement) -> int:
    elements = operation.ofm.stored_elements
    rate = output_cycles_per_element(operation, npu, block)
    memory = max(_write_cycles(operation, npu, block, placement), _fetch_cycles(operation, npu, block, placement))
    issue = (memory / math.prod(block.ofm) + rate) / 4
    return int(max(math.ceil(issue * elements), math.ceil(rate * elements)))


def _fetch_cycles(operation: VelaOperation, npu: Npu, block: Block, placement: Placement) -> int:
    """Cycles until the first block of inputs is there."""
    cycles = 0
    for ifm, memory in ((operation.ifm, placement.ifm), (operation.ifm2, placement.ifm2)):
        if ifm is not None and memory is not None:
            cycles = max(cycles, memory.read_latency_cycles + _block_cycles(npu, memory, ifm, block.ifm, read=True))
    return cycles


def _write_cycles(operation: VelaOperation, npu: Npu, block: Block, placement: Placement) -> int:
    """Cycles to write the last block of outputs."""
    memory = placement.ofm
    return memory.write_latency_cycles + _block_cycles(npu, memory, operation.ofm, block.ofm, read=False)


def _block_cycles(npu: Npu, memory: Memory, tensor: FeatureMap, block: tuple[int, int, int], *, read: bool) -> int:
    elements = math.prod(clip(tensor.shape, block))
    return int(burst_bytes(npu, memory, tensor, block, elements, read=read) / memory.bytes_per_cycle(npu))
