"""Products with a constant per channel go into the layer before them, and nothing else does."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dse.compiler import prepare
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_float

CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1, "activation": "none"}
RNG = np.random.default_rng(0)


def network(factor: Any, *, activation: str = "none", twice: bool = False, swapped: bool = False) -> Graph:
    """conv, times `factor`, plus an offset; the conv read once more with `twice`."""
    shapes = {"x": (1, 3, 5, 5), "c": (1, 4, 5, 5), "m": (1, 4, 5, 5), "y": (1, 4, 5, 5)}
    tensors = {name: Tensor(name, shape) for name, shape in shapes.items()}
    data = {
        "w": RNG.standard_normal((4, 3, 3, 3)), "b": RNG.standard_normal(4), "f": np.asarray(factor),
        "o": RNG.standard_normal((4, 1, 1)),
    }  # fmt: skip
    tensors |= {name: Tensor(name, item.shape, data=item.astype(np.float32)) for name, item in data.items()}
    ops = (
        Op("conv", "conv", ("x", "w", "b"), ("c",), {**CONV, "activation": activation}),
        Op("scale", "mul", ("f", "c") if swapped else ("c", "f"), ("m",)),
        Op("shift", "add", ("m", "o"), ("y",), {"activation": "none"}),
    )
    return Graph("net", tensors, ops, ("x",), ("y", "c") if twice else ("y",))


def same(before: Graph, after: Graph) -> None:
    x = {"x": RNG.standard_normal((3, 3, 5, 5)).astype(np.float32)}
    for name, wanted in run_float(before, x).items():
        np.testing.assert_allclose(run_float(after, x)[name], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), ()])
def test_scale_and_shift_become_weights_and_bias(shape: tuple[int, ...], swapped: bool) -> None:
    graph = network(RNG.uniform(-2, 2, shape), swapped=swapped)
    ready = prepare(graph)
    assert [op.kind for op in ready.ops] == ["conv"]
    same(graph, ready)


@pytest.mark.parametrize("graph", [
    network(RNG.uniform(1, 2, (5, 5))), network(RNG.uniform(1, 2, (4, 1, 1)), activation="relu"),
    network(RNG.uniform(1, 2, (4, 1, 1)), twice=True),
], ids=["by position", "behind a relu", "read twice"])  # fmt: skip
def test_other_products_stay(graph: Graph) -> None:
    ready = prepare(graph)
    assert "mul" in [op.kind for op in ready.ops]
    same(graph, ready)


def test_integers_are_never_folded() -> None:
    """Their values mean nothing without their scale."""
    graph = network(np.ones((4, 1, 1)))
    of = Quantization((0.5,), 3)
    codes = replace(graph["f"], dtype="int8", quantization=of, data=np.full((4, 1, 1), 5, np.int8))
    ready = prepare(replace(graph, tensors={**graph.tensors, "f": codes}))
    assert "mul" in [op.kind for op in ready.ops]


def test_absurd_weights_fold_without_a_word() -> None:
    graph = network(np.full((4, 1, 1), 3e38))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready = prepare(graph)
    weight = ready[ready.ops[0].inputs[1]].data
    assert weight is not None
    assert not np.isfinite(weight).all()
