"""Networks of depthwise separable convolutions: MobileNetV1, MobileNetV2, EfficientNet-B0. Weights are seeded."""

from __future__ import annotations

import onnx

from workloads.zoo.builder import ModelBuilder

#: (channels, stride) of the 13 blocks at width 1 (Howard et al. 2017, table 1).
MOBILENET_V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1),
)  # fmt: skip

#: (expansion, channels, repeats, stride of the first) (Sandler et al. 2018, table 2).
_MOBILENET_V2_STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip

#: (expansion, kernel, channels, repeats, stride of the first) (Tan and Le 2019, table 1).
_EFFICIENTNET_B0_STAGES = (
    (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1), (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)  # fmt: skip


def build_mobilenet_v1(seed: int = 0) -> onnx.ModelProto:
    """MobileNetV1, width 1, (1, 3, 224, 224), 1000 classes (Howard et al. 2017)."""
    model = ModelBuilder("mobilenet_v1", seed, (1, 3, 224, 224))
    x = model.unit(model.input, "stem", (3, 32), 3, stride=2, activation="relu6")
    inside = 32
    for number, (width, stride) in enumerate(MOBILENET_V1_BLOCKS, start=1):
        name = f"block{number}"
        x = model.unit(
            x, f"{name}.depthwise", (inside, inside), 3, stride=stride, groups=inside, activation="relu6"
        )  # fmt: skip
        x = model.unit(x, f"{name}.pointwise", (inside, width), 1, activation="relu6")
        inside = width
    x = model.dense(model.global_pool(x), "dense", (1024, 1000))
    return model.model(model.node("Softmax", [x], "softmax", axis=-1), (1, 1000))


def build_mobilenet_v2(seed: int = 0) -> onnx.ModelProto:
    """MobileNetV2, width 1, (1, 3, 224, 224), 1000 logits (Sandler et al. 2018), padded as torchvision does."""
    model = ModelBuilder("mobilenet_v2", seed, (1, 3, 224, 224))
    x = model.unit(model.input, "stem", (3, 32), 3, stride=2, padding=1, activation="relu6")
    inside, number = 32, 0
    for expansion, width, repeats, first_stride in _MOBILENET_V2_STAGES:
        for repeat in range(repeats):
            number += 1
            stride = first_stride if repeat == 0 else 1
            x = _inverted_residual(model, x, f"block{number}", (inside, width), expansion, stride)
            inside = width
    x = model.unit(x, "head", (320, 1280), 1, padding=0, activation="relu6")
    return model.model(model.dense(model.global_pool(x), "dense", (1280, 1000)), (1, 1000))


def _inverted_residual(
    model: ModelBuilder, x: str, name: str, channels: tuple[int, int], expansion: int, stride: int
) -> str:
    """Expand, depthwise 3x3, project without activation; a shortcut where shapes allow it."""
    inside, outside = channels
    wide, y = inside * expansion, x
    if expansion != 1:
        y = model.unit(y, f"{name}.expand", (inside, wide), 1, padding=0, activation="relu6")
    y = model.unit(
        y, f"{name}.depthwise", (wide, wide), 3, stride=stride, groups=wide, padding=1, activation="relu6"
    )  # fmt: skip
    y = model.unit(y, f"{name}.project", (wide, outside), 1, padding=0, activation="none", gain=0.5)
    return model.node("Add", [x, y], f"{name}.add") if stride == 1 and inside == outside else y


def build_efficientnet_b0(seed: int = 0) -> onnx.ModelProto:
    """EfficientNet-B0, (1, 3, 224, 224), 1000 logits (Tan and Le 2019), padded as torchvision does."""
    model = ModelBuilder("efficientnet_b0", seed, (1, 3, 224, 224))
    x = model.unit(model.input, "stem", (3, 32), 3, stride=2, padding=1, activation="silu", gain=1.3)
    inside, number = 32, 0
    for expansion, kernel, width, repeats, first_stride in _EFFICIENTNET_B0_STAGES:
        for repeat in range(repeats):
            number += 1
            stride = first_stride if repeat == 0 else 1
            x = _mbconv(model, x, f"block{number}", (inside, width), expansion, (kernel, stride))
            inside = width
    x = model.unit(x, "head", (320, 1280), 1, padding=0, activation="silu", gain=1.3)
    return model.model(model.dense(model.global_pool(x), "dense", (1280, 1000)), (1, 1000))


def _mbconv(
    model: ModelBuilder, x: str, name: str, channels: tuple[int, int], expansion: int, window: tuple[int, int]
) -> str:
    """Expand, depthwise, squeeze-and-excite, project; `window` is (kernel, stride)."""
    inside, outside = channels
    kernel, stride = window
    wide, y = inside * expansion, x
    if expansion != 1:
        y = model.unit(y, f"{name}.expand", (inside, wide), 1, padding=0, activation="silu", gain=1.3)
    y = model.unit(
        y, f"{name}.depthwise", (wide, wide), kernel, stride=stride, groups=wide, padding=kernel // 2,
        activation="silu", gain=1.3,
    )  # fmt: skip
    # the narrow width of the gate follows from the block's input, not from the expanded width
    y = _squeeze_excite(model, y, f"{name}.se", wide, inside // 4)
    y = model.unit(y, f"{name}.project", (wide, outside), 1, padding=0, activation="none", gain=0.7)
    return model.node("Add", [x, y], f"{name}.add") if stride == 1 and inside == outside else y


def _squeeze_excite(model: ModelBuilder, x: str, name: str, wide: int, narrow: int) -> str:
    """A gate per channel out of the mean of all channels."""
    gate = model.node("GlobalAveragePool", [x], f"{name}.pool")
    gate = model.conv(gate, f"{name}.reduce", (wide, narrow), 1, bias=True, padding=0)
    gate = model.conv(
        model.activate(gate, f"{name}.reduce", "silu"), f"{name}.expand", (narrow, wide), 1, bias=True, padding=0
    )  # fmt: skip
    return model.node("Mul", [x, model.node("Sigmoid", [gate], f"{name}.gate")], f"{name}.scale")
