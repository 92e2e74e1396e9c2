"""Tensors in external memory: int8 values of a graph in and out of their placement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.program.tile.program import TensorPlacement

Memory = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]


def write_tensor(memory: Memory, place: TensorPlacement, values: Int8Array) -> None:
    """Store an int8 tensor, (N, C, H, W) or rows, in its placement; the border stays."""
    shaped = values.reshape(place.batch, place.channels, place.height, place.width)
    _interior(memory, place)[:] = shaped.transpose(0, 2, 3, 1).astype(np.int8, copy=False).view(np.uint8)


def read_tensor(memory: Memory, place: TensorPlacement, shape: tuple[int, ...]) -> Int8Array:
    """The int8 tensor in a placement, in the shape of the graph."""
    view = np.ascontiguousarray(_interior(memory, place)).view(np.int8)
    return np.ascontiguousarray(view.transpose(0, 3, 1, 2)).reshape(shape)


def _interior(memory: Memory, place: TensorPlacement) -> Memory:
    top, left, bottom, right = place.halo
    region = memory[place.base : place.base + place.bytes].reshape(
        place.batch, place.height + top + bottom, place.width + left + right, place.channels
    )
    return region[:, top : top + place.height, left : left + place.width]
