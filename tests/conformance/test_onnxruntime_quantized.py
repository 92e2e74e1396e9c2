"""The integer reference in mode `ort` equals onnxruntime's QLinear operators bit for bit: ops and whole networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_networks import RandomCnn, save

from dse.compiler import accuracy, calibration_images, prepare, quantize
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.quantized import quantize_inputs
from dse.ir.reference import run_quantized
from workloads.onnx import export_quantized, read_model
from workloads.zoo import ZooFrontend

ort = pytest.importorskip("onnxruntime")
LEVELS = {
    "unoptimised": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "optimised": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session(graph: Graph, level: str) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    data = export_quantized(graph).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def mismatches(graph: Graph, inputs: dict[str, Any], level: str) -> tuple[int, int]:
    """(outputs that differ, outputs) over a batch, image by image."""
    runner = session(graph, level)
    got = run_quantized(graph, inputs, "ort")
    wrong = total = 0
    for index in range(len(next(iter(inputs.values())))):
        expected = runner.run(list(graph.outputs), {name: array[index : index + 1] for name, array in inputs.items()})
        for name, values in zip(graph.outputs, expected, strict=True):
            wrong += int((values != got[name][index : index + 1]).sum())
            total += values.size
    return wrong, total


def every_tensor(graph: Graph) -> Graph:
    """The graph with the output of every op as an output of the graph."""
    return Graph(graph.name, graph.tensors, graph.ops, graph.inputs, tuple(op.outputs[0] for op in graph.ops))


def random_images(graph: Graph, count: int, seed: int) -> dict[str, Any]:
    """Half of the images uniform int8 (saturating everywhere), half smooth."""
    rng = np.random.default_rng(seed)
    smooth = quantize_inputs(graph, calibration_images(graph, count - count // 2, seed))
    return {
        name: np.concatenate([rng.integers(-128, 128, (count // 2, *graph[name].shape[1:])).astype(np.int8), values])
        for name, values in smooth.items()
    }


# -- whole networks --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["resnet8", "tiny_cnn", "mlp"])
def zoo_network(request: pytest.FixtureRequest) -> tuple[Graph, Graph]:
    graph = prepare(ZooFrontend().load(request.param, Path("."), {}))
    return graph, quantize(graph, calibration_images(graph, 32, 0))


@pytest.mark.parametrize("level", LEVELS)
def test_logits_of_zoo_networks_equal_onnxruntime_on_100_inputs(zoo_network: tuple[Graph, Graph], level: str) -> None:
    _, quantized = zoo_network
    images = random_images(quantized, 100, 1)
    # a network whose logits hardly move would prove nothing
    logits = run_quantized(quantized, images, "ort")[quantized.outputs[0]]
    assert len(np.unique(logits)) > 30
    assert mismatches(quantized, images, level) == (0, 1000)


def test_every_tensor_inside_zoo_networks_equals_onnxruntime(zoo_network: tuple[Graph, Graph]) -> None:
    graph = every_tensor(zoo_network[1])
    wrong, total = mismatches(graph, random_images(graph, 4, 2), "unoptimised")
    assert wrong == 0
    assert total > 100


def test_q31_differs_from_ort_by_one_step_on_few_logits(zoo_network: tuple[Graph, Graph]) -> None:
    """Measured on 100 inputs: no logit of the three networks differs by more than one step."""
    _, quantized = zoo_network
    images = random_images(quantized, 100, 3)
    exact, cheap = (run_quantized(quantized, images, mode)[quantized.outputs[0]].astype(int) for mode in ("ort", "q31"))
    assert np.abs(exact - cheap).max() <= 1
    assert (exact != cheap).mean() < 0.01


@pytest.mark.parametrize(("bits", "floor_db", "agreeing"), [(8, 28.0, 0.85), (4, 12.0, 0.4)])
def test_quantized_zoo_networks_stay_close_to_float(
    zoo_network: tuple[Graph, Graph], bits: int, floor_db: float, agreeing: float
) -> None:
    graph, _ = zoo_network
    quantized = quantize(graph, calibration_images(graph, 32, 0), weight_bits=bits)
    figures = accuracy(graph, quantized, "ort", calibration_images(graph, 32, 1))
    assert figures["sqnr_db"] > floor_db
    assert figures["top1_agreement"] > agreeing


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("bits", [8, 4])
def test_every_tensor_of_random_cnns_equals_onnxruntime(seed: int, bits: int, tmp_path: Path) -> None:
    model = RandomCnn(np.random.default_rng(1000 + seed)).build()
    graph = prepare(read_model(save(model, tmp_path)))
    quantized = every_tensor(quantize(graph, calibration_images(graph, 8, seed), weight_bits=bits))
    wrong, _ = mismatches(quantized, random_images(quantized, 4, seed), "unoptimised")
    assert wrong == 0


# -- single ops, with quantizations that calibration would not choose -------------------------------------------


def random_quantization(rng: np.random.Generator) -> Quantization:
    return Quantization((float(np.float32(rng.uniform(0.005, 0.1))),), int(rng.integers(-128, 128)))


def one_op(op: Op, tensors: list[Tensor]) -> Graph:
    inputs = tuple(tensor.name for tensor in tensors if tensor.data is None and tensor.name != "y")
    return Graph("one", {tensor.name: tensor for tensor in tensors}, (op,), inputs, ("y",))


def full_range(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(-128, 128, shape).astype(np.int8)


@pytest.mark.parametrize("seed", range(30))
def test_conv_with_full_range_weights_equals_onnxruntime(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 4]))
    channels, outputs = groups * int(rng.integers(1, 17)), groups * int(rng.integers(1, 9))
    kernel, strides, dilations = (tuple(int(v) for v in rng.integers(1, high, 2)) for high in (4, 3, 3))
    pads = tuple(int(v) for v in rng.integers(0, 3, 4))
    sizes = [
        (12 + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1
        for axis in (0, 1)
    ]
    depth = channels // groups * kernel[0] * kernel[1]
    scales = rng.uniform(0.001, 0.05, outputs).astype(np.float32)
    of_x, zero_y = random_quantization(rng), int(rng.integers(-128, 128))
    # an output scale that spreads the accumulators over the int8 range
    scale_y = float(np.float32(of_x.scale[0] * scales.mean() * 127 * 127 * depth**0.5 / 300))
    tensors = [
        Tensor("x", (1, channels, 12, 12), "int8", of_x),
        Tensor("w", (outputs, channels // groups, *kernel), "int8", Quantization(tuple(map(float, scales)), 0, 0),
               rng.integers(-127, 128, (outputs, channels // groups, *kernel)).astype(np.int8)),
        Tensor("b", (outputs,), "int32", data=rng.integers(-20000, 20000, outputs).astype(np.int32)),
        Tensor("y", (1, outputs, *sizes), "int8", Quantization((scale_y,), zero_y)),
    ]  # fmt: skip
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "groups": groups, "activation": "none"}
    graph = one_op(Op("conv", "conv", ("x", "w", "b"), ("y",), attributes), tensors)
    images = {"x": full_range(rng, (8, channels, 12, 12))}
    assert len(np.unique(run_quantized(graph, images, "ort")["y"])) > 64
    assert mismatches(graph, images, "unoptimised")[0] == 0


@pytest.mark.parametrize("depth", [3, 64, 1024, 1025, 4096])
def test_gemm_equals_onnxruntime_on_both_sides_of_the_float32_limit(depth: int) -> None:
    """Up to 1024 products the reference sums in float32, beyond in float64."""
    rng = np.random.default_rng(depth)
    scales = rng.uniform(0.001, 0.05, 10).astype(np.float32)
    of_x = random_quantization(rng)
    scale_y = float(np.float32(of_x.scale[0] * 0.025 * 127 * 127 * depth**0.5 / 150))
    tensors = [
        Tensor("x", (1, depth), "int8", of_x),
        Tensor("w", (10, depth), "int8", Quantization(tuple(map(float, scales)), 0, 0),
               rng.integers(-127, 128, (10, depth)).astype(np.int8)),
        Tensor("b", (10,), "int32", data=rng.integers(-20000, 20000, 10).astype(np.int32)),
        Tensor("y", (1, 10), "int8", Quantization((scale_y,), int(rng.integers(-128, 128)))),
    ]  # fmt: skip
    graph = one_op(Op("gemm", "gemm", ("x", "w", "b"), ("y",), {"activation": "none"}), tensors)
    assert mismatches(graph, {"x": full_range(rng, (64, depth))}, "unoptimised") == (0, 640)


@pytest.mark.parametrize("seed", range(40))
def test_add_equals_onnxruntime_on_all_65536_pairs(seed: int) -> None:
    """Scales drawn half at random, half as ratios of small integers, where every other sum is a tie."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        scales = [float(np.float32(value)) for value in rng.integers(1, 9, 3) / 8]
    else:
        scales = [float(np.float32(value)) for value in rng.uniform(0.01, 0.1, 3)]
    a, b, y = (Quantization((scale,), int(rng.integers(-128, 128))) for scale in scales)
    shape = (1, 1, 256, 256)
    tensors = [Tensor("a", shape, "int8", a), Tensor("b", shape, "int8", b), Tensor("y", shape, "int8", y)]
    graph = one_op(Op("add", "add", ("a", "b"), ("y",), {"activation": "none"}), tensors)
    codes = np.arange(-128, 128).astype(np.int8)
    images = {
        "a": np.broadcast_to(codes[:, None], shape).copy(),
        "b": np.broadcast_to(codes[None, :], shape).copy(),
    }
    assert mismatches(graph, images, "unoptimised") == (0, 65536)


