"""Random quantized graphs of one layer, for tests of the compiler and of the hardware."""

from __future__ import annotations

import numpy as np

from dse.ir import Graph, Op, Quantization, Tensor


def _quantization(rng: np.random.Generator, scale: float) -> Quantization:
    return Quantization((float(np.float32(scale)),), int(rng.integers(-128, 128)))


def random_layer(rng: np.random.Generator, *, weight_bits: int = 8, add: bool = False, kind: str = "conv") -> Graph:
    """A graph of one conv ("conv", "depthwise", "grouped") or gemm layer with random shape, values and scales.

    With `add`, a residual add follows the convolution.
    """
    if kind == "gemm":
        return _random_gemm(rng, weight_bits)
    kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
    strides = tuple(int(v) for v in rng.integers(1, 3, 2))
    dilations = tuple(int(v) for v in rng.integers(1, 3, 2))
    groups = 1
    in_channels, out_channels = (int(v) for v in rng.integers(1, 14, 2))
    if kind == "depthwise":
        groups = in_channels
        out_channels = in_channels * int(rng.integers(1, 3))
    elif kind == "grouped":
        groups = int(rng.integers(2, 4))
        in_channels, out_channels = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 6))
    pads = tuple(int(v) for v in rng.integers(0, 2, 4))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    height = int(rng.integers(max(extents[0] - pads[0] - pads[2], 1), extents[0] + 7))
    width = int(rng.integers(max(extents[1] - pads[1] - pads[3], 1), extents[1] + 7))
    out_h = (height + pads[0] + pads[2] - extents[0]) // strides[0] + 1
    out_w = (width + pads[1] + pads[3] - extents[1]) // strides[1] + 1
    attributes = {
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "groups": groups,
        "activation": "none",
        "kernel": kernel,
    }
    limit = 7 if weight_bits == 4 else 127
    weights = rng.integers(-limit, limit + 1, (out_channels, in_channels // groups, *kernel)).astype(np.int8)
    tensors, ops = _layer_tensors(rng, weights, weight_bits, (1, in_channels, height, width))
    shape = (1, out_channels, out_h, out_w)
    tensors["y"] = Tensor("y", shape, "int8", _output_quantization(rng, tensors, weights))
    ops.append(Op("layer", "conv", ("x", "w", "b"), ("y",), attributes))
    inputs, output = ["x"], "y"
    if add:
        assert tensors["y"].quantization is not None
        scale = tensors["y"].quantization.scale[0]
        tensors["r"] = Tensor("r", shape, "int8", _quantization(rng, scale * rng.uniform(0.3, 2)))
        tensors["z"] = Tensor("z", shape, "int8", _quantization(rng, scale * rng.uniform(0.7, 2)))
        operands = ("y", "r") if rng.random() < 0.5 else ("r", "y")
        ops.append(Op("sum", "add", operands, ("z",), {"activation": "relu" if rng.random() < 0.5 else "none"}))
        if ops[-1].attributes["activation"] == "relu":
            old = tensors["z"].quantization
            assert old is not None
            tensors["z"] = Tensor("z", shape, "int8", Quantization(old.scale, -128))
        inputs.append("r")
        output = "z"
    return Graph("random", tensors, tuple(ops), tuple(inputs), (output,))


def _random_gemm(rng: np.random.Generator, weight_bits: int) -> Graph:
    rows, depth, outputs = int(rng.integers(1, 10)), int(rng.integers(1, 40)), int(rng.integers(1, 30))
    limit = 7 if weight_bits == 4 else 127
    weights = rng.integers(-limit, limit + 1, (outputs, depth)).astype(np.int8)
    tensors, ops = _layer_tensors(rng, weights, weight_bits, (rows, depth))
    tensors["y"] = Tensor("y", (rows, outputs), "int8", _output_quantization(rng, tensors, weights))
    ops.append(Op("layer", "gemm", ("x", "w", "b"), ("y",), {"activation": "none"}))
    return Graph("random", tensors, tuple(ops), ("x",), ("y",))


def _layer_tensors(
    rng: np.random.Generator, weights: np.ndarray, weight_bits: int, input_shape: tuple[int, ...]
) -> tuple[dict[str, Tensor], list[Op]]:
    outputs = weights.shape[0]
    weight_scales = tuple(float(np.float32(v)) for v in rng.uniform(0.002, 0.02, outputs))
    bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
    tensors = {
        "x": Tensor("x", input_shape, "int8", _quantization(rng, rng.uniform(0.01, 0.1))),
        "w": Tensor("w", weights.shape, "int8", Quantization(weight_scales, 0, 0, weight_bits), weights),
        "b": Tensor("b", bias.shape, "int32", None, bias),
    }
    return tensors, []


def _output_quantization(rng: np.random.Generator, tensors: dict[str, Tensor], weights: np.ndarray) -> Quantization:
    """A scale that spreads the outputs over int8, so that few saturate."""
    x = tensors["x"].quantization
    w = tensors["w"].quantization
    assert x is not None
    assert w is not None
    depth = int(np.prod(weights.shape[1:]))
    spread = float(np.abs(weights).mean()) * 74.0 * np.sqrt(depth) * x.scale[0] * float(np.mean(w.scale))
    return _quantization(rng, max(spread, 1e-4) * rng.uniform(0.5, 2) / 40)


def random_inputs(rng: np.random.Generator, graph: Graph) -> dict[str, np.ndarray]:
    """Uniform int8 values for every graph input."""
    return {name: rng.integers(-128, 128, graph[name].shape).astype(np.int8) for name in graph.inputs}
