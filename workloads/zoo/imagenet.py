"""Classifiers of 224 x 224 images without depthwise convolutions, as torchvision has them. Weights are seeded."""

from __future__ import annotations

import onnx

from workloads.zoo.builder import ModelBuilder


def build_resnet18(seed: int = 0) -> onnx.ModelProto:
    """ResNet-18 (He et al. 2016): four stages of two basic blocks, 1000 logits."""
    model = ModelBuilder("resnet18", seed, (1, 3, 224, 224))
    x = model.unit(model.input, "stem", (3, 64), 7, stride=2, padding=3)
    x, inside = model.max_pool(x, "maxpool", 3, pads=[1] * 4), 64
    for stage, (width, first_stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), start=1):
        for block, stride in enumerate((first_stride, 1), start=1):
            x = _basic_block(model, x, f"stage{stage}.block{block}", (inside, width), stride)
            inside = width
    return model.model(model.dense(model.global_pool(x), "dense", (512, 1000)), (1, 1000))


def _basic_block(model: ModelBuilder, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    """Two 3x3 convs around a shortcut, which is a 1x1 conv with batch norm where shapes change."""
    width = channels[1]
    y = model.unit(x, f"{name}.first", channels, 3, stride=stride, padding=1)
    y = model.unit(y, f"{name}.second", (width, width), 3, padding=1, activation="none", gain=0.5)
    if stride != 1:
        x = model.unit(x, f"{name}.shortcut", channels, 1, stride=stride, padding=0, activation="none")
    return model.relu(model.node("Add", [x, y], f"{name}.add"), f"{name}.relu")


def build_vgg16(seed: int = 0) -> onnx.ModelProto:
    """VGG-16 (Simonyan and Zisserman 2015, configuration D), 1000 logits; 553 MB of float weights."""
    model = ModelBuilder("vgg16", seed, (1, 3, 224, 224))
    x, inside = model.input, 3
    for stage, (width, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for number in range(1, repeats + 1):
            name = f"conv{stage}_{number}"
            x = model.relu(model.conv(x, name, (inside, width), 3, bias=True, padding=1), f"{name}.relu")
            inside = width
        x = model.max_pool(x, f"pool{stage}", 2)
    return _three_dense(model, x, (512 * 7 * 7, 4096, 4096, 1000))


def build_alexnet(seed: int = 0) -> onnx.ModelProto:
    """AlexNet on one device (Krizhevsky 2014, "One weird trick"), 1000 logits; 244 MB of float weights."""
    model = ModelBuilder("alexnet", seed, (1, 3, 224, 224))
    x, inside = model.input, 3
    layers = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
    for number, (width, kernel, stride, padding) in enumerate(layers, start=1):
        name = f"conv{number}"
        x = model.conv(x, name, (inside, width), kernel, stride=stride, padding=padding, bias=True)
        x, inside = model.relu(x, f"{name}.relu"), width
        if number in (1, 2, 5):
            x = model.max_pool(x, f"pool{number}", 3)
    return _three_dense(model, x, (256 * 6 * 6, 4096, 4096, 1000))


def _three_dense(model: ModelBuilder, x: str, widths: tuple[int, int, int, int]) -> onnx.ModelProto:
    x = model.node("Flatten", [x], "flatten", axis=1)
    for number in (1, 2):
        x = model.relu(model.dense(x, f"dense{number}", (widths[number - 1], widths[number])), f"dense{number}.relu")
    return model.model(model.dense(x, "dense3", widths[2:]), (1, widths[3]))


#: (squeeze, expand) channels of the fire modules; the expanded ones come out twice (1x1 beside 3x3).
_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def build_squeezenet1_0(seed: int = 0) -> onnx.ModelProto:
    """SqueezeNet 1.0 (Iandola et al. 2016): 7x7 stem, pools late; 1000 logits."""
    model = ModelBuilder("squeezenet1_0", seed, (1, 3, 224, 224))
    return _squeezenet(model, (96, 7), pooled_before=(0, 3, 7))


def build_squeezenet1_1(seed: int = 0) -> onnx.ModelProto:
    """SqueezeNet 1.1: 3x3 stem and earlier pools, 2.4 times fewer multiply-accumulates than 1.0; 1000 logits."""
    model = ModelBuilder("squeezenet1_1", seed, (1, 3, 224, 224))
    return _squeezenet(model, (64, 3), pooled_before=(0, 2, 4))


def _squeezenet(model: ModelBuilder, stem: tuple[int, int], pooled_before: tuple[int, ...]) -> onnx.ModelProto:
    """`stem` is (channels, kernel); `pooled_before` are the fire modules, from 0, that a max pool precedes."""
    inside, kernel = stem
    x = model.conv(model.input, "stem", (3, inside), kernel, stride=2, bias=True, padding=0)
    x = model.relu(x, "stem.relu")
    for number, (squeeze, expand) in enumerate(_FIRES):
        name = f"fire{number + 2}"
        if number in pooled_before:
            x = model.max_pool(x, f"{name}.pool", 3, ceil_mode=1)
        x = model.conv(x, f"{name}.squeeze", (inside, squeeze), 1, bias=True, padding=0)
        x = model.relu(x, f"{name}.squeeze.relu")
        branches = []
        for size in (1, 3):
            branch = f"{name}.expand{size}x{size}"
            y = model.conv(x, branch, (squeeze, expand), size, bias=True, padding=size // 2)
            branches.append(model.relu(y, f"{branch}.relu"))
        x, inside = model.node("Concat", branches, f"{name}.concat", axis=1), 2 * expand
    x = model.conv(x, "classifier", (512, 1000), 1, bias=True, padding=0)
    return model.model(model.global_pool(model.relu(x, "classifier.relu")), (1, 1000))
