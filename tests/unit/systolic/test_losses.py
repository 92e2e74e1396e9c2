"""Where the cycles of known networks go: losses sum up, none is negative, traffic and bounds hold."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from designs import FAMILY

from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare
from dse.ir import Graph
from workloads.zoo import ZooFrontend

MACS = {"resnet8": 12_501_632, "resnet50": 4_089_184_256}
CAUSES = {"padding", "fill_drain", "memory_stall", "dependency", "sequencing"}


@pytest.fixture(scope="module", params=sorted(MACS))
def network(request: pytest.FixtureRequest) -> tuple[str, Graph]:
    return request.param, prepare(ZooFrontend().load(request.param, Path(), {}))


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("port", [2, 16])
def test_losses_of_known_networks_sum_up(network: tuple[str, Graph], dataflow: str, port: int) -> None:
    name, graph = network
    hw = SystolicHardware(
        rows=16, columns=16, dataflow=dataflow, activation_kib=64, weight_kib=64, accumulator_kib=32,
        parameter_channels=2048, memory_bytes_per_cycle=port, clock_mhz=300,
    )  # fmt: skip
    metrics = FAMILY.lower(graph, hw, Decisions()).estimate()
    assert metrics.useful_macs == MACS[name]
    assert metrics.executed_macs >= metrics.useful_macs
    assert metrics.cycles >= metrics.executed_macs / hw.pes
    for layer in metrics.layers:
        assert set(layer.losses) == ({"host"} if layer.kind.startswith("host") else CAUSES)
        assert min(layer.losses.values()) >= 0
        assert math.fsum(layer.losses.values()) + layer.useful_macs / hw.pes == pytest.approx(layer.cycles, rel=1e-12)
        moved = sum(row.read_bytes + row.write_bytes for row in layer.traffic if row.level == "memory")
        assert moved == layer.memory_bytes or layer.kind.startswith("host")
        # a channel moves at most a beat a cycle
        read = sum(row.read_bytes for row in layer.traffic if row.level == "memory")
        assert max(read, moved - read) <= layer.cycles * port
    lost = math.fsum(value for layer in metrics.layers for value in layer.losses.values())
    assert lost + metrics.useful_macs / hw.pes == pytest.approx(metrics.cycles)
    assert metrics.utilization == pytest.approx(1 - lost / metrics.cycles)


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_narrower_port_is_never_faster(network: tuple[str, Graph], dataflow: str) -> None:
    """Whatever tiling is chosen for it, a port of half the width makes no network faster."""
    _, graph = network
    totals = []
    for port in (16, 8, 4, 2):
        hw = SystolicHardware(
            rows=8, columns=8, dataflow=dataflow, activation_kib=64, weight_kib=64, accumulator_kib=16,
            parameter_channels=2048, memory_bytes_per_cycle=port, clock_mhz=300,
        )  # fmt: skip
        metrics = FAMILY.lower(graph, hw, Decisions({"mapping_objective": "latency"})).estimate()
        totals.append(metrics.cycles)
    assert totals == sorted(totals)
