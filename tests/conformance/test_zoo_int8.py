"""Networks of the zoo beyond plain CNNs, quantized here, equal onnxruntime's int8 in every tensor inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from int8_parity import differences, every_tensor

from dse.compiler import calibration_images, prepare, quantize
from dse.ir import Graph
from dse.ir.quantized import quantize_inputs
from dse.ir.reference import run_quantized
from workloads.zoo import ZooFrontend


def compared(name: str, level: str) -> tuple[Graph, dict[str, tuple[int, int]]]:
    """The int8 network, and by tensor how many values differ out of how many, on two images."""
    graph = prepare(ZooFrontend().load(name, Path("."), {}))
    quantized = quantize(graph, calibration_images(graph, 4, 0))
    images = quantize_inputs(quantized, calibration_images(graph, 2, 9))
    first = run_quantized(quantized, {item: values[:1] for item, values in images.items()}, "ort")
    # outputs that stand still would prove nothing
    assert all(len(np.unique(values)) > min(5, values.size - 1) for values in first.values())
    return quantized, differences(every_tensor(quantized), images, level)


@pytest.mark.parametrize("level", ["unoptimised", "optimised"])
@pytest.mark.parametrize("name", ["ds_cnn", "autoencoder", "mobilenet_v1_025_96"])
def test_tiny_networks_equal_onnxruntime_whatever_it_fuses(name: str, level: str) -> None:
    _, found = compared(name, level)
    assert {item: pair for item, pair in found.items() if pair[0]} == {}


def test_a_transformer_encoder_with_its_islands_equals_onnxruntime_as_written() -> None:
    """Optimised, onnxruntime puts a softmax of its own between int8 tensors, which rounds otherwise."""
    graph, found = compared("encoder_tiny", "unoptimised")
    islands = {op.kind for op in graph.ops if op.attributes.get("between_reals")}
    assert islands == {"layer_norm", "softmax", "div", "erf"}
    assert {item: pair for item, pair in found.items() if pair[0]} == {}
