"""Broken inputs: one clear line that names the thing, the right exit code, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dse.cli.main import run_command_line

RUN = "workload: {model: zoo:resnet8}\naccelerator: {family: systolic}\n"

#: name -> (arguments with {folder}, files to write, words the line must hold).
Case = tuple[list[str], dict[str, str], list[str]]

CASES: dict[str, Case] = {
    "a configuration that does not exist": (["run", "nope.yaml"], {}, ["nope.yaml", "edge"]),
    "broken YAML": (["run", "c.yaml"], {"c.yaml": "a: [1, 2\nb: 3"}, ["c.yaml:2", "not YAML"]),
    "an unknown key": (["run", "c.yaml"], {"c.yaml": RUN + "serch: {}\n"}, ["c.yaml:3", "serch", "'search'"]),
    "a duplicate key": (["run", "c.yaml"], {"c.yaml": RUN + "name: a\nname: b\n"}, ["c.yaml:4", "given twice"]),
    "a number of trials below one": (["run", "c.yaml", "search.trials=-4"], {"c.yaml": RUN}, ["trials", "-4", "1"]),
    "a word where a number belongs": (
        ["run", "c.yaml"],
        {"c.yaml": RUN + "search:\n  trials: many\n"},
        ["c.yaml:4", "search.trials", "integer", "'many'"],
    ),
    "an alias bomb": (
        ["run", "c.yaml"],
        {"c.yaml": "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )},
        ["c.yaml", "50000 values"],
    ),
    "nesting without end": (["run", "c.yaml"], {"c.yaml": "[" * 100_000}, ["c.yaml", "deeper"]),
    "a dangerous tag": (["run", "c.yaml"], {"c.yaml": "a: !!python/name:os.system\n"}, ["c.yaml:1", "tag"]),
    "an include that includes itself": (["run", "c.yaml"], {"c.yaml": "include: c.yaml\n"}, ["itself", "c.yaml"]),
    "an unknown family": (
        ["run", "c.yaml"],
        {"c.yaml": "workload: {model: zoo:resnet8}\naccelerator:\n  family: sistolic\n"},
        ["c.yaml:3", "accelerator.family", "'systolic'"],
    ),
    "an unknown preset": (
        ["run", "c.yaml"],
        {"c.yaml": "workload: {model: zoo:resnet8}\naccelerator:\n  family: systolic\n  preset: gemini_16x16\n"},
        ["c.yaml:4", "gemmini_16x16"],
    ),
    "a negative size": (
        ["run", "c.yaml"],
        {"c.yaml": "workload: {model: zoo:resnet8}\naccelerator:\n  family: systolic\n  hardware:\n    rows: -8\n"},
        ["c.yaml:5", "accelerator.hardware.rows", "at least 2", "-8"],
    ),
    "an unknown hardware parameter": (
        ["run", "c.yaml", "accelerator.hardware.colums=4"], {"c.yaml": RUN}, ["colums", "'columns'"],
    ),
    "a searched parameter that does not exist": (
        ["run", "c.yaml"],
        {"c.yaml": RUN + "search:\n  space:\n    hardware.rowz: [2, 4]\n"},
        ["c.yaml:5", "rowz", "rows"],
    ),
    "a searched value out of bounds": (
        ["run", "c.yaml"],
        {"c.yaml": RUN + "search:\n  space:\n    hardware.rows: [2, 4096]\n"},
        ["c.yaml:5", "4096", "256"],
    ),
    "a constraint that is code": (
        ["run", "c.yaml"],
        {"c.yaml": RUN + "search:\n  constraints:\n  - __import__('os').system('true') <= 1\n"},
        ["c.yaml:5", "search.constraints[0]"],
    ),
    "a constraint on an unknown name": (
        ["run", "c.yaml"],
        {"c.yaml": RUN + "search:\n  constraints:\n  - colums <= 4\n"},
        ["colums", "columns"],
    ),
    "a model that is not in the zoo": (
        ["simulate", "--workload", "zoo:resnet9", "--accelerator", "systolic"], {}, ["resnet9", "resnet8"],
    ),
    "a model file that does not exist": (
        ["simulate", "--workload", "net.onnx", "--accelerator", "systolic"], {}, ["net.onnx", "not exist"],
    ),
    "a model of an unknown kind": (
        ["simulate", "--workload", "net.pt", "--accelerator", "systolic"], {"net.pt": "x"}, ["net.pt", ".onnx"],
    ),
    "a preset that does not exist": (
        ["simulate", "--workload", "zoo:resnet8", "--accelerator", "tpu_v11"], {}, ["tpu_v11", "'tpu_v1'"],
    ),
    "an override of nothing": (
        ["simulate", "--workload", "zoo:resnet8", "--accelerator", "systolic", "rows=4"], {}, ["rows=4", "hardware."],
    ),
    "an unknown decision": (
        ["simulate", "--workload", "zoo:resnet8", "--accelerator", "systolic", "decisions.gahter=true"],
        {},
        ["gahter", "gather"],
    ),
    "a dimension that is no number": (
        ["simulate", "--workload", "zoo:resnet8", "--accelerator", "systolic", "--dim", "N=many"], {}, ["N", "many"],
    ),
    "an unknown level": (
        ["simulate", "--workload", "zoo:resnet8", "--accelerator", "systolic", "--level", "Z"], {}, ["Z", "A", "C"],
    ),
    "a design file without a family": (
        ["simulate", "--workload", "zoo:resnet8", "--accelerator", "d.yaml"],
        {"d.yaml": "hardware: {rows: 4}\n"},
        ["d.yaml", "family", "missing"],
    ),
    "an unknown command": (["simulat"], {}, ["simulat", "'simulate'"]),
    "an unknown option": (["run", "edge", "--job", "2"], {}, ["--job", "--jobs"]),
    "a thing that cannot be shown": (["show", "tecc"], {}, ["tecc", "tech"]),
    "zero jobs": (["run", "edge", "--jobs", "0"], {}, ["--jobs", "0"]),
}  # fmt: skip


@pytest.fixture
def report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a command in an empty folder; gives exit code and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = run_command_line(arguments)
        return code, capsys.readouterr().err

    return run


def require_one_line(error: str, words: list[str]) -> None:
    """The error is the last line and the only one; before it only the name of the stage may stand."""
    assert "Traceback" not in error, error
    *before, last = error.splitlines()
    assert last.startswith("dse: error: "), error
    assert all(line.endswith(" ...") for line in before), error
    missing = [word for word in words if word not in error]
    assert not missing, f"{missing} not in: {error}"


@pytest.mark.parametrize("name", CASES)
def test_a_broken_input_is_one_clear_line_and_exit_2(
    report: Callable[..., tuple[int, str]], tmp_path: Path, name: str
) -> None:
    arguments, files, words = CASES[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    code, error = report(*arguments)
    require_one_line(error, words)
    assert code == 2


def test_a_design_that_cannot_be_built_is_exit_3(report: Callable[..., tuple[int, str]]) -> None:
    code, error = report(
        "simulate", "--workload", "zoo:resnet8", "--accelerator", "systolic", "hardware.clock_mhz=4000"
    )
    require_one_line(error, ["clock", "4000"])
    assert code == 3


def simulate(report: Callable[..., tuple[int, str]], path: Path) -> str:
    code, error = report("simulate", "--workload", path.name, "--accelerator", "systolic")
    assert code == 2, error
    return error


def conv_model(folder: Path, *, op: str = "Conv", batch: int | str = 1, size: int = 8) -> Path:
    """A one-op ONNX model; `op` other than Conv keeps Conv's inputs."""
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], [0.5] * 108)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, size - 2, size - 2])
    node = helper.make_node(op, ["x", "w"], ["y"], name="the_node")
    model = helper.make_model(
        helper.make_graph([node], "g", [image], [out], [weight]), opset_imports=[helper.make_opsetid("", 13)]
    )
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_a_truncated_model(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    path = conv_model(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    require_one_line(simulate(report, path), ["net.onnx"])


def test_a_model_of_random_bytes(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(bytes(range(256)) * 4)
    require_one_line(simulate(report, tmp_path / "net.onnx"), ["net.onnx"])


def test_an_empty_model_file(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    require_one_line(simulate(report, tmp_path / "net.onnx"), ["net.onnx"])


def test_an_unsupported_operator_is_named(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    require_one_line(simulate(report, conv_model(tmp_path, op="Mod")), ["the_node", "Mod", "13"])


def test_an_unbound_dimension_is_named(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    require_one_line(simulate(report, conv_model(tmp_path, batch="N")), ["N", "--dim"])


def test_huge_dimensions_are_refused(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    require_one_line(simulate(report, conv_model(tmp_path, size=2**28)), ["net.onnx"])


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "link.bin"])
def test_external_data_outside_the_folder_is_refused(
    report: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    import onnx

    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"\0" * 432)
    os.symlink(tmp_path / "outside.bin", inside / "link.bin")
    model = onnx.load(conv_model(inside))
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (inside / "net.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(inside)
    require_one_line(simulate(report, inside / "net.onnx"), ["net.onnx", location])


def test_an_output_folder_that_is_a_file(report: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    code, error = report("rtl", "--accelerator", "systolic", "--out", "taken/below")
    require_one_line(error, ["taken"])
    assert code == 2
    assert (tmp_path / "taken").read_text() == "mine"
