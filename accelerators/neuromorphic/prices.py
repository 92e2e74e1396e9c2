"""What an event costs: published chips from a table, our own core from the 45 nm technology tables.

Energies are femtojoules and times picoseconds, whole numbers: sums are then exact in any order, and two
implementations of the model can be compared for equality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.network import CLASSES
from dse.tech import SramCost, add_pj, control_gates, hop_pj, logic_area_um2, sram, value

#: Events with a price each.
EVENTS = ("soma_access", "soma_update", "spike_out", "axon_out", "axon_in", "dendrite", "hop_east_west",
          "hop_north_south")  # fmt: skip
#: Bits of a packet on a link: destination tile and core, axon, delay.
_PACKET_BITS = 32
#: Flip-flops of a core's control, and ports of a router with a packet register each; estimated, not synthesised.
_CORE_FLIP_FLOPS, _ROUTER_PORTS = 600, 5


@dataclass(frozen=True)
class Prices:
    """Energy in fJ and time in ps of every event.

    `energy` and `time` by event of `EVENTS`; `synapse_energy`, `synapse_time` by class (dense, sparse, conv).
    `sync`: (mapped tiles, ps) pairs, the last one whose tiles do not exceed those mapped counts.
    """

    energy: Mapping[str, int]
    time: Mapping[str, int]
    synapse_energy: tuple[int, int, int]
    synapse_time: tuple[int, int, int]
    sync: tuple[tuple[int, int], ...] = ((1, 0),)

    def sync_ps(self, tiles: int) -> int:
        """Time of a barrier over `tiles` mapped tiles."""
        return max((entry for entry in self.sync if entry[0] <= max(tiles, 1)), default=(0, 0))[1]


def prices_of(hw: NeuromorphicHardware) -> Prices:
    """The prices of a design."""
    return _modelled(hw) if hw.prices == "model" else _published(hw.prices, hw.clock_mhz)


@cache
def price_table() -> Mapping[str, Any]:
    """The published prices with scope, evidence and source of each."""
    text = (resources.files("accelerators.neuromorphic") / "data" / "prices.yaml").read_text(encoding="utf-8")
    table: Mapping[str, Any] = yaml.safe_load(text)
    return table


@cache
def _published(name: str, clock_mhz: float) -> Prices:
    chip = price_table()[name]
    cycle_ns = 1e3 / clock_mhz

    def figure(entry: Mapping[str, Any], unit: str, kind: str | None = None) -> int:
        found = entry.get(unit)
        if isinstance(found, dict):
            found = found[kind]
        if found is None and unit == "ns" and "cycles" in entry:
            found = entry["cycles"] * cycle_ns
        return round(1000 * (found or 0.0))

    entries = chip["prices"]
    sync = chip.get("sync_ns", {}).get("values", [[1, 0]])
    return Prices(
        {event: figure(entries.get(event, {}), "pj") for event in EVENTS},
        {event: figure(entries.get(event, {}), "ns") for event in EVENTS},
        tuple(figure(entries["synapse"], "pj", kind) for kind in CLASSES),  # type: ignore[arg-type]
        tuple(figure(entries["synapse"], "ns", kind) for kind in CLASSES),  # type: ignore[arg-type]
        tuple((int(tiles), round(1000 * ns)) for tiles, ns in sync),
    )


def memories(hw: NeuromorphicHardware) -> dict[str, tuple[float, int, int]]:
    """Capacity in bytes, word width in bits and banks of the memories of a core."""
    synapse_word = hw.lanes * (hw.weight_bits + address_bits(hw.neurons_per_core))
    state_word = 2 * hw.state_bits
    axon_word = address_bits(hw.synapse_bits // synapse_word) + address_bits(hw.neurons_per_core)
    packet_word = address_bits(hw.cores) + address_bits(hw.axons_in) + address_bits(hw.max_delay)
    bias_word = hw.state_bits + address_bits(hw.profiles)
    return {
        "synapses": (hw.synapse_kib * 1024, synapse_word, 1),
        # one bank a lane: lanes add at once
        "charges": (hw.neurons_per_core * hw.charge_bits / 8, hw.charge_bits, hw.lanes),
        "states": (hw.neurons_per_core * state_word / 8, state_word, 1),
        "parameters": (hw.neurons_per_core * bias_word / 8, bias_word, 1),
        "axons_in": (hw.axons_in * axon_word / 8, axon_word, 1),
        "axons_out": (hw.axons_out * packet_word / 8, packet_word, 1),
    }


@cache
def _memory_costs(hw: NeuromorphicHardware) -> dict[str, SramCost]:
    return {name: sram(size, word, banks=banks) for name, (size, word, banks) in memories(hw).items()}


def address_bits(count: int) -> int:
    """Bits that number `count` things."""
    return max(1, math.ceil(math.log2(max(2, count))))


@cache
def _modelled(hw: NeuromorphicHardware) -> Prices:
    """Our core at 45 nm: memory accesses from CACTI fits, adders from cell libraries, a cycle for each access."""
    cost = _memory_costs(hw)
    cycle = 1e6 / hw.clock_mhz
    charge = add_pj(hw.charge_bits) + cost["charges"].read_pj + cost["charges"].write_pj
    synapse = round(1000 * (cost["synapses"].read_pj / hw.lanes + charge))
    per_synapse = round(cycle / hw.lanes)
    state = cost["states"].read_pj + cost["parameters"].read_pj + cost["charges"].read_pj
    adds = 3 * add_pj(hw.state_bits) + (2 * hw.state_bits * 13 / 64 * add_pj(8) if hw.decay == "multiplier" else 0)
    energy = {
        "soma_access": state,
        "soma_update": cost["states"].write_pj + adds,
        "spike_out": 0.0,
        "axon_out": cost["axons_out"].read_pj,
        "axon_in": cost["axons_in"].read_pj,
        "dendrite": 0.0,
        "hop_east_west": hop_pj(_PACKET_BITS),
        "hop_north_south": hop_pj(_PACKET_BITS),
    }
    cycles = {"soma_access": 1, "soma_update": 0, "spike_out": 0, "axon_out": 1, "axon_in": 1, "dendrite": 0,
              "hop_east_west": 1, "hop_north_south": 1}  # fmt: skip
    return Prices(
        {event: round(1000 * value) for event, value in energy.items()},
        {event: round(count * cycle) for event, count in cycles.items()},
        (synapse, synapse, synapse),
        (per_synapse, per_synapse, per_synapse),
        # a barrier is a token along the mesh and back
        tuple((tiles, round(2 * cycle * (math.isqrt(tiles - 1) + 1))) for tiles in range(1, hw.tiles + 1)),
    )


def area_um2(hw: NeuromorphicHardware) -> dict[str, float]:
    """Area by component: a published chip's per core, or our cores' memories, logic and routers at 45 nm."""
    chip = price_table().get(hw.prices, {})
    if "core_area_mm2" in chip:
        return {"cores": chip["core_area_mm2"]["value"] * 1e6 * hw.cores}
    found = {name: hw.cores * memory.area_um2 for name, memory in _memory_costs(hw).items()}
    registers = _CORE_FLIP_FLOPS + hw.lanes * (hw.charge_bits + hw.weight_bits)
    found["core_logic"] = hw.cores * logic_area_um2(control_gates(registers))
    packets = _ROUTER_PORTS * hw.link_buffer * _PACKET_BITS
    found["routers"] = hw.tiles * (
        sram(packets / 8, _PACKET_BITS).area_um2 + logic_area_um2(control_gates(_ROUTER_PORTS * 64))
    )
    return found


def static_mw(hw: NeuromorphicHardware) -> dict[str, float]:
    """Leakage by component; none for published chips, whose all-in prices hold it or whose figure is not public."""
    if hw.prices != "model":
        return {}
    leakage = {name: hw.cores * memory.leakage_mw for name, memory in _memory_costs(hw).items()}
    logic = area_um2(hw)
    leakage["logic"] = (logic["core_logic"] + logic["routers"]) * 1e-6 * value("logic_leakage")
    return leakage


def max_clock_mhz(hw: NeuromorphicHardware) -> float:
    """Clock that the slowest memory of our core allows; a published chip's own where prices count no cycles."""
    if hw.prices != "model":
        return hw.clock_mhz
    return 1e3 / max(memory.access_ns for memory in _memory_costs(hw).values())
