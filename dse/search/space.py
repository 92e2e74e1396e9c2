"""The space a search moves in: knobs with their choices, around one fixed design.

A point of the space is a mapping knob -> choice, such as {"hardware.rows": 8, "decisions.gather": True}. Optuna
only ever sees indices into the choices, so that any JSON value can be a choice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from pydantic import ValidationError

from dse.backend import Accelerator, Decisions, Knob
from dse.config.marked_yaml import Marks
from dse.config.validation import at, validate_choices
from dse.core.errors import InfeasibleError, Violation, nearest

#: A point of the space: knob name -> choice.
Values = Mapping[str, Any]

HARDWARE, DECISIONS = "hardware.", "decisions."


@dataclass(frozen=True)
class SearchSpace:
    """Knobs (each with two choices or more, in name order) and the design that holds all other parameters.

    `hardware` and `decisions` give the fixed values by bare name; a knob overrules them.
    """

    knobs: tuple[Knob, ...]
    hardware: Mapping[str, Any]
    decisions: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Points of the space, feasible or not; 1 when nothing is searched."""
        return math.prod(len(knob.choices) for knob in self.knobs)

    def distributions(self) -> dict[str, BaseDistribution]:
        """One Optuna distribution a knob, over indices: integers where neighbours are alike, else categories."""
        return {
            knob.name: IntDistribution(0, len(knob.choices) - 1)
            if knob.ordered
            else CategoricalDistribution(tuple(range(len(knob.choices))))
            for knob in self.knobs
        }

    def values(self, indices: Mapping[str, int]) -> dict[str, Any]:
        """The choices behind Optuna's indices, in name order."""
        return {knob.name: knob.choices[indices[knob.name]] for knob in self.knobs}

    def design(self, family: Accelerator, values: Values) -> tuple[Any, Decisions]:
        """The hardware (an instance of `family.hardware_model`) and the decisions of one point.

        Raises
        ------
        InfeasibleError: the hardware model refuses this combination of parameters.
        """
        hardware = {**self.hardware, **_scope(values, HARDWARE)}
        try:
            hw = family.hardware_model.model_validate(hardware)
        except ValidationError as error:
            limits = [
                Violation(".".join(map(str, item["loc"])) or item["msg"], 1.0, 0.5, "", item["msg"])
                for item in error.errors()
            ]
            raise InfeasibleError(family.name, limits) from error
        return hw, Decisions({**self.decisions, **_scope(values, DECISIONS)})


def digest(values: Values) -> str:
    """Twelve hex digits that name a point, equal for equal values in any order."""
    text = json.dumps(dict(values), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build_space(
    family: Accelerator,
    *,
    hardware: Mapping[str, Any],
    decisions: Mapping[str, Any],
    choices: Mapping[str, Sequence[Any]] | None,
    marks: Marks,
) -> SearchSpace:
    """The space of a run.

    Parameters
    ----------
    hardware, decisions
        The design the search starts from, by bare name; hardware is complete up to the model's defaults.
    choices
        Choices by knob as the configuration gives them: any parameter or decision of the family may be turned;
        those left out stay fixed. Empty: every knob the family offers, with its own choices. None: nothing is
        searched.
    marks
        Where the choices were written, for messages.

    Raises
    ------
    ConfigError: a key is no knob (the nearest is named), or a choice lies outside its parameter's bounds.
    """
    offered = {knob.name: knob for knob in family.space()}
    if choices is None:
        return SearchSpace((), dict(hardware), dict(decisions))
    wanted = choices or {name: knob.choices for name, knob in offered.items()}
    known = {HARDWARE + name for name in family.hardware_model.model_fields}
    known |= {DECISIONS + name for name in family.decision_defaults()} | set(offered)
    fixed_hardware, fixed_decisions = dict(hardware), dict(decisions)
    knobs = []
    for name in sorted(wanted):
        path = ("search", "space", name)
        if name not in known:
            raise at(path, marks, f"is not a knob of the family {family.name!r}{nearest(name, known)}")
        knob = _knob(name, wanted[name], offered.get(name))
        if name.startswith(HARDWARE):
            validate_choices(family.hardware_model, name, knob.choices, marks, path)
        if len(knob.choices) > 1:
            knobs.append(knob)
        elif name.startswith(HARDWARE):
            fixed_hardware[name.removeprefix(HARDWARE)] = knob.choices[0]
        else:
            fixed_decisions[name.removeprefix(DECISIONS)] = knob.choices[0]
    return SearchSpace(tuple(knobs), fixed_hardware, fixed_decisions)


def _scope(values: Values, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _knob(name: str, choices: Sequence[Any], offered: Knob | None) -> Knob:
    """Numbers are sorted, so that the samplers see neighbours as neighbours."""
    numeric = all(isinstance(choice, (int, float)) and not isinstance(choice, bool) for choice in choices)
    ordered = offered.ordered if offered is not None else numeric
    kept = sorted(choices) if numeric else choices
    return Knob(name, tuple(kept), ordered=ordered)
