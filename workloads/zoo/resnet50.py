"""ResNet-50: the topology the `onnx` package carries for its backend tests, with seeded weights in place of its fills.

The file holds no weights: every one is a fill (ConstantOfShape) of one value. He-normal weights and plausible batch
norm statistics replace them, so that values and quantization mean something.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from dse.core.errors import ModelError
from workloads.zoo.builder import he_normal

#: Multiply-accumulates of its convolutions and its dense layer at 224 x 224.
MACS = 4_089_184_256
_IN_PACKAGE = Path("backend", "test", "data", "light", "light_resnet50.onnx")


def topology_path() -> Path:
    """The model file inside the installed `onnx` package.

    Raises
    ------
    ModelError: this `onnx` package comes without it.
    """
    spec = importlib.util.find_spec("onnx")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder) / _IN_PACKAGE).is_file():
            return path
    raise ModelError(f"zoo:resnet50: the installed onnx package has no {_IN_PACKAGE}; reinstall onnx")


def build(seed: int = 0) -> onnx.ModelProto:
    """The network as ONNX, input (1, 3, 224, 224), output softmax over 1000 classes."""
    model = onnx.load(topology_path())
    rng = np.random.default_rng(seed)
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    roles = _roles(graph)
    nodes, weights = [], []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.output[0] not in roles:
            nodes.append(node)
            continue
        shape = tuple(int(size) for size in shapes[node.input[0]])
        values = _seeded(rng, roles[node.output[0]], shape)
        weights.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    inputs = [value for value in graph.input if value.name in read and value.name not in shapes]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend([*kept, *weights])
    graph.input.extend(inputs)
    graph.name = "resnet50"
    # since version 4 initializers need not be listed as inputs
    model.ir_version = 8
    return model


def _roles(graph: onnx.GraphProto) -> dict[str, str]:
    """What each constant is to its reader; the last batch norm before a residual sum is told apart."""
    summed = {name for node in graph.node if node.op_type == "Sum" for name in node.input}
    roles: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            roles.update(zip(node.input[1:], ("weight", "offset"), strict=False))
        if node.op_type == "BatchNormalization":
            scale = "small scale" if node.output[0] in summed else "scale"
            roles.update(zip(node.input[1:], (scale, "offset", "offset", "variance"), strict=False))
    return roles


def _seeded(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if role == "weight":
        return he_normal(rng, shape)
    if role == "offset":
        return rng.normal(0, 0.1, shape)
    if role == "variance":
        return rng.uniform(0.5, 2.0, shape)
    # residual sums double the variance block after block unless the branch is damped, as training does
    return rng.uniform(0.7, 1.3, shape) * (0.5 if role == "small scale" else 1.0)
