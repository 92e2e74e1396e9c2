"""The stages of a run one by one: preparation, winners, confirmation, verification, what is written down."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import analytic_family
import numpy as np
import pytest
from analytic_family import AnalyticExecutable, AnalyticFamily, FixedNetworks

from dse.backend import Decisions, RtlRun, VerificationCase
from dse.config import LoadedConfig, load_config
from dse.core import registry
from dse.core.errors import EXIT_BUG, EXIT_INFEASIBLE, ConfigError, InvariantError, UsageError
from dse.core.progress import SilentReporter
from dse.flow import finish
from dse.flow.document import pareto_rows
from dse.flow.finish import FinishTask, finish_winner, finish_winners, reference_values, winner_name
from dse.flow.run import run
from dse.flow.stages import NothingFeasibleError, Prepared, prepare_run, require_feasible
from dse.ir import Graph
from dse.program.executable import Executable
from dse.program.taskgraph import TaskGraph
from dse.search import Evaluation, Evaluator, Trial, Winner, build_space

CONFIG = """
name: small
workload: {model: 'zoo:mlp', calibration: {images: 4}}
accelerator: {family: analytic, hardware: {clock_mhz: 200}}
search: {trials: 24, batch: 8, seed: 5, constraints: [area_mm2 <= 0.3]}
emit: {winners: 3, verify: false}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of the analytic family, which is registered for the length of the test."""
    analytic_family.install(tmp_path / "plugin")
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    registry._points.cache_clear()
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(autouse=True)
def _forget_plugins() -> Any:
    yield
    registry._points.cache_clear()


class Listener(SilentReporter):
    """Remembers what a run tells."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []
        self.tables: list[tuple[str, Sequence[Sequence[object]]]] = []

    def stage(self, name: str, total: int | None = None) -> None:
        self.stages.append(name)

    def message(self, text: str) -> None:
        self.lines.append(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.tables.append((title, rows))


def carried_out(loaded: LoadedConfig, out: Path, **options: Any) -> tuple[Any, Listener]:
    listener = Listener()
    settings: dict[str, Any] = {"resume": False, "jobs": 1, "seed": None, **options}
    return run(loaded, out=out, reporter=listener, **settings), listener


def test_a_seed_on_the_command_line_replaces_the_configured_one(config: Path) -> None:
    loaded = load_config(config)
    assert prepare_run(loaded, None).plan.seed == 5
    prepared = prepare_run(loaded, 9)
    assert prepared.plan.seed == 9
    assert prepared.config.search is not None
    assert prepared.config.search.seed == 9


def test_fixed_parameters_come_from_the_accelerator_and_knobs_overrule_them(config: Path) -> None:
    prepared = prepare_run(load_config(config, ["search.space.hardware.lanes=[2, 4]"]), None)
    hw, decisions = prepared.space.design(prepared.design.family, {"hardware.lanes": 4})
    assert (hw.lanes, hw.clock_mhz, decisions.get("reuse", 0)) == (4, 200, 1)
    assert prepared.space.size == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.space.hardware.lans=[1, 2]", "hardware.lanes"),
        ("search.space.hardware.lanes=[1, 100]", "at most 64, not 100"),
        ("search.constraints=[lanse <= 4]", "did you mean 'lanes'"),
        ("accelerator.hardware.lanes=0", "at least 1, not 0"),
    ],
)
def test_mistakes_in_space_and_constraints_are_found_before_anything_runs(
    config: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_run(load_config(config, [override]), None)


def test_a_run_tells_its_stages_and_writes_every_file(config: Path, tmp_path: Path) -> None:
    result, told = carried_out(load_config(config), tmp_path / "out")
    assert told.stages == ["load", "calibrate and quantize", "search", "confirm, emit and verify", "report"]
    assert any("24 distinct designs simulated" in line for line in told.lines)
    title, rows = told.tables[0]
    assert f"{len(result.pareto)} designs" in title
    assert {row[0] for row in rows} >= {"1", "2", "3"}
    names = {str(path.relative_to(result.folder)) for path in result.folder.rglob("*") if path.is_file()}
    assert names == {
        ".lock", "config.resolved.yaml", "pareto.csv", "pareto.json", "plots/layers.png", "plots/pareto.png",
        "plots/winners.png", "report.html", "run.json", "trials.jsonl", "winners.json",
    }  # fmt: skip
    assert [item.rtl for item in result.winners] == ["closed forms have no registers"] * 3


def test_the_resolved_configuration_runs_again_to_the_same_result(config: Path, tmp_path: Path) -> None:
    first, _ = carried_out(load_config(config), tmp_path / "first", seed=8)
    again, _ = carried_out(load_config(first.folder / "config.resolved.yaml"), tmp_path / "again")
    assert (again.folder / "pareto.json").read_bytes() == (first.folder / "pareto.json").read_bytes()


def test_json_and_csv_hold_the_same_front(config: Path, tmp_path: Path) -> None:
    result, _ = carried_out(load_config(config), tmp_path / "out")
    document = json.loads((result.folder / "pareto.json").read_text())
    rows = list(csv.DictReader(io.StringIO((result.folder / "pareto.csv").read_text())))
    assert len(rows) == len(document["front"]) == len(result.pareto)
    for row, item in zip(rows, document["front"], strict=True):
        assert int(row["trial"]) == item["trial"]
        assert all(float(row[name]) == figure for name, figure in item["summary"].items())
        assert all(row[name] == str(value) for name, value in item["values"].items())
    by_trial = [json.loads(line) for line in (result.folder / "trials.jsonl").read_text().splitlines()]
    assert all(by_trial[item["trial"]]["summary"] == item["summary"] for item in document["front"])
    assert not any("time" in line or "second" in line for line in document)


def test_winners_cover_the_styles_of_the_front(config: Path, tmp_path: Path) -> None:
    result, _ = carried_out(load_config(config, ["search.trials=80"]), tmp_path / "out")
    styles = {item.evaluation.values["hardware.style"] for item in result.pareto}
    assert styles == {"wide", "deep"}
    assert {item.hardware["style"] for item in result.winners} == styles


def test_a_configured_cover_takes_precedence(config: Path, tmp_path: Path) -> None:
    loaded = load_config(config, ["search.trials=80", "emit.cover=[weight_bits]", "emit.winners=2"])
    result, _ = carried_out(loaded, tmp_path / "out")
    assert {item.hardware["weight_bits"] for item in result.winners} == {4, 8}


def test_rows_without_a_front_still_name_their_columns(config: Path) -> None:
    columns, rows = pareto_rows(prepare_run(load_config(config), None), [])
    assert rows == []
    assert columns[:3] == ["trial", "digest", "decisions.reuse"]


def refused(number: int, **violations: float) -> Trial:
    return Trial(number, Evaluation({"hardware.lanes": number}, f"{number:012x}", "infeasible", violations))


def test_nothing_feasible_names_the_limits_by_how_often_and_how_narrowly_they_were_broken() -> None:
    trials = [refused(0, area=0.5, wires=3.0), refused(1, area=0.025), refused(2, wires=0.75), refused(3, area=2.0)]
    with pytest.raises(NothingFeasibleError) as error:
        require_feasible(trials)
    assert error.value.exit_code == EXIT_INFEASIBLE
    text = str(error.value)
    assert "none of 4 designs" in text
    assert text.index("'area' was broken by 3, at the closest by 2.5 %") < text.index("'wires' was broken by 2")
    assert "at the closest by 75 %" in text
    require_feasible([*trials, Trial(4, replace(trials[0].evaluation, status="ok"))])


class LateExecutable(AnalyticExecutable):
    """Its tasks take one cycle more than its estimate says."""

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        graph = super().task_graph(activity)
        return replace(graph, final_cycles=graph.final_cycles + 1)


class LateFamily(AnalyticFamily):
    def lower(self, graph: Graph, hw: Any, decisions: Decisions) -> Executable:
        return LateExecutable(self, graph, hw, decisions.get("reuse", 1))


class PieceExecutable(AnalyticExecutable):
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": np.array([1, 2, 3])}


class RtlFamily(AnalyticFamily):
    """Claims hardware; of its two pieces one differs from the reference in a single output."""

    capabilities = replace(AnalyticFamily.capabilities, rtl=True)

    def rtl(self, hw: Any) -> Any:
        return object()

    def verification_cases(self, executable: Executable, values: Mapping[str, Any]) -> Sequence[VerificationCase]:
        assert isinstance(executable, AnalyticExecutable)
        piece = PieceExecutable(self, executable.graph, executable.hw, executable.reuse)
        expected = {"y": np.array([1, 2, 3])}
        return [VerificationCase(name, piece, {}, expected) for name in ("good", "bad")]

    def emit(self, executable: Executable, cases: Sequence[VerificationCase], folder: Path) -> Sequence[Path]:
        (folder / "bench.v").write_text(" ".join(case.name for case in cases))
        return [folder / "bench.v"]

    def run_rtl(self, executable: Executable, inputs: Mapping[str, Any]) -> RtlRun:
        self.runs = getattr(self, "runs", 0) + 1
        cycles = sum(row[2] for row in executable.layers())  # type: ignore[attr-defined]
        return RtlRun({"y": np.array([1, 2, 3 if self.runs % 2 else 4])}, cycles)


def task(family: AnalyticFamily, folder: Path, *, verify: bool = False) -> FinishTask:
    space = build_space(family, hardware={"lanes": 2}, decisions={"reuse": 1}, choices=None, marks={})
    return FinishTask("1_x", {}, Evaluator(family, space, FixedNetworks()), folder, verify, 0)


def test_a_winner_that_level_c_does_not_confirm_is_our_bug(tmp_path: Path) -> None:
    assert finish_winner(task(AnalyticFamily(), tmp_path)).cycles_c > 0
    with pytest.raises(InvariantError, match=r"level A gives .* cycles, level C"):
        finish_winner(task(LateFamily(), tmp_path))


def test_hardware_that_differs_in_one_output_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[Path] = []
    monkeypatch.setattr(finish, "emit_component", lambda design, component, folder: emitted.append(folder))
    monkeypatch.setattr(finish, "reference_values", lambda graph, mode, seed: {})
    done = finish_winner(task(RtlFamily(), tmp_path, verify=True))
    assert not emitted  # the hardware comes with its testbench
    assert (tmp_path / "design.yaml").exists()
    assert (tmp_path / "bench.v").read_text() == "good bad"
    assert done.failed == ["bad"]
    assert [case["mismatches_rtl"] for case in done.cases] == [0, 1]
    assert any("FAILED" in line for line in done.lines)
    assert not finish_winner(task(RtlFamily(), tmp_path, verify=False)).cases
    assert emitted == [tmp_path]
    assert emitted == [tmp_path]


def test_a_run_whose_hardware_differs_ends_with_an_error_after_its_report(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dse.flow import run as run_module

    def spoiled(*arguments: Any, **options: Any) -> Any:
        for item in finish_winners(*arguments, **options):
            yield replace(item, cases=({"name": "stem", "passed": False},))

    monkeypatch.setattr(run_module, "finish_winners", spoiled)
    with pytest.raises(finish.VerificationError, match=r"differs from reference.*stem") as error:
        carried_out(load_config(config), tmp_path / "out")
    assert error.value.exit_code == EXIT_BUG
    assert (tmp_path / "out" / "report.html").exists()


def test_what_an_earlier_run_emitted_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "rtl" / "1_old").mkdir(parents=True)
    (tmp_path / "rtl" / "1_old" / "stale.v").write_text("")
    one = task(AnalyticFamily(), tmp_path)
    winner = Winner(Trial(0, one.evaluator.evaluate({})), "knee")
    done = list(finish_winners([winner], one.evaluator, tmp_path / "rtl", verify=False, image_seed=0, jobs=1))
    assert [item.name for item in done] == [winner_name(0, winner)]
    assert not (tmp_path / "rtl" / "1_old").exists()


def test_reference_values_hold_every_tensor_of_the_integer_network(config: Path) -> None:
    prepared: Prepared = prepare_run(load_config(config), None)
    numerics = prepared.design.family.numerics(prepared.design.hw)
    graph = prepared.evaluator.networks.get(numerics).graph
    values = reference_values(graph, numerics.requantize, 7)
    assert set(values) >= {name for op in graph.ops for name in op.outputs} | set(graph.inputs)
    for name in graph.outputs:
        np.testing.assert_array_equal(values[name], reference_values(graph, numerics.requantize, 7)[name])


def test_an_unknown_model_is_named_before_the_folder_is_made(config: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        carried_out(load_config(config, ["workload.model=zoo:resnet9"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
