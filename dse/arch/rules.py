"""Rules that a user writes for mappings, in an architecture file or a file of their own; checked against the names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from dse.config.loader import load_mapping
from dse.config.validation import validate

Role = Literal["input", "weight", "output"]
Dims = frozenset[str]


class Rules(BaseModel):
    """What mappings must obey. A dim that a layer lacks, or of which it has one iteration, binds nothing there.

    By axis: `only` these dims may run on it, `forbid` these may not, `require` each of these must (with at least two
    units), `unroll` exact units of a dim, `most` units of a dim. By level: `keep` and `bypass` roles that must or must
    not stop there, `stationary` the one role that stops there, `loops` the dims that may loop in time there, `order`
    the orders that its loops may have, from the outermost inwards.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    only: Mapping[str, Dims] = {}
    forbid: Mapping[str, Dims] = {}
    require: Mapping[str, Dims] = {}
    unroll: Mapping[str, Mapping[str, PositiveInt]] = {}
    most: Mapping[str, Mapping[str, PositiveInt]] = {}
    keep: Mapping[str, frozenset[Role]] = {}
    bypass: Mapping[str, frozenset[Role]] = {}
    stationary: Mapping[str, Role] = {}
    loops: Mapping[str, Dims] = {}
    order: Mapping[str, tuple[tuple[str, ...], ...]] = {}

    def __hash__(self) -> int:
        return hash((self.axes, self.levels, self.dims))

    @property
    def axes(self) -> Dims:
        """Axes that some rule names."""
        return frozenset().union(self.only, self.forbid, self.require, self.unroll, self.most)

    @property
    def levels(self) -> Dims:
        """Levels that some rule names."""
        return frozenset().union(self.keep, self.bypass, self.stationary, self.loops, self.order)

    @property
    def dims(self) -> Dims:
        """Dims that some rule names."""
        plain = (*self.only.values(), *self.forbid.values(), *self.require.values(), *self.loops.values())
        orders = (order for orders in self.order.values() for order in orders)
        return frozenset().union(*plain, *self.unroll.values(), *self.most.values(), *orders)

    def joined(self, other: Rules) -> Rules:
        """Both at once; where both name the same axis or level in the same rule, the other's word holds."""
        return Rules(**{name: {**getattr(self, name), **getattr(other, name)} for name in Rules.model_fields})


def load_rules(path: Path) -> Rules:
    """Read rules from YAML.

    Raises
    ------
    ConfigError: not readable, not YAML, or no rules; the first finding, with file, line, key and value.
    """
    data, marks, _ = load_mapping(path)
    return validate(Rules, data, marks)
