"""The systolic family as a back end: what `dse` finds behind the entry point `systolic`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from accelerators.systolic.arch import systolic_arch
from accelerators.systolic.chooser import OBJECTIVES
from accelerators.systolic.cost import check_hardware, hardware_cost
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.lower import DECISIONS, lower
from accelerators.systolic.verify import emit, rtl_gap, run_rtl, verification_cases
from dse.arch import Arch
from dse.backend import (
    Accelerator,
    Capabilities,
    Decisions,
    HardwareCost,
    Knob,
    Numerics,
    RtlRun,
    RtlUnavailable,
    VerificationCase,
)
from dse.core.errors import InfeasibleError, Violation
from dse.ir import Graph
from dse.program.executable import Executable


class SystolicAccelerator(Accelerator):
    """Weight- and output-stationary systolic arrays behind one program format."""

    name = "systolic"
    hardware_model = SystolicHardware
    capabilities = Capabilities(
        levels=("A", "C", "rtl"),
        exact=True,
        rtl=True,
        description="int8 systolic array (WS, OS), ping-pong scratchpads, vector unit, descriptor sequencer",
    )

    def arch(self, hw: SystolicHardware) -> Arch:
        return systolic_arch(hw)

    def space(self) -> tuple[Knob, ...]:
        return (
            Knob("hardware.rows", (2, 4, 8, 16, 32)),
            Knob("hardware.columns", (2, 4, 8, 16, 32)),
            Knob("hardware.dataflow", ("ws", "os"), ordered=False),
            Knob("hardware.weight_bits", (4, 8)),
            Knob("hardware.activation_kib", (2, 4, 8, 16, 32)),
            Knob("hardware.weight_kib", (2, 4, 8, 16, 32)),
            Knob("hardware.accumulator_kib", (1, 2, 4, 8, 16)),
            Knob("hardware.vector_lanes", (1, 2, 4, 8)),
            Knob("hardware.memory_bytes_per_cycle", (1, 2, 4, 8, 16)),
            Knob("hardware.clock_mhz", (100, 200, 300, 400, 500, 600, 700, 800)),
            Knob("decisions.gather", (False, True)),
            Knob("decisions.mapping_objective", OBJECTIVES, ordered=False),
        )

    def decision_defaults(self) -> Mapping[str, Any]:
        return DECISIONS

    def check(self, hw: SystolicHardware) -> Sequence[Violation]:
        return check_hardware(hw)

    def numerics(self, hw: SystolicHardware) -> Numerics:
        return Numerics(weight_bits=hw.weight_bits, activation_bits=8, requantize=hw.requantize)

    def lower(self, graph: Graph, hw: SystolicHardware, decisions: Decisions) -> SystolicExecutable:
        violations = check_hardware(hw)
        if violations:
            raise InfeasibleError("this systolic design cannot be built", violations)
        return SystolicExecutable(graph, hw, decisions, lower(graph, hw, decisions))

    def cost(self, hw: SystolicHardware) -> HardwareCost:
        return hardware_cost(hw)

    def rtl(self, hw: SystolicHardware) -> Any | RtlUnavailable:
        # Amaranth is heavy: only needed when hardware is asked for
        from accelerators.systolic.hardware import machine
        from accelerators.systolic.rtl import MatmulEngine
        from dse.rtl.machine import TileMachine

        target = machine(hw)
        return TileMachine(target, MatmulEngine(target))

    def rtl_gap(self, executable: Executable) -> RtlUnavailable | None:
        assert isinstance(executable, SystolicExecutable)
        return rtl_gap(executable)

    def verification_cases(self, executable: Executable, values: Mapping[str, Any]) -> Sequence[VerificationCase]:
        assert isinstance(executable, SystolicExecutable)
        return verification_cases(
            executable, values, lambda graph: self.lower(graph, executable.hw, executable.decisions)
        )

    def run_rtl(self, executable: Executable, inputs: Mapping[str, Any]) -> RtlRun:
        assert isinstance(executable, SystolicExecutable)
        return run_rtl(executable, inputs)

    def emit(self, executable: Executable, cases: Sequence[VerificationCase], folder: Path) -> Sequence[Path]:
        assert isinstance(executable, SystolicExecutable)
        return emit(executable, cases, folder)

    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        return _presets()


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    folder = resources.files("accelerators.systolic") / "presets"
    return {
        item.name.removesuffix(".yaml"): yaml.safe_load(item.read_text(encoding="utf-8"))["hardware"]
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if item.name.endswith(".yaml")
    }
