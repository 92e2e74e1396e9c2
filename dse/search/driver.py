"""The search loop: barrier-batched ask and tell.

A generation asks the sampler for `batch` new designs, evaluates them in any order on any number of workers, and tells
the results in trial order. So the outcome depends on seed and batch size and on nothing else.

Resume is a replay: the loop starts again from its first generation, with the recorded evaluations at hand. The
sampler then proposes what it proposed before (1 ms a design with NSGA-II; what is saved are evaluations of 40 ms), and
the run goes on where the record ends. An Optuna journal would be a second record, which a crash can leave in
disagreement with ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from dse.config.models import MAXIMISED
from dse.core.errors import UsageError, nearest
from dse.search.evaluate import Evaluation, Evaluator
from dse.search.samplers import Sampler, generation_sampler, sampler_kind
from dse.search.space import SearchSpace, Values, digest

#: Proposals a generation may spend on each design it wants: repeats and analytic rejections cost no simulation, but a
#: space that is nearly used up must not keep the sampler asking for ever.
PROPOSALS_PER_DESIGN = 10
#: Objective value told for a design that has no figures. Samplers rank infeasible trials by their constraint alone.
NO_FIGURE = 1e30

#: Evaluates points, results in the order given.
EvaluationMap = Callable[[Sequence[Values]], Iterator[Evaluation]]


@dataclass(frozen=True)
class SearchPlan:
    """How to search: `trials` designs to simulate in batches of `batch`; objectives are figures of the summary."""

    objectives: tuple[str, ...]
    trials: int
    batch: int
    sampler: Sampler = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """A numbered evaluation; numbers follow the order in which designs were proposed."""

    number: int
    evaluation: Evaluation


@dataclass
class SearchOutcome:
    """All trials in order, and how often a known design was proposed again."""

    trials: list[Trial] = field(default_factory=list)
    repeats: int = 0

    @property
    def simulated(self) -> int:
        """Distinct designs that passed the analytic limits."""
        return sum(trial.evaluation.status != "rejected" for trial in self.trials)


def search(
    space: SearchSpace,
    evaluator: Evaluator,
    plan: SearchPlan,
    *,
    evaluate: EvaluationMap,
    known: Mapping[str, Evaluation],
    on_batch: Callable[[Sequence[Trial]], None],
) -> SearchOutcome:
    """Search `space`.

    Parameters
    ----------
    evaluator
        Screens proposals in this process.
    evaluate
        Evaluates the survivors; see `dse.search.pool`.
    known
        Evaluations by digest that need not be done again.
    on_batch
        Called with the trials of each generation, in order, once all are evaluated.
    """
    outcome = SearchOutcome()
    kind = sampler_kind(plan.sampler)
    with _quiet_optuna():
        study = optuna.create_study(directions=["minimize"] * len(plan.objectives))
        generation = _Generations(study, space, evaluator, plan, outcome)
        for index in range(math.ceil(plan.trials / plan.batch)):
            study.sampler = generation_sampler(kind, seed=plan.seed, generation=index, batch=plan.batch)
            wanted = min(plan.batch, plan.trials - index * plan.batch)
            proposed = generation.propose(wanted)
            fresh = [item for item in proposed if item.verdict is None]
            missing = [item.values for item in fresh if item.digest not in known]
            results = {result.digest: result for result in evaluate(missing)} if missing else {}
            for item in fresh:
                item.verdict = results.get(item.digest) or known[item.digest]
                _tell(study, item.trial, item.verdict, plan.objectives)
            first = len(outcome.trials)
            batch = [Trial(first + offset, item.evaluation) for offset, item in enumerate(proposed)]
            outcome.trials += batch
            on_batch(batch)
            if len(generation.seen) == space.size:
                break
    return outcome


@dataclass
class _Proposal:
    trial: optuna.Trial
    values: Values
    digest: str
    verdict: Evaluation | None

    @property
    def evaluation(self) -> Evaluation:
        assert self.verdict is not None
        return self.verdict


class _Generations:
    """Asks for the designs of one generation after the other, remembering what was proposed before."""

    def __init__(
        self, study: optuna.Study, space: SearchSpace, evaluator: Evaluator, plan: SearchPlan, outcome: SearchOutcome
    ) -> None:
        self.study, self.space, self.evaluator, self.plan, self.outcome = study, space, evaluator, plan, outcome
        self.distributions = space.distributions()
        self.seen: set[str] = set()

    def propose(self, wanted: int) -> list[_Proposal]:
        """Up to `wanted` new designs to simulate, and between them those that analytic limits reject.

        A rejection is told at once, so that the sampler learns from it within the generation. A repeat is
        dropped from the study: told again it would weigh double. It stays running until the generation ends,
        which keeps TPE (constant liar) from proposing it over and over.
        """
        proposed: list[_Proposal] = []
        repeats: list[optuna.Trial] = []
        fresh = 0
        for _ in range(PROPOSALS_PER_DESIGN * wanted):
            if fresh == wanted or len(self.seen) == self.space.size:
                break
            trial = self.study.ask(self.distributions)
            values = self.space.values(trial.params)
            name = digest(values)
            if name in self.seen:
                repeats.append(trial)
                continue
            self.seen.add(name)
            verdict = self.evaluator.screen(values)
            if verdict is None:
                fresh += 1
            else:
                _tell(self.study, trial, verdict, self.plan.objectives)
            proposed.append(_Proposal(trial, values, name, verdict))
        for trial in repeats:
            self.study.tell(trial, state=TrialState.FAIL)
        self.outcome.repeats += len(repeats)
        return proposed


def _tell(study: optuna.Study, trial: optuna.Trial, evaluation: Evaluation, objectives: Sequence[str]) -> None:
    """One constraint holds the sum of all excesses: the samplers add them up in any case."""
    trial.set_constraint("limits", math.fsum(evaluation.violations[name] for name in sorted(evaluation.violations)))
    study.tell(
        trial, minimised(evaluation.summary, objectives) if evaluation.summary else [NO_FIGURE] * len(objectives)
    )


def minimised(summary: Mapping[str, Any], objectives: Sequence[str]) -> list[float]:
    """Objective values of a summary, smaller is better: maximised figures are negated.

    Raises
    ------
    UsageError: the family's designs have no such figure.
    """
    for name in objectives:
        if name not in summary:
            raise UsageError(f"search.objectives: {name!r} is not a figure of these designs{nearest(name, summary)}")
    return [-summary[name] if name in MAXIMISED else summary[name] for name in objectives]


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna's announcements off while we search; the user's level comes back."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
