"""The systolic family's Executable: one program, its values, its time and its metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from accelerators.systolic.cost import EventCounts, energy, hardware_cost
from accelerators.systolic.events import step_counts
from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.lower import Lowered
from accelerators.systolic.partition import HostOp
from accelerators.systolic.prefetch import TAKEN
from accelerators.systolic.timing_graph import program_graph, step_begins
from accelerators.systolic.work import Fused
from dse.backend import Decisions
from dse.ir import Graph, Op
from dse.metrics import LayerMetrics, Metrics, Traffic
from dse.program.taskgraph import TaskGraph, Timeline
from dse.program.tile.executable import TileExecutable
from dse.program.tile.memory_map import MemoryMap
from dse.program.tile.program import HostStep, TileProgram, TileStep
from dse.sim import simulate_a

_MEMORIES = ("activation", "weight", "accumulator", "output", "residual", "parameter")


class SystolicExecutable(TileExecutable):
    """A compiled network on a systolic design.

    Attributes
    ----------
    program
        The tile program that is timed, executed and run on the RTL.
    graph, hw, decisions
        What it was compiled from and for.
    work, grids
        Layers, fused groups and host operations in order, and the tile grid of each layer on its own.
    """

    def __init__(self, graph: Graph, hw: SystolicHardware, decisions: Decisions, lowered: Lowered) -> None:
        self.graph, self.hw, self.decisions = graph, hw, decisions
        self._lowered = lowered
        self.program: TileProgram = lowered.program
        self.work = lowered.work
        self.grids = lowered.grids

    @property
    def memory_map(self) -> MemoryMap:
        return self._lowered.memory

    def owner(self, tensor: str) -> str:
        return self._lowered.parts.source[tensor]

    def host_op(self, step: HostStep) -> Op:
        item = self.work[step.layer]
        assert isinstance(item, HostOp)
        return item.op

    # -- time and metrics ------------------------------------------------------------------------------------

    @cached_property
    def _graph(self) -> TaskGraph:
        return program_graph(self.program)

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        """The whole program as one TaskGraph (data-independent: `activity` is not used)."""
        return self._graph

    def estimate(self) -> Metrics:
        """Metrics by level A."""
        return self.metrics(simulate_a(self._graph))

    @cached_property
    def counts(self) -> tuple[Counter[str], ...]:
        """Event counts of every step; host steps count their bytes only."""
        result = []
        for step in self.program.steps:
            if isinstance(step, TileStep):
                result.append(step_counts(step, self.program.machine))
            else:
                port = self.program.machine.memory_bytes_per_cycle
                read, write = -(-step.read_bytes // port) * port, -(-step.write_bytes // port) * port
                result.append(Counter({"memory_read_bytes": read, "memory_write_bytes": write}))
        return tuple(result)

    def metrics(self, timeline: Timeline) -> Metrics:
        """Metrics of a timeline of this program's task graph."""
        begins = step_begins(self.program, timeline.graph, timeline.start, timeline.total_cycles)
        cost = hardware_cost(self.hw)
        layers = []
        energies: Counter[str] = Counter()
        for index, counts in enumerate(self.counts):
            spent = energy(event_counts(counts), self.hw)
            for name, value in spent.items():
                energies[name] += value  # type: ignore[assignment]
            cycles = int(begins[index + 1] - begins[index])
            layers.append(self._layer_metrics(index, cycles, int(begins[index]), counts, spent, timeline))
        seconds = timeline.total_cycles / (self.hw.clock_mhz * 1e6)
        static_pj = math.fsum(cost.static_mw.values()) * 1e-3 * seconds * 1e12
        return Metrics(
            level=timeline.level,
            cycles=timeline.total_cycles,
            clock_mhz=self.hw.clock_mhz,
            energy_pj={**dict(energies), "static": static_pj},
            area_um2=cost.area_um2,
            static_mw=cost.static_mw,
            peak_macs_per_cycle=float(self.hw.pes),
            layers=tuple(layers),
        )

    def _layer_metrics(
        self,
        index: int,
        cycles: int,
        begin: int,
        counts: Counter[str],
        spent: Mapping[str, float],
        timeline: Timeline,
    ) -> LayerMetrics:
        step, item = self.program.steps[index], self.work[index]
        moved = counts["memory_read_bytes"] + counts["memory_write_bytes"]
        if not isinstance(step, TileStep):
            return LayerMetrics(
                step.name, f"host {step.kind}", cycles, 0, 0, spent, moved, step.read_bytes + step.write_bytes,
                {"host": float(cycles)},
            )  # fmt: skip
        assert not isinstance(item, HostOp)
        layers = item.group.layers if isinstance(item, Fused) else (item,)
        kinds = [layer.op.kind + ("+add" if layer.add else "") for layer in layers]
        whole = item.group if isinstance(item, Fused) else item
        return LayerMetrics(
            name=step.name,
            kind=", ".join(kinds),
            cycles=cycles,
            useful_macs=step.useful_macs,
            executed_macs=counts["macs_executed"],
            energy_pj=spent,
            memory_bytes=moved,
            # what the step before has loaded for this one stands in that step's bytes
            compulsory_bytes=max(0, whole.compulsory_bytes(self.hw.weight_bits) - int(step.notes.get(TAKEN, 0))),
            losses=self._losses(index, cycles, begin, step.useful_macs, counts["macs_executed"], timeline),
            traffic=self._traffic(counts),
            mapping=str(step.notes.get("mapping", "")),
        )

    def _losses(
        self, index: int, cycles: int, begin: int, useful: int, executed: int, timeline: Timeline
    ) -> dict[str, float]:
        """Array cycles without useful MACs, by cause.

        padding: MACs on padded lanes; fill_drain: array busy beyond its MACs; memory_stall: matmul waits for a
        load; dependency: it waits for anything else; sequencing: descriptor issue, start and halt.
        """
        graph = timeline.graph
        mine = (graph.layer == index) & (graph.engine == graph.engines.index("matmul"))
        real = np.flatnonzero(mine & (graph.kind == graph.kinds.index("matmul")))
        if not len(real):
            return {"vector": float(cycles)}
        start, end = timeline.start[real], timeline.end[real]
        busy = int((end - start).sum())
        peak = float(self.hw.pes)
        loads = timeline.end[(graph.layer == index) & (graph.kind == graph.kinds.index("load"))]
        previous = np.concatenate([[begin], end[:-1]])
        issue = graph.issue_cycles[real]
        waited = np.maximum(start - previous - issue, 0)
        by_load = np.isin(start - 1, loads)
        memory = int(waited[by_load].sum())
        tail = begin + cycles - int(end[-1])
        issued = int(np.minimum(issue, start - previous).sum())
        return {
            "padding": (executed - useful) / peak,
            "fill_drain": busy - executed / peak,
            "memory_stall": float(memory),
            "dependency": float(int(waited.sum()) - memory + tail),
            "sequencing": float(issued),
        }

    def _traffic(self, counts: Counter[str]) -> tuple[Traffic, ...]:
        machine = self.program.machine
        from dse.program.tile.isa import MemoryId

        rows = []
        for name in _MEMORIES:
            width = machine.word_bytes[MemoryId[name.upper()]]
            reads, writes = counts[f"{name}_reads"], counts[f"{name}_writes"]
            role = {"activation": "input", "accumulator": "partial_sum"}.get(name, name)
            rows.append(Traffic(name, role, reads, writes, reads * width, writes * width))
        port = machine.memory_bytes_per_cycle
        for role in ("input", "weight", "parameter", "residual", "output"):
            moved = counts[f"memory_bytes:{role}"]
            beats = moved // port
            reads, writes = (0, beats) if role == "output" else (beats, 0)
            rows.append(Traffic("memory", role, reads, writes, reads * port, writes * port))
        return tuple(rows)


def event_counts(counts: Mapping[str, int]) -> EventCounts:
    """Counts by name as the cost model's record; per-role byte counts are left out."""
    return EventCounts(**{name: value for name, value in counts.items() if ":" not in name})
