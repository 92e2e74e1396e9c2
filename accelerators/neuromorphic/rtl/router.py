"""A mesh router: five ports with a small queue each, dimension-ordered (X, then Y), one packet a cycle an output.

Dimension order on a mesh has no cyclic wait, so finite queues cannot deadlock as long as cores always take what
arrives, which they do.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

#: Ports in the order of arbitration priority at reset.
PORTS = ("local", "north", "east", "south", "west")


class Router(wiring.Component):
    """The router of column `x` and row `y` in a mesh of `columns` columns.

    A packet's upper `core_bits` name the destination core, row by row; all ones leave the mesh at core 0's west port.

    Members
    -------
    <port>_in : In(stream), <port>_out : Out(stream) for every port of `PORTS`
    empty : Out(1)
        No packet waits here.
    """

    def __init__(self, x: int, y: int, columns: int, axon_bits: int, core_bits: int, depth: int) -> None:
        self.x, self.y, self.columns, self.depth = x, y, columns, depth
        self.axon_bits, self.core_bits = axon_bits, core_bits
        width = stream.Signature(axon_bits + core_bits)
        members: dict[str, Any] = {"empty": Out(1)}
        for port in PORTS:
            members |= {f"{port}_in": In(width), f"{port}_out": Out(width)}
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        queues = {}
        for port in PORTS:
            queue = SyncFIFOBuffered(width=self.axon_bits + self.core_bits, depth=self.depth)
            m.submodules[port] = queues[port] = queue
            came = getattr(self, f"{port}_in")
            m.d.comb += [queue.w_data.eq(came.payload), queue.w_en.eq(came.valid), came.ready.eq(queue.w_rdy)]
        wanted = {port: self._wanted(m, port, queue) for port, queue in queues.items()}
        level = Signal()
        for queue in queues.values():
            m.d.comb += queue.r_en.eq(0)
        for out in PORTS:
            self._arbitrate(m, out, queues, wanted)
        m.d.comb += [level.eq(0), self.empty.eq(1)]
        for queue in queues.values():
            with m.If(queue.level != 0):
                m.d.comb += self.empty.eq(0)
        return m

    def _wanted(self, m: Module, port: str, queue: Any) -> Signal:
        """One bit an output of `PORTS`: where the packet at the head of a queue goes."""
        core = queue.r_data[self.axon_bits :]
        column, row = Signal(self.core_bits, name=f"{port}_column"), Signal(self.core_bits, name=f"{port}_row")
        goal = Signal(len(PORTS), name=f"{port}_goal")
        outside = core.all()
        m.d.comb += [row.eq(core // self.columns), column.eq(core % self.columns)]
        with m.If(outside):
            # first along the row to column 0, then up to row 0, then out
            west, north = 1 << PORTS.index("west"), 1 << PORTS.index("north")
            m.d.comb += goal.eq(west if self.x > 0 or self.y == 0 else north)
        with m.Elif(column != self.x):
            m.d.comb += goal.eq(Mux(column > self.x, 1 << PORTS.index("east"), 1 << PORTS.index("west")))
        with m.Elif(row != self.y):
            m.d.comb += goal.eq(Mux(row > self.y, 1 << PORTS.index("south"), 1 << PORTS.index("north")))
        with m.Else():
            m.d.comb += goal.eq(1 << PORTS.index("local"))
        return goal

    def _arbitrate(self, m: Module, out: str, queues: dict[str, Any], wanted: dict[str, Signal]) -> None:
        """Round robin among the queues that want `out`."""
        index = PORTS.index(out)
        target = getattr(self, f"{out}_out")
        asks = Signal(len(PORTS), name=f"{out}_asks")
        grant = Signal(range(len(PORTS)), name=f"{out}_grant")
        last = Signal(range(len(PORTS)), name=f"{out}_last")
        for number, port in enumerate(PORTS):
            m.d.comb += asks[number].eq(queues[port].r_rdy & wanted[port][index])
        with m.Switch(last):
            for start in range(len(PORTS)):
                with m.Case(start):
                    for step in range(len(PORTS), 0, -1):
                        number = (start + step) % len(PORTS)
                        with m.If(asks[number]):
                            m.d.comb += grant.eq(number)
        with m.Switch(grant):
            for number, port in enumerate(PORTS):
                with m.Case(number):
                    m.d.comb += [target.payload.eq(queues[port].r_data), target.valid.eq(asks[number])]
                    with m.If(asks[number] & target.ready):
                        m.d.comb += queues[port].r_en.eq(1)
        with m.If(target.valid & target.ready):
            m.d.sync += last.eq(grant)
