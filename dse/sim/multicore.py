"""Several cores on shared memory channels: the task graph of one program, copied or cut over cores.

Each core has its own engines and semaphores. Resources of the program become channels that the cores share; what a
transfer takes without contention stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dse.core.errors import UsageError
from dse.program.taskgraph import Arbitration, TaskGraph

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Channels:
    """How the resources of a program turn into channels that cores share.

    Parameters
    ----------
    merge
        Channel by resource name, such as {"memory_read": "dram", "memory_write": "dram"}; a resource that is not
        named becomes a channel of its own name.
    count
        Channels of each name; core i uses number i mod `count`.
    arbitration
        Of every channel.
    """

    merge: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    arbitration: Arbitration = field(default_factory=Arbitration)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"{self.count} channels; the least is 1")

    def place(self, graph: TaskGraph) -> tuple[tuple[str, ...], IntArray]:
        """Names of all channels, and the first channel of each resource of the graph: int64, shape (resources,)."""
        unknown = sorted(set(self.merge) - set(graph.resources))
        if unknown:
            raise UsageError(f"{unknown[0]!r} is no resource of the program; it has {', '.join(graph.resources)}")
        groups = list(dict.fromkeys(self.merge.get(name, name) for name in graph.resources))
        numbers = range(self.count)
        names = tuple(group if self.count == 1 else f"{group}{number}" for group in groups for number in numbers)
        first = [groups.index(self.merge.get(name, name)) * self.count for name in graph.resources]
        return names, np.array(first, np.int64)


def batch_parallel(graph: TaskGraph, cores: int, channels: Channels) -> TaskGraph:
    """`cores` inputs at once: each core runs the whole program on an input of its own.

    Raises
    ------
    UsageError: `cores` < 1.
    """
    if cores < 1:
        raise UsageError(f"{cores} cores; the least is 1")
    core = np.repeat(np.arange(cores, dtype=np.int64), graph.tasks)
    copies = _copies(graph, cores, core, core, channels)
    return replace(copies, engines=_engine_names(graph, cores), final_cycles=np.tile(graph.final_cycles, cores))


def layer_parallel(graph: TaskGraph, core_of_layer: Sequence[int], inputs: int, channels: Channels, *,
                   buffers: int = 2) -> TaskGraph:  # fmt: skip
    """A pipeline over cores: each core runs its layers on input after input and hands on to the next.

    A core takes an input when the core before has finished it, when it has itself finished the input before, and when
    one of `buffers` buffers for the core behind is free; it holds that until the core behind has finished the input.
    An engine `control` a core keeps this order; it takes no cycles beyond those of its signals.

    Parameters
    ----------
    core_of_layer
        Core of each layer (index = TaskGraph.layer), ascending from 0 without a gap.

    Raises
    ------
    UsageError: the cores are not numbered like that, layers are missing, a core has no task, or layers of different
        cores share a semaphore on the same side.
    """
    cores = _stages(graph, core_of_layer)
    if inputs < 1 or buffers < 1:
        raise UsageError(f"{inputs} inputs and {buffers} buffers; the least is 1 of each")
    stage = np.asarray(core_of_layer, np.int64)[graph.layer]
    for verb, table in (("wait for", graph.waits), ("signal", graph.signals)):
        low, high = np.full(len(graph.initial), cores), np.full(len(graph.initial), -1)
        np.minimum.at(low, table[:, 1], stage[table[:, 0]])
        np.maximum.at(high, table[:, 1], stage[table[:, 0]])
        if (low < high).any():
            semaphore = int(np.argmax(low < high))
            raise UsageError(f"layers of cores {low[semaphore]} and {high[semaphore]} {verb} semaphore {semaphore}")
    copies = _copies(graph, inputs, np.tile(stage, inputs), np.repeat(np.arange(inputs), graph.tasks), channels)
    copies = replace(copies, engines=_engine_names(graph, cores), final_cycles=np.tile(graph.final_cycles, cores))
    return _controlled(copies, np.tile(stage, inputs), len(graph.engines), cores, inputs, buffers)


def _engine_names(graph: TaskGraph, cores: int) -> tuple[str, ...]:
    return tuple(f"core{core}.{name}" for core in range(cores) for name in graph.engines)


def _stages(graph: TaskGraph, core_of_layer: Sequence[int]) -> int:
    """How many cores a pipeline has."""
    layers = int(graph.layer.max(initial=-1)) + 1
    if len(core_of_layer) < layers:
        raise UsageError(f"{len(core_of_layer)} layers have a core; the program has {layers}")
    used = sorted(set(np.asarray(core_of_layer, np.int64)[np.unique(graph.layer)].tolist()))
    if used != list(range(len(used))) or list(core_of_layer) != sorted(core_of_layer):
        raise UsageError(f"cores {list(core_of_layer)} of the layers must ascend from 0 without a gap")
    return len(used)


def _copies(graph: TaskGraph, copies: int, core: IntArray, copy: IntArray, channels: Channels) -> TaskGraph:
    """The tasks `copies` times, each on its core's engines and channels; semaphores of each copy are its own."""
    names, first = channels.place(graph)

    def table(rows: IntArray, step: int) -> IntArray:
        offset = np.repeat(np.arange(copies, dtype=np.int64), len(rows))
        moved = np.tile(rows, (copies, 1))
        moved[:, 0] += offset * graph.tasks
        moved[:, 1] += offset * step
        return moved

    def shared(resource: IntArray, owner: IntArray) -> IntArray:
        used = first[np.maximum(resource, 0)] if len(first) else resource
        return np.where(resource >= 0, used + owner % channels.count, -1)

    transfers = table(graph.transfers, 0)
    transfers[:, 1] = shared(transfers[:, 1], core[transfers[:, 0]])
    return replace(
        graph,
        engine=np.tile(graph.engine, copies) + core * len(graph.engines),
        issue_cycles=np.tile(graph.issue_cycles, copies),
        duration_cycles=np.tile(graph.duration_cycles, copies),
        waits=table(graph.waits, len(graph.initial)),
        signals=table(graph.signals, len(graph.initial)),
        initial=np.tile(graph.initial, copies),
        layer=np.tile(graph.layer, copies),
        kind=np.tile(graph.kind, copies),
        resource=shared(np.tile(graph.resource, copies), core),
        service_cycles=np.tile(graph.service_cycles, copies),
        resources=names,
        transfers=transfers,
        arbitration=(channels.arbitration,) * len(names),
    )


