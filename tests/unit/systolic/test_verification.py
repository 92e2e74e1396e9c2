"""The pieces that prove a winner: one of each kind of layer there is, grouped ones and shared operands included."""

from __future__ import annotations

import numpy as np
import pytest
from designs import FAMILY
from random_networks import NetworkDraw, random_values

from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions, VerificationCase
from dse.flow.verify import verify_case
from dse.ir import Graph
from dse.ir.reference import run_quantized


def mobile() -> Graph:
    """A dense stem, a depthwise stride-2 conv, a residual on the conv's own input, a dense end; two images."""
    net = NetworkDraw(np.random.default_rng(4))
    x = net.conv(net.input((2, 3, 11, 11)), 6, strides=(2, 2), activation="relu")
    x = net.conv(x, 6, strides=(2, 2), groups=6)
    x = net.add(net.conv(x, 6), x, "relu")
    return net.graph(net.gemm(net.flatten(x), 5))


def cases(graph: Graph, hw: SystolicHardware) -> list[VerificationCase]:
    values = random_values(np.random.default_rng(5), graph)
    values |= run_quantized(graph, values, hw.requantize, keep=True)
    return list(FAMILY.verification_cases(FAMILY.lower(graph, hw, Decisions()), values))


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_every_piece_of_a_mobile_network_agrees_with_its_rtl(dataflow: str) -> None:
    hw = SystolicHardware(
        rows=4, columns=4, dataflow=dataflow, activation_kib=1, weight_kib=1, accumulator_kib=0.25, vector_lanes=2,
        parameter_channels=16, memory_latency_ns=10,
    )  # fmt: skip
    found = cases(mobile(), hw)
    assert [case.name.rpartition(" ")[0] for case in found] == [
        "stem conv", "stride-2 conv", "residual-add conv", "fully connected",
    ]  # fmt: skip
    for case in found:
        result = verify_case(FAMILY, case)
        assert result.outputs > 0
        assert result.passed, result.row()


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_a_weight_tile_that_is_loaded_again_is_right_on_the_rtl(dataflow: str) -> None:
    """144 pixel tiles share one weight tile."""
    hw = SystolicHardware(
        rows=2, columns=2, dataflow=dataflow, accumulator_kib=0.0157, activation_kib=1, vector_lanes=1,
        parameter_channels=16, memory_latency_ns=2,
    )  # fmt: skip
    net = NetworkDraw(np.random.default_rng(7))
    graph = net.graph(net.conv(net.input((1, 2, 12, 12)), 2, (1, 1), pads=(0, 0, 0, 0)))
    executable = FAMILY.lower(graph, hw, Decisions())
    (tiles,) = executable.grids  # type: ignore[attr-defined]
    assert tiles.totals["y"] * tiles.totals["x"] == 144
    assert tiles.loads("w") > 1
    inputs = random_values(np.random.default_rng(8), graph)
    case = VerificationCase("reload", executable, inputs, run_quantized(graph, inputs, hw.requantize))
    result = verify_case(FAMILY, case)
    assert result.passed, result.row()


def test_a_network_of_one_kind_of_layer_has_one_piece() -> None:
    net = NetworkDraw(np.random.default_rng(6))
    graph = net.graph(net.gemm(net.gemm(net.input((3, 7)), 9), 4))
    (case,) = cases(graph, SystolicHardware(rows=4, columns=4, vector_lanes=2, requantize="ort"))
    assert case.name == "fully connected gemm0"
    assert case.expected["t0"].shape == (1, 9)
