"""Weight prefetch across steps: the first weights and the parameters of a step arrive during the step before it.

A rewrite of finished steps. The scratchpads keep their contents from `done` to the next `start`, so the loads that a
step begins with may stand at the end of the load queue of the step before, where the load engine has nothing left to
do while the array computes. The step that gives waits until no matmul of its own reads those words any more; the step
that takes has a SYNC in place of the weights, its halves swapped where the free half asks for that, and its parameters
behind those of the step before. A boundary is rewritten only if level A finds the two steps faster together, so a
program is never slower. `prefetch_queues` takes the queues apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from accelerators.systolic.prefetch_queues import (
    Queues,
    appended,
    first_loads,
    parameter_span,
    swapped,
    take_loads,
    waits_for,
    with_parameters_at,
)
from accelerators.systolic.timing_graph import program_graph
from dse.program.tile.isa import MemoryId
from dse.program.tile.program import HostStep, Machine, TileProgram, TileStep
from dse.sim import simulate_a

#: Note of a step: bytes of its constants that the step before it loads.
TAKEN = "prefetched_bytes"


@dataclass(frozen=True)
class _Pair:
    """Both queues of a boundary after a rewrite, and the bytes that moved from the second to the first."""

    giver: Queues
    taker: Queues
    moved: int


def prefetch(steps: Sequence[TileStep | HostStep], machine: Machine) -> tuple[TileStep | HostStep, ...]:
    """The steps with every boundary rewritten at which that saves cycles.

    Host operations between two tile steps do not stand in the way: they touch no scratchpad.
    """
    result = list(steps)
    giver: int | None = None
    cycles: dict[int, int] = {}
    for index, step in enumerate(steps):
        if not isinstance(step, TileStep):
            continue
        if giver is not None:
            _boundary(result, giver, index, machine, cycles)
        giver = index
    return tuple(result)


def _boundary(
    steps: list[TileStep | HostStep], giver: int, taker: int, machine: Machine, cycles: dict[int, int]
) -> None:
    """Rewrite the boundary of two tile steps in place, if one of the ways to do it saves cycles."""
    before, after = steps[giver], steps[taker]
    assert isinstance(before, TileStep)
    assert isinstance(after, TileStep)
    for index, step in ((giver, before), (taker, after)):
        if index not in cycles:
            cycles[index] = _cycles(step.queues, machine)
    best = cycles[giver] + cycles[taker]
    for pair in _pairs(before.queues, after.queues, machine):
        found = _cycles(pair.giver, machine), _cycles(pair.taker, machine)
        if sum(found) < best:
            best = sum(found)
            cycles[giver], cycles[taker] = found
            notes = {**after.notes, TAKEN: pair.moved}
            if "mapping" in notes:
                notes["mapping"] = f"{notes['mapping']}, prefetched"
            steps[giver] = replace(before, queues=pair.giver)
            steps[taker] = replace(after, queues=pair.taker, notes=notes)


def _pairs(before: Queues, after: Queues, machine: Machine) -> list[_Pair]:
    """Rewrites of a boundary that fit: weights in the half that is free sooner, parameters where there is room."""
    loads = first_loads(after)
    if loads is None:
        return []
    moved = parameters = None
    if loads.parameters:
        moved = _free_parameters(before, after, machine)
    pairs = []
    for flip in (False, True):
        taker = swapped(after, machine) if flip else after
        if taker is None:
            continue
        found = first_loads(taker)
        assert found is not None
        wait = waits_for(before, found.weights, machine) if found.weights is not None else None
        if found.weights is not None and wait is None:
            continue
        parameters = moved is not None
        if not parameters and found.weights is None:
            continue
        if parameters and moved is not None:
            taker = with_parameters_at(taker, moved, machine)
        rest, taken = take_loads(taker, parameters=parameters)
        giver = appended(before, taken, wait or 0)
        if max(map(len, (*giver.values(), *rest.values()))) <= machine.descriptors:
            size = sum(d["n0"] * d["n1"] * d["n2"] * d["run_bytes"] for d in taken)
            pairs.append((wait or 0, _Pair(giver, rest, size)))
    # the half that needs fewer matmuls of the step before to end comes first
    return [pair for _, pair in sorted(pairs, key=lambda item: item[0])]


def _free_parameters(before: Queues, after: Queues, machine: Machine) -> int | None:
    """First word where a step's parameters can lie beside those of the step before; None when they do not fit."""
    used, wanted = parameter_span(before, machine), parameter_span(after, machine)
    if wanted is None:
        return None
    size = wanted[1] - wanted[0]
    if used is None or used[1] + size <= machine.words[MemoryId.PARAMETER]:
        return used[1] if used is not None else wanted[0]
    return 0 if size <= used[0] else None


def _cycles(queues: Mapping[str, object], machine: Machine) -> int:
    """Cycles of a step from start to done."""
    step = TileStep("", (), queues, 0, 0)  # type: ignore[arg-type]
    return simulate_a(program_graph(TileProgram(machine, (step,), {}, 0, None))).total_cycles
