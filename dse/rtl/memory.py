"""Scratchpad memories: two-cycle reads (memory, then output register), write enables, banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
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
    """A memory in two banks, its ping-pong halves, each with one read and one write port for all who come.

    Words below `words // 2` lie in the lower bank. Two reads, or two writes, of one bank in the same cycle are a
    program error: the checker's duty; the first named then wins, and another reader receives its word.

    Parameters
    ----------
    words
        Depth, even; the halves need not be powers of two.
    width
        Bits of a word.
    readers, writers
        Names of those who use it, first come first.
    granularity
        Bits per write enable; divides `width`. None: the whole word.

    Members
    -------
    <reader>_read : In(ReadPort(width)), <writer>_write : In(WritePort(width, granularity)), one for each name
    """

    def __init__(
        self,
        words: int,
        width: int,
        readers: Sequence[str],
        writers: Sequence[str],
        granularity: int | None = None,
    ) -> None:
        self.words, self.width, self.half, self.granularity = words, width, words // 2, granularity
        self.readers, self.writers = tuple(readers), tuple(writers)
        members: dict[str, Any] = {f"{name}_read": In(ReadPort(width)) for name in readers}
        members |= {f"{name}_write": In(WritePort(width, granularity)) for name in writers}
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        reads = {name: getattr(self, f"{name}_read") for name in self.readers}
        writes = {name: getattr(self, f"{name}_write") for name in self.writers}
        banks = []
        for index, name in enumerate(("lower", "upper")):
            m.submodules[name] = bank = Scratchpad(self.half, self.width, self.granularity)
            banks.append(bank)
            self._share(m, bank.read, reads, index)
            with_data = self._share(m, bank.write, writes, index)
            m.d.comb += bank.write.data.eq(with_data)
        for name, port in reads.items():
            presented, answered = Signal(name=f"{name}_bank1"), Signal(name=f"{name}_bank2")
            m.d.sync += [presented.eq(port.addr >= self.half), answered.eq(presented)]
            m.d.comb += port.data.eq(Mux(answered, banks[1].read.data, banks[0].read.data))
        return m

    def _share(self, m: Module, shared: Any, ports: Mapping[str, Any], index: int) -> Value:
        """One port of a bank for all who use it, the first named in front; the data of whoever has it."""
        bank = ("lower", "upper")[index]
        enable: Value = Const(0, len(shared.en))
        address: Value = Const(0, ADDRESS_BITS)
        data: Value = Const(0, self.width)
        for name, port in reversed(list(ports.items())):
            mine = Signal(len(port.en), name=f"{name}_{bank}")
            m.d.comb += mine.eq(Mux((port.addr >= self.half) == index, port.en, 0))
            here = mine.any()
            if len(ports) == 1:
                enable, address, data = mine, port.addr, port.data
            else:
                enable = Mux(here, mine, enable)
                address, data = Mux(here, port.addr, address), Mux(here, port.data, data)
        m.d.comb += [shared.en.eq(enable), shared.addr.eq(address - index * self.half)]
        return data
