"""What is mapped: bounds of named dims and the affine access of every tensor, as small tuples of integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.core.errors import ModelError
from dse.ir.loopnest import LoopNest


@dataclass(frozen=True)
class TensorAccess:
    """One tensor: index along an axis = sum of coefficient * loop index over the axis's (dim, coefficient) pairs.

    `role` is "input", "weight" or "output"; dims are positions in `Problem.dims`. `density` is the share of elements
    that are not zero; `compressed` ones move without their zeros, with one bit an element that says where they are.
    `resident` names the level that holds the whole tensor, whose room is set aside: tiles there take none.
    """

    name: str
    role: str
    axes: tuple[tuple[tuple[int, int], ...], ...]
    density: float = 1.0
    compressed: bool = False
    resident: str = ""

    @property
    def dims(self) -> frozenset[int]:
        """Positions of the dims that index this tensor."""
        return frozenset(dim for axis in self.axes for dim, _ in axis)

    def axis_of(self, dim: int) -> int:
        """Position of the axis that `dim` moves along, or -1 when it does not index this tensor."""
        return next((k for k, axis in enumerate(self.axes) if any(dim == d for d, _ in axis)), -1)

    def extents(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Bounding box of a tile: words along each axis, for `sizes` iterations of every dim of the problem."""
        return tuple(1 + sum(c * (sizes[d] - 1) for d, c in axis) for axis in self.axes)

    def words(self, sizes: Sequence[int]) -> int:
        """Words of the bounding box of a tile."""
        return math.prod(self.extents(sizes))


@dataclass(frozen=True)
class Problem:
    """Bounds of dims and accesses of tensors; exactly one tensor is the output.

    `leaders` are positions of operands that are looked at before all others: where one is zero, operands behind it are
    not read and nothing is multiplied or added (`dse.mapping.density`).
    """

    name: str
    dims: tuple[str, ...]
    bounds: tuple[int, ...]
    tensors: tuple[TensorAccess, ...]
    leaders: tuple[int, ...] = ()

    @property
    def macs(self) -> int:
        """Innermost iterations."""
        return math.prod(self.bounds)

    def canonical(self) -> tuple[object, ...]:
        """What the cost of mappings depends on: equal problems have equal keys, whatever their names."""
        accesses = tuple((t.role, t.axes, t.density, t.compressed, t.resident) for t in self.tensors)
        return (self.dims, self.bounds, accesses, self.leaders)

    def leads(self, tensor: int) -> tuple[int, ...]:
        """Operands whose zeros spare the compute units an access to `tensor`."""
        if tensor in self.leaders:
            return self.leaders[: self.leaders.index(tensor)]
        return self.leaders


def problem_of(nest: LoopNest, *, dense: bool = True) -> Problem:
    """The problem of a loop nest.

    Parameters
    ----------
    dense
        Leave out words that no iteration touches: an axis moved by one dim only has no holes between its steps
        (a 1 x 1 kernel of stride 2 reads every second pixel), and an axis that packs two dims side by side
        (groups and channels) is two axes. False keeps the axes as given, as Timeloop counts them.

    Raises
    ------
    ModelError: no tensor or several are the output, a dim moves along two axes of one tensor, or an access has a
    negative coefficient.
    """
    dims = tuple(nest.bounds)
    bounds = tuple(nest.bounds[dim] for dim in dims)
    tensors = []
    for access in nest.accesses:
        axes = []
        for axis in access.axes:
            live = [(dims.index(dim), c) for dim, c in axis.items() if c and nest.bounds[dim] > 1]
            if any(c < 0 for _, c in live):
                raise ModelError(f"op {nest.op!r}: tensor {access.tensor!r} is read backwards (negative coefficient)")
            axes += _split(live, bounds) if dense else [tuple(live)]
        used = [dim for axis in axes for dim, _ in axis]
        if len(set(used)) != len(used):
            raise ModelError(f"op {nest.op!r}: a dim moves along two axes of {access.tensor!r}, which is not supported")
        tensors.append(TensorAccess(access.tensor, access.role, tuple(axis for axis in axes if axis)))
    outputs = [tensor.name for tensor in tensors if tensor.role == "output"]
    if len(outputs) != 1:
        raise ModelError(f"op {nest.op!r} must write exactly one tensor, not {len(outputs)}")
    return Problem(nest.op, dims, bounds, tuple(tensors))


def _split(axis: list[tuple[int, int]], bounds: Sequence[int]) -> list[tuple[tuple[int, int], ...]]:
    """Cut an axis where a coefficient exceeds the reach of all smaller ones; divide by the common factor."""
    parts: list[list[tuple[int, int]]] = []
    reach = 0
    for dim, coefficient in sorted(axis, key=lambda item: item[1]):
        if not parts or coefficient > reach:
            parts.append([])
        parts[-1].append((dim, coefficient))
        reach += coefficient * (bounds[dim] - 1)
    return [tuple((dim, c // math.gcd(*(k for _, k in part))) for dim, c in sorted(part)) for part in parts]
