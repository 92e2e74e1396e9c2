"""Integers that stand for float32 arithmetic: right for every input where there are some, refused where none exist."""

from __future__ import annotations

import math

import numpy as np
from element_oracle import rounded, saturated
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.systolic.element_exact import add_fields, average_fields, mul_fields
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_quantized

scales = st.floats(0.002, 0.2).map(lambda value: float(np.float32(value)))
zeros = st.integers(-128, 127)
codes = st.integers(-128, 127)


def pair(kind: str, of: list[tuple[float, int]], shape: tuple[int, ...] = (1, 1, 1, 1)) -> Graph:
    tensors = {
        name: Tensor(name, shape, "int8", Quantization((scale,), zero))
        for name, (scale, zero) in zip("aby", of, strict=True)
    }
    attributes = {"activation": "none"} if kind == "add" else {}
    return Graph("pair", tensors, (Op("op", kind, ("a", "b"), ("y",), attributes),), ("a", "b"), ("y",))


def pool(kind: str, size: tuple[int, int], of_x: tuple[float, int], of_y: tuple[float, int]) -> Graph:
    tensors = {
        "x": Tensor("x", (1, 1, *size), "int8", Quantization((of_x[0],), of_x[1])),
        "y": Tensor("y", (1, 1, 1, 1), "int8", Quantization((of_y[0],), of_y[1])),
    }
    attributes = {"kernel": size, "strides": (1, 1), "pads": (0, 0, 0, 0), "count_include_pad": True}
    op = Op("op", kind, ("x",), ("y",), attributes if kind == "average_pool" else {})
    return Graph("pool", tensors, (op,), ("x",), ("y",))


@settings(max_examples=40, deadline=None)
@given(a=scales, b=scales, y=scales, za=zeros, zb=zeros, zy=zeros, mode=st.sampled_from(["ort", "q31"]), data=st.data())
def test_sums_equal_the_reference_where_integers_are_found(
    a: float, b: float, y: float, za: int, zb: int, zy: int, mode: str, data: st.DataObject
) -> None:
    graph = pair("add", [(a, za), (b, zb), (y, zy)], (1, 1, 1, 40))
    fields = add_fields(graph, graph.ops[0], mode)
    if fields is None:
        assert mode == "ort"
        return
    values = {name: np.array(data.draw(st.lists(codes, min_size=40, max_size=40)), np.int8) for name in "ab"}
    wanted = run_quantized(graph, {n: v.reshape(1, 1, 1, 40) for n, v in values.items()}, mode)["y"].ravel()
    for first, second, target in zip(values["a"].tolist(), values["b"].tolist(), wanted.tolist(), strict=True):
        total = (first - fields["zero_a"]) * fields["multiplier_a"] + (second - fields["zero_b"]) * fields[
            "multiplier_b"
        ]
        assert saturated(rounded(total, fields["shift"], fields["rounding"]) + fields["zero_point"], 8) == target


@settings(max_examples=40, deadline=None)
@given(a=scales, b=scales, y=scales, za=zeros, zb=zeros, zy=zeros, data=st.data())
def test_products_equal_the_reference_where_integers_are_found(
    a: float, b: float, y: float, za: int, zb: int, zy: int, data: st.DataObject
) -> None:
    graph = pair("mul", [(a, za), (b, zb), (y, zy)], (1, 1, 1, 40))
    fields = mul_fields(graph, graph.ops[0], "ort")
    if fields is None:
        return
    values = {name: np.array(data.draw(st.lists(codes, min_size=40, max_size=40)), np.int8) for name in "ab"}
    wanted = run_quantized(graph, {n: v.reshape(1, 1, 1, 40) for n, v in values.items()}, "ort")["y"].ravel()
    for first, second, target in zip(values["a"].tolist(), values["b"].tolist(), wanted.tolist(), strict=True):
        product = (first - fields["zero_a"]) * (second - fields["zero_b"]) * fields["multiplier_a"]
        assert saturated(rounded(product, fields["shift"], fields["rounding"]) + fields["zero_point"], 8) == target


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["average_pool", "global_average_pool"]),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    of_x=st.tuples(scales, st.one_of(st.just(-128), zeros)),
    of_y=st.tuples(scales, zeros),
    seed=st.integers(0, 2**32 - 1),
)
def test_averages_equal_the_reference_where_integers_are_found(
    kind: str, size: tuple[int, int], of_x: tuple[float, int], of_y: tuple[float, int], seed: int
) -> None:
    graph = pool(kind, size, of_x, of_y)
    fields = average_fields(graph, graph.ops[0], math.prod(size))
    if fields is None:
        return
    rng = np.random.default_rng(seed)
    for _ in range(30):
        low, high = np.sort(rng.integers(-128, 128, 2))
        x = rng.integers(low, high + 1, (1, 1, *size)).astype(np.int8)
        total = (int(x.sum(dtype=np.int64)) - fields["zero_a"] * x.size) * fields["multiplier_a"]
        found = saturated(rounded(total, fields["shift"], fields["rounding"]) + fields["zero_point"], 8)
        assert found == int(run_quantized(graph, {"x": x}, "ort")["y"].item())


def test_integers_are_found_for_most_sums_averages_and_products_of_random_scales() -> None:
    """The search is worth its place: it would be pointless if it found next to nothing."""
    rng = np.random.default_rng(5)
    found = {"add": 0, "mul": 0, "global_average_pool": 0}
    for _ in range(40):
        of = [(float(np.float32(rng.uniform(0.005, 0.1))), int(rng.integers(-128, 128))) for _ in range(3)]
        graph = pair("add", of)
        found["add"] += add_fields(graph, graph.ops[0], "ort") is not None
        graph = pair("mul", of)
        found["mul"] += mul_fields(graph, graph.ops[0], "ort") is not None
        graph = pool("global_average_pool", (7, 7), of[0], of[2])
        found["global_average_pool"] += average_fields(graph, graph.ops[0], 49) is not None
    assert min(found.values()) >= 20, found


def test_averages_that_end_in_ties_and_sums_with_a_clamp_are_left_to_the_host() -> None:
    """A quarter of four values ends in a tie, whose side depends on float32 roundings; a relu has no field."""
    graph = pool("average_pool", (2, 2), (0.05, 3), (0.05, 3))
    assert average_fields(graph, graph.ops[0], 4) is None
    graph = pool("average_pool", (3, 3), (0.05, 3), (0.05, 3))
    assert average_fields(graph, graph.ops[0], 9) is not None
    graph = pair("add", [(0.05, 0), (0.04, 0), (0.06, 0)])
    clamped = Op("op", "add", ("a", "b"), ("y",), {"activation": "relu"})
    assert add_fields(graph, clamped, "q31") is None
    assert add_fields(graph, graph.ops[0], "q31") is not None
