"""Runs grids of thread-block tiles in NumPy: the tiles, edge padding and split-K order that the timing model counts.

A thread block owns a tile of the result and one part of the reduction. It loads fragments padded with zeros, steps
through its part a depth at a time, and writes a partial tile; parts are then added in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.gpu.waves import split_edges

#: Integers or floats; products and sums keep the type of the right operand.
Array = npt.NDArray[Any]
#: Fragment of the left operand: rows begin..end and reduction begin..end of one product, unpadded.
LoadLeft = Callable[[int, int, int, int], Array]


@dataclass(frozen=True)
class TileGrid:
    """Thread-block tile rows x columns, stepped through the reduction by depth; split-K parts."""

    rows: int
    columns: int
    depth: int
    split: int = 1


def tiled_product(load_left: LoadLeft, right: Array, m: int, grid: TileGrid) -> Array:
    """(m x k) times (k x n), tile by tile.

    Parameters
    ----------
    load_left
        Gives fragments of the left operand.
    right : shape (k, n)
        Its type is that of the sums: int64 for integers, float32 or float64.

    Returns
    -------
    Shape (m, n), of the type of `right`.
    """
    k, n = right.shape
    parts = split_edges(k, grid.depth, grid.split)
    partial = np.zeros((len(parts), m, n), right.dtype)
    for part, (begin, end) in enumerate(parts):
        for top in range(0, m, grid.rows):
            for left in range(0, n, grid.columns):
                tile = _block(load_left, right, m, grid, (top, left, begin, end))
                bottom, edge = min(m, top + grid.rows), min(n, left + grid.columns)
                partial[part, top:bottom, left:edge] = tile[: bottom - top, : edge - left]
    total: Array = partial[0]
    for part in range(1, len(parts)):
        total = total + partial[part]
    return total


def _block(load_left: LoadLeft, right: Array, m: int, grid: TileGrid, at: tuple[int, int, int, int]) -> Array:
    """One thread block: its whole tile, padding included."""
    top, left, begin, end = at
    n = right.shape[1]
    bottom, edge = min(m, top + grid.rows), min(n, left + grid.columns)
    sums = np.zeros((grid.rows, grid.columns), right.dtype)
    for step in range(begin, end, grid.depth):
        stop = min(end, step + grid.depth)
        a = np.zeros((grid.rows, grid.depth), right.dtype)
        b = np.zeros((grid.depth, grid.columns), right.dtype)
        a[: bottom - top, : stop - step] = load_left(top, bottom, step, stop)
        b[: stop - step, : edge - left] = right[step:stop, left:edge]
        sums = sums + a @ b
    return sums


def run_gemm(left: Array, right: Array, grid: TileGrid) -> Array:
    """Stacks of products: left (..., m, k) times right (..., k, n), leading axes broadcast."""
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    a = np.broadcast_to(left, (*stack, m, k)).reshape(-1, m, k)
    b = np.broadcast_to(right, (*stack, k, n)).reshape(-1, k, n)
    found = [tiled_product(_rows_of(x), y, m, grid) for x, y in zip(a, b, strict=True)]
    return np.stack(found).reshape(*stack, m, n)


def _rows_of(x: Array) -> LoadLeft:
    return lambda top, bottom, begin, end: x[top:bottom, begin:end]


def run_conv(
    x: Array,
    weight: Array,
    grid: TileGrid,
    *,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Array:
    """A convolution as an implicit GEMM: pixels are gathered while a fragment is loaded.

    Parameters
    ----------
    x : shape (N, C, H, W)
    weight : shape (M, C / groups, R, S), of the type of the sums
    pads
        Top, left, bottom, right.

    Returns
    -------
    Shape (N, M, P, Q), of the type of `weight`.
    """
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    filters, channels, window_h, window_w = weight.shape
    reach = ((window_h - 1) * dilations[0] + 1, (window_w - 1) * dilations[1] + 1)
    height = (padded.shape[2] - reach[0]) // strides[0] + 1
    width = (padded.shape[3] - reach[1]) // strides[1] + 1
    each = filters // groups
    results = []
    for group in range(groups):
        own = padded[:, group * channels : (group + 1) * channels]
        load = _gather(own, (height, width), (window_h, window_w), strides, dilations)
        matrix = weight[group * each : (group + 1) * each].reshape(each, -1).T
        product = tiled_product(load, np.ascontiguousarray(matrix), x.shape[0] * height * width, grid)
        results.append(product.reshape(x.shape[0], height, width, each).transpose(0, 3, 1, 2))
    return np.concatenate(results, axis=1)


def _gather(
    x: Array, output: tuple[int, int], window: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> LoadLeft:
    """Fragments of the matrix pixels x (channel, window row, window column) of a padded map, never held as a whole."""
    pixels = output[0] * output[1]
    positions = window[0] * window[1]

    def load(top: int, bottom: int, begin: int, end: int) -> Array:
        row, column = np.arange(top, bottom)[:, None], np.arange(begin, end)[None, :]
        image, pixel = row // pixels, row % pixels
        channel, position = column // positions, column % positions
        y = pixel // output[1] * strides[0] + position // window[1] * dilations[0]
        z = pixel % output[1] * strides[1] + position % window[1] * dilations[1]
        return np.asarray(x[image, channel, y, z])

    return load


#: Winograd's transforms by output edge: input (B), filter (G), output (A); Lavin and Gray, CVPR 2016, section 4.
_TRANSFORMS = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]],
        [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
         [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}  # fmt: skip


def run_winograd(x: Array, weight: Array, grid: TileGrid, *, edge: int, pads: tuple[int, int, int, int]) -> Array:
    """A 3 x 3 convolution of stride one by F(edge x edge, 3 x 3): (edge + 2)^2 products over tiles of pixels.

    Shapes as in `run_conv` with one group; edge is 2 or 4.
    """
    inner, filters, outer = (np.array(matrix, weight.dtype) for matrix in _TRANSFORMS[edge])
    top, left, bottom, right = pads
    count, channels, height, width = x.shape
    out = (height + top + bottom - 2, width + left + right - 2)
    tiles = tuple(-(-size // edge) for size in out)
    grown = [tiles[0] * edge + 2 - height - top, tiles[1] * edge + 2 - width - left]
    padded = np.pad(x.astype(weight.dtype), ((0, 0), (0, 0), (top, grown[0]), (left, grown[1])))
    span = edge + 2
    view = np.lib.stride_tricks.sliding_window_view(padded, (span, span), axis=(2, 3))[:, :, ::edge, ::edge]
    data = np.einsum("ia,nchwab,jb->ijnhwc", inner, view, inner).reshape(span * span, -1, channels)
    kernels = np.einsum("ia,mcab,jb->ijcm", filters, weight, filters).reshape(span * span, channels, -1)
    points = run_gemm(np.ascontiguousarray(data), np.ascontiguousarray(kernels), grid)
    shaped = points.reshape(span, span, count, *tiles, -1)
    pixels = np.einsum("ai,ijnhwm,bj->nmhawb", outer, shaped, outer)
    whole = pixels.reshape(count, -1, tiles[0] * edge, tiles[1] * edge)
    return np.asarray(whole[:, :, : out[0], : out[1]])
