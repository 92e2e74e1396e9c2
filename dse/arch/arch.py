"""Arch: the memory hierarchy and compute fabric of an accelerator, as data.

Levels are ordered from the outermost (DRAM) to the innermost (registers beside the MACs). A plain YAML file of
this model is a usable accelerator for mapping and estimates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from dse.arch.prices import Prices
from dse.arch.rules import Role as Role
from dse.arch.rules import Rules
from dse.config.loader import load_mapping
from dse.config.models import EntryError
from dse.config.validation import validate
from dse.core.errors import UsageError, nearest
from dse.tech import STANDARDS, Device, Technology, technology


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MemoryLevel(_Model):
    """One level of storage.

    `capacity_bytes` None means unbounded (DRAM). Bandwidths are words per cycle and instance, None = unbounded.
    `energy_class` names the component in `dse.tech` that prices an access; energies given here (pJ per access of a
    word) take precedence. `standard` is that of a level of class `dram`. `shared_words_per_cycle` bounds reads and
    writes together.
    """

    name: str
    instances: PositiveInt = 1
    capacity_bytes: PositiveInt | None = None
    word_bits: PositiveInt
    read_words_per_cycle: PositiveFloat | None = None
    write_words_per_cycle: PositiveFloat | None = None
    shared_words_per_cycle: PositiveFloat | None = None
    energy_class: Literal["dram", "sram", "register"] = "sram"
    standard: str = "lpddr4"
    read_energy_pj: NonNegativeFloat | None = None
    write_energy_pj: NonNegativeFloat | None = None
    holds: frozenset[Role] = frozenset({"input", "weight", "output"})
    shared: bool = Field(default=True, description="one memory for all roles it holds (else one partition each)")
    double_buffered: bool = False
    partitions: dict[Role, PositiveInt] = Field(
        default={}, description="bytes of each role's own memory, where they differ; capacity_bytes for the others"
    )
    transfer_cycles: NonNegativeFloat = Field(
        default=0.0, description="cycles of this level's port that moving a tile takes besides its words"
    )
    window_reuse: bool = Field(
        default=True, description="a sliding tile fetches only the words that the tile before it did not hold"
    )

    def __hash__(self) -> int:
        # equal levels have equal sizes; `partitions` itself is a mapping and has no hash
        return hash((self.name, self.instances, self.capacity_bytes, self.word_bits, *sorted(self.partitions.items())))

    @model_validator(mode="after")
    def _partitions_held(self) -> MemoryLevel:
        if self.partitions and (self.shared or self.capacity_bytes is None):
            raise ValueError(f"level {self.name!r} has partitions, so it needs shared: false and capacity_bytes")
        for role in self.partitions:
            if role not in self.holds:
                raise ValueError(f"level {self.name!r} has a partition for the {role}, which it does not hold")
        return self

    @field_validator("standard")
    @classmethod
    def _standard_known(cls, standard: str) -> str:
        if standard not in STANDARDS:
            raise ValueError(f"{standard!r} is not a memory standard{nearest(standard, STANDARDS)}")
        return standard


class SpatialAxis(_Model):
    """A direction of the compute fabric below level `below`: how many units, and what travels along it.

    `hop_pj` is the energy of handing one bit from a unit to the next along the axis; 0 leaves the network out.
    """

    name: str
    size: PositiveInt
    below: str
    multicast: frozenset[Role] = frozenset()
    reduces: bool = False
    allowed_dims: frozenset[str] | None = None
    hop_pj: NonNegativeFloat = Field(default=0.0, description="pJ per bit and hop along the axis")


class Compute(_Model):
    """The MAC units: operand bits, MACs per unit and cycle in that mode, pJ per MAC (None: from `dse.tech`).

    `operand_registers` says that operands and sum pass a register at every MAC, which then pays for them.
    """

    name: str = "mac"
    input_bits: PositiveInt = 8
    weight_bits: PositiveInt = 8
    accumulator_bits: PositiveInt = 32
    macs_per_cycle: PositiveFloat = 1.0
    mac_energy_pj: NonNegativeFloat | None = None
    operand_registers: bool = False


class Arch(_Model):
    """An accelerator as data.

    Node, device, supply and `prices` say where prices of `dse.tech` are taken; `vdd` None is the node's nominal supply.
    """

    name: str
    clock_mhz: PositiveFloat
    node_nm: PositiveFloat = 45
    device: Device = "HP"
    vdd: PositiveFloat | None = None
    prices: Prices = ()
    levels: tuple[MemoryLevel, ...] = Field(min_length=1)
    axes: tuple[SpatialAxis, ...] = ()
    compute: Compute = Compute()
    constraints: Rules = Field(default=Rules(), description="what every mapping must obey")

    @model_validator(mode="after")
    def _consistent(self) -> Arch:
        names = [level.name for level in self.levels]
        if len(set(names)) != len(names):
            raise ValueError(f"memory levels must have distinct names, not {names}")
        axes = [axis.name for axis in self.axes]
        if len(set(axes)) != len(axes):
            raise ValueError(f"axes must have distinct names, not {axes}")
        for axis in self.axes:
            if axis.below not in names:
                raise ValueError(f"axis {axis.name!r} lies below {axis.below!r}, which is not a level of {names}")
        try:
            technology(self.node_nm, self.device, self.vdd)
        except UsageError as error:
            key, _, message = str(error).partition(": ")
            raise EntryError(key, message) from error
        return self

    @property
    def technology(self) -> Technology:
        """Where the prices of `dse.tech` are taken."""
        return Technology(self.node_nm, self.device, self.vdd, self.prices)

    @property
    def units(self) -> int:
        """Compute units: the product of the axes."""
        product = 1
        for axis in self.axes:
            product *= axis.size
        return product

    @property
    def peak_macs_per_cycle(self) -> float:
        return self.units * self.compute.macs_per_cycle


def load_arch(path: Path) -> Arch:
    """Read an Arch from YAML.

    Raises
    ------
    ConfigError: not readable, not YAML, or not an Arch; the first finding, with file, line, key and value.
    """
    data, marks, _ = load_mapping(path)
    return validate(Arch, data, marks)
