"""Samplers behind one small function: what proposes the next designs, re-made for every generation.

A sampler seeded from (seed, generation) holds no state of its own: what it proposes is a function of the trials told
so far. That is what makes a run repeatable for any number of workers and after any interruption.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import optuna

Sampler = Literal["auto", "nsga2", "tpe", "random"]

#: From here on NSGA-II: the cost of a TPE proposal grows with the trials told (7 ms on average over the first 400 at
#: 12 knobs and 4 objectives, against 1 ms for NSGA-II).
NSGA2_TRIALS = 1000
#: Optuna's own population size; ours is the next multiple of the batch, so that no batch straddles two generations.
NSGA2_POPULATION = 50


def sampler_kind(sampler: Sampler, trials: int) -> Literal["nsga2", "tpe", "random"]:
    """What "auto" stands for: NSGA-II from `NSGA2_TRIALS` trials on, multivariate TPE below."""
    if sampler == "auto":
        return "nsga2" if trials >= NSGA2_TRIALS else "tpe"
    return sampler


def generation_sampler(
    kind: Literal["nsga2", "tpe", "random"], *, seed: int, generation: int, batch: int
) -> optuna.samplers.BaseSampler:
    """The sampler of one generation: its seed is drawn from (seed, generation)."""
    state = int(np.random.SeedSequence([seed, generation]).generate_state(1)[0])
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=state)
    if kind == "nsga2":
        population = batch * max(1, math.ceil(NSGA2_POPULATION / batch))
        return optuna.samplers.NSGAIISampler(population_size=population, seed=state)
    with warnings.catch_warnings():
        # `multivariate` is still marked experimental; for several objectives it is 3.4 times cheaper than the default
        # and found more hypervolume on a four-objective toy (0.942 against 0.938; NSGA-II 0.877, random 0.885).
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=state)
