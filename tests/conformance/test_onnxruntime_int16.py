"""Networks with 16-bit activations as ONNX of opset 21: onnxruntime runs them in float around int16 tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_networks import RandomCnn, save

pytest.importorskip("onnxruntime")

from int8_parity import session

from dse.compiler import Recipe, calibration_images, prepare, quantize, strip_softmax, with_float_boundary
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.quantized import integer_limits, quantization_of, quantize_inputs
from dse.ir.reference import run_op_quantized, run_quantized
from workloads.onnx import export_quantized, read_model
from workloads.zoo import ZooFrontend


def network(name: str) -> Graph:
    return strip_softmax(prepare(ZooFrontend().load(name, Path("."), {})))


def every_tensor(graph: Graph) -> Graph:
    names = tuple(name for op in graph.ops for name in op.outputs)
    return Graph(graph.name, graph.tensors, graph.ops, graph.inputs, names)


@pytest.mark.parametrize("level", ["unoptimised", "optimised"])
def test_power_of_two_scales_are_exact_but_for_ties(level: str) -> None:
    """Sums of few products on powers of two are exact in float32, so that only halves differ: up here, even there."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (8, 3)).astype(np.int8)
    bias = rng.integers(-(1 << 14), 1 << 14, 8).astype(np.int32)
    tensors = {
        "x": Tensor("x", (1, 3), "int16", Quantization((2.0**-12,), 0, None, 16)),
        "w": Tensor("w", weight.shape, "int8", Quantization((2.0**-7,) * 8, 0, 0), weight),
        "b": Tensor("b", (8,), "int32", Quantization((2.0**-19,) * 8, 0, 0, 32), bias),
        "y": Tensor("y", (1, 8), "int16", Quantization((2.0**-11,), 0, None, 16)),
    }
    graph = Graph("net", tensors, (Op("op", "gemm", ("x", "w", "b"), ("y",), {"activation": "relu"}),), ("x",), ("y",))
    runner = session(export_quantized(graph), level)
    x = rng.integers(-32768, 32768, (500, 1, 3)).astype(np.int16)
    acc = x[:, 0].astype(np.int64) @ weight.T.astype(np.int64) + bias
    ties = acc % 256 == 128
    assert 5 < ties.sum() < 100
    for row, tie in zip(x, ties, strict=True):
        want, got = runner.run(None, {"x": row})[0][0], run_quantized(graph, {"x": row}, "ort")["y"][0]
        np.testing.assert_array_equal(got[~tie], want[~tie])
        assert np.isin(got[tie] - want[tie], (0, 1)).all()


@pytest.mark.parametrize("name", ["tiny_cnn", "ds_cnn", "resnet8"])
@pytest.mark.parametrize("weight_bits", [8, 4])
def test_every_op_is_within_two_codes_of_onnxruntime_on_the_same_operands(name: str, weight_bits: int) -> None:
    """Op by op on onnxruntime's own integers; a multiplier of 15 bits is off by up to a code at the ends."""
    graph = network(name)
    found = every_tensor(quantize(graph, calibration_images(graph, 2, 0), Recipe("minmax", 99.99, weight_bits,
                                                                                activation_bits=16)))  # fmt: skip
    fed = quantize_inputs(found, {key: value[:1] for key, value in calibration_images(graph, 1, 5).items()})
    wanted = dict(zip(found.outputs, session(export_quantized(found), "unoptimised").run(None, fed), strict=True))
    known = {**fed, **wanted}
    total = off = 0
    for op in found.ops:
        (got,) = run_op_quantized(found, op, {key: known[key] for key in op.inputs if key in known}, "q31").values()
        far = np.abs(got.astype(int) - wanted[op.outputs[0]])
        assert far.max() <= 2, op.name
        off, total = off + int((far > 1).sum()), total + far.size
    assert off <= 0.001 * total
    assert total > 500


@pytest.mark.parametrize("recipe", [
    Recipe(activation_bits=16), Recipe(weight_bits=4, activation_bits=16), Recipe(output_bits={"input": 16}),
], ids=["16x8", "16x4", "input"])  # fmt: skip
def test_a_written_network_is_read_back_as_it_was(recipe: Recipe, tmp_path: Path) -> None:
    graph = network("resnet8")
    found = quantize(graph, calibration_images(graph, 2, 0), recipe)
    model = export_quantized(with_float_boundary(found, graph))
    assert model.opset_import[0].version == 21
    onnx.checker.check_model(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    back = read_model(path)
    assert [op.kind for op in back.ops] == [op.kind for op in found.ops]
    images = calibration_images(graph, 2, 3)
    values = run_quantized(found, quantize_inputs(found, images), "ort")[found.outputs[0]]
    again = run_quantized(back, quantize_inputs(back, dict(zip(back.inputs, images.values(), strict=True))), "ort")
    np.testing.assert_array_equal(values, again[back.outputs[0]])
    for name in (*found.inputs, *found.outputs):
        assert integer_limits(quantization_of(found, name)) == integer_limits(quantization_of(back, name))


@pytest.mark.parametrize("seed", range(3))
def test_random_networks_end_near_onnxruntime(seed: int, tmp_path: Path) -> None:
    graph = strip_softmax(prepare(read_model(save(RandomCnn(np.random.default_rng(seed)).build(), tmp_path))))
    found = quantize(graph, calibration_images(graph, 4, 0), Recipe(activation_bits=16))
    fed = quantize_inputs(found, {key: value[:1] for key, value in calibration_images(graph, 1, 5).items()})
    want = session(export_quantized(found), "optimised").run(None, fed)[0]
    far = np.abs(run_quantized(found, fed, "ort")[found.outputs[0]].astype(int) - want)
    assert far.max() <= 16


def test_without_int16_the_opset_stays_17() -> None:
    graph = network("tiny_cnn")
    assert export_quantized(quantize(graph, calibration_images(graph, 2, 0))).opset_import[0].version == 17
