"""Straight queues to loops: repetitions whose addresses advance by constant steps become LOOPs, inside out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dse.program.tile.isa import LOOP_DEPTH, PAYLOAD, Descriptor, Opcode

#: Longest body that is looked for, in descriptors or loops.
MAX_BODY = 48
_BASES = {op: tuple(f.name for f in fields if f.name.endswith("_base")) for op, fields in PAYLOAD.items()}
_INCREMENT_BITS = {
    op: {f.name.removesuffix("_inc0"): f.bits for f in fields if f.name.endswith("_inc0")}
    for op, fields in PAYLOAD.items()
}


@dataclass(frozen=True)
class _Item:
    """A descriptor (`count` 0) or a loop; `key` is equal for items that differ in addresses only."""

    key: int
    addresses: tuple[int, ...]
    limits: tuple[int, ...]
    depth: int
    count: int
    body: tuple[_Item, ...]
    steps: tuple[int, ...]
    descriptor: Descriptor | None


def roll(queue: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """The same queue with LOOPs; it executes the same descriptors at the same addresses.

    A queue must be straight and without its HALT. Loops nest to the depth of the instruction set.
    """
    keys: dict[object, int] = {}
    items = [_leaf(d, keys) for d in queue]
    # pairs are left for the second pass: a pair across the edge of two rows would hide that the rows repeat
    for least in (3, *[2] * (LOOP_DEPTH - 1)):
        items = _pass(items, keys, least)
    return tuple(d for item in items for d in _flatten(item, 0, ()))


def _leaf(d: Descriptor, keys: dict[object, int]) -> _Item:
    bases = _BASES[d.op]
    rest = (d.op, *sorted((name, value) for name, value in d.values.items() if name not in bases))
    limits = []
    for name in bases:
        bits = _INCREMENT_BITS[d.op].get(name.removesuffix("_base"), 0)
        if name == "out_base" and d["add"]:
            # a residual operand moves with the output: neither may move alone
            bits = 0
        limits.append((1 << bits) - 1)
    return _Item(
        keys.setdefault(rest, len(keys)), tuple(d[name] for name in bases), tuple(limits), 0, 0, (), (), d,
    )  # fmt: skip


def _pass(items: list[_Item], keys: dict[object, int], least: int) -> list[_Item]:
    result: list[_Item] = []
    position = 0
    while position < len(items):
        # the smallest body that repeats: what repeats around it is found by the next pass
        body = count = 0
        for size in range(1, min(MAX_BODY, (len(items) - position) // 2) + 1):
            if items[position].key != items[position + size].key:
                continue
            count = _repetitions(items, position, size)
            if count >= least and (count - 1) * size > 1:
                body = size
                break
        if not body:
            result.append(items[position])
            position += 1
            continue
        first, second = items[position : position + body], items[position + body : position + 2 * body]
        addresses = tuple(a for item in first for a in item.addresses)
        steps = tuple(b - a for a, b in zip(addresses, (a for item in second for a in item.addresses), strict=True))
        key = keys.setdefault(("loop", count, steps, *(item.key for item in first)), len(keys))
        limits = tuple(limit for item in first for limit in item.limits)
        depth = 1 + max(item.depth for item in first)
        result.append(_Item(key, addresses, limits, depth, count, tuple(first), steps, None))
        position += body * count
    return result


def _repetitions(items: list[_Item], start: int, body: int) -> int:
    """How often the `body` items at `start` repeat with constant steps that increments hold."""
    if any(item.depth >= LOOP_DEPTH for item in items[start : start + body]):
        return 1
    steps: list[tuple[int, ...]] = []
    for first, second in zip(items[start : start + body], items[start + body : start + 2 * body], strict=True):
        if first.key != second.key:
            return 1
        step = tuple(b - a for a, b in zip(first.addresses, second.addresses, strict=True))
        if any(not 0 <= s <= limit for s, limit in zip(step, first.limits, strict=True)):
            return 1
        steps.append(step)
    count = 2
    while start + (count + 1) * body <= len(items):
        here, there = start + (count - 1) * body, start + count * body
        for offset in range(body):
            a, b = items[here + offset], items[there + offset]
            if a.key != b.key or any(
                y - x != s for x, y, s in zip(a.addresses, b.addresses, steps[offset], strict=True)
            ):
                return count
        count += 1
    return min(count, (1 << 16) - 1)


def _flatten(item: _Item, level: int, moves: tuple[tuple[int, ...], ...]) -> list[Descriptor]:
    """Descriptors of an item; `moves` are the steps of its addresses in the loops around it, outermost first."""
    if item.descriptor is not None:
        d = item.descriptor
        fields = dict(d.values)
        for depth, steps in enumerate(moves):
            for name, step in zip(_BASES[d.op], steps, strict=True):
                if step:
                    fields[f"{name.removesuffix('_base')}_inc{depth}"] = step
        return [Descriptor(d.op, fields)]
    body: list[Descriptor] = []
    begin = 0
    for inner in item.body:
        size = len(inner.addresses)
        around = tuple(steps[begin : begin + size] for steps in (*moves, item.steps))
        body += _flatten(inner, level + 1, around)
        begin += size
    return [Descriptor(Opcode.LOOP, {"count": item.count, "body": len(body)}), *body]
