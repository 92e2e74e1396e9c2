"""What a step does, counted: every access, every byte, every MAC, from its descriptors.

Counts are exact for the hardware that runs the descriptors, including the padding lanes it computes in vain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from accelerators.systolic.element_events import element_counts
from dse.program.tile.expand import expand
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import ELEMENT_UNIT
from dse.program.tile.program import Machine, TileStep

_WRITES = {
    MemoryId.ACTIVATION: "activation_writes",
    MemoryId.WEIGHT: "weight_writes",
    MemoryId.PARAMETER: "parameter_writes",
    MemoryId.RESIDUAL: "residual_writes",
    MemoryId.STATE: "state_writes",
    MemoryId.TABLE: "table_writes",
}
#: Memory read bytes of a LOAD go to the role of the scratchpad it fills.
ROLES = {
    MemoryId.ACTIVATION: "input",
    MemoryId.WEIGHT: "weight",
    MemoryId.PARAMETER: "parameter",
    MemoryId.RESIDUAL: "residual",
    MemoryId.STATE: "parameter",
    MemoryId.TABLE: "parameter",
}


def step_counts(step: TileStep, machine: Machine) -> Counter[str]:
    """Event counts of one execution of a step.

    Keys: macs_executed; reads and writes in words per memory (activation_reads, ...); requantized and added
    elements; memory_read_bytes, memory_write_bytes (beats x port width) and, per role, memory_bytes:ROLE;
    descriptors_fetched.
    """
    total: Counter[str] = Counter()
    for queue in step.queues.values():
        executed = np.bincount(expand(queue).descriptor, minlength=len(queue))
        for descriptor, times in zip(queue, executed, strict=True):
            if times:
                for name, value in descriptor_counts(descriptor, machine).items():
                    total[name] += value * int(times)
        total["descriptors_fetched"] += int(executed.sum()) + _loop_fetches(queue)
    return total


def _loop_fetches(queue: Sequence[Descriptor]) -> int:
    """How often LOOP and HALT descriptors of a queue are fetched."""

    def walk(low: int, high: int) -> int:
        count, i = 0, low
        while i < high:
            if queue[i].op == Opcode.LOOP:
                body = queue[i]["body"]
                count += 1 + queue[i]["count"] * walk(i + 1, i + 1 + body)
                i += body
            i += 1
        return count

    return walk(0, len(queue)) + 1


def descriptor_counts(d: Descriptor, machine: Machine) -> Mapping[str, int]:
    """Event counts of one execution of a descriptor."""
    if d.op in (Opcode.LOAD, Opcode.STORE):
        runs = d["n0"] * d["n1"] * d["n2"]
        beats = runs * -(-d["run_bytes"] // machine.memory_bytes_per_cycle)
        moved = beats * machine.memory_bytes_per_cycle
        if d.op == Opcode.STORE:
            # the store engine reads the word again for each of its beats
            read = "state_reads" if d["from_state"] else "output_reads"
            return {read: beats, "memory_write_bytes": moved, "memory_bytes:output": moved}
        memory = MemoryId(d["memory"])
        # every beat is written on its own, under byte enables
        return {_WRITES[memory]: beats, "memory_read_bytes": moved, f"memory_bytes:{ROLES[memory]}": moved}
    if d.op == Opcode.MATMUL:
        return _matmul_counts(d, machine)
    if d.op == Opcode.VECTOR:
        rows = d["n_blocks"] * d["rows_count"]
        groups = rows * (machine.columns // machine.vector_lanes)
        elements = rows * machine.columns
        return {
            "accumulator_reads": groups, "parameter_reads": groups, "output_writes": groups,
            "residual_reads": groups * d["add"], "requantized": elements, "adds": elements * d["add"],
        }  # fmt: skip
    if d.op == Opcode.FORWARD:
        rows = d["n_blocks"] * d["height"] * d["width"]
        groups = rows * (machine.columns // machine.vector_lanes)
        return {
            "accumulator_reads": groups, "parameter_reads": groups, "activation_writes": groups,
            "requantized": rows * machine.columns,
        }  # fmt: skip
    return element_counts(d, machine) if d.op in ELEMENT_UNIT else {}


def _matmul_counts(d: Descriptor, machine: Machine) -> Mapping[str, int]:
    blocks, pixels = d["n_blocks"], d["height"] * d["width"]
    folds = d["n_rows"] * d["n_columns"] * d["n_channels"]
    rows, columns = machine.rows, machine.columns
    if machine.dataflow == "ws":
        passes = blocks * folds
        return {
            "macs_executed": passes * pixels * rows * columns,
            "activation_reads": passes * pixels,
            "weight_reads": passes * rows,
            "accumulator_writes": passes * pixels,
            "accumulator_reads": (passes - blocks * (1 - d["accumulate"])) * pixels,
        }
    pixel_blocks = -(-pixels // rows)
    passes = blocks * pixel_blocks * folds
    return {
        "macs_executed": passes * rows * rows * columns,
        # a slot without a pixel reads no activation word
        "activation_reads": blocks * folds * pixels,
        "weight_reads": passes * rows,
        "accumulator_writes": blocks * pixels,
        "accumulator_reads": blocks * pixels * d["accumulate"],
    }
