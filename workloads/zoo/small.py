"""Small networks that use one of each thing: quick to compile, simulate and check."""

from __future__ import annotations

import onnx

from workloads.zoo.builder import ModelBuilder


def build_tiny_cnn(seed: int = 0) -> onnx.ModelProto:
    """Conv, depthwise conv, relu6, max pool, residual add, average pool: input (1, 3, 16, 16), 10 classes."""
    model = ModelBuilder("tiny_cnn", seed, (1, 3, 16, 16))
    x = model.conv(model.input, "conv1", (3, 8), 3)
    x = model.relu(model.batch_norm(x, "bn1", 8), "relu1")
    x = model.node("MaxPool", [x], "maxpool", kernel_shape=[2, 2], strides=[2, 2])
    y = model.conv(x, "depthwise", (8, 8), 3, groups=8)
    y = model.relu6(model.batch_norm(y, "bn2", 8), "relu6")
    y = model.conv(y, "pointwise", (8, 8), 1, bias=True)
    x = model.node("Add", [x, y], "add")
    x = model.conv(x, "conv2", (8, 20), 3, stride=2, bias=True)
    x = model.relu(x, "relu2")
    x = model.node("AveragePool", [x], "avgpool", kernel_shape=[2, 2], strides=[2, 2])
    x = model.node("Flatten", [x], "flatten", axis=1)
    x = model.dense(x, "dense", (80, 10))
    return model.model(model.node("Softmax", [x], "softmax", axis=-1), (1, 10))


def build_mlp(seed: int = 0) -> onnx.ModelProto:
    """Three dense layers, 64 - 48 - 32 - 10, input (1, 64)."""
    model = ModelBuilder("mlp", seed, (1, 64))
    x = model.relu(model.dense(model.input, "dense1", (64, 48)), "relu1")
    x = model.relu(model.dense(x, "dense2", (48, 32)), "relu2")
    return model.model(model.dense(x, "dense3", (32, 10)), (1, 10))
