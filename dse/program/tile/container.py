"""A whole tile program as bytes: a header, a manifest, the descriptors, the memory image.

    offset  bytes
    0       8      magic
    8       2      version of the instruction set
    10      4      bytes of the manifest (JSON: machine, steps with the lengths of their queues, placements)
    14      4      descriptors in all queues
    18      8      bytes of the memory image (0: compiled from shapes only)
    26      4      CRC-32 of everything behind the header
    30             manifest, descriptors (64 bytes each, step by step, queues in the order of `ENGINES`), image

Numbers are little endian. Nothing of a file is trusted: damage and nonsense end in one clear error.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, fields

import numpy as np
from pydantic import TypeAdapter, ValidationError

from dse.ir.requantize import MODES
from dse.program.tile.encode import decode_queue, encode_queue
from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import DESCRIPTOR_BYTES, ENGINES, ISA_VERSION, MemoryId
from dse.program.tile.program import HostStep, Machine, TensorPlacement, TileProgram, TileStep

MAGIC = b"DSE-TILE"
_HEADER = struct.Struct("<8sHIIQI")


@dataclass(frozen=True)
class _TileEntry:
    """A tile step in the manifest; `lengths` of its queues in the order of `ENGINES`."""

    name: str
    ops: tuple[str, ...]
    useful_macs: int
    layer: int
    lengths: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Manifest:
    machine: Machine
    steps: tuple[_TileEntry | HostStep, ...]
    placements: dict[str, TensorPlacement]
    memory_bytes: int
    constants_bytes: int


_MANIFEST = TypeAdapter(_Manifest)


def encode_program(program: TileProgram) -> bytes:
    """A program as bytes; the same program gives the same bytes. `TileStep.notes` are left out.

    Raises
    ------
    InfeasibleError: a descriptor's value does not fit its field.
    """
    steps: list[_TileEntry | HostStep] = []
    queues = b""
    for step in program.steps:
        if isinstance(step, HostStep):
            steps.append(step)
            continue
        first, second, third, fourth = (len(step.queues[engine]) for engine in ENGINES)
        lengths = (first, second, third, fourth)
        steps.append(_TileEntry(step.name, step.ops, step.useful_macs, step.layer, lengths))
        queues += b"".join(encode_queue(step.queues[engine]) for engine in ENGINES)
    manifest = _MANIFEST.dump_json(
        _Manifest(
            program.machine, tuple(steps), dict(program.placements), program.memory_bytes, program.constants_bytes
        )
    )
    image = b"" if program.image is None else program.image.tobytes()
    content = manifest + queues + image
    count = len(queues) // DESCRIPTOR_BYTES
    return _HEADER.pack(MAGIC, ISA_VERSION, len(manifest), count, len(image), zlib.crc32(content)) + content


def decode_program(data: bytes) -> TileProgram:
    """The program in some bytes.

    Raises
    ------
    TileProgramError: no tile program, another version of the instruction set, cut off or damaged, a manifest that
    contradicts itself, a descriptor that does not decode.
    """
    if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise TileProgramError(f"no tile program: {len(data)} bytes that do not begin with {MAGIC!r} and a header")
    _, version, manifest_bytes, descriptors, image_bytes, checksum = _HEADER.unpack_from(data)
    if not 1 <= version <= ISA_VERSION:
        raise TileProgramError(f"a tile program of instruction set version {version}; this is version {ISA_VERSION}")
    expected = _HEADER.size + manifest_bytes + descriptors * DESCRIPTOR_BYTES + image_bytes
    if len(data) != expected:
        raise TileProgramError(f"a tile program of {expected} bytes by its header has {len(data)}: it is cut off")
    content = memoryview(data)[_HEADER.size :]
    if zlib.crc32(content) != checksum:
        raise TileProgramError("the tile program is damaged: its checksum does not match")
    manifest = _manifest(bytes(content[:manifest_bytes]))
    first_image_byte = manifest_bytes + descriptors * DESCRIPTOR_BYTES
    steps = _steps(manifest, bytes(content[manifest_bytes:first_image_byte]))
    if image_bytes not in (0, manifest.memory_bytes):
        raise TileProgramError(f"a memory image of {image_bytes} bytes for a memory of {manifest.memory_bytes}")
    image = np.frombuffer(content[first_image_byte:], np.uint8).copy() if image_bytes else None
    return TileProgram(
        manifest.machine, steps, manifest.placements, manifest.memory_bytes, image, manifest.constants_bytes
    )


def _manifest(text: bytes) -> _Manifest:
    try:
        manifest = _MANIFEST.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise TileProgramError(f"the tile program's manifest is invalid at {where}: {first['msg']}") from None
    machine = manifest.machine
    for memory in MemoryId:
        if memory in (MemoryId.STATE, MemoryId.TABLE) and memory not in machine.words:
            continue
        if machine.words.get(memory, 0) < 2 or machine.word_bytes.get(memory, 0) < 1:
            raise TileProgramError(f"the tile program's machine has no {memory.name.lower()} scratchpad")
    for item in fields(Machine):
        value = getattr(machine, item.name)
        if isinstance(value, int) and value < 1:
            raise TileProgramError(f"the tile program's machine has {item.name} {value}; the least is 1")
    if machine.columns % machine.vector_lanes or machine.weight_bits not in (4, 8):
        raise TileProgramError(
            f"the tile program's machine has {machine.vector_lanes} lanes for {machine.columns} columns and weights "
            f"of {machine.weight_bits} bits; lanes divide columns, weights have 4 or 8 bits"
        )
    if machine.requantize not in MODES or machine.dataflow not in ("ws", "os"):
        raise TileProgramError(
            f"the tile program's machine has mode {machine.requantize!r}, dataflow {machine.dataflow!r}; "
            f"known are {', '.join(MODES)} and ws, os"
        )
    return manifest


def _steps(manifest: _Manifest, queues: bytes) -> tuple[TileStep | HostStep, ...]:
    lengths = [length for entry in manifest.steps if isinstance(entry, _TileEntry) for length in entry.lengths]
    if min(lengths, default=0) < 0 or sum(lengths) * DESCRIPTOR_BYTES != len(queues):
        raise TileProgramError(
            f"the queues of the manifest have {sum(lengths)} descriptors, the program {len(queues) // DESCRIPTOR_BYTES}"
        )
    steps: list[TileStep | HostStep] = []
    position = 0
    for entry in manifest.steps:
        if isinstance(entry, HostStep):
            steps.append(entry)
            continue
        decoded = {}
        for engine, length in zip(ENGINES, entry.lengths, strict=True):
            end = position + length * DESCRIPTOR_BYTES
            try:
                decoded[engine] = decode_queue(queues[position:end])
            except TileProgramError as error:
                raise TileProgramError(f"{entry.name}: {engine}: {error}") from None
            position = end
        steps.append(TileStep(entry.name, entry.ops, decoded, entry.useful_macs, entry.layer))
    return tuple(steps)
