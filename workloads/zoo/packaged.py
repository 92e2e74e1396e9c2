"""The nine topologies that the `onnx` package carries for its backend tests, with seeded weights in place of its fills.

The files hold no weights: every one is a fill (ConstantOfShape) of one value. He-normal weights and plausible batch
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

#: Names in the zoo of `light_NAME.onnx`.
FILES = {
    "resnet50": "resnet50", "densenet121": "densenet121", "inception_v1": "inception_v1",
    "inception_v2": "inception_v2", "shufflenet": "shufflenet", "squeezenet_caffe": "squeezenet",
    "alexnet_caffe": "bvlc_alexnet", "vgg19": "vgg19", "zfnet512": "zfnet512",
}  # fmt: skip
_FOLDER = Path("backend", "test", "data", "light")


def topology_path(name: str) -> Path:
    """The model file of a network inside the installed `onnx` package.

    Raises
    ------
    ModelError: this `onnx` package comes without it.
    """
    file = _FOLDER / f"light_{FILES[name]}.onnx"
    spec = importlib.util.find_spec("onnx")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder) / file).is_file():
            return path
    raise ModelError(f"zoo:{name}: the installed onnx package has no {file}; reinstall onnx")


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """A network of `FILES` as ONNX, input (1, 3, 224, 224), output softmax over 1000 classes."""
    model = onnx.load(topology_path(name))
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
    for node in graph.node:
        if node.op_type == "Dropout":
            # Caffe's converter names the mask, which nothing reads
            del node.output[1:]
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    inputs = [value for value in graph.input if value.name in read and value.name not in shapes]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend([*kept, *weights])
    graph.input.extend(inputs)
    graph.name = name
    # since version 4 initializers need not be listed as inputs
    model.ir_version = 8
    return model


def _roles(graph: onnx.GraphProto) -> dict[str, str]:
    """What each constant is to its reader; batch norms that no activation or Caffe scale follows are told apart."""
    rectified = {name for node in graph.node if node.op_type in ("Relu", "Mul") for name in node.input}
    # Caffe's scale layers and one dense weight reach their reader through a change of shape
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type in ("Unsqueeze", "Reshape")}
    roles: dict[str, str] = {}
    for node in graph.node:
        constants = [reshaped.get(name, name) for name in node.input[1:]]
        if node.op_type in ("Conv", "Gemm"):
            roles.update(zip(constants, ("weight", "offset"), strict=False))
        elif node.op_type == "BatchNormalization":
            scale = "scale" if node.output[0] in rectified else "small scale"
            roles.update(zip(constants, (scale, "offset", "offset", "variance"), strict=False))
        elif node.op_type in ("Mul", "Add"):
            roles[constants[0]] = "scale" if node.op_type == "Mul" else "offset"
    return roles


def _seeded(rng: np.random.Generator, role: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if role == "weight":
        return he_normal(rng, shape)
    if role == "offset":
        return rng.normal(0, 0.1, shape)
    if role == "variance":
        return rng.uniform(0.5, 2.0, shape)
    # without a rectifier behind it He-normal doubles the variance, as does every residual sum; training damps both
    return rng.uniform(0.7, 1.3, shape) * (0.5 if role == "small scale" else 1.0)
