"""The best mapping of every layer of a network on an architecture given as data, and what may rest between layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dse.arch import Arch
from dse.arch.rules import Rules
from dse.core.errors import UsageError, nearest
from dse.ir import Graph
from dse.mapping import CountMode, Problem, Solution
from dse.mapping.density import ROLES, Sparsity
from dse.mapping.layers import LayerMapper, PartMapping
from dse.mapping.nests import MAPPED_KINDS, unmapped
from dse.mapping.network import network_energy_pj
from dse.mapping.residency import Plan, plan_of
from dse.mapping.residency_search import Residency, best_residency, nothing_rests
from dse.mapping.rules import check_rules

__all__ = ["MAPPED_KINDS", "LayerMapping", "NetworkMapping", "map_network"]


@dataclass(frozen=True)
class LayerMapping:
    """One part of an op with the best mapping; `same_as` names an earlier layer of equal shape, or is empty."""

    op: str
    kind: str
    part: PartMapping
    same_as: str

    @property
    def name(self) -> str:
        """The op, with the part's label where it has several."""
        return f"{self.op} {self.part.part.label}".rstrip()

    @property
    def problem(self) -> Problem:
        return self.part.part.problem

    @property
    def solution(self) -> Solution:
        return self.part.solution

    @property
    def repeat(self) -> int:
        """How often the mapping runs in one inference."""
        return self.part.part.repeat

    @property
    def macs(self) -> int:
        return self.repeat * self.problem.macs


@dataclass(frozen=True)
class NetworkMapping:
    """All mapped layers in order of execution, each alone: tensors start and end in the outermost level.

    `unmapped` counts other ops by kind. `plan`, `alone` and `resting` are given when residency was asked for: the
    network's steps with nothing resting, and with what rests where.
    """

    arch: Arch
    objective: str
    mode: CountMode
    layers: tuple[LayerMapping, ...]
    unmapped: Mapping[str, int]
    plan: Plan | None = None
    alone: Residency | None = None
    resting: Residency | None = None

    @property
    def energy_pj(self) -> float:
        return math.fsum(layer.part.energy_pj for layer in self.layers)

    @property
    def network_pj(self) -> float:
        """Energy of hops along the axes, beside `energy_pj`; the search does not see it."""
        if all(axis.hop_pj == 0 for axis in self.arch.axes):
            return 0.0
        return math.fsum(
            layer.repeat * math.fsum(network_energy_pj(layer.problem, self.arch, layer.solution.mapping).values())
            for layer in self.layers
        )

    @property
    def cycles(self) -> int:
        return sum(layer.part.cycles for layer in self.layers)

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def gap(self) -> float:
        """The largest gap of a layer; 0 when every mapping is proven optimal."""
        return max(layer.solution.gap for layer in self.layers)


def map_network(
    graph: Graph,
    arch: Arch,
    objective: str,
    *,
    mode: CountMode = "native",
    rules: Rules | None = None,
    sparsity: Sparsity | None = None,
    search_bypass: bool = False,
    residency: bool = False,
    steady: bool = False,
    advance: Callable[[str], None] | None = None,
) -> NetworkMapping:
    """Map every op that multiplies and accumulates; layers of equal shape are searched once.

    Parameters
    ----------
    rules
        Beside those of the architecture, whose place they take where both name the same.
    sparsity
        Densities of tensors; dense unless given.
    residency
        Also decide which tensors rest on the chip between layers; `steady`: and whether all weights stay there.
    advance
        Told the name of each op when it is mapped.

    Raises
    ------
    ModelError: the network has nothing to map, or a nest that is not supported.
    UsageError, InfeasibleError, ConfigError: as `best_mapping`, and rules that cannot be obeyed.
    """
    sparse = sparsity or Sparsity()
    _check_tensors(sparse, graph)
    mapper = LayerMapper(
        arch, objective, mode=mode, rules=arch.constraints.joined(rules or Rules()), search_bypass=search_bypass,
        sparsity=sparse,
    )  # fmt: skip
    plan = plan_of(graph, mapper)
    check_rules(
        mapper.rules, arch, {d for s in plan.steps for way in s.ways for part in way for d in part.problem.dims}
    )
    alone = nothing_rests(plan, mapper, advance)
    layers: list[LayerMapping] = []
    known: dict[object, str] = {}
    for step in alone.steps:
        for part in step.parts:
            layer = LayerMapping(step.step.op, step.step.kind, part, "")
            before = known.setdefault((part.part.problem.canonical(), part.part.repeat, part.kept_at), layer.name)
            layers.append(layer if before == layer.name else LayerMapping(layer.op, layer.kind, part, before))
    result = NetworkMapping(arch, objective, mode, tuple(layers), unmapped(graph))
    if not residency:
        return result
    return NetworkMapping(
        arch, objective, mode, result.layers, result.unmapped, plan, alone, best_residency(plan, mapper, steady=steady)
    )


def _check_tensors(sparsity: Sparsity, graph: Graph) -> None:
    for name in sparsity.density:
        if name not in ROLES and name not in graph.tensors:
            raise UsageError(
                f"density of {name!r}: neither {', '.join(ROLES)} nor a tensor of the network"
                f"{nearest(name, graph.tensors)}"
            )
