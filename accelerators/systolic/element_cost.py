"""Price of the element unit: its state and table memories, its lanes, its events. A design without one pays nothing.

Memories are priced as all others are. There is no RTL of the unit yet, so its flip-flops are those that the stages of
`dse.program.tile.timing_element` need at the widths of `dse.program.tile.isa_element`: an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from accelerators.systolic.hardware import SystolicHardware, machine
from dse.core.errors import Violation
from dse.program.tile.isa import MemoryId
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.timing_element import ARITHMETIC_CYCLES, FRONT_CYCLES, LOOK_UP_CYCLES
from dse.tech import SramCost, Technology, control_gates, hop_pj, logic_area_um2, multiply_pj, sram

#: Both multipliers of a lane: x times y or the multiplier, and the product times the multiplier.
LANE_PRODUCTS = ((17, 24), (41, 24))
#: Bits that a stage of a lane carries on: a rounded product and the other operand.
_STAGE_BITS = 64
#: Serial divider and root, sums of NORMALIZE: once, three registers of 64 bits each.
_SERIAL_FLIP_FLOPS = 3 * 3 * 64
_ENTRY_BITS = 16
#: Events that only a design with the unit has.
ELEMENT_EVENTS = ("state_reads", "state_writes", "table_writes", "look_ups", "element_operations")
_MAX_WORDS = 1 << 16


def element_memories(hw: SystolicHardware, tech: Technology) -> dict[str, SramCost]:
    """State memory, one port; table memory, one copy of all tables in every lane. Empty without an element unit."""
    if hw.state_kib <= 0:
        return {}
    target = machine(hw)
    word = target.word_bytes[MemoryId.STATE]
    tables = target.words[MemoryId.TABLE] * TABLE_BYTES
    return {
        "state_memory": sram(target.words[MemoryId.STATE] * word, 8 * word, tech=tech),
        "table_memory": sram(hw.vector_lanes * tables, _ENTRY_BITS, banks=hw.vector_lanes, tech=tech),
    }


def element_flip_flops(hw: SystolicHardware) -> int:
    """Flip-flops of the unit that the clock reaches; 0 without one."""
    if hw.state_kib <= 0:
        return 0
    stages = FRONT_CYCLES + ARITHMETIC_CYCLES + LOOK_UP_CYCLES
    return hw.vector_lanes * stages * _STAGE_BITS + _SERIAL_FLIP_FLOPS


def element_area_um2(hw: SystolicHardware, tech: Technology) -> dict[str, float]:
    """Placed area of the unit's logic; empty without one."""
    if hw.state_kib <= 0:
        return {}
    products = hw.vector_lanes * sum(math.prod(product) for product in LANE_PRODUCTS)
    return {"element_unit": logic_area_um2(control_gates(element_flip_flops(hw), products), tech)}


def element_events(
    hw: SystolicHardware, memories: Mapping[str, SramCost], tech: Technology
) -> dict[str, dict[str, float]]:
    """Energy in pJ of the unit's events by component; without a unit they spend nothing."""
    if hw.state_kib <= 0:
        return {event: {} for event in ELEMENT_EVENTS}
    state, table = memories["state_memory"], memories["table_memory"]
    operation = sum(multiply_pj(*product, tech) for product in LANE_PRODUCTS)
    moved = hop_pj(ARITHMETIC_CYCLES * _STAGE_BITS, tech)
    return {
        "state_reads": {"state_memory": state.read_pj},
        "state_writes": {"state_memory": state.write_pj},
        # a beat fills every lane's copy
        "table_writes": {"table_memory": table.write_pj * hw.vector_lanes * max(1, hw.memory_bytes_per_cycle // 2)},
        "look_ups": {"table_memory": table.read_pj},
        "element_operations": {"element_unit": operation + moved},
    }


def element_violations(hw: SystolicHardware) -> list[Violation]:
    """State words that 16-bit addresses do not reach."""
    if hw.state_kib <= 0:
        return []
    words = machine(hw).words[MemoryId.STATE]
    hint = f"addresses have 16 bits, a word {2 * hw.columns} bytes"
    return [Violation("state_memory words", words, _MAX_WORDS, "words", hint)] if words > _MAX_WORDS else []
