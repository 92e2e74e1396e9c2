"""Sparsity as densities: what zeros spare in transfers, in accesses of the compute units, in MACs and in cycles.

Zeros are taken to be independent and evenly spread. Operands that `gate` or `skip` are looked at in that order; where
one is zero, operands behind it are not read, nothing is multiplied and no sum is touched. Gating leaves the cycle
idle, skipping also takes it out. A read that an axis shares among copies is spared only when none of them needs it,
and so is a sum that an axis reduces.

Source of the mechanism: Sparseloop (arXiv 2205.05826), where these are representation formats, gating and skipping
under a uniform density model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dse.arch import Arch
from dse.core.errors import UsageError, nearest
from dse.mapping.energy import AccessEnergy
from dse.mapping.loops import Nest
from dse.mapping.problem import Problem

ROLES = ("input", "weight", "output")
OPERANDS = ("input", "weight")


@dataclass(frozen=True)
class Sparsity:
    """Densities by role or by tensor name (a name wins), and what the hardware makes of zeros.

    `density` in (0, 1]; `compressed` roles are stored and moved without zeros, with a mask of one bit an element;
    zeros of the operands in `skip`, then of those in `gate`, spare work.
    """

    density: Mapping[str, float] = field(default_factory=dict)
    compressed: frozenset[str] = frozenset()
    gate: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.density.items():
            if not 0 < value <= 1:
                raise UsageError(f"density of {name!r}: {value:g} is not above 0 and at most 1")
        for what, roles, known in (
            ("compressed", self.compressed, ROLES), ("gate", self.gate, OPERANDS), ("skip", self.skip, OPERANDS),
        ):  # fmt: skip
            for role in roles:
                if role not in known:
                    raise UsageError(f"sparsity: {what} takes {' or '.join(known)}, not {role!r}{nearest(role, known)}")
        both = sorted(set(self.gate) & set(self.skip))
        if both:
            raise UsageError(f"sparsity: zeros of the {both[0]} are either gated or skipped, not both")

    @property
    def dense(self) -> bool:
        """Whether nothing differs from a dense computation."""
        return not self.compressed and all(value == 1 for value in self.density.values())

    def apply(self, problem: Problem) -> Problem:
        """The problem with densities, compression and leaders."""
        tensors = tuple(
            replace(
                access,
                density=self.density.get(access.name, self.density.get(access.role, 1.0)),
                compressed=access.role in self.compressed,
            )
            for access in problem.tensors
        )
        leaders = tuple(t for role in (*self.skip, *self.gate) for t, a in enumerate(tensors) if a.role == role)
        return replace(problem, tensors=tensors, leaders=leaders)

    def energy(self, problem: Problem, energy: AccessEnergy) -> AccessEnergy:
        """Prices with that of a MAC times the share of MACs that act; `problem` as `apply` returns it."""
        return replace(energy, mac_pj=energy.mac_pj * math.prod(problem.tensors[t].density for t in problem.leaders))

    def arch(self, problem: Problem, arch: Arch) -> Arch:
        """The architecture with skipped MACs as MACs done at once; every unit skips on its own, none waits."""
        left = math.prod(problem.tensors[t].density for t in problem.leaders if problem.tensors[t].role in self.skip)
        if left == 1:
            return arch
        compute = arch.compute.model_copy(update={"macs_per_cycle": arch.compute.macs_per_cycle / left})
        return arch.model_copy(update={"compute": compute})


def acting_share(nest: Nest, tensor: int, parent: int) -> float:
    """Share of the compute units' accesses to `tensor` in level `parent` that no zero spares; 1 (int) when dense.

    k copies that share one access need it unless the leaders that differ among them are zero for all k; leaders that
    are the same for all copies spare it or not for all at once.
    """
    access = nest.problem.tensors[tensor]
    always = varying = 1.0
    copies = 1
    for lead in nest.problem.leads(tensor):
        leader = nest.problem.tensors[lead]
        different = math.prod(
            loop.count
            for loop in nest.loops
            if not loop.temporal
            and loop.level >= parent
            and _shares(nest, loop.axis, access.role)
            and loop.dim in leader.dims
            and loop.dim not in access.dims
        )
        if different > 1:
            varying *= leader.density
            copies = max(copies, different)
        else:
            always *= leader.density
    share = always * (1 - (1 - varying) ** copies) if copies > 1 else always
    return 1 if share == 1 else share


def _shares(nest: Nest, axis: int, role: str) -> bool:
    """Whether copies along an axis share accesses of a role."""
    return nest.arch.axes[axis].reduces if role == "output" else role in nest.arch.axes[axis].multicast
