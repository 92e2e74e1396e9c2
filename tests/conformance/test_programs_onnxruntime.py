"""Whole small networks as programs, fused and not, on three sizes of hardware: onnxruntime's bits.

The large ones (MobileNetV2, ResNet-18, SqueezeNet, ResNet-50) run in benchmarks/compiler.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from designs import FAMILY

from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.work import Fused
from dse.backend import Decisions
from dse.compiler import calibration_images, prepare, quantize
from dse.program.tile.checker import check
from workloads.zoo import ZooFrontend

SIZES = (
    SystolicHardware(rows=8, columns=8, dataflow="os", activation_kib=32, requantize="ort", descriptors=2048,
                     parameter_channels=1024, weight_kib=64, clock_mhz=200),
    SystolicHardware(rows=16, columns=16, activation_kib=64, accumulator_kib=32, requantize="ort",
                     parameter_channels=1024, weight_kib=64, clock_mhz=200),
    SystolicHardware(rows=32, columns=16, vector_lanes=8, activation_kib=128, accumulator_kib=64, requantize="ort",
                     parameter_channels=2048, weight_kib=128, clock_mhz=200),
)  # fmt: skip


@pytest.mark.parametrize("name", ["resnet8", "ds_cnn", "mobilenet_v1_025_96", "autoencoder"])
def test_whole_networks_equal_onnxruntime_on_three_sizes(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    from workloads.onnx.export import export_quantized

    graph = prepare(ZooFrontend().load(name, Path(), {}))
    network = quantize(graph, calibration_images(graph, 4, 0))
    session = ort.InferenceSession(export_quantized(network).SerializeToString(), providers=["CPUExecutionProvider"])
    source, rng = network.inputs[0], np.random.default_rng(7)
    fused = 0
    for hw in SIZES:
        for choice in ("off", "auto"):
            program = FAMILY.lower(network, hw, Decisions({"fuse_layers": choice}))
            fused += sum(isinstance(item, Fused) for item in program.work)
            image = rng.integers(-128, 128, network[source].shape).astype(np.int8)
            expected = session.run(list(network.outputs), {source: image})
            found = program.run({source: image}, order_seed=3)
            for output, wanted in zip(network.outputs, expected, strict=True):
                np.testing.assert_array_equal(found[output], wanted)
            if choice == "auto":
                for step in program.program.tile_steps:
                    assert check(step, program.program.machine, program.program.memory_bytes) == []
    assert fused > 0 or name in ("autoencoder", "resnet8")


@pytest.mark.parametrize(
    "parameter_channels",
    [
        4096,
        pytest.param(2048, marks=pytest.mark.xfail(strict=True, reason="1.88x, see docs/compiler.md")),
    ],
)
def test_fusion_halves_the_traffic_of_mobilenet_v2_without_a_price_in_time(parameter_channels: int) -> None:
    graph = prepare(ZooFrontend().load("mobilenet_v2", Path(), {}))
    preset = SystolicHardware.model_validate(FAMILY.presets()["gemmini_16x16"])
    hw = preset.model_copy(update={"activation_kib": 256, "clock_mhz": 400, "parameter_channels": parameter_channels})
    plain, fused = (
        FAMILY.lower(graph, hw, Decisions({"fuse_layers": choice})).estimate() for choice in ("off", "auto")
    )
    assert 2 * sum(row.memory_bytes for row in fused.layers) <= sum(row.memory_bytes for row in plain.layers)
    assert fused.cycles <= plain.cycles
