"""Descriptors and programs survive their bytes; what is not theirs is refused in one clear sentence."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import pipeline, random_descriptor, value_range

from dse.core.errors import InfeasibleError
from dse.program.tile.container import decode_program, encode_program
from dse.program.tile.encode import decode_descriptor, decode_queue, encode_descriptor, encode_queue
from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import Descriptor, Opcode, fields
from dse.program.tile.program import HostStep, TensorPlacement, TileProgram

opcodes = st.sampled_from(Opcode)
seeds = st.integers(0, 2**32 - 1)


def program(seed: int, *, image: bool = True) -> TileProgram:
    """Two tile steps around a host step."""
    sample = pipeline(seed)
    steps = (sample.step, HostStep("pool", "gap", "average_pool", 64, 8, 1), replace(sample.step, name="zwei ✓"))
    placements = {"x": TensorPlacement("x", 0, 1, 3, 4, 5, (1, 0, 1, 2), -7)}
    contents = sample.memory if image else None
    return TileProgram(sample.machine, steps, placements, sample.memory.size, contents, 12)


def resealed(data: bytes, change: tuple[bytes, bytes]) -> bytes:
    """A program with bytes of its content replaced and lengths and checksum made right again."""
    magic, version, size, count, image, _ = struct.unpack_from("<8sHIIQI", data)
    content = data[30:].replace(*change, 1)
    size += len(change[1]) - len(change[0])
    return struct.pack("<8sHIIQI", magic, version, size, count, image, zlib.crc32(content)) + content


@given(opcodes, seeds)
def test_every_descriptor_survives_its_512_bits(opcode: Opcode, seed: int) -> None:
    d = random_descriptor(np.random.default_rng(seed), opcode)
    word = encode_descriptor(d)
    assert word < 1 << 512
    back = decode_descriptor(word)
    assert back.op == opcode
    assert all(back[item.name] == d[item.name] for item in fields(opcode)[1:])
    assert encode_descriptor(back) == word


@given(opcodes, seeds)
def test_bits_stand_where_the_field_widths_add_up_to(opcode: Opcode, seed: int) -> None:
    d = random_descriptor(np.random.default_rng(seed), opcode)
    digits = ""
    for item in fields(opcode):
        value = int(opcode) if item.name == "op" else d[item.name]
        digits = format(value % 2**item.bits, f"0{item.bits}b") + digits
    assert encode_descriptor(d) == int(digits, 2)


@pytest.mark.parametrize("opcode", list(Opcode))
def test_values_beyond_a_field_are_infeasible_and_name_it(opcode: Opcode) -> None:
    for item in fields(opcode)[1:]:
        low, high = value_range(item)
        for value in (low - 1, high + 1):
            with pytest.raises(InfeasibleError, match=rf"{opcode.name} descriptor: {item.name} in {item.bits} bits"):
                encode_descriptor(Descriptor(opcode, {item.name: value}))


def test_fields_of_another_opcode_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(TileProgramError, match="LOOP has no field 'cuont'; did you mean 'count'"):
        encode_descriptor(Descriptor(Opcode.LOOP, {"cuont": 2}))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (1 << 512, "512 bits, this one 513"),
        (15, "15 is no opcode"),
        (int(Opcode.SYNC) | 1 << 511, "sets bits behind"),
        (-1, "512 bits"),
    ],
)
def test_words_that_are_no_descriptor_are_refused(word: int, message: str) -> None:
    with pytest.raises(TileProgramError, match=message):
        decode_descriptor(word)


@given(st.lists(st.tuples(opcodes, seeds), max_size=6))
def test_queues_survive_their_bytes(items: list[tuple[Opcode, int]]) -> None:
    queue = [random_descriptor(np.random.default_rng(seed), opcode) for opcode, seed in items]
    data = encode_queue(queue)
    assert len(data) == 64 * len(queue)
    assert encode_queue(decode_queue(data)) == data


def test_a_cut_or_damaged_queue_names_its_descriptor() -> None:
    data = encode_queue([Descriptor(Opcode.SYNC), Descriptor(Opcode.HALT)])
    with pytest.raises(TileProgramError, match="127: its last descriptor is cut"):
        decode_queue(data[:-1])
    with pytest.raises(TileProgramError, match="descriptor 1: 15 is no opcode"):
        decode_queue(data[:64] + b"\x0f" + data[65:])


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_programs_survive_their_bytes(seed: int, image: bool) -> None:
    original = program(seed, image=image)
    data = encode_program(original)
    back = decode_program(data)
    assert encode_program(back) == data
    assert back.machine == original.machine
    assert dict(back.placements) == dict(original.placements)
    assert (back.memory_bytes, back.constants_bytes) == (original.memory_bytes, original.constants_bytes)
    assert back.steps[1] == original.steps[1]
    for mine, given_step in zip(back.tile_steps, original.tile_steps, strict=True):
        assert (mine.name, mine.ops, mine.layer) == (given_step.name, given_step.ops, given_step.layer)
        assert {e: encode_queue(q) for e, q in mine.queues.items()} == {
            e: encode_queue(q) for e, q in given_step.queues.items()
        }
    assert (back.image is None) == (original.image is None)
    if original.image is not None:
        np.testing.assert_array_equal(back.image, original.image)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_to_a_program_is_noticed(data: st.DataObject) -> None:
    good = encode_program(program(1))
    position = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    bad = bytearray(good)
    bad[position] ^= 1 << bit
    with pytest.raises(TileProgramError):
        decode_program(bytes(bad))
    with pytest.raises(TileProgramError, match=r"cut off|no tile program"):
        decode_program(good[:position])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b'"rows":', b'"rats":'), "manifest is invalid at machine.rows"),
        ((b'"columns":4', b'"columns":0'), "columns 0; the least is 1"),
        ((b'"vector_lanes":', b'"vector_lanes":9'), "lanes divide columns"),
        ((b'"weight_bits":8', b'"weight_bits":5'), "weights of 5 bits"),
        ((b'"dataflow":"ws"', b'"dataflow":"ab"'), "dataflow 'ab'"),
        ((b'"lengths":[6,', b'"lengths":[7,'), "descriptors, the program"),
        ((b'"lengths":[6,', b'"lengths":[-6,'), "descriptors, the program"),
        ((b'"weight_bits":8', b'"weight_bits":"x"'), "manifest is invalid at machine.weight_bits"),
        ((b'"memory_bytes":', b'"memory_bytes":9'), "memory image of"),
        ((b'{"machine"', b'["machine"'), "manifest is invalid at the whole"),
    ],
)
def test_programs_that_contradict_themselves_are_refused(change: tuple[bytes, bytes], message: str) -> None:
    data = encode_program(program(3))
    assert change[0] in data
    with pytest.raises(TileProgramError, match=message):
        decode_program(resealed(data, change))


def test_programs_of_another_version_are_refused() -> None:
    data = bytearray(encode_program(program(2)))
    data[8] += 1
    with pytest.raises(TileProgramError, match="instruction set version 3; this is version 2"):
        decode_program(bytes(data))
