"""The page is one file that asks nobody for anything, and no name in it can become markup or script."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from dse.backend import Knob
from dse.report import pareto_table
from dse.report.page import MOST_POINTS, compact, embeddable, render_page
from dse.report.pareto_table import ROWS
from dse.report.plots import write_plots
from dse.search import Evaluation, Trial, choose_winners

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>&\u2028 @@DATA@@ $x_y$"
OBJECTIVES = ("latency_ms", "sqnr_db")


def document(count: int = 30, name: str = "edge", layer: str = "conv1") -> dict[str, Any]:
    """A run with `count` designs, two winners and one failed verification."""
    designs = [
        {
            "trial": i, "digest": f"{i:012x}", "status": "ok" if i % 3 else "infeasible",
            "values": {"hardware.rows": 2 + 2 * (i % 2), "decisions.gather": bool(i % 2)},
            "violations": {} if i % 3 else {"area_mm2 <= 1": 0.5},
            "summary": {"latency_ms": 1.0 + i / 7, "sqnr_db": 10.0 + i}, "front": i in (1, 2),
        }
        for i in range(count)
    ]  # fmt: skip
    case = {
        "name": layer, "outputs": 10, "mismatches_interpreter": 0, "mismatches_rtl": 0, "cycles_a": 5, "cycles_c": 5,
        "cycles_rtl": 6, "passed": False,
    }  # fmt: skip
    layers = [{"name": layer, "cycles": 10, "losses": {"edge": 2.5}, "energy_pj": {"mac": 3.0, "sram": 1.0}}]
    metrics = {"level": "A", "energy_pj": {"mac": 3.0, "sram": 1.0}, "area_um2": {"pe": 1e5}, "layers": layers}
    winners = [
        {
            "name": f"{i}_x", "reason": "knee", "trial": i, "digest": "x", "values": designs[i]["values"],
            "summary": designs[i]["summary"], "hardware": {}, "metrics": metrics, "cycles": {"A": 10, "C": 10},
            "rtl": "", "cases": [case],
        }
        for i in (1, 2)
    ]  # fmt: skip
    return {
        "name": name, "workload": name, "network": {"name": name, "macs": 5, "parameters": 6},
        "family": {"name": "toy", "description": name}, "exact": True, "seed": 0, "identity": {"python": "3.11"},
        "objectives": [{"name": "latency_ms", "maximised": False}, {"name": "sqnr_db", "maximised": True}],
        "constraints": ["area_mm2 <= 1"],
        "counts": {"simulated": count, "feasible": 20, "rejected": 3, "repeats": 1},
        "knobs": [{"name": "hardware.rows", "choices": [2, 4]}, {"name": "decisions.gather", "choices": [False, True]}],
        "designs": designs, "winners": winners,
    }  # fmt: skip


class Page(HTMLParser):
    """Elements, attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.title = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "input", "br"):
            self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        if self._open and self._open[-1] == "title":
            self.title += data


@pytest.mark.parametrize("name", ["edge", EVIL])
def test_the_page_parses_and_refers_to_nothing_outside(name: str) -> None:
    text = render_page(document(name=name, layer=name))
    page = Page(text)
    assert not page._open
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert not {"link", "img", "iframe", "object", "embed", "form", "base"} & set(tags)
    for _, attributes in page.elements:
        assert not {"src", "href", "action", "srcset"} & set(attributes)
        assert not [key for key in attributes if key.startswith("on")]
    asked = _style(text) + page.scripts[1]
    # the name of the SVG namespace, which nobody fetches
    assert set(re.findall(r"https?://[^\s\"']*", asked)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|import\(|[\"'`]//", asked)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", asked)
    assert "default-src 'none'" in text


def _style(text: str) -> str:
    return text.split("<style>")[1].split("</style>")[0]


def test_untrusted_names_arrive_as_data_unchanged() -> None:
    page = Page(render_page(document(name=EVIL, layer=EVIL)))
    data = json.loads(page.scripts[0])
    assert data["name"] == EVIL
    assert data["winners"][0]["metrics"]["layers"][0]["name"] == EVIL
    assert page.title == f"{EVIL} - silicon-dse"


@settings(max_examples=200)
@given(st.text())
def test_embedded_data_reads_back_and_cannot_end_its_element(text: str) -> None:
    embedded = embeddable({"x": text})
    assert json.loads(embedded) == {"x": text}
    assert not set("<>&\u2028\u2029") & set(embedded)


def test_columns_hold_what_the_rows_held() -> None:
    source = document()
    columns = compact(source)["designs"]
    for index, row in enumerate(source["designs"]):
        assert columns["trial"][index] == row["trial"]
        assert columns["feasible"][index] == (row["status"] == "ok")
        for knob in source["knobs"]:
            assert knob["choices"][columns["knobs"][knob["name"]][index]] == row["values"][knob["name"]]
        for name, figure in row["summary"].items():
            assert columns["figures"][name][index] == pytest.approx(figure, rel=1e-6)


def test_a_large_run_is_thinned_but_keeps_its_front() -> None:
    data = compact(document(count=3 * MOST_POINTS))
    assert len(data["designs"]["trial"]) <= MOST_POINTS + 2
    assert sum(data["designs"]["front"]) == 2
    assert data["thinned"] == 3 * MOST_POINTS - len(data["designs"]["trial"])


def test_a_run_without_designs_or_winners_still_has_a_page_and_plots(tmp_path: Path) -> None:
    empty = {**document(), "designs": [], "winners": [], "knobs": []}
    assert not Page(render_page(empty))._open
    assert [path.name for path in write_plots(empty, tmp_path)] == ["pareto.png"]


def test_plots_are_drawn_whatever_a_layer_is_called(tmp_path: Path) -> None:
    paths = write_plots(document(layer="_$x^{"), tmp_path)
    assert sorted(path.name for path in paths) == ["layers.png", "pareto.png", "winners.png"]
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[0] > 150
        assert pixels.std() > 0.01
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_plots(document(layer="_$x^{"), tmp_path)] == first


def test_a_browser_draws_every_design_and_runs_no_foreign_script(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium to draw the page with")
    page = tmp_path / "report.html"
    page.write_text(render_page(document(name=EVIL, layer=EVIL)), encoding="utf-8")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run(
        [*command, "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    drawn = result.stdout
    # feasible designs are drawn at once, infeasible ones on request
    assert drawn.count("<circle") == 20
    assert drawn.count("<img") == 0
    assert "<title>taken" not in drawn
    assert "FAILED" in drawn


def trials(count: int) -> list[Trial]:
    return [
        Trial(i, Evaluation({"hardware.rows": i}, f"{i:012x}", "ok", {}, {"latency_ms": i + 1.0, "sqnr_db": 2.0 * i}))
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [1, ROWS, 7 * ROWS])
def test_the_table_shows_all_of_a_small_front_and_the_spread_of_a_large_one(count: int) -> None:
    front = trials(count)
    winners = choose_winners(front, OBJECTIVES, 3, [])
    title, columns, rows = pareto_table(front, winners, OBJECTIVES, [Knob("hardware.rows", tuple(range(count)))])
    assert len(rows) == min(count, ROWS)
    assert columns == ["winner", "trial", "latency_ms", "sqnr_db", "rows"]
    assert [row[0] for row in rows if row[0]] == [str(p + 1) for p in _places(winners)]
    latencies = [float(row[2]) for row in rows]
    assert latencies == sorted(latencies)
    assert f"{count} designs" in title


def _places(winners: list[Any]) -> list[int]:
    return sorted(range(len(winners)), key=lambda place: winners[place].trial.evaluation.summary["latency_ms"])
