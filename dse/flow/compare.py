"""One network on many platforms: our designs and peers' formulas in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.compiler import prepare
from dse.core.errors import InfeasibleError, ModelError, UsageError
from dse.flow.accelerator import resolve_accelerator
from dse.flow.simulate import simulate
from dse.ir import Graph
from dse.peers.estimates import PEERS, estimate_peer


@dataclass(frozen=True)
class Platform:
    """What a platform makes of a network; figures it does not have are None, `reason` says why it has none at all.

    `utilization` is useful MACs over those the platform could have done in the time. `scope` says what a peer counts.
    """

    name: str
    kind: str  # the family, or "peer"
    latency_ms: float | None = None
    cycles: float | None = None
    clock_mhz: float | None = None
    utilization: float | None = None
    energy_uj: float | None = None
    area_mm2: float | None = None
    memory_bytes: int | None = None
    scope: str = ""
    reason: str = ""


def compare(graph: Graph, platforms: Sequence[str], *, level: str = "A") -> list[Platform]:
    """A network on every platform, in the order given.

    Parameters
    ----------
    platforms
        Presets, families or design files of ours, and `PEER:SETTING` for peers (`dse.peers.estimates`).

    Raises
    ------
    UsageError, ConfigError: a platform that there is not. A network that a platform cannot run is a row with its
    reason.
    """
    if not platforms:
        raise UsageError("name at least one platform to compare")
    return [_platform(graph, name, level) for name in platforms]


def _platform(graph: Graph, name: str, level: str) -> Platform:
    if name.partition(":")[0] in PEERS and not Path(name).suffix:
        return _peer(graph, name)
    design = resolve_accelerator(name)
    family = design.family.name
    try:
        metrics = simulate(graph, design, level=level).metrics
    except (InfeasibleError, ModelError) as error:
        return Platform(name, family, reason=str(error))
    useful = sum(layer.useful_macs for layer in metrics.layers)
    possible = metrics.cycles * metrics.peak_macs_per_cycle
    return Platform(
        name,
        family,
        metrics.latency_ms,
        metrics.cycles,
        metrics.clock_mhz,
        useful / possible if possible else None,
        metrics.energy_uj,
        metrics.area_mm2,
        sum(layer.memory_bytes for layer in metrics.layers),
        f"level {metrics.level}",
    )


def _peer(graph: Graph, name: str) -> Platform:
    prepared = prepare(graph)
    try:
        found = estimate_peer(prepared, name)
    except ModelError as error:
        return Platform(name, "peer", reason=str(error))
    utilization = prepared.macs / (found.cycles * found.macs_per_cycle)
    return Platform(name, "peer", found.latency_ms, found.cycles, found.clock_mhz, utilization, scope=found.scope)
