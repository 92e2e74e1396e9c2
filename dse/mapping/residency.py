"""What a network keeps between its layers: values, the steps that write and read them, where a value may rest.

A value is what one op leaves to others. Ops without products that work in place (an activation behind a layer, a
normalization, a reshape) do not make a new one: they run on the way out of the layer before. All other ops without
products are passes: they read every value once and write one, at the prices and ports of the levels where these lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dse.arch import Arch
from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.kinds import BINARY_KINDS, RECURRENT_KINDS, UNARY_KINDS
from dse.mapping.cost import element_bits
from dse.mapping.layers import LayerMapper, operand_bits, resting_levels
from dse.mapping.nests import MAPPED_KINDS, Part, ways

#: Ops that may work in place of their input.
IN_PLACE_KINDS = (
    *UNARY_KINDS, "identity", "flatten", "reshape", "batch_norm", "quantize", "dequantize", "requantize", "cast",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One op in order of execution; `ways` is empty for a pass. `reads` and `writes` are values."""

    op: str
    kind: str
    ways: tuple[tuple[Part, ...], ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class Value:
    """What lies between layers: elements, the steps that write and last read it, and the levels where it may rest.

    `first` is -1 for the network's inputs, `last` the number of steps for its outputs; both lie in the outermost level.
    """

    name: str
    elements: int
    first: int
    last: int
    levels: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Steps and values of a network."""

    steps: tuple[Step, ...]
    values: Mapping[str, Value]


def plan_of(graph: Graph, mapper: LayerMapper) -> Plan:
    """Steps and values of a network on the mapper's architecture.

    Raises
    ------
    ModelError: an op has no supported loop nest, or no op is mapped.
    """
    value_of, passes = _values(graph)
    steps: list[Step] = []
    for op in graph.ops:
        if op.name not in passes:
            continue
        reads = tuple(dict.fromkeys(value_of[name] for name in op.inputs if name in value_of))
        writes = tuple(dict.fromkeys(value_of[name] for name in op.outputs))
        found = ways(graph, op, dense=mapper.mode == "native") if op.kind in MAPPED_KINDS else ()
        steps.append(Step(op.name, op.kind, found, reads, writes, value_of))
    if not any(step.ways for step in steps):
        raise ModelError(f"{graph.source or graph.name}: has nothing to map: no op multiplies and accumulates")
    return Plan(tuple(steps), _live_values(graph, value_of, steps, mapper))


def _values(graph: Graph) -> tuple[dict[str, str], set[str]]:
    """(the value of every tensor that is no constant, the ops that are steps)."""
    readers: dict[str, int] = {}
    for op in graph.ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    value_of = {name: name for name in graph.inputs if graph[name].data is None}
    written: set[str] = set()
    steps: set[str] = set()
    for op in graph.ops:
        sources = [name for name in op.inputs if name in value_of]
        source = value_of[sources[0]] if sources else ""
        alone = len(sources) == 1 and readers[sources[0]] == 1 and sources[0] not in graph.outputs
        if alone and _in_place(op, graph) and source in written:
            value_of[op.outputs[0]] = source
            continue
        steps.add(op.name)
        for name in op.outputs:
            value_of[name] = name
            written.add(name)
    return value_of, steps


def _in_place(op: Op, graph: Graph) -> bool:
    """Whether every output element depends on the input element in its place, and on constants."""
    if op.kind in IN_PLACE_KINDS:
        return True
    return op.kind in BINARY_KINDS and max(graph[n].elements for n in op.inputs) == graph[op.outputs[0]].elements


def _live_values(graph: Graph, value_of: Mapping[str, str], steps: list[Step], mapper: LayerMapper) -> dict[str, Value]:
    first = {name: place for place, step in enumerate(steps) for name in step.writes}
    last = {name: place for place, step in enumerate(steps) for name in step.reads}
    ends = {value_of[name] for name in graph.outputs if name in value_of}
    found = {}
    for name in dict.fromkeys(value_of.values()):
        begin, end = first.get(name, -1), len(steps) if name in ends else last.get(name, first.get(name, -1))
        inside = begin >= 0 and begin < end < len(steps)
        levels = _levels(name, [steps[k] for k in range(begin, end + 1)], mapper) if inside else ()
        found[name] = Value(name, graph[name].elements, begin, end, levels)
    return found


def _levels(name: str, steps: list[Step], mapper: LayerMapper) -> tuple[str, ...]:
    """Levels that hold every role a value has, of which each op can pass by the levels further out.

    A value is somebody's output; a pass reads it as an input.
    """
    roles = {"output"}
    for step in steps:
        if name not in (*step.reads, *step.writes):
            continue
        if step.kind in RECURRENT_KINDS:
            return ()
        if not step.ways and name in step.reads:
            roles.add("input")
        for part in step.ways[0] if step.ways else ():
            mine = [access.role for access in part.problem.tensors if step.tensors.get(access.name) == name]
            others = [access.role for access in part.problem.tensors if step.tensors.get(access.name) != name]
            if len(mine) > 1 or set(mine) & set(others):
                return ()
            roles.update(mine)
    levels = [level for level in resting_levels(mapper.arch) if all(mapper.may_rest(role, level) for role in roles)]
    return tuple(level.name for level in levels)


def room_of(value: Value, place: int, plan: Plan, mapper: LayerMapper) -> int:
    """Bytes that a resting value takes during step `place`.

    While a layer writes it, its elements are as wide as partial sums, for they may still be added to; then they are
    as wide as operands.
    """
    step = plan.steps[place]
    if place == value.first and step.ways:
        access = next(a for a in step.ways[0][0].problem.tensors if a.role == "output")
        return math.ceil(value.elements * element_bits(mapper.arch, access) / 8)
    return room_of_value(value, mapper.arch)


def room_of_value(value: Value, arch: Arch) -> int:
    """Bytes that a value takes once it is written."""
    return math.ceil(value.elements * operand_bits(arch, "input") / 8)


def weights_of(plan: Plan, mapper: LayerMapper) -> dict[str, int]:
    """Bytes of the constant operands of layers that are not recurrent (those decide for themselves, step by step)."""
    found: dict[str, int] = {}
    for step in plan.steps:
        mine: dict[str, int] = {}
        for part in step.ways[0] if step.ways and step.kind not in RECURRENT_KINDS else ():
            weights = [access.name for access in part.problem.tensors if access.role == "weight"]
            if len(weights) == 1 and weights[0] not in step.tensors:
                mine[weights[0]] = mine.get(weights[0], 0) + part.repeat * mapper.bytes_of(part.problem, weights[0])
        found |= {name: max(size, found.get(name, 0)) for name, size in mine.items()}
    return found


def pass_cost(step: Step, plan: Plan, resident: Mapping[str, str], mapper: LayerMapper) -> tuple[float, int, float]:
    """(pJ, cycles, bits at the outermost level) of a pass: every value moves once, ports work side by side."""
    arch, bits = mapper.arch, operand_bits(mapper.arch, "input")
    energy, outer = 0.0, 0.0
    cycles = 0.0
    for k, level in enumerate(arch.levels):
        share = 1.0 if mapper.mode == "timeloop" else bits / level.word_bits
        moved = []
        for names in (step.reads, step.writes):
            here = (n for n in names if resident.get(n, arch.levels[0].name) == level.name)
            moved.append(share * sum(plan.values[n].elements for n in here))
        reads, writes = moved
        energy += reads * mapper.energy.read_pj[k] + writes * mapper.energy.write_pj[k]
        own = max(
            reads / (level.read_words_per_cycle or math.inf), writes / (level.write_words_per_cycle or math.inf),
            (reads + writes) / (level.shared_words_per_cycle or math.inf),
        )  # fmt: skip
        cycles = max(cycles, own)
        outer += (reads + writes) / share * bits if k == 0 else 0
    return energy, math.ceil(cycles - 1e-9), outer
