"""Every operator the reader supports, in several forms, gives in NumPy what onnxruntime gives: one node at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_networks import make_model, save, single

from dse.compiler import prepare
from dse.ir.reference import run_float
from workloads.onnx import read_model
from workloads.onnx.reader import SUPPORTED_OPS

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(17)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def compare(model: onnx.ModelProto, folder: Path, tolerance: float = 1e-5, *, positive: bool = False) -> None:
    """The graph as read and the prepared graph equal onnxruntime, relative to the largest output."""
    graph = read_model(save(model, folder))
    rng = np.random.default_rng(3)
    inputs = {}
    for name in graph.inputs:
        tensor = graph[name]
        values = rng.standard_normal(tensor.shape) * 2
        values = np.abs(values) + 0.25 if positive else values
        inputs[name] = (values > 0) if tensor.dtype == "bool" else values.astype(tensor.dtype)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, expected in zip(graph.outputs, session.run(None, inputs), strict=True):
        assert (expected.shape, str(expected.dtype)) == (graph[name].shape, graph[name].dtype)
        bound = tolerance * max(1.0, float(np.abs(expected.astype(np.float64)).max()))
        for candidate in (graph, prepare(graph)):
            np.testing.assert_allclose(run_float(candidate, inputs)[name], expected, rtol=0, atol=bound)


def node(op_type: str, inputs: dict[str, Any], weights: dict[str, Any] | None = None, opset: int = 21,
         outputs: int = 1, domain: str = "", **attributes: Any) -> onnx.ModelProto:  # fmt: skip
    """One node reading inputs (shape, or (shape, element type)) and then weights."""
    names = ["y"] if outputs == 1 else [f"y{index}" for index in range(outputs)]
    proto = helper.make_node(op_type, [*inputs, *(weights or {})], names, "the_node", domain=domain, **attributes)
    infos = {
        name: given if isinstance(given[0], tuple) else (given, TensorProto.FLOAT) for name, given in inputs.items()
    }
    model = make_model([proto], {}, names, weights, opset=opset)
    model.graph.input.extend(helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in infos.items())
    model.ir_version = 10
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    for value in model.graph.output:
        # the runtime infers it: not every output is a float
        value.ClearField("type")
    return model


X, V = (2, 6, 7, 9), (3, 8)
I64 = TensorProto.INT64
UNARY = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Elu": {"alpha": 1.5}, "Selu": {}, "Sigmoid": {}, "HardSwish": {},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4}, "Softplus": {}, "Softsign": {}, "Tanh": {}, "Erf": {}, "Exp": {},
    "Abs": {}, "Neg": {}, "Sign": {}, "Floor": {}, "Ceil": {}, "Round": {}, "Sin": {}, "Cos": {},
    "Gelu": {"approximate": "tanh"}, "Identity": {}, "LogSoftmax": {"axis": 0}, "Softmax": {"axis": 1},
}  # fmt: skip


@pytest.mark.parametrize("op_type", UNARY)
def test_functions_of_one_value(op_type: str, tmp_path: Path) -> None:
    compare(node(op_type, {"x": V}, **UNARY[op_type]), tmp_path)
    compare(node(op_type, {"x": (4,) if "axis" not in UNARY[op_type] else (4, 2)}, opset=20), tmp_path)


@pytest.mark.parametrize("op_type", ["Sqrt", "Log", "Reciprocal"])
def test_functions_of_positive_values(op_type: str, tmp_path: Path) -> None:
    compare(node(op_type, {"x": V}), tmp_path, positive=True)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "LessOrEqual", "Greater",
                                     "GreaterOrEqual", "Equal", "PRelu", "Mean", "Sum"])  # fmt: skip
def test_functions_of_two_values_broadcast(op_type: str, tmp_path: Path) -> None:
    compare(node(op_type, {"a": X, "b": X if op_type != "PRelu" else (6, 1, 1)}), tmp_path)
    compare(node(op_type, {"a": X}, {"b": normal(6, 1, 1)}), tmp_path)
    if op_type != "PRelu":
        compare(node(op_type, {"a": (3, 1, 4), "b": (5, 1)}), tmp_path)


OPS: dict[str, onnx.ModelProto] = {
    "pow of positive": node("Pow", {"x": V}, {"e": np.float32(2)}),
    "pow with integer exponent": node("Pow", {"x": V}, {"e": np.int64(3)}),
    "mod of floats": node("Mod", {"a": V, "b": V}, fmod=1),
    "mod of integers": node("Mod", {"a": ((4,), I64)}, {"b": np.int64(3)}),
    "division of integers": node("Div", {"a": ((4,), I64)}, {"b": np.int64(-3)}),
    "max of three": node("Max", {"a": V, "b": V, "c": (8,)}),
    "mean of three": node("Mean", {"a": V, "b": V, "c": (8,)}),
    "logic": node("And", {"a": ((4,), TensorProto.BOOL), "b": ((4,), TensorProto.BOOL)}),
    "or": node("Or", {"a": ((4,), TensorProto.BOOL), "b": ((4,), TensorProto.BOOL)}),
    "xor": node("Xor", {"a": ((4,), TensorProto.BOOL), "b": ((4,), TensorProto.BOOL)}),
    "not": node("Not", {"a": ((4,), TensorProto.BOOL)}),
    "where": node("Where", {"c": ((3, 1), TensorProto.BOOL), "a": V, "b": (8,)}),
    "gelu": node("Gelu", {"x": V}), "gelu of the contrib domain": node("Gelu", {"x": V}, domain="com.microsoft"),
    "clip of integers": node("Clip", {"x": ((5,), I64)}, {"a": np.int64(-1), "b": np.int64(2)}),
    "cast to integers": node("Cast", {"x": V}, to=I64),
    "cast to bool": node("Cast", {"x": V}, to=TensorProto.BOOL),
    "cast from integers": node("Cast", {"x": (V, I64)}, to=TensorProto.FLOAT),
    "castlike": node("CastLike", {"x": V, "like": (V, I64)}),
    # reductions
    **{f"{op}, {axes}, keep {keep}": node(op, {"x": X}, {"axes": np.array(axes)}, keepdims=keep)
       for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                  "ReduceSumSquare")
       for axes, keep in (([1], 1), ([-1, 0], 0), ([2, 3], 0))},
    "reduce over everything": node("ReduceSum", {"x": V}),
    "reduce over nothing": node("ReduceSum", {"x": V}, {"axes": np.array([], np.int64)}, noop_with_empty_axes=1),
    "reduce by attribute": node("ReduceMean", {"x": X}, opset=11, axes=[1], keepdims=0),
    "arg max": node("ArgMax", {"x": X}, axis=1, keepdims=0), "arg min": node("ArgMin", {"x": X}, axis=-1),
    # norms
    "lrn": node("LRN", {"x": X}, size=5, alpha=0.3, beta=0.6, bias=2.0),
    "lrn of one channel": node("LRN", {"x": X}, size=1, alpha=0.5),
    "layer norm": node("LayerNormalization", {"x": (2, 5, 8)}, {"s": normal(8), "b": normal(8)}),
    "layer norm from axis 1": node("LayerNormalization", {"x": (2, 5, 8)}, {"s": normal(5, 8)}, axis=1, epsilon=0.1),
    "instance norm": node("InstanceNormalization", {"x": X}, {"s": normal(6), "b": normal(6)}, epsilon=0.01),
    "group norm": node("GroupNormalization", {"x": X}, {"s": normal(6), "b": normal(6)}, num_groups=3),
    "group norm of opset 18": node(
        "GroupNormalization", {"x": X}, {"s": normal(3), "b": normal(3)}, opset=18, num_groups=3),
    "rms norm": node("RMSNormalization", {"x": (2, 5, 8)}, {"s": normal(8)}, opset=23),
    "softmax of opset 9 over a map": single("Softmax", X, opset=9, axis=2),
    "log softmax": node("LogSoftmax", {"x": X}, axis=2),
    # moves
    "transpose": node("Transpose", {"x": X}, perm=[2, 0, 3, 1]), "transpose, reversed": node("Transpose", {"x": X}),
    "concat": node("Concat", {"a": X, "b": (2, 3, 7, 9), "c": X}, axis=1),
    "concat of one": node("Concat", {"a": X}, axis=0),
    "split by sizes": node("Split", {"x": X}, {"s": np.array([1, 3, 2])}, outputs=3, axis=1),
    "split evenly": node("Split", {"x": X}, outputs=3, opset=13, axis=1),
    "split unevenly": node("Split", {"x": X}, outputs=2, axis=2, num_outputs=2),
    "split of opset 11": node("Split", {"x": X}, outputs=2, opset=11, axis=3, split=[4, 5]),
    "slice": node("Slice", {"x": X}, {"s": np.array([1, -2]), "e": np.array([10**9, 0]), "a": np.array([1, -1]),
                                       "t": np.array([2, -3])}),
    "slice to the first element": node("Slice", {"x": (6,)}, {"s": np.array([-1]), "e": np.array([-(2**62)]),
                                                                "a": np.array([0]), "t": np.array([-1])}),
    "slice of opset 9": node("Slice", {"x": X}, opset=9, starts=[1, 2], ends=[2, -1], axes=[0, 3]),
    "pad": node("Pad", {"x": X}, {"p": np.array([0, 1, 2, 0, 0, 0, 1, 3]), "v": np.float32(0.5)}),
    "pad that crops": node("Pad", {"x": X}, {"p": np.array([0, 0, -2, 0, 0, 0, 1, -3])}),
    "pad, reflected": node("Pad", {"x": X}, {"p": np.array([0, 0, 2, 1, 0, 0, 1, 3])}, mode="reflect"),
    "pad with edges": node("Pad", {"x": X}, {"p": np.array([0, 0, 2, 1, 0, 0, 1, 3])}, mode="edge"),
    "pad along axes": node("Pad", {"x": X}, {"p": np.array([1, 2]), "v": np.float32(1), "a": np.array([-1])}),
    "pad of opset 9": node("Pad", {"x": (2, 3)}, opset=9, pads=[0, 1, 2, 0], value=2.0),
    "gather": node("Gather", {"x": X}, {"i": np.array([[0, -1], [2, 5]])}, axis=1),
    "gather of one": node("Gather", {"x": X}, {"i": np.int64(3)}, axis=2),
    "expand": node("Expand", {"x": (3, 1)}, {"s": np.array([2, 1, 4])}),
    "tile": node("Tile", {"x": V}, {"r": np.array([2, 3])}),
    "depth to space": node("DepthToSpace", {"x": (1, 12, 3, 2)}, blocksize=2),
    "depth to space, CRD": node("DepthToSpace", {"x": (1, 12, 3, 2)}, blocksize=2, mode="CRD"),
    "space to depth": node("SpaceToDepth", {"x": (1, 3, 4, 6)}, blocksize=2),
    "reshape with allowzero 0": node("Reshape", {"x": X}, {"s": np.array([0, -1, 3])}),
    "unsqueeze": node("Unsqueeze", {"x": V}, {"a": np.array([0, -1])}),
    "squeeze": node("Squeeze", {"x": (1, 3, 1)}, {"a": np.array([0])}),
    "flatten": node("Flatten", {"x": X}, axis=-1), "dropout": node("Dropout", {"x": V}),
    # layers
    "conv 1-D": node("Conv", {"x": (2, 6, 20)}, {"w": normal(4, 3, 5), "b": normal(4)}, group=2, strides=[3],
                     pads=[2, 1], dilations=[2]),
    "conv 1-D, same": node("Conv", {"x": (1, 3, 20)}, {"w": normal(4, 3, 4)}, auto_pad="SAME_UPPER", strides=[2]),
    **{f"conv transpose {name}": node(
           "ConvTranspose", {"x": (2, 4, 5, 6)}, {"w": normal(4, 3, 3, 2), "b": normal(3)}, **more)
       for name, more in {
           "plain": {}, "strided": {"strides": [2, 3], "pads": [1, 0, 1, 1]},
           "dilated": {"dilations": [2, 2], "output_padding": [1, 0], "strides": [2, 1]},
           "same upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
           "same lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
           "of given size": {"output_shape": [10, 12], "strides": [2, 2]}}.items()},
    "conv transpose, grouped": node("ConvTranspose", {"x": (1, 4, 5, 6)}, {"w": normal(4, 3, 2, 2)}, group=2),
    "conv transpose 1-D": node("ConvTranspose", {"x": (1, 4, 9)}, {"w": normal(4, 3, 3)}, strides=[2], pads=[1, 0]),
    "matmul of activations": node("MatMul", {"a": (2, 3, 4, 5), "b": (3, 5, 6)}),
    "matmul of vectors": node("MatMul", {"a": (5,),
    "b": (5,)}), "matmul of a row": node("MatMul", {"a": (5,), "b": (2, 5, 3)}),
    "matmul of a column": node("MatMul", {"a": (2, 4, 5), "b": (5,)}),
    "matmul with weights, rank 4": node("MatMul", {"a": (2, 3, 4, 5)}, {"w": normal(5, 7)}),
    "matmul with a stack of weights": node("MatMul", {"a": (2, 4, 5)}, {"w": normal(2, 5, 7)}),
    "gemm, A transposed": node("Gemm", {"x": (6, 2)}, {"w": normal(6, 4), "c": normal(2, 4)}, transA=1, beta=0.5),
    "gemm of activations": node("Gemm", {"a": (3, 4), "b": (5, 4), "c": (5,)}, transB=1, alpha=0.5, beta=2.0),
    "gemm of activations without C": node("Gemm", {"a": (3, 4), "b": (4, 5)}),
    # pools
    "max pool 1-D": node("MaxPool", {"x": (2, 3, 11)}, kernel_shape=[3], strides=[2], pads=[1, 0]),
    "average pool 1-D": node("AveragePool", {"x": (2, 3, 11)}, kernel_shape=[3], strides=[2], pads=[1, 1], ceil_mode=1),
    "global max pool": node("GlobalMaxPool", {"x": X}),
    "global average pool 1-D": node("GlobalAveragePool", {"x": (2, 3, 5)}),
    "max pool with padding": node("MaxPool", {"x": X}, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool": node("AveragePool", {"x": X}, kernel_shape=[3, 2], strides=[2, 1]),
    "batch norm of vectors": node("BatchNormalization", {"x": (2, 4, 5, 6)},
                                  {"s": normal(4), "b": normal(4), "m": normal(4), "v": np.abs(normal(4)) + 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("case", OPS)
def test_operator_equals_onnxruntime(case: str, tmp_path: Path) -> None:
    # a convolution in front of batch norm is what prepare() folds into; alone it becomes a depthwise one
    compare(OPS[case], tmp_path, 2e-5 if "Prod" in case else 1e-5)


RESIZES: dict[str, dict[str, Any]] = {
    f"{mode}, {coordinates}, {how}": {
        "mode": mode, "coordinate_transformation_mode": coordinates,
        "weights": {"roi": np.zeros(0, np.float32), "s": np.array(by, np.float32)}
        if how != "to sizes" else {"roi": np.zeros(0, np.float32), "e": np.zeros(0, np.float32), "z": np.array(by)},
    }
    for mode in ("nearest", "linear", "cubic")
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
    for how, by in (("up", [1, 1, 2, 2]), ("down", [1, 1, 0.6, 0.5]), ("to sizes", [1, 2, 11, 5]))
}  # fmt: skip


@pytest.mark.parametrize("case", RESIZES)
def test_resize_equals_onnxruntime(case: str, tmp_path: Path) -> None:
    attributes = dict(RESIZES[case])
    compare(node("Resize", {"x": (1, 2, 5, 7)}, attributes.pop("weights"), opset=19, **attributes), tmp_path)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_rounds_as_told(rounding: str, tmp_path: Path) -> None:
    weights = {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 1.5], np.float32)}
    model = node("Resize", {"x": (1, 2, 4, 6)}, weights, opset=13, mode="nearest", nearest_mode=rounding)
    compare(model, tmp_path)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resizing_of_old_opsets(mode: str, tmp_path: Path) -> None:
    compare(node("Upsample", {"x": (1, 2, 4, 6)}, {"s": np.array([1, 1, 2, 3], np.float32)}, 9, mode=mode), tmp_path)
    compare(node("Resize", {"x": (1, 2, 4, 6)}, {"s": np.array([1, 1, 2, 3], np.float32)}, 10, mode=mode), tmp_path)


def test_cubic_parameters(tmp_path: Path) -> None:
    weights = {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 1.7, 2], np.float32)}
    more = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    compare(node("Resize", {"x": (1, 2, 6, 7)}, weights, 13, **more), tmp_path)


def test_embedding_looks_up_rows(tmp_path: Path) -> None:
    table = normal(20, 6)
    model = make_model([helper.make_node("Gather", ["t", "x"], ["y"], "n")], {}, ["y"], {"t": table}, opset=13)
    model.graph.input.append(helper.make_tensor_value_info("x", I64, (2, 3)))
    graph = read_model(save(model, tmp_path))
    indices = np.array([[0, 19, -1], [3, 3, 7]])
    np.testing.assert_array_equal(run_float(graph, {"x": indices})["y"], table[indices])
    assert graph.parameters == 120


def test_integer_layers_equal_onnxruntime(tmp_path: Path) -> None:
    """What dynamic quantization writes: integers, scale and zero point known only at run time."""
    weight, zero = RNG.integers(0, 255, (4, 3, 3, 3)).astype(np.uint8), np.uint8(120)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z", "wz"], ["c"], pads=[1, 1, 1, 1], strides=[2, 1]),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["both"]),
        helper.make_node("Mul", ["f", "both"], ["y"]),
    ]
    weights = {"w": weight, "wz": zero, "ws": np.float32(0.01)}
    compare(make_model(nodes, {"x": (2, 3, 8, 8)}, ["y"], weights, opset=11), tmp_path)
    nodes[1] = helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["c"])
    signed = {"w": RNG.integers(-128, 127, (8, 5)).astype(np.int8), "wz": RNG.integers(-5, 5, 5).astype(np.int8)}
    compare(make_model(nodes, {"x": (2, 3, 8)}, ["y"], {**signed, "ws": np.float32(0.02)}, opset=11), tmp_path)


# -- constants --------------------------------------------------------------------------------------------------------


def test_shape_arithmetic_leaves_no_ops(tmp_path: Path) -> None:
    """Where, Equal, Range, Expand, ReduceProd, NonZero, Size, Trilu, Pow, Floor on constants only."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Equal", ["shape", "three"], ["same"]),
        helper.make_node("Where", ["same", "one", "shape"], ["chosen"]),
        helper.make_node("ReduceProd", ["chosen"], ["product"], keepdims=0),
        helper.make_node("Range", ["zero", "product", "step"], ["range"]),
        helper.make_node("Cast", ["range"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Pow", ["real", "half"], ["root"]),
        helper.make_node("Floor", ["root"], ["floor"]),
        helper.make_node("Expand", ["floor", "wide"], ["matrix"]),
        helper.make_node("Trilu", ["matrix"], ["triangle"], upper=0),
        helper.make_node("NonZero", ["triangle"], ["places"]),
        helper.make_node("Size", ["places"], ["count"]),
        helper.make_node("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["triangle"], ["largest"], keepdims=0),
        helper.make_node("Add", ["number", "largest"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    weights = {"three": np.array([3, 3]), "one": np.int64(1), "zero": np.int64(0), "step": np.int64(1),
               "half": np.float32(0.5), "wide": np.array([4, 1])}  # fmt: skip
    model = make_model(nodes, {"x": (3, 8)}, ["y"], weights, opset=14)
    assert [op.kind for op in read_model(save(model, tmp_path)).ops] == ["add"]
    compare(model, tmp_path)


@pytest.mark.parametrize("taken", [True, False])
def test_if_on_a_constant_reads_the_branch_it_takes(taken: bool, tmp_path: Path) -> None:
    def branch(op_type: str, extra: float) -> onnx.GraphProto:
        nodes = [helper.make_node("Add", ["x", "k"], ["t"], "n"), helper.make_node(op_type, ["t"], ["r"], "m")]
        constant = numpy_helper.from_array(np.float32(extra), "k")
        return helper.make_graph(
            nodes, "b", [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)], [constant]
        )

    nodes = [
        helper.make_node("If", ["c"], ["a"], "first", then_branch=branch("Relu", 0.5), else_branch=branch("Tanh", 1.0)),
        helper.make_node("If", ["c"], ["b"], "second", then_branch=branch("Exp", 0.1), else_branch=branch("Neg", 2.0)),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = make_model(nodes, {"x": (2, 3)}, ["y"], {"c": np.array(taken)})
    kinds = {op.kind for op in read_model(save(model, tmp_path)).ops}
    assert ({"relu", "exp"} if taken else {"tanh", "neg"}) < kinds
    compare(model, tmp_path)


def test_the_documentation_lists_what_is_supported() -> None:
    text = (Path(__file__).parents[2] / "docs" / "import.md").read_text()
    words = set(re.findall(r"\w+", text))
    short = {name.removeprefix("Reduce") for name in SUPPORTED_OPS if name.startswith("Reduce")}
    names = {name.rsplit(".", 1)[-1] for name in SUPPORTED_OPS if not name.startswith("Reduce")}
    comparisons = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}
    assert (names | short) - comparisons - words == set()


def test_every_supported_operator_has_a_test() -> None:
    """Somewhere in the tests each operator's name is written where a node of it is made."""
    folder = Path(__file__).parents[1]
    text = "".join(path.read_text() for path in [*folder.glob("*/test_onnx*.py"), *folder.glob("*/*/test_onnx*.py"),
                                                  *folder.glob("*.py")])  # fmt: skip
    exporters = Path(__file__).parents[2] / "workloads" / "onnx" / "export.py"
    text += exporters.read_text()
    missing = [name for name in SUPPORTED_OPS if f'"{name.rsplit(".", 1)[-1]}"' not in text]
    assert missing == []
