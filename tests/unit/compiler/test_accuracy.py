"""Figures of a quantized network: counted by hand, the same however samples are cut, refused where meaningless."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.compiler import (
    Recipe,
    accuracy,
    calibration_batches,
    calibration_images,
    float_accuracy,
    layer_noise,
    prepare,
    quantize,
    sqnr_db,
)
from dse.core.errors import UsageError
from dse.ir import Graph, Op, Tensor
from dse.ir.quantized import dequantize, quantization_of, quantize_inputs
from dse.ir.reference import run_float, run_quantized
from workloads.zoo import ZooFrontend


def identity_classifier(classes: int) -> Graph:
    """y = x: the largest input is the predicted class."""
    weight = np.eye(classes, dtype=np.float32)
    tensors = {
        "x": Tensor("x", (1, classes)), "y": Tensor("y", (1, classes)), "w": Tensor("w", weight.shape, data=weight),
    }  # fmt: skip
    return Graph("net", tensors, (Op("layer", "gemm", ("x", "w"), ("y",), {"activation": "none"}),), ("x",), ("y",))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 20))
def test_accuracy_is_the_share_of_right_classes(seed: int, classes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    graph = identity_classifier(classes)
    # levels far apart: rounding moves no winner
    order = np.stack([rng.permutation(classes) for _ in range(count)])
    images = {"x": (order / classes).astype(np.float32)}
    labels = rng.integers(0, classes, count)
    right = sum(int(np.argmax(row) == label) for row, label in zip(order, labels, strict=True)) / count
    assert float_accuracy(graph, images, labels) == pytest.approx(right)
    figures = accuracy(graph, quantize(graph, images), "ort", images, labels)
    assert figures["accuracy"] == pytest.approx(right)
    assert figures["top1_agreement"] == 1
    assert "accuracy" not in accuracy(graph, quantize(graph, images), "ort", images)


def test_figures_do_not_depend_on_how_the_samples_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    images = calibration_images(graph, 11, 1)
    labels = np.arange(11, dtype=np.int64) % 10
    quantized = quantize(graph, images)
    whole = accuracy(graph, quantized, "q31", images, labels)
    rows = layer_noise(graph, quantized, "q31", images)
    monkeypatch.setattr(calibration_batches, "_BATCH_ELEMENTS", 10_000)
    assert accuracy(graph, quantized, "q31", images, labels) == pytest.approx(whole, rel=1e-5)
    for one, other in zip(rows, layer_noise(graph, quantized, "q31", images), strict=True):
        assert one.sqnr_db == pytest.approx(other.sqnr_db, rel=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
def test_layer_noise_is_the_sqnr_of_each_tensor(bits: int) -> None:
    graph = prepare(ZooFrontend().load("tiny_cnn", Path("."), {}))
    images = calibration_images(graph, 4, 2)
    quantized = quantize(graph, images, Recipe(weight_bits=bits))
    integers = run_quantized(quantized, quantize_inputs(quantized, images), "ort", keep=True)
    reals = run_float(graph, images, keep=True)
    rows = layer_noise(graph, quantized, "ort", images)
    assert [row.name for row in rows] == [op.name for op in quantized.ops]
    for row, op in zip(rows, quantized.ops, strict=True):
        name = op.outputs[0]
        of = quantization_of(quantized, name)
        assert row.sqnr_db == pytest.approx(sqnr_db(reals[name], dequantize(integers[name], of)))
        # every value the tensor takes lies in the range that is told
        assert row.low - of.scale[0] <= dequantize(integers[name], of).min()
        assert dequantize(integers[name], of).max() <= row.high + of.scale[0]
        if op.kind in ("conv", "gemm"):
            assert row.weight_bits == bits
            before = next(item for item in graph.ops if item.name == op.name)
            data = quantized[op.inputs[1]].data
            assert data is not None
            weight = dequantize(data, quantization_of(quantized, op.inputs[1]))
            real = graph[before.inputs[1]].data
            assert real is not None
            assert row.weight_sqnr_db == pytest.approx(sqnr_db(real, weight))
        else:
            assert (row.weight_bits, row.weight_sqnr_db) == (None, None)


def test_labels_that_do_not_fit_are_refused() -> None:
    graph = identity_classifier(3)
    images = {"x": np.eye(3, dtype=np.float32)}
    quantized = quantize(graph, images)
    for labels, message in (
        (np.array([0, 1]), r"3 samples need as many labels, shape \(3,\), got shape \(2,\)"),
        (np.array([0, 1, 3]), "label 3 is not a class of net, whose output has 3"),
        (np.array([0, -1, 2]), "label -1 is not a class"),
    ):
        with pytest.raises(UsageError, match=message):
            accuracy(graph, quantized, "ort", images, labels)
        with pytest.raises(UsageError, match=message):
            float_accuracy(graph, images, labels)
    two = replace(graph, outputs=("y", "x"))
    with pytest.raises(UsageError, match="2 outputs"):
        float_accuracy(two, images, np.array([0, 1, 2]))
