"""GPUs on the command line: simulate with a batch, the trace of waves, the shipped search, the Rosetta-Stone suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.cli.main import run_command_line

ROOT = Path(__file__).parents[2]


def test_a_preset_runs_a_batch_and_prints_its_expected_error(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for batch in ("batch=1", "decisions.batch=16"):
        code = run_command_line(("simulate", "--accelerator", "h100_sxm", "--workload", "zoo:resnet8", batch, "--json"))
        found[batch] = json.loads(capsys.readouterr().out)
        assert code == 0
    one, many = (item["summary"] for item in found.values())
    assert many["latency_ms"] < 16 * one["latency_ms"]
    assert sum(layer["useful_macs"] for layer in found["batch=1"]["layers"]) == 12_501_632
    assert 0 < many["latency_error_percent"] < 100


def test_level_c_writes_a_trace_of_waves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.json"
    arguments = ("simulate", "--accelerator", "t4", "--workload", "zoo:resnet8", "batch=256", "--level", "C")
    assert run_command_line((*arguments, "--trace", str(trace))) == 0
    kinds = {event.get("cat") for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]}
    assert {"launch", "full waves", "last wave"} <= kinds
    assert "latency error percent" in capsys.readouterr().out


def test_an_unknown_short_override_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(("simulate", "--accelerator", "t4", "--workload", "zoo:resnet8", "bach=2")) == 2
    assert "must be hardware.NAME=VALUE" in " ".join(capsys.readouterr().err.split())


def test_the_shipped_search_ends_with_winners_and_the_reason_for_no_rtl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command_line((
        "run", str(ROOT / "configs" / "gpu.yaml"), "--out", str(tmp_path / "run"), "--jobs", "1",
        "workload.model=zoo:resnet8", "search.trials=60", "search.batch=20", "emit.winners=2",
    ))  # fmt: skip
    text = " ".join("".join(capsys.readouterr()).split())
    assert code == 0, text
    assert "there is nothing to emit" in text
    winners = json.loads((tmp_path / "run" / "winners.json").read_text(encoding="utf-8"))
    assert len(winners) == 2
    assert all(item["cycles"]["A"] == item["cycles"]["C"] for item in winners)
    front = json.loads((tmp_path / "run" / "pareto.json").read_text(encoding="utf-8"))["front"]
    for knob in ("hardware.sms", "hardware.dram_gb_s", "hardware.clock_mhz"):
        assert len({repr(trial["values"][knob]) for trial in front}) > 1, knob


def test_an_objective_that_gpus_do_not_have_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command_line((
        "run", str(ROOT / "configs" / "gpu.yaml"), "--out", str(tmp_path / "run"), "--jobs", "1",
        "workload.model=zoo:resnet8", "search.trials=2", "search.batch=2", "search.objectives=[latency_ms,sqnr_db]",
    ))  # fmt: skip
    assert code == 2
    assert "search.objectives: 'sqnr_db' is not a figure of these designs" in " ".join(capsys.readouterr().err.split())


def test_the_rosetta_suite_keeps_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(("validate", "rosetta", "--json")) == 0
    (suite,) = json.loads(capsys.readouterr().out)
    assert suite["count"] == 80
    limits = [item for _, item in suite["comparisons"] if item["bound"] is not None]
    assert len(limits) == 80
    assert all(item["predicted"] == 0 for item in limits)
