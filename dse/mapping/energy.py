"""What an access of every level and a MAC cost: from the technology tables, or as the architecture file says."""

from __future__ import annotations

from dataclasses import dataclass

from dse.arch import Arch, MemoryLevel
from dse.core.errors import ConfigError
from dse.tech import Technology, add_pj, dram_pj_per_byte, energy_scale, hop_pj, multiply_pj, sram


@dataclass(frozen=True)
class AccessEnergy:
    """pJ per read and per write of one word of each level, and pJ per MAC."""

    read_pj: tuple[float, ...]
    write_pj: tuple[float, ...]
    mac_pj: float


def access_energy(arch: Arch) -> AccessEnergy:
    """Energies of an architecture at its node and supply.

    A level of class `sram` is priced as one instance of its capacity (both halves when double-buffered are banks),
    `register` by the bit, `dram` by the bit of its standard, which has a supply of its own. A MAC is a multiply and an
    accumulator-wide add, with `operand_registers` also the registers that operands and sum pass.

    Raises
    ------
    ConfigError: an SRAM that the tables must price has no capacity.
    """
    tech = arch.technology
    scale = 1.0 if tech.vdd is None else energy_scale(tech.vdd, tech)
    reads, writes = zip(*(_level(level, tech, scale) for level in arch.levels), strict=True)
    mac = arch.compute.mac_energy_pj
    if mac is None:
        mac = mac_energy_pj(arch) * scale
    return AccessEnergy(tuple(reads), tuple(writes), mac)


def mac_energy_pj(arch: Arch) -> float:
    """Energy of a MAC by the tables, at nominal supply."""
    tech, compute = arch.technology, arch.compute
    arithmetic = multiply_pj(compute.input_bits, compute.weight_bits, tech) + add_pj(compute.accumulator_bits, tech)
    if not compute.operand_registers:
        return arithmetic
    return arithmetic + hop_pj(compute.input_bits + compute.weight_bits + compute.accumulator_bits, tech)


def _level(level: MemoryLevel, tech: Technology, scale: float) -> tuple[float, float]:
    """pJ per read and write of a word."""
    if level.read_energy_pj is not None and level.write_energy_pj is not None:
        return level.read_energy_pj, level.write_energy_pj
    if level.energy_class == "dram":
        read = write = dram_pj_per_byte(level.standard, tech) * level.word_bits / 8
    elif level.energy_class == "register":
        read = write = tech.value("register_energy") * level.word_bits * scale
    elif level.capacity_bytes is None:
        raise ConfigError(
            f"level {level.name!r} is an sram without capacity_bytes; give one, or its energies",
            key="levels",
        )
    else:
        price = sram(level.capacity_bytes, level.word_bits, banks=2 if level.double_buffered else 1, tech=tech)
        read, write = price.read_pj * scale, price.write_pj * scale
    return (
        read if level.read_energy_pj is None else level.read_energy_pj,
        write if level.write_energy_pj is None else level.write_energy_pj,
    )
