"""The wheel carries all of it: installed outside the checkout, presets, zoo and configurations are there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout by the build back end itself, without isolation."""
    pytest.importorskip("hatchling", reason="building a wheel without isolation needs hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import sys; from hatchling.build import build_wheel; sys.stdout.write(build_wheel({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked as pip would, away from the checkout."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def dse(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed package's entry point; the checkout is kept off the path, stray folders are not."""
    code = (
        "import sys\n"
        f"sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        f"sys.path.insert(1, {str(installed)!r})\n"
        # an editable install's path hook must not find the checkout either
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        f"sys.argv = ['dse', *{list(arguments)!r}]\n"
        "from dse.__main__ import main\n"
        f"import dse; assert dse.__file__.startswith({str(installed)!r}), dse.__file__\n"
        "main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_wheel_holds_the_three_packages_and_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    present = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert present == {"dse", "accelerators", "workloads"}
    for wanted in (
        "dse/_configs/edge.yaml",
        "dse/cli/starter/run.yaml",
        "dse/py.typed",
        "accelerators/systolic/presets/gemmini_16x16.yaml",
        "accelerators/systolic/presets/tpu_v1.yaml",
        "workloads/zoo/__init__.py",
    ):
        assert wanted in names
    points = next(name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(points).decode()
    assert "dse = dse.__main__:main" in text
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_nothing_shipped_names_a_machine_path() -> None:
    for path in [*ROOT.glob("configs/*.yaml"), *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / ".ci" / "run"]:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in ("home", "root", "work", "tmp") if f"/{word}/" in text], path


@pytest.mark.parametrize("stray", ["workloads", "accelerators"])
def test_installed_away_from_the_checkout_with_a_stray_package(installed: Path, tmp_path: Path, stray: str) -> None:
    (tmp_path / stray).mkdir()
    (tmp_path / stray / "__init__.py").write_text("raise SystemExit('stray package imported')\n")
    configs = dse(installed, tmp_path, "list", "configs")
    assert configs.returncode == 0, configs.stderr
    assert str(installed / "dse" / "_configs" / "edge.yaml") in configs.stdout
    presets = dse(installed, tmp_path, "list", "presets")
    assert presets.returncode == 0, presets.stderr
    assert {"gemmini_16x16", "tpu_v1"} <= set(presets.stdout.split())
    models = dse(installed, tmp_path, "list", "models")
    assert "zoo:resnet8" in models.stdout, models.stderr


@pytest.mark.slow
def test_the_installed_package_simulates_the_zoo_on_a_preset(installed: Path, tmp_path: Path) -> None:
    done = dse(installed, tmp_path, "simulate", "--workload", "zoo:resnet8", "--accelerator", "gemmini_16x16", "--json")
    assert done.returncode == 0, done.stderr
    layers = json.loads(done.stdout)["layers"]
    assert sum(layer["useful_macs"] for layer in layers) == 12_501_632


@pytest.mark.slow
def test_the_workers_of_a_run_ignore_a_stray_package_too(installed: Path, tmp_path: Path) -> None:
    for stray in ("workloads", "accelerators"):
        (tmp_path / stray).mkdir()
        (tmp_path / stray / "__init__.py").write_text("raise SystemExit('stray package imported')\n")
    arguments = (
        "workload.model=zoo:mlp",
        "search.trials=4",
        "search.batch=2",
        "search.constraints=[]",
        "emit.winners=0",
        "workload.calibration.images=4",
    )
    done = dse(installed, tmp_path, "run", "edge", *arguments, "--jobs", "2", "--quiet")
    assert done.returncode == 0, done.stderr
    assert not done.stdout
    assert json.loads((tmp_path / "runs" / "edge" / "pareto.json").read_text())["counts"]["simulated"] == 4
