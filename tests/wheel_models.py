"""The nine networks inside the `onnx` package, with seeded He-normal weights in place of their constant fills."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from dse.compiler import calibration_images, prepare, quantize
from dse.ir import Graph
from workloads.onnx import read_model

NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip


def path_of(name: str) -> Path:
    """The file inside the installed package."""
    spec = importlib.util.find_spec("onnx")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0], "backend", "test", "data", "light", f"light_{name}.onnx")


def seeded(name: str, seed: int = 0) -> onnx.ModelProto:
    """The network with weights that make values mean something."""
    model = onnx.load(path_of(name))
    graph, rng = model.graph, np.random.default_rng(seed)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    roles = _roles(graph)
    fills = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    weights = [
        numpy_helper.from_array(
            _values(rng, roles[node.output[0]], tuple(map(int, shapes[node.input[0]]))), node.output[0]
        )
        for node in fills
    ]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    read = {item for node in nodes for item in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    inputs = [value for value in graph.input if value.name in read and value.name not in shapes]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *weights])
    graph.input.extend(inputs)
    # since version 4 initializers need not be listed as inputs
    model.ir_version = 8
    return model


def _roles(graph: onnx.GraphProto) -> dict[str, str]:
    """What each constant is to its reader, seen through reshapes; the last scale before a residual sum is damped."""
    summed = {item for node in graph.node if node.op_type == "Sum" for item in node.input}
    roles: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            roles.update(zip(node.input[1:], ("weight", "offset"), strict=False))
        if node.op_type == "BatchNormalization":
            scale = "small scale" if node.output[0] in summed else "scale"
            roles.update(zip(node.input[1:], (scale, "offset", "offset", "variance"), strict=True))
        if node.op_type in ("Mul", "Add"):
            roles[node.input[1]] = "scale" if node.op_type == "Mul" else "offset"
    for node in reversed(graph.node):
        if node.op_type in ("Unsqueeze", "Reshape") and node.output[0] in roles:
            roles[node.input[0]] = roles[node.output[0]]
    return roles


def _values(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if role == "weight":
        values = rng.standard_normal(shape, np.float32)
        values *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
        return values
    if role == "offset":
        return np.asarray(rng.normal(0, 0.1, shape), np.float32)
    if role == "variance":
        return np.asarray(rng.uniform(0.5, 2.0, shape), np.float32)
    return np.asarray(rng.uniform(0.7, 1.3, shape) * (0.5 if role == "small scale" else 1.0), np.float32)


def quantized(name: str, seed: int = 0, samples: int = 4) -> Graph:
    """The network in int8, calibrated on seeded images, ending at its logits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.onnx")
        path.write_bytes(seeded(name, seed).SerializeToString())
        graph = prepare(read_model(path))
    return quantize(graph, calibration_images(graph, samples, seed))
