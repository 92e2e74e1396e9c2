"""Networks whose output is a map: two Tiny-YOLO detectors and a small U-Net. Weights are seeded.

The detectors end where their convolutions end; decoding boxes is left to the host.
"""

from __future__ import annotations

import onnx

from workloads.zoo.builder import ModelBuilder


def _leaky(model: ModelBuilder, x: str, name: str, channels: tuple[int, int], kernel: int) -> str:
    return model.unit(x, name, channels, kernel, padding=kernel // 2, activation="leaky")


def _pool(model: ModelBuilder, x: str, number: int) -> str:
    """Darknet's pools of 2: stride 2 five times, then stride 1 with a column and a row of padding at the far ends."""
    if number < 6:
        return model.max_pool(x, f"pool{number}", 2)
    return model.max_pool(x, f"pool{number}", 2, stride=1, pads=[0, 0, 1, 1])


def build_tiny_yolo_v2(seed: int = 0) -> onnx.ModelProto:
    """Tiny YOLOv2 for the 20 classes of VOC, (1, 3, 416, 416) to (1, 125, 13, 13) (darknet: yolov2-tiny-voc.cfg)."""
    model = ModelBuilder("tiny_yolo_v2", seed, (1, 3, 416, 416))
    x, inside = model.input, 3
    for number, width in enumerate((16, 32, 64, 128, 256, 512), start=1):
        x = _pool(model, _leaky(model, x, f"conv{number}", (inside, width), 3), number)
        inside = width
    x = _leaky(model, x, "conv7", (512, 1024), 3)
    x = _leaky(model, x, "conv8", (1024, 1024), 3)
    return model.model(model.conv(x, "detect", (1024, 125), 1, bias=True, padding=0), (1, 125, 13, 13))


def build_tiny_yolo_v3(seed: int = 0) -> onnx.ModelProto:
    """Tiny YOLOv3 for the 80 classes of COCO, (1, 3, 416, 416) to maps of 13 x 13 and 26 x 26 (yolov3-tiny.cfg)."""
    model = ModelBuilder("tiny_yolo_v3", seed, (1, 3, 416, 416))
    x, inside, fine = model.input, 3, ""
    for number, width in enumerate((16, 32, 64, 128, 256, 512), start=1):
        y = _leaky(model, x, f"conv{number}", (inside, width), 3)
        fine = y if number == 5 else fine
        x, inside = _pool(model, y, number), width
    x = _leaky(model, x, "conv7", (512, 1024), 3)
    x = _leaky(model, x, "conv8", (1024, 256), 1)
    coarse = _leaky(model, x, "conv9", (256, 512), 3)
    coarse = model.conv(coarse, "detect13", (512, 255), 1, bias=True, padding=0)
    x = _upsample(model, _leaky(model, x, "conv10", (256, 128), 1), "upsample")
    x = model.node("Concat", [x, fine], "concat", axis=1)
    x = _leaky(model, x, "conv11", (128 + 256, 256), 3)
    x = model.conv(x, "detect26", (256, 255), 1, bias=True, padding=0)
    return model.model(coarse, (1, 255, 13, 13), (x, (1, 255, 26, 26)))


def _upsample(model: ModelBuilder, x: str, name: str) -> str:
    """Every pixel twice along rows and columns."""
    scales = model.constant(f"{name}.scales", [1, 1, 2, 2])
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return model.node("Resize", [x, "", scales], name, **attributes)


def build_unet_small(seed: int = 0) -> onnx.ModelProto:
    """U-Net (Ronneberger et al. 2015) at an eighth of its width, three levels, padded: (1, 3, 128, 128), 2 classes."""
    model = ModelBuilder("unet_small", seed, (1, 3, 128, 128))
    x, inside, skips = model.input, 3, []
    for level, width in enumerate((8, 16, 32), start=1):
        x = _double(model, x, f"down{level}", (inside, width))
        skips.append((x, width))
        x, inside = model.max_pool(x, f"pool{level}", 2), width
    x, inside = _double(model, x, "bottom", (32, 64)), 64
    for level, (skip, width) in reversed(list(enumerate(skips, start=1))):
        x = model.conv(_upsample(model, x, f"up{level}"), f"up{level}.conv", (inside, width), 2, bias=True)
        x = model.node("Concat", [skip, x], f"up{level}.concat", axis=1)
        x, inside = _double(model, x, f"up{level}.merge", (2 * width, width)), width
    return model.model(model.conv(x, "classes", (8, 2), 1, bias=True), (1, 2, 128, 128))


def _double(model: ModelBuilder, x: str, name: str, channels: tuple[int, int]) -> str:
    x = model.unit(x, f"{name}.first", channels, 3)
    return model.unit(x, f"{name}.second", (channels[1], channels[1]), 3)
