"""The way to external memory: energy by bit and by command, PHY area and standing power by bandwidth and standard.

PHY figures do not follow the logic node: analog circuits and pads set them.
"""

from __future__ import annotations

from dse.core.errors import UsageError, nearest
from dse.tech.technology import REFERENCE, Technology

STANDARDS = ("ddr3", "ddr4", "lpddr4", "lpddr4x", "lpddr5", "hbm2", "hbm2e", "hbm3")
#: Standards whose energy by command is recorded.
COMMAND_STANDARDS = ("ddr4", "hbm2")


def dram_pj_per_byte(standard: str, tech: Technology = REFERENCE) -> float:
    """Energy of moving one byte from or to external memory.

    Raises
    ------
    UsageError: no such standard.
    """
    return 8 * tech.value(f"{_known(standard)}_energy")


def dram_command_pj(standard: str, data_bytes: float, activations: float, tech: Technology = REFERENCE) -> float:
    """Energy of the device core for a transfer: every burst moves its bits, every row that is opened costs.

    Parameters
    ----------
    data_bytes
        Bytes read or written, whole bursts.
    activations
        Rows opened (each with its precharge).

    Raises
    ------
    UsageError: no such standard, or its commands are not recorded.
    """
    if _known(standard) not in COMMAND_STANDARDS:
        raise UsageError(
            f"{standard!r} has no recorded energy by command, only by bit{nearest(standard, COMMAND_STANDARDS)}"
        )
    burst, row = tech.value(f"{standard}_burst_energy"), tech.value(f"{standard}_activate_energy")
    return 8 * data_bytes * burst + activations * row


def phy_area_um2(standard: str, gb_per_s: float, tech: Technology = REFERENCE) -> float:
    """Area of PHY and controller for a bandwidth in GB/s (1e9 bytes); error as `dram_pj_per_byte`."""
    return tech.value(f"{_known(standard)}_phy_area") * gb_per_s * 1e6


def phy_static_mw(standard: str, gb_per_s: float, tech: Technology = REFERENCE) -> float:
    """Standing power of the PHY for a bandwidth in GB/s (1e9 bytes); error as `dram_pj_per_byte`."""
    return tech.value(f"{_known(standard)}_phy_power") * gb_per_s


def _known(standard: str) -> str:
    if standard not in STANDARDS:
        raise UsageError(f"{standard!r} is not a memory standard{nearest(standard, STANDARDS)}")
    return standard
