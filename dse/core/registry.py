"""Plug-ins found by entry points: accelerator families (`dse.backends`) and front ends (`dse.frontends`).

The built-in families register in `pyproject.toml` as a stranger's package would; nothing in `dse`
imports them.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dse.core.errors import UsageError, nearest

BACKENDS = "dse.backends"
FRONTENDS = "dse.frontends"


@cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def names(group: str) -> list[str]:
    """Registered names of a group, sorted."""
    return sorted(_points(group))


def load(group: str, name: str) -> Any:
    """The class registered as `name` in `group`, instantiated without arguments.

    Raises
    ------
    UsageError: no such name, or the plug-in fails to import (the reason is named).
    """
    points = _points(group)
    if name not in points:
        kind = "accelerator family" if group == BACKENDS else "front end"
        raise UsageError(f"{name!r} is not a known {kind}{nearest(name, points)}")
    try:
        plugin = points[name].load()
    except (ImportError, AttributeError) as error:  # AttributeError: the module lacks the class it registered
        raise UsageError(f"plug-in {name!r} ({points[name].value}) cannot be imported: {error}") from error
    return plugin()


def provenance(group: str, name: str) -> str:
    """Distribution and version that registered `name`."""
    point = _points(group)[name]
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
