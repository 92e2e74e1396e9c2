"""ResNet-8 whole: the compiled program equals onnxruntime on the exported integer network, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import calibration_images, prepare, quantize
from dse.ir import Graph
from dse.ir.reference import run_quantized
from workloads.onnx.export import export_quantized
from workloads.zoo import ZooFrontend

IMAGES = 100


@pytest.fixture(scope="module")
def network() -> Graph:
    graph = prepare(ZooFrontend().load("resnet8", Path("."), {}))
    return quantize(graph, calibration_images(graph, 32, 0), weight_bits=8)


@pytest.fixture(scope="module")
def images(network: Graph) -> np.ndarray:
    shape = network[network.inputs[0]].shape
    return np.random.default_rng(7).integers(-128, 128, (IMAGES, *shape)).astype(np.int8)


def test_program_equals_onnxruntime_in_mode_ort(network: Graph, images: np.ndarray) -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(export_quantized(network).SerializeToString(), providers=["CPUExecutionProvider"])
    hw = SystolicHardware(requantize="ort")
    program = SystolicAccelerator().lower(network, hw, Decisions())
    name, output = network.inputs[0], network.outputs[0]
    mismatches = 0
    for image in images:
        expected = session.run(None, {name: image})[0]
        mismatches += int((program.run({name: image})[output] != expected).sum())
    assert mismatches == 0


def test_mode_q31_stays_within_one_step_of_ort(network: Graph, images: np.ndarray) -> None:
    """The program in q31 equals the q31 reference; against ort it differs by at most 1 LSB on few logits."""
    program = SystolicAccelerator().lower(network, SystolicHardware(requantize="q31"), Decisions())
    name, output = network.inputs[0], network.outputs[0]
    differences = []
    for index, image in enumerate(images):
        exact = run_quantized(network, {name: image}, "ort")[output].astype(int)
        cheap = run_quantized(network, {name: image}, "q31")[output].astype(int)
        if index < 10:
            np.testing.assert_array_equal(program.run({name: image})[output].astype(int), cheap)
        differences.append(np.abs(exact - cheap))
    assert max(int(d.max()) for d in differences) <= 1
    assert float(np.mean([d > 0 for d in differences])) < 0.01
