"""Tile programs for people: one line a descriptor, loops indented, fields that are not zero.

`dse.program.tile.assemble` reads the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import IntEnum

from dse.program.tile.footprint import semaphore_slots
from dse.program.tile.isa import ENGINES, LOOP_DEPTH, Descriptor, MemoryId, Opcode, fields
from dse.program.tile.isa_element import Function, Normalize, Pool, Rounding, Spread
from dse.program.tile.program import TileStep

_INDENT = "  "
OPERAND_PARTS = ("base", *(f"inc{level}" for level in range(LOOP_DEPTH)), "phase", "toggle")
#: Names that stand without quotes.
_PLAIN_NAME = re.compile(r"[^\s:,()\"]+")
_FUNCTIONS: Mapping[Opcode, type[IntEnum]] = {
    Opcode.ELEMENT: Function,
    Opcode.POOL: Pool,
    Opcode.NORMALIZE: Normalize,
}


def names_of(op: Opcode, field: str) -> type[IntEnum] | None:
    """The names that values of a field have, or None where they are numbers."""
    if field == "memory" or field.endswith("_memory"):
        return MemoryId
    if field.endswith("_spread"):
        return Spread
    if field == "rounding":
        return Rounding
    return _FUNCTIONS.get(op) if field == "function" else None


def listing(step: TileStep) -> str:
    """The queues of a step as text.

    A line holds position, opcode, operands and fields (zeros left out), then `wait` and `signal` with
    semaphore x amount. An operand reads `a=120+16*i0+4*i2 half(0^i1)`: base, increments times loop indices, and
    the half of its memory, chosen by phase and the parity of the named indices. Descriptors of another layer than the
    step's show it.
    """
    ops = ", ".join(_quoted(name) for name in step.ops)
    lines = [f"step {_quoted(step.name)}: {ops} ({step.useful_macs} useful MACs) in layer {step.layer}"]
    for engine in ENGINES:
        queue = step.queues[engine]
        lines += ["", f"{engine}: {len(queue)} descriptors", *queue_lines(queue, step.layer & 0xFFF)]
    return "\n".join(lines) + "\n"


def queue_lines(queue: Sequence[Descriptor], layer: int = 0) -> list[str]:
    """One line a descriptor; the body of a LOOP stands deeper. `layer` goes without saying."""
    lines = []
    ends: list[int] = []
    for position, d in enumerate(queue):
        while ends and position >= ends[-1]:
            ends.pop()
        text = _text(d, len(ends)) + _layer_text(d, layer)
        lines.append(f"{position:5d}  {_INDENT * len(ends)}{text}".rstrip())
        if d.op == Opcode.LOOP:
            ends.append(position + 1 + d["body"])
    return lines


def unspoken_layer(op: Opcode, layer: int) -> int:
    """The layer of a descriptor whose line shows none, in a step of `layer`."""
    return 0 if op in (Opcode.LOOP, Opcode.HALT) else layer


def _layer_text(d: Descriptor, layer: int) -> str:
    return "" if d["layer"] == unspoken_layer(d.op, layer) else f" layer={d['layer']}"


def _quoted(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _text(d: Descriptor, level: int) -> str:
    if d.op == Opcode.LOOP:
        return " ".join([f"LOOP i{level} < {d['count']}: {d['body']} descriptors", *_plain(d, {"count", "body"})])
    names = [item.name for item in fields(d.op)]
    operand_names = [name.removesuffix("_base") for name in names if name.endswith("_base")]
    parts = [_operand(d, name) for name in operand_names]
    shown = {f"{name}_{part}" for name in operand_names for part in OPERAND_PARTS}
    return " ".join([d.op.name, *parts, *_plain(d, shown)])


def _plain(d: Descriptor, shown: set[str]) -> list[str]:
    """Fields that stand for themselves, then semaphores."""
    parts = []
    for item in fields(d.op):
        name, value = item.name, d[item.name]
        if name in shown or name in ("op", "layer") or name.startswith(("wait", "signal")):
            continue
        names = names_of(d.op, name)
        if names is not None and value in list(names):
            parts.append(f"{name}={names(value).name.lower()}")
        elif value:
            parts.append(f"{name}={value}")
    for verb in ("wait", "signal"):
        slots = [f"s{semaphore}x{amount}" for semaphore, amount in semaphore_slots(d, verb)]
        parts += [f"{verb} {','.join(slots)}"] if slots else []
    return parts


def _operand(d: Descriptor, name: str) -> str:
    increments = [(d[f"{name}_inc{level}"], level) for level in range(LOOP_DEPTH)]
    address = str(d[f"{name}_base"]) + "".join(f"+{step}*i{level}" for step, level in increments if step)
    toggles = [f"i{level}" for level in range(LOOP_DEPTH) if (d[f"{name}_toggle"] >> level) & 1]
    if toggles or d[f"{name}_phase"]:
        address += f" half({'^'.join([str(d[f'{name}_phase']), *toggles])})"
    return f"{name}={address}"
