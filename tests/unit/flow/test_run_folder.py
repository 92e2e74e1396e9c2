"""The run folder: who may use it, what a resume compares, what survives a torn write."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from analytic_family import small_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import EXIT_USAGE, RunFolderError
from dse.flow.folder import RunFolder, open_run_folder
from dse.flow.identity import SCHEMA_VERSION, differences, graph_digest, source_digest
from dse.flow.lock import folder_lock
from dse.flow.trial_log import TrialLog, encode_row
from dse.ir import Graph
from dse.search import Evaluation, Trial

IDENTITY: dict[str, Any] = {
    "schema": SCHEMA_VERSION,
    "versions": {"silicon-dse": "1"},
    "inputs": {"network": "abc"},
    "config": {"name": "x", "search": {"trials": 400, "seed": 0}},
}


def opened(path: Path, *, resume: bool = False, **changes: Any) -> RunFolder:
    with open_run_folder(path, {**IDENTITY, **changes}, resume=resume) as folder:
        return folder


def trial(number: int) -> Trial:
    values = {"hardware.rows": number}
    return Trial(number, Evaluation(values, f"{number:012x}", "ok", {}, {"latency_ms": 0.1 + number / 3}))


def test_a_new_run_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(RunFolderError, match=r"not empty \(thesis.tex\)") as error:
            opened(tmp_path, resume=resume)
    assert error.value.exit_code == EXIT_USAGE
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_is_continued_only_when_asked_to(tmp_path: Path) -> None:
    assert not opened(tmp_path / "r").resumed
    with pytest.raises(RunFolderError, match="--resume"):
        opened(tmp_path / "r")
    assert opened(tmp_path / "r", resume=True).resumed


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    assert not opened(tmp_path / "missing", resume=True).resumed
    # what a run leaves that is killed before it wrote its first file
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".lock").write_text("process 1 on host\n")
    (tmp_path / "begun" / ".tmp-1-run.json").write_text("{")
    assert not opened(tmp_path / "begun", resume=False).resumed
    assert not (tmp_path / "begun" / ".tmp-1-run.json").exists()


def test_a_resume_names_everything_that_differs(tmp_path: Path) -> None:
    opened(tmp_path / "r")
    changed = {"name": "x", "search": {"trials": 500, "seed": 0, "batch": 5}}
    with pytest.raises(RunFolderError) as error:
        opened(tmp_path / "r", resume=True, config=changed, inputs={"network": "def"})
    text = str(error.value)
    assert "config.search.trials: 400 in the folder, 500 now" in text
    assert "config.search.batch: nothing in the folder, 5 now" in text
    assert 'inputs.network: "abc" in the folder, "def" now' in text
    assert "seed" not in text


def test_a_folder_of_another_version_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "r")
    (tmp_path / "r" / "run.json").write_text(json.dumps({**IDENTITY, "schema": SCHEMA_VERSION + 1}))
    with pytest.raises(RunFolderError, match=f"version {SCHEMA_VERSION + 1}.*version {SCHEMA_VERSION}"):
        opened(tmp_path / "r", resume=True)
    (tmp_path / "r" / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        opened(tmp_path / "r", resume=True)


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(RunFolderError, match="is not a folder"):
        opened(tmp_path / "r")
    with pytest.raises(RunFolderError, match="cannot be made"):
        opened(tmp_path / "r" / "inner")


def _hold(path: Path, started: Any) -> None:
    with folder_lock(path):
        started.set()
        time.sleep(60)


def test_two_runs_do_not_share_a_folder_and_a_killed_one_does_not_block_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, started))
    process.start()
    assert started.wait(30)
    with pytest.raises(RunFolderError, match=f"process {process.pid} on .* is running"), folder_lock(tmp_path):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with folder_lock(tmp_path) as interrupted:
        assert interrupted is not None
        assert f"process {process.pid} " in interrupted
    with folder_lock(tmp_path) as interrupted:
        assert interrupted is None


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened(tmp_path / "r")
    folder.write_json("pareto.json", {"b": 0.1, "a": [1]})
    assert (folder.path / "pareto.json").read_text() == '{\n "a": [\n  1\n ],\n "b": 0.1\n}\n'

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="No space left"):
        folder.write_json("pareto.json", {"a": 2})
    assert json.loads((folder.path / "pareto.json").read_text()) == {"a": [1], "b": 0.1}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 200))
def test_a_record_cut_at_any_byte_is_completed_to_the_same_bytes(tmp_path_factory: Any, count: int, cut: int) -> None:
    path = tmp_path_factory.mktemp("log") / "trials.jsonl"
    trials = [trial(number) for number in range(count)]
    with TrialLog.open(path) as log:
        log.record(trials)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    with TrialLog.open(path) as log:
        assert list(log.known) == [item.evaluation.digest for item in trials[: len(log.known)]]
        assert all(log.known[item.evaluation.digest] == item.evaluation for item in trials[: len(log.known)])
        for item in trials:
            log.record([item])
    assert path.read_bytes() == whole


def test_a_record_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(encode_row(trial(1)) + b"\n")
    with TrialLog.open(path) as log, pytest.raises(RunFolderError, match=r"trials.jsonl:1: does not hold"):
        log.record([trial(0)])
    path.write_bytes(b"nonsense\n" + encode_row(trial(1)) + b"\n")
    with pytest.raises(RunFolderError, match=r"trials.jsonl:1: is damaged"):
        TrialLog.open(path)


leaves = st.recursive(
    st.integers(0, 3) | st.text(max_size=2), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=6
)


@given(leaves, leaves)
def test_differences_are_empty_exactly_for_equal_identities(first: Any, second: Any) -> None:
    one, other = {"x": first}, {"x": second}
    assert (differences(one, other) == []) == (one == other)
    assert differences(one, one) == []


def test_any_change_of_the_network_changes_its_digest() -> None:
    graph = small_graph()
    assert graph_digest(graph) == graph_digest(small_graph())
    renamed = Graph(graph.name, graph.tensors, graph.ops, graph.inputs, (*graph.outputs, "h"))
    attributed = Graph(
        graph.name, graph.tensors, (graph.ops[0].with_attributes(activation="relu"), graph.ops[1]), graph.inputs,
        graph.outputs,
    )  # fmt: skip
    assert len({graph_digest(item) for item in (graph, renamed, attributed)}) == 3


def test_edited_sources_are_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edited_family.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("edited_family")
    before = source_digest("edited_family")
    assert before == source_digest("edited_family")
    (tmp_path / "edited_family.py").write_text("A = 2\n")
    assert source_digest("edited_family") != before
