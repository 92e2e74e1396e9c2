"""The way to external memory: energy per bit, PHY area and standing power by bandwidth and standard.

PHY figures do not follow the logic node: analog circuits and pads set them.
"""

from __future__ import annotations

from dse.core.errors import UsageError, nearest
from dse.tech.constants import value

STANDARDS = ("lpddr4", "ddr3", "ddr4", "hbm2")


def dram_pj_per_byte(standard: str) -> float:
    """Energy of moving one byte from or to external memory.

    Raises
    ------
    UsageError: no such standard.
    """
    return 8 * value(f"{_known(standard)}_energy")


def phy_area_um2(standard: str, gb_per_s: float) -> float:
    """Area of PHY and controller for a bandwidth in GB/s (1e9 bytes); error as `dram_pj_per_byte`."""
    return value(f"{_known(standard)}_phy_area") * gb_per_s * 1e6


def phy_static_mw(standard: str, gb_per_s: float) -> float:
    """Standing power of the PHY for a bandwidth in GB/s (1e9 bytes); error as `dram_pj_per_byte`."""
    return value(f"{_known(standard)}_phy_power") * gb_per_s


def _known(standard: str) -> str:
    if standard not in STANDARDS:
        raise UsageError(f"{standard!r} is not a memory standard{nearest(standard, STANDARDS)}")
    return standard
