"""Technology: energy, area, delay and voltage of components at 45 nm, every constant with its source."""

from dse.tech.constants import Constant, constant, table, value
from dse.tech.interface import STANDARDS, dram_pj_per_byte, phy_area_um2, phy_static_mw
from dse.tech.logic import (
    add_pj,
    control_gates,
    element_gates,
    hop_pj,
    logic_area_um2,
    logic_stage_ns,
    multiply_pj,
    pipeline_gates,
    requantizer_gates,
)
from dse.tech.sram import SramCost, sram
from dse.tech.voltage import OperatingPoint, delay_scale, energy_scale, leakage_scale, max_clock_mhz, operating_point

__all__ = [
    "STANDARDS",
    "Constant",
    "OperatingPoint",
    "SramCost",
    "add_pj",
    "constant",
    "control_gates",
    "delay_scale",
    "dram_pj_per_byte",
    "element_gates",
    "energy_scale",
    "hop_pj",
    "leakage_scale",
    "logic_area_um2",
    "logic_stage_ns",
    "max_clock_mhz",
    "multiply_pj",
    "operating_point",
    "phy_area_um2",
    "phy_static_mw",
    "pipeline_gates",
    "requantizer_gates",
    "sram",
    "table",
    "value",
]
