"""Mode `ort` equals onnxruntime over the whole input space of each rule, for many scales, ties included.

One session an op: scales and zero points are inputs of the models, not constants. A third of the scale sets is drawn
at random, a third are ratios of small integers and a third powers of two, for which exact ties are frequent: random
tests do not meet them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_quantized
from dse.ir.requantize import add_ort, encode_scale, requantize

ort = pytest.importorskip("onnxruntime")

SETS = 240
CODES = np.arange(-128, 128).astype(np.int8)
FLOAT, INT8, INT32 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT32
Int8Array = npt.NDArray[np.int8]


def session(op: str, inputs: Sequence[tuple[str, int, Sequence[Any]]], domain: str = "", **attributes: Any) -> Any:
    """A session of one node whose every operand is an input of the model."""
    node = helper.make_node(op, [name for name, _, _ in inputs], ["out"], domain=domain, **attributes)
    infos = [helper.make_tensor_value_info(*item) for item in inputs]
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info("out", INT8, None)])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, ir_version=8, opset_imports=opsets)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def real(value: float) -> npt.NDArray[np.float32]:
    return np.array(value, np.float32)


def code(value: int) -> Int8Array:
    return np.array(value, np.int8)


def float32(value: float) -> float:
    return float(np.float32(value))


def scale_sets(count: int, seed: int) -> Iterator[tuple[tuple[float, ...], tuple[int, ...]]]:
    """(scales, zero points), `count` of each; zero points lie at the ends of int8 in a quarter of the sets."""
    rng = np.random.default_rng(seed)
    for index in range(SETS):
        if index % 3 == 0:
            scales = rng.uniform(0.005, 0.1, count)
        elif index % 3 == 1:
            scales = rng.integers(1, 13, count) / 16
        else:
            scales = 2.0 ** rng.integers(-6, 3, count)
        zeros = rng.choice([-128, 0, 127], count) if index % 4 == 0 else rng.integers(-128, 128, count)
        yield tuple(map(float32, scales)), tuple(map(int, zeros))


def exact_ties(values: npt.NDArray[np.float64]) -> int:
    return int((values - np.floor(values) == 0.5).sum())


def test_add_equals_onnxruntime_on_all_pairs() -> None:
    shape = [256, 256]
    scalar: list[Any] = []
    run = session(
        "QLinearAdd",
        [("a", INT8, shape), ("as", FLOAT, scalar), ("az", INT8, scalar), ("b", INT8, shape), ("bs", FLOAT, scalar),
         ("bz", INT8, scalar), ("ys", FLOAT, scalar), ("yz", INT8, scalar)],
        "com.microsoft",
    )  # fmt: skip
    a, b = (np.ascontiguousarray(np.broadcast_to(view, shape)) for view in (CODES[:, None], CODES[None, :]))
    wrong = ties = 0
    for (sa, sb, sy), (za, zb, zy) in scale_sets(3, 0):
        feed = {"a": a, "as": real(sa), "az": code(za), "b": b, "bs": real(sb), "bz": code(zb), "ys": real(sy),
                "yz": code(zy)}  # fmt: skip
        wrong += int((run.run(None, feed)[0] != add_ort(a, b, sa, sb, sy, za, zb, zy)).sum())
        ties += exact_ties((sa * (a.astype(np.float64) - za) + sb * (b.astype(np.float64) - zb)) / sy)
    assert wrong == 0
    assert ties > 500_000  # without ties this would prove little


def accumulator_session() -> Any:
    """The bias of a 1x1 convolution of a zero is its accumulator: any int32 can be presented, one a channel."""
    return session(
        "QLinearConv",
        [("x", INT8, [1, 1, 1, 1]), ("xs", FLOAT, []), ("xz", INT8, []), ("w", INT8, ["M", 1, 1, 1]),
         ("ws", FLOAT, ["M"]), ("wz", INT8, ["M"]), ("ys", FLOAT, []), ("yz", INT8, []), ("b", INT32, ["M"])],
        kernel_shape=[1, 1],
    )  # fmt: skip


def requantized(
    run: Any, acc: npt.NDArray[np.int64], scales: tuple[float, float, float], zero: int
) -> tuple[Int8Array, Int8Array]:
    """Codes of accumulators by onnxruntime and by the integer rule; scales of input, weight and output."""
    sx, sw, sy = scales
    count = len(acc)
    got = run.run(None, {
        "x": np.zeros((1, 1, 1, 1), np.int8), "xs": real(sx), "xz": code(0), "w": np.ones((count, 1, 1, 1), np.int8),
        "ws": np.full(count, sw, np.float32), "wz": np.zeros(count, np.int8), "ys": real(sy), "yz": code(zero),
        "b": acc.astype(np.int32),
    })[0].ravel()  # fmt: skip
    scale = np.float32(np.float32(np.float32(sx) * np.float32(sw)) / np.float32(sy))
    multiplier, shift = encode_scale(np.array([scale]), "ort")
    return got, requantize(acc, multiplier, shift, zero, -128, 127, "ort")


def test_requantization_equals_onnxruntime_on_all_accumulators_that_do_not_saturate() -> None:
    run = accumulator_session()
    rng = np.random.default_rng(1)
    ends = np.array([-(2**31), -(2**31) + 1, 2**31 - 1, 2**24 + 1, -(2**24) - 1], np.int64)
    wrong = total = ties = 0
    for index, ((sx, sw, sy), (_, _, zero)) in enumerate(scale_sets(3, 1)):
        exponent = float(rng.uniform(-9, 1))
        sw = float32(sw * sy / sx / sw * 2 ** (exponent if index % 3 == 0 else round(exponent)))
        scale = np.float32(np.float32(np.float32(sx) * np.float32(sw)) / np.float32(sy))
        reach = int(260 / scale) + 2
        acc = np.concatenate([np.arange(-reach, reach + 1), ends, rng.integers(-(2**31), 2**31, 1000)])
        got, expected = requantized(run, acc, (sx, sw, sy), zero)
        wrong += int((got != expected).sum())
        ties += exact_ties(acc[: 2 * reach + 1].astype(np.float64) * float(scale))
        total += len(acc)
    assert wrong == 0
    assert total > 2_000_000
    assert ties > 10_000


def test_requantization_equals_onnxruntime_for_small_scales_around_every_tie() -> None:
    """Scales down to 2**-22 have too many accumulators; the code changes only near (k + 1/2) / scale."""
    run = accumulator_session()
    rng = np.random.default_rng(2)
    steps = np.arange(-257, 258) + 0.5
    near = np.arange(-40, 41)
    wrong = 0
    for _ in range(SETS):
        scale = np.float32(2.0 ** rng.uniform(-22, -9))
        zero = int(rng.integers(-128, 128))
        acc = np.rint(steps[:, None] / np.float64(scale) + near).astype(np.int64).ravel()
        got, expected = requantized(run, acc, (1.0, float(scale), 1.0), zero)
        wrong += int((got != expected).sum())
    assert wrong == 0


def one_op(
    kind: str, attributes: dict[str, Any], shapes: Sequence[tuple[int, ...]], of: Sequence[Quantization]
) -> Graph:
    tensors = {name: Tensor(name, shape, "int8", item) for name, shape, item in zip("xy", shapes, of, strict=True)}
    return Graph("one", tensors, (Op("op", kind, ("x",), ("y",), attributes),), ("x",), ("y",))


def test_every_product_requantizes_as_in_onnxruntime() -> None:
    """All 256 x 255 products of an activation and a weight, at every set of scales and zero points."""
    run = session(
        "QLinearConv",
        [("x", INT8, [1, 1, 256, 1]), ("xs", FLOAT, []), ("xz", INT8, []), ("w", INT8, [255, 1, 1, 1]),
         ("ws", FLOAT, [255]), ("wz", INT8, [255]), ("ys", FLOAT, []), ("yz", INT8, [])],
        kernel_shape=[1, 1],
    )  # fmt: skip
    x, weight = CODES.reshape(1, 1, 256, 1), CODES[1:].reshape(255, 1, 1, 1)
    attributes = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1, "activation": "none"}
    wrong = 0
    for (sx, sw, sy), (zx, _, zy) in scale_sets(3, 3):
        sy = float32(sy * 16)
        got = run.run(None, {
            "x": x, "xs": real(sx), "xz": code(zx), "w": weight, "ws": np.full(255, sw, np.float32),
            "wz": np.zeros(255, np.int8), "ys": real(sy), "yz": code(zy),
        })[0]  # fmt: skip
        graph = one_op(
            "conv", attributes, [(1, 1, 256, 1), (1, 255, 256, 1)], [Quantization((sx,), zx), Quantization((sy,), zy)]
        )
        tensors = {**graph.tensors, "w": Tensor("w", weight.shape, "int8", Quantization((sw,), 0), weight)}
        op = Op("op", "conv", ("x", "w"), ("y",), attributes)
        wrong += int((got != run_quantized(Graph("one", tensors, (op,), ("x",), ("y",)), {"x": x}, "ort")["y"]).sum())
    assert wrong == 0


def maps_of_every_sum(area: int) -> Int8Array:
    """Maps of `area` pixels, shape (1, 255 * area + 1, area, 1): one channel for each sum that int8 pixels reach."""
    sums = np.arange(-128 * area, 127 * area + 1)
    base, rest = np.divmod(sums, area)
    pixels = base[:, None] + (np.arange(area) < rest[:, None])
    return pixels.astype(np.int8).reshape(1, len(sums), area, 1)


def test_global_average_pool_equals_onnxruntime_on_every_sum() -> None:
    """The result depends on the sum of a map alone."""
    run = session(
        "QLinearGlobalAveragePool",
        [("x", INT8, [1, "C", "H", 1]), ("xs", FLOAT, []), ("xz", INT8, []), ("ys", FLOAT, []), ("yz", INT8, [])],
        "com.microsoft",
        channels_last=0,
    )
    maps = [maps_of_every_sum(area) for area in (1, 2, 4, 9, 16, 49, 64)]
    wrong = ties = 0
    for index, ((sx, sy), (zx, zy)) in enumerate(scale_sets(2, 4)):
        x = maps[index % len(maps)]
        got = run.run(None, {"x": x, "xs": real(sx), "xz": code(zx), "ys": real(sy), "yz": code(zy)})[0]
        of = [Quantization((sx,), zx), Quantization((sy,), zy)]
        graph = one_op("global_average_pool", {}, [x.shape, (*x.shape[:2], 1, 1)], of)
        wrong += int((got != run_quantized(graph, {"x": x}, "ort")["y"]).sum())
        ties += exact_ties((x.sum(axis=2, dtype=np.int64) - x.shape[2] * zx) * sx / (sy * x.shape[2]))
    assert wrong == 0
    assert ties > 5_000


@pytest.mark.parametrize("kernel", [(1, 2), (2, 1)])
def test_average_pool_equals_onnxruntime_on_all_pairs(kernel: tuple[int, int]) -> None:
    inputs = [("x", INT8, [1, 1, "H", "W"]), ("xs", FLOAT, []), ("xz", INT8, []), ("ys", FLOAT, []), ("yz", INT8, [])]
    window = {"kernel_shape": list(kernel), "strides": list(kernel), "pads": [0, 0, 0, 0]}
    run = session("QLinearAveragePool", inputs, "com.microsoft", channels_last=0, **window)
    a, b = (np.broadcast_to(view, (256, 256)) for view in (CODES[:, None], CODES[None, :]))
    x = np.stack([a, b], axis=2 if kernel == (1, 2) else 1).reshape(1, 1, 256 * kernel[0], 256 * kernel[1])
    attributes = {"kernel": kernel, "strides": kernel, "pads": (0, 0, 0, 0), "count_include_pad": False}
    wrong = ties = 0
    for (sx, sy), (zx, zy) in scale_sets(2, 5):
        got = run.run(None, {"x": x, "xs": real(sx), "xz": code(zx), "ys": real(sy), "yz": code(zy)})[0]
        of = [Quantization((sx,), zx), Quantization((sy,), zy)]
        graph = one_op("average_pool", attributes, [x.shape, (1, 1, 256, 256)], of)
        wrong += int((got != run_quantized(graph, {"x": x}, "ort")["y"]).sum())
        ties += exact_ties((a.astype(np.float64) + b - 2 * zx) * sx / (2 * sy))
    assert wrong == 0
    assert ties > 100_000


def test_max_pool_equals_onnxruntime_on_all_pairs_with_padding() -> None:
    window = {"kernel_shape": [1, 2], "strides": [1, 2], "pads": [0, 1, 0, 1]}
    run = session("MaxPool", [("x", INT8, [1, 1, "H", "W"])], **window)
    pairs = np.stack(np.broadcast_arrays(CODES[:, None], CODES[None, :]), axis=2).reshape(1, 1, 256, 512)
    attributes = {"kernel": (1, 2), "strides": (1, 2), "pads": (0, 1, 0, 1), "count_include_pad": False}
    of = [Quantization((0.1,), 5)] * 2
    graph = one_op("max_pool", attributes, [pairs.shape, (1, 1, 256, 257)], of)
    np.testing.assert_array_equal(run.run(None, {"x": pairs})[0], run_quantized(graph, {"x": pairs}, "ort")["y"])
