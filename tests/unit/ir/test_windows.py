"""Windows and convolutions equal loops written the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse.ir.windows as windows_module
from dse.ir.windows import convolve, output_size, window_counts, windows

Pads = tuple[int, int, int, int]
PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADS = st.tuples(*[st.integers(0, 2)] * 4)


def positions(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> list[list[int]]:
    """Index lists of every kernel placement along one axis, found by trying each start."""
    starts = range(-before, size + after, stride)
    placements = [[start + tap * dilation for tap in range(kernel)] for start in starts]
    return [taps for taps in placements if taps[-1] < size + after]


@given(
    st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)
)
def test_output_size_counts_the_kernel_placements(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int
) -> None:
    expected = len(positions(size, kernel, stride, before, after, dilation))
    assert max(0, output_size(size, kernel, stride, before, after, dilation)) == expected


def slow_convolution(
    x: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], strides: tuple[int, int], pads: Pads,
    dilations: tuple[int, int], groups: int, fill: float,
) -> npt.NDArray[np.float64]:  # fmt: skip
    batch, _, height, width = x.shape
    outputs, depth, kernel_h, kernel_w = weight.shape
    rows = positions(height, kernel_h, strides[0], pads[0], pads[2], dilations[0])
    columns = positions(width, kernel_w, strides[1], pads[1], pads[3], dilations[1])
    result = np.zeros((batch, outputs, len(rows), len(columns)))
    for n, m, p, q in itertools.product(range(batch), range(outputs), range(len(rows)), range(len(columns))):
        group = m // (outputs // groups)
        for c, r, s in itertools.product(range(depth), range(kernel_h), range(kernel_w)):
            i, j = rows[p][r], columns[q][s]
            inside = 0 <= i < height and 0 <= j < width
            result[n, m, p, q] += weight[m, c, r, s] * (x[n, group * depth + c, i, j] if inside else fill)
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), PAIR, PAIR, PAIR, PADS, st.sampled_from([1, 2, 3]), st.sampled_from([0.0, -5.0]))
def test_convolution_equals_loops(
    seed: int, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int], pads: Pads, groups: int,
    fill: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    depth, outputs = int(rng.integers(1, 4)), groups * int(rng.integers(1, 3))
    x = rng.integers(-9, 10, (int(rng.integers(1, 3)), groups * depth, 7, 8)).astype(np.float64)
    weight = rng.integers(-9, 10, (outputs, depth, *kernel)).astype(np.float64)
    expected = slow_convolution(x, weight, strides, pads, dilations, groups, fill)
    np.testing.assert_array_equal(convolve(x, weight, strides, pads, dilations, groups, fill), expected)


def test_a_batch_processed_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((5, 4, 6, 6)), rng.standard_normal((4, 2, 3, 3))
    geometry = ((1, 1), (1, 1, 1, 1), (1, 1), 2)
    whole = convolve(x, weight, *geometry)
    monkeypatch.setattr(windows_module, "_PATCH_ELEMENTS", 2 * 4 * 9 * 36)
    np.testing.assert_allclose(convolve(x, weight, *geometry), whole, rtol=1e-12)


@given(PAIR, PAIR, PADS)
def test_window_counts_leave_out_padding_unless_told(
    kernel: tuple[int, int], strides: tuple[int, int], pads: Pads
) -> None:
    rows = positions(6, kernel[0], strides[0], pads[0], pads[2], 1)
    columns = positions(7, kernel[1], strides[1], pads[1], pads[3], 1)
    inside = [[sum(0 <= i < 6 for i in row) * sum(0 <= j < 7 for j in column) for column in columns] for row in rows]
    np.testing.assert_array_equal(window_counts((6, 7), kernel, strides, pads, include_pad=False), inside)
    counted = window_counts((6, 7), kernel, strides, pads, include_pad=True)
    assert counted.shape == np.shape(inside)
    assert (counted == kernel[0] * kernel[1]).all()


def test_windows_are_a_view_when_nothing_is_padded() -> None:
    x = np.arange(64.0).reshape(1, 1, 8, 8)
    view = windows(x, (3, 3), (2, 2), (0, 0, 0, 0), 0)
    assert np.shares_memory(view, x)
    np.testing.assert_array_equal(view[0, 0, 1, 2], x[0, 0, 2:5, 4:7])
