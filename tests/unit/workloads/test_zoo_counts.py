"""Every network counts what the table says, the table says what is published, and onnxruntime runs what is built.

Counted here a second time and differently: over the nodes of the ONNX model, with shapes from ONNX's own inference.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, shape_inference

from dse.compiler import prepare
from dse.ir.reference import run_float
from workloads.zoo import ZooFrontend, builder, packaged
from workloads.zoo.frontend import BUILDERS
from workloads.zoo.table import Network, networks

DOCS = Path(__file__).parents[3] / "docs" / "zoo.md"
LARGE = {name for name, row in networks().items() if row.parameters > 30_000_000}
READ = [name for name in networks() if name not in LARGE]
#: Operators that multiply and accumulate, with the positions of their trained inputs.
LAYERS = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (1,), "LSTM": (1, 2, 3), "GRU": (1, 2, 3), "Gather": (0,)}
NORMS = {"BatchNormalization": (1, 2), "LayerNormalization": (1, 2)}


@pytest.fixture
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """The built network; where drawing and holding weights takes seconds, of zeros."""
    if request.param in LARGE:
        for module in (builder, packaged):
            monkeypatch.setattr(module, "he_normal", lambda rng, shape: np.zeros(shape, np.float32))
    return BUILDERS[request.param](0)


def without_values(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its float weights as inputs: inference and checking need no copy of their values.

    Scalars, scales of a Resize and the like stay: shapes follow from their values.
    """
    graph = onnx.GraphProto(name=model.graph.name, node=model.graph.node, output=model.graph.output)
    graph.input.extend(model.graph.input)
    for item in model.graph.initializer:
        if item.data_type == TensorProto.FLOAT and math.prod(item.dims) > 16:
            graph.input.append(helper.make_tensor_value_info(item.name, TensorProto.FLOAT, list(item.dims)))
        else:
            graph.initializer.append(item)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


def count(model: onnx.ModelProto) -> tuple[int, int, int]:
    """(multiply-accumulates, parameters, statistics)."""
    bare = without_values(model)
    onnx.checker.check_model(bare, full_check=True)
    graph = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    constants = {item.name: list(item.dims) for item in model.graph.initializer}
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Reshape", "Unsqueeze")}
    constants |= {to: constants[origin] for to, origin in reshaped.items() if origin in constants}
    shapes |= {name: dims for name, dims in constants.items() if name not in shapes}
    macs = parameters = statistics = 0
    for node in graph.node:
        macs += node_macs(node, shapes)
        positions = {**LAYERS, **NORMS}.get(node.op_type, ())
        # the bias of a MatMul is an Add with a row of constants; Caffe's scale layers repeat the norm's own scale
        if node.op_type == "Add" and len(constants.get(node.input[0], ())) == 1:
            positions = (0,)
        read = [node.input[index] for index in positions if index < len(node.input)]
        parameters += sum(math.prod(constants[name]) for name in read if name in constants)
        if node.op_type == "BatchNormalization":
            statistics += 2 * shapes[node.input[1]][0]
    return macs, parameters, statistics


