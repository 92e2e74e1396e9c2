"""The element unit: ELEMENT and POOL on words of any scratchpad, and the way of SCALE's results into memory.

Two fronts (`dse.rtl.element_issue`) read, a row of lanes (`dse.rtl.element_lane`) computes, `dse.rtl.element_put`
writes. The pipeline between them is rigid: strobes travel beside the data, nothing waits.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from dse.program.tile.isa import MemoryId, Opcode
from dse.program.tile.isa_element import Pool
from dse.program.tile.program import Machine
from dse.program.tile.timing_element import written_lanes
from dse.rtl.element_issue import SLOTS, GroupCounter, SourceWalker, WindowWalker, reads_slots
from dse.rtl.element_lane import OPERAND_BITS, RESULT_BITS, ElementLane
from dse.rtl.element_put import ElementPut
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import ADDRESS_BITS, READ_LATENCY, EngineControl, ReadPort
from dse.rtl.requantize import delay
from dse.rtl.vector import OPCODE_BITS, delayed_strobe

#: Memories that sources lie in: name of the port, bits of a lane.
SOURCE_PORTS = {
    MemoryId.RESIDUAL: ("res", 8),
    MemoryId.ACCUMULATOR: ("acc", 32),
    MemoryId.OUTPUT: ("out", 8),
    MemoryId.STATE: ("state", 16),
}
_OPERANDS = ("a", "b", "dst")


class ElementEngine(wiring.Component):
    """Executes ELEMENT and POOL, and writes the results of SCALE.

    Parameters
    ----------
    machine
        One with an element unit.

    Members
    -------
    control : EngineControl, its `start` only for those opcodes; addresses (a, b, dst) of ELEMENT, (a, dst) of POOL,
        (acc, dst, param) of SCALE
    scaled, scaled_due, scaled_last : In: results of SCALE, as of `dse.rtl.vector.VectorEngine`
    res, acc, out, state : Out(ReadPort(columns * bits of a lane))
    table_write, output, state_write, accumulator, act : ports of `dse.rtl.element_put.ElementPut`

    Duration: `dse.program.tile.timing_element.element_cycles`, exactly.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.lanes = machine, machine.vector_lanes
        self.groups = machine.columns // machine.vector_lanes
        self.put = ElementPut(machine)
        ports = {name: Out(ReadPort(bits * machine.columns)) for name, bits in SOURCE_PORTS.values()}
        put = self.put.signature.members
        super().__init__(
            {
                "control": Out(EngineControl()),
                "scaled": In(data.ArrayLayout(signed(16), self.lanes)),
                "scaled_due": In(1),
                "scaled_last": In(1),
                **ports,
                "table_write": put["table_write"],
                "output": put["output"],
                "state_write": put["state"],
                "accumulator": put["accumulator"],
                "act": put["act"],
            }
        )

    def _is(self, opcode: Opcode) -> Any:
        return self.control.descriptor[:OPCODE_BITS] == opcode

    def _field(self, name: str, opcode: Opcode = Opcode.ELEMENT) -> Any:
        return descriptor_field(self.control.descriptor, opcode, name)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fires, last, slot, group, begins = self._issue(m)
        operands = self._operands(m, slot, group)
        values = self._compute(m, operands, delay(m, begins, READ_LATENCY + 1, "begins"))
        depth = READ_LATENCY + 1 + ElementLane.latency
        put = self.put
        m.submodules.put = put
        scaling = self._is(Opcode.SCALE)
        m.d.comb += [
            put.control.start.eq(self.control.start),
            put.control.descriptor.eq(self.control.descriptor),
            put.control.address.eq(self.control.address),
            self.control.done.eq(put.done),
            put.due.eq(self.scaled_due | delayed_strobe(m, fires, depth, "due")),
            put.last.eq(self.scaled_last | delayed_strobe(m, last, depth, "last")),
        ]
        for lane, value in enumerate(values):
            m.d.comb += put.value[lane].eq(Mux(scaling, self.scaled[lane], value))
        for mine, theirs in (
            (self.table_write, put.table_write),
            (self.output, put.output),
            (self.state_write, put.state),
            (self.accumulator, put.accumulator),
            (self.act, put.act),
        ):
            connect(m, flipped(mine), theirs)
        return m

    def _issue(self, m: Module) -> tuple[Any, Any, Any, Any, Any]:
        """Reads of the current slot.

        Returns the strobes of a group's last slot and of the last group's, the slot, the one-hot group, and whether
        the slot reads the first word of a window.
        """
        control = self.control
        parts = self.lanes // written_lanes(MemoryId.ACTIVATION, self.machine)
        m.submodules.counter = counter = GroupCounter(self.groups, parts)
        m.submodules.window = window = WindowWalker()
        pooling = self._is(Opcode.POOL)
        running, slot = Signal(), Signal(range(SLOTS))
        used, slots, last_slot = reads_slots(control.descriptor)
        fires, last = Signal(), Signal()
        into = Mux(pooling, self._field("dst_memory", Opcode.POOL), self._field("dst_memory"))
        size = self._pool_rows(m)
        m.d.comb += [
            fires.eq(running & Mux(pooling, window.ends, slot == last_slot)),
            last.eq(fires & counter.last),
            counter.load.eq(control.start),
            counter.step.eq(fires),
            counter.divided.eq(into == MemoryId.ACTIVATION),
            counter.rows.eq(self.put.rows),
            # the same place in SCALE and ELEMENT
            self.put.rows.eq(Mux(pooling, size, self._field("rows_count"))),
            counter.blocks.eq(self._field("n_blocks")),
            window.load.eq(control.start),
            window.base.eq(control.address[0]),
            window.descriptor.eq(control.descriptor),
            window.step.eq(running),
            window.row_ends.eq(counter.row_ends),
            window.block_ends.eq(counter.block_ends),
        ]
        with m.If(control.start):
            m.d.sync += [running.eq(~self._is(Opcode.SCALE)), slot.eq(0)]
        with m.Elif(running):
            m.d.sync += [slot.eq(Mux(fires | pooling, 0, slot + 1)), running.eq(~last)]
        reads = {}
        for index, name in enumerate(_OPERANDS):
            m.submodules[f"{name}_walker"] = walker = SourceWalker()
            m.d.comb += [
                walker.load.eq(control.start),
                walker.base.eq(control.address[index]),
                walker.row_ends.eq(fires & counter.row_ends),
                walker.block_ends.eq(fires & counter.block_ends),
                walker.spread.eq(0 if name == "dst" else self._field(f"{name}_spread")),
            ]
            reads[name] = (running & ~pooling & used[name] & (slot == slots[name]), walker.addr)
        self._read(m, reads, running & pooling, window.addr)
        return fires, last, slot, counter.group, window.begins

    def _pool_rows(self, m: Module) -> Any:
        """height * width of POOL, two registers behind the descriptor, which stands long before `start`."""
        factors = [delay(m, self._field(name, Opcode.POOL), 1, name) for name in ("height", "width")]
        return delay(m, (factors[0] * factors[1])[:ADDRESS_BITS], 1, "pool_rows")

    def _read(self, m: Module, reads: dict[str, tuple[Any, Any]], pools: Any, pool_address: Any) -> None:
        """Each memory's read port: the operand that reads it in this slot."""
        for memory, (name, _) in SOURCE_PORTS.items():
            port = getattr(self, name)
            pooled = pools & (self._field("a_memory", Opcode.POOL) == memory)
            enable: Any = pooled
            address: Any = pool_address
            for operand, (reading, place) in reads.items():
                mine = reading & (self._field(f"{operand}_memory") == memory)
                enable, address = enable | mine, Mux(mine, place, address)
            m.d.comb += [port.en.eq(enable), port.addr.eq(address)]

    def _operands(self, m: Module, slot: Any, group: Any) -> dict[str, list[Any]]:
        """By operand its lanes, in registers that take them when the word of its slot has come."""
        pooling = self._is(Opcode.POOL)
        _, slots, _ = reads_slots(self.control.descriptor)
        arrived = delay(m, group, READ_LATENCY, "group")
        slot_arrived = delay(m, slot, READ_LATENCY, "slot")
        words = {memory: self._lanes_of(memory, arrived) for memory in SOURCE_PORTS}
        result = {}
        for name in _OPERANDS:
            memory = self._field(f"{name}_memory")
            takes = slot_arrived == slots[name]
            if name == "a":
                memory = Mux(pooling, self._field("a_memory", Opcode.POOL), memory)
                takes = takes | pooling
            held = [Signal(signed(OPERAND_BITS), name=f"{name}_{i}", reset_less=True) for i in range(self.lanes)]
            with m.If(takes), m.Switch(memory):
                for source, lanes in words.items():
                    with m.Case(source):
                        m.d.sync += [register.eq(value) for register, value in zip(held, lanes, strict=True)]
            result[name] = held
        return result

    def _lanes_of(self, memory: MemoryId, group: Any) -> list[Any]:
        """The lanes of the one-hot group out of the word that a memory answers with."""
        name, bits = SOURCE_PORTS[memory]
        word, width = getattr(self, name).data, bits * self.lanes
        chosen: Any = Const(0)
        for index in range(self.groups):
            chosen = chosen | Mux(group[index], word[index * width : (index + 1) * width], 0)
        return [chosen[lane * bits : (lane + 1) * bits].as_signed() for lane in range(self.lanes)]

    def _compute(self, m: Module, operands: dict[str, list[Any]], begins: Any) -> list[Any]:
        """A lane for each operand group; POOL's fields lie elsewhere, and its maximum is not scaled."""
        pooling = self._is(Opcode.POOL)
        largest = pooling & (self._field("function", Opcode.POOL) == Pool.LARGEST)
        fields: dict[str, Any] = {}
        for name in ("zero_a", "multiplier_a", "shift", "rounding", "zero_point"):
            fields[name] = Mux(pooling, self._field(name, Opcode.POOL), self._field(name))
        for name in ("zero_a", "shift", "zero_point"):
            fields[name] = Mux(largest, 0, fields[name])
        fields |= {"zero_b": self._field("zero_b"), "multiplier_b": self._field("multiplier_b")}
        fields |= {"function": Mux(pooling, 0, self._field("function"))}
        fields |= {"windows": pooling, "largest": largest, "begins": begins}
        results = []
        for index, (a, b, old) in enumerate(zip(*(operands[name] for name in _OPERANDS), strict=True)):
            m.submodules[f"lane_{index}"] = lane = ElementLane()
            m.d.comb += [lane.a.eq(a), lane.b.eq(b), lane.old.eq(old)]
            m.d.comb += [getattr(lane, name).eq(value) for name, value in fields.items()]
            results.append(lane.result)
        assert len(results[0]) == RESULT_BITS + 1
        return results
