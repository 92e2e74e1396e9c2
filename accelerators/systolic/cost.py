"""Area, static power, clock limit and energy of a systolic design, out of `dse.tech` and the structure of the RTL.

Dynamic energy is a sum over events, count times unit energy: `unit_energies` gives the units, so that anyone who
can count accesses can check a total. Memories are those of `machine(hw)`: ping-pong memories are two one-port
halves, accumulators are two halves that read and write in the same cycle.

Gates of control are estimates from flip-flops and multipliers, which `accelerators.systolic.structure` counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from accelerators.systolic.element_cost import element_area_um2, element_events, element_memories, element_violations
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.structure import (
    ACCUMULATOR_BITS,
    ACTIVATION_BITS,
    LANES,
    control_flip_flops,
    element_flip_flops,
    flip_flops,
    output_register_bits,
    partial_sum_bits,
    skew_flip_flops,
    transposer_flip_flops,
)
from dse.backend import HardwareCost
from dse.core.errors import Violation
from dse.program.tile.isa import DESCRIPTOR_BYTES, ENGINES, LOOP_DEPTH, MemoryId
from dse.tech import (
    OperatingPoint,
    SramCost,
    Technology,
    add_pj,
    control_gates,
    dram_pj_per_byte,
    element_gates,
    hop_pj,
    logic_area_um2,
    logic_stage_ns,
    max_clock_mhz,
    multiply_pj,
    operating_point,
    phy_area_um2,
    phy_static_mw,
    pipeline_gates,
    requantizer_gates,
    sram,
)

MAX_WORDS = 1 << 16

#: Loop index times increment, the sequencer's one multiplier; evaluations per descriptor: three operands, all levels.
_SEQUENCER_PRODUCT = (16, 24)
_PRODUCTS_PER_DESCRIPTOR = 3 * LOOP_DEPTH
_DESCRIPTOR_WORD_BITS = 64
#: Byte alignment and port registers that a byte passes in the DMA.
_DMA_HOPS = 2

_COMPONENTS = {
    MemoryId.ACTIVATION: "activation_spad",
    MemoryId.WEIGHT: "weight_spad",
    MemoryId.ACCUMULATOR: "accumulator",
    MemoryId.OUTPUT: "output_buffer",
    MemoryId.RESIDUAL: "residual_buffer",
    MemoryId.PARAMETER: "parameter_memory",
}


@dataclass(frozen=True)
class EventCounts:
    """What a step does: accesses in words of the memory, elements, bytes moved (beats x port width), descriptors.

    `macs_executed` includes padding. Accesses count as the hardware makes them: those of the vector unit once per lane
    group, those of load and store once per beat.
    """

    macs_executed: int = 0
    activation_reads: int = 0
    activation_writes: int = 0
    weight_reads: int = 0
    weight_writes: int = 0
    accumulator_reads: int = 0
    accumulator_writes: int = 0
    output_reads: int = 0
    output_writes: int = 0
    residual_reads: int = 0
    residual_writes: int = 0
    parameter_reads: int = 0
    parameter_writes: int = 0
    requantized: int = 0
    adds: int = 0
    memory_read_bytes: int = 0
    memory_write_bytes: int = 0
    descriptors_fetched: int = 0
    state_reads: int = 0
    state_writes: int = 0
    table_writes: int = 0
    look_ups: int = 0
    element_operations: int = 0


def hardware_cost(hw: SystolicHardware) -> HardwareCost:
    """Area, static power at the design's clock, and the fastest clock it could run at.

    Static power is leakage by component, the PHY's standing power and the clock tree: the RTL gates no clock, so
    every flip-flop costs in every cycle whether or not the array works.

    Raises
    ------
    InfeasibleError: the clock is out of reach (`check_hardware` tells beforehand).
    """
    tech, critical = hw.technology, critical_path_ns(hw)
    point = operating_point(hw.clock_mhz, critical, tech)
    logic = _logic_area_um2(hw)
    memories = _memories(hw)
    bandwidth = 2 * hw.memory_gb_per_s  # read and write channel run at full rate side by side
    area = {**logic, **{name: cost.area_um2 for name, cost in memories.items()}}
    area["memory_phy"] = phy_area_um2(hw.memory_standard, bandwidth, tech)
    for name, um2 in _memory_logic_area_um2(hw).items():
        area[name] += um2
        logic[name] = um2
    static = {name: um2 * 1e-6 * tech.value("logic_leakage") * point.leakage_scale for name, um2 in logic.items()}
    for name, cost in memories.items():
        static[name] = static.get(name, 0.0) + cost.leakage_mw * point.leakage_scale
    static["memory_phy"] = phy_static_mw(hw.memory_standard, bandwidth, tech)
    clock_pj = flip_flops(hw) * tech.value("clock_pin_energy") * point.energy_scale
    static["clock_tree"] = clock_pj * hw.clock_mhz * 1e-3
    return HardwareCost(area, static, max_clock_mhz(critical, tech))


def critical_path_ns(hw: SystolicHardware) -> float:
    """Longest register-to-register path at nominal supply: the slowest memory's access, or arithmetic.

    Reads take two cycles, memory then output register, so that an access must fit into one.
    """
    tech = hw.technology
    slowest = max(cost.access_ns for cost in _memories(hw).values()) * tech.value("sram_margin")
    stages = (tech.value("multiply_depth"), tech.value("wide_multiply_depth"))
    return max(slowest, *(logic_stage_ns(fo4, tech) for fo4 in stages))


def check_hardware(hw: SystolicHardware) -> list[Violation]:
    """Limits a design breaks before it sees a network; empty when it can be built."""
    violations = []
    if hw.columns % hw.vector_lanes:
        divisors = [d for d in range(1, hw.columns + 1) if hw.columns % d == 0]
        best = min(divisors, key=lambda d: (abs(d - hw.vector_lanes), d))
        hint = f"must divide {hw.columns} columns"
        violations.append(Violation("vector_lanes", hw.vector_lanes, best, "lanes", hint))
    width = hw.memory_bytes_per_cycle
    if width & (width - 1):
        best = min((1 << power for power in range(9)), key=lambda p: abs(p - width))
        violations.append(Violation("memory_bytes_per_cycle", width, best, "bytes", "must be a power of two"))
    violations += _memory_violations(hw) + element_violations(hw)
    supply = _supply_violation(hw)
    if supply is not None:
        return [*violations, supply]
    limit = max_clock_mhz(critical_path_ns(hw), hw.technology)
    if hw.clock_mhz > limit:
        violations.append(Violation("clock_mhz", hw.clock_mhz, limit, "MHz", "smaller memories are faster"))
    return violations


def _supply_violation(hw: SystolicHardware) -> Violation | None:
    """A supply outside the range in which the scaling equations of the node hold."""
    place = hw.technology.node
    if hw.vdd is None or place.minimum_vdd <= hw.vdd <= place.maximum_vdd:
        return None
    bound = place.minimum_vdd if hw.vdd < place.minimum_vdd else place.maximum_vdd
    return Violation("vdd", hw.vdd, bound, "V", f"range of {hw.node_nm:g} nm {hw.device}")


def _memory_violations(hw: SystolicHardware) -> list[Violation]:
    """Memories that addresses do not reach, that hold less than two words, or not one block of weights."""
    target = machine(hw)
    violations = []
    asked = {
        MemoryId.ACTIVATION: hw.activation_kib * 1024,
        MemoryId.WEIGHT: hw.weight_kib * 1024,
        MemoryId.ACCUMULATOR: hw.accumulator_kib * 1024,
    }
    for memory, component in _COMPONENTS.items():
        words, size = target.words[memory], target.word_bytes[memory]
        if words > MAX_WORDS:
            hint = f"addresses have 16 bits, a word {size} bytes: at most {MAX_WORDS * size / 1024:g} KiB"
            violations.append(Violation(f"{component} words", words, MAX_WORDS, "words", hint))
        if asked.get(memory, math.inf) < 2 * size:
            violations.append(Violation(f"{component} bytes", asked[memory], 2 * size, "bytes", "two words at least"))
    if target.words[MemoryId.WEIGHT] < hw.rows:
        have, hint = target.words[MemoryId.WEIGHT], "the array loads a word per row"
        violations.append(Violation("weight_spad words", have, hw.rows, "words", hint))
    return violations


def energy(counts: EventCounts, hw: SystolicHardware) -> dict[str, float]:
    """Dynamic energy by component in pJ; without leakage and clock tree, which `hardware_cost` gives as power.

    Raises
    ------
    InfeasibleError: the clock is out of reach.
    """
    spent: dict[str, float] = {}
    amounts = asdict(counts)
    for event, parts in unit_parts(hw).items():
        for component, unit in parts.items():
            spent[component] = spent.get(component, 0.0) + amounts[event] * unit
    return spent


def unit_energies(hw: SystolicHardware) -> dict[str, float]:
    """Energy in pJ of one event, by the name of its field in `EventCounts`: energy = sum of count * unit."""
    return {event: math.fsum(parts.values()) for event, parts in unit_parts(hw).items()}


@lru_cache(maxsize=4096)
def unit_parts(hw: SystolicHardware) -> Mapping[str, Mapping[str, float]]:
    """Energy in pJ of one event, by event and by the component that spends it, at the supply the clock needs.

    Raises
    ------
    InfeasibleError: the clock is out of reach.
    """
    tech = hw.technology
    point = operating_point(hw.clock_mhz, critical_path_ns(hw), tech)
    on_chip = {**_array_events(hw), **_buffer_events(hw), **_vector_events(hw), **_control_events(hw)}
    on_chip |= element_events(hw, _memories(hw), hw.technology)
    parts = {event: _scaled(units, point) for event, units in on_chip.items()}
    for event in ("memory_read_bytes", "memory_write_bytes"):
        # external memory has a supply of its own
        parts[event] = {**parts[event], "memory": dram_pj_per_byte(hw.memory_standard, tech)}
    return parts


def _scaled(units: Mapping[str, float], point: OperatingPoint) -> dict[str, float]:
    return {component: pj * point.energy_scale for component, pj in units.items()}


def _array_events(hw: SystolicHardware) -> dict[str, dict[str, float]]:
    """Events inside the array; a MAC moves its operands and its sum on by one register."""
    memories, sums, tech = _memories(hw), partial_sum_bits(hw), hw.technology
    moved = ACTIVATION_BITS + (ACTIVATION_BITS + hw.weight_bits) + sums
    column_skew = (hw.columns - 1) / 2
    weight_bits = hw.columns * hw.weight_bits
    weight_entry = hop_pj(weight_bits * column_skew, tech)
    if hw.dataflow == "ws":
        # a weight passes the bus of its column, as long as the array, into the register of its row
        bus_mm = hw.rows * math.sqrt(logic_area_um2(_element_gates(hw), tech)) * 1e-3
        weight_entry += hop_pj(weight_bits, tech) + weight_bits * bus_mm * tech.value("wire_energy")
        into_rows, out_of_array = (hw.rows - 1) / 2, column_skew
    else:
        # on average a byte shifts through half a transposer row and a result down half a column
        moved += hw.weight_bits
        into_rows, out_of_array = (hw.rows + 1) / 2, column_skew + (hw.rows + 1) / 2
    mac = multiply_pj(ACTIVATION_BITS, hw.weight_bits, tech) + add_pj(sums, tech) + hop_pj(moved, tech)
    accumulator = memories["accumulator"]
    return {
        "macs_executed": {"pe_array": mac},
        "activation_reads": {
            "activation_spad": memories["activation_spad"].read_pj,
            "pe_array": hop_pj(hw.rows * ACTIVATION_BITS * into_rows, tech),
        },
        "weight_reads": {"weight_spad": memories["weight_spad"].read_pj, "pe_array": weight_entry},
        "accumulator_writes": {
            "accumulator": accumulator.write_pj + hw.columns * add_pj(ACCUMULATOR_BITS, tech),
            "pe_array": hop_pj(hw.columns * sums * out_of_array, tech),
        },
    }


def _buffer_events(hw: SystolicHardware) -> dict[str, dict[str, float]]:
    """Accesses that are nothing but a memory's."""
    memories = _memories(hw)
    word_bytes = machine(hw).word_bytes

    def write_pj(memory: MemoryId, written: int) -> dict[str, float]:
        """A write of `written` bytes of a word drives only the macros that hold them."""
        component = _COMPONENTS[memory]
        slices = memories[component].slices
        share = math.ceil(slices * min(written, word_bytes[memory]) / word_bytes[memory]) / slices
        return {component: memories[component].write_pj * share}

    beat = hw.memory_bytes_per_cycle
    return {
        "activation_writes": write_pj(MemoryId.ACTIVATION, beat),
        "weight_writes": write_pj(MemoryId.WEIGHT, beat),
        "accumulator_reads": {"accumulator": memories["accumulator"].read_pj},
        "output_reads": {"output_buffer": memories["output_buffer"].read_pj},
        # the vector unit writes one lane group
        "output_writes": write_pj(MemoryId.OUTPUT, hw.vector_lanes),
        "residual_reads": {"residual_buffer": memories["residual_buffer"].read_pj},
        "residual_writes": write_pj(MemoryId.RESIDUAL, beat),
        "parameter_reads": {"parameter_memory": memories["parameter_memory"].read_pj},
        "parameter_writes": write_pj(MemoryId.PARAMETER, beat),
    }


