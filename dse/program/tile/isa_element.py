"""The element unit of instruction set version 2: four opcodes of the `vector` queue over words of `columns` lanes.

Memories. A word of STATE is `columns` int16, of RESIDUAL and OUTPUT `columns` int8, of ACCUMULATOR `columns` int32; a
word of TABLE is one table of 256 int16. Sources (`a`, `b`) lie in RESIDUAL, ACCUMULATOR, OUTPUT or STATE,
destinations in ACTIVATION, ACCUMULATOR, OUTPUT or STATE. Lane j of word (n, m) of an operand at address `op` is

    full   op + n*rows_count + m     row  op + m     block  op + n     one  op         (`spread` of a source)

An operand in ACTIVATION, whose words have `rows` bytes, is a record for each m: lane j of block n is byte
(n*columns + j) % rows of word op + m*record + (n*columns + j) // rows, record = ceil(n_blocks*columns / rows): what a
MATMUL reads as n_channels consecutive words. A destination may be a full-spread source word for word, never overlap
one otherwise.

Arithmetic is on integers of 64 bits, modulo 2**64. rnd(t) is t >> shift, rounded as `rounding` says: 0 halves up,
1 floor, 2 halves to even; for shift 0 it is t. put(v): with `narrow` v saturates to int8; with `look_up` it becomes
TABLE[table][sat8(v) + 128]; then it saturates to the type of the destination (int8, int16, int32).

SCALE      for n < n_blocks, m < rows_count: dst = put(clamp(requantize(acc + bias) + zero_point, low, high)): VECTOR
           with wider results, anywhere; the machine's requantization mode, channel parameters at param as in VECTOR.
ELEMENT    dst = put(r + zero_point), x = a - zero_a, y = b - zero_b, d = the destination's old value:
           COPY r = rnd(x*multiplier_a)              ADD r = rnd(x*multiplier_a + y*multiplier_b)
           MUL  r = rnd(x*y*multiplier_a)            SUB r = rnd(x*multiplier_a - y*multiplier_b)
           MULADD r = rnd(x*d + y)   MULSUB r = rnd(x*d - y)   MAX r = max(x, y)   MIN r = min(x, y)
           ADD in q31 with the integers of `encode_add` is `dse.ir.requantize.add_q31`. The float32 rounding of
           onnxruntime's QLinearAdd has no counterpart here; rounding 2 is exact half to even.
POOL       for n < n_blocks, y < height, x < width, over the window r < kernel_rows, s < kernel_columns of words
           a + n*a_stride_n + r*a_stride_r + s*a_stride_s + y*a_stride_y + x*a_stride_x, lane by lane:
           LARGEST dst = put(max), AVERAGE dst = put(rnd(sum(a - zero_a)*multiplier_a) + zero_point); row m is
           y*width + x of height*width. Padding must lie in the source.
NORMALIZE  for every row m over its first `channels` lanes v_k of all blocks (the others become zero_point):
           SOFTMAX  e_k = TABLE[table][min(max(v) - v_k, 255)], q = floor((multiplier_a << 24) / sum(e)),
                    dst = put(((e_k*q + (1 << (shift-1))) >> shift) + zero_point)
           CENTRE   (layer norm) s1 = sum(v), s2 = sum(v*v), N = channels,
                    root = isqrt((N*s2 - s1*s1 + (epsilon << epsilon_shift)) << 16), at least 1,
                    q = floor((multiplier_a << 32) / root),
                    dst = put((((N*v_k - s1)*q + (1 << (shift-1))) >> shift) + zero_point)
           floor and isqrt are exact (a bit a cycle). A sum(e) of 0 gives q = 0. Sources lie in RESIDUAL, OUTPUT or
           STATE.

Each half of STATE and OUTPUT, like one of ACTIVATION, has one read and one write port: what the vector queue reads or
writes there, no LOAD or STORE may read or write at the same time. LOAD fills TABLE a beat at a time, from a multiple
of its bytes on.

STORE with `from_state` reads STATE instead of OUTPUT. LOAD and STORE subtract the increments of the loop levels in
`ext_down`, so that a loop may walk a sequence backwards.
"""

from __future__ import annotations

from enum import IntEnum

from dse.program.tile.isa import MemoryId, Opcode

ELEMENT_UNIT = (Opcode.SCALE, Opcode.ELEMENT, Opcode.POOL, Opcode.NORMALIZE)

SOURCES = (MemoryId.RESIDUAL, MemoryId.ACCUMULATOR, MemoryId.OUTPUT, MemoryId.STATE)
DESTINATIONS = (MemoryId.ACTIVATION, MemoryId.ACCUMULATOR, MemoryId.OUTPUT, MemoryId.STATE)

TABLE_ENTRIES = 256
#: Bytes of a word of the table memory.
TABLE_BYTES = 2 * TABLE_ENTRIES
#: Bits by which NORMALIZE widens its multiplier before it divides.
RECIPROCAL_BITS = 24
#: Fraction bits of the root that CENTRE divides by.
ROOT_BITS = 8


class Function(IntEnum):
    """What ELEMENT computes."""

    COPY = 0
    ADD = 1
    SUB = 2
    MUL = 3
    MULADD = 4
    MULSUB = 5
    MAX = 6
    MIN = 7


class Pool(IntEnum):
    """What POOL computes."""

    LARGEST = 0
    AVERAGE = 1


class Normalize(IntEnum):
    """What NORMALIZE computes."""

    SOFTMAX = 0
    CENTRE = 1


class Spread(IntEnum):
    """Which words a source of ELEMENT takes."""

    FULL = 0
    ROW = 1
    BLOCK = 2
    ONE = 3


class Rounding(IntEnum):
    """How a right shift rounds."""

    HALF_UP = 0
    FLOOR = 1
    HALF_EVEN = 2


#: Functions without a second source.
UNARY = (Function.COPY,)
#: Functions that read their destination.
READS_DESTINATION = (Function.MULADD, Function.MULSUB)
