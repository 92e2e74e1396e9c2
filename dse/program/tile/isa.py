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
FORWARD VECTOR without `add`, back into the activation scratchpad, where a MATMUL of the next layer reads: for
        n < n_blocks, y < height, x < width the row acc[acc + (n*height + y)*width + x] becomes the bytes
        [n*columns, (n+1)*columns) of the words that begin at ACT[out + y*out_stride_y + x*out_stride_x]: lane j goes
        to byte (n*columns + j) % rows of word (n*columns + j) // rows behind it. The group of `vector_lanes` channels
        that is written in a cycle must lie in one word: vector_lanes divides rows. Each half of the activation
        scratchpad has one write port: nothing in the vector queue may write into a half that a LOAD may be filling.
SYNC    waits and signals only.     LOOP see above.     HALT ends a queue.

A channel's parameters are 9 bytes: int32 bias, uint32 multiplier, int8 shift (little endian).

Version 2 adds the element unit: SCALE, ELEMENT, POOL and NORMALIZE in the `vector` queue, the memories STATE and
TABLE, `from_state` of STORE and `ext_down` of LOAD and STORE. `dse.program.tile.isa_element` defines them. Programs
of version 1 keep their meaning, bit for bit and cycle for cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

ISA_VERSION = 2
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
    SCALE = 7
    ELEMENT = 8
    POOL = 9
    NORMALIZE = 10
    FORWARD = 14


class MemoryId(IntEnum):
    """Scratchpad memories. LOAD may write `LOADABLE`; a machine without an element unit has no STATE and no TABLE."""

    ACTIVATION = 0
    WEIGHT = 1
    PARAMETER = 2
    RESIDUAL = 3
    ACCUMULATOR = 4
    OUTPUT = 5
    STATE = 6
    TABLE = 7


#: Memories that a LOAD fills.
LOADABLE = (
    MemoryId.ACTIVATION, MemoryId.WEIGHT, MemoryId.PARAMETER, MemoryId.RESIDUAL, MemoryId.STATE, MemoryId.TABLE,
)  # fmt: skip

OPCODE_ENGINES: Mapping[Opcode, tuple[str, ...]] = {
    Opcode.HALT: ENGINES,
    Opcode.LOOP: ENGINES,
    Opcode.SYNC: ENGINES,
    Opcode.LOAD: ("load",),
    Opcode.STORE: ("store",),
    Opcode.MATMUL: ("matmul",),
    Opcode.VECTOR: ("vector",),
    Opcode.FORWARD: ("vector",),
    Opcode.SCALE: ("vector",),
    Opcode.ELEMENT: ("vector",),
    Opcode.POOL: ("vector",),
    Opcode.NORMALIZE: ("vector",),
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
    Opcode.LOAD: (*_DMA, Field("memory", 3), Field("ext_down", LOOP_DEPTH)),
    Opcode.STORE: (*_DMA, Field("from_state", 1), Field("ext_down", LOOP_DEPTH)),
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
    Opcode.FORWARD: (
        Field("n_blocks", 16),
        Field("height", 16),
        Field("width", 16),
        *_operand("acc", 16, 16),
        *_operand("out", 16, 16),
        *_operand("param", 16, 16, toggles=False),
        Field("out_stride_y", 16),
        Field("out_stride_x", 16),
        Field("zero_point", 8, signed=True),
        Field("low", 8, signed=True),
        Field("high", 8, signed=True),
    ),
    Opcode.SCALE: (
        Field("n_blocks", 16),
        Field("rows_count", 16),
        *_operand("acc", 16, 16),
        *_operand("dst", 16, 16),
        *_operand("param", 16, 16, toggles=False),
        Field("dst_memory", 3),
        Field("zero_point", 16, signed=True),
        Field("low", 16, signed=True),
        Field("high", 16, signed=True),
        Field("look_up", 1),
        Field("table_base", 6),
    ),
    Opcode.ELEMENT: (
        Field("n_blocks", 16),
        Field("rows_count", 16),
        *_operand("a", 16, 16),
        *_operand("b", 16, 16),
        *_operand("dst", 16, 16),
        Field("a_memory", 3),
        Field("b_memory", 3),
        Field("dst_memory", 3),
        Field("a_spread", 2),
        Field("b_spread", 2),
        Field("function", 3),
        Field("zero_a", 17, signed=True),
        Field("zero_b", 9, signed=True),
        Field("multiplier_a", 24),
        Field("multiplier_b", 24),
        Field("shift", 6),
        Field("rounding", 2),
        Field("zero_point", 9, signed=True),
        Field("narrow", 1),
        Field("look_up", 1),
        Field("table_base", 6),
    ),
    Opcode.POOL: (
        Field("n_blocks", 16),
        Field("height", 16),
        Field("width", 16),
        Field("kernel_rows", 8),
        Field("kernel_columns", 8),
        *_operand("a", 16, 16),
        *_operand("dst", 16, 16),
        *(Field(f"a_stride_{dim}", 16) for dim in ("n", "r", "s", "y", "x")),
        Field("a_memory", 3),
        Field("dst_memory", 3),
        Field("function", 1),
        Field("zero_a", 9, signed=True),
        Field("multiplier_a", 24),
        Field("shift", 6),
        Field("rounding", 2),
        Field("zero_point", 9, signed=True),
    ),
    Opcode.NORMALIZE: (
        Field("n_blocks", 16),
        Field("rows_count", 16),
        Field("channels", 16),
        *_operand("a", 16, 16),
        *_operand("dst", 16, 16),
        Field("a_memory", 3),
        Field("dst_memory", 3),
        Field("function", 1),
        Field("table_base", 6),
        Field("multiplier_a", 24),
        Field("shift", 6),
        Field("epsilon", 24),
        Field("epsilon_shift", 6),
        Field("zero_point", 9, signed=True),
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
