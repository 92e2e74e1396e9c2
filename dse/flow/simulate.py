"""One network on one design: compile from shapes, simulate at a level, measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dse.compiler import prepare, require_activation_bits
from dse.core.errors import UsageError, nearest
from dse.flow.accelerator import Design
from dse.ir import Graph
from dse.metrics import Metrics
from dse.program.taskgraph import TaskGraph, Timeline
from dse.sim import simulate_a, simulate_b, simulate_c

#: Timing levels of `simulate`, with what each is.
LEVELS = {
    "A": "closed forms and a compiled max-plus recurrence",
    "B": "compiled event loop, shared resources included",
    "C": "discrete-event simulation (SimPy)",
}
SIMULATORS: Mapping[str, Callable[[TaskGraph], Timeline]] = {"A": simulate_a, "B": simulate_b, "C": simulate_c}


@dataclass(frozen=True)
class SimulationResult:
    """What a simulation found.

    `timeline` is None when neither level B or C nor a trace asked for one: level A needs none for its metrics.
    """

    graph: Graph
    design: Design
    metrics: Metrics
    timeline: Timeline | None


def offered_levels(design: Design) -> tuple[str, ...]:
    """Levels of `LEVELS` for a design: its family's, and B wherever C is, since both play the same task graph."""
    own = design.family.capabilities.levels
    return tuple(level for level in LEVELS if level in own or (level == "B" and "C" in own))


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
    choices = offered_levels(design)
    if level not in choices:
        raise UsageError(f"level {level!r} is not offered by {design.family.name}{nearest(level, choices)}")
    design.require_buildable()
    prepared = prepare(graph)
    require_activation_bits(prepared, design.family.numerics(design.hw).activation_bits, design.family.name)
    executable = design.family.lower(prepared, design.hw, design.decisions)
    if level == "A" and not with_timeline:
        return SimulationResult(graph, design, executable.estimate(), None)
    timeline = SIMULATORS[level](executable.task_graph())
    return SimulationResult(graph, design, executable.metrics(timeline), timeline)
