"""What a step does, counted from its descriptors, by layer: products, accesses, bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from accelerators.npu.graph import weight_bytes
from accelerators.npu.hardware import NpuHardware
from accelerators.npu.timing import DIAGONAL, SPARSE, array_steps, feature_beats, is_constant, load_bytes, passes
from accelerators.npu.weights import Stream
from dse.program.tile.expand import expand
from dse.program.tile.footprint_element import destination_rows
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import ELEMENT_UNIT
from dse.program.tile.program import Machine, TileStep

_PADS = {
    MemoryId.ACTIVATION: "activation_spad", MemoryId.WEIGHT: "weight_spad", MemoryId.PARAMETER: "parameter_memory",
    MemoryId.RESIDUAL: "residual_buffer", MemoryId.STATE: "state_memory", MemoryId.TABLE: "table_memory",
    MemoryId.OUTPUT: "output_buffer", MemoryId.ACCUMULATOR: "accumulator",
}  # fmt: skip


def step_counts(
    step: TileStep, hw: NpuHardware, machine: Machine, encoded: Mapping[int, Stream]
) -> dict[int, Counter[str]]:
    """Event counts of a step by layer; names are those of `unit_energies`, and

    `array_macs` (multipliers times cycles of products, idle ones too), `feature_read_bytes`, `feature_write_bytes`.
    """
    total: dict[int, Counter[str]] = {}
    for engine, queue in step.queues.items():
        expanded = expand(queue)
        executed = np.bincount(expanded.descriptor, minlength=len(queue))
        for d, times in zip(queue, executed, strict=True):
            counts = total.setdefault(d["layer"], Counter()) if times else Counter()
            for name, value in _counts(d, hw, machine).items() if times else ():
                counts[name] += value * int(times)
            counts["descriptors"] += int(times)
        if engine == "load":
            for layer, size in weight_bytes(queue, expanded, machine, encoded).items():
                total[layer]["constant_bytes"] += size
    return total


def _counts(d: Descriptor, hw: NpuHardware, machine: Machine) -> Mapping[str, int]:
    """Event counts of one execution of a descriptor."""
    if d.op == Opcode.LOAD:
        runs, memory = d["n0"] * d["n1"] * d["n2"], MemoryId(d["memory"])
        written = {f"{_PADS[memory]}_writes": runs}
        if is_constant(d):
            return written | ({"decoded_weights": load_bytes(d)} if memory == MemoryId.WEIGHT else {})
        moved = feature_beats(d, hw) * hw.feature_bytes_per_cycle
        return written | {"feature_bytes": moved, "feature_read_bytes": moved}
    if d.op == Opcode.STORE:
        moved = feature_beats(d, hw) * hw.feature_bytes_per_cycle
        runs = d["n0"] * d["n1"] * d["n2"]
        return {"output_buffer_reads": runs, "feature_bytes": moved, "feature_write_bytes": moved}
    if d.op == Opcode.MATMUL:
        return _matmul_counts(d, hw)
    groups = machine.columns // machine.vector_lanes
    if d.op == Opcode.VECTOR:
        rows = d["n_blocks"] * d["rows_count"]
        return {
            "accumulator_reads": rows * passes(d, hw), "parameter_memory_reads": rows * groups,
            "output_buffer_writes": rows, "residual_buffer_reads": rows * d["add"],
            "requantized": rows * machine.columns,
        }  # fmt: skip
    if d.op in ELEMENT_UNIT:
        words = d["n_blocks"] * destination_rows(d)
        name = "requantized" if d.op == Opcode.SCALE else "element_operations"
        read = "accumulator_reads" if d.op == Opcode.SCALE else "state_memory_reads"
        return {
            name: words * machine.columns, read: words, f"{_PADS[MemoryId(d['dst_memory'])]}_writes": words,
            "table_memory_reads": words * machine.columns * d["look_up"],
        }  # fmt: skip
    return {}


def _matmul_counts(d: Descriptor, hw: NpuHardware) -> Mapping[str, int]:
    blocks, taps, words, pixels = d["n_blocks"], d["n_rows"] * d["n_columns"], d["n_channels"], d["height"] * d["width"]
    steps = array_steps(d, hw)
    peak = hw.macs * (2 if d["flags"] & SPARSE else 1)
    if d["flags"] & DIAGONAL:
        folds, products = math.ceil(taps / hw.depthwise_taps), blocks * taps * hw.output_channels * pixels
        weight_words = blocks * taps
    else:
        folds = taps * (math.ceil(words / 2) if d["flags"] & SPARSE else words)
        products = blocks * folds * hw.input_channels * hw.output_channels * pixels
        weight_words = blocks * folds * hw.input_channels
    sums = blocks * folds * pixels
    return {
        "array_macs": steps * peak, "macs": products, "weight_words": weight_words,
        # cores share what they read
        "pixel_words": math.ceil(blocks / hw.cores) * taps * words * pixels,
        "sums": sums * hw.output_channels, "accumulator_writes": sums,
        "accumulator_reads": sums - blocks * pixels * (1 - d["accumulate"]),
    }  # fmt: skip
