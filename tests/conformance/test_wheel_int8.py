"""Seven networks of the `onnx` package, quantized here, equal onnxruntime's int8 in every tensor inside.

`benchmarks/wheel_int8.py` runs all nine (of 90 and 144 million weights, the calibration of ZFNet and VGG-19 alone takes
longer than the others together) on more inputs, and onnxruntime with and without its graph optimizations.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from int8_parity import differences, every_tensor
from wheel_models import quantized

from dse.compiler import calibration_images
from dse.ir.quantized import quantize_inputs
from dse.ir.reference import run_quantized

#: Inputs by network, so that all take about as long on one core.
INPUTS = {
    "squeezenet": 3, "shufflenet": 3, "inception_v1": 2, "inception_v2": 2, "resnet50": 2, "densenet121": 2,
    "bvlc_alexnet": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_every_int8_tensor_equals_onnxruntime(name: str) -> None:
    count = INPUTS[name]
    graph = quantized(name, samples=2)
    images = quantize_inputs(graph, calibration_images(graph, count, 9))
    # outputs that saturate or stand still would prove nothing
    first = run_quantized(graph, {item: values[:1] for item, values in images.items()}, "ort")
    assert len(np.unique(first[graph.outputs[0]])) > 20
    found = differences(every_tensor(graph), images, "optimised")
    assert {item: pair for item, pair in found.items() if pair[0]} == {}
    assert sum(total for _, total in found.values()) > count * 1_000_000
