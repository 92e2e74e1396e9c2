"""The NPUs that Vela knows (U55, U65) and the memories of its system presets.

Source of every figure: ethos-u-vela 5.2.0, architecture tables of the native core and the file vela.ini.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Npu:
    """A size of the NPU.

    `micro_block` is (height, width, depth) of the outputs made at once by one core; `banks` the KiB banks of its
    shared buffer, allotted in granules: of 8-bit inputs, 16-bit inputs, elementwise 8 and 16 bit, 32-bit inputs,
    32- and 40-bit accumulators. `output_cycles` per element: 32-bit binary and unary elementwise, 32-bit product,
    8/16-bit product or 40-bit accumulator, simple and full add, max pooling, all else. `activation_cycles` per
    element: table, clamp, none. `port_bytes` a cycle is the width of its memory ports.
    """

    name: str
    macs: int
    cores: int
    micro_block: tuple[int, int, int]
    input_depth_granule: int
    banks: int
    input_granules: Mapping[int, int]
    elementwise_granules: Mapping[int, int]
    accumulator_granules: Mapping[int, int]
    output_cycles: tuple[float, ...]
    activation_cycles: tuple[float, float, float]
    port_bytes: int

    @property
    def small(self) -> bool:
        """U55-32, whose pipeline differs."""
        return self.macs == 32

    @property
    def reserved_banks(self) -> int:
        """Banks at the end of the buffer that only tables may take."""
        return 2 if self.banks > 16 else 0


def _npu(
    name: str,
    macs: int,
    micro_block: tuple[int, int, int],
    banks: int,
    granules: tuple[int, ...],
    output_cycles: tuple[float, ...],
    activation_cycles: tuple[float, float, float],
    cores: int = 1,
    port_bytes: int = 8,
) -> Npu:
    in8, in16, wise8, wise16, in32, acc32, acc40 = granules
    return Npu(
        name, macs, cores, micro_block, 8, banks, {8: in8, 16: in16, 32: in32}, {8: wise8, 16: wise16, 32: in32},
        {32: acc32, 40: acc40}, output_cycles, activation_cycles, port_bytes,
    )  # fmt: skip


_LARGE = (0.625, 1.125, 0.5, 0.375, 0.5, 0.75, 0.125, 0.25)
_LARGE_GRANULES = (8, 8, 8, 8, 16, 16, 20)

#: NPUs by the name that Vela's command line takes.
NPUS: Mapping[str, Npu] = {
    npu.name: npu
    for npu in (
        _npu("ethos-u55-32", 32, (1, 1, 4), 16, (2, 2, 2, 2, 4, 4, 4), (2, 3, 3, 3, 4, 6, 1, 2), (1, 1, 0)),
        _npu("ethos-u55-64", 64, (1, 1, 8), 16, (2, 2, 2, 2, 4, 4, 8), (1, 1.5, 1.5, 1.5, 2, 3, 0.5, 1), (1, 1, 0)),
        _npu("ethos-u55-128", 128, (1, 2, 8), 24, (4, 4, 4, 4, 8, 8, 12),
             (0.75, 1.25, 0.75, 0.75, 1, 1.5, 0.25, 0.5), (1, 0.5, 0)),
        _npu("ethos-u55-256", 256, (2, 2, 8), 48, _LARGE_GRANULES, _LARGE, (1, 0.25, 0)),
        _npu("ethos-u65-256", 256, (2, 2, 8), 48, _LARGE_GRANULES, _LARGE, (1, 0.25, 0), port_bytes=16),
        _npu("ethos-u65-512", 256, (2, 2, 8), 48, _LARGE_GRANULES, tuple(c / 2 for c in _LARGE),
             (0.5, 0.125, 0), cores=2, port_bytes=16),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """A memory behind a port: its clock over the core's, latencies in core cycles, longest burst in bytes."""

    name: str
    clock_scale: float
    burst_bytes: int
    read_latency_cycles: int
    write_latency_cycles: int

    def bytes_per_cycle(self, npu: Npu) -> float:
        """Bytes a core cycle."""
        return npu.port_bytes * self.clock_scale


@dataclass(frozen=True)
class System:
    """Where feature maps and constants lie: a system preset of vela.ini with a memory mode.

    `staging` takes weights (and feature maps, up to `staging_bytes`) nearer to the NPU than where they lie.
    """

    name: str
    core_clock_mhz: float
    feature_maps: Memory
    constants: Memory
    staging: Memory
    staging_bytes: int


_SRAM = Memory("Sram", 1.0, 32, 32, 32)


def _flash(scale: float) -> Memory:
    return Memory("OffChipFlash", scale, 128, 64, 0)


_DRAM = Memory("Dram", 0.234375, 128, 500, 250)
#: An arena without a limit of its own.
_UNLIMITED = 1 << 32


def _systems() -> dict[str, System]:
    systems = []
    for preset, clock, constants in (
        ("Ethos_U55_Deep_Embedded", 200.0, _flash(0.0625)),
        ("Ethos_U55_High_End_Embedded", 500.0, _flash(0.125)),
        ("Ethos_U65_Embedded", 500.0, _flash(0.0625)),
        ("Ethos_U65_High_End", 1000.0, _DRAM),
    ):
        systems.append(System(f"{preset}/Sram_Only", clock, _SRAM, _SRAM, _SRAM, _UNLIMITED))
        systems.append(System(f"{preset}/Shared_Sram", clock, _SRAM, constants, _SRAM, _UNLIMITED))
    systems.append(System("Ethos_U65_High_End/Dedicated_Sram_512KB", 1000.0, _DRAM, _DRAM, _SRAM, 512 * 1024))
    return {system.name: system for system in systems}


#: Systems by preset and memory mode, as "Ethos_U55_High_End_Embedded/Shared_Sram".
SYSTEMS: Mapping[str, System] = _systems()
