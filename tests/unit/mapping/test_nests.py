"""Ops as problems: phases of transposed convolutions, steps of recurrent layers, factors of einsums."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from dse.arch import Arch
from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor, op_macs
from dse.mapping import evaluate
from dse.mapping.layers import LayerMapper, total
from dse.mapping.nests import MAPPED_KINDS, reason_unmapped, unmapped, ways


def transposed(kernel: int, stride: int, dilation: int, pad: int, groups: int = 1) -> tuple[Graph, Op, int]:
    """(graph, op, output rows) of a square transposed convolution, 4 channels, 5 rows."""
    out = (5 - 1) * stride + (kernel - 1) * dilation + 1 - 2 * pad
    attributes = {
        "strides": (stride, stride), "dilations": (dilation, dilation), "pads": (pad,) * 4, "groups": groups,
        "output_padding": (0, 0), "activation": "none",
    }  # fmt: skip
    op = Op("up", "conv_transpose", ("x", "w"), ("y",), attributes)
    shapes = {"x": (1, 4, 5, 5), "w": (4, 6 // groups, kernel, kernel), "y": (1, 6, out, out)}
    return Graph("g", {n: Tensor(n, s) for n, s in shapes.items()}, (op,), ("x", "w"), ("y",)), op, out


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("pad", [0, 1])
def test_phases_hold_every_output_row_and_kernel_row_that_meet(
    kernel: int, stride: int, dilation: int, pad: int
) -> None:
    graph, op, out = transposed(kernel, stride, dilation, pad)
    (parts,) = ways(graph, op)
    meet = [(o, r) for o, r in product(range(out), range(kernel)) if (o + pad - r * dilation) % stride == 0]
    assert sum(part.repeat * part.problem.macs for part in parts) == len(meet) ** 2 * 4 * 6
    # input rows that a phase reads lie as far apart as its window says
    for part in parts:
        bounds = dict(zip(part.problem.dims, part.problem.bounds, strict=True))
        taps = [r for r in range(kernel) if (r * dilation - meet[0][1] * dilation) % math.gcd(stride, dilation) == 0]
        assert 1 <= bounds["R"] <= len(taps)


def test_without_padding_phases_multiply_what_the_scatter_does_and_the_border() -> None:
    graph, op, _ = transposed(kernel=2, stride=2, dilation=1, pad=0)
    (parts,) = ways(graph, op)
    assert [(part.repeat, part.label) for part in parts] == [(4, "phase 1 x 1")]
    # kernel as wide as the stride: no two products meet, and none is at the border
    assert sum(part.repeat * part.problem.macs for part in parts) == op_macs(graph, op)
    graph, op, _ = transposed(kernel=3, stride=2, dilation=1, pad=0, groups=2)
    (parts,) = ways(graph, op)
    assert sum(part.repeat * part.problem.macs for part in parts) >= op_macs(graph, op)


def recurrent(kind: str, direction: str = "forward", **attributes: Any) -> tuple[Graph, Op]:
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[kind]
    directions = 2 if direction == "bidirectional" else 1
    shapes = {"x": (7, 2, 12), "w": (directions, gates * 8, 12), "r": (directions, gates * 8, 8),
              "y": (7, directions, 2, 8), "h": (directions, 2, 8)}  # fmt: skip
    op = Op("cell", kind, ("x", "w", "r"), ("y", "h"), {"hidden": 8, "direction": direction, **attributes})
    return Graph("g", {n: Tensor(n, s) for n, s in shapes.items()}, (op,), ("x", "w", "r"), ("y",)), op


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("linear", [0, 1])
def test_every_way_through_a_recurrent_layer_does_all_its_products(kind: str, direction: str, linear: int) -> None:
    graph, op = recurrent(kind, direction, linear_before_reset=linear)
    for way in ways(graph, op):
        assert sum(part.repeat * part.problem.macs for part in way) == op_macs(graph, op)
        # only the product with the input may take several time steps at once
        assert all(dict(zip(p.problem.dims, p.problem.bounds, strict=True))["N"] == 2 for p in way if p.kept)
    waits = kind == "gru" and not linear
    assert len(ways(graph, op)[0]) == (2 if waits else 1)


def chip(capacity: int) -> Arch:
    return Arch.model_validate(
        {
            "name": "chip", "clock_mhz": 100,
            "levels": [
                {"name": "far", "word_bits": 8, "energy_class": "dram", "read_words_per_cycle": 1},
                {"name": "near", "word_bits": 8, "capacity_bytes": capacity, "read_energy_pj": 1, "write_energy_pj": 2},
            ],
        }
    )  # fmt: skip


def test_weights_that_fit_are_read_once_and_others_at_every_step() -> None:
    graph, op = recurrent("lstm")
    weights = 4 * 8 * (12 + 8)
    loaded = {}
    for capacity in (weights + 400, 120):
        mapper = LayerMapper(chip(capacity), "energy")
        parts = mapper.best(ways(graph, op))
        kept = [part for part in parts if part.part.kept]
        loaded[capacity] = sum(
            part.part.repeat * part.solution.cost.at("far", part.part.kept).reads for part in kept if not part.kept_at
        )
        if capacity > weights:
            assert all(part.kept_at == "near" for part in kept)
            # one load from far (8 pJ/bit) into near for each kept tensor, cycles of the read port
            for part in kept:
                elements = 32 * (20 if "+" in part.part.kept else 8)
                resumed = 7 * 2 * 32 * 32 if part.part.resumes else 0
                assert part.extra_bits == 8 * elements + resumed
                assert part.extra_cycles == elements + resumed // 8
    assert loaded[weights + 400] == 0
    assert loaded[120] >= 7 * 32 * 8  # the recurrent matrix, every step


def test_directions_load_their_own_weights() -> None:
    one = LayerMapper(chip(4096), "energy").best(ways(*recurrent("rnn")))
    two = LayerMapper(chip(4096), "energy").best(ways(*recurrent("rnn", "bidirectional")))
    assert total(two)[0] == pytest.approx(2 * total(one)[0])
    assert total(two)[1] == 2 * total(one)[1]


def test_a_matrix_times_itself_is_two_tensors_and_its_traffic_counts_once_each() -> None:
    op = Op("square", "matmul", ("a", "a"), ("y",))
    graph = Graph("g", {n: Tensor(n, (4, 4)) for n in "ay"}, (op,), ("a",), ("y",))
    ((part,),) = ways(graph, op)
    assert [t.name for t in part.problem.tensors] == ["a", "a'", "y"]
    found = LayerMapper(chip(64), "energy").best(((part,),))[0].solution
    again = evaluate(part.problem, chip(64), found.mapping)
    assert again.at("far", "a").reads == 16


def test_the_second_activation_of_an_einsum_takes_the_weights_place() -> None:
    op = Op(
        "outer", "einsum", ("a", "b"), ("y",),
        {"bounds": {"i": 3, "j": 4, "k": 2}, "axes": (((((("i", 1),)), 0), ((("k", 1),), 0)),
                                                     (((("k", 1),), 0), ((("j", 1),), 0))), "output": ("i", "j")},
    )  # fmt: skip
    shapes = {"a": (3, 2), "b": (2, 4), "y": (3, 4)}
    graph = Graph("g", {n: Tensor(n, s) for n, s in shapes.items()}, (op,), ("a", "b"), ("y",))
    assert [t.role for t in ways(graph, op)[0][0].problem.tensors] == ["input", "weight", "output"]
    constant = {**graph.tensors, "b": Tensor("b", (2, 4), data=np.zeros((2, 4), np.float32))}
    fixed = Graph("g", constant, (op,), ("a",), ("y",))
    assert [t.role for t in ways(fixed, op)[0][0].problem.tensors] == ["input", "weight", "output"]


def test_an_einsum_that_reads_backwards_is_refused_by_name() -> None:
    op = Op(
        "flip", "einsum", ("a", "b"), ("y",),
        {"bounds": {"i": 3, "k": 2}, "axes": ((((("i", -1), ("k", 1))), 2),), "output": ("i",)},
    )  # fmt: skip
    op = Op("flip", "einsum", ("a",), ("y",), {**op.attributes, "axes": (((((("i", -1), ("k", 1))), 2),),)})
    graph = Graph("g", {"a": Tensor("a", (4,)), "y": Tensor("y", (3,))}, (op,), ("a",), ("y",))
    with pytest.raises(ModelError, match=r"'flip': tensor 'a' is read backwards"):
        ways(graph, op)


def test_every_kind_that_is_not_mapped_has_a_reason() -> None:
    op = Op("r", "relu", ("x",), ("y",))
    graph = Graph("g", {n: Tensor(n, (2,)) for n in "xy"}, (op,), ("x",), ("y",))
    assert unmapped(graph) == {"relu": 1}
    assert reason_unmapped("relu") == "elementwise"
    assert reason_unmapped("softmax") == "normalization"
    assert reason_unmapped("transpose") == "moves values only"
    assert "lstm" in MAPPED_KINDS
