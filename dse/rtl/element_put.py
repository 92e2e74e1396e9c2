"""The way of the element unit's results: saturation, look-up in a table, and the walk through the destination.

A result is saturated in the cycle it arrives. Without a look-up it is written in the next one; with one its table is
read meanwhile, and it is written `LOOK_UP_CYCLES` later.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile.isa import MemoryId, Opcode
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.program import Machine
from dse.program.tile.timing_element import LOOK_UP_CYCLES, written_lanes
from dse.rtl.activation_walker import COUNT_BITS, ActivationWalker
from dse.rtl.dma import table_line_bytes
from dse.rtl.element_lane import RESULT_BITS
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import ADDRESS_BITS, READ_LATENCY, EngineControl, WritePort
from dse.rtl.memory import Scratchpad
from dse.rtl.requantize import delay
from dse.rtl.vector import OPCODE_BITS, RowWalker, delayed_strobe

#: Bits of a lane in each memory that results go to.
LANE_BITS = {MemoryId.OUTPUT: 8, MemoryId.STATE: 16, MemoryId.ACCUMULATOR: 32}
_ENTRY_BITS = 16
_INDEX_BITS = 8


class TableMemory(wiring.Component):
    """The look-up tables, a copy in each lane; a line of the memory is as wide as a beat of the port.

    Members
    -------
    write : In(WritePort(8 * line bytes, 8)): lines, numbered over all tables
    table : In(6), index : In(ArrayLayout(8, lanes)): what is looked up
    entry : Out(ArrayLayout(16, lanes)), two cycles later
    """

    def __init__(self, machine: Machine) -> None:
        self.lanes, self.line_bytes = machine.vector_lanes, table_line_bytes(machine)
        self.lines = machine.words[MemoryId.TABLE] * TABLE_BYTES // self.line_bytes
        super().__init__(
            {
                "write": In(WritePort(8 * self.line_bytes, 8)),
                "table": In(6),
                "index": In(data.ArrayLayout(_INDEX_BITS, self.lanes)),
                "entry": Out(data.ArrayLayout(_ENTRY_BITS, self.lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entries = 8 * self.line_bytes // _ENTRY_BITS
        within = (entries - 1).bit_length()
        for lane in range(self.lanes):
            m.submodules[f"copy_{lane}"] = copy = Scratchpad(self.lines, 8 * self.line_bytes, 8)
            place = Cat(self.index[lane], self.table)
            m.d.comb += [
                copy.write.en.eq(self.write.en),
                copy.write.addr.eq(self.write.addr),
                copy.write.data.eq(self.write.data),
                copy.read.en.eq(1),
                copy.read.addr.eq(place[within:]),
            ]
            chosen = delay(m, place[:within], READ_LATENCY, f"entry_{lane}") if within else Const(0, 1)
            m.d.comb += self.entry[lane].eq(copy.read.data.word_select(chosen, _ENTRY_BITS))
        return m


class ElementPut(wiring.Component):
    """Writes results of SCALE, ELEMENT and POOL.

    Parameters
    ----------
    machine
        One with an element unit.

    Members
    -------
    control : In(EngineControl), its `start` only for those opcodes
    rows : In(16): rows of a block of the destination
    value : In(ArrayLayout(signed(35), lanes)); due, last : In(1): a group is there, the descriptor's last one
    table_write : In(WritePort), as `TableMemory.write`
    output, state, accumulator : Out(WritePort(columns * bits, lanes * bits)), act : Out(WritePort(rows * 8, 8))
    done : Out(1): with the last write
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.groups = machine.columns // machine.vector_lanes
        self.tables = TableMemory(machine)
        lanes = machine.vector_lanes
        ports = {
            memory.name.lower(): Out(WritePort(bits * machine.columns, bits * lanes))
            for memory, bits in LANE_BITS.items()
        }
        super().__init__(
            {
                "control": Out(EngineControl()),
                "value": In(data.ArrayLayout(signed(RESULT_BITS + 1), lanes)),
                "rows": In(COUNT_BITS),
                "due": In(1),
                "last": In(1),
                "table_write": In(WritePort(8 * self.tables.line_bytes, 8)),
                **ports,
                "act": Out(WritePort(8 * machine.rows, 8)),
                "done": Out(1),
            }
        )

    def _of(self, names: dict[Opcode, str | int]) -> Any:
        """A field by the current opcode; of opcodes that do not have it, a constant."""
        chosen: Any = Const(0)
        for opcode, name in names.items():
            value = descriptor_field(self.control.descriptor, opcode, name) if isinstance(name, str) else name
            chosen = Mux(self.control.descriptor[:OPCODE_BITS] == opcode, value, chosen)
        return chosen

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.tables = self.tables
        looks_up = self._of({Opcode.SCALE: "look_up", Opcode.ELEMENT: "look_up"})
        into = self._of(dict.fromkeys((Opcode.SCALE, Opcode.ELEMENT, Opcode.POOL), "dst_memory"))
        direct, looked = self._saturated(m, looks_up, into)
        values = [Mux(looks_up, late, early) for late, early in zip(looked, direct, strict=True)]
        strobes = []
        for name, strobe in (("due", self.due), ("last", self.last)):
            early = delayed_strobe(m, strobe, 1, name)
            late = delayed_strobe(m, early, LOOK_UP_CYCLES, f"{name}_looked_up")
            strobes.append(Mux(looks_up, late, early))
        due, last = Signal(), Signal()
        m.d.comb += [due.eq(strobes[0]), last.eq(strobes[1]), self.done.eq(last)]
        self._write(m, due, into, values)
        self._write_activation(m, due & (into == MemoryId.ACTIVATION), values)
        return m

    def _saturated(self, m: Module, looks_up: Any, into: Any) -> tuple[list[Any], list[Any]]:
        """By lane, the result as its destination takes it, and what its table says; registers of 32 bits."""
        narrow = self._of({Opcode.ELEMENT: "narrow"}) | looks_up
        byte = narrow | (into == MemoryId.ACTIVATION) | (into == MemoryId.OUTPUT)
        m.d.comb += self.tables.table.eq(self._of({Opcode.SCALE: "table_base", Opcode.ELEMENT: "table_base"}))
        table = self.tables
        m.d.comb += [
            table.write.en.eq(self.table_write.en),
            table.write.addr.eq(self.table_write.addr),
            table.write.data.eq(self.table_write.data),
        ]
        direct, looked = [], []
        for lane in range(self.machine.vector_lanes):
            held = Signal(signed(32), name=f"direct_{lane}", reset_less=True)
            m.d.sync += held.eq(_clip(self.value[lane], byte, into == MemoryId.STATE))
            m.d.comb += table.index[lane].eq(held[:_INDEX_BITS] ^ (1 << (_INDEX_BITS - 1)))
            entry = table.entry[lane].as_signed()
            found = Signal(signed(32), name=f"looked_up_{lane}", reset_less=True)
            m.d.sync += found.eq(_clip(entry, (into == MemoryId.ACTIVATION) | (into == MemoryId.OUTPUT), Const(0)))
            direct.append(held)
            looked.append(found)
        return direct, looked

    def _write(self, m: Module, due: Any, into: Any, values: list[Any]) -> None:
        """Into a memory whose words have a lane for each column: every group is offered the same lanes."""
        m.submodules.back = back = RowWalker(self.groups)
        m.d.comb += [
            back.load.eq(self.control.start),
            back.base.eq(self._base()),
            back.step.eq(due & (into != MemoryId.ACTIVATION)),
        ]
        for memory, bits in LANE_BITS.items():
            port = getattr(self, memory.name.lower())
            m.d.comb += [
                port.en.eq(Mux(due & (into == memory), back.group, 0)),
                port.addr.eq(back.addr),
                port.data.eq(Cat(value[:bits] for value in values).replicate(self.groups)),
            ]

    def _base(self) -> Value:
        element = self.control.descriptor[:OPCODE_BITS] == Opcode.ELEMENT
        address: Value = Mux(element, self.control.address[2], self.control.address[1])
        return address[:ADDRESS_BITS]

    def _write_activation(self, m: Module, due: Any, values: list[Any]) -> None:
        """Into records of whole words, the lanes that fall into one word at a time."""
        machine = self.machine
        width = written_lanes(MemoryId.ACTIVATION, machine)
        parts = machine.vector_lanes // width
        m.submodules.records = walker = ActivationWalker(machine.rows, machine.columns, width)
        part = Signal(parts, init=1)
        with m.If(self.control.start):
            m.d.sync += part.eq(1)
        with m.Elif(due):
            m.d.sync += part.eq(part.rotate_left(1))
        pieces = [Cat(value[:8] for value in values[at : at + width]) for at in range(0, len(values), width)]
        piece = Signal(8 * width, name="piece")
        for index, candidate in enumerate(pieces):
            with m.If(part[index]):
                m.d.comb += piece.eq(candidate)
        enables = Cat(bit.replicate(width) for bit in walker.part)
        # the same place in all three
        blocks = descriptor_field(self.control.descriptor, Opcode.SCALE, "n_blocks")
        m.d.comb += [
            walker.load.eq(self.control.start),
            walker.base.eq(self._base()),
            walker.height.eq(1),
            walker.width.eq(self.rows),
            walker.stride_x.eq(record_words(m, blocks, machine)),
            walker.stride_y.eq(walker.stride_x),
            walker.step.eq(due),
            self.act.en.eq(Mux(due, enables, 0)),
            self.act.addr.eq(walker.addr),
            self.act.data.eq(piece.replicate(walker.parts)),
        ]


