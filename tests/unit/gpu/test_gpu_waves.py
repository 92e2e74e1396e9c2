"""Thread blocks over SMs: the event loop, its closed form, and the task graph that a timeline is made of."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.gpu.tasks import LEAST_LAUNCH_CYCLES, kernel_begins, wave_tasks
from accelerators.gpu.waves import blocks_by_sm, equal_waves, simulate_waves, split_k_work
from dse.sim import simulate_a, simulate_c


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 150), st.integers(1, 60), st.integers(1, 12), st.integers(1, 5))
def test_equal_blocks_take_what_the_closed_form_says(blocks: int, work: int, sms: int, slots: int) -> None:
    found = simulate_waves([work] * blocks, sms, slots)
    assert found.tolist() == equal_waves(blocks, work, sms, slots).tolist()
    # the bound every GEMM estimate is built on
    assert found.max() == -(-blocks // sms) * work


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 8), st.integers(1, 4))
def test_unequal_blocks_take_between_the_mean_and_twice_the_best(work: list[int], sms: int, slots: int) -> None:
    found = simulate_waves(work, sms, slots)
    least = max(-(-sum(work) // sms), max(work))
    assert least <= found.max()
    if slots == 1:  # Graham's bound for lists dealt greedily
        assert found.max() <= (2 - 1 / sms) * least


def test_one_sm_is_busy_exactly_as_long_as_all_its_work() -> None:
    assert simulate_waves([3, 5, 7, 11], 1, 3).tolist() == [26]


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 6))
def test_every_block_is_dealt_once_and_evenly(blocks: int, sms: int, slots: int) -> None:
    mine = blocks_by_sm(blocks, sms, slots)
    assert mine.sum() == blocks
    assert mine.max() - mine.min() <= 1


def test_a_short_last_part_of_split_k_is_less_work() -> None:
    work = split_k_work(100, 60, 72, 2, (64, 32, 16), 2)
    assert len(work) == 2 * 2 * 2 * 2
    assert sorted(set(work.tolist())) == [32, 48]
    ragged, even = simulate_waves(work.tolist(), 1, 2), equal_waves(len(work), 48, 1, 2)
    assert ragged.max() == work.sum() < even.max()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 400), st.integers(1, 4)), min_size=1, max_size=6),
       st.integers(1, 10))  # fmt: skip
def test_levels_a_and_c_give_the_closed_form_kernel_by_kernel(  # type: ignore[no-untyped-def]
    kernels: list[tuple[int, int, int]], sms: int
) -> None:
    busy = np.array([cycles for cycles, _, _ in kernels], np.int64)
    whole = busy + LEAST_LAUNCH_CYCLES + np.arange(busy.size)
    grid = np.array([[8.0, 8.0, 8.0, 1.0, slots, blocks] for _, blocks, slots in kernels])
    graph = wave_tasks(whole, busy, grid, sms)
    a, c = simulate_a(graph), simulate_c(graph)
    assert a.total_cycles == c.total_cycles == whole.sum()
    assert np.diff(kernel_begins(a, busy.size)).tolist() == whole.tolist()
    assert np.array_equal(a.start, c.start)
    assert np.array_equal(a.end, c.end)


def test_sms_without_a_block_stay_idle() -> None:
    grid = np.array([[8.0, 8.0, 8.0, 1.0, 2.0, 3.0]])
    graph = wave_tasks(np.array([110]), np.array([100]), grid, 5)
    busy = {name: simulate_a(graph).busy_cycles(name) for name in graph.engines[1:]}
    assert list(busy.values()) == [100, 100, 100, 0, 0]
