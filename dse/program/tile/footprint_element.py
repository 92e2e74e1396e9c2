"""What descriptors of the element unit touch, and what makes them invalid (see `dse.program.tile.footprint`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from dse.program.tile.expand import IntArray
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import (
    DESTINATIONS,
    ELEMENT_UNIT,
    READS_DESTINATION,
    SOURCES,
    TABLE_BYTES,
    UNARY,
    Function,
    Normalize,
    Pool,
    Rounding,
    Spread,
)
from dse.program.tile.program import Machine

#: A POOL may read a word again and again, so that its size alone does not bound its time.
MAX_POOL_READS = 1 << 22

#: Fields that count iterations: a pass over nothing is not defined.
ELEMENT_COUNTS = {
    Opcode.SCALE: ("n_blocks", "rows_count"),
    Opcode.ELEMENT: ("n_blocks", "rows_count"),
    Opcode.POOL: ("n_blocks", "height", "width", "kernel_rows", "kernel_columns"),
    Opcode.NORMALIZE: ("n_blocks", "rows_count", "channels"),
}


@dataclass(frozen=True)
class Access:
    """One operand's reach: `extent` words (bytes in external memory, `memory` None) from its base address on."""

    operand: str
    memory: MemoryId | None
    extent: int
    reads: bool
    writes: bool


def place(memory: MemoryId | None) -> str:
    """Name of a memory in messages."""
    return "memory" if memory is None else f"{memory.name.lower()} scratchpad"


def destination_rows(d: Descriptor) -> int:
    """Rows m of a descriptor: words of its destination for each block."""
    return d["height"] * d["width"] if d.op == Opcode.POOL else d["rows_count"]


