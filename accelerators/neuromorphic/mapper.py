"""Search of a mapping: cores of each layer, order of its slices, places; the cost model decides.

Annealing over plans with the price of `recost` (simple message timing), moves aimed at what binds: the layer whose
slice ends most steps gets cores, another gives some up, a layer changes its order. The best plans are then placed and
judged by the full cost model, message queues included. Deterministic for a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from accelerators.neuromorphic.blocks import ORDERS, BlockPlan, plan_mapping
from accelerators.neuromorphic.cost import Cost, cost_of
from accelerators.neuromorphic.mapping import message_table
from accelerators.neuromorphic.placement import PLACEMENTS, place_plan
from accelerators.neuromorphic.prices import static_mw
from accelerators.neuromorphic.recost import Recost, Recoster
from dse.core.errors import InfeasibleError

#: Plans of the search that the full cost model judges.
FINALISTS = 6
#: Start and end of the temperature, relative to the price.
_HOT, _COLD = 0.08, 0.002


@dataclass(frozen=True)
class Found:
    """A mapping that a search found: the plan, its energy-delay product in J s, plans priced and judged."""

    plan: BlockPlan
    edp: float
    priced: int
    judged: int


def edp_of(cost: Cost, leakage_mw: float) -> float:
    """Energy with leakage times time, in J s."""
    seconds = cost.total_ps * 1e-12
    return (cost.total_fj * 1e-15 + leakage_mw * 1e-3 * seconds) * seconds


def judge(recoster: Recoster, plan: BlockPlan) -> Cost:
    """A plan under the full cost model.

    Raises
    ------
    InfeasibleError: the emitted mesh, where it is to give the time, does not take the plan.
    """
    mapping = plan_mapping(recoster.network, plan)
    messages = message_table(recoster.compiled, mapping, recoster.hw.cores)
    cost = cost_of(recoster.network, recoster.activity, mapping, messages, recoster.hw, recoster.prices)
    if recoster.hw.messages != "emitted":
        return cost
    from accelerators.neuromorphic.emitted import emitted_cost, mesh_program

    return emitted_cost(cost, mesh_program(recoster.network, mapping, recoster.hw), recoster.activity)


def search_mapping(
    recoster: Recoster, start: BlockPlan, moves: int, *, placement: str = "traffic", seed: int = 0
) -> Found:
    """The best plan found.

    Parameters
    ----------
    start
        A plan that fits; the result is never worse under the full cost model.
    moves
        Plans to price.
    placement
        One of `placement.PLACEMENTS`, or "best": each is tried for the finalists.
    """
    pool = _annealed(recoster, start, moves, np.random.default_rng(seed))
    finalists = sorted(pool, key=lambda plan: (pool[plan], repr(plan)))[:FINALISTS]
    leakage = sum(static_mw(recoster.hw).values())
    best, best_edp, judged = start, edp_of(judge(recoster, start), leakage), 1
    for plan in finalists:
        for name in PLACEMENTS if placement == "best" else (placement,):
            candidate = place_plan(plan, name, recoster)
            try:
                edp = edp_of(judge(recoster, candidate), leakage)
            except InfeasibleError:
                continue  # a lane's padding fills a synapse memory that the search took for large enough
            judged += 1
            if edp < best_edp:
                best, best_edp = candidate, edp
    return Found(best, best_edp, len(pool), judged)


def _annealed(recoster: Recoster, start: BlockPlan, moves: int, rng: np.random.Generator) -> dict[BlockPlan, float]:
    """Prices of all plans visited."""
    now, price = start, recoster.price(start)
    pool = {start: price.edp}
    cooling = (_COLD / _HOT) ** (1 / max(1, moves))
    temperature = _HOT
    for _ in range(moves):
        temperature *= cooling
        candidate = _moved(recoster, now, price, rng)
        if candidate is None:
            continue
        found = recoster.price(candidate)
        pool[candidate] = found.edp
        change = math.log(found.edp / price.edp) if price.edp and found.edp else found.edp - price.edp
        if change <= 0 or rng.random() < math.exp(-change / temperature):
            now, price = candidate, found
    return pool


def _moved(recoster: Recoster, plan: BlockPlan, price: Recost, rng: np.random.Generator) -> BlockPlan | None:
    """A plan near by that fits, or None."""
    slices, orders = list(plan.slices), list(plan.orders)
    layer = _binding_layer(plan, price, rng) if rng.random() < 0.5 else int(rng.integers(len(slices)))
    kind = rng.random()
    if kind < 0.25:
        orders[layer] = str(rng.choice(ORDERS))
    else:
        step = max(1, round(slices[layer] * float(rng.choice([0.05, 0.15, 0.3, 0.6]))))
        slices[layer] += step if kind < 0.75 else -step
        slices[layer] = min(max(1, slices[layer]), recoster.network.populations[layer].size)
        # a full chip gives from elsewhere what this layer takes
        while sum(slices) > recoster.hw.cores:
            others = [index for index, count in enumerate(slices) if count > 1 and index != layer]
            giver = int(rng.choice(others)) if others else layer
            slices[giver] -= min(slices[giver] - 1, sum(slices) - recoster.hw.cores)
            if not others:
                break
    moved = replace(plan, slices=tuple(slices), orders=tuple(orders), places=())
    return moved if moved != plan and sum(slices) <= recoster.hw.cores and recoster.fits(moved) else None


def _binding_layer(plan: BlockPlan, price: Recost, rng: np.random.Generator) -> int:
    """The layer of the slice that ends a step picked at random, long steps more often."""
    busy = np.maximum(price.gaps, price.receives)
    longest = busy.max(axis=1)
    if not longest.sum():
        return int(rng.integers(len(plan.slices)))
    step = int(rng.choice(len(longest), p=longest / longest.sum()))
    slice_index = int(busy[step].argmax())
    return int(np.searchsorted(plan.first, slice_index, side="right")) - 1
