"""Mutated files of several hundred kinds: each is read or refused in one clear sentence, in bounded time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx_mutation import mutated, outcome
from sequence_networks import crnn, transformer

from dse.compiler import calibration_images, prepare, quantize
from workloads.onnx import export_quantized
from workloads.zoo import ZooFrontend, small


def bound_transformer() -> onnx.ModelProto:
    model = transformer(0, 4, 8, 2, 1)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model


def quantized_cnn() -> onnx.ModelProto:
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    return export_quantized(quantize(graph, calibration_images(graph, 4, 0)))


@pytest.mark.parametrize("build", [small.build_tiny_cnn, bound_transformer, lambda: crnn(1), quantized_cnn],
                         ids=["cnn", "transformer", "crnn", "quantized"])  # fmt: skip
def test_mutations_end_in_a_network_or_a_sentence(build: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    data, rng, path = build().SerializeToString(), random.Random(11), tmp_path / "m.onnx"
    seen: Counter[str] = Counter()
    for _ in range(120):
        path.write_bytes(mutated(data, rng))
        seen[outcome(path)] += 1
    # a mutator that breaks nothing, or everything, would prove nothing
    assert min(seen["read"], seen["refused"]) >= 5
