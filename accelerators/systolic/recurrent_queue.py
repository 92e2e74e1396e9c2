"""Building blocks of recurrent queues: named semaphores, loops, descriptors without idle fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dse.program.tile.isa import Descriptor, Opcode

#: Loop levels: time is the outer loop, chunks of units the inner one.
TIME, UNITS = 0, 1

_NAMES = (
    "x_ready", "x_free", "w_ready", "w_free", "acc_ready", "acc_free", "out_ready", "out_free", "h_ready", "next_here",
    "reset_ready",
)  # fmt: skip
_SEMAPHORE = {name: number for number, name in enumerate(_NAMES)}


def make(op: Opcode, fields: Mapping[str, int], layer: int, **semaphores: int) -> Descriptor:
    """A descriptor; semaphores as `wait_x_ready=1`, `signal_h_ready=2`, at most three of each."""
    slots = {"wait": 0, "signal": 0}
    values = {"layer": layer & 0xFFF, **{name: int(value) for name, value in fields.items() if value}}
    for key, amount in semaphores.items():
        verb, name = key.split("_", 1)
        values[f"{verb}{slots[verb]}_id"] = _SEMAPHORE[name]
        values[f"{verb}{slots[verb]}_amount"] = amount
        slots[verb] += 1
    return Descriptor(op, values)


def sync(layer: int, **semaphores: int) -> Descriptor:
    """A descriptor that only waits and signals."""
    return make(Opcode.SYNC, {}, layer, **semaphores)


def loop(count: int, body: Sequence[Descriptor]) -> list[Descriptor]:
    """`count` repetitions of a body; nothing for an empty one."""
    return [Descriptor(Opcode.LOOP, {"count": count, "body": len(body)}), *body] if body else []


def queue(descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """A queue, ended by HALT."""
    return (*descriptors, Descriptor(Opcode.HALT))
