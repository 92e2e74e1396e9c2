"""BurstReader: for every entry of a list, read its descriptor and then its run of words, a word a cycle.

Deliver and emit are the same walk: a list of events (or of neurons that fired), a table that says where each one's
run of words starts and how long it is, and a memory with the words. Descriptors are fetched ahead, so that runs
follow each other without a gap; a run of no words takes one cycle.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

#: Descriptors fetched ahead: more than the cycles from a list's address to its descriptor.
FETCH_AHEAD = 8
#: Cycles of a walk over and above one a word: from `start` to the first address, and the one that sees the end.
WALK_CYCLES = 8


class BurstReader(wiring.Component):
    """Walks a list of `entries` behind memories of two-cycle reads, which the parent owns.

    Members
    -------
    start : In(1), entries : In
        Begins a walk; `entries` is sampled with it.
    list_address, descriptor_address : Out
        Reads of the list and of the table; their data are due two cycles later on `list_data`, `descriptor_data`.
    descriptor_data : In
        first word, number of words, and `tag_bits` more that come out with every word.
    room : In(1)
        Words are asked for only while this is high.
    valid, address, index, tag : Out
        A word is asked for: its address, its number within the run, the descriptor's tag.
    busy : Out(1)
        High from the cycle after `start` until the last address was given.
    """

    def __init__(self, entry_bits: int, count_bits: int, address_bits: int, length_bits: int, tag_bits: int) -> None:
        self.address_bits, self.length_bits, self.tag_bits = address_bits, length_bits, max(1, tag_bits)
        self.count_bits = count_bits
        super().__init__(
            {
                "start": In(1),
                "entries": In(count_bits),
                "list_address": Out(count_bits),
                "list_data": In(entry_bits),
                "descriptor_address": Out(entry_bits),
                "descriptor_data": In(address_bits + length_bits + self.tag_bits),
                "room": In(1),
                "valid": Out(1),
                "address": Out(address_bits),
                "index": Out(length_bits),
                "tag": Out(self.tag_bits),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.ahead = ahead = SyncFIFOBuffered(width=len(self.descriptor_data), depth=FETCH_AHEAD)
        total, asked, ended = (Signal(self.count_bits, name=name) for name in ("total", "asked", "ended"))
        credit = Signal(range(FETCH_AHEAD + 1), init=FETCH_AHEAD)
        # a read of the list, its register, a read of the table, its register
        in_flight = Signal(4)
        ask, end = Signal(), Signal()
        m.d.comb += [
            ask.eq((asked != total) & (credit != 0)),
            self.list_address.eq(asked),
            self.descriptor_address.eq(self.list_data),
            ahead.w_data.eq(self.descriptor_data),
            ahead.w_en.eq(in_flight[3]),
        ]
        # counters move by enables, which arrive late, and not by late operands of an adder
        m.d.sync += in_flight.eq(in_flight << 1 | ask)
        with m.If(ask):
            m.d.sync += asked.eq(asked + 1)
        with m.If(end):
            m.d.sync += ended.eq(ended + 1)
        with m.If(ask & ~end):
            m.d.sync += credit.eq(credit - 1)
        with m.Elif(end & ~ask):
            m.d.sync += credit.eq(credit + 1)
        with m.If(self.start):
            m.d.sync += [total.eq(self.entries), asked.eq(0), ended.eq(0)]
        first = ahead.r_data[: self.address_bits]
        length = ahead.r_data[self.address_bits : self.address_bits + self.length_bits]
        last, following = Signal(), Signal(self.length_bits, init=1)
        m.d.comb += [
            last.eq((length == 0) | (following == length)),
            self.valid.eq(ahead.r_rdy & self.room & (length != 0)),
            self.address.eq(first + self.index),
            self.tag.eq(ahead.r_data[self.address_bits + self.length_bits :]),
            end.eq(ahead.r_rdy & self.room & last),
            ahead.r_en.eq(end),
            self.busy.eq(ended != total),
        ]
        with m.If(end):
            m.d.sync += [self.index.eq(0), following.eq(1)]
        with m.Elif(self.valid):
            m.d.sync += [self.index.eq(following), following.eq(following + 1)]
        return m
