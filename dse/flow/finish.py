"""What becomes of a winner: time confirmed by level C, hardware emitted and verified on layers of the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse.backend import RtlUnavailable
from dse.compiler import calibration_images
from dse.core.errors import EXIT_BUG, DseError, InvariantError
from dse.flow.accelerator import Design
from dse.flow.emit import emit_component, write_design
from dse.flow.verify import VerifiedCase, verify_program, verify_winner
from dse.ir import Graph
from dse.ir.quantized import quantize_input
from dse.ir.reference import run_quantized
from dse.program.executable import Executable
from dse.search import Evaluator, Winner
from dse.search.pool import worker_pool
from dse.search.space import Values
from dse.sim import simulate_c


class VerificationError(DseError):
    """Emitted hardware does not do what was predicted: a fault of ours, not of the configuration."""

    exit_code = EXIT_BUG


@dataclass(frozen=True)
class FinishTask:
    """One winner to finish; picklable.

    `folder` receives its hardware; `image_seed` chooses the image its layers are verified on.
    """

    name: str
    values: Values
    evaluator: Evaluator
    folder: Path
    verify: bool
    image_seed: int


@dataclass(frozen=True)
class FinishedWinner:
    """A winner with all that is known of it.

    Parameters
    ----------
    metrics
        `Metrics.to_dict` at level A.
    cycles_a, cycles_c
        Of the whole network; equal, or finishing would have failed.
    hardware
        All parameters of the design.
    rtl
        Why there is no hardware; empty when there is.
    cases
        One row a verified piece: outputs, mismatches, cycles by A, C and RTL.
    lines
        What to tell while finishing.
    """

    name: str
    metrics: dict[str, Any]
    cycles_a: int
    cycles_c: int
    hardware: dict[str, Any]
    rtl: str = ""
    cases: tuple[dict[str, Any], ...] = ()
    lines: tuple[str, ...] = field(default=(), compare=False)

    @property
    def failed(self) -> list[str]:
        """Pieces whose hardware differs from prediction or reference."""
        return [str(case["name"]) for case in self.cases if not case["passed"]]


def winner_name(place: int, winner: Winner) -> str:
    """Folder name of a winner: its place and the digest of its design."""
    return f"{place + 1}_{winner.trial.evaluation.digest}"


def finish_winners(
    winners: Sequence[Winner], evaluator: Evaluator, folder: Path, *, verify: bool, image_seed: int, jobs: int
) -> Iterator[FinishedWinner]:
    """Confirm, emit and verify each winner, in order; what an earlier run emitted is replaced.

    Raises
    ------
    InvariantError: level C does not confirm level A.
    """
    shutil.rmtree(folder, ignore_errors=True)
    tasks = [
        FinishTask(name, winner.trial.evaluation.values, evaluator, folder / name, verify, image_seed)
        for name, winner in ((winner_name(place, winner), winner) for place, winner in enumerate(winners))
    ]
    with worker_pool(min(jobs, len(tasks))) as run_all:
        yield from run_all(finish_winner, tasks)


def finish_winner(task: FinishTask) -> FinishedWinner:
    """Confirm, emit and verify one winner.

    Raises
    ------
    InvariantError: level C does not confirm level A.
    """
    evaluator = task.evaluator
    family = evaluator.family
    hw, decisions = evaluator.space.design(family, task.values)
    executable = family.lower(evaluator.networks.get(family.numerics(hw)).graph, hw, decisions)
    metrics = executable.estimate()
    timeline = simulate_c(executable.task_graph())
    if timeline.total_cycles != metrics.cycles:
        raise InvariantError(f"{task.name}: level A gives {metrics.cycles} cycles, level C {timeline.total_cycles}")
    lines = [f"{task.name}: {metrics.cycles} cycles at level A and at level C"]
    rtl, cases = _hardware(task, Design(family, hw, decisions), executable, lines)
    return FinishedWinner(
        task.name,
        metrics.to_dict(),
        metrics.cycles,
        timeline.total_cycles,
        hw.model_dump(mode="json"),
        rtl,
        tuple(case.row() for case in cases),
        tuple(lines),
    )


def _hardware(
    task: FinishTask, design: Design, executable: Executable, lines: list[str]
) -> tuple[str, list[VerifiedCase]]:
    """Emit the hardware, verified on its cases or, where there are none, as it is; the reason when there is none.

    The component is made once: verification emits it with a testbench, and one made for nothing but to be asked
    about would be reported by Amaranth as unused.
    """
    family, hw, _ = design
    gap = family.rtl_gap(executable)
    if task.verify and family.capabilities.rtl and gap is None:
        values = {} if family.own_arithmetic else _reference(task, design)
        cases = verify_winner(family, executable, values, task.folder, lines.append)
        if cases:
            write_design(design, task.folder)
            return "", cases
    component = gap or family.rtl(hw)
    if isinstance(component, RtlUnavailable):
        lines.append(f"{task.name}: no hardware emitted: {component.reason}")
        if family.own_arithmetic or not (task.verify and family.capabilities.rtl):
            return component.reason, []
        return component.reason, [verify_program(executable, _reference(task, design), task.folder, lines.append)]
    emit_component(design, component, task.folder)
    return "", []


def _reference(task: FinishTask, design: Design) -> dict[str, Any]:
    """The tensors that a winner's hardware is held against."""
    numerics = design.family.numerics(design.hw)
    return reference_values(task.evaluator.networks.get(numerics).graph, numerics.requantize, task.image_seed)


def reference_values(graph: Graph, mode: str, seed: int) -> dict[str, Any]:
    """Every tensor of a reference run on one seeded image, by name."""
    images = calibration_images(graph, 1, seed)
    inputs = {name: quantize_input(graph, name, image) for name, image in images.items()}
    return {**inputs, **run_quantized(graph, inputs, mode, keep=True)}
