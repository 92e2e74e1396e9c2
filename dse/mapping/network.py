"""Energy of handing words from unit to unit, which the cost of a mapping leaves out: hops along the spatial axes.

A word that leaves a level passes the axes below it from the outermost inwards. Along an axis on which copies share
it, it runs past every unit in use; along one on which they do not, past half of them on average. Results that an axis
sums up move one unit on at every addition. A hop costs the axis's `hop_pj` a bit.
"""

from __future__ import annotations

import math
from itertools import pairwise

from dse.arch import Arch
from dse.mapping.cost import element_bits
from dse.mapping.loops import Nest, nest_of
from dse.mapping.mapping import Mapping
from dse.mapping.movement import movement
from dse.mapping.problem import Problem


def network_energy_pj(problem: Problem, arch: Arch, mapping: Mapping) -> dict[str, float]:
    """Energy of hops by tensor, in pJ, both ways for outputs; 0 where every axis has `hop_pj` 0.

    Raises
    ------
    UsageError: the mapping does not belong to problem and architecture.
    """
    nest = nest_of(problem, arch, mapping)
    return {access.name: _tensor(nest, number) for number, access in enumerate(problem.tensors)}


def _tensor(nest: Nest, tensor: int) -> float:
    access = nest.problem.tensors[tensor]
    keepers = [*nest.keepers(tensor), len(nest.arch.levels)]
    total = 0.0
    for parent, child in pairwise(keepers):
        moved = movement(nest, tensor, parent, child)
        along = _axes_between(nest, tensor, parent, child)
        if access.role == "output":
            # sums of every unit but the first of a chain go one unit on; what leaves the chain runs to the level
            total += (moved.into - moved.sent) * min((axis[0] for axis in along if axis[2] > 1), default=0.0)
            total += moved.sent * _path(along, merged=False)
        else:
            total += moved.sent * _path(along, merged=True)
    return total * element_bits(nest.arch, access)


def _axes_between(nest: Nest, tensor: int, parent: int, child: int) -> list[tuple[float, int, int]]:
    """(pJ a bit and hop, units in use, copies that share a word) of each axis between two levels."""
    access = nest.problem.tensors[tensor]
    found = []
    for index, axis in enumerate(nest.arch.axes):
        loops = [loop for loop in nest.outside(child) if loop.axis == index and not loop.temporal]
        loops = [loop for loop in loops if loop.level >= parent]
        used = math.prod(loop.count for loop in loops)
        shares = axis.reduces if access.role == "output" else access.role in axis.multicast
        copies = math.prod(loop.count for loop in loops if loop.dim not in access.dims) if shares else 1
        found.append((axis.hop_pj, used, copies))
    return found


def _path(along: list[tuple[float, int, int]], *, merged: bool) -> float:
    """pJ a bit of one word's way: the whole axis where copies share it, half of it where not; a branch each copy."""
    energy, branches = 0.0, 1
    for hop, used, copies in along:
        energy += branches * hop * (used if merged and copies > 1 else used / 2 if used > 1 else 0)
        branches *= copies if merged else 1
    return energy
