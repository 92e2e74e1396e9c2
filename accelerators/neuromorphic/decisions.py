"""What the compiler may choose for a spiking network, with defaults and bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerators.neuromorphic.blocks import ORDERS
from accelerators.neuromorphic.placement import PLACEMENTS
from dse.backend import Decisions
from dse.core.errors import UsageError, nearest

#: time_steps: steps of the stimulus, or that a converted network is shown a sample. input_rate, seed: the stimulus of
#: networks that are spiking already. spread: cores of each layer over the fewest that fit. slice_order, placement: how
#: layers are cut, and where on the mesh the slices lie. mapping_moves: mappings that a search inside the compilation
#: prices, with the cores and the order of each layer free. coding, normalization, percentile, max_pool, compensate:
#: `convert.Conversion`; coding "auto" is "direct" where the cores take payloads.
DEFAULTS: Mapping[str, Any] = {
    "time_steps": 16, "input_rate": 0.1, "seed": 0, "slice_order": "channel", "spread": 1.0, "placement": "order",
    "mapping_moves": 0, "granularity": "layer", "coding": "auto", "normalization": "error", "percentile": 99.9,
    "max_pool": "refuse", "compensate": True,
}  # fmt: skip
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "slice_order": ORDERS, "placement": PLACEMENTS, "granularity": ("layer", "channel"),
    "coding": ("auto", "rate", "direct"), "normalization": ("percentile", "error"),
    "max_pool": ("refuse", "relu", "average"),
}  # fmt: skip
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "time_steps": (1, 100_000), "input_rate": (0, 1), "spread": (1, 1024), "percentile": (50, 100),
    "mapping_moves": (0, 100_000),
}  # fmt: skip


def checked(decisions: Decisions) -> dict[str, Any]:
    """All decisions with their defaults.

    Raises
    ------
    UsageError: a value that a decision cannot take.
    """
    chosen = {name: decisions.get(name, default) for name, default in DEFAULTS.items()}
    for name, choices in _CHOICES.items():
        if chosen[name] not in choices:
            raise UsageError(f"decisions.{name}: {chosen[name]!r} is not possible{nearest(str(chosen[name]), choices)}")
    for name, (low, high) in _BOUNDS.items():
        value = chosen[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise UsageError(f"decisions.{name}: {value!r} lies outside {low}..{high}")
    for name in ("time_steps", "seed", "mapping_moves"):
        if not isinstance(chosen[name], int) or chosen[name] < 0:
            raise UsageError(f"decisions.{name}: {chosen[name]!r} is not a whole number from 0")
    return chosen
