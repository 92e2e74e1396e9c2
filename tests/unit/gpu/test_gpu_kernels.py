"""Convolution, streaming, attention and recurrent kernels: algorithms, bounds and the effects they exist for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.gpu import (
    ConvProblems,
    Estimate,
    RecurrentProblems,
    attention,
    convolution,
    depthwise,
    elementwise,
    gemm,
    observed_seconds,
    persistent_fits,
    preset,
    recurrent,
    reduction,
    row_wise,
)
from accelerators.gpu.estimate import choose
from dse.core.errors import UsageError


def conv(batch: int, channels: int, size: int, filters: int, kernel: int, stride: int = 1) -> ConvProblems:
    pad = kernel // 2
    values = (batch, channels, size, size, filters, kernel, kernel, stride, stride, pad, pad)
    return ConvProblems(*(np.array([value], dtype=np.int64) for value in values))


def layers(hidden: int, batch: int, steps: int = 50, inputs: int = 0, count: int = 1) -> RecurrentProblems:
    return RecurrentProblems(*(np.array([v], dtype=np.int64) for v in (hidden, batch, steps, inputs, count)))


def test_winograd_wins_large_3x3_layers_and_beats_the_direct_roofline() -> None:
    hw, problem = preset("v100_sxm2"), conv(32, 256, 28, 256, 3)
    found = convolution(hw, problem, dtype="fp32")
    direct = 2.0 * 32 * 28 * 28 * 256 * 256 * 9
    assert found.algorithm[0].startswith("winograd")
    assert found.seconds[0] < convolution(hw, problem, dtype="fp32", winograd=False).seconds[0]
    assert found.flops[0] < direct


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (5, 1), (3, 2)])
def test_winograd_is_only_for_3x3_with_stride_one(kernel: int, stride: int) -> None:
    found = convolution(preset("v100_sxm2"), conv(32, 256, 28, 256, kernel, stride), dtype="fp32")
    assert found.algorithm == ("implicit_gemm",)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 32), st.integers(1, 512), st.integers(3, 112), st.integers(1, 512), st.sampled_from([1, 3, 5]),
       st.sampled_from(["forward", "backward_data", "backward_weights"]))  # fmt: skip
def test_no_convolution_is_faster_than_its_algorithms_roofline(n, c, size, k, kernel, direction) -> None:  # type: ignore[no-untyped-def]
    found = convolution(preset("p100_pcie"), conv(n, c, size, k, kernel), dtype="fp32", direction=direction)
    least = {"implicit_gemm": 1.0, "winograd_2x2": 4 / 9, "winograd_4x4": 0.25}[found.algorithm[0]]
    useful = 2.0 * n * c * k * size * size * kernel * kernel
    # a whole Winograd tile may hold fewer pixels than its edge, never more
    assert found.seconds[0] >= useful * least / preset("p100_pcie").peak_flop_s("fp32") * 0.999
    assert found.seconds[0] >= found.bound_s[0]


def test_three_channels_cost_matrix_units_as_much_as_eight() -> None:
    hw = preset("v100_sxm2")
    three, eight = (convolution(hw, conv(16, c, 224, 64, 7, 2), dtype="fp16").seconds[0] for c in (3, 8))
    assert three == pytest.approx(eight, rel=1e-9)


def test_depthwise_is_bound_by_memory() -> None:
    hw = preset("a100_sxm_80")
    found = depthwise(hw, conv(32, 512, 56, 512, 3), dtype="fp16")
    moved = 2 * 32 * 512 * 56 * 56 * 2
    assert moved / hw.dram_bytes_s <= found.seconds[0] < 4 * moved / hw.dram_bytes_s


def test_fusing_elementwise_ops_saves_the_traffic_between_them() -> None:
    hw = preset("a100_sxm_80")
    apart = sum(elementwise(hw, 10**8, kinds=(kind,)).seconds[0] for kind in ("add", "relu", "mul"))
    fused = elementwise(hw, 10**8, kinds=("add", "relu", "mul")).seconds[0]
    assert apart == pytest.approx(3 * fused, rel=0.05)


def test_rows_that_do_not_fit_an_sm_are_read_twice() -> None:
    hw = preset("a100_sxm_80")
    long = hw.shared_kib * 1024 // 4 + 1
    short = row_wise(hw, 1000, int(long) - 1).dram_bytes[0] / (long - 1)
    assert row_wise(hw, 1000, int(long)).dram_bytes[0] / long == pytest.approx(1.5 * short)


def test_pooling_reads_inputs_once() -> None:
    assert reduction(preset("t4"), 4 * 10**6, 10**6).dram_bytes[0] == 5 * 10**6 * 4


def test_fused_attention_beats_its_parts_and_causal_halves_the_work() -> None:
    hw = preset("a100_sxm_80")
    fused = attention(hw, 8, 16, 2048, 2048, 64)
    scores = gemm(hw, 2048, 2048, 64, batch=128).seconds[0] + gemm(hw, 2048, 64, 2048, batch=128).seconds[0]
    softmax = row_wise(hw, 8 * 16 * 2048, 2048, dtype="fp16").seconds[0]
    assert fused.seconds[0] < scores + softmax
    assert attention(hw, 8, 16, 2048, 2048, 64, causal=True).flops[0] == pytest.approx(fused.flops[0] / 2)
    assert fused.seconds[0] >= fused.bound_s[0]


def test_unfused_lstm_is_slower_and_more_so_for_small_layers() -> None:
    """EcoRNN (Zheng et al.) reports up to 3x for fusing an LSTM's small kernels."""
    hw = preset("v100_sxm2")
    ratios = {
        (hidden, batch): recurrent(hw, layers(hidden, batch, inputs=hidden), dtype="fp32", mode="unfused").seconds[0]
        / recurrent(hw, layers(hidden, batch, inputs=hidden), dtype="fp32").seconds[0]
        for hidden in (512, 1024)
        for batch in (32, 64, 128)
    }
    assert all(1.5 < ratio < 4 for ratio in ratios.values()), ratios
    assert all(ratios[512, batch] > ratios[1024, batch] for batch in (32, 64, 128)), ratios


