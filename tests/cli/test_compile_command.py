"""`dse compile`: its files say what the program is, and a program read back computes the network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dse.cli.main import run_command_line
from dse.program.tile.container import decode_program
from dse.program.tile.program import TileStep

DESIGN = ("--accelerator", "gemmini_16x16")


def dse(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command_line(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_files_hold_listing_binary_and_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "prog"
    code, out, _ = dse(
        capsys, "compile", "zoo:ds_cnn", *DESIGN, "decisions.fuse_layers=auto", "-o", str(folder), "--json"
    )
    assert code == 0
    document = json.loads(out)
    program = decode_program((folder / "program.bin").read_bytes())
    assert len(program.steps) == document["steps"]
    assert program.image is None
    text = (folder / "program.txt").read_text(encoding="utf-8")
    assert all(f"step {step.name}:" in text for step in program.tile_steps)
    assert "FORWARD" in text
    with (folder / "memory.csv").open(encoding="utf-8") as file:
        regions = list(csv.DictReader(file))
    assert max(int(row["base"]) + int(row["bytes"]) for row in regions) <= program.memory_bytes
    assert {"tensor", "weights", "parameters", "zero points"} == {row["kind"] for row in regions}
    with (folder / "steps.csv").open(encoding="utf-8") as file:
        steps = list(csv.DictReader(file))
    assert sum(int(row["cycles"]) for row in steps) == document["cycles"]
    assert sum(int(row["memory_bytes"]) for row in steps) == document["memory_traffic_bytes"]
    longest = [max(map(len, s.queues.values())) if isinstance(s, TileStep) else 0 for s in program.steps]
    assert [int(row["descriptors"]) for row in steps] == longest
    assert [entry["kind"] for entry in document["host"]] == [
        step.kind for step in program.steps if not isinstance(step, TileStep)
    ]
    assert document["activation_peak_bytes"] >= document["activation_bound_bytes"]


def test_tables_name_every_host_operation_and_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "compile", "zoo:resnet8", *DESIGN)
    assert code == 0
    for words in ("left to the host", "global_average_pool", "softmax", "x the lower bound", "compiled from shapes"):
        assert words in out


def test_samples_give_a_program_with_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32))
    folder = tmp_path / "prog"
    code, _, error = dse(
        capsys, "compile", "zoo:digits_cnn", *DESIGN, "--calib", str(samples), "-o", str(folder)
    )  # fmt: skip
    assert code == 0, error
    assert decode_program((folder / "program.bin").read_bytes()).image is not None


def test_families_without_tile_programs_and_wrong_decisions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = dse(capsys, "compile", "zoo:resnet8", *DESIGN, "decisions.fuse_layers=on")
    assert code == 2
    assert "neither auto nor off" in error
