"""DMA engines: LOAD (memory -> scratchpads) and STORE (output buffer -> memory), one beat a cycle.

A transfer is n0 x n1 x n2 runs of `run_bytes` bytes, each between consecutive bytes of memory and one
scratchpad word, cut into beats of the memory port's width. Addresses advance by additions only. Requests and
responses are counted apart, so any latency and any back-pressure of the port is borne.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile.isa import MemoryId, Opcode
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.program import Machine
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import (
    ADDRESS_BITS,
    MEMORY_ADDRESS_BITS,
    READ_LATENCY,
    EngineControl,
    MemoryReadPort,
    MemoryWritePort,
    ReadPort,
    WritePort,
)

COUNT_BITS = 16
#: A bound on beats between their read from the output buffer and their acknowledgement.
IN_FLIGHT_BITS = 17
#: Credits of a STORE: two cycles of read, one into the FIFO, one until the freed place is seen.
STORE_FIFO_BEATS = READ_LATENCY + 2
#: Memories whose words a LOAD writes; those of an element unit only on a machine with one.
WORD_TARGETS = (MemoryId.ACTIVATION, MemoryId.WEIGHT, MemoryId.PARAMETER, MemoryId.RESIDUAL, MemoryId.STATE)


def loadable_words(machine: Machine) -> tuple[MemoryId, ...]:
    """Memories of a machine that a LOAD writes word by word; its tables are written line by line."""
    return tuple(memory for memory in WORD_TARGETS if machine.has(memory))


def table_line_bytes(machine: Machine) -> int:
    """Bytes of a line of the table memory: a beat, at least an entry and at most a table."""
    return min(max(machine.memory_bytes_per_cycle, 2), TABLE_BYTES)


@dataclass(frozen=True)
class Lane:
    """One address that walks with the runs: its width, its stride fields, whether it moves within a run."""

    name: str
    bits: int
    stride: str
    follows_beats: bool


EXTERNAL = Lane("external", MEMORY_ADDRESS_BITS, "ext_stride", follows_beats=True)
LOCAL = Lane("local", ADDRESS_BITS, "local_stride", follows_beats=False)


class RunWalker(wiring.Component):
    """Walks the beats of a transfer in order: i2 fastest, then i1, i0; within a run, beat by beat.

    Members
    -------
    start : In(1)
        Loads the counters; the first beat is presented in the next cycle.
    descriptor, base_<lane> : In
        Stable from `start` until `valid` falls.
    advance : In(1)
        The presented beat is used; the next one is presented in the next cycle.
    valid : Out(1)
        A beat is presented.
    last : Out(1)
        The presented beat is the last one.
    position, remaining : Out(16)
        Bytes of the run before the presented beat, and from it on.
    <lane> : Out
        Address of the presented beat.
    """

    def __init__(self, beat_bytes: int, opcode: Opcode, lanes: tuple[Lane, ...]) -> None:
        self.beat_bytes, self.opcode, self.lanes = beat_bytes, opcode, lanes
        members: dict[str, Any] = {
            "start": In(1),
            "descriptor": In(EngineControl().members["descriptor"].shape),
            "advance": In(1),
            "valid": Out(1),
            "last": Out(1),
            "position": Out(COUNT_BITS),
            "remaining": Out(COUNT_BITS),
        }
        for lane in lanes:
            members[f"base_{lane.name}"] = In(lane.bits)
            members[lane.name] = Out(lane.bits)
        super().__init__(members)

    def _field(self, name: str) -> Value:
        return descriptor_field(self.descriptor, self.opcode, name)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        counts = [self._field(f"n{level}") for level in range(3)]
        left = [Signal(COUNT_BITS, name=f"left{level}") for level in range(3)]
        final = [Signal(name=f"final{level}") for level in range(3)]
        run_ends, moves = Signal(), Signal()
        m.d.comb += [flag.eq(count == 1) for flag, count in zip(final, left, strict=True)]
        m.d.comb += [
            run_ends.eq(self.remaining <= self.beat_bytes),
            self.last.eq(self.valid & run_ends & Cat(final).all()),
            moves.eq(self.advance & self.valid),
        ]
        # The level whose index moves when a run ends: the innermost that is not at its end.
        level = Signal(2)
        m.d.comb += level.eq(Mux(~final[2], 2, Mux(~final[1], 1, 0)))

        with m.If(self.start):
            m.d.sync += [self.valid.eq(1), self.position.eq(0), self.remaining.eq(self._field("run_bytes"))]
            m.d.sync += [value.eq(count) for value, count in zip(left, counts, strict=True)]
        with m.Elif(moves & ~run_ends):
            m.d.sync += [
                self.position.eq(self.position + self.beat_bytes),
                self.remaining.eq(self.remaining - self.beat_bytes),
            ]
        with m.Elif(moves):
            m.d.sync += [
                self.valid.eq(~self.last),
                self.position.eq(0),
                self.remaining.eq(self._field("run_bytes")),
            ]
            for index, (value, count) in enumerate(zip(left, counts, strict=True)):
                with m.If(level == index):
                    m.d.sync += value.eq(value - 1)
                with m.Elif(level < index):
                    m.d.sync += value.eq(count)
        for lane in self.lanes:
            self._walk(m, lane, moves, run_ends, level)
        return m

    def _walk(self, m: Module, lane: Lane, moves: Signal, run_ends: Signal, level: Signal) -> None:
        """One address: where the current i0, i1 and i2 begin, and the beat; a single adder moves them."""
        base, beat = getattr(self, f"base_{lane.name}"), getattr(self, lane.name)
        origins = [Signal(lane.bits, name=f"{lane.name}{index}") for index in range(3)]
        strides = [self._field(f"{lane.stride}{index}") for index in range(3)]
        moved = Signal(lane.bits, name=f"{lane.name}_moved")
        of_run = Array(origins)[level] + Array(strides)[level]
        if lane.follows_beats:
            m.d.comb += moved.eq(Mux(run_ends, of_run, beat + self.beat_bytes))
        else:
            m.d.comb += moved.eq(of_run)
        with m.If(self.start):
            m.d.sync += [origin.eq(base) for origin in origins] + [beat.eq(base)]
        with m.Elif(moves & run_ends):
            m.d.sync += beat.eq(moved)
            for index, origin in enumerate(origins):
                with m.If(level <= index):
                    m.d.sync += origin.eq(moved)
        if lane.follows_beats:
            with m.Elif(moves):
                m.d.sync += beat.eq(moved)


class LoadEngine(wiring.Component):
    """Executes LOAD.

    A beat's bytes are rotated into their place of the word in the cycle they arrive and written in the next.
    `done` is raised with the last write: e - s = beats + latency + 1 on a port that is always ready.

    Members
    -------
    control : Out(EngineControl)
        Addresses: memory byte address, scratchpad word address.
    memory : Out(MemoryReadPort(machine.memory_bytes_per_cycle))
    activation, weight, parameter, residual, state : Out(WritePort(8 * word_bytes, 8)); `state` with an element unit
    table : Out(WritePort(8 * line bytes, 8)): with an element unit, lines of `table_line_bytes` over all tables
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.beat_bytes = machine.memory_bytes_per_cycle
        members: dict[str, Any] = {
            "control": Out(EngineControl()),
            "memory": Out(MemoryReadPort(self.beat_bytes)),
        }
        for target in loadable_words(machine):
            members[target.name.lower()] = Out(WritePort(8 * machine.word_bytes[target], 8))
        if machine.has(MemoryId.TABLE):
            members["table"] = Out(WritePort(8 * table_line_bytes(machine), 8))
        super().__init__(members)

    def _field(self, name: str) -> Value:
        return descriptor_field(self.control.descriptor, Opcode.LOAD, name)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.requests = requests = RunWalker(self.beat_bytes, Opcode.LOAD, (EXTERNAL,))
        m.submodules.responses = responses = RunWalker(self.beat_bytes, Opcode.LOAD, (LOCAL,))
        for walker in (requests, responses):
            m.d.comb += [walker.start.eq(self.control.start), walker.descriptor.eq(self.control.descriptor)]
        m.d.comb += [
            requests.base_external.eq(self.control.address[0]),
            responses.base_local.eq(self.control.address[1]),
            self.memory.valid.eq(requests.valid),
            self.memory.addr.eq(requests.external),
            requests.advance.eq(self.memory.ready),
            responses.advance.eq(self.memory.data_valid),
        ]
        self._write(m, responses)
        return m

    def _write(self, m: Module, responses: RunWalker) -> None:
        """The stage between port and scratchpads: the rotated beat, and which bytes of the word it covers."""
        targets = loadable_words(self.machine)
        word_bytes = max(self.machine.word_bytes[target] for target in targets)
        byte_bits = range(word_bytes + 1)
        rotated = Signal(8 * self.beat_bytes)
        first, end, word = Signal(byte_bits), Signal(byte_bits), Signal(ADDRESS_BITS)
        written = Signal()
        place = Signal(COUNT_BITS)
        count = Mux(responses.remaining < self.beat_bytes, responses.remaining, self.beat_bytes)
        m.d.comb += place.eq(self._field("byte_offset") + responses.position)
        m.d.sync += [written.eq(self.memory.data_valid), self.control.done.eq(0)]
        with m.If(self.memory.data_valid):
            m.d.sync += [
                rotated.eq(_rotate_bytes(self.memory.data, place, self.beat_bytes)),
                first.eq(place),
                end.eq(place + count),
                word.eq(responses.local),
                self.control.done.eq(responses.last),
            ]
        covered = Signal(word_bytes)
        ones = Const((1 << word_bytes) - 1, word_bytes)
        m.d.comb += covered.eq((ones << first) & ~(ones << end))
        for target in targets:
            port = getattr(self, target.name.lower())
            repeats = -(-self.machine.word_bytes[target] // self.beat_bytes)
            m.d.comb += [
                port.addr.eq(word),
                port.data.eq(Cat(rotated for _ in range(repeats))),
                port.en.eq(Mux(written & (self._field("memory") == target), covered, 0)),
            ]
        if self.machine.has(MemoryId.TABLE):
            self._write_table(m, rotated, place, count, written)

    def _write_table(self, m: Module, rotated: Signal, place: Value, count: Value, written: Signal) -> None:
        """The stage of a table: beats begin at multiples of their size, so that each falls into one line."""
        line = table_line_bytes(self.machine)
        line_bits = (line - 1).bit_length()
        table_bits = (TABLE_BYTES - 1).bit_length()
        held, first, end = Signal(table_bits - line_bits), Signal(range(line + 1)), Signal(range(line + 1))
        word = Signal(ADDRESS_BITS, name="table_word")
        with m.If(self.memory.data_valid):
            m.d.sync += [
                held.eq(place[line_bits:table_bits]),
                first.eq(place[:line_bits]),
                end.eq(place[:line_bits] + count),
                word.eq(m.submodules.responses.local),
            ]
        ones = Const((1 << line) - 1, line)
        enables = (ones << first) & ~(ones << end)
        m.d.comb += [
            self.table.addr.eq(Cat(held, word)),
            self.table.data.eq(rotated.replicate(line // self.beat_bytes)),
            self.table.en.eq(Mux(written & (self._field("memory") == MemoryId.TABLE), enables[:line], 0)),
        ]


def _rotate_bytes(beat: Value, place: Value, beat_bytes: int) -> Value:
    """The beat rotated so that its byte 0 lies at `place` modulo the (power of two) beat width."""
    rotated = beat
    for bit in range((beat_bytes - 1).bit_length()):
        rotated = Mux(place[bit], rotated.rotate_left(8 << bit), rotated)
    return rotated


class StoreEngine(wiring.Component):
    """Executes STORE.

    Reads the output buffer once a beat; a FIFO with credits stands between the rigid read and the port.
    `done` follows the last acknowledgement: e - s = beats + latency + 4 on a port that is always ready.

    Members
    -------
    control : Out(EngineControl)
        Addresses: memory byte address, output buffer word address.
    output, state : Out(ReadPort(8 * word_bytes)); `state` with an element unit
    memory : Out(MemoryWritePort(machine.memory_bytes_per_cycle))
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.beat_bytes = machine.memory_bytes_per_cycle
        self.word_bytes = machine.word_bytes[MemoryId.OUTPUT]
        self.reads_state = machine.has(MemoryId.STATE)
        super().__init__(
            {
                "control": Out(EngineControl()),
                "output": Out(ReadPort(8 * self.word_bytes)),
                **({"state": Out(ReadPort(8 * machine.word_bytes[MemoryId.STATE]))} if self.reads_state else {}),
                "memory": Out(MemoryWritePort(self.beat_bytes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.reads = reads = RunWalker(self.beat_bytes, Opcode.STORE, (LOCAL,))
        m.submodules.sends = sends = RunWalker(self.beat_bytes, Opcode.STORE, (EXTERNAL,))
        m.submodules.beats = beats = fifo.SyncFIFO(width=8 * self.beat_bytes, depth=STORE_FIFO_BEATS)
        credits = Signal(range(STORE_FIFO_BEATS + 1), init=STORE_FIFO_BEATS)
        read, accepted = Signal(), Signal()
        for walker in (reads, sends):
            m.d.comb += [walker.start.eq(self.control.start), walker.descriptor.eq(self.control.descriptor)]
        m.d.comb += [
            reads.base_local.eq(self.control.address[1]),
            sends.base_external.eq(self.control.address[0]),
            read.eq(reads.valid & (credits != 0)),
            reads.advance.eq(read),
            self.output.en.eq(read & ~self._from_state()),
            self.output.addr.eq(reads.local),
            self.memory.valid.eq(beats.r_rdy),
            self.memory.addr.eq(sends.external),
            self.memory.data.eq(beats.r_data),
            self.memory.bytes.eq(Mux(sends.remaining < self.beat_bytes, sends.remaining, self.beat_bytes)),
            accepted.eq(beats.r_rdy & self.memory.ready),
            beats.r_en.eq(accepted),
            sends.advance.eq(accepted),
        ]
        m.d.sync += credits.eq(credits - read + accepted)
        if self.reads_state:
            m.d.comb += [self.state.en.eq(read & self._from_state()), self.state.addr.eq(reads.local)]
        self._collect(m, reads, read, beats)
        in_flight = Signal(IN_FLIGHT_BITS)
        m.d.sync += [
            in_flight.eq(in_flight + read - self.memory.ack),
            self.control.done.eq(self.memory.ack & (in_flight == 1) & ~reads.valid),
        ]
        return m

    def _from_state(self) -> Value:
        return descriptor_field(self.control.descriptor, Opcode.STORE, "from_state") if self.reads_state else Const(0)

    def _collect(self, m: Module, reads: RunWalker, read: Signal, beats: fifo.SyncFIFO) -> None:
        """Cuts the beat out of the word that arrives `READ_LATENCY` cycles after its read."""
        arrives, position = read, reads.position
        for stage in range(READ_LATENCY):
            arrives_next, position_next = (
                Signal(name=f"arrives{stage}"),
                Signal(COUNT_BITS, name=f"position{stage}"),
            )
            m.d.sync += [arrives_next.eq(arrives), position_next.eq(position)]
            arrives, position = arrives_next, position_next
        word: Value = self.output.data
        if self.reads_state:
            word = Mux(self._from_state(), self.state.data, word)
        pieces = -(-len(word) // (8 * self.beat_bytes))
        beat_shift = (self.beat_bytes - 1).bit_length()
        padded = Cat(word, Const(0, 8 * pieces * self.beat_bytes - len(word)))
        m.d.comb += [
            beats.w_en.eq(arrives),
            beats.w_data.eq(padded.word_select(position[beat_shift:], 8 * self.beat_bytes)),
        ]
