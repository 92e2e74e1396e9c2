"""Numbers for people: the same figure always reads the same way, with its unit."""

from __future__ import annotations

import math

_PREFIXES = (
    (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"),
    (1e-12, "p"),
)  # fmt: skip


def si(value: float, unit: str, digits: int = 4) -> str:
    """`value` in `unit` with the SI prefix that leaves 1 to 999 before the point, such as '4.089 GMAC'.

    `digits` are significant ones; zero and values beyond the prefixes keep the plain unit.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    for factor, prefix in _PREFIXES:
        scaled = value / factor
        # the comparison uses the rounded value: 999.99 k must become 1 M
        if abs(float(f"{scaled:.{digits}g}")) >= 1:
            return f"{scaled:.{digits}g} {prefix}{unit}" if abs(scaled) < 10**digits else f"{scaled:.0f} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"


def count(value: int | float) -> str:
    """An integer with thousands separators: '12,501,632'."""
    return f"{round(value):,}"


def byte_size(value: int | float) -> str:
    """Bytes with a binary prefix: '1.5 KiB'."""
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.4g} {unit}"
        size /= 1024
    raise AssertionError("unreachable: the last unit always returns")


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal: '87.5%'."""
    return f"{100 * fraction:.1f}%"
