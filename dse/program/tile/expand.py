"""LOOP nests unrolled: which descriptors a queue executes, with which loop indices, at which addresses.

Everything is arrays over executed instances, built level by level, so that 100,000 instances take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import LOADABLE, LOOP_DEPTH, Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import ELEMENT_UNIT, UNARY
from dse.program.tile.program import Machine

IntArray = npt.NDArray[np.int64]

#: Refused beyond: a queue from a file may ask for 65535**4 iterations.
MAX_INSTANCES = 20_000_000


@dataclass(frozen=True, eq=False)
class Expanded:
    """The tasks of a queue in order of execution; LOOP and HALT are none.

    Attributes
    ----------
    descriptor : int64, shape (instances,)
        Position in the queue.
    index : int64, shape (instances, 4)
        Loop indices, level 0 outermost; 0 for levels not in use.
    loops_before : int64, shape (instances,)
        LOOP descriptors fetched between the task before (or the start) and this one. A LOOP is fetched once per
        entry, so once per iteration of the loop around it; looping back fetches nothing.
    """

    descriptor: IntArray
    index: IntArray
    loops_before: IntArray

    @property
    def instances(self) -> int:
        return int(self.descriptor.shape[0])


def expand(queue: Sequence[Descriptor]) -> Expanded:
    """Unroll the LOOPs of a queue.

    No LOOP can stand behind the last task: every body holds a task, so all fetches count before some instance.

    Raises
    ------
    TileProgramError: nesting beyond depth 4, a body that is empty or leaves its surrounding body, a count of 0,
    a HALT that is missing or not last, more than `MAX_INSTANCES` instances.
    """
    _check_halt(queue)
    total = _instances(queue, 0, len(queue) - 1, 0)
    if total > MAX_INSTANCES:
        raise TileProgramError(f"the queue executes {total} descriptors; the limit is {MAX_INSTANCES}")
    return _expand_body(queue, 0, len(queue) - 1, 0)


def _check_halt(queue: Sequence[Descriptor]) -> None:
    halts = [position for position, d in enumerate(queue) if d.op == Opcode.HALT]
    if halts != [len(queue) - 1]:
        found = f"HALT at {halts}" if halts else "none"
        raise TileProgramError(f"a queue ends with its only HALT; this one of {len(queue)} descriptors has {found}")


def _instances(queue: Sequence[Descriptor], first: int, end: int, level: int) -> int:
    """Executed instances of descriptors [first, end), after checking every LOOP among them."""
    total, position = 0, first
    while position < end:
        d = queue[position]
        position += 1
        if d.op != Opcode.LOOP:
            total += 1
            continue
        where = f"LOOP at {position - 1}"
        if level == LOOP_DEPTH:
            raise TileProgramError(f"{where} nests to depth {level + 1}; the limit is {LOOP_DEPTH}")
        if d["count"] < 1:
            raise TileProgramError(f"{where} has count {d['count']}; the least is 1")
        if d["body"] < 1:
            raise TileProgramError(f"{where} has a body of {d['body']} descriptors; the least is 1")
        if position + d["body"] > end:
            raise TileProgramError(
                f"{where} has a body of {d['body']} descriptors, but only {end - position} follow in its scope"
            )
        total += d["count"] * _instances(queue, position, position + d["body"], level + 1)
        position += d["body"]
    return total


def _expand_body(queue: Sequence[Descriptor], first: int, end: int, level: int) -> Expanded:
    parts: list[Expanded] = []
    position = first
    while position < end:
        d = queue[position]
        if d.op == Opcode.LOOP:
            body = _expand_body(queue, position + 1, position + 1 + d["body"], level + 1)
            parts.append(_repeat(body, d["count"], level))
            position += 1 + d["body"]
            continue
        plain = position
        while position < end and queue[position].op != Opcode.LOOP:
            position += 1
        size = position - plain
        parts.append(Expanded(np.arange(plain, position), np.zeros((size, LOOP_DEPTH), np.int64), _zeros(size)))
    if not parts:
        return Expanded(_zeros(0), np.zeros((0, LOOP_DEPTH), np.int64), _zeros(0))
    return Expanded(
        np.concatenate([part.descriptor for part in parts]),
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.loops_before for part in parts]),
    )


def _repeat(body: Expanded, count: int, level: int) -> Expanded:
    """`count` iterations of a body whose loop stands at `level`; its LOOP is fetched before the first."""
    index = np.tile(body.index, (count, 1))
    index[:, level] = np.repeat(np.arange(count), body.instances)
    loops_before = np.tile(body.loops_before, count)
    loops_before[0] += 1
    return Expanded(np.tile(body.descriptor, count), index, loops_before)


def _zeros(size: int) -> IntArray:
    return np.zeros(size, np.int64)


@dataclass(frozen=True)
class Operand:
    """An operand of an opcode: whose fields give its base, whose its increments, where it lives.

    `memory` is None in external memory (bytes). `halves` tells whether the operand ping-pongs.
    """

    name: str
    increments: str
    memory: MemoryId | None
    halves: bool


_COMPUTE_OPERANDS: dict[Opcode, tuple[Operand, ...]] = {
    Opcode.MATMUL: (
        Operand("a", "a", MemoryId.ACTIVATION, True),
        Operand("w", "w", MemoryId.WEIGHT, True),
        Operand("acc", "acc", MemoryId.ACCUMULATOR, True),
    ),
    Opcode.VECTOR: (
        Operand("acc", "acc", MemoryId.ACCUMULATOR, True),
        Operand("out", "out", MemoryId.OUTPUT, True),
        Operand("param", "param", MemoryId.PARAMETER, False),
        Operand("res", "out", MemoryId.RESIDUAL, True),
    ),
    Opcode.FORWARD: (
        Operand("acc", "acc", MemoryId.ACCUMULATOR, True),
        Operand("out", "out", MemoryId.ACTIVATION, True),
        Operand("param", "param", MemoryId.PARAMETER, False),
    ),
}


def store_source(d: Descriptor) -> MemoryId:
    """The scratchpad that a STORE reads."""
    return MemoryId.STATE if d["from_state"] else MemoryId.OUTPUT


def _element_operands(d: Descriptor) -> tuple[Operand, ...]:
    """Operands of the element unit, whose memories are fields."""
    into = Operand("dst", "dst", MemoryId(d["dst_memory"]), True)
    table = Operand("table", "table", MemoryId.TABLE, False)
    if d.op == Opcode.SCALE:
        sums = Operand("acc", "acc", MemoryId.ACCUMULATOR, True)
        return sums, Operand("param", "param", MemoryId.PARAMETER, False), into, table
    first = Operand("a", "a", MemoryId(d["a_memory"]), True)
    if d.op != Opcode.ELEMENT or d["function"] in UNARY:
        return first, into, table
    return first, Operand("b", "b", MemoryId(d["b_memory"]), True), into, table


def operands(d: Descriptor) -> tuple[Operand, ...]:
    """Operands of a descriptor, in the order of `EngineControl.address`; none for SYNC, LOOP and HALT.

    Raises
    ------
    TileProgramError: a LOAD names a memory that it cannot write.
    """
    if d.op in ELEMENT_UNIT:
        return _element_operands(d)
    if d.op == Opcode.LOAD and d["memory"] not in LOADABLE:
        choices = ", ".join(f"{item.value} {item.name}" for item in LOADABLE)
        raise TileProgramError(f"LOAD into memory {d['memory']}; it can fill {choices}")
    if d.op in (Opcode.LOAD, Opcode.STORE):
        local = store_source(d) if d.op == Opcode.STORE else MemoryId(d["memory"])
        return Operand("ext", "ext", None, False), Operand("local", "local", local, True)
    return _COMPUTE_OPERANDS.get(d.op, ())


def effective(expanded: Expanded, queue: Sequence[Descriptor], machine: Machine) -> tuple[dict[str, IntArray], ...]:
    """Effective base addresses of every descriptor's instances.

    Returns
    -------
    Per descriptor of the queue, operand name -> int64, shape (instances of that descriptor,), in order of
    execution: bytes for `ext`, words for the others. Not wrapped to the address width: a value beyond the memory
    is an error of the program, found by the checker and the interpreter.
    """
    order = np.argsort(expanded.descriptor, kind="stable")
    bounds = np.searchsorted(expanded.descriptor[order], np.arange(len(queue) + 1))
    result = []
    for position, d in enumerate(queue):
        index = expanded.index[order[bounds[position] : bounds[position + 1]]]
        result.append({item.name: _addresses(d, item, index, machine) for item in operands(d)})
    return tuple(result)


def _addresses(d: Descriptor, operand: Operand, index: IntArray, machine: Machine) -> IntArray:
    increments = np.array([d[f"{operand.increments}_inc{level}"] for level in range(LOOP_DEPTH)], np.int64)
    if operand.memory is None:
        increments = np.where((d["ext_down"] >> np.arange(LOOP_DEPTH)) & 1, -increments, increments)
    address = d[f"{operand.name}_base"] + index @ increments
    if operand.halves and operand.memory is not None:
        toggle = d[f"{operand.name}_toggle"]
        selected = np.array([(toggle >> level) & 1 for level in range(LOOP_DEPTH)], np.int64)
        upper = (((index & 1) @ selected) & 1) ^ d[f"{operand.name}_phase"]
        address = address + machine.half(operand.memory) * upper
    return np.asarray(address, np.int64)
