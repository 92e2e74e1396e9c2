"""Supply voltage: what a clock costs in energy. A faster clock needs a higher Vdd, and energy rises with Vdd.

One supply feeds logic and memories. `critical_ns` is the longest register-to-register path at nominal supply.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dse.core.errors import InfeasibleError, Violation
from dse.tech.constants import value, voltage_fit


@dataclass(frozen=True)
class OperatingPoint:
    """Supply in volts, and factors on dynamic energy and leakage power against nominal supply."""

    vdd: float
    energy_scale: float
    leakage_scale: float


def delay_scale(vdd: float) -> float:
    """Delay at `vdd` over delay at nominal supply.

    Raises
    ------
    ValueError: `vdd` lies outside the range of the fit.

    Source: polynomial of Stillmaker and Baas, 45 nm high performance.
    """
    _check_range(vdd)
    return _delay(vdd) / _delay(value("nominal_vdd"))


def energy_scale(vdd: float) -> float:
    """Dynamic energy at `vdd` over that at nominal supply; same source and error as `delay_scale`."""
    _check_range(vdd)
    return _energy(vdd) / _energy(value("nominal_vdd"))


def leakage_scale(vdd: float) -> float:
    """Leakage power at `vdd` over that at nominal supply: linear in Vdd, and exponential in the barrier lowering.

    Raises
    ------
    ValueError: `vdd` lies outside the range of the fit.
    """
    _check_range(vdd)
    nominal = value("nominal_vdd")
    return float(vdd / nominal * 10 ** ((vdd - nominal) * value("leakage_decades_per_volt")))


def max_clock_mhz(critical_ns: float) -> float:
    """Fastest clock of a design whose longest path takes `critical_ns` at nominal supply.

    Raises
    ------
    ValueError: `critical_ns` is not positive.
    """
    if critical_ns <= 0:
        raise ValueError(f"critical path of {critical_ns} ns must be positive")
    return 1e3 / (critical_ns * delay_scale(value("maximum_vdd")))


@lru_cache(maxsize=65536)
def operating_point(clock_mhz: float, critical_ns: float) -> OperatingPoint:
    """The lowest supply whose delay reaches the clock, never below the memories' floor.

    Raises
    ------
    ValueError: clock or path are not positive.
    InfeasibleError: no supply within the range reaches the clock; carries the reachable one.
    """
    limit = max_clock_mhz(critical_ns)
    if clock_mhz <= 0:
        raise ValueError(f"clock of {clock_mhz} MHz must be positive")
    if clock_mhz > limit * (1 + 1e-12):
        hint = f"the longest path takes {critical_ns:.3g} ns at {value('nominal_vdd'):g} V"
        raise InfeasibleError("operating point", [Violation("clock_mhz", clock_mhz, limit, "MHz", hint)])
    allowed = 1e3 / (clock_mhz * critical_ns)
    low, high = value("minimum_vdd"), value("maximum_vdd")
    if delay_scale(low) <= allowed:
        high = low
    # delay falls with the supply over the whole range, so halving finds the crossing
    for _ in range(50):
        middle = (low + high) / 2
        if delay_scale(middle) <= allowed:
            high = middle
        else:
            low = middle
    return OperatingPoint(high, energy_scale(high), leakage_scale(high))


def _check_range(vdd: float) -> None:
    low, high = value("minimum_vdd"), value("maximum_vdd")
    if not low - 1e-12 <= vdd <= high + 1e-12:
        raise ValueError(f"supply of {vdd} V lies outside {low} to {high} V")


def _delay(vdd: float) -> float:
    d3, d2, d1, d0 = voltage_fit().delay
    return ((d3 * vdd + d2) * vdd + d1) * vdd + d0


def _energy(vdd: float) -> float:
    e2, e1, e0 = voltage_fit().energy
    return (e2 * vdd + e1) * vdd + e0