@pytest.mark.parametrize("kind", ["average_pool", "global_average_pool", "max_pool"])
@pytest.mark.parametrize("seed", range(25))
def test_pools_equal_onnxruntime(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels, height, width = (int(v) for v in rng.integers(5, 13, 3))
    kernel, strides = tuple(int(v) for v in rng.integers(1, 5, 2)), tuple(int(v) for v in rng.integers(1, 3, 2))
    pads = tuple(int(rng.integers(0, kernel[axis % 2])) for axis in range(4))
    out = [
        (size + pads[axis] + pads[axis + 2] - kernel[axis]) // strides[axis] + 1
        for axis, size in enumerate((height, width))
    ]
    of_x = random_quantization(rng)
    of_y = random_quantization(rng) if seed % 2 and kind != "max_pool" else of_x
    attributes: dict[str, Any] = {"kernel": kernel, "strides": strides, "pads": pads}
    if kind == "average_pool":
        attributes["count_include_pad"] = bool(rng.integers(2))
    if kind == "global_average_pool":
        attributes, out = {}, [1, 1]
    tensors = [
        Tensor("x", (1, channels, height, width), "int8", of_x), Tensor("y", (1, channels, *out), "int8", of_y),
    ]  # fmt: skip
    graph = one_op(Op("pool", kind, ("x",), ("y",), attributes), tensors)
    assert mismatches(graph, {"x": full_range(rng, (16, channels, height, width))}, "unoptimised")[0] == 0
