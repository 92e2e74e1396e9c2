"""Eyeriss v1 as an Arch, its published row-stationary mappings of AlexNet, and what its chip spends on them.

Structure (JSSC 2017): 168 processing elements in 12 rows and 14 columns; in each a filter scratchpad of 224 words in
SRAM, an input scratchpad of 12 words and one of 24 partial sums in registers, all of 16 bits; a global buffer of 27
banks of 512 x 64 bits. Terms of the power, none of them fitted to it:

- arithmetic and filter scratchpad: only where the input is not zero (data gating); the other scratchpads always
- global buffer: reads and writes of the mapping, four elements a word
- network: every element over the pitches it passes (`dse.mapping.network`)
- clock: every flip-flop in every cycle, as in our own families: the paper gates data and speaks of no gated clock
- leakage: low-power devices, by area

External memory is not part of the chip. Time is the published one: the figure is an energy model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from functools import cache

from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.mapping import Mapping, MappingCost, Problem, TemporalLevel, TensorAccess, evaluate
from dse.mapping.network import network_energy_pj
from dse.tech import (
    Technology,
    add_pj,
    element_gates,
    energy_scale,
    leakage_scale,
    logic_area_um2,
    multiply_pj,
    pipeline_gates,
    sram,
)

NODE_NM, DEVICE, VDD, CLOCK_MHZ = 65.0, "LP", 1.0, 200.0
ELEMENTS, WORD_BITS, GLB_WORD_BITS = 168, 16, 64
ROWS, COLUMNS = 12, 14
FILTER_WORDS, INPUT_WORDS, SUM_WORDS = 224, 12, 24
GLB_BANKS, GLB_BANK_BYTES = 27, 4096
#: Flip-flops of an element beside its scratchpads: operands 2 x 16, product 32, product as added 16, partial sum in
#: and out 2 x 16, counters and state 38.
PIPELINE_FLIP_FLOPS = 150
PUBLISHED_GATES, PUBLISHED_CORE_MM2 = 1_176_000, 12.25

_INPUT, _WEIGHT, _OUTPUT = (frozenset({role}) for role in ("input", "weight", "output"))


@dataclass(frozen=True)
class Layer:
    """A layer and its published mapping parameters.

    m, n: output channels and images whose partial sums are in the global buffer; e: output rows at once; p, q: filters
    and channels interleaved in an element; r, t: element sets over channels and over filters.
    """

    name: str
    groups: int
    bounds: MappingType[str, int]
    stride: int
    m: int
    n: int
    e: int
    p: int
    q: int
    r: int
    t: int
    zeros: float

    @property
    def macs(self) -> int:
        return self.groups * math.prod(self.bounds.values())


@cache
def eyeriss_arch() -> Arch:
    """The memory hierarchy. Rows reduce; filters do not stop in the global buffer."""
    pitch_mm = math.sqrt(element_area_um2() * 1e-6)
    tech = Technology(NODE_NM, DEVICE)
    hop = tech.value("wire_energy") * pitch_mm
    spads = [
        MemoryLevel(name=name, instances=ELEMENTS, word_bits=WORD_BITS, capacity_bytes=2 * words, holds=role,
                    energy_class=kind)
        for name, words, role, kind in (
            ("filter_spad", FILTER_WORDS, _WEIGHT, "sram"),
            ("input_spad", INPUT_WORDS, _INPUT, "register"),
            ("sum_spad", SUM_WORDS, _OUTPUT, "register"),
        )
    ]  # fmt: skip
    # priced as one of its banks below; 25 of them hold inputs and partial sums
    bank = sram(GLB_BANK_BYTES, GLB_WORD_BITS, tech=tech)
    scale = energy_scale(VDD, tech)
    glb = MemoryLevel(
        name="GLB", word_bits=GLB_WORD_BITS, capacity_bytes=100 * 1024, holds=_INPUT | _OUTPUT,
        read_energy_pj=bank.read_pj * scale, write_energy_pj=bank.write_pj * scale,
    )  # fmt: skip
    return Arch(
        name="eyeriss_v1", clock_mhz=CLOCK_MHZ, node_nm=NODE_NM, device="LP", vdd=VDD,
        levels=(MemoryLevel(name="DRAM", word_bits=64, energy_class="dram", standard="ddr3"), glb, *spads),
        # the sets of a mapping fold onto the array; an axis here is a direction of the sets
        axes=(
            SpatialAxis(name="columns", size=ELEMENTS, below="GLB", multicast=_INPUT | _WEIGHT, hop_pj=hop),
            SpatialAxis(name="rows", size=2 * ROWS, below="GLB", multicast=_INPUT, reduces=True, hop_pj=hop),
        ),
        compute=Compute(input_bits=WORD_BITS, weight_bits=WORD_BITS, accumulator_bits=WORD_BITS),
    )  # fmt: skip


def element_area_um2() -> float:
    """Placed area of a processing element: multiplier and pipeline, register scratchpads, filter SRAM."""
    tech = Technology(NODE_NM, DEVICE)
    return logic_area_um2(element_logic_gates(), tech) + sram(2 * FILTER_WORDS, WORD_BITS, tech=tech).area_um2


def element_logic_gates() -> float:
    """NAND2 equivalents of an element without its filter SRAM."""
    spads = pipeline_gates(WORD_BITS * (INPUT_WORDS + SUM_WORDS))
    return element_gates(WORD_BITS * WORD_BITS, PIPELINE_FLIP_FLOPS) + spads


def core_area_mm2() -> float:
    """Elements and global buffer."""
    bank = sram(GLB_BANK_BYTES, GLB_WORD_BITS, tech=Technology(NODE_NM, DEVICE))
    return (ELEMENTS * element_area_um2() + GLB_BANKS * bank.area_um2) * 1e-6


def layer_problem(layer: Layer) -> Problem:
    """One group of a layer as a loop nest."""
    names = ("N", "M", "C", "P", "Q", "R", "S")
    at = {name: k for k, name in enumerate(names)}
    rows = ((at["P"], layer.stride), (at["R"], 1))
    columns = ((at["Q"], layer.stride), (at["S"], 1))
    tensors = (
        TensorAccess("inputs", "input", (((at["N"], 1),), ((at["C"], 1),), rows, columns)),
        TensorAccess("filters", "weight", tuple(((at[name], 1),) for name in ("M", "C", "R", "S"))),
        TensorAccess("sums", "output", tuple(((at[name], 1),) for name in ("N", "M", "P", "Q"))),
    )
    return Problem(layer.name, names, tuple(layer.bounds[name] for name in names), tensors)


def layer_mapping(layer: Layer) -> Mapping:
    """The row-stationary mapping: kernel rows and channels along the rows, output rows and filters along columns.

    In an element a kernel row slides along an input row; partial sums stay in the global buffer until all channels
    have passed, filters in the elements while the images of a batch pass.
    """
    size = layer.bounds
    passes = [
        ("M", size["M"] // layer.m),
        ("N", size["N"] // layer.n),
        ("P", math.ceil(size["P"] / layer.e)),
        ("C", size["C"] // (layer.q * layer.r)),
    ]
    return Mapping(
        (
            TemporalLevel("DRAM", tuple(passes)),
            TemporalLevel("GLB", (("M", layer.m // (layer.p * layer.t)), ("N", layer.n))),
            TemporalLevel("filter_spad", (("Q", size["Q"]),)),
            TemporalLevel("input_spad", ()),
            TemporalLevel("sum_spad", (("C", layer.q), ("S", size["S"]), ("M", layer.p))),
        ),
        {"columns": (("M", layer.t), ("P", layer.e)), "rows": (("C", layer.r), ("R", size["R"]))},
    )


@dataclass(frozen=True)
class LayerEnergy:
    """What a layer spends on the chip in pJ, by term; traffic in bytes; `dram_pj` outside the chip."""

    terms: MappingType[str, float]
    active_elements: int
    glb_bytes: float
    dram_bytes: float
    dram_pj: float


def layer_energy(layer: Layer, seconds: float) -> LayerEnergy:
    """Energy of a layer (all groups, the whole batch) that takes `seconds`."""
    arch = eyeriss_arch()
    problem, mapping = layer_problem(layer), layer_mapping(layer)
    cost = evaluate(problem, arch, mapping)
    nonzero = 1 - layer.zeros
    filters, inputs, sums = (
        layer.groups * cost.at(level, tensor).energy_pj
        for level, tensor in (("filter_spad", "filters"), ("input_spad", "inputs"), ("sum_spad", "sums"))
    )
    glb = layer.groups * math.fsum(item.energy_pj for item in cost.traffic if item.level == "GLB")
    tech = arch.technology
    scale = energy_scale(VDD, tech)
    network = layer.groups * math.fsum(network_energy_pj(problem, arch, mapping).values()) * scale
    arithmetic = (multiply_pj(WORD_BITS, WORD_BITS, tech) + add_pj(WORD_BITS, tech)) * scale
    terms = {
        "arithmetic": layer.macs * nonzero * arithmetic,
        "filter scratchpads": filters * nonzero,
        "register scratchpads": inputs + sums,
        "global buffer": glb,
        "network": network,
        "clock": _clock_pj(seconds) * scale,
        "leakage": leakage_mw() * 1e-3 * seconds * 1e12,
    }
    dram = [item for item in cost.traffic if item.level == "DRAM"]
    return LayerEnergy(
        terms,
        layer.r * layer.bounds["R"] * layer.t * layer.e,
        layer.groups * _bytes(cost, "GLB"),
        layer.groups * _bytes(cost, "DRAM"),
        layer.groups * math.fsum(item.energy_pj for item in dram),
    )


def leakage_mw() -> float:
    """Standing power of elements and global buffer at the supply."""
    tech = Technology(NODE_NM, DEVICE)
    logic = ELEMENTS * logic_area_um2(element_logic_gates(), tech) * 1e-6 * tech.value("logic_leakage")
    memories = ELEMENTS * sram(2 * FILTER_WORDS, WORD_BITS, tech=tech).leakage_mw
    memories += GLB_BANKS * sram(GLB_BANK_BYTES, GLB_WORD_BITS, tech=tech).leakage_mw
    return (logic + memories) * leakage_scale(VDD, tech)


def _clock_pj(seconds: float) -> float:
    """Every flip-flop in every cycle, register scratchpads included; at nominal supply."""
    registers = PIPELINE_FLIP_FLOPS + WORD_BITS * (INPUT_WORDS + SUM_WORDS)
    cycles = CLOCK_MHZ * 1e6 * seconds
    return ELEMENTS * registers * cycles * Technology(NODE_NM, DEVICE).value("clock_pin_energy")


def _bytes(cost: MappingCost, level: str) -> float:
    accesses = sum(item.reads + item.fills + item.updates for item in cost.traffic if item.level == level)
    return accesses * WORD_BITS / 8
