"""Scratchpad memories: two-cycle reads (memory, then output register), write enables, banked accumulators."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from dse.core.errors import InfeasibleError, Violation
from dse.rtl.interfaces import ADDRESS_BITS, ReadPort, WritePort


class Scratchpad(wiring.Component):
    """A memory with one write port and one read port, both usable every cycle.

    Parameters
    ----------
    words
        Depth, 1 to 65536; addresses at or beyond it are a program error and hit an unspecified word.
    width
        Bits of a word.
    granularity
        Bits per write enable; divides `width`. None: the whole word.

    Members
    -------
    write : In(WritePort(width, granularity))
        A write presented in cycle t is seen by reads presented in cycle t + 1 or later.
    read : In(ReadPort(width))
        `data` belongs to the address presented with `en` two cycles earlier.

    Raises
    ------
    InfeasibleError: more words than an address reaches.
    """

    def __init__(self, words: int, width: int, granularity: int | None = None) -> None:
        if not 1 <= words <= 1 << ADDRESS_BITS:
            raise InfeasibleError("scratchpad", [Violation("depth", words, 1 << ADDRESS_BITS, "words")])
        self.words, self.width, self.granularity = words, width, granularity
        super().__init__({"write": In(WritePort(width, granularity)), "read": In(ReadPort(width))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=self.width, depth=self.words, init=[])
        write_port = array.write_port(granularity=self.granularity)
        read_port = array.read_port()
        m.d.comb += [
            write_port.addr.eq(self.write.addr),
            write_port.data.eq(self.write.data),
            write_port.en.eq(self.write.en),
            read_port.addr.eq(self.read.addr),
            read_port.en.eq(self.read.en),
        ]
        m.d.sync += self.read.data.eq(read_port.data)
        return m


class BankedScratchpad(wiring.Component):
    """The accumulator memory: two banks, its ping-pong halves, so that two readers work side by side.

    Words below `words // 2` lie in the lower bank. Two reads of one bank in the same cycle are a program
    error: the checker's duty; `matmul` then wins and `vector` receives its word.

    Parameters
    ----------
    words
        Depth, even; the halves need not be powers of two.
    width
        Bits of a word.

    Members
    -------
    write : In(WritePort(width))
    matmul, vector : In(ReadPort(width))
    """

    def __init__(self, words: int, width: int) -> None:
        self.words, self.width, self.half = words, width, words // 2
        super().__init__({"write": In(WritePort(width)), "matmul": In(ReadPort(width)), "vector": In(ReadPort(width))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        readers = {"matmul": self.matmul, "vector": self.vector}
        upper = {name: Signal(name=f"{name}_upper") for name in readers}
        for name, port in readers.items():
            m.d.comb += upper[name].eq(port.addr >= self.half)
        write_upper = Signal()
        m.d.comb += write_upper.eq(self.write.addr >= self.half)

        data = []
        for index, name in enumerate(("lower", "upper")):
            bank = Scratchpad(self.half, self.width)
            m.submodules[name] = bank
            first = index * self.half
            taken = Signal(name=f"{name}_matmul")
            m.d.comb += [
                taken.eq(self.matmul.en & (upper["matmul"] == index)),
                bank.read.en.eq(taken | (self.vector.en & (upper["vector"] == index))),
                bank.read.addr.eq(Mux(taken, self.matmul.addr, self.vector.addr) - first),
                bank.write.en.eq(self.write.en & (write_upper == index)),
                bank.write.addr.eq(self.write.addr - first),
                bank.write.data.eq(self.write.data),
            ]
            data.append(bank.read.data)

        for name, port in readers.items():
            presented, answered = Signal(name=f"{name}_bank1"), Signal(name=f"{name}_bank2")
            m.d.sync += [presented.eq(upper[name]), answered.eq(presented)]
            m.d.comb += port.data.eq(Mux(answered, data[1], data[0]))
        return m
