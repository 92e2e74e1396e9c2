"""The listing of a step back to the step: `assemble(listing(step))` has the same queues.

What a listing does not say is not read: semaphore slots move up to the first free one, and the number of a semaphore
whose amount is 0 is forgotten. Such a step has the same meaning; assembled and listed again it gives the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from dse.core.errors import nearest
from dse.program.tile.encode import field_range
from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import ENGINES, LOOP_DEPTH, SEMAPHORES, Descriptor, Opcode, fields
from dse.program.tile.listing import names_of, unspoken_layer
from dse.program.tile.program import TileStep

_NAME = r'"(?:[^"\\]|\\.)*"|[^\s:,()"]+'
_HEAD = re.compile(rf"step ({_NAME}): ((?:(?:{_NAME})(?:, (?:{_NAME}))*)?) \((\d+) useful MACs\) in layer (\d+)")
_QUEUE = re.compile(r"(\w+): (\d+) descriptors")
_LINE = re.compile(r"\s*(\d+)\s+(\w+)(?: (.*))?")
_LOOP = re.compile(r"i(\d) < (\d+): (\d+) descriptors(?: (.*))?")
_OPERAND = re.compile(r"(\w+)=(\d+)((?:\+\d+\*i\d)*)(?: half\(([01])((?:\^i\d)*)\))?(?: |$)")
_FIELD = re.compile(r"(\w+)=(-?\w+)(?: |$)")
_SEMAPHORES = re.compile(r"(wait|signal) (s\d+x\d+(?:,s\d+x\d+)*)(?: |$)")


def assemble(text: str) -> TileStep:
    """The step of a listing.

    Raises
    ------
    TileProgramError: a line that is none of a listing, an unknown opcode or field, a value that its field does not
    hold, positions or numbers of descriptors that do not fit; the line is named.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines or (head := _HEAD.fullmatch(lines[0][1].strip())) is None:
        raise TileProgramError("line 1: a listing begins with 'step NAME: OPS (N useful MACs) in layer N'")
    name, ops, macs, layer = head.groups()
    queues: dict[str, list[Descriptor]] = {}
    announced: dict[str, tuple[int, int]] = {}
    engine = ""
    for number, line in lines[1:]:
        begins = _QUEUE.fullmatch(line.strip())
        if begins and begins[1] in ENGINES:
            engine = begins[1]
            if engine in queues:
                raise TileProgramError(f"line {number}: a second queue of the {engine} engine")
            queues[engine], announced[engine] = [], (number, int(begins[2]))
        elif engine:
            queues[engine].append(_descriptor(number, line, len(queues[engine]), int(layer) & 0xFFF))
        else:
            raise TileProgramError(f"line {number}: a descriptor before the first queue ({', '.join(ENGINES)})")
    for engine, (number, count) in announced.items():
        if len(queues[engine]) != count:
            raise TileProgramError(f"line {number}: {count} descriptors announced, {len(queues[engine])} follow")
    missing = [engine for engine in ENGINES if engine not in queues]
    if missing:
        raise TileProgramError(f"the listing has no queue of the {missing[0]} engine")
    names = tuple(_unquoted(item) for item in re.findall(_NAME, ops))
    final = {engine: tuple(queues[engine]) for engine in ENGINES}
    return TileStep(_unquoted(name), names, final, int(macs), int(layer))


def _unquoted(name: str) -> str:
    return str(json.loads(name)) if name.startswith('"') else name


def _descriptor(number: int, line: str, position: int, layer: int) -> Descriptor:
    found = _LINE.fullmatch(line)
    if found is None:
        raise TileProgramError(f"line {number}: {line.strip()!r} is no descriptor (POSITION OPCODE FIELDS)")
    if int(found[1]) != position:
        raise TileProgramError(f"line {number}: position {found[1]}, but {position} descriptors stand before it")
    if found[2] not in Opcode.__members__:
        raise TileProgramError(f"line {number}: {found[2]!r} is no opcode{nearest(found[2], Opcode.__members__)}")
    op = Opcode[found[2]]
    rest = found[3] or ""
    values: dict[str, int] = {}
    if op == Opcode.LOOP:
        loop = _LOOP.fullmatch(rest)
        if loop is None:
            raise TileProgramError(f"line {number}: a LOOP reads 'LOOP i0 < COUNT: BODY descriptors', not {rest!r}")
        values, rest = {"count": int(loop[2]), "body": int(loop[3])}, loop[4] or ""
    if unspoken := unspoken_layer(op, layer):
        values["layer"] = unspoken
    for name, value in _values(number, op, rest):
        values[name] = value
    return Descriptor(op, {name: _checked(number, op, name, value) for name, value in values.items() if value})


def _values(number: int, op: Opcode, text: str) -> Iterator[tuple[str, int]]:
    """Fields and values of a descriptor's line, one after the other."""
    operands = {item.name.removesuffix("_base") for item in fields(op) if item.name.endswith("_base")}
    position = 0
    while position < len(text):
        operand = _OPERAND.match(text, position)
        if operand and operand[1] in operands:
            yield from _operand_values(number, operand)
            position = operand.end()
        elif slots := _SEMAPHORES.match(text, position):
            for slot, pair in enumerate(slots[2].split(",")):
                semaphore, amount = pair[1:].split("x")
                yield f"{slots[1]}{slot}_id", _semaphore(number, int(semaphore))
                yield f"{slots[1]}{slot}_amount", int(amount)
            position = slots.end()
        elif plain := _FIELD.match(text, position):
            yield plain[1], _number(number, op, plain[1], plain[2])
            position = plain.end()
        else:
            raise TileProgramError(f"line {number}: {text[position:]!r} is neither a field nor a semaphore")


def _operand_values(number: int, operand: re.Match[str]) -> Iterator[tuple[str, int]]:
    name, base, steps, phase, toggles = operand.groups()
    yield f"{name}_base", int(base)
    for step, level in re.findall(r"\+(\d+)\*i(\d)", steps):
        yield f"{name}_inc{_level(number, level)}", int(step)
    if phase is not None:
        yield f"{name}_phase", int(phase)
        yield f"{name}_toggle", sum(1 << _level(number, level) for level in set(re.findall(r"i(\d)", toggles)))


def _level(number: int, level: str) -> int:
    if int(level) >= LOOP_DEPTH:
        raise TileProgramError(f"line {number}: loop index i{level}; loops nest to depth {LOOP_DEPTH}")
    return int(level)


def _semaphore(number: int, semaphore: int) -> int:
    if semaphore >= SEMAPHORES:
        raise TileProgramError(f"line {number}: semaphore {semaphore}; there are {SEMAPHORES}")
    return semaphore


def _number(number: int, op: Opcode, name: str, text: str) -> int:
    names = names_of(op, name)
    if names is not None and text.upper() in names.__members__:
        return int(names[text.upper()])
    try:
        return int(text)
    except ValueError:
        choices = f" ({', '.join(item.lower() for item in names.__members__)})" if names else ""
        raise TileProgramError(f"line {number}: {name} is {text!r}, no number{choices}") from None


def _checked(number: int, op: Opcode, name: str, value: int) -> int:
    known = {item.name: item for item in fields(op) if item.name != "op"}
    if name not in known:
        raise TileProgramError(f"line {number}: {op.name} has no field {name!r}{nearest(name, known)}")
    low, high = field_range(known[name])
    if not low <= value <= high:
        raise TileProgramError(f"line {number}: {name} is {value}; its field holds {low} to {high}")
    return value
