"""What the emitted RTL is made of: flip-flops and widths that area, clock tree and energy are counted from.

The numbers of the array are its structure; those of control and of the vector unit are counted on the elaborated
RTL. tests/unit/systolic/test_structure.py counts the flip-flops of whole machines anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from accelerators.systolic.element_cost import element_flip_flops as element_unit_flip_flops
from accelerators.systolic.hardware import SystolicHardware, machine
from dse.program.tile.isa import ENGINES, SEMAPHORES, MemoryId

ACTIVATION_BITS = 8
ACCUMULATOR_BITS = 32

#: Counted on the RTL of dse.rtl: a sequencer, the load engine (and per byte of the port), the store engine,
#: the vector engine without its lanes, and what it needs to write into the activation scratchpad.
SEQUENCER_FLIP_FLOPS = 840
LOAD_FLIP_FLOPS, LOAD_FLIP_FLOPS_PER_BYTE = 384, 8
STORE_FLIP_FLOPS = 416
VECTOR_FLIP_FLOPS = 195
FORWARD_FLIP_FLOPS = 107
#: Counted on accelerators.systolic.rtl: address generator and tags, and their delay lines per row and column.
MATMUL_FLIP_FLOPS: Mapping[str, int] = {"ws": 355, "os": 450}
MATMUL_FLIP_FLOPS_PER_LINE = 4


@dataclass(frozen=True)
class Lane:
    """A vector lane: operand widths of the requantizer's multiplier and flip-flops of its pipeline.

    The residual add, if any, has two multipliers. `lane_flip_flops` is all of the lane, with the delay lines
    between and beside the two pipelines.
    """

    product: tuple[int, int]
    flip_flops: int
    add_product: tuple[int, int] | None
    add_flip_flops: int
    lane_flip_flops: int


LANES = {
    "q31": Lane((32, 32), 527, (9, 24), 321, 953),
    "ort": Lane((25, 24), 713, None, 0, 813),
}


def partial_sum_bits(hw: SystolicHardware) -> int:
    """Width of the sums inside the array: ws adds up `rows` products, os the whole reduction."""
    if hw.dataflow == "os":
        return ACCUMULATOR_BITS
    return ACTIVATION_BITS + hw.weight_bits + math.ceil(math.log2(hw.rows))


def element_flip_flops(hw: SystolicHardware) -> int:
    """Flip-flops of a processing element.

    Activation, weight, product and sum; a swap flag in ws; drain register, swap and shift flags in os.
    """
    operands = ACTIVATION_BITS + hw.weight_bits
    product = operands
    if hw.dataflow == "ws":
        return operands + product + partial_sum_bits(hw) + 1
    return operands + product + 2 * ACCUMULATOR_BITS + 3


def skew_flip_flops(hw: SystolicHardware) -> int:
    """Delay lines that align operands at the array's edges and results behind it."""
    along_rows, along_columns = hw.rows * (hw.rows - 1) // 2, hw.columns * (hw.columns - 1) // 2
    # the transposer of os hands out activations skewed
    activations = along_rows * ACTIVATION_BITS if hw.dataflow == "ws" else 0
    return activations + along_columns * (hw.weight_bits + partial_sum_bits(hw))


def transposer_flip_flops(hw: SystolicHardware) -> int:
    """One block of activations; rows load and shift on their own, so that no second block is needed."""
    return hw.rows * hw.rows * ACTIVATION_BITS if hw.dataflow == "os" else 0


def control_flip_flops(hw: SystolicHardware) -> dict[str, int]:
    """Flip-flops by component outside the data path; the matmul engine's control stands with the sequencers."""
    matmul = MATMUL_FLIP_FLOPS[hw.dataflow] + MATMUL_FLIP_FLOPS_PER_LINE * (hw.rows + hw.columns)
    return {
        "vector_unit": VECTOR_FLIP_FLOPS + (0 if hw.rows % hw.vector_lanes else FORWARD_FLIP_FLOPS),
        "sequencers": len(ENGINES) * SEQUENCER_FLIP_FLOPS + SEMAPHORES * 8 + matmul,
        "dma": LOAD_FLIP_FLOPS + LOAD_FLIP_FLOPS_PER_BYTE * hw.memory_bytes_per_cycle + STORE_FLIP_FLOPS,
    }


def output_register_bits(hw: SystolicHardware) -> dict[MemoryId, int]:
    """Registers behind the memories: a read takes two cycles. Halves that are banks have each their own."""
    return {
        memory: 8 * size * (2 if memory in (MemoryId.ACCUMULATOR, MemoryId.ACTIVATION) else 1)
        for memory, size in machine(hw).word_bytes.items()
        # those of the element unit stand with its lanes
        if memory not in (MemoryId.STATE, MemoryId.TABLE)
    }


def flip_flops(hw: SystolicHardware) -> int:
    """All flip-flops that the clock reaches, memory cells left out."""
    array = hw.pes * element_flip_flops(hw) + skew_flip_flops(hw) + transposer_flip_flops(hw)
    lanes = hw.vector_lanes * LANES[hw.requantize].lane_flip_flops
    adders = hw.columns * ACCUMULATOR_BITS
    registers = sum(output_register_bits(hw).values())
    element = element_unit_flip_flops(hw)
    return array + lanes + adders + registers + element + sum(control_flip_flops(hw).values())
