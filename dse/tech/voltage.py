"""Supply voltage: what a clock costs in energy. A faster clock needs a higher Vdd, and energy rises with Vdd.

One supply feeds logic and memories. `critical_ns` is the longest register-to-register path at the node's nominal
supply.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dse.core.errors import InfeasibleError, Violation
from dse.tech.technology import REFERENCE, Technology


@dataclass(frozen=True)
class OperatingPoint:
    """Supply in volts, and factors on dynamic energy and leakage power against nominal supply."""

    vdd: float
    energy_scale: float
    leakage_scale: float


def delay_scale(vdd: float, tech: Technology = REFERENCE) -> float:
    """Delay at `vdd` over delay at the node's nominal supply.

    Raises
    ------
    UsageError: `vdd` lies outside the range of the fit.

    Source: polynomials of Stillmaker and Baas, `dse.tech.nodes`.
    """
    return tech.node.delay(vdd) / tech.node.delay(tech.node.nominal_vdd)


def energy_scale(vdd: float, tech: Technology = REFERENCE) -> float:
    """Dynamic energy at `vdd` over that at the node's nominal supply; same source and error as `delay_scale`."""
    return tech.node.energy(vdd) / tech.node.energy(tech.node.nominal_vdd)


def leakage_scale(vdd: float, tech: Technology = REFERENCE) -> float:
    """Leakage power at `vdd` over that at nominal supply: linear in Vdd, and exponential in the barrier lowering.

    Raises
    ------
    UsageError: `vdd` lies outside the range of the fit.
    """
    tech.node.delay(vdd)
    nominal = tech.node.nominal_vdd
    return float(vdd / nominal * 10 ** ((vdd - nominal) * tech.value("leakage_decades_per_volt")))


def max_clock_mhz(critical_ns: float, tech: Technology = REFERENCE) -> float:
    """Fastest clock of a design whose longest path takes `critical_ns` at nominal supply: at the supply that `tech`
    fixes, else at the highest.

    Raises
    ------
    ValueError: `critical_ns` is not positive.
    """
    if critical_ns <= 0:
        raise ValueError(f"critical path of {critical_ns} ns must be positive")
    supply = tech.node.maximum_vdd if tech.vdd is None else tech.vdd
    return 1e3 / (critical_ns * delay_scale(supply, tech))


@lru_cache(maxsize=65536)
def operating_point(clock_mhz: float, critical_ns: float, tech: Technology = REFERENCE) -> OperatingPoint:
    """The supply that `tech` fixes, or the lowest whose delay reaches the clock, never below the memories' floor.

    Raises
    ------
    ValueError: clock or path are not positive.
    InfeasibleError: no supply within the range reaches the clock; carries the reachable one.
    """
    limit = max_clock_mhz(critical_ns, tech)
    if clock_mhz <= 0:
        raise ValueError(f"clock of {clock_mhz} MHz must be positive")
    if clock_mhz > limit * (1 + 1e-12):
        hint = f"the longest path takes {critical_ns:.3g} ns at {tech.node.nominal_vdd:g} V"
        raise InfeasibleError("operating point", [Violation("clock_mhz", clock_mhz, limit, "MHz", hint)])
    supply = _lowest_vdd(1e3 / (clock_mhz * critical_ns), tech) if tech.vdd is None else tech.vdd
    return OperatingPoint(supply, energy_scale(supply, tech), leakage_scale(supply, tech))


def _lowest_vdd(allowed: float, tech: Technology) -> float:
    """Lowest supply whose delay is at most `allowed` times the nominal one."""
    low, high = tech.node.minimum_vdd, tech.node.maximum_vdd
    if delay_scale(low, tech) <= allowed:
        return low
    # delay falls with the supply over the whole range, so halving finds the crossing
    for _ in range(50):
        middle = (low + high) / 2
        if delay_scale(middle, tech) <= allowed:
            high = middle
        else:
            low = middle
    return high
