"""The shipped run for a keyword LSTM ends with winners whose layers ran on their RTL, and emits them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.cli.main import run_command_line

ROOT = Path(__file__).parents[2]


def test_keyword_lstm_runs_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command_line((
        "run", str(ROOT / "configs" / "keyword_lstm.yaml"), "--out", str(tmp_path / "run"), "--jobs", "1",
        "search.trials=8", "search.batch=4", "emit.winners=1", "workload.calibration.images=2",
        "search.constraints=[]",
    ))  # fmt: skip
    output = capsys.readouterr()
    # lines are broken to the width of the terminal
    text = " ".join((output.out + output.err).split())
    assert code == 0, text
    assert "no hardware emitted" not in text
    (winner,) = json.loads((tmp_path / "run" / "winners.json").read_text(encoding="utf-8"))
    kinds = {case["name"].split()[0] for case in winner["cases"]}
    assert {"lstm", "fully"} <= kinds
    for case in winner["cases"]:
        assert case["passed"]
        assert (case["mismatches_interpreter"], case["mismatches_rtl"]) == (0, 0)
        assert case["cycles_a"] == case["cycles_c"] == case["cycles_rtl"]
    assert list((tmp_path / "run").rglob("rtl/*.v"))
    listings = [path.read_text(encoding="utf-8") for path in (tmp_path / "run").rglob("descriptors/*.txt")]
    assert any("LOOP i0 < 2" in text for text in listings)
