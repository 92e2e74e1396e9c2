"""The contracts are not systolic-only: a GPU grid and a spiking layer pass through the same path.

Throw-away sketches, kept until their families come: each is an Accelerator whose Executable gives values, a
TaskGraph, a Timeline at levels A and C, and Metrics with all their invariants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.backend import Accelerator, Capabilities, Decisions, HardwareCost, Knob, Numerics, RtlUnavailable
from dse.core.errors import UsageError, Violation
from dse.ir import Graph, Op, Tensor, loop_nest
from dse.metrics import LayerMetrics, Metrics
from dse.program.executable import Executable
from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim import simulate_a, simulate_c


def tasks(
    engines: Sequence[str],
    rows: Sequence[tuple[int, int, int]],
    waits: Sequence[tuple[int, int, int]] = (),
    signals: Sequence[tuple[int, int, int]] = (),
    semaphores: int = 1,
) -> TaskGraph:
    """A TaskGraph from (engine, issue, duration) rows."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    count = len(table)
    return TaskGraph(
        engines=tuple(engines),
        engine=table[:, 0],
        issue_cycles=table[:, 1],
        duration_cycles=table[:, 2],
        waits=np.array(waits, np.int64).reshape(-1, 3),
        signals=np.array(signals, np.int64).reshape(-1, 3),
        initial=np.zeros(semaphores, np.int64),
        layer=np.zeros(count, np.int64),
        kind=np.zeros(count, np.int64),
        kinds=("work",),
        resource=np.full(count, -1, np.int64),
        service_cycles=np.zeros(count, np.int64),
        resources=(),
        final_cycles=np.zeros(len(engines), np.int64),
    )


class _Sketch(Accelerator):
    capabilities = Capabilities(("A", "C"), exact=True, rtl=False, description="sketch")

    def space(self) -> tuple[Knob, ...]:
        return ()

    def decision_defaults(self) -> Mapping[str, Any]:
        return {}

    def check(self, hw: Any) -> Sequence[Violation]:
        return ()

    def cost(self, hw: Any) -> HardwareCost:
        return HardwareCost({"die": 1e6}, {"die": 1.0}, 2000.0)

    def rtl(self, hw: Any) -> RtlUnavailable:
        return RtlUnavailable("a sketch emits nothing")


class GpuHardware(BaseModel):
    sms: int = 4
    tile: int = 16
    macs_per_sm_cycle: int = 64


class GpuGemm(_Sketch):
    """Thread-block tiles dealt round robin to SMs; the K loop of a tile stays on its SM."""

    name = "gpu-sketch"
    hardware_model = GpuHardware

    def arch(self, hw: GpuHardware) -> Arch:
        return Arch(
            name=self.name,
            clock_mhz=1000,
            levels=(MemoryLevel(name="dram", word_bits=256, energy_class="dram"),
                    MemoryLevel(name="shared", word_bits=128, instances=hw.sms, capacity_bytes=65536)),
            axes=(SpatialAxis(name="sm", size=hw.sms, below="dram"),),
            compute=Compute(macs_per_cycle=hw.macs_per_sm_cycle),
        )  # fmt: skip

    def numerics(self, hw: GpuHardware) -> Numerics:
        return Numerics(8, 8, "ort")

    def lower(self, graph: Graph, hw: GpuHardware, decisions: Decisions) -> Executable:
        return _GpuExecutable(graph, hw)