def node_macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Products summed into each output, times the outputs."""
    if node.op_type not in LAYERS or node.op_type == "Gather":
        return 0
    x, weight = shapes[node.input[0]], shapes[node.input[1]]
    assert min(*x, *weight, *shapes[node.output[0]]) > 0, f"{node.name}: no shape inferred"
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(weight[1:])
    if node.op_type in ("Gemm", "MatMul"):
        return math.prod(shapes[node.output[0]]) * x[-1]
    steps, batch = x[:2]
    return steps * batch * (math.prod(weight) + math.prod(shapes[node.input[2]]))


@pytest.mark.parametrize("model", networks(), indirect=True)
def test_every_network_passes_the_checker_and_counts_what_the_table_says(model: onnx.ModelProto) -> None:
    row = networks()[model.graph.name]
    assert count(model) == (row.macs, row.parameters, row.statistics)
    assert tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim) == row.input
    assert {node.op_type for node in model.graph.node} == set(row.operators)


def test_the_counter_knows_a_network_counted_by_hand() -> None:
    net = builder.ModelBuilder("net", 0, (1, 4, 6, 6))
    x = net.unit(net.input, "unit", (4, 8), 3, stride=2, groups=2, bias=True)
    x = net.reshape(x, "steps", (9, 1, 8))
    x = net.recurrent("GRU", x, "gru", (8, 5), bidirectional=True)
    x = net.linear(net.reshape(x, "rows", (9, 10)), "linear", (10, 3))
    conv, gru, linear = 9 * 8 * 2 * 9, 9 * 2 * 15 * (8 + 5), 9 * 10 * 3
    trained = (8 * 2 * 9 + 8 + 2 * 8) + 2 * (15 * 8 + 15 * 5 + 30) + (30 + 3)
    assert count(net.model(x, (9, 3))) == (conv + gru + linear, trained, 16)


def rounding(figure: str) -> tuple[float, float]:
    """A printed figure as its value and half a unit of its last digit."""
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?(?: ([kMG]))?", figure)
    assert match, figure
    unit = {None: 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[3]]
    return float(figure.split()[0]) * unit, 0.5 * unit / 10 ** len(match[2] or "") if match[3] else 0.0


def folded(row: Network) -> int:
    """Parameters with every batch norm folded: its scale goes, its shift stays unless the layer has a bias already."""
    floats = {item.name: math.prod(item.dims) for item in BUILDERS[row.name](0).graph.initializer}
    graph = BUILDERS[row.name](0).graph
    layers = {node.output[0]: node for node in graph.node if node.op_type in ("Conv", "Gemm")}
    total = row.parameters
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            channels = floats[node.input[1]]
            total -= 2 * channels if len(layers[node.input[0]].input) == 3 else channels
    return total


@pytest.mark.parametrize("row", [row for row in networks().values() if row.published], ids=lambda row: row.name)
def test_the_table_holds_what_is_published_in_its_own_rounding(row: Network) -> None:
    ours: dict[str, int] = {
        "macs": row.macs, "flops": 2 * row.macs, "parameters": row.parameters,
        "parameters_and_statistics": row.parameters + row.statistics,
    }  # fmt: skip
    for kind, figure in row.published.items():
        value, half = rounding(figure)
        assert abs((folded(row) if kind == "folded_parameters" else ours[kind]) - value) <= half, (kind, figure)


def test_only_own_designs_and_bare_topologies_have_no_published_figure() -> None:
    for row in networks().values():
        assert row.source
        if not row.published:
            assert row.source.startswith(("own design", "own cut", "sizes of", "counted in the topology")), row.name


@pytest.mark.parametrize("name", READ)
def test_the_graph_as_read_counts_the_same(name: str) -> None:
    graph, row = ZooFrontend().load(name, Path("."), {}), networks()[name]
    assert graph.macs == row.macs
    # DenseNet's norms come before their convs and cannot be folded: each becomes a product of its own
    assert prepare(graph).macs == row.macs or name == "densenet121"
    assert graph[graph.inputs[0]].shape == row.input


@pytest.mark.parametrize("name", ["resnet8", "ds_cnn", "mobilenet_v1_025_96", "autoencoder"])
def test_prepared_mlperf_tiny_networks_hold_as_many_values_as_the_benchmarks_int8_files(name: str) -> None:
    graph = prepare(ZooFrontend().load(name, Path("."), {}))
    assert graph.parameters == int(networks()[name].published["folded_parameters"])


def session_of(model: onnx.ModelProto) -> Any:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def random_input(row: Network, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 10_000, row.input) if row.name == "lstm_lm" else rng.standard_normal(row.input, np.float32)


@pytest.mark.parametrize("name", READ)
def test_the_graph_as_read_and_prepared_computes_what_onnxruntime_does(name: str) -> None:
    row, graph, session = networks()[name], ZooFrontend().load(name, Path("."), {}), session_of(BUILDERS[name](0))
    assert [item.name for item in session.get_outputs()] == list(graph.outputs)
    image = random_input(row, 3)
    expected = session.run(None, {graph.inputs[0]: image})
    for candidate in (graph, prepare(graph)):
        values = run_float(candidate, {graph.inputs[0]: image})
        for output, wanted in zip(graph.outputs, expected, strict=True):
            assert wanted.shape == graph[output].shape
            np.testing.assert_allclose(values[output], wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max()))


@pytest.mark.parametrize("name", READ)
def test_outputs_are_in_range_and_depend_on_the_input(name: str) -> None:
    model = BUILDERS[name](0)
    last = model.graph.node[-1]
    if last.op_type == "Softmax":
        # probabilities of 1000 classes hide what the logits do
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, None))
    session = session_of(model)
    fed = session.get_inputs()[0].name
    first, second = (session.run(None, {fed: random_input(networks()[name], seed)}) for seed in (0, 1))
    for one, other in zip(first, second, strict=True):
        assert np.isfinite(one).all()
        assert 1e-2 < one.std() < 1e3
        # white noise averages out over the map, so that classes differ far more than images do
        assert np.abs(one - other).max() > 1e-3 * one.std()


def test_the_document_shows_the_table() -> None:
    lines = {match[1]: line for line in DOCS.read_text().splitlines() if (match := re.match(r"\| `(\w+)` \|", line))}
    assert set(lines) == set(networks())
    for name, row in networks().items():
        assert f"| {row.macs:,} | {row.parameters:,} |" in lines[name]
        assert row.source in lines[name]
