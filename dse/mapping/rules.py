"""From the rules of a user to the constraints of one search: of a layer's dims, with contradictions refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from dse.arch import Arch
from dse.arch.rules import Rules
from dse.core.errors import UsageError, nearest
from dse.mapping.problem import Problem
from dse.mapping.spatial import Constraints, divisors


def check_rules(rules: Rules, arch: Arch, dims: Collection[str]) -> None:
    """Refuse names that do not exist and roles that contradict each other.

    Parameters
    ----------
    dims
        Those of all layers.

    Raises
    ------
    UsageError: names the rule and the nearest valid choice.
    """
    axes, levels = [axis.name for axis in arch.axes], {level.name: level for level in arch.levels}
    for names, known, what in (
        (rules.axes, axes, f"an axis of {arch.name}"),
        (rules.levels, levels, f"a level of {arch.name}"),
        (rules.dims, dims, "a dim of any layer"),
    ):
        for name in sorted(names - set(known)):
            raise UsageError(f"constraint: {name!r} is not {what}{nearest(name, known)}")
    for name, role in rules.stationary.items():
        if role not in levels[name].holds or role in rules.bypass.get(name, ()):
            raise UsageError(f"constraint: the {role} cannot be stationary in level {name!r}, which does not take it")
        others = sorted(rules.keep.get(name, frozenset()) - {role})
        if others:
            raise UsageError(f"constraint: level {name!r} cannot keep the {others[0]} with only the {role} stationary")


def constraints_of(rules: Rules, problem: Problem, arch: Arch) -> Constraints:
    """The constraints of one layer's search.

    Raises
    ------
    UsageError: the layer cannot obey; names layer, axis, dim and the nearest units that divide.
    """
    live = {dim: bound for dim, bound in zip(problem.dims, problem.bounds, strict=True) if bound > 1}
    size = {axis.name: axis.size for axis in arch.axes}
    bypass = {name: frozenset(roles) for name, roles in rules.bypass.items()}
    for name, role in rules.stationary.items():
        holds = next(level.holds for level in arch.levels if level.name == name)
        bypass[name] = bypass.get(name, frozenset()) | (frozenset(holds) - {role})
    require = {name: frozenset(dims & live.keys()) for name, dims in rules.require.items()}
    most = {name: dict(factors) for name, factors in rules.most.items()}
    for name, dims in require.items():
        _check_required(rules, problem, name, dims, live, size[name])
    return Constraints(
        only=rules.only,
        forbid=rules.forbid,
        unroll={name: {d: n for d, n in factors.items() if d in live} for name, factors in rules.unroll.items()},
        keep={name: frozenset(roles) for name, roles in rules.keep.items()},
        bypass=bypass,
        loops={name: frozenset(dims & set(problem.dims)) for name, dims in rules.loops.items()},
        order={
            name: tuple(tuple(d for d in order if d in problem.dims) for order in orders)
            for name, orders in rules.order.items()
        },
        require=require,
        most=most,
    )


def _check_required(
    rules: Rules, problem: Problem, axis: str, dims: frozenset[str], live: Mapping[str, int], size: int
) -> None:
    least = {}
    for dim in sorted(dims):
        if dim in rules.forbid.get(axis, ()) or dim not in rules.only.get(axis, {dim}):
            raise UsageError(f"constraint: {dim} is both required and not allowed on axis {axis!r}")
        most = min(size, rules.most.get(axis, {}).get(dim, size))
        units = [n for n in divisors(live[dim]) if n > 1]
        if units[0] > most:
            raise UsageError(
                f"constraint: {problem.name} has {live[dim]} iterations of {dim}, which must run on axis {axis!r} with "
                f"at most {most} units; the fewest that divide them are {units[0]}"
            )
        least[dim] = units[0]
    if math.prod(least.values()) > size:
        raise UsageError(
            f"constraint: {problem.name} needs {math.prod(least.values())} units of axis {axis!r} for "
            f"{', '.join(least)} together, which has {size}"
        )