class _GpuExecutable(Executable):
    def __init__(self, graph: Graph, hw: GpuHardware) -> None:
        self.graph, self.hw = graph, hw
        nest = loop_nest(graph, graph.ops[0])
        self.m, self.n, self.k = nest.bounds["N"], nest.bounds["M"], nest.bounds["C"]

    def _tiles(self) -> list[tuple[slice, slice]]:
        t = self.hw.tile
        return [
            (slice(i, min(i + t, self.m)), slice(j, min(j + t, self.n)))
            for i in range(0, self.m, t)
            for j in range(0, self.n, t)
        ]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        op = self.graph.ops[0]
        weight = self.graph[op.inputs[1]].data
        assert weight is not None
        out = np.zeros((self.m, self.n), np.int64)
        for rows, columns in self._tiles():
            out[rows, columns] = inputs[op.inputs[0]][rows].astype(np.int64) @ weight[columns].astype(np.int64).T
        return {op.outputs[0]: out}

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        cycles = -(-(self.hw.tile**2) * self.k // self.hw.macs_per_sm_cycle)
        rows = [(i % self.hw.sms, 20, cycles) for i in range(len(self._tiles()))]
        return tasks([f"sm{i}" for i in range(self.hw.sms)], rows)

    def metrics(self, timeline: Timeline) -> Metrics:
        executed = len(self._tiles()) * self.hw.tile**2 * self.k
        moved = self.m * self.k + self.n * self.k + self.m * self.n
        layer = LayerMetrics(
            "gemm", "gemm", timeline.total_cycles, self.m * self.n * self.k, executed, {"mac": float(executed)},
            moved, moved, {},
        )  # fmt: skip
        peak = float(self.hw.sms * self.hw.macs_per_sm_cycle)
        energy = {"mac": float(executed), "static": 1.0}
        return Metrics(
            timeline.level, timeline.total_cycles, 1000.0, energy, {"die": 1e6}, {"die": 1.0}, peak, (layer,)
        )

    def estimate(self) -> Metrics:
        return self.metrics(simulate_a(self.task_graph()))


class SpikingHardware(BaseModel):
    cores: int = 2
    threshold: int = 8


class SpikingLayer(_Sketch):
    """A dense spiking layer split over cores; time steps end in a barrier, work follows the spikes."""

    name = "spiking-sketch"
    hardware_model = SpikingHardware

    def arch(self, hw: SpikingHardware) -> Arch:
        return Arch(
            name=self.name,
            clock_mhz=100,
            levels=(MemoryLevel(name="synapses", word_bits=64, instances=hw.cores, capacity_bytes=4096),),
            axes=(SpatialAxis(name="core", size=hw.cores, below="synapses"),),
        )

    def numerics(self, hw: SpikingHardware) -> Numerics:
        return Numerics(8, 1, "q31")

    def lower(self, graph: Graph, hw: SpikingHardware, decisions: Decisions) -> Executable:
        return _SpikingExecutable(graph, hw)


class _SpikingExecutable(Executable):
    def __init__(self, graph: Graph, hw: SpikingHardware) -> None:
        self.graph, self.hw = graph, hw
        op = graph.ops[0]
        weight = graph[op.inputs[1]].data
        assert weight is not None
        self.weight = weight.astype(np.int64)
        self.input, self.output = op.inputs[0], op.outputs[0]
        self.steps = graph[self.input].shape[0]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        state = np.zeros(self.weight.shape[0], np.int64)
        spikes = []
        for frame in inputs[self.input]:
            state += self.weight @ frame.astype(np.int64)
            fired = state >= self.hw.threshold
            state[fired] -= self.hw.threshold
            spikes.append(fired)
        return {self.output: np.array(spikes, np.int8)}

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        if activity is None:
            raise UsageError("a spiking layer needs the number of spikes of every time step")
        cores, neurons = self.hw.cores, self.weight.shape[0] // self.hw.cores
        rows, waits, signals = [], [], []
        for step, spikes in enumerate(activity["spikes"]):
            for core in range(cores):
                index = len(rows)
                rows.append((core, 1, int(spikes) * neurons + neurons))
                for other in range(cores):
                    if other != core:
                        signals.append((index, other * cores + core, 1))
                        if step:
                            waits.append((index, core * cores + other, 1))
        return tasks([f"core{i}" for i in range(cores)], rows, waits, signals, cores * cores)

    def metrics(self, timeline: Timeline) -> Metrics:
        events = int((timeline.end - timeline.start).sum())
        layer = LayerMetrics("lif", "synapse", timeline.total_cycles, events, events, {"synapse": float(events)},
                             0, 0, {})  # fmt: skip
        energy = {"synapse": float(events), "static": 1.0}
        return Metrics(
            timeline.level,
            timeline.total_cycles,
            100.0,
            energy,
            {"die": 1e6},
            {"die": 1.0},
            float(self.hw.cores),
            (layer,),
        )

    def estimate(self) -> Metrics:
        return self.metrics(simulate_a(self.task_graph()))


def dense(rows: int, depth: int, outputs: int) -> Graph:
    """A graph of one gemm with seeded int8 weights."""
    weight = np.random.default_rng(1).integers(-4, 5, (outputs, depth)).astype(np.int8)
    tensors = {
        "x": Tensor("x", (rows, depth), "int8"),
        "w": Tensor("w", weight.shape, "int8", None, weight),
        "y": Tensor("y", (rows, outputs), "int8"),
    }
    return Graph("dense", tensors, (Op("fc", "gemm", ("x", "w"), ("y",)),), ("x",), ("y",))


def test_gpu_grid_fits_the_contracts() -> None:
    family = GpuGemm()
    graph, hw = dense(50, 30, 40), GpuHardware()
    executable = family.lower(graph, hw, Decisions())
    x = np.random.default_rng(0).integers(-128, 128, (50, 30)).astype(np.int8)
    weight = graph["w"].data
    assert weight is not None
    np.testing.assert_array_equal(executable.run({"x": x})["y"], x.astype(np.int64) @ weight.astype(np.int64).T)
    graph_view = executable.task_graph()
    a, c = simulate_a(graph_view), simulate_c(graph_view)
    assert a.total_cycles == c.total_cycles == 3 * (20 + 16 * 16 * 30 // 64)  # 12 tiles on 4 SMs: 3 waves
    assert executable.estimate().cycles == a.total_cycles
    assert family.arch(hw).peak_macs_per_cycle == 4 * 64
    assert isinstance(family.rtl(hw), RtlUnavailable)


def test_two_core_spiking_layer_fits_the_contracts() -> None:
    family = SpikingLayer()
    graph, hw = dense(6, 12, 8), SpikingHardware()
    executable = family.lower(graph, hw, Decisions())
    frames = (np.random.default_rng(2).random((6, 12)) < 0.3).astype(np.int8)
    assert executable.run({"x": frames})["y"].shape == (6, 8)
    with pytest.raises(UsageError, match="number of spikes"):
        executable.task_graph()
    busy = executable.task_graph({"spikes": frames.sum(axis=1)})
    idle = executable.task_graph({"spikes": np.zeros(6, np.int64)})
    a, c = simulate_a(busy), simulate_c(busy)
    np.testing.assert_array_equal(a.end, c.end)
    assert a.total_cycles > simulate_a(idle).total_cycles  # energy and time follow the spikes
    assert executable.metrics(a).useful_macs == int((a.end - a.start).sum())
