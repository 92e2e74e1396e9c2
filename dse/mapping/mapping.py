"""Mapping: how a loop nest is tiled over the levels of an Arch, in what order, and what runs in space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping as MappingType
from dataclasses import dataclass


@dataclass(frozen=True)
class TemporalLevel:
    """Loops at one memory level: (dim, trip count), outermost first; `bypass` roles do not stop here."""

    level: str
    loops: tuple[tuple[str, int], ...]
    bypass: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Mapping:
    """Temporal levels from the outermost inwards, and the dims unrolled on each spatial axis.

    Factors are imperfect: the product over levels of a dim may exceed its bound; the last tile is then smaller.
    """

    temporal: tuple[TemporalLevel, ...]
    spatial: MappingType[str, tuple[tuple[str, int], ...]]

    def canonical(self) -> Mapping:
        """The same mapping without loops of trip count 1 and with axes in name order."""
        temporal = tuple(
            TemporalLevel(level.level, tuple(loop for loop in level.loops if loop[1] != 1), level.bypass)
            for level in self.temporal
        )
        spatial = {axis: tuple(loop for loop in self.spatial[axis] if loop[1] != 1) for axis in sorted(self.spatial)}
        return Mapping(temporal, spatial)

    def digest(self) -> str:
        """Hash of the canonical form: equal mappings have equal digests."""
        form = self.canonical()
        plain = [
            [[level.level, [list(loop) for loop in level.loops], sorted(level.bypass)] for level in form.temporal],
            {axis: [list(loop) for loop in loops] for axis, loops in form.spatial.items()},
        ]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        parts = [
            f"{level.level}[{' '.join(f'{dim}{count}' for dim, count in level.loops)}]"
            for level in self.canonical().temporal
            if level.loops
        ]
        parts += [
            f"{axis}<{' '.join(f'{dim}{count}' for dim, count in loops)}>" for axis, loops in self.spatial.items()
        ]
        return " ".join(parts)
