"""A network on a GPU: values of its tiles, metrics that add up, decisions, properties over hardware, expected error."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_graphs import residual_block
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.gpu import GpuAccelerator, GpuHardware, preset
from accelerators.gpu.bands import Band, band, joint_percent, validated
from accelerators.gpu.executable import GpuExecutable
from accelerators.gpu.losses import LOSSES
from accelerators.gpu.values import rounded
from dse.backend import Decisions, RtlUnavailable
from dse.compiler import prepare
from dse.core.errors import InfeasibleError, ModelError, UsageError
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.ir.reference import run_float
from dse.sim import simulate_a, simulate_c

FAMILY = GpuAccelerator()


@cache
def network(name: str) -> Graph:
    return residual_block() if name == "block" else prepare(load_workload(f"zoo:{name}", Path()))


def compiled(name: str, gpu: str = "a100_sxm_80", **decisions: Any) -> GpuExecutable:
    return FAMILY.lower(network(name), preset(gpu), Decisions(decisions))


@pytest.mark.parametrize("fusion", ["none", "elementwise", "epilogue"])
@pytest.mark.parametrize("name", ["block", "resnet8", "lstm_kws", "encoder_tiny"])
def test_values_are_the_references_up_to_rounding(name: str, fusion: str) -> None:
    graph, executable = network(name), compiled(name, "titan_x_pascal", fusion=fusion)
    rng = np.random.default_rng(1)
    inputs = {item: rng.standard_normal((2, *graph[item].shape[1:])).astype(np.float32) for item in graph.inputs}
    found, expected = executable.run(inputs), run_float(graph, inputs)
    for output, values in expected.items():
        assert np.abs(found[output] - values).max() <= 1e-5 * np.abs(values).max()


def test_fixed_tiles_and_split_k_compute_the_same_values() -> None:
    graph = network("block")
    inputs = {"x": np.random.default_rng(2).standard_normal((1, 8, 10, 10)).astype(np.float32)}
    (expected,) = run_float(graph, inputs).values()
    executable = compiled("block", "titan_x_pascal", tile="64x64", split_k=4, winograd=False)
    assert {tuple(row[:2]) for row in executable.times.grid if row[0]} == {(64.0, 64.0)}
    (found,) = executable.run(inputs).values()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_narrow_operands_round_to_their_mantissa() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert np.array_equal(rounded(x, "fp32"), x)
    assert np.array_equal(rounded(x, "fp16"), x.astype(np.float16).astype(np.float32))
    error = np.abs(rounded(x, "bf16") - x) / np.abs(x)
    assert 2**-10 < error.max() <= 2**-8


def test_types_without_arithmetic_and_missing_inputs_are_refused() -> None:
    with pytest.raises(ModelError, match="int8 is for time and energy only"):
        compiled("block", dtype="int8").run({"x": np.zeros((1, 8, 10, 10))})
    with pytest.raises(ModelError, match=r"input 'x' takes \[1, 8, 10, 10\] .*got nothing"):
        compiled("block").run({})


@pytest.mark.parametrize("protocol", ["graph", "stream", "eager"])
@pytest.mark.parametrize(("name", "gpu"), [("resnet50", "h100_sxm"), ("mobilenet_v2", "t4"), ("crnn", "v100_pcie"),
                                           ("unet_small", "k80"), ("encoder_tiny", "mi210")])  # fmt: skip
def test_metrics_add_up_and_keep_the_power_limit(name: str, gpu: str, protocol: str) -> None:
    executable = compiled(name, gpu, batch=4, protocol=protocol)
    found = executable.estimate()  # the constructor checks sums and bounds
    assert found.power_mw <= preset(gpu).tdp_w * 1e3 * (1 + 1e-6)
    assert all(set(layer.losses) <= set(LOSSES) for layer in found.layers)
    for layer in found.layers:
        assert layer.losses, layer.name
        total = math.fsum(layer.losses.values()) + layer.useful_macs / found.peak_macs_per_cycle
        assert total == pytest.approx(layer.cycles)
    seconds = executable.times
    assert (seconds.kernel_s >= seconds.bound_s * (1 - 1e-9)).all()


@pytest.mark.parametrize("name", ["resnet8", "crnn"])
def test_a_simulated_timeline_gives_the_estimate(name: str) -> None:
    executable = compiled(name, "t4", batch=2)
    estimate, graph = executable.estimate(), executable.task_graph()
    for timeline in (simulate_a(graph), simulate_c(graph)):
        found = executable.metrics(timeline)
        assert [layer.cycles for layer in found.layers] == [layer.cycles for layer in estimate.layers]
        assert found.energy_pj == estimate.energy_pj


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["resnet50", "mobilenet_v2", "lstm_lm"]), st.integers(1, 32),
       st.sampled_from(["sms", "dram_gb_s", "l2_gb_s", "clock_mhz"]), st.floats(1.05, 2))  # fmt: skip
def test_a_larger_gpu_is_never_slower(name: str, batch: int, field: str, factor: float) -> None:
    # the power limit lifted: it takes back what a faster clock gives
    hw = preset("a100_sxm_80").model_copy(update={"tdp_w": 5000.0, "clock_mhz": 900.0})
    value = getattr(hw, field) * factor
    larger = hw.model_copy(update={field: math.ceil(value) if field == "sms" else value})
    before, after = (
        FAMILY.lower(network(name), design, Decisions({"batch": batch})).estimate().latency_ms
        for design in (hw, larger)
    )
    assert after <= before * (1 + 1e-6)


def test_fusion_batch_and_graphs_pay_off() -> None:
    times = {
        fusion: compiled("resnet50", fusion=fusion).estimate().latency_ms
        for fusion in ("none", "elementwise", "epilogue")
    }
    assert times["epilogue"] < times["elementwise"] < times["none"]
    one, many = (compiled("resnet50", batch=batch).estimate().latency_ms / batch for batch in (1, 32))
    assert many < one / 3
    graph, eager = (compiled("mobilenet_v2", protocol=p).estimate().latency_ms for p in ("graph", "eager"))
    assert eager > 2 * graph


def test_no_fixed_kernel_choice_beats_the_free_one() -> None:
    free = compiled("resnet50", batch=8).times.core_s
    for decisions in ({"tile": "128x128"}, {"split_k": 1}, {"split_k": 4}):
        assert (compiled("resnet50", batch=8, **decisions).times.core_s >= free * (1 - 1e-9)).all()


def test_recurrent_modes() -> None:
    times = {mode: compiled("lstm_lm", "v100_sxm2", rnn=mode).estimate().latency_ms
             for mode in ("auto", "standard", "persistent", "unfused")}  # fmt: skip
    assert times["auto"] == min(times["standard"], times["persistent"])
    assert times["unfused"] > times["standard"]
    small = preset("v100_sxm2").model_copy(update={"sms": 1})
    with pytest.raises(InfeasibleError, match=r"does not fit.*rnn=auto falls back"):
        FAMILY.lower(network("lstm_lm"), small, Decisions({"rnn": "persistent"}))


@pytest.mark.parametrize(("name", "value", "message"), [
    ("dtype", "fp61", "did you mean 'fp16'"), ("fusion", "all", "elementwise"), ("batch", 0, "1..65536"),
    ("split_k", 2.5, "whole number"), ("winograd", 1, "neither true nor false"), ("dtype", "fp8", "does not multiply"),
])  # fmt: skip
def test_wrong_decisions_are_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compiled("block", "v100_sxm2", **{name: value})


def test_a_tile_must_fit_the_sm_and_be_in_the_library() -> None:
    with pytest.raises(InfeasibleError, match=r"tile 96x96 is not in the library.*128x128"):
        compiled("block", tile="96x96")
    tiny = preset("h100_sxm").model_copy(update={"shared_kib": 4.0})
    with pytest.raises(InfeasibleError, match="no thread-block tile fits"):
        FAMILY.lower(network("block"), tiny, Decisions())
    with pytest.raises(InfeasibleError, match="shared_kib"):
        compiled("block", "t4", stages=16, dtype="fp16")


def test_a_clock_beyond_the_node_is_refused() -> None:
    fast = preset("a100_sxm_80").model_copy(update={"clock_mhz": 3900.0})
    assert [item.limit for item in FAMILY.check(fast)] == ["clock_mhz"]
    assert not any(FAMILY.check(GpuHardware(**hardware)) for hardware in FAMILY.presets().values())


def test_a_faster_design_pays_for_its_clock() -> None:
    energies = [
        FAMILY.lower(network("resnet50"), GpuHardware(clock_mhz=clock), Decisions({"batch": 8})).estimate().energy_pj
        for clock in (900.0, 1400.0, 1900.0)
    ]
    assert energies[0]["arithmetic"] < energies[1]["arithmetic"] < energies[2]["arithmetic"]


def test_there_is_no_rtl_and_the_reason_is_given() -> None:
    found = FAMILY.rtl(preset("t4"))
    assert isinstance(found, RtlUnavailable)
    assert "describes no circuit" in found.reason


def test_one_matrix_rate_scales_every_type() -> None:
    hw = GpuHardware(rates={"fp16": 2048, "tf32": 1024, "int8": 4096}, matrix_flop_clk=512)
    assert (hw.rates.fp16, hw.rates.tf32, hw.rates.int8, hw.rates.fp8) == (512, 256, 1024, 0)
    assert GpuHardware(**hw.model_dump()) == hw


# -- expected error ------------------------------------------------------------------------------------------------


def test_the_band_of_a_measured_gpu_is_what_validation_found() -> None:
    (row,) = [r for r in validated() if (r["gpu"], r["op"], r["constants"]) == ("h100_sxm", "gemm/fp8", "zero-fit")]
    found = band(preset("h200_sxm"), "gemm", "fp8")
    assert found == Band(pytest.approx(row["mape"]), row["count"], "gpu")


def test_bands_fall_back_to_other_gpus_and_types_and_say_so() -> None:
    scopes = {(gpu, dtype): band(preset(gpu), "conv.forward", dtype) for gpu, dtype in
              (("v100_pcie", "fp16"), ("h100_sxm", "fp16"), ("h100_sxm", "tf32"))}  # fmt: skip
    assert [found.scope for found in scopes.values() if found] == ["gpu", "type", "op"]
    assert band(preset("t4"), "sparse", "fp16") is None


def test_errors_of_kernels_join_by_their_share_of_the_time() -> None:
    assert joint_percent([3.0, 1.0], [Band(10, 5, "gpu"), Band(30, 5, "gpu")]) == 15
    assert joint_percent([1.0, 1.0], [Band(10, 5, "gpu"), None]) == 10
    assert joint_percent([1.0], [None]) is None


def test_every_estimate_carries_its_expected_error() -> None:
    found = compiled("resnet50", "h100_sxm", batch=64).estimate()
    bands = {item.percent for item in compiled("resnet50", "h100_sxm").bands if item}
    assert min(bands) <= found.accuracy["latency_error_percent"] <= max(bands)
    assert all("+-" in layer.mapping for layer in found.layers)
