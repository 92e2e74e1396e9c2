"""A mapping as a self-contained SVG: a band for every memory level, its loops left, its tensors' traffic right.

Text only, fixed places, no fonts or scripts from elsewhere: the same mapping always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from dse.arch import Arch, MemoryLevel
from dse.mapping.cost import MappingCost, TensorTraffic, capacity_words, words_held
from dse.mapping.mapping import Mapping
from dse.mapping.problem import Problem

WIDTH, MARGIN, LOOPS, ROW, PAD = 1000, 16, 380, 20, 12
#: Columns of the tensors: title, right edge of its text.
COLUMNS = (("tile", 548), ("fills", 634), ("reads", 724), ("updates", 814), ("energy pJ", 912))
BAR = 56
#: Characters of a tensor's name; the end of a longer one tells more than its beginning.
NAME = 14
COLORS = {"input": "#2b6cb0", "weight": "#2f855a", "output": "#b7791f"}
BANDS = ("#eef2f7", "#e3eaf3", "#d8e1ee", "#cdd9e9", "#c2d0e4")
STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1a202c}.h{font-weight:bold}.q{fill:#4a5568}"
    ".n{text-anchor:end}.s{fill:#9b2c2c;font-weight:bold}"
)


def loop_nest_svg(mapping: Mapping, arch: Arch, cost: MappingCost, problem: Problem, *, title: str = "") -> str:
    """The drawing as SVG text.

    Levels from the outermost down; loops indent as they nest, those in space are marked with their axis; every tensor
    that a level keeps has its tile in words, its traffic in elements over all instances and its energy. A bar is the
    share of all energy.
    """
    parts: list[str] = []
    y, depth = 62, 0
    for number, level in enumerate(arch.levels):
        loops = list(_loops(mapping, arch, level))
        height = 2 * PAD + ROW * (1 + max(len(loops), _rows(level, problem)))
        parts.append(
            f'<rect x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{height}" rx="6" '
            f'fill="{BANDS[min(number, len(BANDS) - 1)]}" stroke="#a0aec0"/>'
        )
        parts += _heading(level, arch, cost, problem, y)
        for place, (text, spatial) in enumerate(loops):
            x = MARGIN + PAD + 6 * min(depth + place, 12)
            parts.append(_text(x, y + PAD + ROW * (place + 2), text, "s" if spatial else ""))
        depth += len(loops)
        parts += _tensors(level, cost, problem, y + PAD + ROW)
        y += height + 8
    parts.append(_text(MARGIN + PAD, y + 18, f"multiply-accumulate: {cost.macs:,} MACs, {cost.mac_energy_pj:,.0f} pJ"))
    legend = [
        f'<rect x="{WIDTH - 270 + 85 * place}" y="15" width="10" height="10" fill="{color}"/>'
        + _text(WIDTH - 255 + 85 * place, 24, role)
        for place, (role, color) in enumerate(COLORS.items())
    ]
    head = [
        *legend,
        _text(MARGIN, 24, title or problem.name, "h"),
        _text(MARGIN, 44, _summary(arch, cost, problem), "q"),
    ]
    height = y + 34
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img">',
            f"<title>{escape(title or problem.name)} on {escape(arch.name)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *head,
            *parts,
            "</svg>",
            "",
        ]
    )


def _summary(arch: Arch, cost: MappingCost, problem: Problem) -> str:
    bounds = " ".join(f"{dim}{bound}" for dim, bound in zip(problem.dims, problem.bounds, strict=True) if bound > 1)
    return (
        f"{bounds} on {arch.name}: {cost.cycles:,} cycles (limit: {cost.limit}), utilization "
        f"{100 * cost.utilization:.1f} %, {cost.energy_pj * 1e-6:,.3f} uJ"
    )


def _loops(mapping: Mapping, arch: Arch, level: MemoryLevel) -> Iterator[tuple[str, bool]]:
    """(text, whether in space) of the loops between a level and the next, outermost first."""
    for part in mapping.temporal:
        if part.level == level.name:
            yield from ((f"for {dim} in 0..{count - 1}", False) for dim, count in part.loops if count > 1)
    for axis in arch.axes:
        if axis.below == level.name:
            for dim, count in mapping.spatial.get(axis.name, ()):
                if count > 1:
                    yield f"\u2225 {dim} in 0..{count - 1} on {axis.name} ({axis.size})", True


def _rows(level: MemoryLevel, problem: Problem) -> int:
    """Lines of a band's table: its tensors, and the one that says how full it is."""
    return len(problem.tensors) + (level.capacity_bytes is not None)


def _heading(level: MemoryLevel, arch: Arch, cost: MappingCost, problem: Problem, y: int) -> list[str]:
    copies = max((item.instances for item in cost.traffic if item.level == level.name), default=1)
    size = "unbounded" if level.capacity_bytes is None else f"{level.capacity_bytes:,} bytes"
    halves = ", double-buffered" if level.double_buffered else ""
    text = f"{level.name}{f' x{copies} of {level.instances}' if level.instances > 1 else ''}"
    found = [_text(MARGIN + PAD, y + PAD + 8, text, "h"),
             _text(MARGIN + PAD + 8 * len(text) + 12, y + PAD + 8, f"{size}{halves}", "q")]  # fmt: skip
    limit = capacity_words(level)
    if level.capacity_bytes is not None:
        held = [
            item.tile_words * words_held(arch, level, access, cost.mode)
            for item in cost.traffic
            for access in problem.tensors
            if (item.level, item.tensor) == (level.name, access.name)
        ]
        used = sum(held) if level.shared else max(held, default=0.0)
        line = f"{used:,.0f} of {limit:,.0f} words hold tiles ({100 * used / limit:.1f} %)"
        found.append(_text(LOOPS + 70, y + PAD + ROW * (2 + len(problem.tensors)), line, "q"))
    return found


def _tensors(level: MemoryLevel, cost: MappingCost, problem: Problem, y: int) -> list[str]:
    found = [_text(right, y - 12, name, "n q") for name, right in COLUMNS]
    for place, access in enumerate(problem.tensors):
        line = y + ROW * (place + 1) - 12
        name = access.name if len(access.name) <= NAME else f"\u2026{access.name[1 - NAME :]}"
        item = next((t for t in cost.traffic if (t.level, t.tensor) == (level.name, access.name)), None)
        color = COLORS[access.role] if item else "#cbd5e0"
        found.append(f'<rect x="{LOOPS - 42}" y="{line - 9}" width="10" height="10" fill="{color}"/>')
        found.append(_text(LOOPS - 26, line, name if item else f"{name} passes by", "" if item else "q"))
        if item:
            found += _figures(item, cost, line, color)
    return found


def _figures(item: TensorTraffic, cost: MappingCost, y: int, color: str) -> list[str]:
    values = (item.tile_words, item.fills, item.reads, item.updates, item.energy_pj)
    found = [_text(right, y, f"{value:,.0f}", "n") for (_, right), value in zip(COLUMNS, values, strict=True)]
    share = item.energy_pj / cost.energy_pj if cost.energy_pj else 0.0
    found.append(
        f'<rect x="{COLUMNS[-1][1] + 8}" y="{y - 9}" width="{max(1.0, BAR * share):.1f}" height="10" fill="{color}"/>'
    )
    return found


def _text(x: int, y: int, text: str, style: str = "") -> str:
    chosen = f' class="{style}"' if style else ""
    return f'<text x="{x}" y="{y}"{chosen}>{escape(text)}</text>'
