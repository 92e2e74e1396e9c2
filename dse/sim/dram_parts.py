"""DRAM parts: geometry, address mapping, timing and energy of one channel, as data with their sources."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import UsageError, nearest

IntArray = npt.NDArray[np.int64]

_MAPPING_FIELDS = ("ro", "ra", "ba", "bg", "co")


@dataclass(frozen=True)
class DramPart:
    """One channel of a DRAM part. Times in clocks unless the name says otherwise.

    Parameters
    ----------
    name, standard
        Such as "ddr4_2400" and "DDR4".
    clock_ns
        Period of the clock that commands and all times below count in.
    bus_bits, burst_length, burst_cycles
        Data bus of the channel; transfers and clocks of one burst.
    ranks, bank_groups, banks_per_group, rows, row_bytes
        Geometry; `row_bytes` over the whole bus.
    mapping
        Order of the address fields above a burst, highest first: ro row, ra rank, ba bank, bg bank group, co column.
    cl, cwl, rcd_read, rcd_write, rp, ras, ccd_s, ccd_l, rrd_s, rrd_l, faw, wtr_s, wtr_l, wr, rtp, rank_switch
        JEDEC parameters; `_s` and `_l` for another and the same bank group; `rank_switch` idle clocks of the bus when
        another rank, or the other direction, drives it.
    refi, rfc
        Clocks between two refreshes of a rank and length of one.
    two_command_buses
        Row and column commands may go out in the same clock (HBM).
    activate_pj, read_pj, write_pj, refresh_pj
        Energy of one activate-precharge pair, one burst read or written, one refresh, all devices of a rank.
    active_mw, idle_mw
        Standby power of a rank with and without an open row. I/O and termination are not counted, except where
        `source` says that the energy is all in.
    evidence, source
        "read", "derived" or "memory" (the weakest of the row), and where from.
    """

    name: str
    standard: str
    clock_ns: float
    bus_bits: int
    burst_length: int
    burst_cycles: int
    ranks: int
    bank_groups: int
    banks_per_group: int
    rows: int
    row_bytes: int
    mapping: str
    cl: int
    cwl: int
    rcd_read: int
    rcd_write: int
    rp: int
    ras: int
    ccd_s: int
    ccd_l: int
    rrd_s: int
    rrd_l: int
    faw: int
    wtr_s: int
    wtr_l: int
    wr: int
    rtp: int
    rank_switch: int
    refi: int
    rfc: int
    two_command_buses: bool
    activate_pj: float
    read_pj: float
    write_pj: float
    refresh_pj: float
    active_mw: float
    idle_mw: float
    evidence: str
    source: str

    @property
    def burst_bytes(self) -> int:
        return self.bus_bits // 8 * self.burst_length

    @property
    def bursts_per_row(self) -> int:
        return self.row_bytes // self.burst_bytes

    @property
    def banks(self) -> int:
        """Banks of all ranks."""
        return self.ranks * self.bank_groups * self.banks_per_group

    @property
    def peak_bytes_per_second(self) -> float:
        return self.burst_bytes / (self.burst_cycles * self.clock_ns * 1e-9)

    def decode(self, bursts: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Rank, bank group, bank and row of burst addresses: four int64 arrays of the same shape."""
        sizes = {"ro": self.rows, "ra": self.ranks, "ba": self.banks_per_group, "bg": self.bank_groups,
                 "co": self.bursts_per_row}  # fmt: skip
        rest, found = np.asarray(bursts, np.int64), {}
        for field in reversed([self.mapping[i : i + 2] for i in range(0, len(self.mapping), 2)]):
            rest, found[field] = np.divmod(rest, sizes[field])
        return found["ra"], found["bg"], found["ba"], found["ro"]


@cache
def dram_parts() -> dict[str, DramPart]:
    """All shipped parts by name."""
    text = files("dse.sim").joinpath("data/dram_parts.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row["name"]: _part(row) for row in rows}


def dram_part(name: str) -> DramPart:
    """A part by name.

    Raises
    ------
    UsageError: no such part (with the nearest name).
    """
    parts = dram_parts()
    if name not in parts:
        raise UsageError(f"{name!r} is no DRAM part{nearest(name, parts)}")
    return parts[name]


def _part(row: dict[str, str]) -> DramPart:
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda text: text == "yes"}
    values = {field.name: readers.get(str(field.type), str)(row[field.name]) for field in fields(DramPart)}
    part = DramPart(**values)
    order = sorted(part.mapping[i : i + 2] for i in range(0, len(part.mapping), 2))
    if order != sorted(_MAPPING_FIELDS):
        raise ValueError(f"{part.name}: mapping {part.mapping!r} must name {', '.join(_MAPPING_FIELDS)} once each")
    return part
