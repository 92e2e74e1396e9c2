"""One network on one design: compile from shapes, simulate at a level, measure."""

from __future__ import annotations

from dataclasses import dataclass

from dse.compiler import prepare
from dse.core.errors import UsageError, nearest
from dse.flow.accelerator import Design
from dse.ir import Graph
from dse.metrics import Metrics
from dse.program.taskgraph import Timeline
from dse.sim import simulate_a, simulate_c

#: Timing levels of `simulate`, with what each is.
LEVELS = {"A": "closed forms and a compiled max-plus recurrence", "C": "discrete-event simulation (SimPy)"}


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation found.

    `timeline` is None when neither level C nor a trace asked for one: level A needs none for its metrics.
    """

    graph: Graph
    design: Design
    metrics: Metrics
    timeline: Timeline | None


def simulate(graph: Graph, design: Design, *, level: str = "A", with_timeline: bool = False) -> SimulationResult:
    """Time and cost of `graph` on `design`.

    Only shapes matter: weights need no values and activations no ranges.

    Parameters
    ----------
    level
        A key of `LEVELS`.
    with_timeline
        Keep start and end of every task, for a trace.

    Raises
    ------
    UsageError: the family does not offer the level.
    InfeasibleError: the design breaks a limit, or the network does not fit.
    ModelError: an op cannot be compiled.
    """
    offered = design.family.capabilities.levels
    if level not in LEVELS or level not in offered:
        choices = [item for item in offered if item in LEVELS]
        raise UsageError(f"level {level!r} is not offered by {design.family.name}{nearest(level, choices)}")
    design.require_buildable()
    executable = design.family.lower(prepare(graph), design.hw, design.decisions)
    if level == "A" and not with_timeline:
        return SimulationResult(graph, design, executable.estimate(), None)
    timeline = (simulate_c if level == "C" else simulate_a)(executable.task_graph())
    return SimulationResult(graph, design, executable.metrics(timeline), timeline)