def _vector_events(hw: SystolicHardware) -> dict[str, dict[str, float]]:
    lane, tech = LANES[hw.requantize], hw.technology
    add = 2 * multiply_pj(*lane.add_product, tech) + hop_pj(lane.add_flip_flops, tech) if lane.add_product else 0.0
    return {
        "requantized": {"vector_unit": multiply_pj(*lane.product, tech) + hop_pj(lane.flip_flops, tech)},
        "adds": {"vector_unit": add},
    }


def _control_events(hw: SystolicHardware) -> dict[str, dict[str, float]]:
    tech = hw.technology
    fetches = 8 * DESCRIPTOR_BYTES / _DESCRIPTOR_WORD_BITS
    product = _PRODUCTS_PER_DESCRIPTOR * multiply_pj(*_SEQUENCER_PRODUCT, tech)
    moved = {"dma": hop_pj(8 * _DMA_HOPS, tech)}
    return {
        "descriptors_fetched": {
            "descriptor_memory": fetches * _memories(hw)["descriptor_memory"].read_pj,
            "sequencers": hop_pj(8 * DESCRIPTOR_BYTES, tech) + product,
        },
        "memory_read_bytes": moved,
        "memory_write_bytes": moved,
    }


def _memory_technology(hw: SystolicHardware) -> Technology:
    """Prices of memories hold at nominal supply, so that designs of all supplies share them."""
    return replace(hw.technology, vdd=None)


