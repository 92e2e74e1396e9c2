"""Descriptor fields as hardware sees them: slices of the raw bits at the offsets of the instruction set."""

from __future__ import annotations

from amaranth.hdl import Value

from dse.program.tile import isa
from dse.program.tile.isa import Opcode


def descriptor_field(descriptor: Value, opcode: Opcode, name: str) -> Value:
    """The bits of one field of a 512-bit descriptor, a signed value if the field is signed.

    Raises
    ------
    KeyError: the opcode has no such field.
    """
    offset = isa.field_offsets(opcode)[name]
    item = next(item for item in isa.fields(opcode) if item.name == name)
    bits = descriptor[offset : offset + item.bits]
    return bits.as_signed() if item.signed else bits
