"""Verification of a winner: pieces of the real network on its RTL, bit for bit and cycle for cycle.

Each piece is compiled by the family's own `lower`; its program runs in the interpreter and on the RTL, its time comes
from level A, level C and the RTL. A difference of one bit or one cycle is reported as a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.backend import Accelerator, RtlUnavailable, VerificationCase
from dse.program.executable import Executable
from dse.program.tile.listing import listing
from dse.sim import simulate_a, simulate_c


@dataclass(frozen=True)
class VerifiedCase:
    """One piece on one design: do the values agree, do the cycles agree. None where a design has no RTL."""

    name: str
    outputs: int
    mismatches_interpreter: int
    mismatches_rtl: int | None
    cycles_a: int
    cycles_c: int
    cycles_rtl: int | None

    @property
    def passed(self) -> bool:
        """Bit-exact in every execution there is, and one number of cycles from all."""
        exact = self.mismatches_interpreter == 0 and self.mismatches_rtl in (0, None)
        return exact and self.cycles_a == self.cycles_c and self.cycles_rtl in (self.cycles_a, None)

    def row(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "passed": self.passed}


def verify_case(family: Accelerator, case: VerificationCase) -> VerifiedCase:
    """Run one piece through interpreter, level A, level C and RTL."""
    graph = case.executable.task_graph()
    values = case.executable.run(case.inputs)
    hardware = family.run_rtl(case.executable, case.inputs)
    return VerifiedCase(
        name=case.name,
        outputs=sum(int(np.asarray(value).size) for value in case.expected.values()),
        mismatches_interpreter=_mismatches(values, case.expected),
        mismatches_rtl=_mismatches(hardware.outputs, case.expected),
        cycles_a=simulate_a(graph).total_cycles,
        cycles_c=simulate_c(graph).total_cycles,
        cycles_rtl=hardware.cycles,
    )


def _mismatches(values: Mapping[str, Any], expected: Mapping[str, npt.NDArray[Any]]) -> int:
    return sum(int((np.asarray(values[name]) != wanted).sum()) for name, wanted in expected.items())


def verify_winner(
    family: Accelerator,
    executable: Executable,
    values: Mapping[str, npt.NDArray[Any]],
    folder: Path,
    report: Callable[[str], None],
) -> list[VerifiedCase]:
    """Verify a winner on pieces of the network it was found for; saves each piece's descriptor listing.

    Parameters
    ----------
    family, executable
        The winner on the whole network.
    values
        All tensors of the reference run by name.
    folder
        Receives `descriptors/PIECE.txt`, the Verilog and a self-checking testbench with the pieces as vectors.
    report
        Called with one line per piece.

    Returns
    -------
    One VerifiedCase per piece; empty when the family has none to offer.
    """
    results = []
    cases = family.verification_cases(executable, values)
    if cases:
        family.emit(executable, cases, folder)
    for case in cases:
        save_listing(case, folder / "descriptors")
        result = verify_case(family, case)
        verdict = "ok" if result.passed else "FAILED"
        report(
            f"{case.name}: {result.outputs} outputs, {result.mismatches_rtl} differ; cycles "
            f"A {result.cycles_a} = C {result.cycles_c} = RTL {result.cycles_rtl}: {verdict}"
        )
        results.append(result)
    return results


def verify_program(
    executable: Executable, values: Mapping[str, npt.NDArray[Any]], folder: Path, report: Callable[[str], None]
) -> VerifiedCase:
    """Verify a winner without RTL: its program for the whole network in the interpreter, its time at levels A and C.

    Parameters
    ----------
    executable
        The winner on the whole network.
    values
        All tensors of the reference run by name, its inputs among them.
    folder
        Receives the descriptor listing.
    report
        Called with one line.
    """
    outputs = executable.run(values)
    expected = {name: values[name] for name in outputs}
    case = VerificationCase("whole network", executable, values, expected)
    save_listing(case, folder / "descriptors")
    graph = executable.task_graph()
    result = VerifiedCase(
        name=case.name,
        outputs=sum(int(np.asarray(value).size) for value in expected.values()),
        mismatches_interpreter=_mismatches(outputs, expected),
        mismatches_rtl=None,
        cycles_a=simulate_a(graph).total_cycles,
        cycles_c=simulate_c(graph).total_cycles,
        cycles_rtl=None,
    )
    verdict = "ok" if result.passed else "FAILED"
    report(
        f"{result.name}: {result.outputs} outputs of the program in the interpreter, {result.mismatches_interpreter} "
        f"differ; cycles A {result.cycles_a} = C {result.cycles_c}: {verdict}"
    )
    return result


def save_listing(case: VerificationCase, folder: Path) -> None:
    """Write the descriptor listing of a tile program, one file per piece."""
    program = getattr(case.executable, "program", None)
    if program is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(listing(step) for step in program.tile_steps)
    name = "".join(c if c.isalnum() else "_" for c in case.name)
    (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


def rtl_reason(family: Accelerator, hw: Any) -> str | None:
    """Why a design has no RTL, or None when it has."""
    component = family.rtl(hw)
    return component.reason if isinstance(component, RtlUnavailable) else None
