"""The timing view of a program: its descriptors as tasks, the load queue split by DMA channel.

With two channels constants (weights, parameters, tables) have a queue of their own beside that of feature maps: both
keep their order, and the semaphores that they share with other engines are disjoint. Steps follow each other as on the
systolic machine: the host restarts the hardware; host operations take the time of their bytes on the feature port.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelerators.npu.hardware import NpuHardware
from accelerators.npu.timing import constant_cycles, cycles, is_constant, load_bytes
from accelerators.npu.weights import Stream
from dse.program.taskgraph import TaskGraph
from dse.program.tile.expand import Expanded, effective, expand
from dse.program.tile.isa import ENGINES, SEMAPHORES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import HostStep, Machine, TileProgram, TileStep
from dse.program.tile.timing import FINAL_CYCLES, ISSUE_CYCLES, LOOP_CYCLES

IntArray = npt.NDArray[np.int64]

KINDS = ("sync", "load", "weights", "store", "matmul", "vector", "host", "restart")
#: From done of a step to cycle 0 of the next: the host sees done and raises start.
RESTART_CYCLES = 2


def engine_names(hw: NpuHardware) -> tuple[str, ...]:
    """Engines of the task graph: those of the program, a second DMA channel if there is one, the host."""
    return (*ENGINES, *(("constants",) if hw.dma_channels == 2 else ()), "host")


class _Builder:
    """Columns of a TaskGraph under construction."""

    def __init__(self, hw: NpuHardware, machine: Machine) -> None:
        self.hw, self.machine = hw, machine
        self.engines = engine_names(hw)
        self.columns: dict[str, list[IntArray]] = {
            name: [] for name in ("engine", "issue", "duration", "layer", "kind", "resource", "service")
        }
        self.waits: list[IntArray] = []
        self.signals: list[IntArray] = []
        self.count = 0
        self.semaphores = 0

    def add(self, engine: int, **columns: IntArray | int) -> int:
        """Tasks of one engine, columns that broadcast to (tasks,); the index of the first."""
        size = max(np.size(value) for value in columns.values())
        defaults: dict[str, IntArray | int] = {"resource": -1, "service": 0, "issue": 0, "duration": 0}
        for name, value in {**defaults, "engine": engine, **columns}.items():
            self.columns[name].append(np.broadcast_to(np.asarray(value, np.int64), (size,)))
        first, self.count = self.count, self.count + size
        return first

    def meet(self, table: list[IntArray], task: int, semaphore: int) -> None:
        """One count of a semaphore, waited for or signalled."""
        table.append(np.array([[task, semaphore, 1]], np.int64))

    def fresh(self, count: int) -> int:
        first, self.semaphores = self.semaphores, self.semaphores + count
        return first


def program_graph(program: TileProgram, hw: NpuHardware, encoded: Mapping[int, Stream]) -> TaskGraph:
    """The whole program as one TaskGraph; `encoded` are the streams of weight tiles by address."""
    b = _Builder(hw, program.machine)
    host = b.engines.index("host")
    count = len(b.engines) - 1
    previous: TileStep | HostStep | None = None
    for step in program.steps:
        halted = released = -1
        if isinstance(previous, TileStep):
            halted = b.fresh(count)
            for engine in range(count):
                task = b.add(engine, issue=FINAL_CYCLES, layer=step.layer, kind=KINDS.index("restart"))
                b.meet(b.signals, task, halted + engine)
        duration, kind = 0, KINDS.index("restart")
        if isinstance(step, HostStep):
            port = hw.feature_bytes_per_cycle
            duration = -(-step.read_bytes // port) - (-step.write_bytes // port) + 2 * hw.feature_latency_cycles
            kind = KINDS.index("host")
        if previous is not None or isinstance(step, HostStep):
            task = b.add(host, duration=duration, layer=step.layer, kind=kind)
            for engine in range(count if halted >= 0 else 0):
                b.meet(b.waits, task, halted + engine)
            if isinstance(step, TileStep):
                released = b.fresh(count)
                for engine in range(count):
                    b.meet(b.signals, task, released + engine)
                    first = b.add(engine, layer=step.layer, kind=KINDS.index("restart"))
                    b.meet(b.waits, first, released + engine)
        if isinstance(step, TileStep):
            _tile_step(b, step, encoded)
        previous = step
    final = np.array([FINAL_CYCLES if isinstance(previous, TileStep) else 0] * count + [0], np.int64)
    return TaskGraph(
        engines=b.engines,
        engine=_join(b.columns["engine"]), issue_cycles=_join(b.columns["issue"]),
        duration_cycles=_join(b.columns["duration"]), waits=_join(b.waits, 3), signals=_join(b.signals, 3),
        initial=np.zeros(max(b.semaphores, 1), np.int64), layer=_join(b.columns["layer"]),
        kind=_join(b.columns["kind"]), kinds=KINDS, resource=_join(b.columns["resource"]),
        service_cycles=_join(b.columns["service"]), resources=("feature_read", "feature_write", "constant_read"),
        final_cycles=final,
    )  # fmt: skip


def _tile_step(b: _Builder, step: TileStep, encoded: Mapping[int, Stream]) -> None:
    base = b.fresh(SEMAPHORES)
    for number, engine in enumerate(ENGINES):
        queue = step.queues[engine]
        expanded = expand(queue)
        if engine == "load" and b.hw.dma_channels == 2:
            constant = np.array([is_constant(d) for d in queue], bool)[expanded.descriptor]
            _tasks(b, number, queue, expanded, np.flatnonzero(~constant), base, encoded)
            _tasks(b, b.engines.index("constants"), queue, expanded, np.flatnonzero(constant), base, encoded)
        else:
            _tasks(b, number, queue, expanded, np.arange(expanded.instances), base, encoded)


def _tasks(
    b: _Builder,
    engine: int,
    queue: tuple[Descriptor, ...],
    expanded: Expanded,
    chosen: IntArray,
    base: int,
    encoded: Mapping[int, Stream],
) -> None:
    """The chosen instances of a queue as tasks of an engine."""
    if not len(chosen):
        return
    kinds = np.array([_kind(d) for d in queue], np.int64)
    resources = np.array([_resource(d) for d in queue], np.int64)
    index = expanded.descriptor[chosen]
    duration = durations(queue, expanded, b.hw, b.machine, encoded)[chosen]
    resource = resources[index]
    service = np.where(resource >= 0, duration, 0)
    issue = ISSUE_CYCLES + LOOP_CYCLES * expanded.loops_before[chosen]
    layer = np.array([d["layer"] for d in queue], np.int64)[index]
    first = b.add(
        engine, issue=issue, duration=duration, layer=layer, kind=kinds[index], resource=resource, service=service
    )
    for table, verb in ((b.waits, "wait"), (b.signals, "signal")):
        for slot in range(3):
            ids = np.array([d[f"{verb}{slot}_id"] for d in queue], np.int64)[index]
            amounts = np.array([d[f"{verb}{slot}_amount"] for d in queue], np.int64)[index]
            used = np.flatnonzero(amounts)
            table.append(np.stack([first + used, base + ids[used], amounts[used]], axis=1))


def durations(
    queue: tuple[Descriptor, ...],
    expanded: Expanded,
    hw: NpuHardware,
    machine: Machine,
    encoded: Mapping[int, Stream],
) -> IntArray:
    """Cycles of every executed instance of a queue; LOADs of weight tiles take the time of their own stream."""
    per_descriptor = np.array([cycles(d, hw, machine) for d in queue], np.int64)
    result = per_descriptor[expanded.descriptor]
    if not any(d.op == Opcode.LOAD and d["memory"] == MemoryId.WEIGHT for d in queue):
        return result
    addresses = effective(expanded, queue, machine)
    for position, d in enumerate(queue):
        if d.op == Opcode.LOAD and d["memory"] == MemoryId.WEIGHT:
            where = np.flatnonzero(expanded.descriptor == position)
            for instance, address in zip(where, addresses[position]["ext"], strict=True):
                stream = encoded.get(int(address))
                if stream is not None:
                    result[instance] = constant_cycles(stream.bytes, stream.weights, hw)
    return result


def weight_bytes(
    queue: tuple[Descriptor, ...], expanded: Expanded, machine: Machine, encoded: Mapping[int, Stream]
) -> dict[int, int]:
    """Encoded bytes that the LOADs of weights of a step read, by layer."""
    result: dict[int, int] = {}
    addresses = effective(expanded, queue, machine)
    for position, d in enumerate(queue):
        if is_constant(d):
            for address in addresses[position].get("ext", ()):
                stream = encoded.get(int(address)) if d["memory"] == MemoryId.WEIGHT else None
                size = stream.bytes if stream is not None else load_bytes(d)
                result[d["layer"]] = result.get(d["layer"], 0) + size
    return result


def _kind(d: Descriptor) -> int:
    if d.op in (Opcode.SYNC, Opcode.LOOP, Opcode.HALT):
        name = "sync"
    elif d.op == Opcode.LOAD:
        name = "weights" if is_constant(d) else "load"
    else:
        name = {Opcode.STORE: "store", Opcode.MATMUL: "matmul"}.get(d.op, "vector")
    return KINDS.index(name)


def _resource(d: Descriptor) -> int:
    if d.op == Opcode.LOAD:
        return 2 if is_constant(d) else 0
    return 1 if d.op == Opcode.STORE else -1


def _join(parts: list[IntArray], width: int | None = None) -> IntArray:
    if not parts:
        return np.zeros((0, width) if width else 0, np.int64)
    return np.concatenate(parts).astype(np.int64)
