"""Metrics refuse figures that cannot be: parts that do not sum up, time below the bounds, negative losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dse.core.errors import InvariantError
from dse.metrics import LayerMetrics, Metrics

LAYER = LayerMetrics(
    name="conv", kind="conv", cycles=100, useful_macs=300, executed_macs=360, energy_pj={"pe": 5.0, "memory": 7.0},
    memory_bytes=64, compulsory_bytes=60, losses={"padding": 15.0, "stall": 10.0},
)  # fmt: skip
HOST = LayerMetrics("pool", "host pool", 50, 0, 0, {"memory": 1.0}, 16, 16, {"host": 50.0})


def metrics(*layers: LayerMetrics, **changes: Any) -> Metrics:
    values: dict[str, Any] = {
        "level": "A", "cycles": 150, "clock_mhz": 500.0, "energy_pj": {"pe": 5.0, "memory": 8.0, "static": 87.0},
        "area_um2": {"pe": 2e6, "memory": 5e5}, "static_mw": {"pe": 1.0}, "peak_macs_per_cycle": 4.0,
        "layers": layers or (LAYER, HOST),
    }  # fmt: skip
    return Metrics(**{**values, **changes})


def test_headline_figures_in_their_units() -> None:
    found = metrics(accuracy={"sqnr_db": 30.0}).summary()
    assert found == {
        "latency_ms": pytest.approx(0.3e-3), "energy_uj": pytest.approx(100e-6), "area_mm2": pytest.approx(2.5),
        "power_mw": pytest.approx(100e-12 / 0.3e-6 * 1e3), "cycles": 150.0, "utilization": pytest.approx(0.5),
        "gmacs_per_s": pytest.approx(300 / 0.3e-6 * 1e-9), "memory_bytes": 80.0, "sqnr_db": 30.0,
    }  # fmt: skip


def test_a_network_without_layers_takes_no_time_and_no_power() -> None:
    empty = Metrics("A", 0, 500.0, {"static": 0.0}, {"pe": 1.0}, {"pe": 1.0}, 4.0, ())
    assert (empty.power_mw, empty.utilization, empty.gmacs_per_s) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cycles": 99}, "layer cycles do not sum up"),
        ({"executed_macs": 401}, "conv: 100 cycles < 100.25 at peak rate"),
        ({"memory_bytes": 59}, "conv: 59 bytes moved < 60 compulsory"),
        ({"executed_macs": 299}, "conv: executes fewer MACs than useful"),
        ({"losses": {"padding": 15.0, "stall": 9.0}}, "losses and useful cycles sum up to 99"),
        ({"losses": {"padding": 45.0, "stall": -20.0}}, "conv: stall loses -20"),
        ({"energy_pj": {"pe": 6.0, "memory": 7.0}}, "energy 13.0 != sum of layers 14.0"),
    ],
)
def test_broken_invariants_name_the_layer(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        metrics(replace(LAYER, **change), HOST)


def test_plain_data_holds_every_part() -> None:
    data = metrics().to_dict()
    assert (data["version"], data["level"]) == (1, "A")
    assert [layer["cycles"] for layer in data["layers"]] == [100, 50]
    assert sum(data["energy_pj"].values()) == pytest.approx(data["summary"]["energy_uj"] * 1e6)
