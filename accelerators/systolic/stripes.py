"""Stripes of a chain of convolutions: which rows each layer computes in each, and which stripes are alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from accelerators.systolic.layer import Layer
from accelerators.systolic.tiling import input_extent


@dataclass(frozen=True)
class Rows:
    """What one layer does in a stripe: output rows [low, high), first input row of its window (may be negative),
    and how many rows of that window lie above and below the input."""

    low: int
    high: int
    window: int
    above: int
    below: int

    @property
    def count(self) -> int:
        return self.high - self.low

    def low_of_input(self, producer: Rows) -> int:
        """Where in the window the rows begin that the layer before computes in this stripe."""
        return producer.low - self.window


@dataclass(frozen=True)
class Stripe:
    """One stripe: rows per layer, which region of rolling buffers it fills (0 or 1), whether more stripes follow."""

    rows: tuple[Rows, ...]
    region: int
    followed: bool

    @property
    def bordered(self) -> bool:
        """Whether a buffer needs rows of zero points in this stripe."""
        return any(rows.above or rows.below for rows in self.rows[1:])

    def shape(self) -> tuple[object, ...]:
        """Equal for stripes that differ only in where they read and write memory."""
        return self.region, self.followed, *((r.count, r.above, r.below) for r in self.rows[1:]), self.rows[0].count


@dataclass(frozen=True)
class StripeRun:
    """`count` repetitions of one or two consecutive stripes; `stripes` are the first of them.

    `input_step`, `output_step` are rows from one repetition to the next.
    """

    first: int
    count: int
    stripes: tuple[Stripe, ...]
    input_step: int
    output_step: int


def stripe_rows(layers: Sequence[Layer], low: int, high: int, before: Sequence[Rows] | None) -> tuple[Rows, ...]:
    """Rows each layer computes so that the last one gives output rows [low, high).

    Rows that the layers computed in the stripe `before` are not computed again.
    """
    found: list[Rows] = []
    for position in range(len(layers) - 1, -1, -1):
        layer = layers[position]
        if before is not None:
            low = max(low, before[position].high)
        if high <= low:
            return ()
        window = low * layer.strides[0] - layer.pads[0]
        end = window + input_extent(layer, high - low, 0)
        found.append(Rows(low, high, window, max(0, -window), max(0, end - layer.height)))
        low, high = max(window, 0), min(end, layer.height)
    return tuple(reversed(found))


def stripes_of(layers: Sequence[Layer], height: int, *, rolling: bool) -> list[Stripe] | None:
    """All stripes of a chain; None when a layer computes nothing in one, or rolling rows do not repeat."""
    total = layers[-1].out_height
    result: list[Stripe] = []
    for index, low in enumerate(range(0, total, height)):
        before = result[-1].rows if rolling and result else None
        rows = stripe_rows(layers, low, min(low + height, total), before)
        if not rows:
            return None
        result.append(Stripe(rows, index % 2 if rolling else 0, low + height < total))
    if rolling:
        kept = {tuple(kept_rows(stripe)) for stripe in result[1:]}
        if len(kept) > 1 or any(rows.above for stripe in result[1:] for rows in stripe.rows[1:]):
            return None
    return result


def kept_rows(stripe: Stripe) -> list[int]:
    """Rows of each layer's window that an earlier stripe has left, for layers behind the first."""
    return [later.low_of_input(earlier) for earlier, later in itertools.pairwise(stripe.rows)]


def stripe_runs(stripes: Sequence[Stripe], period: int) -> tuple[StripeRun, ...]:
    """Stripes in runs of equal repetitions; the first stands alone, since weights arrive with it."""
    runs: list[StripeRun] = [StripeRun(0, 1, (stripes[0],), 0, 0)]
    index = 1
    while index < len(stripes):
        block = tuple(stripes[index : index + period])
        if len(block) < period or any(stripe.bordered for stripe in block):
            runs.append(StripeRun(index, 1, block[:1], 0, 0))
            index += 1
            continue
        steps = (0, 0)
        first, count = index, 1
        index += period
        while index + period <= len(stripes):
            candidate = stripes[index : index + period]
            if [s.shape() for s in candidate] != [s.shape() for s in block] or any(s.bordered for s in candidate):
                break
            last = stripes[index - period].rows
            step = (candidate[0].rows[0].window - last[0].window, candidate[0].rows[-1].low - last[-1].low)
            if count > 1 and step != steps:
                break
            steps, count, index = step, count + 1, index + period
        runs.append(StripeRun(first, count, block, *steps))
    return tuple(runs)