@lru_cache(maxsize=4096)
def _memories(hw: SystolicHardware) -> Mapping[str, SramCost]:
    """Price of every memory by component; descriptor memory is that of all queues."""
    target, tech = machine(hw), _memory_technology(hw)
    costs = {}
    for memory, component in _COMPONENTS.items():
        size = target.word_bytes[memory]
        costs[component] = sram(
            target.words[memory] * size,
            8 * size,
            banks=1 if memory == MemoryId.PARAMETER else 2,
            two_port=memory == MemoryId.ACCUMULATOR,
            tech=tech,
        )
    costs["descriptor_memory"] = sram(
        len(ENGINES) * hw.descriptors * DESCRIPTOR_BYTES, _DESCRIPTOR_WORD_BITS, banks=len(ENGINES), tech=tech
    )
    return costs | element_memories(hw, tech)


def _logic_area_um2(hw: SystolicHardware) -> dict[str, float]:
    """Placed area of logic by component."""
    control, tech = control_flip_flops(hw), hw.technology
    lane = LANES[hw.requantize]
    product_bits = math.prod(lane.product) + (2 * math.prod(lane.add_product) if lane.add_product else 0)
    lanes = hw.vector_lanes * requantizer_gates(product_bits, lane.lane_flip_flops, tech)
    multipliers = len(ENGINES) * math.prod(_SEQUENCER_PRODUCT)
    gates = {
        "pe_array": hw.pes * _element_gates(hw)
        + pipeline_gates(skew_flip_flops(hw), tech)
        + control_gates(transposer_flip_flops(hw)),
        "vector_unit": lanes + control_gates(control["vector_unit"]),
        "sequencers": control_gates(control["sequencers"], multipliers),
        "dma": control_gates(control["dma"]),
    }
    area = {component: logic_area_um2(count, tech) for component, count in gates.items()}
    return area | element_area_um2(hw, tech)


def _element_gates(hw: SystolicHardware) -> float:
    return element_gates(ACTIVATION_BITS * hw.weight_bits, element_flip_flops(hw))


def _memory_logic_area_um2(hw: SystolicHardware) -> dict[str, float]:
    """Placed area of the logic beside the memories: output registers, and adders in front of the accumulators."""
    tech = hw.technology
    area = {
        _COMPONENTS[memory]: logic_area_um2(pipeline_gates(bits, tech), tech)
        for memory, bits in output_register_bits(hw).items()
    }
    area["accumulator"] += logic_area_um2(control_gates(hw.columns * ACCUMULATOR_BITS), tech)
    return area
