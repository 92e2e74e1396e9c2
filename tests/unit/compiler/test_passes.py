"""Every pass keeps what the network computes, and does what its name says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from onnx_networks import RandomCnn, make_model, save, single

from dse.compiler import (
    fold_batch_norm,
    fold_constants,
    fuse_activation,
    fuse_bias,
    name_global_pools,
    prepare,
    remove_identity,
)
from dse.compiler.quantize import strip_softmax
from dse.compiler.rewrite import fresh_name, rebuild, use_counts
from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor
from dse.ir.reference import run_float
from workloads.onnx import read_model

RNG = np.random.default_rng(11)
PASSES = [fold_constants, fuse_bias, fold_batch_norm, fuse_activation, remove_identity, name_global_pools, prepare]


def read(model: object, folder: Path) -> Graph:
    return read_model(save(model, folder))  # type: ignore[arg-type]


def assert_equivalent(before: Graph, after: Graph) -> None:
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    inputs = {name: RNG.standard_normal(before[name].shape).astype(np.float32) for name in before.inputs}
    wanted, got = run_float(before, inputs), run_float(after, inputs)
    for name, values in wanted.items():
        assert before[name].shape == after[name].shape == values.shape
        np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-4 * max(1.0, float(np.abs(values).max())))


@pytest.mark.parametrize("seed", range(15))
def test_each_pass_keeps_what_random_cnns_compute(seed: int, tmp_path: Path) -> None:
    graph = read(RandomCnn(np.random.default_rng(500 + seed)).build(), tmp_path)
    for change in PASSES:
        assert_equivalent(graph, change(graph))
    for change in PASSES:
        graph = change(graph)
    assert prepare(graph).ops == graph.ops


@pytest.mark.parametrize("seed", range(15))
def test_passes_leave_the_graph_they_were_given_alone(seed: int, tmp_path: Path) -> None:
    graph = read(RandomCnn(np.random.default_rng(600 + seed)).build(), tmp_path)
    ops, tensors = graph.ops, dict(graph.tensors)
    contents = {tensor.name: np.array(tensor.data) for tensor in graph.constants()}
    prepare(graph)
    assert graph.ops == ops
    assert dict(graph.tensors) == tensors
    for name, values in contents.items():
        np.testing.assert_array_equal(graph[name].data, values)


@pytest.mark.parametrize("seed", range(15))
def test_a_prepared_graph_holds_only_what_hardware_and_host_execute(seed: int, tmp_path: Path) -> None:
    graph = prepare(read(RandomCnn(np.random.default_rng(700 + seed)).build(), tmp_path))
    assert {op.kind for op in graph.ops} <= {
        "conv", "gemm", "add", "max_pool", "average_pool", "global_average_pool", "flatten", "reshape", "softmax",
        "relu", "clip",
    }  # fmt: skip
    used = {*graph.inputs, *(name for op in graph.ops for name in (*op.inputs, *op.outputs))}
    assert set(graph.tensors) == used


def chain(*nodes: tuple[str, list[str], str], weights: dict[str, object], output: str) -> object:
    return make_model(
        [helper.make_node(kind, inputs, [name], name) for kind, inputs, name in nodes],
        {"x": (1, 3, 5, 5)},
        [output],
        weights,
    )


BN = {"s": np.array([1.0, 2.0, -3.0]), "b": np.array([0.5, 0.0, -1.0]), "m": np.ones(3), "v": np.full(3, 0.25)}
W = {"w": RNG.standard_normal((3, 3, 1, 1))}


def test_batch_norm_folds_into_conv_and_gives_it_a_bias(tmp_path: Path) -> None:
    model = chain(("Conv", ["x", "w"], "c"), ("BatchNormalization", ["c", *BN], "n"), weights={**W, **BN}, output="n")
    graph = read(model, tmp_path)
    folded = fold_batch_norm(graph)
    assert [(op.name, op.kind, len(op.inputs)) for op in folded.ops] == [("c", "conv", 3)]
    factor = BN["s"] / np.sqrt(0.25 + 1e-5)
    expected = (W["w"] * factor[:, None, None, None]).astype(np.float32)
    np.testing.assert_allclose(folded[folded.ops[0].inputs[1]].data, expected, rtol=1e-6)
    np.testing.assert_allclose(folded[folded.ops[0].inputs[2]].data, BN["b"] - factor, rtol=1e-6)
    assert folded.macs == graph.macs
    assert_equivalent(graph, folded)


def test_batch_norms_in_a_row_fold_into_one_conv(tmp_path: Path) -> None:
    nodes = [
        ("Conv", ["x", "w"], "c"),
        ("BatchNormalization", ["c", *BN], "n1"),
        ("BatchNormalization", ["n1", *BN], "n2"),
    ]
    graph = read(chain(*nodes, weights={**W, **BN}, output="n2"), tmp_path)
    assert [op.kind for op in fold_batch_norm(graph).ops] == ["conv"]
    assert_equivalent(graph, fold_batch_norm(graph))


def test_a_conv_read_twice_keeps_its_weights_and_batch_norm_becomes_depthwise(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "w"], "c"), ("BatchNormalization", ["c", *BN], "n"), ("Add", ["c", "n"], "y")]
    graph = read(chain(*nodes, weights={**W, **BN}, output="y"), tmp_path)
    folded = fold_batch_norm(graph)
    assert [(op.kind, op.attributes.get("groups")) for op in folded.ops] == [("conv", 1), ("conv", 3), ("add", None)]
    assert_equivalent(graph, folded)


def test_batch_norm_on_vectors_needs_a_dense_layer_before_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("BatchNormalization", ["x", *BN], ["y"], "the_norm")]
    with pytest.raises(ModelError, match=r"'the_norm'.*\[2, 3\].*dense"):
        prepare(read(make_model(nodes, {"x": (2, 3)}, ["y"], BN), tmp_path))


def test_a_variance_that_has_no_root_is_named(tmp_path: Path) -> None:
    weights = {**W, **BN, "v": np.array([1.0, -1.0, 1.0])}
    nodes = [("Conv", ["x", "w"], "c"), ("BatchNormalization", ["c", *BN], "n")]
    with pytest.raises(ModelError, match=r"'n': variance -1"):
        prepare(read(chain(*nodes, weights=weights, output="n"), tmp_path))


@pytest.mark.parametrize(("shape", "fused"), [
    ((1, 3, 1, 1), True), ((3, 1, 1), True), ((1,), True), ((), True),
    ((5,), False), ((1, 3, 5, 5), False), ((1, 1, 5, 1), False),
])  # fmt: skip
def test_only_constants_per_channel_become_a_bias(shape: tuple[int, ...], fused: bool, tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "w"], "c"), ("Add", ["k", "c"], "y"), ("Relu", ["y"], "z")]
    graph = read(chain(*nodes, weights={**W, "k": RNG.standard_normal(shape)}, output="z"), tmp_path)
    prepared = prepare(graph)
    assert [op.kind for op in prepared.ops] == (["conv"] if fused else ["conv", "add"])
    assert prepared.ops[-1].attributes["activation"] == "relu"
    assert_equivalent(graph, prepared)


def test_constant_adds_in_a_row_add_up_in_one_bias(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "w"], "c"), ("Add", ["c", "k"], "y"), ("Add", ["y", "k"], "z")]
    graph = read(chain(*nodes, weights={**W, "k": RNG.standard_normal((3, 1, 1))}, output="z"), tmp_path)
    assert [op.kind for op in prepare(graph).ops] == ["conv"]
    assert_equivalent(graph, prepare(graph))


def test_a_bias_is_not_fused_behind_an_activation(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "w"], "c"), ("Relu", ["c"], "r"), ("Add", ["r", "k"], "y")]
    graph = prepare(read(chain(*nodes, weights={**W, "k": RNG.standard_normal((3, 1, 1))}, output="y"), tmp_path))
    assert [(op.kind, op.attributes["activation"]) for op in graph.ops] == [("conv", "relu"), ("add", "none")]


@pytest.mark.parametrize(("bounds", "activation"), [
    ((0.0, 6.0), "relu6"), ((0.0, 3.4028234663852886e38), "relu"), ((0.0, 4.0), None), ((-1.0, 6.0), None),
])  # fmt: skip
def test_clips_become_the_activations_hardware_has(
    bounds: tuple[float, float], activation: str | None, tmp_path: Path
) -> None:
    weights = {**W, "low": np.array(bounds[0]), "high": np.array(bounds[1])}
    graph = read(
        chain(("Conv", ["x", "w"], "c"), ("Clip", ["c", "low", "high"], "y"), weights=weights, output="y"), tmp_path
    )
    prepared = prepare(graph)
    if activation is None:
        assert [op.kind for op in prepared.ops] == ["conv", "clip"]
    else:
        assert [(op.kind, op.attributes["activation"]) for op in prepared.ops] == [("conv", activation)]
    assert_equivalent(graph, prepared)


def test_an_activation_stays_when_others_read_the_raw_value(tmp_path: Path) -> None:
    nodes = [("Conv", ["x", "w"], "c"), ("Relu", ["c"], "r"), ("Add", ["c", "r"], "y")]
    graph = read(chain(*nodes, weights=W, output="y"), tmp_path)
    assert [op.kind for op in prepare(graph).ops] == ["conv", "relu", "add"]
    assert_equivalent(graph, prepare(graph))


def test_an_activation_stays_when_the_raw_value_is_an_output(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["r"])]
    graph = read(make_model(nodes, {"x": (1, 3, 5, 5)}, ["c", "r"], W), tmp_path)
    assert [op.kind for op in prepare(graph).ops] == ["conv", "relu"]


def test_identities_vanish_and_outputs_keep_their_names(tmp_path: Path) -> None:
    nodes = [
        ("Identity", ["x"], "i1"), ("Dropout", ["i1"], "i2"), ("Conv", ["i2", "w"], "c"), ("Identity", ["c"], "i3"),
        ("Relu", ["i3"], "r"), ("Identity", ["r"], "y"),
    ]  # fmt: skip
    graph = read(chain(*nodes, weights=W, output="y"), tmp_path)
    prepared = prepare(graph)
    assert [(op.kind, op.inputs[0], op.outputs) for op in prepared.ops] == [("conv", "x", ("y",))]
    assert_equivalent(graph, prepared)


@pytest.mark.parametrize("outputs", [["y"], ["r", "y"], ["y", "z"], ["r", "y", "z"]])
def test_identities_between_outputs_keep_every_name(outputs: list[str], tmp_path: Path) -> None:
    """r feeds identities y and z: whichever are outputs exist afterwards, with the right values."""
    nodes = [
        helper.make_node(kind, [source], [target])
        for kind, source, target in [
            ("Relu", "x", "r"),
            ("Identity", "r", "y"),
            ("Identity", "y", "z"),
            ("Identity", "x", "u"),
        ]
    ]
    graph = read(make_model(nodes, {"x": (2, 3)}, [*outputs, "u"]), tmp_path)
    assert_equivalent(graph, remove_identity(graph))


def test_constants_fold_through_ops_and_may_be_outputs(tmp_path: Path) -> None:
    nodes = [("Relu", ["k"], "r"), ("Add", ["r", "r"], "d"), ("Flatten", ["d"], "f"), ("Add", ["x", "d"], "y")]
    model = make_model(
        [helper.make_node(kind, inputs, [name], name) for kind, inputs, name in nodes],
        {"x": (2, 3)}, ["y", "f"], {"k": np.array([[-1.0, 2.0, 3.0]])},
    )  # fmt: skip
    graph = read(model, tmp_path)
    folded = fold_constants(graph)
    assert [op.name for op in folded.ops] == ["y"]
    assert folded["f"].data is not None
    assert folded["f"].data.tolist() == [[0, 4, 6]]
    assert_equivalent(graph, folded)


@pytest.mark.parametrize(("kernel", "pads", "kind"), [
    ((5, 5), (0, 0, 0, 0), "global_average_pool"), ((5, 4), (0, 0, 0, 0), "average_pool"),
    ((5, 5), (1, 1, 1, 1), "average_pool"),
])  # fmt: skip
def test_only_a_pool_over_the_whole_map_is_global(
    kernel: tuple[int, int], pads: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    graph = read(single("AveragePool", (1, 3, 5, 5), kernel_shape=kernel, pads=pads), tmp_path)
    assert [op.kind for op in name_global_pools(graph).ops] == [kind]
    assert_equivalent(graph, name_global_pools(graph))


def test_strip_softmax_ends_at_the_logits(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Softmax", ["r"], ["y"])]
    assert strip_softmax(read(make_model(nodes, {"x": (2, 3)}, ["y"]), tmp_path)).outputs == ("r",)
    both = strip_softmax(read(make_model(nodes, {"x": (2, 3)}, ["r", "y"]), tmp_path))
    assert both.outputs == ("r",)
    assert [op.kind for op in both.ops] == ["relu"]


def test_rebuild_drops_what_no_output_needs() -> None:
    tensors = {name: Tensor(name, (1,)) for name in "xyz"} | {"k": Tensor("k", (1,), data=np.zeros(1, np.float32))}
    ops = (Op("a", "relu", ("x",), ("y",)), Op("b", "add", ("x", "k"), ("z",)))
    graph = Graph("net", tensors, ops, ("x",), ("y",))
    smaller = rebuild(graph, ops)
    assert [op.name for op in smaller.ops] == ["a"]
    assert set(smaller.tensors) == {"x", "y"}
    assert use_counts(graph) == {"x": 2, "y": 1, "k": 1}
    assert fresh_name({"w": 0, "w_2": 0}, "w") == "w_3"


def test_prepare_is_a_function_of_the_graph_alone(tmp_path: Path) -> None:
    build: Callable[[], object] = RandomCnn(np.random.default_rng(9)).build
    graph = read(build(), tmp_path)
    first, second = prepare(graph), prepare(graph)
    assert [op.name for op in first.ops] == [op.name for op in second.ops]
    assert list(first.tensors) == list(second.tensors)
