"""Design-space search: the space, the evaluation of one design, the batched Optuna loop, choice of winners."""

from dse.search.driver import SearchOutcome, SearchPlan, Trial, search
from dse.search.evaluate import Evaluation, Evaluator
from dse.search.networks import FloatNetworks, Network, QuantizedNetworks
from dse.search.pool import evaluation_map
from dse.search.space import SearchSpace, build_space
from dse.search.winners import Winner, choose_winners, pareto_trials

__all__ = [
    "Evaluation",
    "Evaluator",
    "FloatNetworks",
    "Network",
    "QuantizedNetworks",
    "SearchOutcome",
    "SearchPlan",
    "SearchSpace",
    "Trial",
    "Winner",
    "build_space",
    "choose_winners",
    "evaluation_map",
    "pareto_trials",
    "search",
]
