"""Op kind `einsum`: a sum of products over affine accesses, such as O[k,p,q] += I[c,p+r,q+s] * W[k,c,r,s].

Attributes of the op: `bounds` (dim -> extent, all dims of the statement), `axes` (one tuple an operand: per tensor
axis a tuple of (dim, coefficient) pairs and a constant offset), `output` (the dims that index the output, in order).
Dims that do not index the output are summed over; every dim is read by some operand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError

Array = npt.NDArray[Any]
#: Pairs (dim, coefficient) whose sum, with the constant, indexes one axis.
AxisIndex = tuple[tuple[tuple[str, int], ...], int]


def axis_range(index: AxisIndex, bounds: Mapping[str, int]) -> tuple[int, int]:
    """(smallest, largest) index that an affine axis takes."""
    pairs, offset = index
    steps = [coefficient * (bounds[dim] - 1) for dim, coefficient in pairs]
    return offset + sum(min(step, 0) for step in steps), offset + sum(max(step, 0) for step in steps)


def run_einsum(name: str, attributes: Mapping[str, Any], operands: list[Array]) -> Array:
    """The sum of products in NumPy.

    Parameters
    ----------
    name
        The op's name, for messages.
    attributes
        `bounds`, `axes` and `output` as in this module.
    operands
        One array for each entry of `axes`, any shape that holds all indices.

    Returns
    -------
    The dtype of the operands, shape (bounds of the output dims).

    Raises
    ------
    ModelError: an operand is too small for the indices that are read.
    """
    bounds, output = attributes["bounds"], tuple(attributes["output"])
    labels = {dim: label for label, dim in enumerate(bounds)}
    arguments: list[Any] = []
    for operand, axes in zip(operands, attributes["axes"], strict=True):
        view, dims = _view(name, operand, axes, bounds)
        arguments += [view, [labels[dim] for dim in dims]]
    return np.asarray(np.einsum(*arguments, [labels[dim] for dim in output], optimize=True))


def _view(
    name: str, operand: Array, axes: tuple[AxisIndex, ...], bounds: Mapping[str, int]
) -> tuple[Array, tuple[str, ...]]:
    """(read-only view with one axis for each dim of the access, the dims); no element is copied."""
    strides: dict[str, int] = {}
    origin: list[slice] = []
    for axis, index in enumerate(axes):
        low, high = axis_range(index, bounds)
        # checked here: a strided view would read beyond the array
        if low < 0 or high >= operand.shape[axis]:
            raise ModelError(f"op {name!r}: reads indices {low} to {high} of an axis of {operand.shape[axis]} elements")
        origin.append(slice(index[1], None))
        for dim, coefficient in index[0]:
            strides[dim] = strides.get(dim, 0) + coefficient * operand.strides[axis]
    # a negative coefficient starts at its offset, which lies inside
    start = operand[tuple(origin)]
    dims = tuple(strides)
    shape = tuple(bounds[dim] for dim in dims)
    steps = tuple(strides[dim] for dim in dims)
    return np.lib.stride_tricks.as_strided(start, shape, steps, writeable=False), dims
