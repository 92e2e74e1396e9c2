"""Two networks trained on handwritten digits, with the data they were trained and are measured on.

Data: the 1,797 images of 8 x 8 pixels of scikit-learn's `load_digits` (E. Alpaydin and C. Kaynak, "Optical Recognition
of Handwritten Digits", UCI Machine Learning Repository 1998, CC BY 4.0), kept here so that measuring accuracy needs no
further package. Weights: `train_digits.py`, five seeds of each network, stored as float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from dse.core.errors import ModelError
from workloads.zoo.builder import ModelBuilder

FloatArray = npt.NDArray[np.float32]

#: Seeds whose weights are stored.
SEEDS = (0, 1, 2, 3, 4)
CLASSES = 10
_TEST_IMAGES = 450
#: Pixels count the ink in 4 x 4 blocks of the scanned bitmap.
_PIXEL_MAXIMUM = 16


@dataclass(frozen=True)
class Layer:
    """A layer of a digits network: 3x3 conv with padding 1, 2x2 max pool, or dense; `relu` follows when set."""

    kind: Literal["conv", "pool", "dense"]
    name: str
    inside: int = 0
    outside: int = 0
    relu: bool = False


@dataclass(frozen=True)
class Topology:
    """Name, input shape for one image, and layers; a dense layer flattens what comes in."""

    name: str
    image: tuple[int, ...]
    layers: tuple[Layer, ...]


CNN = Topology("digits_cnn", (1, 8, 8), (
    Layer("conv", "conv1", 1, 16, relu=True), Layer("conv", "conv2", 16, 16, relu=True), Layer("pool", "pool1"),
    Layer("conv", "conv3", 16, 32, relu=True), Layer("pool", "pool2"), Layer("dense", "dense", 128, CLASSES),
))  # fmt: skip
MLP = Topology("digits_mlp", (64,), (
    Layer("dense", "dense1", 64, 64, relu=True), Layer("dense", "dense2", 64, 32, relu=True),
    Layer("dense", "dense3", 32, CLASSES),
))  # fmt: skip


@dataclass(frozen=True)
class Digits:
    """Images as float32 in [0, 1], shaped (count, *image of the topology); labels 0 to 9 as int64 (count,)."""

    train_images: FloatArray
    train_labels: npt.NDArray[np.int64]
    test_images: FloatArray
    test_labels: npt.NDArray[np.int64]


def dataset(topology: Topology) -> Digits:
    """The data in the shape a network takes: 1,347 images to train and calibrate on, 450 to measure on.

    The split is one fixed random permutation, the same for every seed of the weights.
    """
    with resources.as_file(_data("digits.npz")) as path, np.load(path, allow_pickle=False) as stored:
        images, labels = stored["images"], stored["labels"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:_TEST_IMAGES], order[_TEST_IMAGES:]
    scaled = (images.astype(np.float32) / _PIXEL_MAXIMUM).reshape(len(images), *topology.image)
    return Digits(scaled[train], labels[train], scaled[test], labels[test])


def trained_weights(topology: Topology, seed: int) -> dict[str, FloatArray]:
    """Stored weights by name, "LAYER.weight" and "LAYER.bias".

    Raises
    ------
    ModelError: there are no weights of that seed.
    """
    if seed not in SEEDS:
        raise ModelError(f"zoo:{topology.name}: no weights of seed {seed} are stored; seeds {SEEDS[0]} to {SEEDS[-1]}")
    with resources.as_file(_data(f"{topology.name}.npz")) as path, np.load(path, allow_pickle=False) as stored:
        prefix = f"{seed}/"
        return {key.removeprefix(prefix): stored[key].astype(np.float32) for key in stored if key.startswith(prefix)}


def build_cnn(seed: int = 0) -> onnx.ModelProto:
    """Trained CNN: (1, 1, 8, 8) pixels in [0, 1] to 10 logits; three 3x3 convs, two max pools, one dense layer."""
    return _build(CNN, seed)


def build_mlp(seed: int = 0) -> onnx.ModelProto:
    """Trained MLP: (1, 64) pixels in [0, 1] to 10 logits; 64 - 64 - 32 - 10."""
    return _build(MLP, seed)


def _build(topology: Topology, seed: int) -> onnx.ModelProto:
    model = ModelBuilder(topology.name, seed, (1, *topology.image), trained=trained_weights(topology, seed))
    x, flat = model.input, len(topology.image) == 1
    for layer in topology.layers:
        if layer.kind == "conv":
            x = model.conv(x, layer.name, (layer.inside, layer.outside), 3, bias=True, padding=1)
        elif layer.kind == "pool":
            x = model.max_pool(x, layer.name, 2)
        else:
            x = x if flat else model.node("Flatten", [x], "flatten", axis=1)
            x, flat = model.dense(x, layer.name, (layer.inside, layer.outside)), True
        x = model.relu(x, f"{layer.name}.relu") if layer.relu else x
    return model.model(x, (1, CLASSES))


def _data(name: str) -> Any:
    return resources.files("workloads.zoo").joinpath("data", name)
