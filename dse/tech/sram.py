"""SRAM: energy, area, leakage and access time of a scratchpad, from CACTI runs.

How a memory is built from macros:

- A word above 64 bits is sliced over parallel macros of 64 bits, so that wide words become fast as they do in
  practice. Slices do not get smaller than 2 KiB: a shallow memory has wider ones, up to 256 bits.
- A word below 16 bits costs what 16 bits cost: decoder and bit lines stay.
- A macro above 2 MiB becomes equal banks of at most 2 MiB.
- A macro below 1 KiB costs what 1 KiB costs: memory compilers have such a floor. A memory so small that an array of
  flip-flops has less area than the smallest macro (some 50 bytes) is that array.
- Macros side by side are joined by wires: half the extra side length for an average access, all of it for the
  slowest one.

CACTI chooses among discrete organisations, and its figures jump between neighbouring sizes: at 45 nm 64 KiB in words
of 128 bits are a fifth smaller than in words of 32. A buyer takes the larger or wider memory when it is the cheaper
one, so prices never fall with capacity or width: they are the surface without falls that is nearest to the runs in
the largest relative distance, the geometric middle between the least non-falling surface above them and the greatest
one below. `dse validate sram` prints how far it lies from the runs.

Outside 22 to 90 nm the nearest of the two follows the published factors of logic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from dse.tech.logic import fitted_register_gates, logic_area_um2
from dse.tech.sram_table import QUANTITIES, Floats, bilinear, macro_tables
from dse.tech.technology import REFERENCE, Technology

#: Width of a slice, and of the widest macro.
SLICE_BITS, WIDEST_BITS = 64, 256
SMALLEST_SLICE_BYTES = 2048
#: Capacities and widths that are priced: up to 2 GiB and 131072 bits.
LARGEST_BYTES, LARGEST_BITS = 2**31, 2**17
_STEPS_PER_OCTAVE = 4
#: Gate delays through the read multiplexer of a register file.
_REGISTER_FILE_FO4 = 10
_FACTORS = ("read", "write", "access", "area", "leakage")
_READ, _WRITE, _ACCESS, _AREA, _LEAKAGE = range(len(QUANTITIES))


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
class _Surface:
    """Prices over capacity (bytes) and width (bits) as logarithms; all but the access time never fall."""

    log_capacities: Floats
    log_widths: Floats
    log_figures: Floats

    def at(self, capacity_bytes: float, word_bits: float) -> Floats:
        point = np.array([max(capacity_bytes, 1.0)]), np.array([float(word_bits)])
        found: Floats = np.exp(bilinear(self.log_figures, self.log_capacities, self.log_widths, *point)[0])
        return found


@lru_cache(maxsize=65536)
def sram(
    capacity_bytes: float,
    word_bits: int,
    *,
    banks: int = 1,
    two_port: bool = False,
    tech: Technology = REFERENCE,
) -> SramCost:
    """Price of a memory of `capacity_bytes` in words of `word_bits`.

    Parameters
    ----------
    capacity_bytes
        All banks together; > 0, at most 2 GiB a bank.
    word_bits
        Bits of a word; 1 to 131072.
    banks
        Equal parts that are accessed on their own (2 for ping-pong halves); an access costs one bank's energy.
    two_port
        Whether a bank is read and written in the same cycle.

    Raises
    ------
    ValueError: capacity, width or banks are not positive, or beyond what is priced.

    Source: `data/sram_cacti.csv`, rules in the module's docstring.
    """
    if capacity_bytes <= 0 or word_bits < 1 or banks < 1:
        raise ValueError(f"sram of {capacity_bytes} bytes, {word_bits}-bit words, {banks} banks: must be positive")
    bank_bytes = capacity_bytes / banks
    figures = _bank(bank_bytes, word_bits, tech)
    port = tech.value("sram_two_port_factor") if two_port else 1.0
    bank_area = figures[_AREA] * port
    extra_mm = (math.sqrt(banks) - 1) * math.sqrt(bank_area) * 1e-3
    wire_pj = word_bits * tech.value("wire_energy") * extra_mm / 2
    registers = bank_bytes < _register_limit(tech)
    slices = 1 if registers else int(_slices(np.array([bank_bytes]), float(word_bits))[0])
    parts = math.ceil(bank_bytes / slices / _largest())
    return SramCost(
        read_pj=float(figures[_READ] + wire_pj),
        write_pj=float(figures[_WRITE] + wire_pj),
        area_um2=float(banks * bank_area),
        leakage_mw=float(banks * figures[_LEAKAGE] * port),
        access_ns=float(figures[_ACCESS] + extra_mm * tech.value("wire_delay")),
        macros=banks * slices * parts,
        slices=slices,
        macro_bytes=bank_bytes / slices / parts,
        macro_kind="registers" if registers else "sram",
    )


@lru_cache(maxsize=1024)
def _register_limit(tech: Technology) -> float:
    """Bytes below which flip-flops have less area than the smallest and narrowest macro.

    By capacity alone: were wide and shallow memories flip-flops too, a wider word could cost less energy.
    """
    smallest = _sram_bank(1.0, 1.0, replace(tech, vdd=None))[_AREA]
    return float(smallest / _register_file(1.0, 1.0, tech)[_AREA])


def _bank(bank_bytes: float, word_bits: float, tech: Technology) -> Floats:
    """Figures of one bank at `tech`."""
    nominal = replace(tech, vdd=None)
    if bank_bytes < _register_limit(nominal):
        return _register_file(bank_bytes, word_bits, nominal)
    return _sram_bank(bank_bytes, word_bits, nominal)


def _sram_bank(bank_bytes: float, word_bits: float, tech: Technology) -> Floats:
    """Figures of one bank of macros: between two nodes of CACTI, or scaled from the nearest one."""
    low, high, share = _table_nodes(tech)
    figures = _surface(replace(tech, node_nm=low)).at(bank_bytes, word_bits)
    if share:
        above = _surface(replace(tech, node_nm=high)).at(bank_bytes, word_bits)
        figures = np.exp((1 - share) * np.log(figures) + share * np.log(above))
    else:
        figures = figures * _scaled(tech, low)
    result: Floats = figures * [tech.value(f"sram_{name}_factor") for name in _FACTORS]
    return result


def _scaled(tech: Technology, node_nm: float) -> Floats:
    """Factors from a node of CACTI to the one asked for, 1 inside its range; leakage goes with area."""
    if node_nm == tech.node_nm:
        return np.ones(len(QUANTITIES))
    at = replace(tech, node_nm=node_nm)
    energy, delay, area = (tech.factor(kind) / at.factor(kind) for kind in ("energy", "delay", "area"))
    return np.array([energy, energy, delay, area, area])


def _table_nodes(tech: Technology) -> tuple[float, float, float]:
    """Nodes of CACTI around the one asked for, and how far it lies from the lower to the upper, in logarithms."""
    nodes = list(macro_tables())
    inside = min(max(tech.node_nm, nodes[0]), nodes[-1])
    high = next(known for known in nodes if known >= inside)
    low = next(known for known in reversed(nodes) if known <= inside)
    return low, high, math.log(inside / low) / math.log(high / low) if high > low else 0.0


def _largest() -> float:
    return float(next(iter(macro_tables().values())).capacities[-1])


@lru_cache(maxsize=64)
def _surface(tech: Technology) -> _Surface:
    """Prices of one bank at a node of CACTI, for every capacity and width."""
    octaves = round(math.log2(LARGEST_BYTES)) * _STEPS_PER_OCTAVE
    capacities = 2.0 ** (np.arange(octaves + 1) / _STEPS_PER_OCTAVE)
    widths = 2.0 ** np.arange(round(math.log2(LARGEST_BITS)) + 1)
    raw = np.log(np.stack([_banks(capacities, width, tech) for width in widths], axis=1))
    return _Surface(np.log(capacities), np.log(widths), without_falls(raw))


def without_falls(figures: Floats) -> Floats:
    """The surface nearest to `figures` (axes: capacity, width, quantity) that never falls along its first axes.

    Nearest in the largest distance: the middle of the envelopes. The access time takes the lower one along the
    capacity alone: a larger memory that is faster can stand in, and along the width smaller slices are faster.
    """
    above = np.maximum.accumulate(figures, axis=0)
    below = np.minimum.accumulate(figures[::-1], axis=0)[::-1].copy()
    held = [k for k in range(figures.shape[2]) if k != _ACCESS]
    above[:, :, held] = np.maximum.accumulate(above[:, :, held], axis=1)
    below[:, :, held] = np.minimum.accumulate(below[:, ::-1, held], axis=1)[:, ::-1]
    above[:, :, _ACCESS] = below[:, :, _ACCESS]
    result: Floats = (above + below) / 2
    return result


def _banks(capacities: Floats, word_bits: float, tech: Technology) -> Floats:
    """Figures of one bank as the rules build it, shape (capacities, quantities)."""
    slices = _slices(capacities, word_bits)
    parts = np.ceil(capacities / slices / _largest())
    macro_bytes = capacities / slices / parts
    macro = _macros(macro_bytes, word_bits / slices, tech.node_nm)
    count = slices * parts
    extra_mm = (np.sqrt(count) - 1) * np.sqrt(macro[:, _AREA]) * 1e-3
    wire_pj = word_bits * tech.value("wire_energy") * extra_mm / 2
    figures = macro.copy()
    figures[:, _READ] = slices * macro[:, _READ] + wire_pj
    figures[:, _WRITE] = slices * macro[:, _WRITE] + wire_pj
    figures[:, _ACCESS] += extra_mm * tech.value("wire_delay")
    figures[:, _AREA] *= count
    figures[:, _LEAKAGE] *= count
    return figures


def _slices(capacities: Floats, word_bits: float) -> Floats:
    """Macros side by side that make up a word."""
    deep_enough = capacities // SMALLEST_SLICE_BYTES
    slices: Floats = np.maximum(
        math.ceil(word_bits / WIDEST_BITS), np.minimum(math.ceil(word_bits / SLICE_BITS), deep_enough)
    )
    return slices


def _macros(macro_bytes: Floats, word_bits: Floats, node_nm: float) -> Floats:
    """Figures of single macros; those below the smallest or the narrowest run cost what that costs."""
    table = macro_tables()[node_nm]
    return table.macros(np.maximum(macro_bytes, table.capacities[0]), np.maximum(word_bits, table.widths[0]))


def _register_file(capacity_bytes: float, word_bits: float, tech: Technology) -> Floats:
    """Figures of an array of flip-flops: energy by the bit that is accessed, area and leakage by the bits held."""
    area = 8 * capacity_bytes * logic_area_um2(fitted_register_gates(), tech)
    access_pj = word_bits * tech.value("register_energy")
    access_ns = _REGISTER_FILE_FO4 * tech.value("fo4_delay") * 1e-3
    return np.array([access_pj, access_pj, access_ns, area, area * 1e-6 * tech.value("logic_leakage")])
