"""A cropped layer computes exactly what the whole network has in that window."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_inputs, random_layer
from random_networks import NetworkDraw, random_values

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


@pytest.mark.parametrize("kind", ["grouped", "depthwise"])
@pytest.mark.parametrize("seed", range(15))
def test_a_cropped_grouped_conv_keeps_whole_groups(kind: str, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    graph = random_layer(rng, kind=kind)
    values = {**random_inputs(rng, graph)}
    values |= run_quantized(graph, values, "ort", keep=True)
    _, channels, height, width = graph["y"].shape
    asked = int(rng.integers(1, channels + 1))
    tile = crop_conv(graph, graph.ops[0], None, Window(height - 1, width - 1, 1, 1, asked), values)
    groups = graph.ops[0].attributes["groups"]
    kept = -(-asked * groups // channels) * channels // groups if groups > 1 else asked
    assert tile.expected["y"].shape == (1, kept, 1, 1)
    np.testing.assert_array_equal(tile.expected["y"], values["y"][:1, :kept, -1:, -1:])
    np.testing.assert_array_equal(run_quantized(tile.graph, tile.inputs, "ort")["y"], tile.expected["y"])


def test_a_residual_that_is_the_convs_own_input_is_cropped_twice() -> None:
    """Its window under the kernel and its window under the output differ."""
    net = NetworkDraw(np.random.default_rng(8))
    x = net.input((2, 4, 9, 9))
    graph = net.graph(net.add(x, net.conv(x, 4), "relu"))
    values = run_quantized(graph, random_values(np.random.default_rng(9), graph), "q31", keep=True)
    tile = crop_conv(graph, graph.ops[0], graph.ops[1], Window(2, 3, 4, 2, 3), values)
    assert {name: value.shape for name, value in tile.inputs.items()} == {
        x: (1, 4, 6, 4),
        f"{x}:residual": (1, 3, 4, 2),
    }
    found = run_quantized(tile.graph, tile.inputs, "q31")
    for name, expected in tile.expected.items():
        np.testing.assert_array_equal(found[name], expected)


def test_windows_beyond_the_output_are_refused() -> None:
    rng = np.random.default_rng(4)
    graph = random_layer(rng, kind="conv")
    values = run_quantized(graph, random_inputs(rng, graph), "ort", keep=True)
    with pytest.raises(ModelError, match="leaves the output"):
        crop_conv(graph, graph.ops[0], None, Window(0, 0, 1000, 1, 1), values)
