"""Tile programs for people: one line a descriptor, loops indented, fields that are not zero."""

from __future__ import annotations

from collections.abc import Sequence

from dse.program.tile.footprint import semaphore_slots
from dse.program.tile.isa import ENGINES, LOOP_DEPTH, Descriptor, MemoryId, Opcode, fields
from dse.program.tile.program import TileStep

_INDENT = "  "
_PARTS = ("base", *(f"inc{level}" for level in range(LOOP_DEPTH)), "phase", "toggle")


def listing(step: TileStep) -> str:
    """The queues of a step as text.

    A line holds position, opcode, operands and fields (zeros left out), then `wait` and `signal` with
    semaphore x amount. An operand reads `a=120+16*i0+4*i2 half(0^i1)`: base, increments times loop indices, and
    the half of its memory, chosen by phase and the parity of the named indices.
    """
    lines = [f"step {step.name}: {', '.join(step.ops)} ({step.useful_macs} useful MACs)"]
    for engine in ENGINES:
        queue = step.queues[engine]
        lines += ["", f"{engine}: {len(queue)} descriptors", *queue_lines(queue)]
    return "\n".join(lines) + "\n"


def queue_lines(queue: Sequence[Descriptor]) -> list[str]:
    """One line a descriptor; the body of a LOOP stands deeper."""
    lines = []
    ends: list[int] = []
    for position, d in enumerate(queue):
        while ends and position >= ends[-1]:
            ends.pop()
        lines.append(f"{position:5d}  {_INDENT * len(ends)}{_text(d, len(ends))}".rstrip())
        if d.op == Opcode.LOOP:
            ends.append(position + 1 + d["body"])
    return lines


def _text(d: Descriptor, level: int) -> str:
    if d.op == Opcode.LOOP:
        return f"LOOP i{level} < {d['count']}: {d['body']} descriptors"
    names = [item.name for item in fields(d.op)]
    operand_names = [name.removesuffix("_base") for name in names if name.endswith("_base")]
    parts = [_operand(d, name) for name in operand_names]
    skipped = {"op", "layer", *(f"{name}_{part}" for name in operand_names for part in _PARTS)}
    for name in names:
        if name in skipped or name.startswith(("wait", "signal")):
            continue
        value = d[name]
        if name == "memory" and value < len(MemoryId):
            parts.append(f"memory={MemoryId(value).name.lower()}")
        elif value:
            parts.append(f"{name}={value}")
    for verb in ("wait", "signal"):
        slots = [f"s{semaphore}x{amount}" for semaphore, amount in semaphore_slots(d, verb)]
        parts += [f"{verb} {','.join(slots)}"] if slots else []
    return " ".join([d.op.name, *parts])


def _operand(d: Descriptor, name: str) -> str:
    increments = [(d[f"{name}_inc{level}"], level) for level in range(LOOP_DEPTH)]
    address = str(d[f"{name}_base"]) + "".join(f"+{step}*i{level}" for step, level in increments if step)
    toggles = [f"i{level}" for level in range(LOOP_DEPTH) if (d[f"{name}_toggle"] >> level) & 1]
    if toggles or d[f"{name}_phase"]:
        address += f" half({'^'.join([str(d[f'{name}_phase']), *toggles])})"
    return f"{name}={address}"
