"""Loop indices and effective addresses of a queue's current descriptor.

One multiplier serves all operands: in step `FIRST_PRODUCT_STEP` + 4*i + d after the fetch began, increment d of
operand i meets loop index d. The fetch is still going on then: fields are used as soon as they have arrived. Engines
with several opcodes choose the fields of each operand by the opcode, which comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
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

#: Opcodes with operands, by engine: those of every machine, and those of the element unit.
ENGINE_OPCODES: Mapping[str, tuple[Opcode, ...]] = {
    "load": (Opcode.LOAD,),
    "matmul": (Opcode.MATMUL,),
    "vector": (Opcode.VECTOR, Opcode.FORWARD),
    "store": (Opcode.STORE,),
}
ELEMENT_OPCODES = (Opcode.SCALE, Opcode.ELEMENT, Opcode.POOL)


@dataclass(frozen=True)
class Operand:
    """One effective address: index in `control.address`, names of its fields and of those it moves with.

    `memory` is where its ping-pong halves lie: a memory, the field that names one, or None where it has none.
    """

    index: int
    name: str
    increments: str
    memory: MemoryId | str | None
    bits: int = ADDRESS_BITS


_EXTERNAL = Operand(0, "ext", "ext", None, MEMORY_ADDRESS_BITS)

OPERANDS_OF: Mapping[Opcode, tuple[Operand, ...]] = {
    Opcode.LOAD: (_EXTERNAL, Operand(1, "local", "local", "memory")),
    Opcode.STORE: (_EXTERNAL, Operand(1, "local", "local", "from_state")),
    Opcode.MATMUL: (
        Operand(0, "a", "a", MemoryId.ACTIVATION),
        Operand(1, "w", "w", MemoryId.WEIGHT),
        Operand(2, "acc", "acc", MemoryId.ACCUMULATOR),
    ),
    Opcode.VECTOR: (
        Operand(0, "acc", "acc", MemoryId.ACCUMULATOR),
        Operand(1, "out", "out", MemoryId.OUTPUT),
        Operand(2, "param", "param", None),
        Operand(3, "res", "out", MemoryId.RESIDUAL),
    ),
    Opcode.FORWARD: (
        Operand(0, "acc", "acc", MemoryId.ACCUMULATOR),
        Operand(1, "out", "out", MemoryId.ACTIVATION),
        Operand(2, "param", "param", None),
    ),
    Opcode.SCALE: (
        Operand(0, "acc", "acc", MemoryId.ACCUMULATOR),
        Operand(1, "dst", "dst", "dst_memory"),
        Operand(2, "param", "param", None),
    ),
    Opcode.ELEMENT: (
        Operand(0, "a", "a", "a_memory"),
        Operand(1, "b", "b", "b_memory"),
        Operand(2, "dst", "dst", "dst_memory"),
    ),
    Opcode.POOL: (Operand(0, "a", "a", "a_memory"), Operand(1, "dst", "dst", "dst_memory")),
}


def _round(operand: Operand) -> int:
    """The round of the multiplier that serves an operand: the field that turns `ext` downwards arrives last."""
    if operand.name == "ext":
        return 2
    return 1 if operand.name == "res" else operand.index


def _base_step(operand: Operand) -> int:
    """The step in which the base enters the adder: the one before the first product does."""
    return FIRST_PRODUCT_STEP + LOOP_DEPTH * _round(operand) + 1


def _half_step(operand: Operand) -> int:
    """The step in which the half enters: with the base, or behind the last product."""
    return _base_step(operand) + (0 if _round(operand) else LOOP_DEPTH + 1)


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

    Base and half enter the adder a cycle before the first product does; in the first round the half follows the last
    one, since the field that names the memory arrives late.

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
        element = engine == "vector" and machine.has(MemoryId.STATE)
        self.opcodes = ENGINE_OPCODES[engine] + (ELEMENT_OPCODES if element else ())
        for opcode in self.opcodes:
            for operand in OPERANDS_OF[opcode]:
                self._check_words_arrive_in_time(opcode, operand)
        super().__init__(
            {
                "step": In(range(ISSUE_CYCLES + 1)),
                "descriptor": In(8 * DESCRIPTOR_BYTES),
                "index": In(data.ArrayLayout(INDEX_BITS, LOOP_DEPTH)),
                "address": Out(data.ArrayLayout(MEMORY_ADDRESS_BITS, OPERANDS)),
            }
        )

    def _check_words_arrive_in_time(self, opcode: Opcode, operand: Operand) -> None:
        """Guards the overlap of fetch and evaluation against changes of the instruction set."""
        offsets = isa.field_offsets(opcode)
        widths = {item.name: item.bits for item in isa.fields(opcode)}
        first = FIRST_PRODUCT_STEP + LOOP_DEPTH * _round(operand)
        uses = {f"{operand.increments}_inc{level}": first + level for level in range(LOOP_DEPTH)}
        uses[f"{operand.name}_base"] = _base_step(operand)
        if operand.memory is not None:
            for name in (f"{operand.name}_phase", f"{operand.name}_toggle"):
                uses[name] = _half_step(operand)
        if isinstance(operand.memory, str):
            uses[operand.memory] = _half_step(operand)
        if "ext_down" in offsets and operand.name == "ext":
            uses["ext_down"] = _base_step(operand) + 1
        for name, step in uses.items():
            arrives = (offsets[name] + widths[name] - 1) // WORD_BITS + 1
            if arrives > step:
                raise InvariantError(f"{opcode.name}.{name} is used in step {step} and fetched by {arrives}")

    def _field(self, opcode: Opcode, name: str) -> Value:
        return descriptor_field(self.descriptor, opcode, name)

    def _by_opcode(self, values: Mapping[Opcode, Value]) -> Value:
        """The value of the current opcode; of another one, any."""
        items = list(values.items())
        chosen = items[0][1]
        for opcode, value in items[1:]:
            chosen = Mux(self.descriptor[: isa.HEADER[0].bits] == opcode, value, chosen)
        return chosen

    def _operands(self, index: int) -> dict[Opcode, Operand]:
        """By opcode, the operand at an index of `control.address`."""
        found = {opcode: [o for o in OPERANDS_OF[opcode] if o.index == index] for opcode in self.opcodes}
        return {opcode: operands[0] for opcode, operands in found.items() if operands}

    def _half(self, opcode: Opcode, operand: Operand) -> Value:
        """Half the words of the operand's memory if its phase and toggles select the upper half, else 0."""
        if operand.memory is None:
            return Const(0, ADDRESS_BITS)
        half: Value
        if isinstance(operand.memory, str):
            choices = [MemoryId.OUTPUT, MemoryId.STATE] if operand.memory == "from_state" else list(MemoryId)
            sizes = [self.machine.half(memory) if self.machine.has(memory) else 0 for memory in choices]
            if len(set(sizes)) == 1:
                half = Const(sizes[0], ADDRESS_BITS)
            else:
                half = Array(Const(size, ADDRESS_BITS) for size in sizes)[self._field(opcode, operand.memory)]
        else:
            half = Const(self.machine.half(operand.memory), ADDRESS_BITS)
        toggle = self._field(opcode, f"{operand.name}_toggle")
        odd = Cat(self.index[level][0] for level in range(LOOP_DEPTH)) & toggle
        return Mux(self._field(opcode, f"{operand.name}_phase") ^ odd.xor(), half, 0)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        increments: list[Value] = []
        for round_ in range(ROUNDS):
            names = {
                opcode: operand.increments
                for opcode in self.opcodes
                for operand in OPERANDS_OF[opcode]
                if _round(operand) == round_ and operand.increments == operand.name
            }
            for level in range(LOOP_DEPTH):
                fields = {opcode: self._field(opcode, f"{name}_inc{level}") for opcode, name in names.items()}
                increments.append(self._by_opcode(fields) if fields else Const(0))
        slot = Signal(range(ISSUE_CYCLES + 1))
        m.d.comb += slot.eq(self.step - FIRST_PRODUCT_STEP)
        factor_index = Signal(INDEX_BITS)
        factor = Signal(max(len(value) for value in increments))
        bits = max(operand.bits for opcode in self.opcodes for operand in OPERANDS_OF[opcode])
        product = Signal(bits)
        with m.If(self.step >= FIRST_PRODUCT_STEP):
            m.d.sync += [
                factor_index.eq(Array(self.index)[slot[:2]]),
                factor.eq(Array(increments)[slot]),
                product.eq(factor_index * factor),
            ]
        for index in range(OPERANDS):
            if self._operands(index):
                self._add_up(m, index, product)
        return m

    def _add_up(self, m: Module, index: int, product: Signal) -> None:
        """Base, products and half of the operand at an index, one after the other through one adder."""
        operands = self._operands(index)
        one = next(iter(operands.values()))
        base_step, half_step = _base_step(one), _half_step(one)
        sums = Signal(max(operand.bits for operand in operands.values()), name=f"address{index}")
        m.d.comb += self.address[index].eq(sums)
        base = self._by_opcode({o: self._field(o, f"{operand.name}_base") for o, operand in operands.items()})
        half = self._by_opcode({o: self._half(o, operand) for o, operand in operands.items()})
        enters = self.step == base_step
        added = Signal(len(sums), name=f"added{index}")
        m.d.comb += added.eq(Mux(enters, 0, product))
        if one.name == "ext":
            # the level of the product that stands there entered the multiplier two steps ago
            downwards = self._field(self.opcodes[0], "ext_down")
            with m.If(Array(downwards)[(self.step - base_step - 1)[:2]]):
                m.d.comb += added.eq(-product)
        with m.If(self.step == half_step):
            m.d.comb += added.eq(half)
        with m.If((self.step >= base_step) & (self.step <= max(half_step, base_step + LOOP_DEPTH))):
            m.d.sync += sums.eq(Mux(enters, base, sums) + added)
