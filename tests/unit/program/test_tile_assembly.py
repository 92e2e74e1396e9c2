"""A listing is a program: read back it has the same queues; what is no listing is refused by line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import HALT, loop, pipeline, random_descriptor, step

from dse.program.tile.assemble import assemble
from dse.program.tile.encode import encode_queue
from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import ENGINES, OPCODE_ENGINES, Descriptor, Opcode
from dse.program.tile.listing import listing
from dse.program.tile.program import TileStep


def canonical(d: Descriptor) -> Descriptor:
    """Semaphores in the first slots, without numbers of unused ones: what a listing can tell."""
    values = {name: value for name, value in d.values.items() if value and not name.startswith(("wait", "signal"))}
    for verb in ("wait", "signal"):
        used = [slot for slot in range(3) if d[f"{verb}{slot}_amount"]]
        for place, slot in enumerate(used):
            values[f"{verb}{place}_amount"] = d[f"{verb}{slot}_amount"]
            if d[f"{verb}{slot}_id"]:
                values[f"{verb}{place}_id"] = d[f"{verb}{slot}_id"]
    return Descriptor(d.op, values)


def same(found: TileStep, wanted: TileStep) -> bool:
    queues = [encode_queue(found.queues[e]) == encode_queue(wanted.queues[e]) for e in ENGINES]
    return all(queues) and replace(found, queues={}, notes={}) == replace(wanted, queues={}, notes={})


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([o for o in Opcode if o != Opcode.LOOP]), st.integers(0, 5000))
def test_any_descriptor_survives_its_line(seed: int, opcode: Opcode, layer: int) -> None:
    d = canonical(random_descriptor(np.random.default_rng(seed), opcode))
    engine = OPCODE_ENGINES[opcode][0]
    wanted = replace(step(**{engine: loop(2, d)}), layer=layer, ops=("a b", 'say "x"', "plain"), name="s: t")
    assert same(assemble(listing(wanted)), wanted)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_pipelines_survive_their_listing(seed: int) -> None:
    sample = pipeline(seed)
    found = assemble(listing(sample.step))
    assert same(found, sample.step)
    assert listing(found) == listing(sample.step)


def test_names_stand_for_numbers() -> None:
    text = listing(step(vector=[Descriptor(Opcode.ELEMENT, {"function": 4, "dst_memory": 6, "a_memory": 4})]))
    assert "a_memory=accumulator b_memory=activation dst_memory=state" in text
    assert "function=muladd" in text
    assert (
        assemble(text).queues["vector"]
        == assemble(text.replace("=muladd", "=4").replace("=state", "=6")).queues["vector"]
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("step sample", "stop sample", "line 1: a listing begins with"),
        ("load: 1", "load: 2", "line 3: 2 descriptors announced, 1 follow"),
        ("load: 1", "lord: 1", "line 3: a descriptor before the first queue"),
        ("matmul: 1", "load: 1", "a second queue of the load engine"),
        ("SYNC", "SINK", "'SINK' is no opcode; did you mean 'SYNC'"),
        ("    0  SYNC", "    7  SYNC", "position 7, but 0 descriptors"),
        ("flags=3", "flogs=3", "SYNC has no field 'flogs'; did you mean 'flags'"),
        ("flags=3", "flags=300", "flags is 300; its field holds 0 to 255"),
        ("flags=3", "flags=few", "flags is 'few', no number"),
        ("s2x5", "s16x5", "semaphore 16; there are 16"),
        ("s2x5", "s2x256", "wait0_amount is 256; its field holds 0 to 255"),
        ("flags=3", "what?", r"'what\? wait s2x5' is neither a field nor a semaphore"),
        ("i0 < 4:", "i0 = 4:", "a LOOP reads"),
        ("local=1+2*i0", "local=1+2*i7", "loop index i7; loops nest to depth 4"),
    ],
)
def test_what_is_no_listing_is_refused_by_line(old: str, new: str, message: str) -> None:
    sync = Descriptor(Opcode.SYNC, {"flags": 3, "wait0_id": 2, "wait0_amount": 5})
    store = Descriptor(Opcode.STORE, {"local_base": 1, "local_inc0": 2})
    text = listing(step(vector=[sync], store=loop(4, store)))
    assert text.count(old) >= 1
    with pytest.raises(TileProgramError, match=message):
        assemble(text.replace(old, new, 1))


def test_a_missing_queue_is_named() -> None:
    text = listing(step())
    assert assemble(text).queues["store"] == (HALT,)
    with pytest.raises(TileProgramError, match="no queue of the store engine"):
        assemble(text[: text.index("store")])
