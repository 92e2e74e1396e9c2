"""ResNet-8 of MLPerf Tiny (image classification on CIFAR-10): 12,501,632 multiply-accumulates in conv and dense.

Topology: Banbury et al., "MLPerf Tiny Benchmark" (2021), reference model `ic`: a 3x3 stem of 16 channels, three
residual stacks of 16, 32 and 64 channels, global average pool, a dense layer of 10. Weights are seeded, not trained.
"""

from __future__ import annotations

import onnx

from workloads.zoo.builder import ModelBuilder

MACS = 12_501_632


def build(seed: int = 0) -> onnx.ModelProto:
    """The network as ONNX, input (1, 3, 32, 32), output softmax over 10 classes, batch norms not folded."""
    model = ModelBuilder("resnet8", seed, (1, 3, 32, 32))
    x = model.conv(model.input, "stem", (3, 16), 3)
    x = model.relu(model.batch_norm(x, "stem.bn", 16), "stem.relu")
    channels = 16
    for number, (width, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        x = _stack(model, x, f"stack{number}", (channels, width), stride)
        channels = width
    x = model.node("GlobalAveragePool", [x], "pool")
    x = model.node("Flatten", [x], "flatten", axis=1)
    x = model.dense(x, "dense", (64, 10))
    return model.model(model.node("Softmax", [x], "softmax", axis=-1), (1, 10))


def _stack(model: ModelBuilder, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    """Two 3x3 convs around a shortcut; the shortcut is a 1x1 conv without batch norm where the stride is not 1."""
    width = channels[1]
    y = model.conv(x, f"{name}.conv1", channels, 3, stride=stride)
    y = model.relu(model.batch_norm(y, f"{name}.bn1", width), f"{name}.relu1")
    y = model.conv(y, f"{name}.conv2", (width, width), 3)
    y = model.batch_norm(y, f"{name}.bn2", width)
    if stride != 1:
        x = model.conv(x, f"{name}.shortcut", channels, 1, stride=stride, bias=True)
    return model.relu(model.node("Add", [x, y], f"{name}.add"), f"{name}.relu2")
