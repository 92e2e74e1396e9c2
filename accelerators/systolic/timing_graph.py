"""The TaskGraph of a tile program: executed descriptors as tasks, semaphores, steps chained one after the other.

Inside a step the tasks and cycle counts are those of the hardware (engine timings of `dse.program.tile` and of the
array). Between steps the host restarts the machine: a task of the `host` engine waits for every queue to halt and
releases the next step, `RESTART_CYCLES` after `done`. Host operations are tasks of the host that move
their bytes through the memory port.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.systolic.timing import matmul_cycles
from dse.program.taskgraph import TaskGraph
from dse.program.tile.expand import expand
from dse.program.tile.isa import ENGINES, SEMAPHORES, Descriptor, Opcode
from dse.program.tile.isa_element import ELEMENT_UNIT
from dse.program.tile.program import HostStep, Machine, TileProgram, TileStep
from dse.program.tile.timing import (
    FINAL_CYCLES,
    FIRST_ISSUE_CYCLES,
    ISSUE_CYCLES,
    LOOP_CYCLES,
    SYNC_CYCLES,
    load_cycles,
    store_cycles,
)
from dse.program.tile.timing_element import element_cycles
from dse.program.tile.timing_vector import vector_cycles

IntArray = npt.NDArray[np.int64]

HOST = len(ENGINES)
KINDS = ("sync", "load", "store", "matmul", "vector", "host", "restart")
_KIND = {Opcode.SYNC: 0, Opcode.LOAD: 1, Opcode.STORE: 2, Opcode.MATMUL: 3, Opcode.VECTOR: 4, Opcode.FORWARD: 4,
         **dict.fromkeys(ELEMENT_UNIT, 4)}  # fmt: skip
#: From `done` of a step to cycle 0 of the next: the host sees done and raises start.
RESTART_CYCLES = 2


@dataclass
class _Tables:
    """Task columns under construction, one array per step and engine."""

    engine: list[IntArray]
    issue: list[IntArray]
    duration: list[IntArray]
    layer: list[IntArray]
    kind: list[IntArray]
    resource: list[IntArray]
    service: list[IntArray]
    waits: list[IntArray]
    signals: list[IntArray]
    count: int = 0

    def add(self, engine: int, issue: IntArray, duration: IntArray, layer: int, kind: IntArray,
            resource: IntArray, service: IntArray) -> int:  # fmt: skip
        """Append tasks of one engine; returns the index of the first."""
        first, size = self.count, len(issue)
        self.engine.append(np.full(size, engine, np.int64))
        self.issue.append(issue)
        self.duration.append(duration)
        self.layer.append(np.full(size, layer, np.int64))
        self.kind.append(kind)
        self.resource.append(resource)
        self.service.append(service)
        self.count += size
        return first


def durations(queue: Sequence[Descriptor], machine: Machine) -> tuple[IntArray, IntArray]:
    """Duration and memory-port beats of every descriptor of a queue (0 for LOOP and HALT)."""
    cycles = np.zeros(len(queue), np.int64)
    beats = np.zeros(len(queue), np.int64)
    for i, d in enumerate(queue):
        if d.op == Opcode.SYNC:
            cycles[i] = SYNC_CYCLES
        elif d.op in (Opcode.LOAD, Opcode.STORE):
            runs = d["n0"] * d["n1"] * d["n2"]
            per_run = -(-d["run_bytes"] // machine.memory_bytes_per_cycle)
            beats[i] = runs * per_run
            function = load_cycles if d.op == Opcode.LOAD else store_cycles
            cycles[i] = function(runs, per_run, machine)
        elif d.op == Opcode.MATMUL:
            folds = d["n_rows"] * d["n_columns"] * d["n_channels"]
            cycles[i] = matmul_cycles(
                np.int64(d["n_blocks"]), np.int64(folds), np.int64(d["height"] * d["width"]), machine
            )
        elif d.op == Opcode.VECTOR:
            cycles[i] = vector_cycles(np.int64(d["n_blocks"]), np.int64(d["rows_count"]), machine)
        elif d.op == Opcode.FORWARD:
            # the same pipeline as VECTOR, another write port behind it
            cycles[i] = vector_cycles(np.int64(d["n_blocks"]), np.int64(d["height"] * d["width"]), machine)
        elif d.op in ELEMENT_UNIT:
            cycles[i] = element_cycles(d, machine)
    return cycles, beats


def program_graph(program: TileProgram) -> TaskGraph:
    """The whole program as one TaskGraph; a program of one step has exactly the hardware's cycles."""
    tables = _Tables([], [], [], [], [], [], [], [], [])
    semaphores = 0
    previous: TileStep | HostStep | None = None
    for index, step in enumerate(program.steps):
        halted = released = None
        if isinstance(previous, TileStep):
            halted, semaphores = semaphores, semaphores + len(ENGINES)
            _halt(tables, index - 1, halted)
        if isinstance(step, TileStep):
            if previous is not None:
                released, semaphores = semaphores, semaphores + len(ENGINES)
                _release(tables, index - 1, halted, released)
            _tile_step(tables, step, index, semaphores, program.machine, released)
            semaphores += SEMAPHORES
        else:
            _host_step(tables, step, index, program.machine, halted)
        previous = step
    final = np.array([FINAL_CYCLES if isinstance(previous, TileStep) else 0] * len(ENGINES) + [0], np.int64)
    return TaskGraph(
        engines=(*ENGINES, "host"),
        engine=_join(tables.engine),
        issue_cycles=_join(tables.issue),
        duration_cycles=_join(tables.duration),
        waits=_join(tables.waits, 3),
        signals=_join(tables.signals, 3),
        initial=np.zeros(max(semaphores, 1), np.int64),
        layer=_join(tables.layer),
        kind=_join(tables.kind),
        kinds=KINDS,
        resource=_join(tables.resource),
        service_cycles=_join(tables.service),
        resources=("memory_read", "memory_write"),
        final_cycles=final,
    )


