"""Technology: energy, area, delay and voltage of components from 180 to 7 nm, every constant with its source."""

from dse.tech.constants import Constant, constant
from dse.tech.interface import (
    COMMAND_STANDARDS,
    STANDARDS,
    dram_command_pj,
    dram_pj_per_byte,
    phy_area_um2,
    phy_static_mw,
)
from dse.tech.logic import (
    add_pj,
    control_gates,
    element_gates,
    hop_pj,
    logic_area_um2,
    logic_stage_ns,
    mac_clock_mhz,
    multiply_pj,
    pipeline_gates,
    requantizer_gates,
)
from dse.tech.nodes import DEVICES, Device, Node, node
from dse.tech.sram import SramCost, sram
from dse.tech.table import table
from dse.tech.technology import REFERENCE, Technology, check_override, overridable, technology
from dse.tech.voltage import OperatingPoint, delay_scale, energy_scale, leakage_scale, max_clock_mhz, operating_point

__all__ = [
    "COMMAND_STANDARDS",
    "DEVICES",
    "REFERENCE",
    "STANDARDS",
    "Constant",
    "Device",
    "Node",
    "OperatingPoint",
    "SramCost",
    "Technology",
    "add_pj",
    "check_override",
    "constant",
    "control_gates",
    "delay_scale",
    "dram_command_pj",
    "dram_pj_per_byte",
    "element_gates",
    "energy_scale",
    "hop_pj",
    "leakage_scale",
    "logic_area_um2",
    "logic_stage_ns",
    "mac_clock_mhz",
    "max_clock_mhz",
    "multiply_pj",
    "node",
    "operating_point",
    "overridable",
    "phy_area_um2",
    "phy_static_mw",
    "pipeline_gates",
    "requantizer_gates",
    "sram",
    "table",
    "technology",
    "value",
]


def value(name: str) -> float:
    """A figure at the tables' node, 45 nm; `Technology.value` gives it at another.

    Raises
    ------
    UsageError: no figure has that name.
    """
    return REFERENCE.value(name)
