"""From a point of the space to its figures: analytic limits first, then lowering and the level A estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dse.backend import Accelerator
from dse.config.expression import Constraint, ExpressionError, parse_constraint
from dse.config.marked_yaml import Marks
from dse.config.validation import at
from dse.core.errors import ConfigError, InfeasibleError, InvariantError, nearest
from dse.search.networks import Networks
from dse.search.space import DECISIONS, HARDWARE, SearchSpace, Values, digest

#: ok: keeps every limit. infeasible: found out by compiling or estimating. rejected: before that, analytically.
Status = Literal["ok", "infeasible", "rejected"]
#: Excesses are cut here: a sampler adds them up, and a bound of zero makes them arbitrarily large.
LARGEST_EXCESS = 1e9
#: Figures of `Metrics.summary()` that every family gives; accuracy figures come on top.
FIGURES = (
    "latency_ms", "energy_uj", "area_mm2", "power_mw", "cycles", "utilization", "gmacs_per_s", "memory_bytes",
    "sqnr_db", "accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What is known of one point.

    Parameters
    ----------
    values, digest
        The point and its name.
    status
        See `Status`.
    violations
        Broken limits with their excess relative to the bound (> 0).
    summary
        Headline figures by name; empty when the design was never estimated.
    """

    values: Values
    digest: str
    status: Status
    violations: Mapping[str, float] = field(default_factory=dict)
    summary: Mapping[str, float] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True)
class Evaluator:
    """Evaluates points of a space; picklable, built once and sent once to each worker.

    `constraints` are split by what they read: those over parameters alone are checked before anything is compiled.
    """

    family: Accelerator
    space: SearchSpace
    networks: Networks
    constraints: tuple[Constraint, ...] = ()

    def screen(self, values: Values) -> Evaluation | None:
        """The verdict when parameters alone already break a limit, else None. Takes microseconds."""
        try:
            hw, decisions = self.space.design(self.family, values)
        except InfeasibleError as error:
            return self._refused(values, "rejected", _excesses(error))
        broken = _largest((item.limit, item.excess) for item in self.family.check(hw))
        known = _parameters(hw, decisions.values)
        for constraint in self.constraints:
            if not _reads_figures(constraint):
                broken |= _broken(constraint, known)
        return self._refused(values, "rejected", broken) if broken else None

    def evaluate(self, values: Values) -> Evaluation:
        """All that is to know of a point; a design that breaks limits is a result, never an error.

        Raises
        ------
        ModelError: the family cannot lower an op of the network, whatever the design.
        """
        rejected = self.screen(values)
        if rejected is not None:
            return rejected
        hw, decisions = self.space.design(self.family, values)
        try:
            network = self.networks.get(self.family.numerics(hw))
            metrics = self.family.lower(network.graph, hw, decisions).estimate()
        except InfeasibleError as error:
            return self._refused(values, "infeasible", _excesses(error))
        summary = {**metrics.summary(), **network.accuracy}
        for name, figure in summary.items():
            if not math.isfinite(figure):
                raise InvariantError(f"{name} of the design {dict(values)} is {figure}")
        known = {**_parameters(hw, decisions.values), **summary}
        broken: dict[str, float] = {}
        for constraint in self.constraints:
            if _reads_figures(constraint):
                broken |= _broken(constraint, known)
        return Evaluation(dict(values), digest(values), "infeasible" if broken else "ok", broken, summary)

    def _refused(self, values: Values, status: Status, broken: Mapping[str, float]) -> Evaluation:
        return Evaluation(dict(values), digest(values), status, dict(broken))


def parse_constraints(family: Accelerator, texts: Sequence[str], marks: Marks) -> tuple[Constraint, ...]:
    """Constraints whose every name is a numeric hardware parameter, a decision or a figure.

    Raises
    ------
    ConfigError: a name is unknown; the nearest known one is named.
    """
    fields = set(family.hardware_model.model_fields)
    known = fields | {HARDWARE + name for name in fields} | set(FIGURES)
    known |= {DECISIONS + name for name in family.decision_defaults()}
    constraints = []
    for index, text in enumerate(texts):
        path = ("search", "constraints", index)
        try:
            constraint = parse_constraint(text)
        except ExpressionError as error:
            raise at(path, marks, str(error)) from error
        for name in sorted(constraint.names - known):
            message = f"{text!r} reads {name!r}, which is neither a parameter nor a figure{nearest(name, known)}"
            raise at(path, marks, message)
        constraints.append(constraint)
    return tuple(constraints)


def _reads_figures(constraint: Constraint) -> bool:
    return not constraint.names.isdisjoint(FIGURES)


def _parameters(hw: Any, decisions: Mapping[str, Any]) -> dict[str, Any]:
    return {**hw.model_dump(), **{DECISIONS + name: value for name, value in decisions.items()}}


def _broken(constraint: Constraint, known: Mapping[str, Any]) -> dict[str, float]:
    try:
        excess = constraint.violation(known)
    except ExpressionError as error:
        raise ConfigError(f"constraint {constraint.text!r} cannot be computed: {error}") from error
    return {constraint.text: min(excess, LARGEST_EXCESS)} if excess > 0 else {}


def _excesses(error: InfeasibleError) -> dict[str, float]:
    return _largest((item.limit, item.excess) for item in error.violations) or {str(error): 1.0}


def _largest(items: Any) -> dict[str, float]:
    """The largest excess of each limit; a limit may be broken in several layers."""
    largest: dict[str, float] = {}
    for name, excess in items:
        largest[name] = min(max(excess, largest.get(name, 0.0)), LARGEST_EXCESS)
    return largest