def element_accesses(d: Descriptor, machine: Machine) -> tuple[Access, ...]:
    """Everything a descriptor of the element unit reads and writes, the table memory included."""
    blocks, rows = d["n_blocks"], destination_rows(d)
    into = MemoryId(d["dst_memory"])
    written = blocks * rows
    if into == MemoryId.ACTIVATION:
        written = rows * -(-blocks * machine.columns // machine.rows)
    reads_old = d.op == Opcode.ELEMENT and d["function"] in READS_DESTINATION
    destination = Access("dst", into, written, reads=reads_old, writes=True)
    table = (Access("table", MemoryId.TABLE, 1, reads=True, writes=False),) if looked_up(d) else ()
    if d.op == Opcode.SCALE:
        groups = blocks * (machine.columns // machine.vector_lanes)
        return (
            Access("acc", MemoryId.ACCUMULATOR, blocks * rows, reads=True, writes=False),
            Access("param", MemoryId.PARAMETER, groups, reads=True, writes=False),
            destination,
            *table,
        )
    if d.op == Opcode.POOL:
        sizes = {"n": "n_blocks", "r": "kernel_rows", "s": "kernel_columns", "y": "height", "x": "width"}
        reach = sum((d[size] - 1) * d[f"a_stride_{dim}"] for dim, size in sizes.items()) + 1
        return Access("a", MemoryId(d["a_memory"]), reach, reads=True, writes=False), destination
    sources = [Access("a", MemoryId(d["a_memory"]), _spread(d, "a"), reads=True, writes=False)]
    if d.op == Opcode.ELEMENT and d["function"] not in UNARY:
        sources.append(Access("b", MemoryId(d["b_memory"]), _spread(d, "b"), reads=True, writes=False))
    return (*sources, destination, *table)


def _spread(d: Descriptor, operand: str) -> int:
    blocks, rows = d["n_blocks"], d["rows_count"]
    if d.op == Opcode.NORMALIZE:
        return blocks * rows
    return {Spread.FULL: blocks * rows, Spread.ROW: rows, Spread.BLOCK: blocks, Spread.ONE: 1}[
        Spread(d[f"{operand}_spread"])
    ]


def looked_up(d: Descriptor) -> bool:
    """Whether a descriptor of the element unit reads a table."""
    return d["function"] == Normalize.SOFTMAX if d.op == Opcode.NORMALIZE else bool(d["look_up"])


def element_problems(d: Descriptor, machine: Machine) -> list[str]:
    """Why a descriptor of the element unit is invalid on a machine; empty for other opcodes."""
    if d.op not in ELEMENT_UNIT:
        return []
    if not machine.has(MemoryId.STATE) or not machine.has(MemoryId.TABLE):
        return [f"{d.op.name} needs an element unit; the machine was made without one"]
    problems = []
    if machine.word_bytes[MemoryId.TABLE] != TABLE_BYTES:
        problems.append(f"a table word has {machine.word_bytes[MemoryId.TABLE]} bytes; look-ups need {TABLE_BYTES}")
    problems += _memory_problems(d)
    if d.op == Opcode.SCALE and d["low"] > d["high"]:
        problems.append(f"clamp bounds {d['low']} to {d['high']} hold no value")
    if d["rounding"] not in tuple(Rounding):
        problems.append(f"rounding is {d['rounding']}; {_choices(Rounding)}")
    if d["shift"] > 62:
        problems.append(f"shift is {d['shift']}; at most 62")
    if d.op == Opcode.POOL:
        reads = math.prod(d[name] for name in ELEMENT_COUNTS[Opcode.POOL])
        if reads > MAX_POOL_READS:
            problems.append(f"windows of {reads} words in all; a POOL reads at most {MAX_POOL_READS}")
    if d.op == Opcode.NORMALIZE:
        most = d["n_blocks"] * machine.columns
        if d["channels"] > most:
            problems.append(f"channels is {d['channels']}; {d['n_blocks']} blocks have {most}")
    return problems


def _memory_problems(d: Descriptor) -> list[str]:
    problems = []
    operands = {Opcode.SCALE: (), Opcode.POOL: ("a",), Opcode.NORMALIZE: ("a",)}.get(d.op, ("a", "b"))
    if d.op == Opcode.ELEMENT and d["function"] in UNARY:
        operands = ("a",)
    for operand in operands:
        memory = MemoryId(d[f"{operand}_memory"])
        allowed = [item for item in SOURCES if d.op != Opcode.NORMALIZE or item != MemoryId.ACCUMULATOR]
        if memory not in allowed:
            names = ", ".join(item.name for item in allowed)
            problems.append(f"{operand} lies in {memory.name}; {d.op.name} reads {names}")
    into = MemoryId(d["dst_memory"])
    if into not in DESTINATIONS:
        problems.append(f"dst lies in {into.name}; it can be {', '.join(item.name for item in DESTINATIONS)}")
    elif d.op == Opcode.ELEMENT and d["function"] in READS_DESTINATION and into == MemoryId.ACTIVATION:
        problems.append(f"{Function(d['function']).name} reads its destination, which ACTIVATION does not allow")
    return problems


def _choices(names: type[Rounding] | type[Pool]) -> str:
    return ", ".join(f"{item.value} {item.name}" for item in names)


def overlap_problems(d: Descriptor, addresses: Mapping[str, IntArray], machine: Machine) -> Iterator[str]:
    """Sources that share words with the destination otherwise than word for word: a pipeline would read some anew."""
    found = {access.operand: access for access in element_accesses(d, machine)}
    destination = found["dst"]
    into = addresses["dst"]
    for operand in ("a", "b", "acc"):
        access = found.get(operand)
        if access is None or access.memory != destination.memory:
            continue
        base = addresses[operand]
        overlap = (base < into + destination.extent) & (into < base + access.extent)
        word_for_word = d.op in (Opcode.SCALE, Opcode.ELEMENT) and d[f"{operand}_spread"] == Spread.FULL
        wrong = np.flatnonzero(overlap & ((base != into) | (not word_for_word)))
        if wrong.size:
            worst = int(wrong[0])
            yield (
                f"{operand} at word {int(base[worst])} and dst at word {int(into[worst])} of the "
                f"{place(destination.memory)} overlap in its execution {worst}"
            )
