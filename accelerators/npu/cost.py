"""Area, static power, clock limit and energy of an NPU, out of `dse.tech` and the parts that the parameters name.

There is no RTL of this family: flip-flops of array, decoder and control are counted from what the parts hold, lanes
and sequencers are those that `dse.rtl` elaborates to. Dynamic energy is a sum over events, count times unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from accelerators.npu.hardware import NpuHardware, machine
from dse.backend import HardwareCost
from dse.core.errors import Violation
from dse.program.tile.isa import DESCRIPTOR_BYTES, ENGINES, LOOP_DEPTH, MemoryId
from dse.tech import (
    SramCost,
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

#: Addresses of scratchpad words have 16 bits.
MAX_WORDS = 1 << 16
_PRODUCT_BITS, _ACCUMULATOR_BITS = 64, 32
#: Of a multiplier: its weight and the next fold's, and its node of the adder tree.
_WEIGHT_REGISTERS, _TREE_BITS = 16, 20
#: Counted on the RTL of dse.rtl: a sequencer, the load engine (and per byte of the port), the store engine, a lane
#: with its residual add, control of the vector unit.
_SEQUENCER, _LOAD, _LOAD_PER_BYTE, _STORE, _VECTOR = 840, 384, 8, 416, 230
_LANE_FLIP_FLOPS = {"q31": 953, "ort": 813}
_LANE_PRODUCTS = {"q31": 32 * 32 + 2 * 9 * 24, "ort": 25 * 24}
#: A decoder turns out a weight a cycle from a window of the longest code word and its table entry (estimate).
_DECODER = 15 + 8 + 8 + 4
#: Lanes of the state memory's arithmetic: stages times the bits they carry (dse.program.tile.timing_element).
_ELEMENT_FLIP_FLOPS, _ELEMENT_PRODUCTS = 17 * 64, 17 * 24 + 41 * 24
_SEQUENCER_PRODUCT = 16 * 24
_DESCRIPTOR_WORD_BITS = 64

_COMPONENTS = {
    MemoryId.ACTIVATION: "activation_spad",
    MemoryId.WEIGHT: "weight_spad",
    MemoryId.ACCUMULATOR: "accumulator",
    MemoryId.OUTPUT: "output_buffer",
    MemoryId.RESIDUAL: "residual_buffer",
    MemoryId.PARAMETER: "parameter_memory",
    MemoryId.STATE: "state_memory",
    MemoryId.TABLE: "table_memory",
}


def check_hardware(hw: NpuHardware) -> list[Violation]:
    """Limits a design breaks before it sees a network; empty when it can be built."""
    violations = []
    if hw.output_channels % hw.vector_lanes:
        divisors = [d for d in range(1, hw.output_channels + 1) if hw.output_channels % d == 0]
        best = min(divisors, key=lambda d: (abs(d - hw.vector_lanes), d))
        hint = f"must divide {hw.output_channels} output channels"
        violations.append(Violation("vector_lanes", hw.vector_lanes, best, "lanes", hint))
    if hw.depthwise_taps > hw.input_channels:
        hint = "kernel elements take the place of input channels"
        violations.append(Violation("depthwise_taps", hw.depthwise_taps, hw.input_channels, "elements", hint))
    width = hw.feature_bytes_per_cycle
    if width & (width - 1):
        best = min((1 << power for power in range(9)), key=lambda p: abs(p - width))
        violations.append(Violation("feature_bytes_per_cycle", width, best, "bytes", "must be a power of two"))
    if hw.constant_storage == "sram" and hw.feature_storage != "sram":
        violations.append(Violation("constant_storage", 0, 1, "", "sram holds constants only where it holds features"))
    if violations:
        return violations
    target = machine(hw)
    for memory, words in target.words.items():
        if words > MAX_WORDS:
            most = f"a word has {target.word_bytes[memory]} bytes: {MAX_WORDS * target.word_bytes[memory] / 1024:g} KiB"
            violations.append(Violation(f"{_COMPONENTS[memory]} words", words, MAX_WORDS, "words", most))
    place = hw.technology.node
    if hw.vdd is not None and not place.minimum_vdd <= hw.vdd <= place.maximum_vdd:
        bound = place.minimum_vdd if hw.vdd < place.minimum_vdd else place.maximum_vdd
        return [*violations, Violation("vdd", hw.vdd, bound, "V", f"range of {hw.node_nm:g} nm {hw.device}")]
    limit = max_clock_mhz(critical_path_ns(hw), hw.technology)
    if not violations and hw.clock_mhz > limit:
        violations.append(Violation("clock_mhz", hw.clock_mhz, limit, "MHz", "smaller memories are faster"))
    return violations


def critical_path_ns(hw: NpuHardware) -> float:
    """Longest register-to-register path at nominal supply: the slowest scratchpad or a multiplier."""
    tech = hw.technology
    pads = [cost.access_ns for name, cost in memories(hw).items() if name != "feature_memory"]
    stages = (tech.value("multiply_depth"), tech.value("wide_multiply_depth"))
    return max(max(pads) * tech.value("sram_margin"), *(logic_stage_ns(fo4, tech) for fo4 in stages))


@lru_cache(maxsize=4096)
def memories(hw: NpuHardware) -> Mapping[str, SramCost]:
    """Price of every memory on the chip at nominal supply."""
    target, tech = machine(hw), replace(hw.technology, vdd=None)
    banks = {
        MemoryId.ACTIVATION: 2,
        MemoryId.WEIGHT: max(2, hw.weight_banks),
        MemoryId.ACCUMULATOR: 2 * hw.pixels,
        MemoryId.PARAMETER: 1,
        MemoryId.TABLE: hw.vector_lanes,
    }
    costs = {}
    for memory, words in target.words.items():
        size = target.word_bytes[memory]
        copies = hw.vector_lanes if memory == MemoryId.TABLE else 1
        bits = 16 if memory == MemoryId.TABLE else 8 * size
        # every bank holds at least a word
        count = min(banks.get(memory, 2), words * copies)
        two_port = memory == MemoryId.ACCUMULATOR
        costs[_COMPONENTS[memory]] = sram(words * size * copies, bits, banks=count, two_port=two_port, tech=tech)
    costs["descriptor_memory"] = sram(
        len(ENGINES) * hw.descriptors * DESCRIPTOR_BYTES, _DESCRIPTOR_WORD_BITS, banks=len(ENGINES), tech=tech
    )
    if hw.feature_storage == "sram":
        bits = 8 * hw.feature_bytes_per_cycle
        costs["feature_memory"] = sram(int(hw.feature_kib * 1024), bits, banks=2, tech=tech)
    return costs


def flip_flops(hw: NpuHardware) -> dict[str, int]:
    """Flip-flops by component, memory cells left out."""
    lanes = hw.cores * hw.vector_lanes
    ports = hw.feature_bytes_per_cycle + math.ceil(hw.constant_bytes_per_cycle)
    operands = hw.cores * hw.pixels * hw.input_channels * 8
    return {
        "mac_array": hw.macs * (_WEIGHT_REGISTERS + _TREE_BITS) + operands,
        "accumulate": hw.cores * hw.pixels * hw.output_channels * _ACCUMULATOR_BITS,
        "vector_unit": lanes * (_LANE_FLIP_FLOPS[hw.requantize] + (_ELEMENT_FLIP_FLOPS if hw.state_kib > 0 else 0))
        + _VECTOR,
        "weight_decoder": hw.weights_decoded_per_cycle * _DECODER if hw.weight_encoding else 0,
        "sequencers": (len(ENGINES) + hw.dma_channels - 1) * _SEQUENCER,
        "dma": hw.dma_channels * _LOAD + _LOAD_PER_BYTE * ports + _STORE,
    }


def _logic_area_um2(hw: NpuHardware) -> dict[str, float]:
    """Placed area of logic by component."""
    tech, registers = hw.technology, flip_flops(hw)
    lanes = hw.cores * hw.vector_lanes
    requantizer = requantizer_gates(_LANE_PRODUCTS[hw.requantize], _LANE_FLIP_FLOPS[hw.requantize], tech)
    element = control_gates(_ELEMENT_FLIP_FLOPS, _ELEMENT_PRODUCTS) if hw.state_kib > 0 else 0.0
    broadcast = hw.cores * hw.pixels * hw.input_channels * 8
    gates = {
        "mac_array": hw.macs * element_gates(_PRODUCT_BITS, _WEIGHT_REGISTERS + _TREE_BITS)
        + pipeline_gates(broadcast, tech),
        "accumulate": control_gates(registers["accumulate"]),
        "vector_unit": lanes * (requantizer + element) + control_gates(_VECTOR),
        "weight_decoder": control_gates(registers["weight_decoder"]),
        "sequencers": control_gates(registers["sequencers"], len(ENGINES) * _SEQUENCER_PRODUCT),
        "dma": control_gates(registers["dma"]),
    }
    return {name: logic_area_um2(count, tech) for name, count in gates.items()}


def area_um2(hw: NpuHardware) -> dict[str, float]:
    """Area by component, whatever the clock: logic, memories, PHYs (names ending in _phy)."""
    area = {**_logic_area_um2(hw), **{name: cost.area_um2 for name, cost in memories(hw).items()}}
    phys = {name: phy_area_um2(standard, rate, hw.technology) for name, (standard, rate) in interfaces(hw).items()}
    return area | phys


def hardware_cost(hw: NpuHardware) -> HardwareCost:
    """Area, static power at the design's clock, and the fastest clock.

    Static power is leakage, the PHYs' standing power and the clock tree (no clock is gated).

    Raises
    ------
    InfeasibleError: the clock is out of reach (`check_hardware` tells beforehand).
    """
    tech, critical = hw.technology, critical_path_ns(hw)
    point = operating_point(hw.clock_mhz, critical, tech)
    logic, rams, area = _logic_area_um2(hw), memories(hw), area_um2(hw)
    static = {name: um2 * 1e-6 * tech.value("logic_leakage") * point.leakage_scale for name, um2 in logic.items()}
    static |= {name: cost.leakage_mw * point.leakage_scale for name, cost in rams.items()}
    for name, (standard, rate) in interfaces(hw).items():
        static[name] = phy_static_mw(standard, rate, tech)
    clock_pj = sum(flip_flops(hw).values()) * tech.value("clock_pin_energy") * point.energy_scale
    static["clock_tree"] = clock_pj * hw.clock_mhz * 1e-3
    return HardwareCost(area, static, max_clock_mhz(critical, tech))


def interfaces(hw: NpuHardware) -> dict[str, tuple[str, float]]:
    """External memories: (standard, GB/s) by component. One port that serves both counts once."""
    found: dict[str, tuple[str, float]] = {}
    if hw.feature_storage != "sram":
        # read and write side by side
        found["feature_phy"] = (hw.feature_storage, 2 * hw.feature_bytes_per_cycle * hw.clock_mhz * 1e-3)
    if hw.constant_storage != "sram" and not (hw.dma_channels == 1 and hw.constant_storage == hw.feature_storage):
        found["constant_phy"] = (hw.constant_storage, hw.constant_gb_per_s)
    return found


@lru_cache(maxsize=4096)
def unit_energies(hw: NpuHardware) -> Mapping[str, Mapping[str, float]]:
    """Energy in pJ of one event, by event and component, at the supply the clock needs.

    Events: macs; words read and written of every scratchpad; fold (weights into the multipliers of a core);
    requantized, element and table operations; bytes of features and constants; decoded weights; descriptors.
    """
    tech = hw.technology
    point = operating_point(hw.clock_mhz, critical_path_ns(hw), tech)
    rams = memories(hw)
    on_chip: dict[str, dict[str, float]] = {
        "macs": {"mac_array": multiply_pj(8, 8, tech) + add_pj(_TREE_BITS, tech) + hop_pj(_TREE_BITS, tech)},
        "pixel_words": {
            "activation_spad": rams["activation_spad"].read_pj,
            "mac_array": hop_pj(8 * hw.input_channels * hw.cores, tech),
        },
        "weight_words": {"weight_spad": rams["weight_spad"].read_pj, "mac_array": hop_pj(8 * hw.output_channels, tech)},
        "sums": {"accumulate": add_pj(_ACCUMULATOR_BITS, tech) + hop_pj(_ACCUMULATOR_BITS, tech)},
        "requantized": {
            "vector_unit": _LANE_PRODUCTS[hw.requantize] * multiply_pj(8, 8, tech) / 64
            + hop_pj(_LANE_FLIP_FLOPS[hw.requantize], tech)
        },
        "element_operations": {
            "vector_unit": _ELEMENT_PRODUCTS * multiply_pj(8, 8, tech) / 64 + hop_pj(_ELEMENT_FLIP_FLOPS, tech)
        },
        "decoded_weights": {"weight_decoder": hop_pj(_DECODER, tech)},
        "descriptors": {
            "descriptor_memory": 8 * DESCRIPTOR_BYTES / _DESCRIPTOR_WORD_BITS * rams["descriptor_memory"].read_pj,
            "sequencers": hop_pj(8 * DESCRIPTOR_BYTES, tech)
            + 3 * LOOP_DEPTH * _SEQUENCER_PRODUCT * multiply_pj(8, 8, tech) / 64,
        },
    }
    for component in _COMPONENTS.values():
        if component in rams:
            on_chip[f"{component}_reads"] = {component: rams[component].read_pj}
            on_chip[f"{component}_writes"] = {component: rams[component].write_pj}
    for event, storage in (("feature_bytes", hw.feature_storage), ("constant_bytes", hw.constant_storage)):
        on_chip[event] = {"dma": hop_pj(16, tech)}
        if storage == "sram":
            on_chip[event]["feature_memory"] = rams["feature_memory"].read_pj / hw.feature_bytes_per_cycle
    scaled = {e: {c: pj * point.energy_scale for c, pj in parts.items()} for e, parts in on_chip.items()}
    for event, storage in (("feature_bytes", hw.feature_storage), ("constant_bytes", hw.constant_storage)):
        if storage != "sram":
            # external memory has a supply of its own
            scaled[event]["external_memory"] = dram_pj_per_byte(storage, tech)
    return scaled


def energy(counts: Mapping[str, float], hw: NpuHardware) -> dict[str, float]:
    """Dynamic energy in pJ by component, without leakage and clock tree."""
    spent: dict[str, float] = {}
    units = unit_energies(hw)
    for event, count in counts.items():
        for component, unit in units.get(event, {}).items():
            spent[component] = spent.get(component, 0.0) + count * unit
    return spent
