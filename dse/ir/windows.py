"""Sliding windows over feature maps, and convolution as a matrix product over them.

Shared by the float and the integer reference: integers travel as floats wide enough to hold every partial sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Patch elements gathered at once; bounds the memory of a large batch (256 MiB of float32).
_PATCH_ELEMENTS = 1 << 26


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Positions of a dilated kernel along an axis of `size` elements padded by `before` and `after`; may be <= 0."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def pad_map(x: Array, pads: tuple[int, int, int, int], fill: float) -> Array:
    """NCHW map with (top, left, bottom, right) rows and columns of `fill` around it."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)


def windows(
    x: Array,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    fill: float,
    dilations: tuple[int, int] = (1, 1),
) -> Array:
    """Every kernel window of an NCHW map: view of shape (N, C, P, Q, R, S), padding holds `fill`."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(pad_map(x, pads, fill), reach, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def convolve(
    x: Array,
    weight: Array,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    groups: int,
    fill: float = 0.0,
) -> Array:
    """Grouped 2-D convolution without bias.

    Parameters
    ----------
    x : float, shape (N, C, H, W)
    weight : same dtype, shape (M, C / groups, R, S)
    fill
        Value of the padding: the zero point when x holds quantized values.

    Returns
    -------
    Same dtype, shape (N, M, P, Q).
    """
    out_channels, depth, kernel_h, kernel_w = weight.shape
    view = windows(x, (kernel_h, kernel_w), strides, pads, fill, dilations)
    batch, channels, out_h, out_w = view.shape[:4]
    matrix = weight.reshape(groups, out_channels // groups, -1).transpose(0, 2, 1)
    result = np.empty((batch, out_channels, out_h, out_w), x.dtype)
    step = max(1, _PATCH_ELEMENTS // max(1, channels * kernel_h * kernel_w * out_h * out_w))
    for first in range(0, batch, step):
        part = view[first : first + step]
        count = len(part)
        grouped = part.reshape(count, groups, depth, out_h, out_w, kernel_h, kernel_w)
        patches = grouped.transpose(1, 0, 3, 4, 2, 5, 6).reshape(groups, count * out_h * out_w, -1)
        product = (patches @ matrix).reshape(groups, count, out_h, out_w, -1)
        result[first : first + step] = product.transpose(1, 0, 4, 2, 3).reshape(count, out_channels, out_h, out_w)
    return result


def convolve_transposed(
    x: Array,
    weight: Array,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    groups: int,
    output_padding: tuple[int, int],
) -> Array:
    """Grouped 2-D transposed convolution without bias: every input element adds its kernel to the output.

    Parameters
    ----------
    x : float, shape (N, C, H, W)
    weight : same dtype, shape (C, M / groups, R, S)

    Returns
    -------
    Same dtype, shape (N, M, (H - 1) * stride + (R - 1) * dilation + 1 - pads + output_padding, likewise).
    """
    batch, channels, height, width = x.shape
    _, per_group, kernel_h, kernel_w = weight.shape
    reach = [
        (size - 1) * stride + (kernel - 1) * dilation + 1
        for size, kernel, stride, dilation in zip(
            (height, width), (kernel_h, kernel_w), strides, dilations, strict=True
        )
    ]
    full = np.zeros((batch, groups, per_group, reach[0] + output_padding[0], reach[1] + output_padding[1]), x.dtype)
    columns = x.reshape(batch, groups, channels // groups, height * width)
    matrix = weight.reshape(groups, channels // groups, per_group, kernel_h, kernel_w)
    for r in range(kernel_h):
        for s in range(kernel_w):
            part = np.matmul(matrix[:, :, :, r, s].transpose(0, 2, 1), columns)
            top, left = r * dilations[0], s * dilations[1]
            rows = slice(top, top + (height - 1) * strides[0] + 1, strides[0])
            lines = slice(left, left + (width - 1) * strides[1] + 1, strides[1])
            full[..., rows, lines] += part.reshape(batch, groups, per_group, height, width)
    result = full.reshape(batch, groups * per_group, *full.shape[3:])
    top, left, bottom, right = pads
    return result[:, :, top : result.shape[2] - bottom, left : result.shape[3] - right]


def window_counts(
    shape: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    *,
    include_pad: bool,
) -> npt.NDArray[np.int64]:
    """Elements each pooling window averages over, shape (P, Q); without `include_pad` only those inside the map."""
    ones = np.ones((1, 1, *shape), np.int64)
    inside = windows(ones, kernel, strides, pads, 0).sum(axis=(-2, -1))[0, 0]
    return np.full_like(inside, kernel[0] * kernel[1]) if include_pad else inside
