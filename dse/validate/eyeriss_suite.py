"""Suite `eyeriss`: power, traffic and core area of Eyeriss v1 running AlexNet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dse.mapping import access_energy
from dse.validate.eyeriss import (
    ELEMENTS,
    PUBLISHED_CORE_MM2,
    PUBLISHED_GATES,
    Layer,
    LayerEnergy,
    core_area_mm2,
    element_logic_gates,
    eyeriss_arch,
    layer_energy,
)
from dse.validate.reference import read_rows, shipped
from dse.validate.suite import Comparison, Row, Suite

PUBLISHED_MW, POWER_BOUND = 278.0, 0.25
_NUMBERS = (
    "total_ms", "active_pes", "zeros_pct", "glb_mb", "dram_mb", "power_mw", "groups", "N", "M", "C", "P", "Q", "R", "S",
    "stride", "m", "n", "e", "p", "q", "r", "t",
)  # fmt: skip


def eyeriss_suite() -> Suite:
    """Chip power within 25 % of the published 278 mW; layers, traffic, gates and core area as information."""
    rows: list[Row] = [*read_rows(shipped("eyeriss_alexnet.csv"), ("layer", *_NUMBERS))]
    results = {row["layer"]: (layer_energy(layer_of(row), _seconds(row)), _seconds(row)) for row in rows}

    def compare(row: Row) -> Sequence[Comparison]:
        if row["layer"] == "chip":
            return _chip(list(results.values()))
        return _layer(row, *results[row["layer"]])

    source = "Eyeriss v1, JSSC 2017: AlexNet, batch 4, 65 nm, 1 V, 200 MHz"
    return Suite("eyeriss", source, [*rows, {"layer": "chip"}], compare, lambda row: row["layer"], _notes(results))


def layer_of(row: Row) -> Layer:
    """A row of the reference file as a layer."""
    bounds = {name: int(row[name]) for name in ("N", "M", "C", "P", "Q", "R", "S")}
    m, n, e, p, q, r, t = (int(row[name]) for name in ("m", "n", "e", "p", "q", "r", "t"))
    zeros = float(row["zeros_pct"]) / 100
    return Layer(row["layer"], int(row["groups"]), bounds, int(row["stride"]), m, n, e, p, q, r, t, zeros)


def _seconds(row: Row) -> float:
    return float(row["total_ms"]) * 1e-3


def _layer(row: Row, energy: LayerEnergy, seconds: float) -> Sequence[Comparison]:
    return [
        Comparison("power mW", _milliwatts(math.fsum(energy.terms.values()), seconds), float(row["power_mw"])),
        Comparison("active elements", energy.active_elements, float(row["active_pes"]), bound=0.0),
        Comparison("global buffer MB", energy.glb_bytes * 1e-6, float(row["glb_mb"])),
        Comparison("DRAM MB, not compressed", energy.dram_bytes * 1e-6, float(row["dram_mb"])),
    ]


def _chip(results: Sequence[tuple[LayerEnergy, float]]) -> Sequence[Comparison]:
    seconds = math.fsum(time for _, time in results)
    total = math.fsum(math.fsum(energy.terms.values()) for energy, _ in results)
    return [
        Comparison("power mW", _milliwatts(total, seconds), PUBLISHED_MW, bound=POWER_BOUND),
        Comparison("gates", ELEMENTS * element_logic_gates(), PUBLISHED_GATES),
        Comparison("core mm2", core_area_mm2(), PUBLISHED_CORE_MM2),
    ]


def terms_mw(results: Sequence[tuple[LayerEnergy, float]]) -> dict[str, float]:
    """Mean power of every term on the chip over all layers, in mW."""
    seconds = math.fsum(time for _, time in results)
    names = list(results[0][0].terms)
    return {name: _milliwatts(math.fsum(e.terms[name] for e, _ in results), seconds) for name in names}


def per_element_pj() -> dict[str, float]:
    """Energy of reading one 16-bit element from a partial-sum register, the global buffer and DRAM."""
    arch, prices = eyeriss_arch(), access_energy(eyeriss_arch())
    reads = {level.name: pj * 16 / level.word_bits for level, pj in zip(arch.levels, prices.read_pj, strict=True)}
    return {"RF": reads["sum_spad"], "GLB": reads["GLB"], "DRAM": reads["DRAM"]}


def _notes(results: dict[str, tuple[LayerEnergy, float]]) -> tuple[str, ...]:
    pairs = list(results.values())
    terms = terms_mw(pairs)
    seconds = math.fsum(time for _, time in pairs)
    scratch = terms["filter scratchpads"] + terms["register scratchpads"]
    dram = _milliwatts(math.fsum(energy.dram_pj for energy, _ in pairs), seconds)
    read = per_element_pj()
    return (
        "chip power by term, mW: " + ", ".join(f"{name} {figure:.1f}" for name, figure in terms.items()),
        "pJ per 16-bit read: " + " < ".join(f"{name} {read[name]:.2f}" for name in sorted(read, key=lambda k: read[k])),
        f"beside the chip: RF {scratch:.0f}, GLB {terms['global buffer']:.0f}, DRAM {dram:.0f} mW (DDR3, tables)",
        f"published: arithmetic below 10 % of the power; here {terms['arithmetic'] / sum(terms.values()):.0%}: the "
        "multiply energy of the tables is high, reads of register files through their multiplexers are left out",
    )


def _milliwatts(pj: float, seconds: float) -> float:
    return pj * 1e-9 / seconds
