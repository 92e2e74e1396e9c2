"""Memory for things that live for a time: addresses, the peak they reach, and the bound no addresses can beat.

Two items may share bytes when they are never live together. The least peak of any placement is at least the largest
sum of sizes live at one time; reaching it is NP-hard in general. Items are placed one after the other into the
tightest gap that holds them, in several orders; the best result is kept, and the search ends once it meets the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Live:
    """`size` addresses needed from time `first` to time `last`, both included."""

    name: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Allocation:
    """Address of every item by name, the end of the highest item, and the lower bound of that end."""

    address: dict[str, int]
    peak: int
    bound: int


#: Orders in which items are placed; the first meets the bound for most networks.
_ORDERS: tuple[Callable[[Live], tuple[int, ...]], ...] = (
    lambda item: (-item.size, item.first),
    lambda item: (-item.size * (item.last - item.first + 1), item.first),
    lambda item: (item.first - item.last, -item.size),
    lambda item: (item.first, -item.size),
)


def live_bound(items: Sequence[Live], alignment: int = 1) -> int:
    """Largest sum of (aligned) sizes that are live at one time."""
    if not items:
        return 0
    change = np.zeros(max(item.last for item in items) + 2, np.int64)
    for item in items:
        size = _aligned(item.size, alignment)
        change[item.first] += size
        change[item.last + 1] -= size
    return int(np.cumsum(change).max())


def allocate(items: Sequence[Live], alignment: int = 1) -> Allocation:
    """Addresses for items, each a multiple of `alignment`.

    Parameters
    ----------
    items
        Distinct names; sizes in whatever unit addresses count; times >= 0, first <= last.
    alignment
        Of addresses; sizes are rounded up to it.

    Returns
    -------
    The best placement found; its peak is at least its bound.
    """
    bound = live_bound(items, alignment)
    best: Allocation | None = None
    for order in _ORDERS:
        address = _placed(sorted(items, key=order), alignment)
        peak = max((address[item.name] + _aligned(item.size, alignment) for item in items), default=0)
        if best is None or peak < best.peak:
            best = Allocation(address, peak, bound)
        if best.peak == bound:
            break
    assert best is not None
    return best


def _placed(items: Sequence[Live], alignment: int) -> dict[str, int]:
    """Each item into the smallest gap that holds it among the items placed before and live with it."""
    address: dict[str, int] = {}
    placed: list[tuple[int, int, Live]] = []
    for item in items:
        size = _aligned(item.size, alignment)
        beside = sorted(
            (low, high) for low, high, other in placed if other.first <= item.last and item.first <= other.last
        )
        chosen, slack, end = -1, -1, 0
        for low, high in beside:
            gap = low - end
            if gap >= size and (chosen < 0 or gap - size < slack):
                chosen, slack = end, gap - size
            end = max(end, high)
        # the open end is taken only when no gap holds it
        base = end if chosen < 0 else chosen
        address[item.name] = base
        placed.append((base, base + size, item))
    return address


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
