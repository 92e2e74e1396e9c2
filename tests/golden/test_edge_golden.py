"""A small search with the real systolic family, end to end: twice the same bytes, and winners whose RTL agrees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dse.config import load_config
from dse.core.progress import SilentReporter
from dse.flow.run import RunResult, run

CONFIG = """
name: small
workload: {{model: 'zoo:{model}', calibration: {{images: 4}}}}
accelerator:
  family: systolic
  hardware: {{requantize: q31, parameter_channels: 128, activation_kib: 4, accumulator_kib: 1}}
search:
  space:
    hardware.rows: [2, 4, 8]
    hardware.columns: [2, 4, 8]
    hardware.dataflow: [ws, os]
    hardware.weight_bits: [4, 8]
    hardware.weight_kib: [1, 4]
    hardware.vector_lanes: [1, 2]
    hardware.memory_bytes_per_cycle: [2, 8]
    hardware.clock_mhz: {{low: 200, high: 600, step: 200}}
    decisions.gather: [false, true]
  constraints: [rows * columns <= 32, area_mm2 <= 2.5]
  trials: {trials}
  batch: 8
emit: {{winners: {winners}, verify: true}}
"""


def carried_out(folder: Path, out: str, *, model: str, trials: int, winners: int, seed: int | None = None) -> RunResult:
    path = folder / f"{out}.yaml"
    path.write_text(CONFIG.format(model=model, trials=trials, winners=winners))
    return run(load_config(path), out=folder / out, resume=False, jobs=1, seed=seed, reporter=SilentReporter())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, RunResult]:
    folder = tmp_path_factory.mktemp("edge")
    first, second = (carried_out(folder, out, model="tiny_cnn", trials=24, winners=0) for out in ("first", "second"))
    return first, second


def test_two_runs_find_the_same_bytes(results: tuple[RunResult, RunResult]) -> None:
    first, second = ((result.folder / "pareto.json").read_bytes() for result in results)
    assert first == second
    trials = [(result.folder / "trials.jsonl").read_bytes() for result in results]
    assert trials[0] == trials[1]


def test_the_front_is_a_front_within_the_limits(results: tuple[RunResult, RunResult]) -> None:
    result = results[0]
    assert result.simulated == 24
    assert 0 < result.feasible <= 24
    found = json.loads((result.folder / "pareto.json").read_text())
    assert len(found["front"]) == len(result.pareto) >= 3
    figures = [trial.evaluation.summary for trial in result.pareto]
    for trial in result.pareto:
        values = trial.evaluation.values
        assert values["hardware.rows"] * values["hardware.columns"] <= 32
        assert trial.evaluation.summary["area_mm2"] <= 2.5
        assert 0 < trial.evaluation.summary["utilization"] <= 1
    for one in figures:
        for other in figures:
            lower = all(one[name] <= other[name] for name in ("latency_ms", "energy_uj", "area_mm2"))
            strictly = any(one[name] < other[name] for name in ("latency_ms", "energy_uj", "area_mm2"))
            assert not (lower and one["sqnr_db"] >= other["sqnr_db"] and strictly)
    assert all(trial.evaluation.summary["sqnr_db"] > 0 for trial in result.pareto)


def test_another_seed_proposes_other_designs(tmp_path: Path, results: tuple[RunResult, RunResult]) -> None:
    other = carried_out(tmp_path, "other", model="tiny_cnn", trials=8, winners=0, seed=9)
    proposed = (other.folder / "trials.jsonl").read_text().splitlines()
    assert set(proposed).isdisjoint((results[0].folder / "trials.jsonl").read_text().splitlines()[:8])


def test_a_winner_is_confirmed_by_level_c_and_by_its_rtl(tmp_path: Path) -> None:
    result = carried_out(tmp_path, "winner", model="mlp", trials=8, winners=1)
    (winner,) = result.winners
    assert winner.cycles_a == winner.cycles_c > 0
    assert [case["name"] for case in winner.cases] == ["fully connected dense1"]
    (case,) = winner.cases
    assert (case["mismatches_interpreter"], case["mismatches_rtl"]) == (0, 0)
    assert case["cycles_a"] == case["cycles_c"] == case["cycles_rtl"] > 0
    assert (result.folder / "rtl" / winner.name / "design.yaml").exists()
