"""The tile instruction set: 64-byte stateless descriptors, one in-order queue per engine.

A machine has four engines, each with a descriptor queue of its own: `load` (memory -> scratchpads),
`matmul` (activation x weight -> accumulator), `vector` (accumulator -> output buffer) and `store`
(output buffer -> memory). They meet only through 16 counting semaphores of 8 bits.

Life of a descriptor: fetch, evaluate its addresses from the loop indices, wait until every awaited
semaphore holds its amount (then subtract all at once), execute, add its signals, fetch the next.
A semaphore has one consuming queue, and a descriptor names it at most once among its waits and at most once
among its signals.
LOOP (count, body) repeats the next `body` descriptors of the same queue `count` times, nested to depth 4;
level 0 is the outermost loop around a descriptor. Loop index d enters an operand's address as

    address = base + sum_d index[d] * inc_d  +  half * (phase XOR parity(index bits selected by toggle))

where `half` is half the words of the memory the operand lives in (ping-pong buffers), and `toggle` selects,
bit d for level d, the loop indices whose lowest bit flips the buffer. Memory addresses are bytes, scratchpad
addresses are words.

Semantics of the operations (the interpreter is the executable form):

LOAD    for i0 < n0, i1 < n1, i2 < n2: copy `run_bytes` bytes from memory at ext + i0*es0 + i1*es1 + i2*es2
        into bytes [byte_offset, byte_offset + run_bytes) of word dst + i0*ds0 + i1*ds1 + i2*ds2 of `memory`.
STORE   the same from the output buffer to memory, bytes [0, run_bytes) of each word.
MATMUL  for n < n_blocks, (r, s, c) in n_rows x n_columns x n_channels [one fold each], for y < height, x < width:
        acc[acc + (n*height + y)*width + x] (+)= A[a + n*an + r*ar + s*as + c + y*ay + x*ax] @ W[w + fold*rows ...]
        where `fold` counts from 0 over (n, r, s, c) and a fold's weights are `rows` consecutive words, word i
        holding array row i. The first fold of each n overwrites unless `accumulate` is 1. int32 accumulators.
VECTOR  for n < n_blocks, m < rows_count: row m of block n is acc[acc + n*rows_count + m]; lane j gets
        y = clamp(requantize(row[j] + bias[j]) + zero_point); see `dse.ir.requantize` for both modes. With
        `add`: y is saturated to int8 first, then t = (y - zero_point)*multiplier_y +
        (RES[res + n*rows_count + m][j] - zero_point_res)*multiplier_res;
        y = clamp(((t + (1 << (add_shift-1))) >> add_shift) + zero_point_add), clamp = [low, high].
        Written to OUT[out + n*rows_count + m][j]. Channel parameters are words of `vector_lanes` lanes at
        PARAM[param + n*(columns/lanes) + j//lanes].
        res has the increments of out.
SYNC    waits and signals only.     LOOP see above.     HALT ends a queue.

A channel's parameters are 9 bytes: int32 bias, uint32 multiplier, int8 shift (little endian).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

ISA_VERSION = 1
DESCRIPTOR_BYTES = 64
LOOP_DEPTH = 4
SEMAPHORES = 16
SEMAPHORE_MAX = 255
PARAMETER_BYTES = 9

ENGINES = ("load", "matmul", "vector", "store")


class Opcode(IntEnum):
    """Operation codes; the engine that may hold each is in `OPCODE_ENGINES`."""

    HALT = 0
    LOOP = 1
    SYNC = 2
    LOAD = 3
    STORE = 4
    MATMUL = 5
    VECTOR = 6


class MemoryId(IntEnum):
    """Scratchpad memories. LOAD may write the first four."""

    ACTIVATION = 0
    WEIGHT = 1
    PARAMETER = 2
    RESIDUAL = 3
    ACCUMULATOR = 4
    OUTPUT = 5


OPCODE_ENGINES: Mapping[Opcode, tuple[str, ...]] = {
    Opcode.HALT: ENGINES,
    Opcode.LOOP: ENGINES,
    Opcode.SYNC: ENGINES,
    Opcode.LOAD: ("load",),
    Opcode.STORE: ("store",),
    Opcode.MATMUL: ("matmul",),
    Opcode.VECTOR: ("vector",),
}


@dataclass(frozen=True)
class Field:
    """One field of a descriptor: little-endian bit position is the sum of the widths before it."""

    name: str
    bits: int
    signed: bool = False


def _operand(name: str, base_bits: int, inc_bits: int, *, toggles: bool = True) -> list[Field]:
    """Base, loop increments and, for ping-pong operands, phase and toggle of one operand."""
    fields = [Field(f"{name}_base", base_bits)]
    fields += [Field(f"{name}_inc{d}", inc_bits) for d in range(LOOP_DEPTH)]
    if toggles:
        fields += [Field(f"{name}_phase", 1), Field(f"{name}_toggle", LOOP_DEPTH)]
    return fields


#: Common to all: what to do, which layer (for traces), three waits and three signals (amount 0 = unused).
HEADER: tuple[Field, ...] = (
    Field("op", 4),
    Field("flags", 8),
    Field("layer", 12),
    *(Field(f"wait{i}_{part}", bits) for i in range(3) for part, bits in (("id", 4), ("amount", 8))),
    *(Field(f"signal{i}_{part}", bits) for i in range(3) for part, bits in (("id", 4), ("amount", 8))),
)

_DMA = (
    *(Field(f"n{i}", 16) for i in range(3)),
    Field("run_bytes", 16),
    *_operand("ext", 32, 24, toggles=False),
    *(Field(f"ext_stride{i}", 24) for i in range(3)),
    *_operand("local", 16, 16),
    *(Field(f"local_stride{i}", 16) for i in range(3)),
    Field("byte_offset", 8),
)

#: Payload of each opcode, behind `HEADER`. Header and payload fill at most 512 bits.
PAYLOAD: Mapping[Opcode, tuple[Field, ...]] = {
    Opcode.HALT: (),
    Opcode.LOOP: (Field("count", 16), Field("body", 16)),
    Opcode.SYNC: (),
    Opcode.LOAD: (*_DMA, Field("memory", 3)),
    Opcode.STORE: _DMA,
    Opcode.MATMUL: (
        Field("n_blocks", 16),
        Field("n_rows", 8),
        Field("n_columns", 8),
        Field("n_channels", 16),
        Field("height", 16),
        Field("width", 16),
        *_operand("a", 16, 16),
        *(Field(f"a_stride_{dim}", 16) for dim in ("n", "r", "s", "y", "x")),
        *_operand("w", 16, 16),
        *_operand("acc", 16, 16),
        Field("accumulate", 1),
    ),
    Opcode.VECTOR: (
        Field("n_blocks", 16),
        Field("rows_count", 16),
        *_operand("acc", 16, 16),
        *_operand("out", 16, 16),
        *_operand("param", 16, 16, toggles=False),
        Field("res_base", 16),
        Field("res_phase", 1),
        Field("res_toggle", LOOP_DEPTH),
        Field("zero_point", 8, signed=True),
        Field("low", 8, signed=True),
        Field("high", 8, signed=True),
        Field("add", 1),
        Field("zero_point_res", 8, signed=True),
        Field("zero_point_add", 8, signed=True),
        Field("multiplier_y", 24),
        Field("multiplier_res", 24),
        Field("add_shift", 6),
    ),
}


def fields(op: Opcode) -> tuple[Field, ...]:
    """Header and payload fields of an opcode, lowest bit first."""
    return HEADER + PAYLOAD[op]


def field_offsets(op: Opcode) -> dict[str, int]:
    """Bit offset of each field of an opcode."""
    offsets: dict[str, int] = {}
    position = 0
    for item in fields(op):
        offsets[item.name] = position
        position += item.bits
    return offsets


for _op in Opcode:
    assert sum(item.bits for item in fields(_op)) <= 8 * DESCRIPTOR_BYTES, _op


@dataclass(frozen=True)
class Descriptor:
    """One descriptor: an opcode and its field values; absent fields are 0.

    The engine is not encoded: it is the queue the descriptor stands in.
    """

    op: Opcode
    values: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.values.get(name, 0)