def test_persistent_weights_pay_off_for_small_batches() -> None:
    hw, problem = preset("v100_sxm2"), layers(512, 4, 1000)
    assert persistent_fits(hw, problem, "lstm", "fp16").all()
    kept = recurrent(hw, problem, mode="persistent").seconds[0]
    assert kept < recurrent(hw, problem).seconds[0]


def test_persistent_weights_that_do_not_fit_are_refused_with_the_largest_size() -> None:
    with pytest.raises(UsageError, match=r"hidden size 8192 in fp16 does not fit on chip; up to \d+ does"):
        recurrent(preset("v100_sxm2"), layers(8192, 4), mode="persistent")
    with pytest.raises(UsageError, match="'lstn' is not a recurrent cell"):
        recurrent(preset("v100_sxm2"), layers(512, 4), cell="lstn")


def test_a_wavefront_of_layers_takes_fewer_steps_than_layers_in_turn() -> None:
    hw = preset("v100_sxm2")
    one = recurrent(hw, layers(512, 8, 100), dtype="fp32").seconds[0]
    four = recurrent(hw, layers(512, 8, 100, count=4), dtype="fp32").seconds[0]
    assert one < four < 4 * one


def test_training_stores_gates() -> None:
    hw, problem = preset("v100_sxm2"), layers(1024, 64)
    kept = recurrent(hw, problem, dtype="fp32", training=True)
    assert kept.dram_bytes[0] - recurrent(hw, problem, dtype="fp32").dram_bytes[0] == 50 * 64 * 1024 * 4 * 4


def test_eager_calls_have_a_floor_and_others_have_not() -> None:
    kernels = np.array([1e-6, 1e-3])
    assert observed_seconds(kernels, "eager", 5, 30).tolist() == pytest.approx([30e-6, 1005e-6])
    assert observed_seconds(kernels, "graph", 5, 30).tolist() == pytest.approx([6e-6, 1005e-6])


def test_the_fastest_algorithm_is_chosen_problem_by_problem() -> None:
    def option(seconds: list[float]) -> Estimate:
        array = np.array(seconds)
        return Estimate(array, array, array, array, array, array)

    found = choose({"a": option([1.0, np.inf]), "b": option([2.0, 3.0])})
    assert found.algorithm == ("a", "b")
    assert found.seconds.tolist() == [1.0, 3.0]
