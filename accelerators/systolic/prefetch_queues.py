"""Queues taken apart for weight prefetch: loops peeled, halves swapped, first loads taken out and put elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accelerators.systolic.nodes import SEMAPHORE_NAMES
from dse.program.tile.expand import effective, expand
from dse.program.tile.footprint import accesses
from dse.program.tile.isa import LOOP_DEPTH, SEMAPHORE_MAX, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine

Queues = Mapping[str, tuple[Descriptor, ...]]

_W_READY, _W_FREE = SEMAPHORE_NAMES.index("w_ready"), SEMAPHORE_NAMES.index("w_free")
_SLOTS = tuple(f"{verb}{slot}" for verb in ("wait", "signal") for slot in range(3))
_USES_PARAMETERS = (Opcode.VECTOR, Opcode.FORWARD, Opcode.SCALE)


@dataclass(frozen=True)
class FirstLoads:
    """Loads that a step can do without: those of all its parameters, and the first of its weights, if there are any.

    The weights may stand behind loads of activations; nothing that comes before them touches their words.
    """

    parameters: tuple[Descriptor, ...]
    weights: Descriptor | None


def first_loads(queues: Queues) -> FirstLoads | None:
    """What the step before could load; None when that is nothing."""
    queue = _peeled(queues["load"])
    parameters, weights = _first(queue)
    if not parameters and weights is None:
        return None
    return FirstLoads(tuple(queue[i] for i in parameters), None if weights is None else queue[weights])


def _first(queue: Sequence[Descriptor]) -> tuple[list[int], int | None]:
    """Positions of the loads of parameters, if all are free of semaphores and loops, and of the first weights."""
    parameters: list[int] = []
    looped = _in_loops(queue)
    fills = [i for i, d in enumerate(queue) if _fills(d, MemoryId.PARAMETER)]
    if not any(looped[i] or _amounts(queue[i], "wait") or _amounts(queue[i], "signal") for i in fills):
        parameters = fills
    weights = next((i for i, d in enumerate(queue) if _fills(d, MemoryId.WEIGHT)), None)
    if weights is not None:
        d = queue[weights]
        plain = set(_amounts(d, "wait")) <= {_W_FREE} and set(_amounts(d, "signal")) == {_W_READY}
        if looped[weights] or not plain:
            weights = None
    return parameters, weights


def _in_loops(queue: Sequence[Descriptor]) -> list[bool]:
    """Whether each descriptor stands in a LOOP."""
    result, end = [], 0
    for position, d in enumerate(queue):
        result.append(position < end)
        if d.op == Opcode.LOOP:
            end = max(end, position + 1 + d["body"])
    return result


def take_loads(queues: Queues, *, parameters: bool) -> tuple[Queues, tuple[Descriptor, ...]]:
    """A step without its first loads, and these: a SYNC stands for the weights, so that credits stay what they are."""
    load = list(_peeled(queues["load"]))
    positions, at = _first(load)
    taken: list[Descriptor] = []
    if at is not None:
        taken.append(load[at])
        values = load[at].values
        kept = {name: v for name, v in values.items() if name == "layer" or name.rpartition("_")[0] in _SLOTS}
        load[at] = Descriptor(Opcode.SYNC, kept)
    if parameters:
        taken += [load[i] for i in positions]
        load = [d for i, d in enumerate(load) if i not in positions]
    return {**queues, "load": tuple(load)}, tuple(taken)


def appended(queues: Queues, loads: Sequence[Descriptor], wait: int) -> Queues:
    """A step that ends with the loads of the next one; those of weights wait for `wait` credits of free weights."""
    layer = queues["load"][0]["layer"]
    added = []
    for d in loads:
        fields = {name: v for name, v in d.values.items() if name.rpartition("_")[0] not in _SLOTS}
        if wait and _fills(d, MemoryId.WEIGHT):
            fields |= {"wait0_id": _W_FREE, "wait0_amount": wait}
        added.append(Descriptor(d.op, {**fields, "layer": layer}))
    *body, halt = queues["load"]
    return {**queues, "load": (*body, *added, halt)}


def waits_for(queues: Queues, weights: Descriptor, machine: Machine) -> int | None:
    """Credits of free weights that a LOAD at the end of a step waits for, so that nobody reads the words it fills.

    Returns
    -------
    0 when no matmul reads them or earlier loads have waited enough; None when no credit tells.
    """
    (access,) = (item for item in accesses(weights, machine) if item.memory is MemoryId.WEIGHT)
    low = weights["local_base"] + machine.half(MemoryId.WEIGHT) * weights["local_phase"]
    high = low + access.extent
    queue = queues["matmul"]
    expanded = expand(queue)
    given = _column(queue, "signal")[expanded.descriptor]
    reading = np.zeros(expanded.instances, bool)
    for position, columns in enumerate(effective(expanded, queue, machine)):
        if queue[position].op != Opcode.MATMUL:
            continue
        extent = next(item.extent for item in accesses(queue[position], machine) if item.memory is MemoryId.WEIGHT)
        reading[expanded.descriptor == position] = (columns["w"] < high) & (columns["w"] + extent > low)
    last = np.flatnonzero(reading)
    if not len(last):
        return 0
    signalling = np.flatnonzero(given)
    tells = signalling[signalling >= last[-1]]
    if not len(tells):
        return None
    loads = expand(queues["load"])
    waited = int(_column(queues["load"], "wait")[loads.descriptor].sum())
    missing = max(0, int(given[: tells[0] + 1].sum()) - waited)
    return missing if missing <= SEMAPHORE_MAX else None


def swapped(queues: Queues, machine: Machine) -> Queues | None:
    """A step with the halves of its weight memory exchanged; None when some weights do not lie in one half."""
    half = machine.half(MemoryId.WEIGHT)
    for engine in ("load", "matmul"):
        queue = queues[engine]
        for d, columns in zip(queue, effective(expand(queue), queue, machine), strict=True):
            for access in accesses(d, machine):
                if access.memory is not MemoryId.WEIGHT:
                    continue
                base = columns[access.operand]
                if len(base) and ((base % half) + access.extent > half).any():
                    return None
    return {
        **queues,
        "load": _changed(queues["load"], lambda d: _fills(d, MemoryId.WEIGHT), {"local_phase": _other}),
        "matmul": _changed(queues["matmul"], lambda d: d.op == Opcode.MATMUL, {"w_phase": _other}),
    }


def parameter_span(queues: Queues, machine: Machine) -> tuple[int, int] | None:
    """First and end word of the parameters that a step loads or uses; None when there are none."""
    lows, highs = [], []
    for engine in ("load", "vector"):
        queue = queues[engine]
        for d, columns in zip(queue, effective(expand(queue), queue, machine), strict=True):
            for access in accesses(d, machine):
                if access.memory is MemoryId.PARAMETER and len(columns[access.operand]):
                    lows.append(int(columns[access.operand].min()))
                    highs.append(int(columns[access.operand].max()) + access.extent)
    return (min(lows), max(highs)) if lows else None


def with_parameters_at(queues: Queues, word: int, machine: Machine) -> Queues:
    """A step whose parameters begin at `word` of their scratchpad."""
    span = parameter_span(queues, machine)
    assert span is not None
    move = word - span[0]
    return {
        **queues,
        "load": _changed(
            queues["load"], lambda d: _fills(d, MemoryId.PARAMETER), {"local_base": lambda base: base + move}
        ),
        "vector": _changed(
            queues["vector"], lambda d: d.op in _USES_PARAMETERS, {"param_base": lambda base: base + move}
        ),
    }


# -- pieces --------------------------------------------------------------------------------------------------------


def _other(phase: int) -> int:
    return phase ^ 1


def _fills(d: Descriptor, memory: MemoryId) -> bool:
    return d.op == Opcode.LOAD and d["memory"] == memory


def _amounts(d: Descriptor, verb: str) -> dict[int, int]:
    """Semaphore -> amount that a descriptor waits for or signals."""
    return {d[f"{verb}{slot}_id"]: d[f"{verb}{slot}_amount"] for slot in range(3) if d[f"{verb}{slot}_amount"]}


def _column(queue: Sequence[Descriptor], verb: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Credits of free weights that each descriptor of a queue waits for or signals."""
    return np.array([_amounts(d, verb).get(_W_FREE, 0) for d in queue], np.int64)


