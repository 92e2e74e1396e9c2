"""A cropped layer computes exactly what the whole network has in that window."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_inputs, random_layer

from dse.compiler.crop import Window, crop_conv, crop_gemm
from dse.core.errors import ModelError
from dse.ir.reference import run_quantized


@pytest.mark.parametrize("seed", range(60))
def test_cropped_conv_equals_the_window_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    add = bool(seed % 2)
    graph = random_layer(rng, kind="conv", add=add)
    values = run_quantized(graph, random_inputs(rng, graph), "q31", keep=True)
    _, channels, height, width = graph["y"].shape
    y, x = int(rng.integers(height)), int(rng.integers(width))
    window = Window(y, x, int(rng.integers(1, height - y + 1)), int(rng.integers(1, width - x + 1)), channels)
    window = Window(y, x, window.height, window.width, int(rng.integers(1, channels + 1)))
    tile = crop_conv(graph, graph.ops[0], graph.ops[1] if add else None, window, values)
    result = run_quantized(tile.graph, tile.inputs, "q31")
    assert set(result) == set(tile.expected)
    for name, expected in tile.expected.items():
        np.testing.assert_array_equal(result[name], expected)


def test_cropped_gemm_is_the_first_row() -> None:
    rng = np.random.default_rng(3)
    graph = random_layer(rng, kind="gemm")
    values = run_quantized(graph, random_inputs(rng, graph), "ort", keep=True)
    tile = crop_gemm(graph, graph.ops[0], values)
    np.testing.assert_array_equal(run_quantized(tile.graph, tile.inputs, "ort")["y"], values["y"][:1])


def test_windows_beyond_the_output_and_grouped_convs_are_refused() -> None:
    rng = np.random.default_rng(4)
    graph = random_layer(rng, kind="conv")
    values = run_quantized(graph, random_inputs(rng, graph), "ort", keep=True)
    with pytest.raises(ModelError, match="leaves the output"):
        crop_conv(graph, graph.ops[0], None, Window(0, 0, 1000, 1, 1), values)
    grouped = random_layer(np.random.default_rng(5), kind="grouped")
    values = run_quantized(grouped, random_inputs(rng, grouped), "ort", keep=True)
    with pytest.raises(ModelError, match="grouped"):
        crop_conv(grouped, grouped.ops[0], None, Window(0, 0, 1, 1, 1), values)