def _clip(value: Any, byte: Any, half: Any) -> Any:
    """A value saturated to int8, to int16, or else to int32."""
    result: Any = value
    for bits, chosen in ((32, ~byte & ~half), (16, half & ~byte), (8, byte)):
        if bits >= len(value):
            continue
        top = value[bits - 1 :]
        limit = 1 << (bits - 1)
        clipped = Mux(top.any() & ~top.all(), Mux(value[-1], -limit, limit - 1), value)
        result = Mux(chosen, clipped, result)
    return result


def record_words(m: Module, blocks: Any, machine: Machine) -> Any:
    """ceil(blocks * columns / rows), a register two cycles behind `blocks`: a product with a constant, then a shift.

    With numerators below 2**bits, floor(n / rows) = n * ceil(2**(bits + k) / rows) >> (bits + k) for rows <= 2**k
    (Granlund and Montgomery, "Division by Invariant Integers using Multiplication", 1994).
    """
    numerator = Signal(len(blocks) + machine.columns.bit_length() + 1, name="record_bytes", reset_less=True)
    m.d.sync += numerator.eq(blocks * machine.columns + machine.rows - 1)
    shift = len(numerator) + (machine.rows - 1).bit_length()
    reciprocal = -(-(1 << shift) // machine.rows)
    words = Signal(ADDRESS_BITS, name="record_words", reset_less=True)
    m.d.sync += words.eq((numerator * reciprocal) >> shift)
    return words