def _changed(
    queue: Sequence[Descriptor], chosen: Callable[[Descriptor], bool], changes: Mapping[str, Callable[[int], int]]
) -> tuple[Descriptor, ...]:
    return tuple(
        Descriptor(d.op, {**d.values, **{name: change(d[name]) for name, change in changes.items()}})
        if chosen(d)
        else d
        for d in queue
    )


def _peeled(queue: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    """The queue with its first iterations unrolled until the first LOAD of weights stands in no loop."""
    position = 0
    while position < len(queue) and not _fills(queue[position], MemoryId.WEIGHT):
        d = queue[position]
        position += 1
        if d.op == Opcode.LOOP:
            end = position + d["body"]
            if any(_fills(item, MemoryId.WEIGHT) for item in queue[position:end]):
                position -= 1
                queue = (*queue[:position], *_first_iteration(queue[position:end]), *queue[end:])
            else:
                position = end
    return queue


def _first_iteration(loop: Sequence[Descriptor]) -> list[Descriptor]:
    """An outermost LOOP with its body: the body once, one level up, then the LOOP over the iterations that are left."""
    head, *body = loop
    result = [_lifted(d) for d in body]
    if head["count"] > 1:
        result.append(Descriptor(Opcode.LOOP, {**head.values, "count": head["count"] - 1}))
        result += [_advanced(d) for d in body]
    return result


def _operands(d: Descriptor) -> list[str]:
    return sorted({name.split("_inc")[0] for name in d.values if "_inc" in name} | {
        name.removesuffix("_toggle") for name in d.values if name.endswith("_toggle")})  # fmt: skip


def _lifted(d: Descriptor) -> Descriptor:
    """A descriptor at iteration 0 of the outermost loop, which is no longer around it."""
    fields = {name: value for name, value in d.values.items() if "_inc" not in name}
    for operand in _operands(d):
        for level in range(1, LOOP_DEPTH):
            if d[f"{operand}_inc{level}"]:
                fields[f"{operand}_inc{level - 1}"] = d[f"{operand}_inc{level}"]
    for name in d.values:
        if name.endswith("_toggle") or name == "ext_down":
            fields[name] = d[name] >> 1
    return Descriptor(d.op, fields)


def _advanced(d: Descriptor) -> Descriptor:
    """A descriptor whose outermost loop starts at what was its iteration 1."""
    fields = dict(d.values)
    for operand in _operands(d):
        step = d[f"{operand}_inc0"]
        if step:
            down = operand == "ext" and d["ext_down"] & 1
            fields[f"{operand}_base"] = d[f"{operand}_base"] + (-step if down else step)
        if d[f"{operand}_toggle"] & 1:
            fields[f"{operand}_phase"] = d[f"{operand}_phase"] ^ 1
    return Descriptor(d.op, fields)
