"""Signatures at the borders of a tile machine's parts: engine control, scratchpad ports, the memory port.

Scratchpads are read in two cycles: `data` belongs to the address presented with `en` two cycles earlier.
A write presented with `en` in cycle t is seen by reads presented in cycle t + 1 or later.
"""

from __future__ import annotations

from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile.isa import DESCRIPTOR_BYTES

READ_LATENCY = 2
ADDRESS_BITS = 16
MEMORY_ADDRESS_BITS = 32
OPERANDS = 4


class ReadPort(wiring.Signature):
    """Read port of a scratchpad, seen from the reader: `en`, `addr` out, `data` in two cycles later."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__({"en": Out(1), "addr": Out(ADDRESS_BITS), "data": In(width)})


class WritePort(wiring.Signature):
    """Write port of a scratchpad, seen from the writer: one enable bit per `granularity` bits of data."""

    def __init__(self, width: int, granularity: int | None = None) -> None:
        self.width, self.granularity = width, granularity or width
        super().__init__({"en": Out(width // self.granularity), "addr": Out(ADDRESS_BITS), "data": Out(width)})


class EngineControl(wiring.Signature):
    """What the sequencer gives an engine, seen from the engine.

    `start` is high for one cycle s; `descriptor` (the 512 raw bits, fields by `dse.program.tile.isa`) and
    `address` (effective operand addresses) stay stable from s until the engine raises `done` for one cycle e:
    the cycle at whose closing edge its last effect is committed. The engine's duration is e - s.
    `address`: load, store (ext, local); matmul (a, w, acc); vector (acc, out, param, res).
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "descriptor": In(8 * DESCRIPTOR_BYTES),
                "address": In(data.ArrayLayout(MEMORY_ADDRESS_BITS, OPERANDS)),
                "done": Out(1),
            }
        )


class MemoryReadPort(wiring.Signature):
    """Read channel of the external memory, seen from the machine: in order, one beat a cycle at most.

    A request is one beat: `beat_bytes` bytes from byte address `addr` on (any alignment), taken when `valid` and
    `ready`. Its data comes with `data_valid`, in request order; the machine always accepts it.
    """

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "addr": Out(MEMORY_ADDRESS_BITS),
                "data_valid": In(1),
                "data": In(8 * beat_bytes),
            }
        )


class MemoryWritePort(wiring.Signature):
    """Write channel of the external memory, seen from the machine: in order, one beat a cycle at most.

    A beat writes the first `bytes` bytes of `data` from byte address `addr` on, taken when `valid` and `ready`;
    `ack` is high for one cycle per accepted beat, in order, once it is visible to reads.
    """

    def __init__(self, beat_bytes: int) -> None:
        self.beat_bytes = beat_bytes
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "addr": Out(MEMORY_ADDRESS_BITS),
                "data": Out(8 * beat_bytes),
                "bytes": Out(range(beat_bytes + 1)),
                "ack": In(1),
            }
        )