def step_begins(program: TileProgram, graph: TaskGraph, start: IntArray, total: int) -> IntArray:
    """Cycle in which each step begins, and the total behind them: int64, shape (steps + 1,)."""
    begins = np.zeros(len(program.steps) + 1, np.int64)
    begins[-1] = total
    for index, step in enumerate(program.steps):
        if index == 0:
            continue
        mine = np.flatnonzero(graph.layer == index)
        kind = 6 if isinstance(step, TileStep) else 5
        engine = 0 if isinstance(step, TileStep) else HOST
        # the first task of the engine in this step: the start pulse, or the host operation
        begins[index] = start[mine[(graph.kind[mine] == kind) & (graph.engine[mine] == engine)][0]]
    return begins


def _join(parts: list[IntArray], width: int | None = None) -> IntArray:
    if not parts:
        return np.zeros((0, width) if width else 0, np.int64)
    return np.concatenate(parts).astype(np.int64)


def _one(value: int) -> IntArray:
    return np.array([value], np.int64)


def _tile_step(tables: _Tables, step: TileStep, layer: int, base: int, machine: Machine, released: int | None) -> None:
    for number, engine in enumerate(ENGINES):
        queue = step.queues[engine]
        if released is not None:
            # stands for the start pulse: it ends in the step's cycle 0
            first = tables.add(number, _one(0), _one(0), layer, _one(6), _one(-1), _one(0))
            tables.waits.append(np.array([[first, released + number, 1]], np.int64))
        expanded = expand(queue)
        cycles, beats = durations(queue, machine)
        index = expanded.descriptor
        issue = ISSUE_CYCLES + LOOP_CYCLES * expanded.loops_before
        if len(issue):
            issue[0] += FIRST_ISSUE_CYCLES - ISSUE_CYCLES
        kinds = np.array([_KIND.get(d.op, 0) for d in queue], np.int64)[index]
        port = np.array([{Opcode.LOAD: 0, Opcode.STORE: 1}.get(d.op, -1) for d in queue], np.int64)[index]
        first = tables.add(number, issue, cycles[index], layer, kinds, port, beats[index])
        for table, verb in ((tables.waits, "wait"), (tables.signals, "signal")):
            for slot in range(3):
                ids = np.array([d[f"{verb}{slot}_id"] for d in queue], np.int64)[index]
                amounts = np.array([d[f"{verb}{slot}_amount"] for d in queue], np.int64)[index]
                used = np.flatnonzero(amounts)
                table.append(np.stack([first + used, base + ids[used], amounts[used]], axis=1))


def _halt(tables: _Tables, layer: int, halted: int) -> None:
    """Every queue of the finished step reports to the host."""
    for number in range(len(ENGINES)):
        task = tables.add(number, _one(FINAL_CYCLES), _one(0), layer, _one(6), _one(-1), _one(0))
        tables.signals.append(np.array([[task, halted + number, 1]], np.int64))


def _release(tables: _Tables, layer: int, halted: int | None, released: int) -> None:
    """The host starts the next tile step: its host operation ends, or a restart task follows the halt."""
    task = tables.count - 1
    if halted is not None:
        task = tables.add(HOST, _one(0), _one(0), layer, _one(6), _one(-1), _one(0))
        tables.waits.append(np.array([[task, halted + number, 1] for number in range(len(ENGINES))], np.int64))
    tables.signals.append(np.array([[task, released + number, 1] for number in range(len(ENGINES))], np.int64))


def _host_step(tables: _Tables, step: HostStep, layer: int, machine: Machine, halted: int | None) -> None:
    """A host op takes the time its bytes need through the memory port, plus one latency each way."""
    port = machine.memory_bytes_per_cycle
    cycles = -(-step.read_bytes // port) + -(-step.write_bytes // port) + 2 * machine.memory_latency_cycles
    task = tables.add(HOST, _one(0), _one(cycles), layer, _one(5), _one(-1), _one(0))
    if halted is not None:
        tables.waits.append(np.array([[task, halted + number, 1] for number in range(len(ENGINES))], np.int64))


__all__ = ["HOST", "KINDS", "RESTART_CYCLES", "durations", "program_graph", "step_begins"]
