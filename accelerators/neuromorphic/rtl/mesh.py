"""Mesh: cores and routers in rows and columns, stepping together behind a barrier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accelerators.neuromorphic.rtl.core import NeuroCore, packet_layout
from accelerators.neuromorphic.rtl.router import Router
from accelerators.neuromorphic.rtl.shape import CoreImage, CoreShape

#: Cycles for which nothing may move before a step counts as over: a packet between two queues is in neither.
QUIET_CYCLES = 4


class Mesh(wiring.Component):
    """`columns` x `rows` cores of one shape, core number row by row.

    Members
    -------
    go : In(1)
        Begins a step of all cores; only while `quiet`.
    quiet : Out(1)
        All cores idle, no packet under way.
    cores
        The cores, open to a simulation's testbench.
    events : In(stream), outputs : Out(stream)
        Packets into and out of the mesh, at core 0's west port. Events given while `quiet` are for the next step.
    """

    def __init__(
        self, shape: CoreShape, images: Sequence[CoreImage], columns: int, rows: int, queue_depth: int = 4
    ) -> None:
        if len(images) != columns * rows:
            raise ValueError(f"{len(images)} cores do not fill a mesh of {columns} x {rows}")
        self.shape, self.columns, self.rows, self.queue_depth = shape, columns, rows, queue_depth
        self.cores = [NeuroCore(shape, image) for image in images]
        packet = stream.Signature(packet_layout(shape))
        super().__init__({"go": In(1), "quiet": Out(1), "events": In(packet), "outputs": Out(packet)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        widths = self.shape.widths
        routers = []
        for number, core in enumerate(self.cores):
            x, y = number % self.columns, number // self.columns
            router = Router(x, y, self.columns, widths.axon, widths.core, self.queue_depth)
            m.submodules[f"core{number}"], m.submodules[f"router{number}"] = core, router
            routers.append(router)
            m.d.comb += [
                core.go.eq(self.go),
                router.local_in.payload.eq(core.outgoing.payload),
                router.local_in.valid.eq(core.outgoing.valid),
                core.outgoing.ready.eq(router.local_in.ready),
                core.incoming.payload.eq(router.local_out.payload[: widths.axon]),
                core.incoming.valid.eq(router.local_out.valid),
                router.local_out.ready.eq(1),
            ]
        self._links(m, routers)
        still, waited = Signal(), Signal(range(QUIET_CYCLES + 1))
        m.d.comb += still.eq(~self.go & ~self.events.valid)
        for core, router in zip(self.cores, routers, strict=True):
            with m.If(~core.idle | ~router.empty):
                m.d.comb += still.eq(0)
        with m.If(~still):
            m.d.sync += waited.eq(0)
        with m.Elif(waited != QUIET_CYCLES):
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += self.quiet.eq(still & (waited == QUIET_CYCLES))
        return m

    def _links(self, m: Module, routers: Sequence[Router]) -> None:
        """Neighbours to each other, and core 0's west port to the outside."""
        for number, router in enumerate(routers):
            if number % self.columns + 1 < self.columns:
                _join(m, router, "east", routers[number + 1], "west")
            if number + self.columns < len(routers):
                _join(m, router, "south", routers[number + self.columns], "north")
        door = routers[0]
        m.d.comb += [
            door.west_in.payload.eq(self.events.payload),
            door.west_in.valid.eq(self.events.valid),
            self.events.ready.eq(door.west_in.ready),
            self.outputs.payload.eq(door.west_out.payload),
            self.outputs.valid.eq(door.west_out.valid),
            door.west_out.ready.eq(self.outputs.ready),
        ]


def _join(m: Module, one: Router, port: str, other: Router, back: str) -> None:
    for source, out, target, into in ((one, port, other, back), (other, back, one, port)):
        sent, taken = getattr(source, f"{out}_out"), getattr(target, f"{into}_in")
        m.d.comb += [
            taken.payload.eq(sent.payload), taken.valid.eq(sent.valid), sent.ready.eq(taken.ready),
        ]  # fmt: skip
