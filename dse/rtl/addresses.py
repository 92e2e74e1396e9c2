"""Loop indices and effective addresses of a queue's current descriptor.

One multiplier serves all operands: in step `FIRST_PRODUCT_STEP` + 4*i + d after the fetch began, increment d of
operand i meets loop index d. The fetch is still going on then: fields are used as soon as they have arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from dse.core.errors import InvariantError
from dse.program.tile import isa
from dse.program.tile.isa import DESCRIPTOR_BYTES, LOOP_DEPTH, MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing import ISSUE_CYCLES
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import ADDRESS_BITS, MEMORY_ADDRESS_BITS, OPERANDS

#: Bits of a word of descriptor memory: word k has arrived in step k + 1.
WORD_BITS = 64
INDEX_BITS = 16

#: Operands that have increments of their own: rounds of the multiplier.
ROUNDS = 3
FIRST_PRODUCT_STEP = 4
#: The loop indices may move on.
ADVANCE_STEP = FIRST_PRODUCT_STEP + ROUNDS * LOOP_DEPTH

ENGINE_OPCODE = {"load": Opcode.LOAD, "matmul": Opcode.MATMUL, "vector": Opcode.VECTOR, "store": Opcode.STORE}


@dataclass(frozen=True)
class Operand:
    """One effective address: index in `control.address`, names of its fields and of those it moves with.

    `memory` is where its ping-pong halves lie, None where it has none; LOAD's local operand lives in the memory
    its descriptor names.
    """

    index: int
    name: str
    increments: str
    memory: MemoryId | None
    bits: int = ADDRESS_BITS


OPERANDS_OF = {
    "load": (
        Operand(0, "ext", "ext", None, MEMORY_ADDRESS_BITS),
        Operand(1, "local", "local", MemoryId.ACTIVATION),
    ),
    "matmul": (
        Operand(0, "a", "a", MemoryId.ACTIVATION),
        Operand(1, "w", "w", MemoryId.WEIGHT),
        Operand(2, "acc", "acc", MemoryId.ACCUMULATOR),
    ),
    "vector": (
        Operand(0, "acc", "acc", MemoryId.ACCUMULATOR),
        Operand(1, "out", "out", MemoryId.OUTPUT),
        Operand(2, "param", "param", None),
        Operand(3, "res", "out", MemoryId.RESIDUAL),
    ),
    "store": (
        Operand(0, "ext", "ext", None, MEMORY_ADDRESS_BITS),
        Operand(1, "local", "local", MemoryId.OUTPUT),
    ),
}


class LoopStack(wiring.Component):
    """The loops around the current descriptor, level 0 outermost.

    Members
    -------
    clear, push, advance : In(1)
        Empty the stack; enter a loop of `count` passes over the `body` descriptors behind `pc`; leave the
        descriptor at `pc`: the innermost loop that ends here and has passes left goes on, those that end pop.
    pc, count, body : In
        Position of the current descriptor; fields of LOOP.
    next_pc : Out
        Where `advance` leads.
    index : Out(ArrayLayout(16, 4))
        Loop indices, 0 for levels not in use.
    """

    def __init__(self, descriptors: int) -> None:
        self.pc_bits = max(1, (descriptors - 1).bit_length())
        super().__init__(
            {
                "clear": In(1),
                "push": In(1),
                "advance": In(1),
                "pc": In(self.pc_bits),
                "count": In(INDEX_BITS),
                "body": In(INDEX_BITS),
                "next_pc": Out(self.pc_bits),
                "index": Out(data.ArrayLayout(INDEX_BITS, LOOP_DEPTH)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = Signal(range(LOOP_DEPTH + 1))
        begin = [Signal(self.pc_bits, name=f"begin{level}") for level in range(LOOP_DEPTH)]
        end = [Signal(self.pc_bits, name=f"end{level}") for level in range(LOOP_DEPTH)]
        last = [Signal(INDEX_BITS, name=f"last{level}") for level in range(LOOP_DEPTH)]
        after = Signal(self.pc_bits)
        m.d.comb += [after.eq(self.pc + 1), self.next_pc.eq(after)]

        # Per level: its body ends here; it then repeats, or pops. An inner loop that repeats hides the outer ones.
        repeats = [Signal(name=f"repeats{level}") for level in range(LOOP_DEPTH)]
        pops = [Signal(name=f"pops{level}") for level in range(LOOP_DEPTH)]
        hidden: Value = Const(0)
        for level in reversed(range(LOOP_DEPTH)):
            ends = (depth > level) & (self.pc == end[level]) & ~hidden
            final = self.index[level] == last[level]
            m.d.comb += [repeats[level].eq(ends & ~final), pops[level].eq(ends & final)]
            with m.If(repeats[level]):
                m.d.comb += self.next_pc.eq(begin[level])
            hidden = hidden | repeats[level]

        with m.If(self.clear):
            m.d.sync += [depth.eq(0), self.index.eq(0)]
        with m.Elif(self.push):
            m.d.sync += depth.eq(depth + 1)
            for level in range(LOOP_DEPTH):
                with m.If(depth == level):
                    m.d.sync += [
                        begin[level].eq(after),
                        end[level].eq(self.pc + self.body),
                        last[level].eq(self.count - 1),
                    ]
        with m.Elif(self.advance):
            m.d.sync += depth.eq(depth - sum(pops, Const(0)))
            for level in range(LOOP_DEPTH):
                with m.If(repeats[level]):
                    m.d.sync += self.index[level].eq(self.index[level] + 1)
                with m.Elif(pops[level]):
                    m.d.sync += self.index[level].eq(0)
        return m


class AddressUnit(wiring.Component):
    """Evaluates the operands' effective addresses with one multiplier, an operand and loop level a cycle.

    Members
    -------
    step : In(5)
        Cycles since the descriptor's fetch began; 0 when idle.
    descriptor : In(512)
        Word k is in place from step k + 1 on.
    index : In(ArrayLayout(16, 4))
        Loop indices, stable until `ADVANCE_STEP`.
    address : Out(ArrayLayout(32, 4))
        In place from step `ISSUE_CYCLES` on, until the next descriptor is fetched.
    """

    def __init__(self, engine: str, machine: Machine) -> None:
        self.engine, self.machine = engine, machine
        self.opcode, self.operands = ENGINE_OPCODE[engine], OPERANDS_OF[engine]
        self._check_words_arrive_in_time()
        super().__init__(
            {
                "step": In(range(ISSUE_CYCLES + 1)),
                "descriptor": In(8 * DESCRIPTOR_BYTES),
                "index": In(data.ArrayLayout(INDEX_BITS, LOOP_DEPTH)),
                "address": Out(data.ArrayLayout(MEMORY_ADDRESS_BITS, OPERANDS)),
            }
        )

    def _round(self, operand: Operand) -> int:
        """The round of the multiplier that serves an operand."""
        return next(other.index for other in self.operands if other.name == operand.increments)

    def _base_step(self, operand: Operand) -> int:
        """The step in which base and half enter the adder: the one before the first product does."""
        return FIRST_PRODUCT_STEP + LOOP_DEPTH * self._round(operand) + 1

    def _check_words_arrive_in_time(self) -> None:
        """Guards the overlap of fetch and evaluation against changes of the instruction set."""
        offsets = isa.field_offsets(self.opcode)
        widths = {item.name: item.bits for item in isa.fields(self.opcode)}
        uses: list[tuple[str, int]] = []
        for operand in self.operands:
            first = FIRST_PRODUCT_STEP + LOOP_DEPTH * self._round(operand)
            uses += [(f"{operand.increments}_inc{level}", first + level) for level in range(LOOP_DEPTH)]
            bases = [f"{operand.name}_base"]
            if operand.memory is not None:
                bases += [f"{operand.name}_phase", f"{operand.name}_toggle"]
                bases += ["memory"] if self.engine == "load" else []
            uses += [(name, self._base_step(operand)) for name in bases]
        for name, step in uses:
            arrives = (offsets[name] + widths[name] - 1) // WORD_BITS + 1
            if arrives > step:
                raise InvariantError(f"{self.opcode.name}.{name} is used in step {step} and fetched by {arrives}")

    def _field(self, name: str) -> Value:
        return descriptor_field(self.descriptor, self.opcode, name)

    def _half(self, operand: Operand) -> Value | int:
        """Half the words of the operand's memory if its phase and toggles select the upper half, else 0."""
        if operand.memory is None:
            return 0
        half: Value | int = self.machine.half(operand.memory)
        if self.engine == "load":
            halves = [self.machine.half(MemoryId(number)) for number in range(4)]
            half = Array(Const(value, ADDRESS_BITS) for value in halves)[self._field("memory")[:2]]
        odd = Cat(self.index[level][0] for level in range(LOOP_DEPTH)) & self._field(f"{operand.name}_toggle")
        return Mux(self._field(f"{operand.name}_phase") ^ odd.xor(), half, 0)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        increments: list[Value] = []
        for number in range(min(ROUNDS, len(self.operands))):
            name = self.operands[number].increments
            increments += [self._field(f"{name}_inc{level}") for level in range(LOOP_DEPTH)]
        slot = Signal(range(ISSUE_CYCLES + 1))
        m.d.comb += slot.eq(self.step - FIRST_PRODUCT_STEP)
        factor_index = Signal(INDEX_BITS)
        factor = Signal(max(len(value) for value in increments))
        product = Signal(max(operand.bits for operand in self.operands))
        with m.If(self.step >= FIRST_PRODUCT_STEP):
            m.d.sync += [
                factor_index.eq(Array(self.index)[slot[:2]]),
                factor.eq(Array(increments)[slot]),
                product.eq(factor_index * factor),
            ]
        for operand in self.operands:
            base_step = self._base_step(operand)
            sums = Signal(operand.bits, name=operand.name)
            m.d.comb += self.address[operand.index].eq(sums)
            enters = self.step == base_step
            with m.If((self.step >= base_step) & (self.step <= base_step + LOOP_DEPTH)):
                origin = Mux(enters, self._field(f"{operand.name}_base"), sums)
                m.d.sync += sums.eq(origin + Mux(enters, self._half(operand), product))
        return m
