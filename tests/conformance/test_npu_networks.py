"""Networks on the NPU family: bit for bit the reference; beside NVDLA's RTL, VDLA and Vela's unrolled LSTM."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from accelerators.npu import NpuAccelerator
from accelerators.npu.executable import NpuExecutable
from accelerators.npu.graph import KINDS
from accelerators.npu.hardware import NpuHardware
from accelerators.npu.nvdla import parse_trace, run_time
from dse.backend import Decisions
from dse.compiler import calibration_images, prepare, quantize
from dse.core.errors import UsageError
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.sim import simulate_a, simulate_c

SHARED = Path(__file__).parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not SHARED.exists(), reason="reference data is not beside the checkout")
FAMILY = NpuAccelerator()
#: Traces whose geometry the model does not explain: one input line of 32 bytes a surface; a single input row.
OUTLIERS = ("dc_4x1x8192_1x1x8192x1_int8_0", "dc_8192x1x1_2x3x1x41_int8_0")


def compiled(graph: Graph, preset: str, decisions: Decisions | None = None, **changes: object) -> NpuExecutable:
    hw = NpuHardware.model_validate({**FAMILY.presets()[preset], **changes})
    return FAMILY.lower(graph, hw, decisions or Decisions())


def reference_rows(name: str) -> list[dict[str, str]]:
    with (SHARED / "npu" / name).open(newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


@pytest.mark.parametrize(("model", "preset"), [("resnet8", "ethos_u55_128"), ("ds_cnn", "ethos_u55_256")])
@pytest.mark.parametrize("mode", ["ort", "q31"])
def test_networks_equal_the_reference_bit_for_bit(model: str, preset: str, mode: str) -> None:
    graph = prepare(load_workload(f"zoo:{model}", Path()))
    network = quantize(graph, calibration_images(graph, 8, 0), weight_bits=8)
    executable = compiled(network, preset, requantize=mode)
    rng = np.random.default_rng(3)
    for seed in range(2):
        inputs = {n: rng.integers(-128, 128, network[n].shape).astype(np.int8) for n in network.inputs}
        expected = run_quantized(network, inputs, mode)
        outputs = executable.run(inputs, order_seed=seed)
        for name in network.outputs:
            np.testing.assert_array_equal(outputs[name], expected[name])
    graph_of_tasks = executable.task_graph()
    assert simulate_a(graph_of_tasks).total_cycles == simulate_c(graph_of_tasks).total_cycles
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []


def test_sparse_weights_take_half_the_array_time_and_fewer_bytes() -> None:
    graph = prepare(load_workload("zoo:resnet8", Path()))
    network = quantize(graph, calibration_images(graph, 4, 0), weight_bits=8)
    tensors = dict(network.tensors)
    for op in network.ops:
        if op.kind == "conv" and network[op.inputs[1]].shape[1] % 4 == 0:
            tensor = network[op.inputs[1]]
            assert tensor.data is not None
            data = tensor.data.copy()
            data[:, 0::4] = data[:, 1::4] = 0
            tensors[tensor.name] = replace(tensor, data=data)
    pruned = replace(network, tensors=tensors)
    changes = {
        "constant_bytes_per_cycle": 16.0,
        "clock_mhz": 500.0,
        "descriptors": 4096,
        "weights_decoded_per_cycle": 64,
    }
    plain = compiled(pruned, "ethos_u85_256", sparsity="none", **changes).estimate()
    sparse = compiled(pruned, "ethos_u85_256", **changes).estimate()
    assert sparse.cycles < 0.85 * plain.cycles
    executable = compiled(pruned, "ethos_u85_256", **changes)
    inputs = {n: np.random.default_rng(0).integers(-128, 128, pruned[n].shape).astype(np.int8) for n in pruned.inputs}
    expected = run_quantized(pruned, inputs, "q31")
    for name, values in executable.run(inputs).items():
        np.testing.assert_array_equal(values, expected[name])


@needs_reference
def test_nvdla_convolutions_are_within_ten_percent_and_their_bytes_exact() -> None:
    rows = [row for row in reference_rows("nvdla_nv_small_rtl.csv") if row["trace"].startswith("dc_")]
    assert rows
    for row in rows:
        time = run_time(parse_trace(row["trace"], int(row["out_bytes"])))
        assert time.input_bytes == int(row["in_bytes"]), row
        assert time.weight_bytes == int(row["weight_bytes"]), row
        assert time.output_bytes == int(row["out_bytes"]), row
        if row["trace"] not in OUTLIERS:
            assert time.cycles == pytest.approx(int(row["cycles"]), rel=0.10), row


def test_names_that_are_no_convolution_are_refused() -> None:
    with pytest.raises(UsageError, match="convolution"):
        parse_trace("sdp_1x1x1_pass_through_int8", 8)
    with pytest.raises(UsageError, match="whole pixels"):
        parse_trace("dc_1x1x8_1x1x8x1_int8_0", 9)


def test_latency_hiding_on_vdla_raises_every_layer_and_the_peak_from_about_seventy_percent() -> None:
    graph = prepare(load_workload("zoo:resnet18", Path()))
    off, on = (compiled(graph, "vdla", Decisions({"latency_hiding": hiding})).estimate() for hiding in (False, True))
    pairs = [
        (a.utilization(256), b.utilization(256)) for a, b in zip(off.layers, on.layers, strict=True) if a.useful_macs
    ]
    assert len(pairs) == 21
    assert all(after >= before for before, after in pairs)
    peak_off, peak_on = (max(pair[i] for pair in pairs) for i in (0, 1))
    assert peak_off == pytest.approx(0.70, abs=0.05)
    assert peak_on >= 0.88


@needs_reference
def test_a_looped_lstm_takes_a_third_of_velas_unrolled_cycles_or_less() -> None:
    graph = load_workload(str(SHARED / "models" / "tflm_mnist_lstm_int8.tflite"), Path())
    rows = [
        row
        for row in reference_rows("vela_networks.csv")
        if (row["core"], row["model"]) == ("regor", "tflm_mnist_lstm_int8")
        and row["system"] == "Ethos_U55_High_End_Embedded"
    ]
    assert len(rows) == 8
    for row in rows:
        sram = {"constant_storage": "sram", "constant_bytes_per_cycle": 8, "constant_latency_cycles": 32}
        changes = sram if row["memory_mode"] == "Sram_Only" else {}
        executable = compiled(graph, f"ethos_u55_{row['accelerator'].split('-')[-1]}", **changes)
        timeline = simulate_a(executable.task_graph())
        assert 3 * timeline.total_cycles <= float(row["cycles_total"])
        # what the trace shows: weights come in once, not once a time step
        weights = (timeline.graph.kind == KINDS.index("weights")) & (timeline.graph.layer == 1)
        assert weights.sum() == 3
