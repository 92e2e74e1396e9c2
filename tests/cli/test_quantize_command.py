"""`dse quantize` and accuracy in `dse run`: the file it writes does what is printed; mistakes are answered at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dse.cli.main import run_command_line
from dse.core.errors import UsageError
from workloads.zoo import ZooFrontend, digits

CALIBRATION = 120
TEST = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained digits CNN as a user's ONNX file, with samples to calibrate on and to judge by."""
    place = tmp_path_factory.mktemp("digits")
    data = digits.dataset(digits.CNN)
    (place / "digits.onnx").write_bytes(digits.build_cnn(0).SerializeToString())
    np.savez(place / "calib.npz", x=data.train_images[:CALIBRATION], y=data.train_labels[:CALIBRATION])
    np.savez(place / "test.npz", x=data.test_images[:TEST], y=data.test_labels[:TEST])
    np.savez(place / "unlabelled.npz", x=data.test_images[:TEST])
    return place


def quantize(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    calib, output = str(folder / "calib.npz"), str(folder / "out.onnx")
    code = run_command_line(["quantize", str(folder / "digits.onnx"), "--calib", calib, "-o", output, *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def figures(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = quantize(folder, capsys, "--json", *arguments)
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def logits_of(path: Path, images: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


@pytest.mark.parametrize(
    "options",
    [[], ["--method", "mse", "--equalize"], ["--method", "percentile", "--percentile", "99.9", "--per-tensor"],
     ["--weights", "4"], ["--mixed", "conv2=4", "--mixed", "conv3=4"]],
    ids=["plain", "mse", "percentile", "4 bits", "mixed"],
)  # fmt: skip
def test_the_written_file_has_the_accuracy_that_is_printed(
    options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(folder, capsys, "--data", str(folder / "test.npz"), *options)
    with np.load(folder / "test.npz") as stored:
        images, labels = stored["x"], stored["y"]
    got, real = (logits_of(folder / name, images) for name in ("out.onnx", "digits.onnx"))
    assert found["figures"]["accuracy"] == pytest.approx((got.argmax(axis=1) == labels).mean())
    assert found["figures"]["float_accuracy"] == pytest.approx((real.argmax(axis=1) == labels).mean())
    noise = 10 * np.log10(np.square(real).sum() / np.square(real - got).sum())
    assert found["figures"]["sqnr_db"] == pytest.approx(noise, abs=0.01)
    assert found["judged_on"]["samples"] == TEST


def test_tables_name_layers_bits_and_accuracy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = quantize(folder, capsys, "--mixed", "conv2=4", "--data", str(folder / "test.npz"))
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert rows["conv1"][1:4] == ["conv", "8", "8"]
    assert rows["conv2"][1:4] == ["conv", "8", "4"]
    assert "float accuracy" in out
    assert "quantized accuracy" in out
    assert "wrote" in err
    code, out, _ = quantize(folder, capsys)
    assert code == 0
    assert "calibrated on them, so flattering" in out


def test_auto_spends_few_bits_within_the_loss_that_is_allowed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tight = figures(folder, capsys, "--mixed", "auto", "--max-loss", "0")
    loose = figures(folder, capsys, "--mixed", "auto", "--max-loss", "100")
    held = figures(folder, capsys, "--mixed", "auto", "--mixed", "dense=8", "--max-loss", "100")
    plain = figures(folder, capsys)
    assert loose["weight_bits"] == plain["weight_bits"] / 2
    assert loose["weight_bits"] < tight["weight_bits"] <= plain["weight_bits"]
    assert tight["figures"]["accuracy"] >= tight["figures"]["float_accuracy"]
    bits = {layer["name"]: layer["weight_bits"] for layer in held["layers"]}
    assert (bits["conv1"], bits["dense"]) == (4, 8)


def test_auto_without_labels_keeps_the_agreement_with_float(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = str(folder / "unlabelled.npz")
    found = figures(folder, capsys, "--calib", unlabelled, "--mixed", "auto", "--max-loss", "2")
    assert "accuracy" not in found["figures"]
    assert found["figures"]["top1_agreement"] >= 0.98
    assert found["weight_bits"] < 8 * found["weights"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mixed", "conv9=4"], "has no layer 'conv9' with weights; did you mean 'conv"),
        (["--mixed", "conv1=12"], "--mixed conv1: '12' bits are not supported; choose one of 4, 8 (weights), 16"),
        (["--mixed", "conv9=16"], "has no input or op 'conv9'; did you mean 'conv"),
        (["--activations", "4"], "'4' is not one of '8', '16'"),
        (["--mixed", "conv1"], "--mixed 'conv1' is neither LAYER=BITS, such as conv1=4, nor auto"),
        (["--mixed", "auto", "--weights", "4"], "--mixed auto chooses between 8 and 4 bits itself"),
        (["--method", "entropy"], "'entropy' is not one of"),
        (["--method", "percentile", "--percentile", "40"], "percentile must lie above 50"),
        (["--calib", "missing.npz"], "missing.npz: does not exist"),
        (["-o", "model.txt"], "model.txt: quantized models are written to files ending in .onnx"),
    ],
)
def test_mistakes_are_one_line_that_names_the_choice(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = quantize(folder, capsys, *arguments)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("dse: error: ")
    assert message in last


def test_the_model_itself_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "digits.onnx").read_bytes()
    code, _, err = quantize(folder, capsys, "-o", str(folder / "digits.onnx"))
    assert code == 2
    assert "is the model itself; name another file, such as digits.int8.onnx" in err
    assert (folder / "digits.onnx").read_bytes() == before


def test_samples_of_another_shape_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "wide.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    code, _, err = quantize(folder, capsys, "--calib", str(folder / "wide.npz"))
    assert code == 2
    assert "has shape [2, 3, 8, 8]" in err
    np.savez(folder / "wrong.npz", x=np.zeros((2, 1, 8, 8), np.float32), y=np.array([0, 10]))
    code, _, err = quantize(folder, capsys, "--data", str(folder / "wrong.npz"))
    assert code == 2
    assert "label 10 is not a class" in err


def test_front_ends_that_only_read_say_so(tmp_path: Path) -> None:
    front = ZooFrontend()
    with pytest.raises(UsageError, match="the zoo front end writes no files"):
        front.write(front.load("mlp", tmp_path, {}), tmp_path / "m.onnx")


# -- in a search ----------------------------------------------------------------------------------------------------


def search(folder: Path, workload: dict[str, Any], **changes: Any) -> Path:
    settings = {
        "space": {"hardware.weight_bits": [4, 8]}, "objectives": ["energy_uj", "accuracy"], "trials": 2, "batch": 2,
        **changes,
    }  # fmt: skip
    document = {
        "name": "digits",
        "workload": {"model": "digits.onnx", **workload},
        "accelerator": {"family": "systolic", "hardware": {"rows": 4, "columns": 4, "requantize": "ort"}},
        "search": settings,
        "emit": {"winners": 0},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_search_maximises_the_accuracy_that_quantize_prints(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = {"dataset": "test.npz", "calibration": {"file": "calib.npz", "method": "mse"}}
    config = search(folder, workload, constraints=["accuracy >= 0.5"])
    assert run_command_line(["run", str(config), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text().splitlines()]
    found = {row["values"]["hardware.weight_bits"]: row["summary"] for row in rows}
    capsys.readouterr()
    for bits in (4, 8):
        printed = figures(
            folder, capsys, "--method", "mse", "--weights", str(bits), "--data", str(folder / "test.npz")
        )["figures"]
        for name in ("accuracy", "sqnr_db", "top1_agreement"):
            assert found[bits][name] == pytest.approx(printed[name], abs=1e-5)


def test_another_data_set_is_another_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(folder / "test.npz") as stored:
        np.savez(folder / "other.npz", x=stored["x"], y=stored["y"])
        config = search(folder, {"dataset": "other.npz", "calibration": {"images": 4}}, trials=1)
        command = ["run", str(config), "--out", str(tmp_path / "run"), "--quiet"]
        assert run_command_line(command) == 0
        np.savez(folder / "other.npz", x=stored["x"][:50], y=stored["y"][:50])
    assert run_command_line([*command, "--resume"]) == 2
    assert "inputs.dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("workload", "changes", "message"),
    [
        ({}, {}, "search.objectives[1]: accuracy needs a data set with labels y: workload.dataset"),
        ({"dataset": "unlabelled.npz"}, {}, "search.objectives[1]: accuracy needs a data set with labels"),
        (
            {},
            {"objectives": ["cycles"], "constraints": ["accuracy >= 0.9"]},
            "search.constraints[0]: 'accuracy >= 0.9'",
        ),
        ({"dataset": "gone.npz"}, {}, "workload.dataset: "),
        ({"calibration": {"file": "gone.npz"}, "dataset": "test.npz"}, {}, "workload.calibration.file: "),
        ({"calibration": {"method": "max"}}, {}, "workload.calibration.method: "),
    ],
)
def test_configurations_that_cannot_measure_accuracy_are_refused_at_their_line(
    workload: dict[str, Any], changes: dict[str, Any], message: str, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code = run_command_line(["run", str(search(folder, workload, **changes)), "--out", str(tmp_path / "run")])
    assert code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "run.yaml:" in err


# -- 16 bits, and networks that no file holds -------------------------------------------------------------------------


def test_activations_of_16_bits_are_printed_written_and_refused_by_hardware(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = figures(folder, capsys, "--data", str(folder / "test.npz"))
    some = figures(folder, capsys, "--mixed", "conv1=16", "--mixed", "conv1=4", "--data", str(folder / "test.npz"))
    assert {(row["bits"], row["weight_bits"]) for row in some["layers"] if row["name"] == "conv1"} == {(16, 4)}
    assert {row["bits"] for row in some["layers"]} == {8, 16}
    wide = figures(folder, capsys, "--activations", "16", "--data", str(folder / "test.npz"))
    assert {row["bits"] for row in wide["layers"]} == {16}
    assert wide["figures"]["sqnr_db"] > narrow["figures"]["sqnr_db"] + 1
    with np.load(folder / "test.npz") as stored:
        images, labels = stored["x"], stored["y"]
    scores = logits_of(folder / "out.onnx", images)
    assert wide["figures"]["accuracy"] == pytest.approx((scores.argmax(axis=1) == labels).mean())
    for command in (["simulate", "--workload", str(folder / "out.onnx")], ["compile", str(folder / "out.onnx")]):
        assert run_command_line([*command, "--accelerator", "gemmini_16x16"]) != 0
        assert "bits of the activation of conv1 (conv): 16 bits" in capsys.readouterr().err.replace("\n", " ")


def test_a_recurrent_network_prints_json_and_says_that_no_file_can_hold_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from workloads.zoo.recurrent import build_gru_kws

    (tmp_path / "gru.onnx").write_bytes(build_gru_kws().SerializeToString())
    graph = ZooFrontend().load("gru_kws", tmp_path, {})
    shape = (6, *graph[graph.inputs[0]].shape[1:])
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    arguments = ["--calib", str(tmp_path / "x.npz"), "-o", str(tmp_path / "out.onnx"), "--json"]
    assert run_command_line(["quantize", str(tmp_path / "gru.onnx"), *arguments]) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["output"] is None
    assert document["figures"]["sqnr_db"] > 10
    assert "has no integer form in ONNX" in captured.err
    assert not (tmp_path / "out.onnx").exists()
