"""Metrics: what one design costs on one network, in parts that sum up to their totals.

The constructor checks the invariants of the models; a broken one is our bug (`InvariantError`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dse.core.errors import InvariantError

METRICS_VERSION = 1


@dataclass(frozen=True)
class Traffic:
    """Accesses of one tensor role at one memory level.

    `reads` and `writes` count words of that memory; the byte counts are words times word width (memory port:
    bytes of the beats moved).
    """

    level: str
    role: str  # input, weight, partial_sum, output, residual, parameter
    reads: int
    writes: int
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True)
class LayerMetrics:
    """One step of the program (a layer on the accelerator, or a host operation).

    `losses` are array cycles not spent on useful MACs, by cause; with `useful_cycles`
    (= useful_macs / peak MACs per cycle) they sum up to `cycles`.
    """

    name: str
    kind: str
    cycles: int
    useful_macs: int
    executed_macs: int
    energy_pj: Mapping[str, float]
    memory_bytes: int
    compulsory_bytes: int
    losses: Mapping[str, float]
    traffic: tuple[Traffic, ...] = ()
    mapping: str = ""

    def utilization(self, peak_macs_per_cycle: float) -> float:
        """Useful MACs over the MACs the array could have done in this step's cycles."""
        return self.useful_macs / (self.cycles * peak_macs_per_cycle) if self.cycles else 0.0


@dataclass(frozen=True)
class Metrics:
    """A design on a network.

    Parameters
    ----------
    level, version
        Which timing level produced the cycles; version of the metric definitions.
    cycles, clock_mhz
        Total cycles (int) and the clock they run at.
    energy_pj, area_um2, static_mw
        By component. Energy includes static power over the run (leakage, clock tree, PHY) as component "static".
    peak_macs_per_cycle
        Of the mode the program runs in.
    layers
        Per step, in order; cycles and dynamic energy of the layers sum up to the totals.
    accuracy
        Named quality figures, such as {"sqnr_db": 31.2}.
    """

    level: str
    cycles: int
    clock_mhz: float
    energy_pj: Mapping[str, float]
    area_um2: Mapping[str, float]
    static_mw: Mapping[str, float]
    peak_macs_per_cycle: float
    layers: tuple[LayerMetrics, ...]
    accuracy: Mapping[str, float] = field(default_factory=dict)
    version: int = METRICS_VERSION

    def __post_init__(self) -> None:
        self._check()

    @property
    def latency_ms(self) -> float:
        return self.cycles / self.clock_mhz * 1e-3

    @property
    def total_energy_pj(self) -> float:
        return math.fsum(self.energy_pj.values())

    @property
    def energy_uj(self) -> float:
        return self.total_energy_pj * 1e-6

    @property
    def area_mm2(self) -> float:
        return math.fsum(self.area_um2.values()) * 1e-6

    @property
    def power_mw(self) -> float:
        """Average power over the run: energy over latency."""
        return self.total_energy_pj / (self.latency_ms * 1e6) if self.cycles else 0.0

    @property
    def useful_macs(self) -> int:
        return sum(layer.useful_macs for layer in self.layers)

    @property
    def executed_macs(self) -> int:
        return sum(layer.executed_macs for layer in self.layers)

    @property
    def memory_bytes(self) -> int:
        return sum(layer.memory_bytes for layer in self.layers)

    @property
    def utilization(self) -> float:
        """Useful MACs over peak MACs in the total cycles."""
        return self.useful_macs / (self.cycles * self.peak_macs_per_cycle) if self.cycles else 0.0

    @property
    def gmacs_per_s(self) -> float:
        """Useful MACs per second, in 1e9."""
        return self.useful_macs / (self.latency_ms * 1e6) if self.cycles else 0.0

    def summary(self) -> dict[str, float]:
        """The headline figures by name, units in the names."""
        return {
            "latency_ms": self.latency_ms,
            "energy_uj": self.energy_uj,
            "area_mm2": self.area_mm2,
            "power_mw": self.power_mw,
            "cycles": float(self.cycles),
            "utilization": self.utilization,
            "gmacs_per_s": self.gmacs_per_s,
            "memory_bytes": float(self.memory_bytes),
            **self.accuracy,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: headline, parts and layers."""
        return {
            "version": self.version,
            "level": self.level,
            "summary": self.summary(),
            "energy_pj": dict(self.energy_pj),
            "area_um2": dict(self.area_um2),
            "static_mw": dict(self.static_mw),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "cycles": layer.cycles,
                    "useful_macs": layer.useful_macs,
                    "executed_macs": layer.executed_macs,
                    "energy_pj": dict(layer.energy_pj),
                    "memory_bytes": layer.memory_bytes,
                    "losses": dict(layer.losses),
                    "mapping": layer.mapping,
                }
                for layer in self.layers
            ],
        }

    def _check(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise InvariantError(message)

        require(sum(layer.cycles for layer in self.layers) == self.cycles, "layer cycles do not sum up to the total")
        for layer in self.layers:
            floor = layer.executed_macs / self.peak_macs_per_cycle
            require(layer.cycles >= floor - 1e-9, f"{layer.name}: {layer.cycles} cycles < {floor} at peak rate")
            require(
                layer.memory_bytes >= layer.compulsory_bytes,
                f"{layer.name}: {layer.memory_bytes} bytes moved < {layer.compulsory_bytes} compulsory",
            )
            require(layer.executed_macs >= layer.useful_macs, f"{layer.name}: executes fewer MACs than useful")
            for cause, lost in layer.losses.items():
                require(lost >= -1e-6, f"{layer.name}: {cause} loses {lost} cycles")
            if layer.losses:
                useful = layer.useful_macs / self.peak_macs_per_cycle
                total = math.fsum(layer.losses.values()) + useful
                require(
                    math.isclose(total, layer.cycles, rel_tol=1e-9, abs_tol=1e-6),
                    f"{layer.name}: losses and useful cycles sum up to {total}, not {layer.cycles}",
                )
        dynamic = math.fsum(value for name, value in self.energy_pj.items() if name != "static")
        parts = math.fsum(value for layer in self.layers for value in layer.energy_pj.values())
        require(math.isclose(dynamic, parts, rel_tol=1e-9, abs_tol=1e-6), f"energy {dynamic} != sum of layers {parts}")
