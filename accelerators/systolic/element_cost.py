"""Price of the element unit: its state and table memories, its lanes, its events. A design without one pays nothing.

Memories are priced as all others are. Flip-flops are counted on the RTL (tests/unit/systolic/test_structure.py counts
them anew); the serial divider and root of NORMALIZE, which the RTL does not have yet, are an estimate beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from accelerators.systolic.hardware import SystolicHardware, machine
from dse.core.errors import Violation
from dse.program.tile.isa import MemoryId
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.timing_element import ARITHMETIC_CYCLES
from dse.tech import SramCost, Technology, control_gates, hop_pj, logic_area_um2, multiply_pj, sram

#: Both multipliers of a lane: two centred operands of 32 bits, and a value of 64 bits times a multiplier.
LANE_PRODUCTS = ((33, 33), (64, 24))
#: Bits that a stage of a lane carries on: a product and the other operand.
_STAGE_BITS = 64
#: Counted on the RTL: fronts, walkers and strobes; a lane with its operands and what saturates behind it; the wider
#: requantizer in front of SCALE, by mode.
_CONTROL_FLIP_FLOPS = 580
_LANE_FLIP_FLOPS = 1920
_WIDER_FLIP_FLOPS = {"q31": 32, "ort": 40}
#: Of the state memory two banks of 16 bits a lane, of the output buffer, then in two banks, a second one of 8 bits.
_COLUMN_FLIP_FLOPS = 2 * 16 + 8
#: Serial divider and root, sums of NORMALIZE: once, three registers of 64 bits each. An estimate.
SERIAL_FLIP_FLOPS = 3 * 3 * 64
_ENTRY_BITS = 16
#: Events that only a design with the unit has.
ELEMENT_EVENTS = ("state_reads", "state_writes", "table_writes", "look_ups", "element_operations")
_MAX_WORDS = 1 << 16


def element_memories(hw: SystolicHardware, tech: Technology) -> dict[str, SramCost]:
    """State memory in two banks, each read and written in a cycle; table memory, one copy of all tables in every lane.

    Empty without an element unit.
    """
    if hw.state_kib <= 0:
        return {}
    target = machine(hw)
    word = target.word_bytes[MemoryId.STATE]
    tables = target.words[MemoryId.TABLE] * TABLE_BYTES
    return {
        "state_memory": sram(target.words[MemoryId.STATE] * word, 8 * word, banks=2, two_port=True, tech=tech),
        "table_memory": sram(hw.vector_lanes * tables, _ENTRY_BITS, banks=hw.vector_lanes, tech=tech),
    }


def element_flip_flops(hw: SystolicHardware) -> int:
    """Flip-flops of the unit that the clock reaches; 0 without one."""
    if hw.state_kib <= 0:
        return 0
    # a line of the table memory is a beat wide, and an entry at least
    line = max(hw.memory_bytes_per_cycle, _ENTRY_BITS // 8)
    lane = _LANE_FLIP_FLOPS + _WIDER_FLIP_FLOPS[hw.requantize] + 8 * line + 2 * (line // 2).bit_length()
    return hw.vector_lanes * lane + hw.columns * _COLUMN_FLIP_FLOPS + _CONTROL_FLIP_FLOPS + SERIAL_FLIP_FLOPS


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
