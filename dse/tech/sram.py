"""SRAM: energy, area, leakage and access time of a scratchpad, from CACTI runs at 45 nm.

How a memory is built from what was measured (1 KiB to 2 MiB, 64-bit words; other widths at 64 KiB only):

- A word above 64 bits is sliced over parallel macros of 64 bits, so that wide words become fast as they do in
  practice. Against the measured 128 and 256-bit macros of 64 KiB a read comes out within 12 %, area within 3 %, and
  a write up to 30 % cheaper. Slices do not get smaller than 2 KiB: a shallow memory has wider ones, up to 256 bits.
- Macros of another width than 64 bits take the ratio measured at 64 KiB; below 16 bits that of 16, since decoder
  and bit lines stay. Above 64 bits area goes with capacity alone (measured: 5 to 10 % less).
- A macro above 2 MiB becomes equal banks of at most 2 MiB.
- A macro below 1 KiB is the smaller in area of a 1 KiB macro (the smallest that is measured; memory compilers have
  such a floor too) and an array of flip-flops.
- Macros side by side are joined by wires: half the extra side length for an average access, all of it for the
  slowest one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from dse.tech.constants import SramRow, sram_rows, value
from dse.tech.logic import fitted_register_gates, logic_area_um2

#: Width of a slice, and of the widest macro that was measured.
SLICE_BITS, WIDEST_BITS = 64, 256
SMALLEST_SLICE_BYTES = 2048
#: Gate delays through the read multiplexer of a register file.
_REGISTER_FILE_FO4 = 10


@dataclass(frozen=True)
class SramCost:
    """One memory at nominal supply.

    `read_pj`, `write_pj` per word; `access_ns` of the slowest macro with its wires. `macros` macros of
    `macro_bytes` make it up, `slices` of them side by side for a word; `macro_kind` "sram" or "registers".
    """

    read_pj: float
    write_pj: float
    area_um2: float
    leakage_mw: float
    access_ns: float
    macros: int
    slices: int
    macro_bytes: float
    macro_kind: str


@dataclass(frozen=True)
class _Macro:
    read_pj: float
    write_pj: float
    area_um2: float
    leakage_mw: float
    access_ns: float
    kind: str


@lru_cache(maxsize=65536)
def sram(capacity_bytes: float, word_bits: int, *, banks: int = 1, two_port: bool = False) -> SramCost:
    """Price of a memory of `capacity_bytes` in words of `word_bits`.

    Parameters
    ----------
    capacity_bytes
        All banks together; > 0.
    word_bits
        Bits of a word; >= 1.
    banks
        Equal parts that are accessed on their own (2 for ping-pong halves); an access costs one bank's energy.
    two_port
        Whether a bank is read and written in the same cycle.

    Raises
    ------
    ValueError: capacity, width or banks are not positive.

    Source: `data/sram_45nm.csv`, rules in the module's docstring.
    """
    if capacity_bytes <= 0 or word_bits < 1 or banks < 1:
        raise ValueError(f"sram of {capacity_bytes} bytes, {word_bits}-bit words, {banks} banks: must be positive")
    slices = _slices(capacity_bytes / banks, word_bits)
    slice_bits = word_bits / slices
    slice_bytes = capacity_bytes / banks / slices
    largest = max(row.capacity_kib for row in sram_rows()) * 1024
    parts = math.ceil(slice_bytes / largest)
    macro = _macro(slice_bytes / parts, slice_bits)
    port = value("sram_two_port_factor") if two_port else 1.0
    macro_area = macro.area_um2 * port
    macros = banks * slices * parts
    extra_mm = (math.sqrt(macros * macro_area) - math.sqrt(macro_area)) * 1e-3
    wire_pj = word_bits * value("wire_energy") * extra_mm / 2
    return SramCost(
        read_pj=slices * macro.read_pj + wire_pj,
        write_pj=slices * macro.write_pj + wire_pj,
        area_um2=macros * macro_area,
        leakage_mw=macros * macro.leakage_mw * port,
        access_ns=macro.access_ns + extra_mm * value("wire_delay"),
        macros=macros,
        slices=slices,
        macro_bytes=slice_bytes / parts,
        macro_kind=macro.kind,
    )


def _slices(capacity_bytes: float, word_bits: int) -> int:
    """Macros side by side that make up a word."""
    deep_enough = int(capacity_bytes // SMALLEST_SLICE_BYTES)
    return max(math.ceil(word_bits / WIDEST_BITS), min(math.ceil(word_bits / SLICE_BITS), deep_enough))


def _macro(capacity_bytes: float, word_bits: float) -> _Macro:
    """One macro of at most 256 bits and 2 MiB."""
    smallest = min(row.capacity_kib for row in sram_rows())
    kib = max(capacity_bytes / 1024, smallest)

    def price(quantity: str) -> float:
        return _at_capacity(quantity, kib) * _width_ratio(quantity, word_bits)

    measured = _Macro(
        price("read_pj"),
        price("write_pj"),
        price("area_mm2") * 1e6,
        _leakage_mw_per_kib() * kib,
        _at_capacity("access_ns", kib),
        "sram",
    )
    if capacity_bytes >= smallest * 1024:
        return measured
    file_area = logic_area_um2(8 * capacity_bytes * fitted_register_gates())
    if file_area >= measured.area_um2:
        return measured
    access_pj = word_bits * value("register_energy")
    leakage = file_area * 1e-6 * value("logic_leakage")
    return _Macro(access_pj, access_pj, file_area, leakage, _REGISTER_FILE_FO4 * value("fo4_delay") * 1e-3, "registers")


@cache
def _leakage_mw_per_kib() -> float:
    """Leakage follows capacity; the largest run has the figure with the most digits."""
    row = max(_measured_at_64_bits(), key=lambda r: r.capacity_kib)
    assert row.leakage_mw is not None
    return row.leakage_mw / row.capacity_kib


@cache
def _measured_at_64_bits() -> tuple[SramRow, ...]:
    rows = [row for row in sram_rows() if row.word_bits == SLICE_BITS and row.access_ns is not None]
    return tuple(sorted(rows, key=lambda row: row.capacity_kib))


@cache
def _curve(quantity: str) -> Callable[[float], float]:
    rows = _measured_at_64_bits()
    return _log_log([row.capacity_kib for row in rows], [getattr(row, quantity) for row in rows])


def _at_capacity(quantity: str, kib: float) -> float:
    return _curve(quantity)(kib)


@cache
def _width_curve(quantity: str) -> Callable[[float], float]:
    reference = next(row for row in _measured_at_64_bits() if row.capacity_kib == 64)
    rows = sorted((row for row in sram_rows() if row.capacity_kib == 64), key=lambda row: row.word_bits)
    ratios = [getattr(row, quantity) / getattr(reference, quantity) for row in rows]
    return _log_log([float(row.word_bits) for row in rows], ratios)


def _width_ratio(quantity: str, word_bits: float) -> float:
    if quantity == "area_mm2":
        word_bits = min(word_bits, SLICE_BITS)
    narrowest = min(row.word_bits for row in sram_rows())
    return _width_curve(quantity)(max(word_bits, narrowest))


def _log_log(points: list[float], values: list[float]) -> Callable[[float], float]:
    """Straight lines between the points in logarithms; inside their range only."""
    xs = [math.log(point) for point in points]
    ys = [math.log(figure) for figure in values]

    def interpolate(point: float) -> float:
        x = math.log(point)
        if not xs[0] - 1e-9 <= x <= xs[-1] + 1e-9:
            raise ValueError(f"{point} lies outside the measured range {points[0]} to {points[-1]}")
        i = min(max(bisect_right(xs, x) - 1, 0), len(xs) - 2)
        t = (x - xs[i]) / (xs[i + 1] - xs[i])
        return math.exp(ys[i] + t * (ys[i + 1] - ys[i]))

    return interpolate
