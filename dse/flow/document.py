"""What a run found, as plain data: `pareto.json`, the rows of `pareto.csv`, and all that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dse.config.models import MAXIMISED
from dse.flow.finish import FinishedWinner, winner_name
from dse.flow.identity import SCHEMA_VERSION, run_identity
from dse.flow.stages import Prepared
from dse.flow.trial_log import trial_row
from dse.search import SearchOutcome, Trial, Winner
from dse.search.space import HARDWARE


def counts(outcome: SearchOutcome) -> dict[str, int]:
    """Designs simulated, feasible and rejected by analytic limits; repeated proposals."""
    return {
        "simulated": outcome.simulated,
        "feasible": sum(trial.evaluation.feasible for trial in outcome.trials),
        "rejected": len(outcome.trials) - outcome.simulated,
        "repeats": outcome.repeats,
    }


def pareto_document(
    prepared: Prepared, outcome: SearchOutcome, front: Sequence[Trial], winners: Sequence[Winner]
) -> dict[str, Any]:
    """The contents of `pareto.json`: a function of configuration, network and program, without times."""
    return {
        "schema": SCHEMA_VERSION,
        "name": prepared.config.name,
        "objectives": _objectives(prepared),
        "constraints": [constraint.text for constraint in prepared.evaluator.constraints],
        "counts": counts(outcome),
        "front": [{key: row[key] for key in ("trial", "digest", "values", "summary")} for row in map(trial_row, front)],
        "winners": [
            {
                "name": winner_name(place, winner),
                "trial": winner.trial.number,
                "digest": winner.trial.evaluation.digest,
                "reason": winner.reason,
            }
            for place, winner in enumerate(winners)
        ],
    }


def pareto_rows(prepared: Prepared, front: Sequence[Trial]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of `pareto.csv`: knobs, objectives, then all other figures."""
    knobs = [knob.name for knob in prepared.space.knobs]
    figures = list(prepared.plan.objectives)
    if front:
        figures += sorted(set(front[0].evaluation.summary) - set(figures))
    rows = [
        [
            trial.number,
            trial.evaluation.digest,
            *(trial.evaluation.values[name] for name in knobs),
            *(trial.evaluation.summary[name] for name in figures),
        ]
        for trial in front
    ]
    return ["trial", "digest", *knobs, *figures], rows


def report_document(
    prepared: Prepared,
    outcome: SearchOutcome,
    front: Sequence[Trial],
    winners: Sequence[Winner],
    finished: Sequence[FinishedWinner],
) -> dict[str, Any]:
    """All that the page, the plots and `winners.json` show."""
    on_front = {trial.number for trial in front}
    family = prepared.design.family
    return {
        "name": prepared.config.name,
        "workload": prepared.config.workload.model,
        "network": {"name": prepared.graph.name, "macs": prepared.graph.macs, "parameters": prepared.graph.parameters},
        "family": {"name": family.name, "description": family.capabilities.description},
        "exact": family.capabilities.exact,
        "seed": prepared.plan.seed,
        "identity": run_identity(prepared.config, prepared.graph)["versions"],
        "objectives": _objectives(prepared),
        "constraints": [constraint.text for constraint in prepared.evaluator.constraints],
        "counts": counts(outcome),
        "knobs": [
            {"name": knob.name, "choices": list(knob.choices)}
            for knob in sorted(prepared.space.knobs, key=lambda knob: not knob.name.startswith(HARDWARE))
        ],
        "designs": [
            {**trial_row(trial), "front": trial.number in on_front}
            for trial in outcome.trials
            if trial.evaluation.summary
        ],
        "winners": [
            {
                "name": item.name,
                "reason": winner.reason,
                "trial": winner.trial.number,
                "digest": winner.trial.evaluation.digest,
                "values": dict(winner.trial.evaluation.values),
                "summary": dict(winner.trial.evaluation.summary),
                "hardware": item.hardware,
                "metrics": item.metrics,
                "cycles": {"A": item.cycles_a, "C": item.cycles_c},
                "rtl": item.rtl,
                "cases": list(item.cases),
            }
            for winner, item in zip(winners, finished, strict=True)
        ],
    }


def _objectives(prepared: Prepared) -> list[dict[str, Any]]:
    return [{"name": name, "maximised": name in MAXIMISED} for name in prepared.plan.objectives]