def _controlled(graph: TaskGraph, stage: IntArray, engines: int, cores: int, inputs: int, buffers: int) -> TaskGraph:
    """Adds the control engines of a pipeline and the signals that keep its order."""
    per_input, tasks, semaphores = graph.tasks // inputs, graph.tasks, len(graph.initial)
    waits, signals, initial = [graph.waits], [graph.signals], [graph.initial]
    # control tasks by core, then input: one that starts, one that finishes
    begin = tasks + 2 * (np.arange(cores)[:, None] * inputs + np.arange(inputs))
    finish = begin + 1

    def link(giving: IntArray, taking: IntArray, count: int = 0) -> None:
        nonlocal semaphores
        signals.append(np.stack([giving, np.full(len(giving), semaphores), np.ones_like(giving)], axis=1))
        waits.append(np.stack([taking, np.full(len(taking), semaphores), np.ones_like(taking)], axis=1))
        initial.append(np.array([count], np.int64))
        semaphores += 1

    for core in range(cores):
        if core:
            link(finish[core - 1], begin[core])
            link(finish[core], begin[core - 1], buffers)
        for engine in range(engines):
            mine = np.flatnonzero((graph.engine[:per_input] == core * engines + engine) & (stage[:per_input] == core))
            if len(mine):
                each = np.arange(inputs, dtype=np.int64) * per_input
                link(begin[core], mine[0] + each)
                link(mine[-1] + each, finish[core])
    added = 2 * cores * inputs
    zeros = np.zeros(added, np.int64)
    last_layer = np.array([graph.layer[stage == core].max() for core in range(cores)], np.int64)
    return replace(
        graph,
        engines=(*graph.engines, *(f"core{core}.control" for core in range(cores))),
        engine=np.concatenate([graph.engine, cores * engines + np.repeat(np.arange(cores), 2 * inputs)]),
        issue_cycles=np.concatenate([graph.issue_cycles, zeros]),
        duration_cycles=np.concatenate([graph.duration_cycles, zeros]),
        waits=np.concatenate(waits),
        signals=np.concatenate(signals),
        initial=np.concatenate(initial),
        layer=np.concatenate([graph.layer, np.repeat(last_layer, 2 * inputs)]),
        kind=np.concatenate([graph.kind, np.full(added, len(graph.kinds))]),
        kinds=(*graph.kinds, "control"),
        resource=np.concatenate([graph.resource, zeros - 1]),
        service_cycles=np.concatenate([graph.service_cycles, zeros]),
        final_cycles=np.concatenate([graph.final_cycles, np.zeros(cores, np.int64)]),
    )
