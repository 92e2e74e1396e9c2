"""Rows of the tables that `dse simulate` prints, from Metrics."""

from __future__ import annotations

import math

from dse.core.units import byte_size, count, percent
from dse.metrics import LayerMetrics, Metrics

LAYER_COLUMNS = (
    "layer", "kind", "cycles", "MACs", "util", "largest loss", "memory", "energy uJ", "mapping",
)  # fmt: skip


def layer_rows(metrics: Metrics) -> list[tuple[str, ...]]:
    """One row a layer, in order of execution; columns are `LAYER_COLUMNS`."""
    return [
        (
            layer.name,
            layer.kind,
            count(layer.cycles),
            count(layer.useful_macs),
            percent(layer.utilization(metrics.peak_macs_per_cycle)) if layer.useful_macs else "-",
            _largest_loss(layer),
            byte_size(layer.memory_bytes),
            f"{math.fsum(layer.energy_pj.values()) * 1e-6:.3f}",
            layer.mapping,
        )
        for layer in metrics.layers
    ]


def loss_lines(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Array cycles by what became of them, over all layers, largest first; useful work is the first row.

    Layers without a loss account (host operations) stand in a row of their own, so that the cycles sum up.
    """
    losses: dict[str, float] = {}
    useful = 0.0
    for layer in metrics.layers:
        if not layer.losses:
            losses["unaccounted (no array work)"] = losses.get("unaccounted (no array work)", 0.0) + layer.cycles
            continue
        useful += layer.useful_macs / metrics.peak_macs_per_cycle
        for cause, cycles in layer.losses.items():
            losses[cause] = losses.get(cause, 0.0) + cycles
    rows = [("(useful MACs)", useful), *sorted(losses.items(), key=lambda item: (-item[1], item[0]))]
    total = metrics.cycles or 1
    return [(cause, count(cycles), percent(cycles / total)) for cause, cycles in rows if cycles]


def total_rows(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Headline figures with their units: name, value, unit."""
    useful = sum(layer.useful_macs for layer in metrics.layers)
    executed = sum(layer.executed_macs for layer in metrics.layers)
    return [
        ("cycles", count(metrics.cycles), f"at {metrics.clock_mhz:g} MHz"),
        ("latency", f"{metrics.latency_ms:.4f}", "ms"),
        ("useful MACs", count(useful), ""),
        ("executed MACs", count(executed), ""),
        ("throughput", f"{metrics.gmacs_per_s:.3f}", f"GMAC/s (peak {metrics.peak_macs_per_cycle:g} MAC/cycle)"),
        ("utilization", percent(metrics.utilization), ""),
        ("memory traffic", count(metrics.memory_bytes), "bytes"),
        ("energy", f"{metrics.energy_uj:.3f}", "uJ"),
        *((f"  {name}", f"{value * 1e-6:.3f}", "uJ") for name, value in sorted(metrics.energy_pj.items())),
        ("power", f"{metrics.power_mw:.3f}", "mW"),
        ("area", f"{metrics.area_mm2:.4f}", "mm2"),
        *((name.replace("_", " "), f"{value:.4g}", "") for name, value in sorted(metrics.accuracy.items())),
    ]


def _largest_loss(layer: LayerMetrics) -> str:
    if not layer.losses or not layer.cycles:
        return "-"
    cause, cycles = max(layer.losses.items(), key=lambda item: item[1])
    return f"{cause} {percent(cycles / layer.cycles)}" if cycles > 0 else "-"
