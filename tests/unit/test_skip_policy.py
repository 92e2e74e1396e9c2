"""Where every tool must be there, a skip is a failure; absent reference data still skips."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pytest

def test_passes(): pass
def test_missing_tool(): pytest.skip("verilator is not installed")
def test_missing_data(): pytest.skip("the shared reference data is absent")
def test_missing_network(): pytest.skip("optional trained network a.onnx: pip install --no-deps a")
@pytest.mark.skipif(True, reason="no compiler")
def test_marked(): pass
@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure(): assert False
"""
MODULE = 'import pytest\npytest.skip("no browser", allow_module_level=True)\n'


@pytest.mark.parametrize(
    ("required", "outcome", "code"),
    [("0", "1 passed, 5 skipped, 1 xfailed", 0), ("1", "1 failed, 1 passed, 2 skipped, 1 xfailed, 2 errors", 1)],
)
def test_skips_become_failures_only_where_tools_are_required(
    tmp_path: Path, required: str, outcome: str, code: int
) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "test_module.py").write_text(MODULE)
    environment = {**os.environ, "DSE_REQUIRE_TOOLS": required, "PYTEST_ADDOPTS": ""}
    arguments = ["-p", "no:cacheprovider", "--continue-on-collection-errors", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert outcome in done.stdout, done.stdout
    assert done.returncode == code
