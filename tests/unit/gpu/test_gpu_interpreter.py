"""Programs of thread-block tiles compute what NumPy computes: random products and convolutions, split-K included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.gpu.interpreter import TileGrid, run_conv, run_gemm, run_winograd
from accelerators.gpu.waves import split_edges

GRIDS = st.builds(
    TileGrid,
    rows=st.sampled_from([4, 8, 16, 32]),
    columns=st.sampled_from([4, 8, 16, 32]),
    depth=st.sampled_from([2, 4, 8, 16]),
    split=st.integers(1, 6),
)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-128, 128, shape, dtype=np.int64)


def direct_conv(x, weight, strides, pads, dilations, groups):  # type: ignore[no-untyped-def]
    """One output element at a time."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    count, _, height, width = padded.shape
    filters, channels, kernel_h, kernel_w = weight.shape
    out_h = (height - (kernel_h - 1) * dilations[0] - 1) // strides[0] + 1
    out_w = (width - (kernel_w - 1) * dilations[1] - 1) // strides[1] + 1
    result = np.zeros((count, filters, out_h, out_w), weight.dtype)
    for n, m, p, q in np.ndindex(*result.shape):
        first = m // (filters // groups) * channels
        window = padded[
            n,
            first : first + channels,
            p * strides[0] : p * strides[0] + (kernel_h - 1) * dilations[0] + 1 : dilations[0],
            q * strides[1] : q * strides[1] + (kernel_w - 1) * dilations[1] + 1 : dilations[1],
        ]
        result[n, m, p, q] = (window * weight[m]).sum()
    return result


@settings(max_examples=100, deadline=None)
@given(GRIDS, st.integers(1, 70), st.integers(1, 70), st.integers(1, 90), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_integer_products_are_exact(grid, m, n, k, batch, seed) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    left, right = integers(rng, batch, m, k), integers(rng, batch, k, n)
    assert np.array_equal(run_gemm(left, right, grid), left @ right)


@settings(max_examples=100, deadline=None)
@given(
    GRIDS, st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 3, 5]),
    st.integers(1, 2), st.integers(1, 2), st.tuples(*[st.integers(0, 2)] * 4), st.integers(5, 9),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_integer_convolutions_are_exact(  # type: ignore[no-untyped-def]
    grid, batch, groups, channels, filters, kernel, stride, dilation, pads, size, seed
) -> None:
    rng = np.random.default_rng(seed)
    kernel = min(kernel, (size - 1) // dilation + 1)
    x = integers(rng, batch, groups * channels, size, size + 1)
    weight = integers(rng, groups * filters, channels, kernel, kernel)
    strides, dilations = (stride, 1), (dilation, 1)
    found = run_conv(x, weight, grid, strides=strides, pads=pads, dilations=dilations, groups=groups)
    assert np.array_equal(found, direct_conv(x, weight, strides, pads, dilations, groups))


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.integers(1, 60), st.integers(1, 60), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_float_products_differ_by_rounding_only(grid, m, n, k, seed) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    found = run_gemm(left.astype(np.float32), right.astype(np.float32), grid)
    # every partial sum rounds once: k roundings of at most the sum of magnitudes
    bound = (k + grid.split + 2) * np.finfo(np.float32).eps * (np.abs(left) @ np.abs(right)) + 1e-30
    assert (np.abs(found - left @ right) <= bound).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([2, 4]), st.integers(1, 2), st.integers(1, 4), st.integers(1, 4), st.integers(3, 11),
       st.tuples(*[st.integers(0, 2)] * 4), st.integers(0, 2**32 - 1))  # fmt: skip
def test_winograd_equals_the_direct_convolution(  # type: ignore[no-untyped-def]
    edge, batch, channels, filters, size, pads, seed
) -> None:
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((batch, channels, size, size + 2)), rng.standard_normal((filters, channels, 3, 3))
    found = run_winograd(x, weight, TileGrid(8, 8, 4, 2), edge=edge, pads=pads)
    assert np.allclose(found, direct_conv(x, weight, (1, 1), pads, (1, 1), 1), rtol=0, atol=1e-10)


def test_winograd_2x2_is_exact_on_even_filters() -> None:
    """Its filter transform halves twice: filters of multiples of four stay integers."""
    rng = np.random.default_rng(3)
    x, weight = integers(rng, 2, 3, 9, 8).astype(float), 4.0 * integers(rng, 5, 3, 3, 3)
    found = run_winograd(x, weight, TileGrid(8, 16, 8), edge=2, pads=(1, 1, 1, 1))
    assert np.array_equal(found, direct_conv(x, weight, (1, 1), (1, 1, 1, 1), (1, 1), 1))


@given(st.integers(1, 500), st.sampled_from([1, 2, 8, 32]), st.integers(1, 64))
def test_split_parts_cover_the_reduction_once_in_whole_steps(k: int, depth: int, split: int) -> None:
    edges = split_edges(k, depth, split)
    assert [begin for begin, _ in edges] == [0, *(end for _, end in edges[:-1])]
    assert edges[-1][1] == k
    assert len(edges) <= split
    assert all(begin % depth == 0 and begin < end for begin, end in edges)


def test_split_k_adds_partial_sums_in_their_order() -> None:
    """In floating point the order shows: 1e8 + 1 - 1e8 loses the one, unless parts keep it apart."""
    left, right = np.array([[1e8, 1.0, -1e8]], np.float32), np.ones((3, 1), np.float32)
    assert run_gemm(left, right, TileGrid(4, 4, 1, 1))[0, 0] == 0.0
    kept = np.array([[1e8, -1e8, 1.0, 0.0]], np.float32)
    assert run_gemm(kept, np.ones((4, 1), np.float32), TileGrid(4, 4, 2, 2))[0, 0] == pytest.approx(1.0)
