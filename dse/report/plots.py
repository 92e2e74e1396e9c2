"""Figures of a run as PNG files, for papers and slides; the page draws its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_FRONT, _OTHERS, _WINNER = "#1f6feb", "#c4c9d1", "#d1480c"
#: Told apart by readers with any colour vision; after the last one they start again.
_PARTS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#8d99a6", "#b5651d", "#5b4bb7", "#3aa89b",
    "#e39bb0", "#7a8f2a", "#2f4b7c", "#d45087",
)  # fmt: skip
#: Dots an inch.
_DPI = 130


def write_plots(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw the Pareto scatter matrix and, when there are winners, their parts and layers.

    Returns
    -------
    The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"pareto": pareto_matrix(document)}
    if document["winners"]:
        figures["winners"] = winner_parts(document)
        figures["layers"] = layer_cycles(document)
    paths = []
    for name, figure in figures.items():
        # no time stamp: the same run draws the same file
        figure.savefig(folder / f"{name}.png", dpi=_DPI, metadata={"Software": None})
        paths.append(folder / f"{name}.png")
    return paths


def pareto_matrix(document: Mapping[str, Any]) -> Figure:
    """Each pair of objectives below the diagonal: feasible designs, the front, the winners."""
    names = [item["name"] for item in document["objectives"]]
    designs = [item for item in document["designs"] if item["status"] == "ok"]
    chosen = {winner["trial"] for winner in document["winners"]}
    groups = (
        ("feasible", [item for item in designs if not item["front"]], _OTHERS, 8),
        ("Pareto set", [item for item in designs if item["front"]], _FRONT, 14),
        ("winner", [item for item in designs if item["trial"] in chosen], _WINNER, 40),
    )
    side = max(1, len(names) - 1)
    figure = Figure(figsize=(3.0 * side + 1.0, 2.6 * side + 0.6), layout="constrained")
    axes = figure.subplots(side, side, squeeze=False)
    for row in range(side):
        for column in range(side):
            panel: Axes = axes[row][column]
            if column > row:
                panel.set_axis_off()
                continue
            x, y = names[column], names[min(row + 1, len(names) - 1)]
            for label, items, colour, size in groups:
                panel.scatter(
                    [item["summary"][x] for item in items],
                    [item["summary"][y] for item in items],
                    s=size, c=colour, label=label, linewidths=0,
                )  # fmt: skip
            panel.set_xlabel(x)
            panel.set_ylabel(y)
            panel.grid(alpha=0.25)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", frameon=False)
    return figure


def winner_parts(document: Mapping[str, Any]) -> Figure:
    """Energy and area of each winner by component."""
    winners = document["winners"]
    figure = Figure(figsize=(11, 1.6 + 0.7 * len(winners)), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [_label(place, winner) for place, winner in enumerate(winners)]
    _stacked(left, names, [winner["metrics"]["energy_pj"] for winner in winners], 1e-6, "energy, uJ an inference")
    _stacked(right, names, [winner["metrics"]["area_um2"] for winner in winners], 1e-6, "area, mm2")
    return figure


def layer_cycles(document: Mapping[str, Any]) -> Figure:
    """Cycles of each winner by layer: useful ones and the causes of the others."""
    winners = document["winners"]
    layers = max(len(winner["metrics"]["layers"]) for winner in winners)
    figure = Figure(figsize=(5.0 * len(winners) + 1.5, 1.6 + 0.28 * layers), layout="constrained")
    parts = [
        [
            {"useful": row["cycles"] - sum(row["losses"].values()), **row["losses"]}
            for row in winner["metrics"]["layers"]
        ]
        for winner in winners
    ]
    # one order for all panels: a cause has the same colour everywhere
    order = _by_size([row for rows in parts for row in rows])
    panels = figure.subplots(1, len(winners), squeeze=False)[0]
    for place, (winner, panel) in enumerate(zip(winners, panels, strict=True)):
        names = [_cut(row["name"], 28) for row in winner["metrics"]["layers"]]
        _stacked(panel, names, parts[place], 1.0, "cycles", order)
        panel.set_title(_label(place, winner))
    return figure


def _stacked(
    panel: Axes,
    names: Sequence[str],
    rows: Sequence[Mapping[str, float]],
    factor: float,
    label: str,
    order: Sequence[str] = (),
) -> None:
    """Horizontal stacked bars, the first row on top; parts in `order`, by default by size."""
    left = [0.0] * len(rows)
    for index, part in enumerate(order or _by_size(rows)):
        values = [row.get(part, 0.0) * factor for row in rows]
        panel.barh(range(len(rows)), values, left=left, color=_PARTS[index % len(_PARTS)], label=_plain(part))
        left = [start + value for start, value in zip(left, values, strict=True)]
    panel.set_yticks(range(len(rows)), [_plain(name) for name in names])
    panel.invert_yaxis()
    panel.set_xlabel(label)
    panel.legend(fontsize="x-small", frameon=False)


def _by_size(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Parts by falling largest value; useful ones first."""
    largest: dict[str, float] = {}
    for row in rows:
        for part, value in row.items():
            largest[part] = max(value, largest.get(part, 0.0))
    return sorted(largest, key=lambda name: (name != "useful", -largest[name], name))


def _label(place: int, winner: Mapping[str, Any]) -> str:
    return f"{place + 1}: {_cut(winner['reason'], 30)}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(text: str) -> str:
    """Text as it stands: a dollar sign in a layer's name would start a formula, a leading '_' hide a legend entry."""
    return text.replace("$", r"\$").lstrip("_")
