"""Runs killed with -9 and resumed, and runs on one or two processes, end in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import analytic_family
import pytest

TESTS = Path(__file__).resolve().parents[1]
CONFIG = """
name: small
workload: {model: 'zoo:mlp', calibration: {images: 4}}
accelerator: {family: analytic}
search:
  constraints: [area_mm2 <= 0.3, lanes * buffer_kib <= 100]
  trials: 48
  batch: 6
  sampler: nsga2
emit: {winners: 2, verify: false}
"""


class Runs:
    """Starts `dse run` on the analytic family as a user would, in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        analytic_family.install(folder / "plugin")
        self.config = folder / "small.yaml"
        self.config.write_text(CONFIG)

    def start(self, out: str, *arguments: str, delay_s: float = 0.0) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(self.folder / "plugin"), str(TESTS)])
        environment = {**os.environ, "PYTHONPATH": path, analytic_family.DELAY: str(delay_s)}
        command = [sys.executable, "-m", "dse", "run", str(self.config), "--out", str(self.folder / out), *arguments]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder
        )

    def finish(self, out: str, *arguments: str, code: int = 0) -> str:
        process = self.start(out, *arguments)
        text, _ = process.communicate(timeout=120)
        assert process.returncode == code, text
        return text

    def kill_when(self, out: str, ready: Callable[[Path], bool], *arguments: str, delay_s: float = 0.03) -> None:
        """Start a run and kill it with -9 as soon as `ready(folder)`; it must not have ended before."""
        process = self.start(out, *arguments, delay_s=delay_s)
        while not ready(self.folder / out):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL

    def bytes(self, out: str) -> tuple[bytes, bytes]:
        folder = self.folder / out
        return (folder / "pareto.json").read_bytes(), (folder / "trials.jsonl").read_bytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    made = Runs(tmp_path_factory.mktemp("runs"))
    made.finish("reference")
    return made


def rows_at_least(count: int) -> Callable[[Path], bool]:
    def ready(folder: Path) -> bool:
        path = folder / "trials.jsonl"
        return path.exists() and path.read_bytes().count(b"\n") >= count

    return ready


def test_the_reference_run_found_something(runs: Runs) -> None:
    found = json.loads((runs.folder / "reference" / "pareto.json").read_text())
    assert len(found["front"]) >= 5
    assert found["counts"]["simulated"] == 48
    assert found["counts"]["rejected"] > 0
    assert found["winners"][0]["reason"] == "best latency_ms"


def test_two_processes_write_the_same_bytes_as_one(runs: Runs) -> None:
    runs.finish("two", "--jobs", "2")
    assert runs.bytes("two") == runs.bytes("reference")


@pytest.mark.parametrize(
    ("point", "ready"),
    [
        ("folder", lambda folder: folder.exists()),
        ("identity", lambda folder: (folder / "run.json").exists()),
        ("first batch", rows_at_least(1)),
        ("middle", rows_at_least(30)),
        ("pareto", lambda folder: (folder / "pareto.json").exists()),
    ],
)
def test_a_killed_and_resumed_run_ends_in_the_same_bytes(runs: Runs, point: str, ready: Callable[[Path], bool]) -> None:
    out = f"killed-{point.replace(' ', '-')}"
    runs.kill_when(out, ready)
    runs.finish(out, "--resume")
    assert runs.bytes(out) == runs.bytes("reference")


def test_two_kills_a_torn_line_and_another_number_of_processes_change_nothing(runs: Runs) -> None:
    runs.kill_when("torn", rows_at_least(10), "--jobs", "2")
    record = runs.folder / "torn" / "trials.jsonl"
    record.write_bytes(record.read_bytes()[:-20])
    runs.kill_when("torn", rows_at_least(25), "--resume")
    with record.open("ab") as handle:
        handle.write(b'{"digest":"0123')
    text = runs.finish("torn", "--resume", "--jobs", "2")
    assert "torn last line" in text
    assert "cut off here" in text
    assert runs.bytes("torn") == runs.bytes("reference")


def test_workers_end_with_a_killed_parent(runs: Runs) -> None:
    process = runs.start("orphans", "--jobs", "2", delay_s=0.05)
    while not rows_at_least(1)(runs.folder / "orphans"):
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("the children of a process are listed by Linux only")
    workers = [int(item) for item in children.read_text().split()]
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 20
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(worker) for worker in workers)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_interrupt_ends_a_run_at_once_with_code_130_and_can_be_resumed(runs: Runs) -> None:
    process = runs.start("interrupted", "--jobs", "2", delay_s=0.1)
    while not rows_at_least(1)(runs.folder / "interrupted"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    runs.finish("interrupted", "--resume")
    assert runs.bytes("interrupted") == runs.bytes("reference")


def test_a_finished_run_resumed_emits_again_and_changes_nothing(runs: Runs) -> None:
    runs.finish("again")
    (runs.folder / "again" / "report.html").unlink()
    text = runs.finish("again", "--resume")
    assert "48" in text
    assert (runs.folder / "again" / "report.html").exists()
    assert runs.bytes("again") == runs.bytes("reference")


def test_a_resume_with_other_settings_is_refused_with_exit_code_2(runs: Runs) -> None:
    text = runs.finish("reference", "--resume", "--seed", "7", code=2)
    assert "config.search.seed: 0 in the folder, 7 now" in text
    assert "Traceback" not in text


def test_nothing_feasible_ends_with_exit_code_3_and_says_what_was_broken(runs: Runs) -> None:
    text = runs.finish("never", "search.constraints=[lanes <= 64, area_mm2 <= 0.001]", code=3)
    assert "'area_mm2 <= 0.001' was broken by" in text
    assert "at the closest by" in text
    assert "Traceback" not in text
    assert json.loads((runs.folder / "never" / "pareto.json").read_text())["front"] == []


def test_a_run_without_a_search_confirms_its_one_design(runs: Runs) -> None:
    runs.finish("single", "search=null")
    found = json.loads((runs.folder / "single" / "pareto.json").read_text())
    winners = json.loads((runs.folder / "single" / "winners.json").read_text())
    assert len(found["front"]) == 1
    assert winners[0]["cycles"]["A"] == winners[0]["cycles"]["C"] > 0
