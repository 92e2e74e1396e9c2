"""What one descriptor touches, and what makes it invalid on a machine whatever its addresses are.

All strides and increments are unsigned, so an access reaches from its effective base address upwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dse.program.tile.encode import field_range
from dse.program.tile.errors import TileProgramError
from dse.program.tile.expand import IntArray, operands, store_source
from dse.program.tile.footprint_element import (
    ELEMENT_COUNTS,
    Access,
    element_accesses,
    element_problems,
    overlap_problems,
    place,
)
from dse.program.tile.isa import OPCODE_ENGINES, Descriptor, MemoryId, Opcode, fields
from dse.program.tile.isa_element import ELEMENT_UNIT
from dse.program.tile.program import Machine

Slots = tuple[tuple[int, int], ...]

#: A STORE may read a word again and again, so that its size alone does not bound its time.
MAX_STORE_RUNS = 1 << 20

#: Fields that count iterations: a pass over nothing is not defined.
_COUNTS = {
    Opcode.LOAD: ("n0", "n1", "n2", "run_bytes"),
    Opcode.STORE: ("n0", "n1", "n2", "run_bytes"),
    Opcode.MATMUL: ("n_blocks", "n_rows", "n_columns", "n_channels", "height", "width"),
    Opcode.VECTOR: ("n_blocks", "rows_count"),
    Opcode.FORWARD: ("n_blocks", "height", "width"),
    **ELEMENT_COUNTS,
}


def accesses(d: Descriptor, machine: Machine) -> tuple[Access, ...]:
    """Everything a descriptor reads and writes, smallest enclosing intervals; none for SYNC, LOOP and HALT."""
    memory = {item.name: item.memory for item in operands(d)}
    if d.op in (Opcode.LOAD, Opcode.STORE):
        load = d.op == Opcode.LOAD
        external = sum((d[f"n{i}"] - 1) * d[f"ext_stride{i}"] for i in range(3)) + d["run_bytes"]
        local = sum((d[f"n{i}"] - 1) * d[f"local_stride{i}"] for i in range(3)) + 1
        return (
            Access("ext", None, external, reads=load, writes=not load),
            Access("local", memory["local"], local, reads=not load, writes=load),
        )
    if d.op == Opcode.MATMUL:
        sizes = {"n": "n_blocks", "r": "n_rows", "s": "n_columns", "y": "height", "x": "width"}
        activation = sum((d[size] - 1) * d[f"a_stride_{dim}"] for dim, size in sizes.items()) + d["n_channels"]
        weights = d["n_blocks"] * d["n_rows"] * d["n_columns"] * d["n_channels"] * machine.rows
        accumulators = d["n_blocks"] * d["height"] * d["width"]
        return (
            Access("a", memory["a"], activation, reads=True, writes=False),
            Access("w", memory["w"], weights, reads=True, writes=False),
            Access("acc", memory["acc"], accumulators, reads=bool(d["accumulate"]), writes=True),
        )
    if d.op == Opcode.VECTOR:
        rows = d["n_blocks"] * d["rows_count"]
        parameters = d["n_blocks"] * (machine.columns // machine.vector_lanes)
        result = (
            Access("acc", memory["acc"], rows, reads=True, writes=False),
            Access("out", memory["out"], rows, reads=False, writes=True),
            Access("param", memory["param"], parameters, reads=True, writes=False),
        )
        return (*result, Access("res", memory["res"], rows, reads=True, writes=False)) if d["add"] else result
    if d.op == Opcode.FORWARD:
        return _forward_accesses(d, machine)
    return element_accesses(d, machine) if d.op in ELEMENT_UNIT else ()


def _forward_accesses(d: Descriptor, machine: Machine) -> tuple[Access, ...]:
    words = -(-d["n_blocks"] * machine.columns // machine.rows)
    reach = (d["height"] - 1) * d["out_stride_y"] + (d["width"] - 1) * d["out_stride_x"] + words
    rows = d["n_blocks"] * d["height"] * d["width"]
    parameters = d["n_blocks"] * (machine.columns // machine.vector_lanes)
    return (
        Access("acc", MemoryId.ACCUMULATOR, rows, reads=True, writes=False),
        Access("out", MemoryId.ACTIVATION, reach, reads=False, writes=True),
        Access("param", MemoryId.PARAMETER, parameters, reads=True, writes=False),
    )


def limit(memory: MemoryId | None, machine: Machine, memory_bytes: int) -> int:
    """Words of a scratchpad, or bytes of external memory."""
    return memory_bytes if memory is None else machine.words[memory]


def unit(memory: MemoryId | None) -> str:
    """What addresses of a memory count."""
    return "bytes" if memory is None else "words"


def descriptor_problems(d: Descriptor, engine: str, machine: Machine) -> list[str]:
    """Why a descriptor cannot stand in an engine's queue of a machine; empty when it can.

    Checks the engine, field ranges, counts of at least 1, runs inside their word, the arithmetic that the vector
    unit has, and that no semaphore is named twice among waits or among signals.
    """
    if engine not in OPCODE_ENGINES[d.op]:
        owners = ", ".join(OPCODE_ENGINES[d.op])
        return [f"{d.op.name} does not belong into the {engine} queue ({owners})"]
    known = {item.name: item for item in fields(d.op)}
    problems = [f"{d.op.name} has no field {name!r}" for name in d.values if name not in known]
    for name, value in d.values.items():
        if name in known:
            low, high = field_range(known[name])
            if not low <= value <= high:
                problems.append(f"{name} is {value}; its field holds {low} to {high}")
    problems += [f"{name} is 0; the least is 1" for name in _COUNTS.get(d.op, ()) if d[name] == 0]
    try:
        missing = [item.memory for item in operands(d) if item.memory is not None and not machine.has(item.memory)]
    except TileProgramError as error:
        return [*problems, str(error)]
    if missing:
        return [*problems, f"the machine has no {place(missing[0])}: it was made without an element unit"]
    for verb in ("wait", "signal"):
        ids = [d[f"{verb}{slot}_id"] for slot in range(3) if d[f"{verb}{slot}_amount"]]
        problems += [f"semaphore {number} is named twice among the {verb}s" for number in _repeated(ids)]
    return problems + _run_problems(d, machine) + _vector_problems(d, machine) + element_problems(d, machine)


def _repeated(values: list[int]) -> list[int]:
    return sorted({value for value in values if values.count(value) > 1})


def _run_problems(d: Descriptor, machine: Machine) -> list[str]:
    if d.op == Opcode.STORE and d["byte_offset"]:
        return [f"byte_offset is {d['byte_offset']}; a STORE reads words from byte 0"]
    if d.op not in (Opcode.LOAD, Opcode.STORE):
        return []
    memory = store_source(d) if d.op == Opcode.STORE else MemoryId(d["memory"])
    end, word = d["byte_offset"] + d["run_bytes"], machine.word_bytes[memory]
    runs, words = d["n0"] * d["n1"] * d["n2"], machine.words[memory]
    problems = [f"a run ends at byte {end} of a word of the {place(memory)} of {word} bytes"] if end > word else []
    if memory == MemoryId.TABLE and d["byte_offset"] % machine.memory_bytes_per_cycle:
        problems.append(
            f"byte_offset is {d['byte_offset']}; tables are written a beat at a time, at multiples of "
            f"{machine.memory_bytes_per_cycle} bytes"
        )
    if d.op == Opcode.LOAD and runs > words:
        problems.append(f"{runs} runs into the {place(memory)} of {words} words write some word twice")
    if d.op == Opcode.STORE and runs > MAX_STORE_RUNS:
        problems.append(f"{runs} runs; a STORE has at most {MAX_STORE_RUNS}")
    return problems


def _vector_problems(d: Descriptor, machine: Machine) -> list[str]:
    if d.op not in (Opcode.VECTOR, Opcode.FORWARD):
        return []
    problems = []
    if d.op == Opcode.FORWARD and machine.rows % machine.vector_lanes:
        problems.append(
            f"a FORWARD writes {machine.vector_lanes} channels a cycle, but words of {machine.rows} bytes do not hold "
            "whole groups of them; vector_lanes must divide rows"
        )
    if d["low"] > d["high"]:
        problems.append(f"clamp bounds {d['low']} to {d['high']} hold no value")
    if d["add"] and machine.requantize != "q31":
        problems.append(f"a residual add needs requantization mode 'q31'; the machine has {machine.requantize!r}")
    if d["add"] and not 1 <= d["add_shift"] <= 62:
        problems.append(f"add_shift is {d['add_shift']}; 1 to 62 are valid")
    return problems


def semaphore_slots(d: Descriptor, verb: str) -> Slots:
    """Used (semaphore, amount) pairs of a descriptor; `verb` is "wait" or "signal"."""
    slots = ((d[f"{verb}{i}_id"], d[f"{verb}{i}_amount"]) for i in range(3))
    return tuple((semaphore, amount) for semaphore, amount in slots if amount)


def bounds_problems(
    d: Descriptor, addresses: Mapping[str, IntArray], machine: Machine, memory_bytes: int
) -> Iterator[str]:
    """Accesses of a descriptor that leave their memory, worst instance each; then operands that overlap."""
    for access in accesses(d, machine):
        base = addresses[access.operand]
        end = limit(access.memory, machine, memory_bytes)
        if base.size and int(base.min()) < 0:
            worst = int(base.argmin())
            yield f"{access.operand} begins at byte {int(base[worst])} in its execution {worst}: below the memory"
        if base.size and int(base.max()) + access.extent > end:
            worst = int(base.argmax())
            yield (
                f"{access.operand} reaches {unit(access.memory)} {int(base[worst])} to "
                f"{int(base[worst]) + access.extent - 1} in its execution {worst}; "
                f"the {place(access.memory)} has {end} {unit(access.memory)}"
            )
    if d.op in ELEMENT_UNIT:
        yield from overlap_problems(d, addresses, machine)
