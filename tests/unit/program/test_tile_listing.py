"""A listing shows every descriptor once, where it stands, with what it does."""

from __future__ import annotations

import numpy as np
import pytest
from tile_samples import HALT, loop, op, pipeline, random_descriptor

from dse.program.tile.isa import Descriptor, Opcode, fields
from dse.program.tile.listing import listing, queue_lines


def test_a_pipeline_reads_like_its_queues() -> None:
    sample = pipeline(3, blocks=2, tiles=3)
    text = listing(sample.step)
    assert text.startswith("step sample: op (0 useful MACs) in layer 0\n\nload: 6 descriptors\n")
    lines = text.splitlines()
    counts = [len(sample.step.queues[engine]) for engine in ("load", "matmul", "vector", "store")]
    assert len(lines) == 1 + sum(2 + count for count in counts)
    matmul = lines[lines.index("matmul: 7 descriptors") + 1 :][:7]
    assert [line[:14] for line in matmul[:4]] == [
        "    0  SYNC si",
        "    1  LOOP i0",
        "    2    SYNC ",
        "    3    LOOP ",
    ]
    assert matmul[4].startswith("    4      MATMUL a=0 half(0^i0^i1) w=0 half(0^i0) acc=0 half(0^i0^i1) n_blocks=1")
    assert matmul[4].endswith("wait s0x1,s5x1 signal s1x1,s4x1")
    assert matmul[5] == "    5    SYNC signal s3x1"
    assert matmul[6] == "    6  HALT"


def test_loops_that_end_together_close_together() -> None:
    sync = op(Opcode.SYNC)
    lines = queue_lines((*loop(2, sync, *loop(3, sync)), sync, HALT))
    assert lines == [
        "    0  LOOP i0 < 2: 3 descriptors",
        "    1    SYNC",
        "    2    LOOP i1 < 3: 1 descriptors",
        "    3      SYNC",
        "    4  SYNC",
        "    5  HALT",
    ]


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE, Opcode.MATMUL, Opcode.VECTOR])
def test_every_field_that_is_set_shows(opcode: Opcode) -> None:
    plain = queue_lines((Descriptor(opcode),))[0]
    full = random_descriptor(np.random.default_rng(1), opcode)
    for item in fields(opcode)[1:]:
        if item.name == "layer" or item.name.endswith("_id"):
            continue  # the step names the layer; a semaphore without an amount is not used
        value = full[item.name] or 1
        shown = queue_lines((Descriptor(opcode, {item.name: value}),))[0]
        assert shown != plain, item.name
