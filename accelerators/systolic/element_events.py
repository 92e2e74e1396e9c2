"""What descriptors of the element unit do: accesses of memories and operations of lanes, for the energy of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dse.program.tile.footprint_element import destination_rows, element_accesses, looked_up
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import Normalize
from dse.program.tile.program import Machine
from dse.program.tile.timing_element import written_lanes

_NAMES = {
    MemoryId.ACTIVATION: "activation",
    MemoryId.RESIDUAL: "residual",
    MemoryId.ACCUMULATOR: "accumulator",
    MemoryId.OUTPUT: "output",
    MemoryId.STATE: "state",
    MemoryId.PARAMETER: "parameter",
}
#: Passes over the source of NORMALIZE: reductions, and the pass that writes.
_PASSES = {Normalize.SOFTMAX: 3, Normalize.CENTRE: 2}


def element_counts(d: Descriptor, machine: Machine) -> Mapping[str, int]:
    """Event counts of one execution of SCALE, ELEMENT, POOL or NORMALIZE, accesses once per lane group."""
    counts: Counter[str] = Counter()
    rows = destination_rows(d)
    elements = d["n_blocks"] * rows * machine.columns
    into = MemoryId(d["dst_memory"])
    # a group that goes into its destination in parts is read for each
    groups = elements // written_lanes(into, machine) if d.op != Opcode.NORMALIZE else elements // machine.vector_lanes
    reads = groups
    if d.op == Opcode.POOL:
        reads = groups * d["kernel_rows"] * d["kernel_columns"]
    elif d.op == Opcode.NORMALIZE:
        reads = groups * _PASSES[Normalize(d["function"])]
    for access in element_accesses(d, machine):
        if access.operand in ("dst", "table") or access.memory is None:
            continue
        counts[f"{_NAMES[access.memory]}_reads"] += reads
    counts[f"{_NAMES[into]}_writes"] += elements // written_lanes(into, machine)
    destination = next(access for access in element_accesses(d, machine) if access.operand == "dst")
    if destination.reads:
        counts[f"{_NAMES[into]}_reads"] += groups
    counts["requantized" if d.op == Opcode.SCALE else "element_operations"] += reads * machine.vector_lanes
    if looked_up(d):
        counts["look_ups"] += elements * (2 if d.op == Opcode.NORMALIZE else 1)
    return counts
