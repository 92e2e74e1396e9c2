"""The shipped run for a keyword LSTM ends with winners whose programs were executed, and says why there is no RTL."""

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
    assert "no hardware emitted: the program uses ELEMENT, SCALE" in text
    assert "12 outputs of the program in the interpreter, 0 differ" in text
    (winner,) = json.loads((tmp_path / "run" / "winners.json").read_text(encoding="utf-8"))
    (case,) = winner["cases"]
    assert case["passed"]
    assert (case["mismatches_interpreter"], case["mismatches_rtl"], case["cycles_rtl"]) == (0, None, None)
    assert case["cycles_a"] == case["cycles_c"] == winner["cycles"]["A"]
    listings = list((tmp_path / "run").rglob("descriptors/*.txt"))
    assert listings
    assert "LOOP i0 < 49" in listings[0].read_text(encoding="utf-8")
