"""Ops computed in float inside an int8 network equal what onnxruntime computes between dequantize and quantize."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from int8_parity import differences

from dse.compiler import quantize
from dse.ir import Graph, Op, Tensor

#: kind -> attributes, for functions of one value: their whole input space is 256 codes.
UNARY: dict[str, dict[str, Any]] = {
    "elu": {"alpha": 1.0}, "selu": {"alpha": 1.6732632, "gamma": 1.050701}, "hard_sigmoid": {"alpha": 0.2, "beta": 0.5},
    "hard_swish": {}, "softplus": {}, "softsign": {}, "tanh": {}, "erf": {}, "exp": {}, "abs": {}, "neg": {},
    "sign": {}, "floor": {}, "ceil": {}, "round": {}, "sin": {}, "cos": {}, "gelu": {"approximate": "none"},
}  # fmt: skip
RESIZE = {
    "mode": "linear",
    "coordinates": "half_pixel",
    "rounding": "floor",
    "cubic_a": -0.75,
    "exclude_outside": False,
}
#: name -> kind, shape in, shape out, attributes, shapes of constants behind the input.
OTHERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], list[tuple[int, ...]]]] = {
    "softmax": ("softmax", (1, 6, 16), (1, 6, 16), {"axis": 2}, []),
    "log_softmax": ("log_softmax", (1, 6, 16), (1, 6, 16), {"axis": 1}, []),
    "layer_norm": ("layer_norm", (1, 6, 16), (1, 6, 16), {"axis": 2, "epsilon": 1e-5}, [(16,), (16,)]),
    "instance_norm": ("instance_norm", (1, 4, 5, 6), (1, 4, 5, 6), {"epsilon": 1e-5}, [(4,), (4,)]),
    "lrn": ("lrn", (1, 16, 9, 9), (1, 16, 9, 9), {"size": 5, "alpha": 0.3, "beta": 0.75, "bias": 1.0}, []),
    "reduce_mean": ("reduce_mean", (1, 6, 16), (1, 16), {"axes": (1,), "keepdims": False}, []),
    "reduce_sum": ("reduce_sum", (1, 6, 16), (1, 6, 1), {"axes": (2,), "keepdims": True}, []),
    "reduce_max": ("reduce_max", (1, 6, 16), (1, 16), {"axes": (1,), "keepdims": False}, []),
    "nearest": ("resize", (1, 3, 4, 5), (1, 3, 8, 10), {**RESIZE, "mode": "nearest", "scales": (1.0, 1.0, 2.0, 2.0),
                                                        "coordinates": "asymmetric"}, []),
    "linear": ("resize", (1, 3, 4, 5), (1, 3, 8, 10), {**RESIZE, "scales": (1.0, 1.0, 2.0, 2.0)}, []),
    "sum with a row": ("add", (1, 6, 16), (1, 6, 16), {"activation": "relu"}, [(16,)]),
    "product with a column": ("mul", (1, 6, 16), (1, 6, 16), {}, [(6, 1)]),
    "difference": ("sub", (1, 6, 16), (1, 6, 16), {}, [(6, 16)]),
    "quotient": ("div", (1, 6, 16), (1, 6, 16), {}, [(16,)]),
    "power": ("pow", (1, 6, 16), (1, 6, 16), {}, [()]),
    "prelu": ("prelu", (1, 4, 5, 6), (1, 4, 5, 6), {}, [(4, 1, 1)]),
}  # fmt: skip


def one(
    kind: str, shape: tuple[int, ...], after: tuple[int, ...], attributes: dict[str, Any], more: list[Any]
) -> Graph:
    rng = np.random.default_rng(len(kind))
    tensors = {"x": Tensor("x", shape), "y": Tensor("y", after)}
    for place, size in enumerate(more):
        values = np.full(size, 2, np.float32) if kind == "pow" else rng.uniform(0.4, 1.6, size).astype(np.float32)
        tensors[f"c{place}"] = Tensor(f"c{place}", size, data=values)
    op = Op("op", kind, ("x", *(f"c{place}" for place in range(len(more)))), ("y",), attributes)
    return Graph("net", tensors, (op,), ("x",), ("y",))


def quantized(graph: Graph, seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((8, *graph["x"].shape[1:])) * rng.uniform(0.5, 3)
    # a softmax that ends a network is left to the host, so the island is followed by an int8 op
    tail = Op("tail", "identity", ("y",), ("z",))
    tensors = {**graph.tensors, "z": Tensor("z", graph["y"].shape)}
    return quantize(Graph("net", tensors, (*graph.ops, tail), ("x",), ("z",)), {"x": samples.astype(np.float32)})


@pytest.mark.parametrize("kind", UNARY)
def test_functions_of_one_value_equal_onnxruntime_on_all_codes(kind: str) -> None:
    codes = np.arange(-128, 128, dtype=np.int8).reshape(1, 256)
    for seed in range(8):
        graph = quantized(one(kind, (1, 256), (1, 256), UNARY[kind], []), seed)
        assert differences(graph, {"x": codes}, "unoptimised") == {"z": (0, 256)}


@pytest.mark.parametrize("name", OTHERS)
def test_other_ops_equal_onnxruntime_on_random_codes(name: str) -> None:
    kind, shape, after, attributes, more = OTHERS[name]
    for seed in range(3):
        graph = quantized(one(kind, shape, after, attributes, more), seed)
        codes = np.random.default_rng(seed).integers(-128, 128, (20, *shape[1:])).astype(np.int8)
        ((wrong, total),) = differences(graph, {"x": codes}, "unoptimised").values()
        assert total >= 20
        assert wrong == 0
