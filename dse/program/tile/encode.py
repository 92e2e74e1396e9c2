"""Descriptors as the 512-bit words that a descriptor memory holds, queues as bytes.

Field layouts stand in `dse.program.tile.isa`; here they are applied, in both directions. Decoding trusts nothing:
words come from files and from memories that someone else wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from dse.core.errors import InfeasibleError, Violation, nearest
from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import DESCRIPTOR_BYTES, HEADER, Descriptor, Field, Opcode, field_offsets, fields

_OPCODE_MASK = (1 << HEADER[0].bits) - 1


@cache
def _layout(op: Opcode) -> dict[str, tuple[int, Field]]:
    """Bit offset and field by name; the opcode field itself is left out."""
    offsets = field_offsets(op)
    return {item.name: (offsets[item.name], item) for item in fields(op) if item.name != "op"}


@cache
def _used_bits(op: Opcode) -> int:
    return sum(item.bits for item in fields(op))


def field_range(item: Field) -> tuple[int, int]:
    """Smallest and largest value that a field holds."""
    if item.signed:
        return -(1 << (item.bits - 1)), (1 << (item.bits - 1)) - 1
    return 0, (1 << item.bits) - 1


def encode_descriptor(d: Descriptor) -> int:
    """A descriptor as an unsigned integer of 512 bits, field 0 in the lowest bits, unused bits 0.

    Raises
    ------
    InfeasibleError: a value does not fit its field (the layer is too big for the instruction set).
    TileProgramError: a value is given for a field that the opcode does not have.
    """
    layout = _layout(d.op)
    word = int(d.op)
    for name, value in d.values.items():
        if name not in layout:
            raise TileProgramError(f"{d.op.name} has no field {name!r}{nearest(name, layout)}")
        offset, item = layout[name]
        low, high = field_range(item)
        if not low <= value <= high:
            bound = high if value > high else low
            raise InfeasibleError(
                f"{d.op.name} descriptor",
                [Violation(f"{name} in {item.bits} bits", float(value), float(bound), "(field value)")],
            )
        word |= (int(value) & ((1 << item.bits) - 1)) << offset
    return word


def decode_descriptor(word: int) -> Descriptor:
    """The descriptor that an integer of 512 bits encodes; fields that are 0 are left out of its values.

    Raises
    ------
    TileProgramError: not 512 bits, an unknown opcode, or bits set behind the opcode's last field.
    """
    if not 0 <= word < 1 << (8 * DESCRIPTOR_BYTES):
        raise TileProgramError(f"a descriptor has {8 * DESCRIPTOR_BYTES} bits, this one {word.bit_length()}")
    code = word & _OPCODE_MASK
    try:
        op = Opcode(code)
    except ValueError:
        known = ", ".join(f"{item.value} {item.name}" for item in Opcode)
        raise TileProgramError(f"{code} is no opcode of this instruction set ({known})") from None
    if word >> _used_bits(op):
        raise TileProgramError(f"a {op.name} descriptor has {_used_bits(op)} bits, this one sets bits behind them")
    values: dict[str, int] = {}
    for name, (offset, item) in _layout(op).items():
        raw = (word >> offset) & ((1 << item.bits) - 1)
        if raw:
            values[name] = raw - (1 << item.bits) if item.signed and raw >> (item.bits - 1) else raw
    return Descriptor(op, values)


def encode_queue(queue: Sequence[Descriptor]) -> bytes:
    """A queue as the bytes of its descriptor memory: 64 little-endian bytes a descriptor. Errors as above."""
    return b"".join(encode_descriptor(d).to_bytes(DESCRIPTOR_BYTES, "little") for d in queue)


def decode_queue(data: bytes) -> tuple[Descriptor, ...]:
    """The descriptors of a queue's bytes.

    Raises
    ------
    TileProgramError: the last descriptor is cut off, or one does not decode (its position is named).
    """
    if len(data) % DESCRIPTOR_BYTES:
        raise TileProgramError(
            f"a queue is a multiple of {DESCRIPTOR_BYTES} bytes, this one has {len(data)}: its last descriptor is cut"
        )
    queue = []
    for position in range(0, len(data), DESCRIPTOR_BYTES):
        try:
            queue.append(decode_descriptor(int.from_bytes(data[position : position + DESCRIPTOR_BYTES], "little")))
        except TileProgramError as error:
            raise TileProgramError(f"descriptor {position // DESCRIPTOR_BYTES}: {error}") from None
    return tuple(queue)
