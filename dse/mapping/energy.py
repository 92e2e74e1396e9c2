"""What an access of every level and a MAC cost: from the technology tables, or as the architecture file says."""

from __future__ import annotations

from dataclasses import dataclass

from dse.arch import Arch, MemoryLevel
from dse.core.errors import ConfigError
from dse.tech import add_pj, dram_pj_per_byte, multiply_pj, sram, value

#: Node of the technology tables.
TABLE_NODE_NM = 45
#: Standard that prices a level of class `dram`.
DRAM_STANDARD = "lpddr4"


@dataclass(frozen=True)
class AccessEnergy:
    """pJ per read and per write of one word of each level, and pJ per MAC."""

    read_pj: tuple[float, ...]
    write_pj: tuple[float, ...]
    mac_pj: float


def access_energy(arch: Arch) -> AccessEnergy:
    """Energies of an architecture.

    A level of class `sram` is priced as one instance of its capacity (both halves when double-buffered are banks),
    `register` by the bit, `dram` by the bit of LPDDR4; a MAC is a multiply and an accumulator-wide add.

    Raises
    ------
    ConfigError: a price must come from the tables, but the node is not theirs or an SRAM has no capacity.
    """
    reads, writes = zip(*(_level(arch, level) for level in arch.levels), strict=True)
    mac = arch.compute.mac_energy_pj
    if mac is None:
        _require_node(arch, "compute", "mac_energy_pj")
        mac = multiply_pj(arch.compute.input_bits, arch.compute.weight_bits) + add_pj(arch.compute.accumulator_bits)
    return AccessEnergy(tuple(reads), tuple(writes), mac)


def _level(arch: Arch, level: MemoryLevel) -> tuple[float, float]:
    if level.read_energy_pj is not None and level.write_energy_pj is not None:
        return level.read_energy_pj, level.write_energy_pj
    _require_node(arch, level.name, "read_energy_pj and write_energy_pj")
    if level.energy_class == "dram":
        read = write = dram_pj_per_byte(DRAM_STANDARD) * level.word_bits / 8
    elif level.energy_class == "register":
        read = write = value("register_energy") * level.word_bits
    elif level.capacity_bytes is None:
        raise ConfigError(
            f"level {level.name!r} is an sram without capacity_bytes; give one, or its energies",
            key="levels",
        )
    else:
        price = sram(level.capacity_bytes, level.word_bits, banks=2 if level.double_buffered else 1)
        read, write = price.read_pj, price.write_pj
    return (
        read if level.read_energy_pj is None else level.read_energy_pj,
        write if level.write_energy_pj is None else level.write_energy_pj,
    )


def _require_node(arch: Arch, part: str, keys: str) -> None:
    if arch.node_nm != TABLE_NODE_NM:
        raise ConfigError(
            f"{arch.name}: the technology tables hold {TABLE_NODE_NM} nm, not {arch.node_nm:g} nm; "
            f"give {keys} of {part!r}, or set node_nm to {TABLE_NODE_NM}",
            key="node_nm",
        )
