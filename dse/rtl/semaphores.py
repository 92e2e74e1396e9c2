"""The semaphores through which the four queues meet: 16 counters of 8 bits.

A signal given in cycle e is counted at the end of e, so a waiting task may start in e + 1. Increments and
decrements of different queues in one cycle all count, also on one semaphore. Each semaphore has one consuming
queue, and a descriptor names a semaphore at most once among its waits and at most once among its signals:
programs that break this are refused before they run.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile.isa import ENGINES, SEMAPHORE_MAX, SEMAPHORES, Opcode
from dse.program.tile.isa import field_offsets as _field_offsets

SLOTS = 3
AMOUNT_BITS = SEMAPHORE_MAX.bit_length()

#: A wait or a signal: amount 0 means unused.
SLOT = data.StructLayout({"id": range(SEMAPHORES), "amount": AMOUNT_BITS})
SLOTS_LAYOUT = data.ArrayLayout(SLOT, SLOTS)

# The header holds waits and signals as arrays of slots: they are taken out as a whole.
_OFFSETS = _field_offsets(Opcode.SYNC)
WAITS_OFFSET, SIGNALS_OFFSET = _OFFSETS["wait0_id"], _OFFSETS["signal0_id"]


class SemaphorePort(wiring.Signature):
    """What a queue has of the semaphores, seen from the queue.

    `waits` and `signals` are the slots of the current descriptor; `ready` tells, in the same cycle, whether every
    awaited semaphore holds its amount. `take` (only when `ready`) subtracts the waits, `give` adds the signals,
    both at the end of the cycle; never in the same cycle.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "waits": Out(SLOTS_LAYOUT),
                "signals": Out(SLOTS_LAYOUT),
                "take": Out(1),
                "give": Out(1),
                "ready": In(1),
            }
        )


class Semaphores(wiring.Component):
    """The semaphore counters.

    Members
    -------
    clear : In(1)
        All counts become 0 (start of a program).
    load, matmul, vector, store : In(SemaphorePort())
        One per queue.
    """

    def __init__(self) -> None:
        members: dict[str, Any] = {"clear": In(1)}
        members.update({engine: In(SemaphorePort()) for engine in ENGINES})
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        counts = Signal(data.ArrayLayout(AMOUNT_BITS, SEMAPHORES))
        ports = [getattr(self, engine) for engine in ENGINES]
        for port in ports:
            held = [counts[port.waits[slot].id] >= port.waits[slot].amount for slot in range(SLOTS)]
            m.d.comb += port.ready.eq(Cat(held).all())

        with m.If(self.clear):
            m.d.sync += counts.eq(0)
        # The guard is a clock enable of all counters; most cycles move none.
        with m.Elif(Cat((port.take, port.give) for port in ports).any()):
            for index in range(SEMAPHORES):
                moves = [_move(m, engine, index, port) for engine, port in zip(ENGINES, ports, strict=True)]
                m.d.sync += counts[index].eq(sum(moves, counts[index]))
        return m


def _move(m: Module, engine: str, index: int, port: Any) -> Signal:
    """What one queue adds to one semaphore this cycle, modulo 256: its signal, or minus its wait."""
    amount = Signal(AMOUNT_BITS, name=f"{engine}_amount{index}")
    move = Signal(AMOUNT_BITS, name=f"{engine}_move{index}")
    chosen = 0
    for slot in range(SLOTS):
        used = Mux(port.take, port.waits[slot].as_value(), port.signals[slot].as_value())
        view = data.View(SLOT, used)
        chosen = chosen | Mux((port.take | port.give) & (view.id == index), view.amount, 0)
    m.d.comb += [amount.eq(chosen), move.eq(Mux(port.take, -amount, amount))]
    return move
