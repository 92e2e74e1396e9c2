"""How a layer's reduction fills the array rows: activation words, and which weights stand beside them.

An activation word holds `rows` bytes. *Direct*: a word is `rows` consecutive channels of one input pixel; kernel
positions are folds of their own. *Gather*: the load engine copies, for each output pixel, the contiguous bytes of a
kernel row (kernel width x channels, NHWC), so that few channels still fill the array; input pixels are then read
from memory once per kernel position that uses them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.systolic.layer import Layer


@dataclass(frozen=True)
class Run:
    """One load descriptor's worth of words per pixel: `words` words from `first`, `bytes` bytes each.

    Word k reads from source offset `source + k * source_step` (bytes, relative to the pixel or window origin)
    into byte `byte_offset` of word `first + k`. `kernel_row` adds that many input rows to the source.
    """

    first: int
    words: int
    bytes: int
    source: int
    source_step: int
    byte_offset: int = 0
    kernel_row: int = 0
    row_step: int = 0  # input rows between consecutive words (gather of several kernel rows)


@dataclass(frozen=True)
class Reduction:
    """Folding of one layer for an array of `rows` rows.

    `words` activation words belong to a pixel (direct) or output pixel (gather); `kernel` are the kernel loops
    left for the matmul descriptor: (kh, kw) direct, (1, 1) gather.
    """

    gather: bool
    words: int
    kernel: tuple[int, int]
    rows: int

    @property
    def folds(self) -> int:
        """Array passes per output block with the whole reduction."""
        return self.kernel[0] * self.kernel[1] * self.words


def direct(layer: Layer, rows: int) -> Reduction:
    """Channels along the array rows."""
    return Reduction(False, -(-layer.in_channels // rows), layer.kernel, rows)


def gather(layer: Layer, rows: int) -> Reduction | None:
    """Whole kernel rows along the array rows; None where the bytes of a kernel row are not contiguous."""
    if layer.groups != 1 or (layer.dilations[1] != 1 and layer.kernel[1] != 1):
        return None
    row_bytes = layer.kernel[1] * layer.in_channels
    if row_bytes > rows:
        words = layer.kernel[0] * -(-row_bytes // rows)
    else:
        words = -(-layer.kernel[0] // (rows // row_bytes))
    return Reduction(True, words, (1, 1), rows)


def direct_runs(layer: Layer, rows: int, first: int, words: int) -> list[Run]:
    """Load runs of channel words [first, first + words) of a pixel."""
    last_bytes = layer.in_channels - rows * (first + words - 1)
    if last_bytes >= rows:
        return [Run(0, words, rows, first * rows, rows)]
    runs = [Run(0, words - 1, rows, first * rows, rows)] if words > 1 else []
    return [*runs, Run(words - 1, 1, last_bytes, (first + words - 1) * rows, 0)]


def gather_runs(layer: Layer, rows: int, first: int, words: int) -> list[Run]:
    """Load runs of gathered words [first, first + words) of an output pixel's window."""
    row_bytes = layer.kernel[1] * layer.in_channels
    kernel_h, dilation = layer.kernel[0], layer.dilations[0]
    runs: list[Run] = []
    if row_bytes > rows:
        per_row = -(-row_bytes // rows)
        for kernel_row in range(kernel_h):
            low = max(first, kernel_row * per_row)
            high = min(first + words, (kernel_row + 1) * per_row)
            full = min(high, kernel_row * per_row + row_bytes // rows)
            if low < full:
                begin = (low - kernel_row * per_row) * rows
                runs.append(Run(low - first, full - low, rows, begin, rows, 0, kernel_row * dilation))
            if low <= full < high:
                runs.append(Run(full - first, 1, row_bytes % rows, (per_row - 1) * rows, 0, 0, kernel_row * dilation))
        return runs
    per_word = rows // row_bytes
    for slot in range(min(per_word, kernel_h)):
        # words whose slot `slot` holds an existing kernel row
        count = min(first + words, -(-(kernel_h - slot) // per_word)) - first
        if count > 0:
            runs.append(
                Run(0, count, row_bytes, 0, 0, slot * row_bytes, (first * per_word + slot) * dilation,
                    per_word * dilation)
            )  # fmt: skip
    return runs


def dense_weights(layer: Layer, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Weights (out, in per group, kh, kw) of any conv or gemm as (out, in, kh, kw), zero outside their group."""
    shaped = weights.reshape(layer.out_channels, layer.in_channels // layer.groups, *layer.kernel)
    if layer.groups == 1:
        return shaped
    full = np.zeros((layer.out_channels, layer.in_channels, *layer.kernel), np.int8)
    per_group_in, per_group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for group in range(layer.groups):
        out = slice(group * per_group_out, (group + 1) * per_group_out)
        full[out, group * per_group_in : (group + 1) * per_group_in] = shaped[out]
    return full


def weight_blocks(
    layer: Layer, reduction: Reduction, weights: npt.NDArray[np.int8], columns: int
) -> npt.NDArray[np.int8]:
    """Weights beside the activation words: int8, shape (blocks, kh, kw, words, rows, columns), zero padded.

    The kernel axes are (1, 1) for a gathered reduction.
    """
    rows = reduction.rows
    blocks = -(-layer.out_channels // columns)
    dense = dense_weights(layer, weights)
    if not reduction.gather:
        padded = np.zeros((blocks * columns, reduction.words * rows, *layer.kernel), np.int8)
        padded[: layer.out_channels, : layer.in_channels] = dense
        split = padded.reshape(blocks, columns, reduction.words, rows, *layer.kernel)
        return np.ascontiguousarray(split.transpose(0, 4, 5, 2, 3, 1))
    kernel_h = layer.kernel[0]
    row_bytes = layer.kernel[1] * layer.in_channels
    flat = dense.transpose(0, 2, 3, 1).reshape(layer.out_channels, kernel_h, row_bytes)
    padded = np.zeros((blocks * columns, reduction.words, rows), np.int8)
    per_row = -(-row_bytes // rows)
    for kernel_row in range(kernel_h):
        if row_bytes > rows:
            target = padded[: layer.out_channels, kernel_row * per_row : (kernel_row + 1) * per_row]
            source = np.zeros((layer.out_channels, per_row * rows), np.int8)
            source[:, :row_bytes] = flat[:, kernel_row]
            target[:] = source.reshape(layer.out_channels, per_row, rows)
        else:
            word, slot = divmod(kernel_row, rows // row_bytes)
            padded[: layer.out_channels, word, slot * row_bytes : (slot + 1) * row_bytes] = flat[:, kernel_row]
    split = padded.reshape(blocks, columns, reduction.words, rows)
    return np.ascontiguousarray(split.transpose(0, 2, 3, 1))[:, None, None]


def block_channel_words(layer: Layer, block: int, rows: int, columns: int) -> tuple[int, int]:
    """(first, count) of the activation words that output block `block` reduces over, in a direct reduction."""
    if layer.groups == 1:
        return 0, -(-layer.in_channels // rows)
    per_group_in, per_group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    low_group = block * columns // per_group_out
    high_group = (min((block + 1) * columns, layer.out_channels) - 1) // per_group_out
    low, high = low_group * per_group_in, (high_group + 1) * per_group_in
    first = low // rows
    return first, -(-high // rows) - first
