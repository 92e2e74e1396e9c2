"""The Pareto set as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from dse.backend import Knob
from dse.search import Trial, Winner, choose_winners

#: Designs shown; a front of several hundred would push everything else off the screen.
ROWS = 20


def pareto_table(
    front: Sequence[Trial], winners: Sequence[Winner], objectives: Sequence[str], knobs: Sequence[Knob]
) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows, best first objective first; winners are numbered in the first column.

    A front of more than `ROWS` designs is shown by its winners and a spread of the others.
    """
    places = {winner.trial.number: str(place + 1) for place, winner in enumerate(winners)}
    shown = list(front)
    if len(front) > ROWS:
        spread = [item.trial for item in choose_winners(front, objectives, ROWS, ())]
        chosen = [winner.trial for winner in winners]
        shown = list({trial.number: trial for trial in [*chosen, *spread]}.values())[: max(ROWS, len(chosen))]
    first = objectives[0]
    shown.sort(key=lambda trial: (trial.evaluation.summary[first], trial.number))
    columns = ["winner", "trial", *objectives, *_short_names([knob.name for knob in knobs])]
    rows = [
        [
            places.get(trial.number, ""),
            str(trial.number),
            *(f"{trial.evaluation.summary[name]:.4g}" for name in objectives),
            *(_shown(trial.evaluation.values[knob.name]) for knob in knobs),
        ]
        for trial in shown
    ]
    title = f"Pareto set: {len(front)} designs" + (f", {len(shown)} shown" if len(shown) < len(front) else "")
    return title, columns, rows


def _short_names(names: Sequence[str]) -> list[str]:
    """Bare names where they are unique."""
    bare = [name.partition(".")[2] or name for name in names]
    return [short if bare.count(short) == 1 else name for short, name in zip(bare, names, strict=True)]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
