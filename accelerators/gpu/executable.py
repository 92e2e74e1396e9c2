"""A network compiled for a GPU: its values tile by tile, its time, energy and losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.gpu.area import area_mm2
from accelerators.gpu.bands import Band, band, joint_percent
from accelerators.gpu.gemm_kernel import IntArray
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.kernels import Kernel
from accelerators.gpu.losses import losses_of
from accelerators.gpu.power import static_watts
from accelerators.gpu.tasks import LEAST_LAUNCH_CYCLES, kernel_begins, wave_tasks
from accelerators.gpu.timing import KernelTimes, Settings, class_key, time_kernels
from accelerators.gpu.values import run_kernels
from dse.ir import Graph
from dse.metrics import LayerMetrics, Metrics
from dse.program.executable import Executable
from dse.program.taskgraph import TaskGraph, Timeline


class GpuExecutable(Executable):
    """A sequence of kernels.

    Attributes
    ----------
    graph, hw, settings, batch
        What it was compiled from and for; `batch` inputs run at once.
    kernels, times
        The kernels in order, and what each takes.
    """

    def __init__(self, graph: Graph, hw: GpuHardware, settings: Settings, kernels: list[Kernel], batch: int) -> None:
        self.graph, self.hw, self.settings, self.batch = graph, hw, settings, batch
        self.kernels = kernels
        self.times: KernelTimes = time_kernels(hw, kernels, settings)

    # -- values ----------------------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name from inputs by name, any leading dimension; operands are rounded to the kernels' type.

        Products and convolutions run as the grids of tiles that are timed, other kernels as the reference does.

        Raises
        ------
        ModelError: an input is missing or misshapen, or a constant has no data.
        """
        return run_kernels(self.graph, self.kernels, self.times, self.settings.dtype, inputs)

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def peak_macs_per_cycle(self) -> float:
        """Of the type it runs in, or of the fp32 lanes where those are faster."""
        return self.hw.sms * max(self.hw.operations_clk_sm(self.settings.dtype), self.hw.rates.fp32) / 2

    @cached_property
    def cycles(self) -> IntArray:
        """Cycles of every kernel at the boost clock, launch included: int64 (kernels,)."""
        least = np.maximum(self.times.flops / 2, self.times.useful_macs) / self.peak_macs_per_cycle
        asked = np.maximum(self.times.observed_s * self.hw.clock_hz, least + LEAST_LAUNCH_CYCLES)
        return np.ceil(asked - 1e-6).astype(np.int64)

    @cached_property
    def sm_cycles(self) -> IntArray:
        """The part of `cycles` in which SMs work: int64 (kernels,)."""
        busy = np.rint(self.times.kernel_s * self.hw.clock_hz).astype(np.int64)
        return np.maximum(1, np.minimum(busy, self.cycles - LEAST_LAUNCH_CYCLES))

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        """Launches on engine `front end`, waves of thread blocks on an engine an SM; `activity` is not used."""
        return wave_tasks(self.cycles, self.sm_cycles, self.times.grid, self.hw.sms)

    def estimate(self) -> Metrics:
        """Metrics in closed form: kernels one after the other."""
        return self._metrics("A", self.cycles)

    def metrics(self, timeline: Timeline) -> Metrics:
        """Metrics of a simulated timeline of `task_graph`."""
        begins = kernel_begins(timeline, len(self.kernels))
        return self._metrics(timeline.level, np.diff(begins))

    # -- error -----------------------------------------------------------------------------------------------

    @cached_property
    def bands(self) -> list[Band | None]:
        """The error to expect of every kernel's time."""
        keys = [class_key(kernel) for kernel in self.kernels]
        found = {key: band(self.hw, key, self.settings.dtype) for key in set(keys)}
        return [found[key] for key in keys]

    def _metrics(self, level: str, cycles: IntArray) -> Metrics:
        energy = {name: joules * 1e12 for name, joules in self.times.energy_j.items()}
        useful = np.floor(self.times.useful_macs + 1e-9).astype(np.int64)
        executed = np.maximum(np.floor(self.times.flops / 2).astype(np.int64), useful)
        executed = np.where(useful > 0, executed, 0)
        lost = losses_of(self.hw, self.times, useful, executed, cycles, self.peak_macs_per_cycle)
        layers = tuple(
            self._layer(index, int(cycles[index]), int(useful[index]), int(executed[index]),
                        {name: float(values[index]) for name, values in energy.items()}, lost[index])
            for index in range(len(self.kernels))
        )  # fmt: skip
        total = int(cycles.sum())
        static = static_watts(self.hw)
        accuracy = {}
        expected = joint_percent([float(x) for x in self.times.observed_s], self.bands)
        if expected is not None:
            accuracy["latency_error_percent"] = round(expected, 2)
        return Metrics(
            level=level,
            cycles=total,
            clock_mhz=self.hw.clock_mhz,
            energy_pj={
                **{name: math.fsum(values) for name, values in energy.items()},
                "static": static * total / self.hw.clock_hz * 1e12,
            },
            area_um2={name: value * 1e6 for name, value in area_mm2(self.hw).items()},
            static_mw={"board": static * 1e3},
            peak_macs_per_cycle=self.peak_macs_per_cycle,
            layers=layers,
            accuracy=accuracy,
        )

    def _layer(
        self,
        index: int,
        cycles: int,
        useful: int,
        executed: int,
        energy: Mapping[str, float],
        lost: Mapping[str, float],
    ) -> LayerMetrics:
        kernel, times = self.kernels[index], self.times
        return LayerMetrics(
            name=kernel.name,
            kind=kernel.label,
            cycles=cycles,
            useful_macs=useful,
            executed_macs=executed,
            energy_pj=energy,
            memory_bytes=math.ceil(times.dram_bytes[index]),
            compulsory_bytes=int(times.least_bytes[index]),
            losses=lost,
            mapping=self._mapping(index),
        )

    def _mapping(self, index: int) -> str:
        """Algorithm, tile, split-K and expected error of a kernel, for tables."""
        rows, columns, _, split, _, _ = self.times.grid[index]
        parts = [self.times.algorithm[index]]
        if rows:
            parts.append(f"{rows:.0f}x{columns:.0f}" + (f" split {split:.0f}" if split > 1 else ""))
        expected = self.bands[index]
        if expected is not None:
            parts.append(f"+-{expected.percent:.0f} %")
        return " ".join(parts)
