"""The NPU family's Executable: one program, its values, its time and its metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.npu.cost import energy, hardware_cost
from accelerators.npu.events import step_counts
from accelerators.npu.graph import KINDS, program_graph
from accelerators.npu.hardware import NpuHardware
from accelerators.npu.layer import ConvLayer, HostOp, LstmLayer
from accelerators.npu.lower import Lowered
from dse.backend import Decisions
from dse.ir import Graph, Op
from dse.metrics import LayerMetrics, Metrics, Traffic
from dse.program.taskgraph import TaskGraph, Timeline
from dse.program.tile.executable import TileExecutable
from dse.program.tile.memory_map import MemoryMap
from dse.program.tile.program import HostStep, TileProgram, TileStep
from dse.sim import simulate_a


class NpuExecutable(TileExecutable):
    """A compiled network on an NPU.

    Attributes
    ----------
    program, graph, hw, decisions
        The tile program and what it was compiled from and for.
    lowered
        Work items, tilings and encoded weights.
    """

    def __init__(self, graph: Graph, hw: NpuHardware, decisions: Decisions, lowered: Lowered) -> None:
        self.graph, self.hw, self.decisions, self.lowered = graph, hw, decisions, lowered
        self.program: TileProgram = lowered.program

    @property
    def memory_map(self) -> MemoryMap:
        return self.lowered.memory

    def owner(self, tensor: str) -> str:
        return self.lowered.parts.source[tensor]

    def host_op(self, step: HostStep) -> Op:
        item = self.lowered.work[step.layer]
        assert isinstance(item, HostOp)
        return item.op

    # -- time and metrics ------------------------------------------------------------------------------------

    @cached_property
    def _graph(self) -> TaskGraph:
        return program_graph(self.program, self.hw, self.lowered.encoded)

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        """The whole program as one TaskGraph (data-independent: `activity` is not used)."""
        return self._graph

    def estimate(self) -> Metrics:
        """Metrics by level A."""
        return self.metrics(simulate_a(self._graph))

    @cached_property
    def counts(self) -> dict[int, Counter[str]]:
        """Event counts of every work item by its number; host operations count their bytes only."""
        found: dict[int, Counter[str]] = {}
        for step in self.program.steps:
            if isinstance(step, TileStep):
                found |= step_counts(step, self.hw, self.program.machine, self.lowered.encoded)
            else:
                moved = step.read_bytes + step.write_bytes
                found[step.layer] = Counter(
                    feature_bytes=moved, feature_read_bytes=step.read_bytes, feature_write_bytes=step.write_bytes
                )
        return found

    def layer_ends(self, timeline: Timeline) -> npt.NDArray[np.int64]:
        """Cycle at which each work item has its last result in memory; the last one ends with the program."""
        graph = timeline.graph
        ends = np.zeros(len(self.lowered.work), np.int64)
        kinds = np.isin(graph.kind, [KINDS.index("store"), KINDS.index("host")])
        np.maximum.at(ends, graph.layer[kinds], timeline.end[kinds])
        ends = np.maximum.accumulate(ends)
        ends[-1] = timeline.total_cycles
        return ends

    def metrics(self, timeline: Timeline) -> Metrics:
        """Metrics of a timeline of this program's task graph."""
        ends = self.layer_ends(timeline)
        begins = np.concatenate([[0], ends[:-1]])
        cost = hardware_cost(self.hw)
        energies: Counter[str] = Counter()
        layers = []
        for index in range(len(self.lowered.work)):
            counts = self.counts.get(index, Counter())
            spent = energy(counts, self.hw)
            for name, value in spent.items():
                energies[name] += value  # type: ignore[assignment]
            layers.append(self._layer(index, int(begins[index]), int(ends[index]), counts, spent, timeline))
        seconds = timeline.total_cycles / (self.hw.clock_mhz * 1e6)
        static_pj = math.fsum(cost.static_mw.values()) * 1e-3 * seconds * 1e12
        return Metrics(
            level=timeline.level,
            cycles=timeline.total_cycles,
            clock_mhz=self.hw.clock_mhz,
            energy_pj={**dict(energies), "static": static_pj},
            area_um2=cost.area_um2,
            static_mw=cost.static_mw,
            peak_macs_per_cycle=self.hw.peak_macs_per_cycle,
            layers=tuple(layers),
        )

    def _layer(
        self, index: int, begin: int, end: int, counts: Counter[str], spent: Mapping[str, float], timeline: Timeline
    ) -> LayerMetrics:
        item, cycles = self.lowered.work[index], end - begin
        moved = counts["feature_bytes"] + counts["constant_bytes"]
        if isinstance(item, HostOp):
            bytes_moved = counts["feature_bytes"]
            return LayerMetrics(
                item.op.name, f"host {item.op.kind}", cycles, 0, 0, spent, moved, bytes_moved, {"host": float(cycles)}
            )
        tiling = self.lowered.tilings.get(index)
        return LayerMetrics(
            name=item.name,
            kind=item.kind,
            cycles=cycles,
            useful_macs=item.macs,
            executed_macs=max(counts["array_macs"], item.macs),
            energy_pj=spent,
            memory_bytes=moved,
            compulsory_bytes=self._compulsory(index, item),
            losses=self._losses(index, begin, end, item.macs, counts, timeline),
            traffic=_traffic(counts),
            mapping=tiling.describe() if tiling else f"loop over {getattr(item, 'steps', 1)} steps",
        )

    def _compulsory(self, index: int, item: ConvLayer | LstmLayer) -> int:
        """Bytes any schedule must move: touched inputs, encoded weights, outputs and residual once."""
        if isinstance(item, LstmLayer):
            outputs = item.hidden * item.batch * (item.steps * bool(item.output) + bool(item.last))
            return item.steps * item.batch * item.inputs_per_step + item.weights + outputs
        outputs = item.batch * item.out_height * item.out_width * item.out_channels
        weights = sum(self.lowered.encoded[address].bytes for address in self.lowered.weight_addresses[index])
        return item.touched_input_bytes() + weights + outputs * (2 if item.residual else 1)

    def _losses(
        self, index: int, begin: int, end: int, useful: int, counts: Counter[str], timeline: Timeline
    ) -> dict[str, float]:
        """Array cycles without useful MACs, by cause.

        padding: multipliers without work; fill_drain: a MATMUL beyond its products; feature_stall, weight_stall: the
        array waits for a load; dependency: it waits for anything else.
        """
        graph, peak = timeline.graph, self.hw.peak_macs_per_cycle
        mine = np.flatnonzero((graph.layer == index) & (graph.kind == KINDS.index("matmul")))
        start, stop = timeline.start[mine], timeline.end[mine]
        busy = int((stop - start).sum())
        executed = counts["array_macs"] / peak
        waited = np.maximum(start - np.concatenate([[begin], stop[:-1]]) - graph.issue_cycles[mine], 0)
        stalls = {}
        for name, kind in (("feature_stall", "load"), ("weight_stall", "weights")):
            loads = timeline.end[(graph.layer == index) & (graph.kind == KINDS.index(kind))]
            late = np.isin(start - 1, loads)
            stalls[name] = float(waited[late].sum())
            waited = np.where(late, 0, waited)
        losses = {"padding": executed - useful / peak, "fill_drain": busy - executed, **stalls}
        return losses | {"dependency": (end - begin) - useful / peak - math.fsum(losses.values())}


def _traffic(counts: Counter[str]) -> tuple[Traffic, ...]:
    return (
        Traffic("memory", "input", counts["feature_read_bytes"], 0, counts["feature_read_bytes"], 0),
        Traffic("memory", "weight", counts["constant_bytes"], 0, counts["constant_bytes"], 0),
        Traffic("memory", "output", 0, counts["feature_write_bytes"], 0, counts["feature_write_bytes"]),
    )
