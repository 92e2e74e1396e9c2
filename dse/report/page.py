"""`report.html`: one file with its data, style and script inside, which asks no other machine for anything.

Names in it come from network files, which are untrusted: the data is JSON that cannot end its script element, the
script only ever sets text, and a content security policy forbids every request.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

#: Points in the explorer; beyond, dominated designs are thinned out evenly (the front never is).
MOST_POINTS = 5000
#: Significant digits of a figure in the page; pareto.json has them all.
DIGITS = 7


def render_page(document: Mapping[str, Any]) -> str:
    """The whole page as text."""
    assets = resources.files("dse.report") / "assets"
    parts = {
        "TITLE": html.escape(f"{document['name']} - silicon-dse"),
        "STYLE": (assets / "report.css").read_text(encoding="utf-8"),
        "DATA": embeddable(compact(document)),
        "SCRIPT": "".join(
            (assets / name).read_text(encoding="utf-8")
            for name in ("drawing.js", "explorer.js", "winners.js", "report.js")
        ),
    }
    page = (assets / "report.html").read_text(encoding="utf-8")
    # cut at the markers instead of replacing one after the other: a name in the data may look like a marker
    text = []
    for index, piece in enumerate(page.split("@@")):
        text.append(piece if index % 2 == 0 else parts[piece])
    return "".join(text)


def embeddable(data: Any) -> str:
    """JSON that may stand inside a script element: no character in it can end the element or a line of script."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def compact(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its designs as columns, figures cut to `DIGITS`."""
    designs = _thinned(document["designs"])
    figures = sorted(designs[0]["summary"]) if designs else []
    columns = {
        "trial": [item["trial"] for item in designs],
        "digest": [item["digest"] for item in designs],
        "feasible": [int(item["status"] == "ok") for item in designs],
        "front": [int(item["front"]) for item in designs],
        "figures": {name: [_cut(item["summary"][name]) for item in designs] for name in figures},
        "knobs": {
            knob["name"]: [knob["choices"].index(item["values"][knob["name"]]) for item in designs]
            for knob in document["knobs"]
        },
        "violations": {str(index): item["violations"] for index, item in enumerate(designs) if item["violations"]},
    }
    return {**document, "designs": columns, "thinned": len(document["designs"]) - len(designs)}


def _thinned(designs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    others = sum(not item["front"] for item in designs)
    step = -(-others // MOST_POINTS)
    if step <= 1:
        return list(designs)
    kept, seen = [], 0
    for item in designs:
        if item["front"] or seen % step == 0:
            kept.append(item)
        seen += not item["front"]
    return kept


def _cut(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
