"""Starting: nothing heavy is imported for help, and nothing of the working folder is imported at all."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from dse.__main__ import drop_working_folder

HEAVY = (
    "numpy", "scipy", "optuna", "matplotlib", "amaranth", "onnx", "numba", "simpy", "pydantic", "yaml", "rich",
    "accelerators", "workloads",
)  # fmt: skip


def python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["run", "-h"], ["simulate", "-h"], ["lst"]])
def test_help_imports_no_heavy_module(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from dse.cli.main import run_command_line\n"
        f"run_command_line({arguments!r})\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_python_m_dse_and_version_work(tmp_path: Path) -> None:
    done = python("-m", "dse", "--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip() == f"dse {importlib.metadata.version('silicon-dse')}"


def test_the_file_itself_can_be_started(tmp_path: Path) -> None:
    done = python(str(Path(__file__).parents[2] / "dse" / "__main__.py"), "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["workloads", "accelerators"])
def test_a_stray_package_in_the_working_folder_is_not_imported(tmp_path: Path, package: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise SystemExit('the stray package was imported')\n")
    for what in ("models", "accelerators"):
        done = python("-m", "dse", "list", what, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "stray" not in done.stdout + done.stderr


def test_only_the_working_folder_and_the_script_folder_are_dropped(tmp_path: Path) -> None:
    home, site, here, scripts = (tmp_path / name for name in ("home", "site", "here", "scripts"))
    path = ["", str(here), str(site), str(home), str(scripts), "relative"]
    assert drop_working_folder(path, home, here, scripts) == [str(site), str(home), "relative"]
    # standing in the checkout of an editable install: its entry is how dse is found at all
    assert drop_working_folder(["", str(home), str(site)], home, home, scripts) == ["", str(home), str(site)]


def test_help_is_there_for_every_command() -> None:
    from dse.cli.main import COMMANDS

    code = (
        "from dse.cli.main import run_command_line\n"
        f"assert not any(run_command_line([name, '-h']) for name in {list(COMMANDS)!r})\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: dse ") == len(COMMANDS)


def test_shell_completion_offers_commands() -> None:
    code = (
        "import os\n"
        "os.environ.update(_DSE_COMPLETE='bash_complete', COMP_WORDS='dse s', COMP_CWORD='1')\n"
        "from dse.cli.main import run_command_line\n"
        "run_command_line([])\n"
    )
    words = python("-c", code).stdout
    assert "plain,simulate" in words
    assert "plain,show" in words
    assert "plain,run" not in words
