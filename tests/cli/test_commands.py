"""Commands through their front door: what they print, and which exit code every kind of ending has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from dse.cli.main import COMMANDS, cli, run_command_line
from dse.core.errors import InfeasibleError, Violation


def dse(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command_line(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_commands_lists_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "list", "commands")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(COMMANDS)


def test_list_configs_names_files_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "list", "configs")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines()[1:])
    assert code == 0
    assert Path(rows["edge"]).is_file()


def test_list_accelerators_tells_levels_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "list", "accelerators")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("systolic"))
    assert "A C rtl" in row
    assert "silicon-dse" in row


def test_list_presets_and_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"gemmini_16x16", "tpu_v1"} <= {row.split()[0] for row in dse(capsys, "list", "presets")[1].splitlines()[1:]}
    models = dse(capsys, "list", "models")[1]
    assert "zoo:resnet8" in models
    assert ".onnx" in models


def test_show_model_gives_the_known_macs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "show", "zoo:resnet8")
    assert code == 0
    assert "12,501,632" in out


def test_show_design_sums_its_area_up(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "show", "gemmini_16x16")
    assert code == 0
    section = out[out.index("area of") :].splitlines()[1:]
    areas = [line.split() for line in section[: next(i for i, line in enumerate(section) if line.startswith("static"))]]
    total = float(areas[-1][-1])
    assert sum(float(row[-1]) for row in areas[:-1]) == pytest.approx(total, abs=1e-4)


def test_show_tech_has_a_source_for_every_constant(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dse(capsys, "show", "tech", "--json")
    assert code == 0
    constants = json.loads(out)
    assert len(constants) > 20
    assert all(constant["source"].strip() and constant["unit"].strip() for constant in constants)
    code, table, _ = dse(capsys, "show", "tech")
    assert code == 0
    missing = {constant["name"] for constant in constants if constant["name"] not in table}
    # the runs of CACTI are counted in the last line
    assert all(name.startswith("sram_") for name in missing), missing


def test_show_config_lists_the_keys_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    out = dse(capsys, "show", "config")[1]
    keys = {line.split()[0] for line in out.splitlines()[1:]}
    assert {"workload.model", "search.trials", "emit.winners", "accelerator.family"} <= keys
    assert "(required)" in next(line for line in out.splitlines() if line.startswith("workload.model"))


def test_show_file_resolves_a_run_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text("workload: {model: zoo:mlp}\n")
    (tmp_path / "c.yaml").write_text("include: net.yaml\naccelerator: {family: systolic}\n")
    code, out, _ = dse(capsys, "show", str(tmp_path / "c.yaml"))
    assert code == 0
    resolved = yaml.safe_load(out)
    assert resolved["workload"]["model"] == "zoo:mlp"
    assert resolved["emit"]["winners"] == 3


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert "search" in json.loads(dse(capsys, "schema")[1])["properties"]
    assert "rows" in json.loads(dse(capsys, "schema", "systolic")[1])["properties"]


def test_init_writes_what_the_other_commands_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dse.config import load_config
    from dse.flow.accelerator import design_of, resolve_accelerator

    folder = tmp_path / "mine"
    assert dse(capsys, "init", str(folder))[0] == 0
    loaded = load_config(folder / "run.yaml")
    assert design_of(loaded.config.accelerator, loaded.marks).family.name == "systolic"
    assert not resolve_accelerator(str(folder / "design.yaml")).family.check(
        resolve_accelerator(str(folder / "design.yaml")).hw
    )
    code, _, err = dse(capsys, "init", str(folder))
    assert code == 2
    assert "run.yaml exists already" in err


SMALL = ("hardware.rows=8", "hardware.columns=8", "hardware.vector_lanes=4")


def test_simulate_tables_and_json_agree_and_levels_are_equal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("simulate", "--workload", "zoo:resnet8", "--accelerator", "systolic", *SMALL)
    code, text, _ = dse(capsys, *arguments)
    assert code == 0
    trace = tmp_path / "trace.json"
    fast = json.loads(dse(capsys, *arguments, "--json")[1])
    slow = json.loads(dse(capsys, *arguments, "--json", "--level", "C", "--trace", str(trace))[1])
    assert fast["layers"] == slow["layers"]
    assert (fast["level"], slow["level"]) == ("A", "C")
    assert f"{fast['summary']['cycles']:,.0f}" in text
    assert sum(layer["useful_macs"] for layer in fast["layers"]) == 12_501_632
    assert json.loads(trace.read_text())["traceEvents"]


def test_rtl_writes_verilog_and_a_design_that_reads_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from dse.flow.accelerator import resolve_accelerator

    code, out, err = dse(
        capsys, "rtl", "--accelerator", "systolic", "hardware.rows=2", "hardware.columns=2",
        "hardware.vector_lanes=2", "--out", str(tmp_path / "rtl"),
    )  # fmt: skip
    assert code == 0, err
    assert len(out.splitlines()) == 2
    verilog = (tmp_path / "rtl" / "rtl" / "systolic.v").read_text()
    assert "module systolic" in verilog
    assert verilog.rstrip().endswith("endmodule")
    assert resolve_accelerator(str(tmp_path / "rtl" / "design.yaml")).hw.model_dump()["rows"] == 2


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A command `fail` that ends as the test says, by setting `FAILURE`."""
    monkeypatch.setitem(COMMANDS, "fail", __name__)
    return monkeypatch


FAILURE: BaseException = RuntimeError("unset")


@click.command("fail")
def command() -> None:
    """Raise FAILURE."""
    raise FAILURE


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (InfeasibleError("design", [Violation("area", 3.0, 2.0, "mm2")]), 3, "dse: error: design: area: 3 mm2"),
        (KeyboardInterrupt(), 130, "dse: error: interrupted"),
        (click.Abort(), 130, "dse: error: interrupted"),
        (PermissionError(13, "Permission denied", "out"), 2, "dse: error: out: Permission denied"),
        (OSError(28, "No space left on device", "runs/x"), 2, "dse: error: runs/x: No space left on device"),
    ],
)
def test_every_deliberate_ending_is_one_line(
    failing: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: BaseException, code: int, text: str
) -> None:
    failing.setattr(sys.modules[__name__], "FAILURE", failure)
    exit_code, out, err = dse(capsys, "fail")
    assert exit_code == code
    assert not out
    # click ends the line that ^C was echoed on before it says anything
    assert err.lstrip("\n").startswith(text)
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize("failure", [ValueError("oops"), FileNotFoundError(2, "No such file", "ours.csv")])
def test_our_own_mistake_shows_a_traceback_and_says_so(
    failing: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    failing.setattr(sys.modules[__name__], "FAILURE", failure)
    code, _, err = dse(capsys, "fail")
    assert code == 1
    assert "Traceback" in err
    assert "this is a bug of dse" in err


def test_a_closed_pipe_is_no_error() -> None:
    shell = f"{sys.executable} -m dse schema | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == ["{", "0"]
    assert not done.stderr


def test_the_group_offers_exactly_the_commands_that_exist() -> None:
    context = click.Context(cli)
    assert cli.list_commands(context) == list(COMMANDS)
    assert all(cli.get_command(context, name) is not None for name in COMMANDS)
