"""Closed-form cycles of the array and of the DMA; the constants are the stages a value passes, in order.

A fold is one kernel element and `input_channels` input channels of one block of output channels. Its weights move
from the scratchpad into the multipliers under the fold before it, `weight_banks` words a cycle, so a fold takes the
longer of its pixels and of the next fold's weights. Nothing here is fitted to a peer's figures.
"""

from __future__ import annotations

import math

from accelerators.npu.hardware import NpuHardware
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import ELEMENT_UNIT
from dse.program.tile.program import Machine
from dse.program.tile.timing import LOAD_PIPELINE_CYCLES, STORE_PIPELINE_CYCLES, SYNC_CYCLES
from dse.program.tile.timing_element import element_cycles
from dse.program.tile.timing_vector import vector_latency

#: Bits of a MATMUL's `flags`: weights are diagonal (a depthwise layer); weights have two zeros in four.
DIAGONAL, SPARSE = 1, 2
#: Counters load, address, scratchpad read, multiply, accumulate and write.
_START, _ADDRESS, _READ, _MULTIPLY, _ACCUMULATE = 1, 1, 2, 1, 2


def array_steps(d: Descriptor, hw: NpuHardware) -> int:
    """Cycles in which the array does products of a MATMUL, without fill and drain."""
    blocks = math.ceil(d["n_blocks"] / hw.cores)
    taps, words = d["n_rows"] * d["n_columns"], d["n_channels"]
    if d["flags"] & DIAGONAL:
        # each lane adds up kernel elements of its own channel: channel words are no folds
        folds, width = math.ceil(taps / hw.depthwise_taps), 1
    else:
        folds = taps * (math.ceil(words / 2) if d["flags"] & SPARSE else words)
        width = hw.input_channels
    pixels = math.ceil(d["height"] * d["width"] / hw.pixels)
    return blocks * folds * max(pixels, math.ceil(width / hw.weight_banks))


def matmul_cycles(d: Descriptor, hw: NpuHardware) -> int:
    """Cycles of a MATMUL from start to done: its steps and one way through the adder tree."""
    tree = math.ceil(math.log2(hw.input_channels))
    return array_steps(d, hw) + _START + _ADDRESS + _READ + _MULTIPLY + tree + _ACCUMULATE


def passes(d: Descriptor, hw: NpuHardware) -> int:
    """Passes of a VECTOR over its accumulators; a unit that takes several adds a residual in one of its own."""
    return hw.vector_passes + (d["add"] if hw.vector_passes > 1 else 0)


def vector_cycles(d: Descriptor, hw: NpuHardware) -> int:
    """Cycles of a VECTOR: lane groups of the busiest core, then the pipeline drains."""
    blocks = math.ceil(d["n_blocks"] / hw.cores)
    groups = blocks * d["rows_count"] * (hw.output_channels // hw.vector_lanes) * passes(d, hw)
    return groups - 1 + vector_latency(hw.requantize)


def contiguous_runs(d: Descriptor) -> tuple[int, int]:
    """(bursts, bytes of each) of a LOAD or STORE: runs that follow each other in memory are one burst."""
    counts, size = [d["n0"], d["n1"], d["n2"]], d["run_bytes"]
    while counts and (counts[-1] == 1 or d[f"ext_stride{len(counts) - 1}"] == size):
        size *= counts.pop()
    return math.prod(counts), size


def feature_beats(d: Descriptor, hw: NpuHardware) -> int:
    """Beats of the port to feature maps that a LOAD or STORE takes."""
    bursts, size = contiguous_runs(d)
    return bursts * math.ceil(size / hw.feature_bytes_per_cycle)


def is_constant(d: Descriptor) -> bool:
    """Whether a LOAD brings weights, parameters or tables rather than feature maps."""
    return d.op == Opcode.LOAD and d["memory"] in (MemoryId.WEIGHT, MemoryId.PARAMETER, MemoryId.TABLE)


def load_bytes(d: Descriptor) -> int:
    """Bytes that a LOAD writes on chip."""
    return d["n0"] * d["n1"] * d["n2"] * d["run_bytes"]


def constant_cycles(encoded_bytes: int, weights: int, hw: NpuHardware) -> int:
    """Cycles of a LOAD of constants: the slower of memory and decoder behind the latency."""
    decode = math.ceil(weights / hw.weights_decoded_per_cycle) if hw.weight_encoding else 0
    move = math.ceil(encoded_bytes / hw.constant_bytes_per_cycle)
    return max(move, decode) + hw.constant_latency_cycles + LOAD_PIPELINE_CYCLES


def cycles(d: Descriptor, hw: NpuHardware, machine: Machine) -> int:
    """Cycles of a descriptor from start to end; LOADs of weights have `constant_cycles` of their encoded bytes."""
    if d.op == Opcode.SYNC:
        return SYNC_CYCLES
    if is_constant(d):
        return constant_cycles(load_bytes(d), 0, hw)
    if d.op == Opcode.LOAD:
        return feature_beats(d, hw) + hw.feature_latency_cycles + LOAD_PIPELINE_CYCLES
    if d.op == Opcode.STORE:
        return feature_beats(d, hw) + hw.feature_latency_cycles + STORE_PIPELINE_CYCLES
    if d.op == Opcode.MATMUL:
        return matmul_cycles(d, hw)
    if d.op == Opcode.VECTOR:
        return vector_cycles(d, hw)
    if d.op in ELEMENT_UNIT:
        return element_cycles(d, machine)
    return 0
