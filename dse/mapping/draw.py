"""A mapping as an indented loop nest for the terminal: levels with what they hold, then their loops."""

from __future__ import annotations

from dse.arch import Arch
from dse.mapping.cost import MappingCost
from dse.mapping.mapping import Mapping

INDENT = "  "


def loop_nest_lines(mapping: Mapping, arch: Arch, cost: MappingCost) -> list[str]:
    """Lines of text: one per level (tile words of every tensor it keeps), one per loop, innermost last."""
    temporal = {part.level: part.loops for part in mapping.temporal}
    lines: list[str] = []
    depth = 0
    for level in arch.levels:
        held = [item for item in cost.traffic if item.level == level.name]
        tiles = ", ".join(f"{item.role} {item.tile_words}" for item in held) or "passed through"
        copies = f" x{held[0].instances}" if held and held[0].instances > 1 else ""
        lines.append(f"{INDENT * depth}{level.name}{copies} [{tiles}]")
        for dim, count in temporal.get(level.name, ()):
            if count > 1:
                depth += 1
                lines.append(f"{INDENT * depth}for {dim} in 0..{count - 1}")
        for axis in arch.axes:
            for dim, count in mapping.spatial.get(axis.name, ()) if axis.below == level.name else ():
                if count > 1:
                    depth += 1
                    lines.append(f"{INDENT * depth}parallel {dim} in 0..{count - 1} on {axis.name}")
        depth += 1
    lines.append(f"{INDENT * depth}multiply-accumulate")
    return lines
