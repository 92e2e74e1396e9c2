"""Which layers to fuse: chains are cut so that, by level A, the network moves least and is not slower.

Single layers and fused groups are compiled as they would be in the program and simulated by level A; both give exact
cycles, since a step runs from start to done. Every chain is cut for the least cycles + weight * bytes, with the weights
of a fixed ladder; of these cuttings one per chain is taken, so that the network moves little and takes no more cycles
than without fusion. Chains that fusion makes faster pay for those that move less in more cycles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from accelerators.systolic.fusion import FusedGroup, GroupPlan, plan_group
from accelerators.systolic.fusion_emit import GroupEmitter
from accelerators.systolic.fusion_loads import GroupImage
from accelerators.systolic.keys import LayerKey, MachineKey
from accelerators.systolic.layer import Layer
from accelerators.systolic.layer_price import layer_price, stand_in, step_price
from accelerators.systolic.partition import Partition
from accelerators.systolic.tiling import Tiling
from accelerators.systolic.timing_graph import RESTART_CYCLES
from accelerators.systolic.work import Fused, Price, Work, reads_of
from dse.ir import Graph
from dse.program.tile.program import Machine

#: Longest chain that becomes one group: an inverted residual behind a stem has four layers.
MAX_LAYERS = 4
#: Stripe heights tried, as parts of the output height; the largest that fit are priced.
_PARTS = (1, 2, 3, 4, 6, 7, 8, 12, 14, 16, 28, 56)
_MAX_HEIGHTS = 4
#: Cycles that a byte of traffic may cost, tried from the largest.
_WEIGHTS = (*(2.0**-power for power in range(16)), 0.0)


#: Of a layer whose program outgrows descriptor memory; `lower` refuses it by name if it stays alone.
_IMPOSSIBLE = Price(1 << 50, 0)


def fuse(graph: Graph, parts: Partition, machine: Machine, tiling: Callable[[Layer], Tiling]) -> tuple[Work, ...]:
    """The work of a partition with chains of layers fused where that pays.

    Parameters
    ----------
    tiling
        The tiling that a layer has on its own.
    """
    chains = _chains(graph, parts)
    options = [_options(chain, machine, tiling) for chain in chains]
    chosen = within_budget(
        [
            [_cut(chain, option, machine, tiling, weight) for weight in (None, *_WEIGHTS)]
            for chain, option in zip(chains, options, strict=True)
        ]
    )
    replaced: dict[str, list[Work]] = {
        chain[0].output: list(cut.items) for chain, cut in zip(chains, chosen, strict=True)
    }
    members = {layer.output for chain in chains for layer in chain[1:]}
    result: list[Work] = []
    for item in parts.work:
        if item.output in replaced:
            result += replaced[item.output]
        elif item.output not in members:
            result.append(item)
    return tuple(result)


def _chains(graph: Graph, parts: Partition) -> list[list[Layer]]:
    """Longest runs of adjacent layers of one image of which each alone reads the one before; at least two each."""
    readers: dict[str, int] = {}
    for item in parts.work:
        for name in reads_of(item):
            readers[name] = readers.get(name, 0) + 1
    for name in graph.outputs:
        owner = parts.source.get(name, name)
        readers[owner] = readers.get(owner, 0) + 1
    chains: list[list[Layer]] = []
    for item in parts.work:
        # a dense layer of one row is a convolution over a map of one pixel
        if not isinstance(item, Layer) or item.batch != 1 or (item.image_step and item.height != 1):
            chains.append([])
            continue
        last = chains[-1][-1] if chains and chains[-1] else None
        joined = last is not None and item.input == last.output and readers.get(last.output) == 1
        if joined and last is not None and last.add is None and item.residual != last.output:
            chains[-1].append(item)
        else:
            chains.append([item])
    return [chain for chain in chains if len(chain) > 1]


def _options(
    chain: Sequence[Layer], machine: Machine, tiling: Callable[[Layer], Tiling]
) -> Mapping[tuple[int, int], tuple[Fused, ...]]:
    """Plans worth considering for every part [first, end) of a chain, with their prices."""
    result = {}
    for first in range(len(chain)):
        for end in range(first + 2, min(first + MAX_LAYERS, len(chain)) + 1):
            layers = tuple(chain[first:end])
            keys = tuple(LayerKey(layer) for layer in layers)
            plans = _priced_plans(keys, MachineKey(machine), tiling(layers[0]))
            group = FusedGroup(layers)
            # plans are cached by shape: names and tensors are this group's own
            result[first, end] = tuple(Fused(group, plan.of(group), price) for plan, price in plans)
    return result


@lru_cache(maxsize=4096)
def _priced_plans(
    keys: tuple[LayerKey, ...], machine_key: MachineKey, first_tiling: Tiling
) -> tuple[tuple[GroupPlan, Price], ...]:
    machine = machine_key.machine
    group = FusedGroup(tuple(key.layer for key in keys))
    height = group.layers[-1].out_height
    found: list[tuple[GroupPlan, Price]] = []
    heights = 0
    for part in dict.fromkeys(-(-height // part) for part in _PARTS if part <= height):
        plans: list[GroupPlan] = []
        for rolling in (True, False) if part < height else (False,):
            for resident in (True, False):
                plan = plan_group(group, machine, first_tiling.reduction, part, resident=resident, rolling=rolling)
                if plan is not None:
                    plans.append(plan)
                    break
            if plans and not plans[-1].rolling:
                # nothing is shared between stripes: computing it twice is the same plan
                break
        priced = [(plan, price) for plan in plans if (price := _group_price(plan, machine)) is not None]
        found += priced
        heights += bool(priced)
        if heights == _MAX_HEIGHTS:
            break
    return tuple(found)


def _group_price(plan: GroupPlan, machine: Machine) -> Price | None:
    """Price of a fused group; None when it cannot be encoded."""
    group = plan.group
    last = group.layers[-1]
    image = GroupImage(
        stand_in(group.layers[0].in_channels, group.layers[0].height, group.layers[0].width),
        stand_in(last.out_channels, last.out_height, last.out_width),
        stand_in(last.out_channels, last.out_height, last.out_width) if last.residual else None,
        [0] * len(group.layers), 0, [0] * len(group.layers),
        [{}] * (len(group.layers) - 1) + [{"add": 1, "add_shift": 1} if last.add else {}],
    )  # fmt: skip
    return step_price(GroupEmitter(plan, machine, image, 0).emit(), machine)


@dataclass(frozen=True)
class Cutting:
    """A chain, or its beginning, cut into work items; `cost` is cycles + weight * bytes."""

    cost: float
    cycles: int
    bytes: int
    items: tuple[Work, ...]


def within_budget(cuttings: Sequence[Sequence[Cutting]]) -> list[Cutting]:
    """One cutting per chain, of those given, the first of which is without fusion: least bytes for no more cycles.

    Starts from the fastest of every chain; then, again and again, takes the step of one chain that saves most bytes
    per cycle and still fits the cycles that are left. A knapsack by its greedy rule: near the least, not proven least.
    """
    budget = sum(options[0].cycles for options in cuttings)
    chosen = [min(options, key=lambda cut: (cut.cycles, cut.bytes)) for options in cuttings]
    while True:
        left = budget - sum(cut.cycles for cut in chosen)
        steps = [
            ((now.bytes - cut.bytes) / (cut.cycles - now.cycles or 1), index, cut)
            for index, (now, options) in enumerate(zip(chosen, cuttings, strict=True))
            for cut in options
            if cut.bytes < now.bytes and cut.cycles - now.cycles <= left
        ]
        if not steps:
            return chosen
        _, index, cut = max(steps, key=lambda step: step[0])
        chosen[index] = cut


def _cut(
    chain: Sequence[Layer],
    options: Mapping[tuple[int, int], tuple[Fused, ...]],
    machine: Machine,
    tiling: Callable[[Layer], Tiling],
    weight: float | None,
) -> Cutting:
    """The best cutting of a chain for cycles + `weight` * bytes; no fusion when `weight` is None."""
    best = [Cutting(0.0, 0, 0, ())]
    for end in range(1, len(chain) + 1):
        layer = chain[end - 1]
        single = layer_price(LayerKey(layer), MachineKey(machine), tiling(layer))
        candidates = [_extended(best[end - 1], layer, single or _IMPOSSIBLE, weight or 0.0)]
        if weight is not None:
            for first in range(max(0, end - MAX_LAYERS), end - 1):
                candidates += [_extended(best[first], fused, fused.price, weight) for fused in options[first, end]]
        best.append(min(candidates, key=lambda cut: (cut.cost, cut.cycles)))
    return best[-1]


def _extended(state: Cutting, item: Work, price: Price, weight: float) -> Cutting:
    cycles = price.cycles + RESTART_CYCLES
    return Cutting(
        state.cost + cycles + weight * price.bytes, state.cycles + cycles, state.bytes + price.bytes,
        (*state.items, item),
    )  # fmt: skip
