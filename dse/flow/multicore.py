"""One network on several cores that share memory channels, or on one core behind a DRAM part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dse.compiler import prepare, require_activation_bits
from dse.core.errors import UsageError, nearest
from dse.flow.accelerator import Design
from dse.flow.simulate import SIMULATORS, offered_levels
from dse.ir import Graph
from dse.program.taskgraph import Arbitration, TaskGraph, Timeline
from dse.sim import simulate_a
from dse.sim.contention import engine_losses
from dse.sim.dram_channel import dram_arbitration, on_dram
from dse.sim.dram_parts import dram_part
from dse.sim.multicore import Channels, batch_parallel, layer_parallel

#: How a network is split over cores, with what each way means.
SPLITS = {
    "batch": "every core runs the whole network, each on an input of its own",
    "layers": "every core runs a stretch of layers, inputs pass from core to core",
}
#: Beats of the port that one user gets in a row before the channel looks for another.
CHUNK_BEATS = 64


@dataclass(frozen=True)
class MultiCoreResult:
    """What cores and channels did: `timeline` names engines "core0.load" and so on.

    `single_cycles` are those of one core alone on one channel, by the same level.
    """

    cores: int
    split: str
    inputs: int
    single_cycles: int
    clock_mhz: float
    timeline: Timeline

    @property
    def inputs_per_second(self) -> float:
        return self.inputs * self.clock_mhz * 1e6 / self.timeline.total_cycles

    @property
    def speedup(self) -> float:
        """Inputs per time over those of one core alone."""
        return self.inputs * self.single_cycles / self.timeline.total_cycles

    def losses(self, core: int) -> dict[str, dict[str, int]]:
        """Cycles by cause of each engine of a core (`dse.sim.contention`)."""
        names = [name for name in self.timeline.graph.engines if name.startswith(f"core{core}.")]
        return {name: engine_losses(self.timeline, name) for name in names}

    def channel_busy(self) -> dict[str, float]:
        """Share of the run in which each channel served, switches included."""
        service, graph = self.timeline.service, self.timeline.graph
        if service is None:
            raise UsageError(f"level {self.timeline.level} does not model sharing; use B or C")
        busy = np.bincount(service[:, 0], service[:, 3] - service[:, 2], len(graph.resources))
        return dict(zip(graph.resources, (busy / max(self.timeline.total_cycles, 1)).tolist(), strict=True))


def simulate_cores(graph: Graph, design: Design, cores: int, *, split: str = "batch", inputs: int | None = None,
                   channels: int = 1, dram: str | None = None, level: str = "B") -> MultiCoreResult:  # fmt: skip
    """`graph` on `cores` copies of `design` that share `channels` memory channels.

    All reads and writes of a core go through one channel, in pieces of `CHUNK_BEATS` beats, oldest request first.

    Parameters
    ----------
    split
        A key of `SPLITS`.
    inputs
        "batch": must be `cores`; "layers": inputs that pass through (four times `cores` by default).
    dram
        A part (`dse.sim.dram_parts`) whose service times the channels have; None: the port's bandwidth.
    level
        "B" or "C".

    Raises
    ------
    UsageError: a choice that does not exist, or fewer layers than cores.
    InfeasibleError, ModelError: as `simulate`.
    """
    if split not in SPLITS:
        raise UsageError(f"{split!r} is no split over cores{nearest(split, SPLITS)}")
    levels = [item for item in offered_levels(design) if item != "A"]
    if level not in levels:
        raise UsageError(f"level {level!r} does not model shared channels{nearest(level, levels)}")
    if split == "batch" and inputs not in (None, cores):
        raise UsageError(f"{inputs} inputs for {cores} cores; split 'batch' runs one on each")
    design.require_buildable()
    prepared = prepare(graph)
    require_activation_bits(prepared, design.family.numerics(design.hw).activation_bits, design.family.name)
    executable = design.family.lower(prepared, design.hw, design.decisions)
    program, clock_mhz = executable.task_graph(), executable.estimate().clock_mhz
    rule = Arbitration("fifo", CHUNK_BEATS)
    if dram is not None:
        part = dram_part(dram)
        writing = [name for name in program.resources if "write" in name]
        program = on_dram(program, part, port_bytes=_port_bytes(design), clock_mhz=clock_mhz, writes=writing)
        rule = dram_arbitration(part, clock_mhz)
    shared = Channels(dict.fromkeys(program.resources, "memory"), channels, rule)
    run = SIMULATORS[level]
    single = run(batch_parallel(program, 1, Channels(shared.merge, 1, rule))).total_cycles
    if split == "batch":
        return MultiCoreResult(cores, split, cores, single, clock_mhz, run(batch_parallel(program, cores, shared)))
    count = 4 * cores if inputs is None else inputs
    timeline = run(layer_parallel(program, balanced_stages(program, cores), count, shared))
    return MultiCoreResult(cores, split, count, single, clock_mhz, timeline)


def _port_bytes(design: Design) -> int:
    """Bytes a cycle of the outermost memory's read port."""
    memory = design.family.arch(design.hw).levels[0]
    if memory.read_words_per_cycle is None:
        raise UsageError(f"{design.family.name}: its memory port has no bandwidth that a DRAM part could replace")
    return max(1, round(memory.word_bits / 8 * memory.read_words_per_cycle))


def balanced_stages(program: TaskGraph, cores: int) -> list[int]:
    """A core for each layer: stretches in order whose longest is as short as can be, by the layers' times at level A.

    Raises
    ------
    UsageError: fewer layers than cores.
    """
    timeline = simulate_a(program)
    layers = int(program.layer.max(initial=-1)) + 1
    if not 1 <= cores <= layers:
        raise UsageError(f"{cores} cores for a program of {layers} layers; 1 to {layers} are possible")
    ends = np.zeros(layers, np.int64)
    np.maximum.at(ends, program.layer, timeline.end)
    cycles = np.diff(np.maximum.accumulate(ends), prepend=0)
    total = np.concatenate([[0], np.cumsum(cycles)])
    # best[k][n]: least longest stretch of the first n layers on k cores, and where the last stretch begins
    best = [[0.0] + [float("inf")] * layers]
    begins: list[list[int]] = []
    for _ in range(cores):
        row, begin = [float("inf")] * (layers + 1), [0] * (layers + 1)
        for end in range(1, layers + 1):
            for first in range(end):
                longest = max(best[-1][first], float(total[end] - total[first]))
                if longest < row[end]:
                    row[end], begin[end] = longest, first
        best.append(row)
        begins.append(begin)
    stages, end = [0] * layers, layers
    for core in reversed(range(cores)):
        first = begins[core][end]
        stages[first:end] = [core] * (end - first)
        end = first
    return stages
