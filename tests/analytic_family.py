"""A tiny accelerator family with closed-form costs, for tests of search and runs: an evaluation takes a millisecond.

`install(folder)` registers it as the plug-in of a stranger would be, through entry points.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dse.arch import Arch, MemoryLevel
from dse.backend import Accelerator, Capabilities, Decisions, HardwareCost, Knob, Numerics, RtlUnavailable
from dse.core.errors import InfeasibleError, Violation
from dse.ir import Graph, Quantization, Tensor
from dse.ir.graph import Op
from dse.metrics import LayerMetrics, Metrics
from dse.program.executable import Executable
from dse.program.taskgraph import TaskGraph, Timeline
from dse.search import Network

#: Seconds an estimate takes on top, so that a test can kill a run in its middle.
DELAY = "ANALYTIC_DELAY_S"


class AnalyticHardware(BaseModel):
    """`lanes` multipliers in front of a buffer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lanes: int = Field(4, ge=1, le=64)
    buffer_kib: int = Field(8, ge=1, le=256)
    style: Literal["wide", "deep"] = "wide"
    weight_bits: Literal[4, 8] = 8
    clock_mhz: float = Field(100, gt=0, le=1000)

    @model_validator(mode="after")
    def _suits(self) -> AnalyticHardware:
        if self.style == "deep" and self.lanes == 1:
            raise ValueError("deep needs two lanes")
        return self


class AnalyticFamily(Accelerator):
    """More lanes are faster and larger; a larger buffer saves energy; four-bit weights cost accuracy."""

    name = "analytic"
    hardware_model = AnalyticHardware
    capabilities = Capabilities(("A", "C"), exact=True, rtl=False, description="closed forms <for tests>")

    def arch(self, hw: AnalyticHardware) -> Arch:
        return Arch(name="analytic", clock_mhz=hw.clock_mhz, levels=(MemoryLevel(name="dram", word_bits=64),))

    def space(self) -> tuple[Knob, ...]:
        return (
            Knob("hardware.lanes", (1, 2, 4, 8, 16, 32)),
            Knob("hardware.buffer_kib", (1, 2, 4, 8, 16)),
            Knob("hardware.style", ("wide", "deep"), ordered=False),
            Knob("hardware.weight_bits", (4, 8)),
            Knob("hardware.clock_mhz", (50.0, 100.0, 200.0)),
            Knob("decisions.reuse", (1, 2, 4)),
        )

    def decision_defaults(self) -> Mapping[str, Any]:
        return {"reuse": 1}

    def check(self, hw: AnalyticHardware) -> Sequence[Violation]:
        wires = hw.lanes * hw.buffer_kib
        return [Violation("wiring", wires, 128, "wires")] if wires > 128 else []

    def numerics(self, hw: AnalyticHardware) -> Numerics:
        return Numerics(hw.weight_bits, 8, "q31")

    def lower(self, graph: Graph, hw: AnalyticHardware, decisions: Decisions) -> Executable:
        reuse = decisions.get("reuse", 1)
        if reuse > hw.buffer_kib:
            raise InfeasibleError("analytic", [Violation("reuse", reuse, hw.buffer_kib, "KiB")])
        return AnalyticExecutable(self, graph, hw, reuse)

    def cost(self, hw: AnalyticHardware) -> HardwareCost:
        lanes = 900.0 * hw.lanes * hw.weight_bits * hw.clock_mhz / 100
        return HardwareCost({"lanes": lanes, "buffer": 5000.0 * hw.buffer_kib}, {"all": 0.1}, 1000.0)

    def rtl(self, hw: AnalyticHardware) -> RtlUnavailable:
        return RtlUnavailable("closed forms have no registers")


class AnalyticExecutable(Executable):
    """One engine, one task a layer."""

    def __init__(self, family: AnalyticFamily, graph: Graph, hw: AnalyticHardware, reuse: int) -> None:
        self.family, self.graph, self.hw, self.reuse = family, graph, hw, reuse

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def layers(self) -> list[tuple[str, int, int]]:
        """Name, MACs, cycles of each layer."""
        fixed = 40 if self.hw.style == "wide" else 20 + 4 * self.hw.lanes
        ops = [op for op in self.graph.ops if op.kind == "gemm"]
        macs = [math.prod(self.graph[op.inputs[1]].shape) for op in ops]
        return [(op.name, n, fixed + -(-n // self.hw.lanes)) for op, n in zip(ops, macs, strict=True)]

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        rows = self.layers()
        count = len(rows)
        none = np.zeros((0, 3), np.int64)
        zeros = np.zeros(count, np.int64)
        return TaskGraph(
            ("engine",), zeros, zeros, np.array([cycles for _, _, cycles in rows], np.int64), none, none,
            np.zeros(0, np.int64), np.arange(count, dtype=np.int64), zeros, ("layer",),
            np.full(count, -1, np.int64), zeros, (), np.zeros(1, np.int64),
        )  # fmt: skip

    def metrics(self, timeline: Timeline) -> Metrics:
        layers = []
        for name, macs, cycles in self.layers():
            energy = {
                "lanes": 0.1 * macs * self.hw.weight_bits,
                "buffer": 30.0 * macs / self.hw.buffer_kib / self.reuse,
            }
            losses = {"overhead": cycles - macs / self.hw.lanes}
            layers.append(LayerMetrics(name, "gemm", cycles, macs, macs, energy, macs, macs, losses))
        energy_pj = {part: math.fsum(layer.energy_pj[part] for layer in layers) for part in ("lanes", "buffer")}
        energy_pj["static"] = 0.5 * self.reuse * timeline.total_cycles
        cost = self.family.cost(self.hw)
        return Metrics(
            timeline.level, timeline.total_cycles, self.hw.clock_mhz, energy_pj, cost.area_um2, cost.static_mw,
            float(self.hw.lanes), tuple(layers),
        )  # fmt: skip

    def estimate(self) -> Metrics:
        time.sleep(float(os.environ.get(DELAY, "0")))
        empty = self.task_graph()
        cycles = sum(row[2] for row in self.layers())
        return self.metrics(Timeline(empty, empty.engine, empty.engine, cycles, "A"))


class FixedNetworks:
    """The same two-layer network in every arithmetic; only its accuracy differs. Picklable."""

    def get(self, numerics: Numerics) -> Network:
        return Network(small_graph(), {"sqnr_db": 15.0 if numerics.weight_bits == 4 else 30.0})


def small_graph() -> Graph:
    """Two gemm layers, 16 -> 24 -> 10, shapes only."""
    one = Quantization((1.0,))
    tensors = {
        name: Tensor(name, shape, "int8", one)
        for name, shape in {"x": (1, 16), "w1": (24, 16), "h": (1, 24), "w2": (10, 24), "y": (1, 10)}.items()
    }
    ops = (Op("first", "gemm", ("x", "w1"), ("h",)), Op("second", "gemm", ("h", "w2"), ("y",)))
    return Graph("small", tensors, ops, ("x", "w1", "w2"), ("y",))


def install(folder: Path) -> None:
    """Make `folder` hold the metadata of a distribution that registers the family as `analytic`."""
    info = folder / "analytic_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: analytic-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dse.backends]\nanalytic = analytic_family:AnalyticFamily\n")
