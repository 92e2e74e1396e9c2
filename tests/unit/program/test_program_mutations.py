"""Damaged programs are rejected, or run to their end: they never hang and never leave their memories."""

from __future__ import annotations

from collections import Counter

import numpy as np
from program_mutations import mutant, opcodes, verdict, victims
from tile_samples import small_machine

from dse.program.tile.checker import check
from dse.program.tile.footprint import MAX_STORE_RUNS, descriptor_problems
from dse.program.tile.footprint_element import MAX_POOL_READS
from dse.program.tile.isa import Descriptor, MemoryId, Opcode


def test_mutants_of_compiled_programs_are_rejected_or_run_to_their_end() -> None:
    rng = np.random.default_rng(2)
    found = victims(24)
    assert opcodes([victim.step for victim in found]) >= {
        Opcode.LOOP, Opcode.LOAD, Opcode.STORE, Opcode.MATMUL, Opcode.VECTOR, Opcode.SCALE, Opcode.ELEMENT,
    }  # fmt: skip
    for victim in found:
        assert check(victim.step, victim.machine, victim.memory.size) == []
    seen: Counter[str] = Counter()
    for _ in range(800):
        victim = found[int(rng.integers(0, len(found)))]
        seen[verdict(victim, mutant(rng, victim), (1,))] += 1
    # both ends of the rule are met
    assert seen["rejected"] >= 300, seen
    assert seen["ran"] >= 100, seen


def test_descriptors_that_would_not_end_are_refused() -> None:
    machine = small_machine()
    load = {"n0": 65535, "n1": 65535, "n2": 65535, "run_bytes": 1, "memory": MemoryId.STATE}
    assert "write some word twice" in descriptor_problems(Descriptor(Opcode.LOAD, load), "load", machine)[0]
    store = {"n0": 65535, "n1": 65535, "n2": 1, "run_bytes": 1}
    assert f"at most {MAX_STORE_RUNS}" in descriptor_problems(Descriptor(Opcode.STORE, store), "store", machine)[0]
    pool = {"n_blocks": 1, "height": 255, "width": 255, "kernel_rows": 255, "kernel_columns": 255, "a_memory": 5,
            "dst_memory": 6}  # fmt: skip
    found = descriptor_problems(Descriptor(Opcode.POOL, pool), "vector", machine)
    assert f"at most {MAX_POOL_READS}" in found[0]
