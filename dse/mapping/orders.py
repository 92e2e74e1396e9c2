"""Classes of loop orders: of all orders of the loops of one level, those that can differ in traffic and be best.

What an order decides is, for every tensor, which of its non-indexing loops lie innermost (its tile rests during
them) and along which loop its window then slides. Orders with the same outcome are one class; a class that another
one beats for every tensor is left out. So a convolution has at most 8 classes instead of 7! orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

#: Per tensor: the dims that index it, and those of them that slide a window (share an axis with another dim).
Signature = tuple[tuple[frozenset[int], frozenset[int]], ...]


@dataclass(frozen=True)
class OrderClass:
    """`order` lists dims from the innermost outwards; per tensor the dims it rests during and the one it stops at.

    `stops` is -1 where no dim of the block indexes the tensor: it then rests during the whole block.
    """

    order: tuple[int, ...]
    rests: tuple[frozenset[int], ...]
    stops: tuple[int, ...]


@lru_cache(maxsize=65536)
def order_classes(signature: Signature, present: frozenset[int]) -> tuple[OrderClass, ...]:
    """The classes of orders of the `present` dims."""
    found: dict[object, OrderClass] = {}
    for order in _candidates(signature, present, frozenset(range(len(signature))), ()):
        made = class_of(signature, order)
        found.setdefault((made.rests, _halos(signature, made)), made)
    classes = list(found.values())
    return tuple(a for a in classes if not any(b is not a and _beats(signature, b, a) for b in classes))


def _candidates(
    signature: Signature, left: frozenset[int], active: frozenset[int], order: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    indexing = frozenset[int]().union(*(signature[t][0] for t in active))
    resting = sorted(left - indexing)
    left, order = left - set(resting), order + tuple(resting)
    if not left:
        yield order
        return
    tried = set()
    for dim in sorted(left):
        stopped = frozenset(t for t in active if dim in signature[t][0])
        outcome = (stopped, dim if any(dim in signature[t][1] for t in stopped) else -1)
        if outcome not in tried:
            tried.add(outcome)
            yield from _candidates(signature, left - {dim}, active - stopped, (*order, dim))


def class_of(signature: Signature, order: tuple[int, ...]) -> OrderClass:
    """What an order, innermost dim first, does to every tensor."""
    rests, stops = [], []
    for indexing, _ in signature:
        place = next((i for i, dim in enumerate(order) if dim in indexing), len(order))
        rests.append(frozenset(order[:place]))
        stops.append(order[place] if place < len(order) else -1)
    return OrderClass(order, tuple(rests), tuple(stops))


def _halos(signature: Signature, made: OrderClass) -> tuple[int, ...]:
    return tuple(stop if stop in sliding else -1 for stop, (_, sliding) in zip(made.stops, signature, strict=True))


def _beats(signature: Signature, better: OrderClass, worse: OrderClass) -> bool:
    """Whether no tensor moves more words under `better`, whatever the factors."""
    halos = zip(_halos(signature, better), _halos(signature, worse), strict=True)
    rests = zip(better.rests, worse.rests, strict=True)
    return all(h in (b, -1) for b, h in halos) and all(b >= w for b, w in rests)
