"""The best mapping of every layer of a network on an architecture given as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dse.arch import Arch
from dse.core.errors import ModelError, UsageError, nearest
from dse.ir import Graph, loop_nest
from dse.mapping import Constraints, CountMode, Problem, Solution, access_energy, best_mapping, problem_of
from dse.mapping.network import network_energy_pj

#: Op kinds that have a loop nest; others are not mapped.
MAPPED_KINDS = ("conv", "gemm")


@dataclass(frozen=True)
class LayerMapping:
    """One op with its problem and the best mapping; `same_as` names an earlier op of equal shape, or is empty."""

    op: str
    kind: str
    problem: Problem
    solution: Solution
    same_as: str


@dataclass(frozen=True)
class NetworkMapping:
    """All mapped layers in order of execution; `unmapped` counts other ops by kind."""

    arch: Arch
    objective: str
    mode: CountMode
    layers: tuple[LayerMapping, ...]
    unmapped: dict[str, int]

    @property
    def energy_pj(self) -> float:
        return math.fsum(layer.solution.cost.energy_pj for layer in self.layers)

    @property
    def network_pj(self) -> float:
        """Energy of hops along the axes, beside `energy_pj`; the search does not see it."""
        if all(axis.hop_pj == 0 for axis in self.arch.axes):
            return 0.0
        mapped = ((layer.problem, layer.solution.mapping) for layer in self.layers)
        return math.fsum(math.fsum(network_energy_pj(p, self.arch, m).values()) for p, m in mapped)

    @property
    def cycles(self) -> int:
        return sum(layer.solution.cost.cycles for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.problem.macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: totals, and per layer the mapping, cost and traffic per level and tensor."""
        return {
            "accelerator": self.arch.name,
            "objective": self.objective,
            "mode": self.mode,
            "energy_pj": self.energy_pj,
            "network_pj": self.network_pj,
            "cycles": self.cycles,
            "macs": self.macs,
            "unmapped": self.unmapped,
            "layers": [_layer_dict(layer) for layer in self.layers],
        }


def map_network(
    graph: Graph,
    arch: Arch,
    objective: str,
    *,
    mode: CountMode = "native",
    constraints: Constraints | None = None,
    search_bypass: bool = False,
    advance: Callable[[str], None] | None = None,
) -> NetworkMapping:
    """Map every conv and gemm of a network; layers of equal shape are searched once.

    Every layer is a problem of its own: tensors start and end in the outermost level.

    Parameters
    ----------
    advance
        Told the name of each op when it is mapped.

    Raises
    ------
    ModelError: the network has nothing to map.
    UsageError, InfeasibleError, ConfigError: as `best_mapping`.
    """
    prices = access_energy(arch)
    nests = {op.name: loop_nest(graph, op) for op in graph.ops if op.kind in MAPPED_KINDS}
    if not nests:
        raise ModelError(f"{graph.source or graph.name}: has no {' or '.join(MAPPED_KINDS)} to map")
    _check_dims(constraints or Constraints(), {dim for nest in nests.values() for dim in nest.bounds})
    known: dict[object, LayerMapping] = {}
    layers: list[LayerMapping] = []
    unmapped: dict[str, int] = {}
    for op in graph.ops:
        if op.kind not in MAPPED_KINDS:
            unmapped[op.kind] = unmapped.get(op.kind, 0) + 1
            continue
        problem = problem_of(nests[op.name], dense=mode == "native")
        before = known.get(problem.canonical())
        if before is None:
            solution = best_mapping(
                problem, arch, objective, mode=mode, constraints=constraints, search_bypass=search_bypass, energy=prices
            )
            layer = LayerMapping(op.name, op.kind, problem, solution, "")
            known[problem.canonical()] = layer
        else:
            layer = LayerMapping(op.name, op.kind, problem, _renamed(before, problem), before.op)
        layers.append(layer)
        if advance is not None:
            advance(op.name)
    return NetworkMapping(arch, objective, mode, tuple(layers), unmapped)


def _check_dims(constraints: Constraints, known: set[str]) -> None:
    """Refuse a dim that no layer has; a single layer may lack one (a dense layer has no window)."""
    for dims in (*constraints.only.values(), *constraints.forbid.values()):
        for dim in sorted(dims - known):
            raise UsageError(f"constraint: {dim!r} is not a dim of any layer{nearest(dim, known)}")


def _renamed(before: LayerMapping, problem: Problem) -> Solution:
    """The earlier solution with this layer's tensor names."""
    names = {old.name: new.name for old, new in zip(before.problem.tensors, problem.tensors, strict=True)}
    cost = before.solution.cost
    traffic = tuple(replace(item, tensor=names[item.tensor]) for item in cost.traffic)
    return replace(before.solution, cost=replace(cost, traffic=traffic))


def _layer_dict(layer: LayerMapping) -> dict[str, Any]:
    cost, mapping = layer.solution.cost, layer.solution.mapping
    return {
        "name": layer.op,
        "kind": layer.kind,
        "same_as": layer.same_as or None,
        "bounds": dict(zip(layer.problem.dims, layer.problem.bounds, strict=True)),
        "value": layer.solution.value,
        "gap": layer.solution.gap,
        "cycles": cost.cycles,
        "compute_cycles": cost.compute_cycles,
        "limit": cost.limit,
        "utilization": cost.utilization,
        "energy_pj": cost.energy_pj,
        "mac_energy_pj": cost.mac_energy_pj,
        "temporal": [
            {"level": part.level, "loops": [list(loop) for loop in part.loops], "bypass": sorted(part.bypass)}
            for part in mapping.temporal
        ],
        "spatial": {axis: [list(loop) for loop in loops] for axis, loops in mapping.spatial.items()},
        "traffic": [
            {
                "level": item.level, "tensor": item.tensor, "role": item.role, "tile_words": item.tile_words,
                "instances": item.instances, "reads": item.reads, "fills": item.fills, "updates": item.updates,
                "energy_pj": item.energy_pj,
            }
            for item in cost.traffic
        ],
    }  # fmt: skip
