"""The NPU family as a back end: what `dse` finds behind the entry point `npu`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import yaml

from accelerators.npu.arch import npu_arch
from accelerators.npu.cost import check_hardware, hardware_cost
from accelerators.npu.executable import NpuExecutable
from accelerators.npu.hardware import NpuHardware
from accelerators.npu.lower import DECISIONS, lower
from dse.arch import Arch
from dse.backend import Accelerator, Capabilities, Decisions, HardwareCost, Knob, Numerics, RtlUnavailable
from dse.core.errors import InfeasibleError, Violation
from dse.ir import Graph

_NO_RTL = (
    "the npu family has no RTL; its programs are verified in the interpreter and timed at levels A and C. "
    "The systolic family emits RTL"
)


class NpuAccelerator(Accelerator):
    """MAC arrays over channels and pixels with decoupled DMA, encoded weights and a vector unit."""

    name = "npu"
    hardware_model = NpuHardware
    capabilities = Capabilities(
        levels=("A", "C"),
        exact=True,
        rtl=False,
        description="int8 MAC array over channels and pixels, cores, DMA channels, encoded weights, 2:4 sparsity, LSTM",
    )

    def arch(self, hw: NpuHardware) -> Arch:
        return npu_arch(hw)

    def space(self) -> tuple[Knob, ...]:
        return (
            Knob("hardware.input_channels", (4, 8, 16, 32)),
            Knob("hardware.output_channels", (4, 8, 16, 32)),
            Knob("hardware.pixels", (1, 2, 4, 8)),
            Knob("hardware.cores", (1, 2, 4)),
            Knob("hardware.depthwise_taps", (0, 1, 2, 4, 9)),
            Knob("hardware.weight_encoding", (False, True)),
            Knob("hardware.weights_decoded_per_cycle", (1, 2, 4, 8, 16)),
            Knob("hardware.activation_kib", (4, 8, 16, 32, 64)),
            Knob("hardware.weight_kib", (4, 8, 16, 32, 64)),
            Knob("hardware.accumulator_kib", (2, 4, 8, 16, 32)),
            Knob("hardware.weight_banks", (2, 4, 8, 16)),
            Knob("hardware.vector_lanes", (1, 2, 4, 8)),
            Knob("hardware.dma_channels", (1, 2)),
            Knob("hardware.feature_bytes_per_cycle", (2, 4, 8, 16)),
            Knob("hardware.constant_bytes_per_cycle", (1, 2, 4, 8)),
            Knob("hardware.clock_mhz", (100, 200, 300, 400, 500, 600, 700, 800)),
            Knob("decisions.latency_hiding", (False, True)),
        )

    def decision_defaults(self) -> Mapping[str, Any]:
        return DECISIONS

    def check(self, hw: NpuHardware) -> Sequence[Violation]:
        return check_hardware(hw)

    def numerics(self, hw: NpuHardware) -> Numerics:
        return Numerics(weight_bits=8, activation_bits=8, requantize=hw.requantize)

    def lower(self, graph: Graph, hw: NpuHardware, decisions: Decisions) -> NpuExecutable:
        violations = check_hardware(hw)
        if violations:
            raise InfeasibleError("this NPU cannot be built", violations)
        return NpuExecutable(graph, hw, decisions, lower(graph, hw, decisions))

    def cost(self, hw: NpuHardware) -> HardwareCost:
        return hardware_cost(hw)

    def rtl(self, hw: NpuHardware) -> RtlUnavailable:
        return RtlUnavailable(_NO_RTL)

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        return _presets()


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    folder = resources.files("accelerators.npu") / "presets"
    return {
        item.name.removesuffix(".yaml"): yaml.safe_load(item.read_text(encoding="utf-8"))["hardware"]
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if item.name.endswith(".yaml")
    }
