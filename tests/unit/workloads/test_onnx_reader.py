"""What the ONNX reader makes of a file: normal forms, bound dimensions, and clear words about what it cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_networks import make_model, save, single

from dse.core.errors import ModelError
from dse.ir import Graph
from workloads.onnx import OnnxFrontend, read_model
from workloads.onnx.reader import OLDEST_OPSET, SUPPORTED_OPS

RNG = np.random.default_rng(3)
W = RNG.standard_normal((4, 3, 3, 3))
X = (1, 3, 8, 9)


def read(model: onnx.ModelProto, folder: Path, **dims: int) -> Graph:
    return read_model(save(model, folder), dims)


def refusal(model: onnx.ModelProto, folder: Path, **dims: int) -> str:
    with pytest.raises(ModelError) as error:
        read(model, folder, **dims)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- normal forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("auto_pad", "pads", "out"), [
    ("SAME_UPPER", (0, 1, 1, 1), (4, 5)), ("SAME_LOWER", (1, 1, 0, 1), (4, 5)), ("VALID", (0, 0, 0, 0), (3, 4)),
])  # fmt: skip
def test_auto_pad_becomes_explicit(auto_pad: str, pads: tuple[int, ...], out: tuple[int, ...], tmp_path: Path) -> None:
    graph = read(single("Conv", X, {"w": W}, auto_pad=auto_pad, strides=[2, 2]), tmp_path)
    assert graph.ops[0].attributes["pads"] == pads
    assert graph["y"].shape == (1, 4, *out)
    assert graph.macs == 4 * 27 * out[0] * out[1]


def test_a_dense_layer_is_stored_output_by_input_however_it_was_written(tmp_path: Path) -> None:
    weight = RNG.standard_normal((6, 4)).astype(np.float32)
    forms = {
        "Gemm": single("Gemm", (2, 6), {"w": weight}),
        "Gemm transposed": single("Gemm", (2, 6), {"w": weight.T.copy()}, transB=1),
        "Gemm scaled": single("Gemm", (2, 6), {"w": weight / 4}, alpha=4.0),
        "MatMul": single("MatMul", (2, 6), {"w": weight}),
    }
    for model in forms.values():
        graph = read(model, tmp_path)
        stored = graph[graph.ops[0].inputs[1]].data
        assert stored is not None
        np.testing.assert_allclose(stored, weight.T, rtol=1e-6)
        assert (graph.ops[0].kind, graph.macs) == ("gemm", 48)


def test_sum_of_four_becomes_a_chain_of_adds_with_names_of_their_own(tmp_path: Path) -> None:
    weights = {name: RNG.standard_normal((2, 3)) for name in "abc"}
    graph = read(single("Sum", (2, 3), weights), tmp_path)
    assert [op.kind for op in graph.ops] == ["add"] * 3
    assert [op.name for op in graph.ops] == ["the_node", "the_node_2", "the_node_3"]
    assert graph.outputs == ("y",)


def test_nameless_nodes_get_distinct_names(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    assert [op.name for op in read(make_model(nodes, {"x": (2,)}, ["y"]), tmp_path).ops] == ["Relu_0", "Relu_1"]


def test_fills_cost_no_memory(tmp_path: Path) -> None:
    """A 1 GiB weight out of ConstantOfShape is a view of one number."""
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = read(make_model(nodes, {"x": (1, 16384)}, ["y"], {"s": np.array([16384, 16384])}), tmp_path)
    data = graph[graph.ops[0].inputs[1]].data
    assert data is not None
    assert data.nbytes == 1 << 30
    assert set(data.strides) == {0}
    assert graph.macs == 1 << 28


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_floats_of_every_width_become_float32(dtype: Any, tmp_path: Path) -> None:
    model = single("Add", (2, 3), {"w": np.ones((2, 3))})
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((2, 3), 0.5, dtype), "w"))
    graph = read(model, tmp_path)
    assert graph["w"].dtype == "float32"
    assert graph["w"].data is not None
    assert graph["w"].data.dtype == np.float32
    assert (graph["w"].data == 0.5).all()


def test_old_models_that_list_weights_among_inputs_have_one_input(tmp_path: Path) -> None:
    model = single("Conv", X, {"w": W}, opset=8)
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, W.shape))
    assert read(model, tmp_path).inputs == ("x",)


def test_the_front_end_takes_paths_relative_to_a_folder(tmp_path: Path) -> None:
    save(single("Relu", ("N", 4)), tmp_path, "net.onnx")
    front_end = OnnxFrontend()
    assert (front_end.name, front_end.prefix, front_end.suffixes) == ("onnx", None, (".onnx",))
    graph = front_end.load("net.onnx", tmp_path, {"N": 3})
    assert (graph["x"].shape, graph.source, graph.name) == ((3, 4), "net.onnx", "net")
    assert front_end.load(str(tmp_path / "net.onnx"), Path("elsewhere"), {"N": 3})["y"].shape == (3, 4)


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_in_range_reads(opset: int, tmp_path: Path) -> None:
    assert read(single("Conv", X, {"w": W}, opset=opset), tmp_path).macs == 4 * 27 * 42


# -- free dimensions ----------------------------------------------------------------------------------------------


def test_free_dimensions_are_bound_by_name_or_by_place(tmp_path: Path) -> None:
    assert read(single("Relu", ("batch", 4, None)), tmp_path, **{"batch": 2, "x.2": 5})["y"].shape == (2, 4, 5)


def test_a_dimension_of_minus_one_is_free(tmp_path: Path) -> None:
    assert read(single("Relu", (-1, 4)), tmp_path, **{"x.0": 3})["y"].shape == (3, 4)
    assert "--dim x.0=VALUE" in refusal(single("Relu", (-1, 4)), tmp_path)


def test_an_unbound_dimension_says_how_to_bind_it(tmp_path: Path) -> None:
    assert "--dim batch=VALUE" in refusal(single("Relu", ("batch", 4)), tmp_path)
    assert "--dim x.1=VALUE" in refusal(single("Relu", (4, None)), tmp_path)


def test_binding_what_is_not_there_names_what_is(tmp_path: Path) -> None:
    message = refusal(single("Relu", ("batch", 4)), tmp_path, batch=1, bach=2)
    assert "'bach'" in message
    assert "'batch'" in message
    assert "bound to 0" in refusal(single("Relu", ("batch", 4)), tmp_path, batch=0)


# -- refusals -----------------------------------------------------------------------------------------------------


def test_an_unsupported_operator_is_named_with_opset_and_alternatives(tmp_path: Path) -> None:
    message = refusal(single("Loop", X, size=3), tmp_path)
    for word in ("m.onnx", "'the_node'", "Loop", "opset 13", *SUPPORTED_OPS):
        assert word in message


def test_operators_of_other_domains_keep_their_domain_in_the_message(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "custom", domain="my.company")
    assert "my.company.Conv" in refusal(make_model([node], {"x": X}, ["y"], {"w": W}), tmp_path)


@pytest.mark.parametrize("opset", [1, 6, 999])
def test_opsets_outside_the_range_are_refused(opset: int, tmp_path: Path) -> None:
    assert f"opset {opset} is not supported, only 7 to" in refusal(single("Relu", (2, 3), opset=opset), tmp_path)


REFUSED = {
    "weights that are computed": (
        make_model([helper.make_node("Conv", ["x", "v"], ["y"], "n")], {"x": X, "v": W.shape}, ["y"]),
        ["'n'", "weight 'v' must be constant"],
    ),
    "conv of rank 5": (single("Conv", (1, 3, 8, 8, 8), {"w": W[..., None]}), ["1-D and 2-D", "[1, 3, 8, 8, 8]"]),
    "weights for other channels": (single("Conv", (1, 5, 8, 8), {"w": W}), ["[4, 3, 3, 3]", "[1, 5, 8, 8]"]),
    "groups of zero": (single("Conv", X, {"w": W}, group=0), ["0 groups"]),
    "a kernel bigger than its map": (single("Conv", (1, 3, 2, 2), {"w": W}), ["[3, 3]", "[1, 3, 2, 2]"]),
    "a bias of other length": (single("Conv", X, {"w": W, "b": np.ones(3)}), ["bias [3]", "4 output channels"]),
    "kernel_shape against the weight": (single("Conv", X, {"w": W}, kernel_shape=[5, 5]), ["[5, 5]", "[3, 3]"]),
    "a stride of zero": (single("Conv", X, {"w": W}, strides=[0, 1]), ["strides [0, 1]"]),
    "negative padding": (single("Conv", X, {"w": W}, pads=[-1, 0, 0, 0]), ["pads [-1, 0, 0, 0]"]),
    "an attribute of the wrong type": (single("Conv", X, {"w": W}, strides="two"), ["'strides'", "list of integers"]),
    "unknown auto_pad": (single("Conv", X, {"w": W}, auto_pad="SAME"), ["'SAME'", "SAME_UPPER"]),
    "padding without end": (single("Conv", X, {"w": W}, pads=[2**40] * 4), ["limit of 2,147,483,647"]),
    "features that do not fit": (single("Gemm", (2, 5), {"w": np.ones((6, 4))}), ["6 features", "[2, 5]"]),
    "a matmul that does not fit": (single("MatMul", (2, 3, 4), {"w": np.ones((5, 5))}), ["5 features", "[2, 3, 4]"]),
    "a bias that does not fit": (
        single("Gemm", (2, 3), {"w": np.ones((3, 4)), "c": np.ones((5, 2, 4))}),
        ["C of shape [5, 2, 4]"],
    ),
    "shapes that do not broadcast": (single("Add", (2, 3), {"w": np.ones((2, 4))}), ["[2, 3]", "[2, 4]"]),
    "training mode": (
        single("BatchNormalization", X, {k: np.ones(3) for k in "sbmv"}, opset=14, training_mode=1), ["eval mode"],
    ),
    "statistics of other length": (
        single("BatchNormalization", X, {k: np.ones(4) for k in "sbmv"}), ["scale", "3 channels"],
    ),
    "pooling indices": (
        make_model([helper.make_node("MaxPool", ["x"], ["y", "i"], "n", kernel_shape=[2, 2])], {"x": X}, ["y"]),
        ["indices"],
    ),
    "a pool of padding only": (single("MaxPool", X, kernel_shape=[2, 2], pads=[2, 0, 0, 0]), ["only padding"]),
    "a dilated pool": (single("MaxPool", X, kernel_shape=[2, 2], dilations=[2, 2]), ["dilations [2, 2]"]),
    "a pool without a kernel": (single("MaxPool", X), ["kernel []"]),
    "ceil_mode with counted padding": (
        single("AveragePool", X, kernel_shape=[2, 2], ceil_mode=1, count_include_pad=1),
        ["ceil_mode", "count_include_pad"],
    ),
    "global pool of vectors": (single("GlobalAveragePool", (2, 3)), ["[2, 3]"]),
    "a mean over a missing axis": (single("ReduceMean", X, axes=[4]), ["axis 4"]),
    "an axis that is not there": (single("Softmax", (2, 3), axis=5), ["axis 5", "2 dimensions"]),
    "bounds out of order": (single("Clip", (2,), {"a": np.array(2.0), "b": np.array(1.0)}), ["2 and 1"]),
    "a reshape that does not fit": (single("Reshape", (2, 3), {"s": np.array([4, -1])}), ["[2, 3]", "[4, -1]"]),
    "a reshape copying nothing": (single("Reshape", (2, 3), {"s": np.array([2, 3, 0])}), ["dimension 2"]),
    "a float shape": (single("Reshape", (2, 3), {"s": np.array([2.0, 3.0])}), ["list of integers"]),
    "squeezing what is not 1": (single("Squeeze", (2, 3), {"a": np.array([1])}), ["not all of size 1"]),
    "the same axis twice": (single("Unsqueeze", (2, 3), {"a": np.array([0, 0])}), ["repeat"]),
    "a reader of nothing": (
        make_model([helper.make_node("Relu", ["z"], ["y"], "n")], {"x": (2,)}, ["y"]), ["'z'", "'n'"],
    ),
    "an output of nothing": (make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": (2,)}, ["q"]), ["output 'q'"]),
    "a tensor written twice": (
        make_model([helper.make_node("Relu", ["x"], ["y"], n) for n in "ab"], {"x": (2,)}, ["y"]),
        ["'b'", "'y'", "already"],
    ),
    "a node without output": (
        make_model([helper.make_node("Relu", ["x"], [], "n")], {"x": (2,)}, ["x"]), ["no output"],
    ),
    "shape arithmetic on activations": (single("NonZero", (2, 3)), ["constants only"]),
    "a loop": (single("Loop", (2, 3)), ["not supported; supported:", "LSTM"]),
    "division by zero in shapes": (
        make_model(
            [helper.make_node("Div", ["a", "b"], ["s"], "d"), helper.make_node("Reshape", ["x", "s"], ["y"])],
            {"x": (2,)}, ["y"], {"a": np.array([2]), "b": np.array([0])},
        ), ["'d'", "division by zero"],
    ),
    "subtraction of booleans": (
        make_model([helper.make_node("Sub", ["a", "a"], ["y"], "d")], {"x": (2,)}, ["y"], {"a": np.array([True])}),
        ["'d'"],
    ),
    "no inputs": (make_model([helper.make_node("Relu", ["a"], ["y"])], {}, ["y"], {"a": np.ones(2)}), ["0 inputs"]),
    "an input of zero size": (single("Relu", (0, 3)), ["dimension 0", "'x'", "at least 1"]),
    "an input beyond the limit": (single("Relu", (2**20, 2**20)), ["2,147,483,647"]),
    "an output beyond the limit": (single("Add", (2**20, 1), {"w": np.ones((1, 2**12))}), ["'y'", "2,147,483,647"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_named(case: str, tmp_path: Path) -> None:
    model, words = REFUSED[case]
    message = refusal(model, tmp_path)
    for word in ("m.onnx", *words):
        assert word in message, message
