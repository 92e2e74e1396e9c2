"""Reference networks of MLPerf Tiny v1.x beside ResNet-8: keyword spotting, visual wake words, anomaly detection.

Topologies: Banbury et al., "MLPerf Tiny Benchmark" (2021), reference models `kws`, `vww` and `ad`, Keras: convolutions
keep their bias although a batch norm follows. Weights are seeded, not trained.
"""

from __future__ import annotations

import onnx

from workloads.zoo.builder import ModelBuilder
from workloads.zoo.mobile import MOBILENET_V1_BLOCKS


def build_ds_cnn(seed: int = 0) -> onnx.ModelProto:
    """DS-CNN: 49 frames of 10 MFCCs as (1, 1, 49, 10), 12 classes; a 10x4 stem and four depthwise separable blocks."""
    model = ModelBuilder("ds_cnn", seed, (1, 1, 49, 10))
    x = model.unit(model.input, "stem", (1, 64), (10, 4), stride=2, bias=True)
    for number in range(1, 5):
        x = model.unit(x, f"block{number}.depthwise", (64, 64), 3, groups=64, bias=True)
        x = model.unit(x, f"block{number}.pointwise", (64, 64), 1, bias=True)
    x = model.dense(model.global_pool(x), "dense", (64, 12))
    return model.model(model.node("Softmax", [x], "softmax", axis=-1), (1, 12))


def build_mobilenet_v1_025_96(seed: int = 0) -> onnx.ModelProto:
    """MobileNetV1 at a quarter of its width on (1, 3, 96, 96), 2 classes."""
    model = ModelBuilder("mobilenet_v1_025_96", seed, (1, 3, 96, 96))
    x = model.unit(model.input, "stem", (3, 8), 3, stride=2, bias=True)
    inside = 8
    for number, (width, stride) in enumerate(MOBILENET_V1_BLOCKS, start=1):
        outside = width // 4
        x = model.unit(
            x, f"block{number}.depthwise", (inside, inside), 3, stride=stride, groups=inside, bias=True
        )  # fmt: skip
        x = model.unit(x, f"block{number}.pointwise", (inside, outside), 1, bias=True)
        inside = outside
    x = model.dense(model.global_pool(x), "dense", (inside, 2))
    return model.model(model.node("Softmax", [x], "softmax", axis=-1), (1, 2))


def build_autoencoder(seed: int = 0) -> onnx.ModelProto:
    """Dense autoencoder of 5 frames x 128 mel bands as (1, 640): widths 128 x 4, 8, 128 x 4, 640."""
    model = ModelBuilder("autoencoder", seed, (1, 640))
    x, inside = model.input, 640
    for number, outside in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128), start=1):
        x = model.batch_norm(model.dense(x, f"dense{number}", (inside, outside)), f"bn{number}", outside)
        x, inside = model.relu(x, f"relu{number}"), outside
    return model.model(model.dense(x, "dense10", (inside, 640)), (1, 640))
