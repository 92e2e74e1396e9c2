"""ResNet-50 on 224 x 224 images: the topology the `onnx` package carries, with seeded weights in place of its fills."""

from __future__ import annotations

from pathlib import Path

import onnx

from workloads.zoo import packaged

#: Multiply-accumulates of its convolutions and its dense layer at 224 x 224.
MACS = 4_089_184_256


def topology_path() -> Path:
    """The model file inside the installed `onnx` package.

    Raises
    ------
    ModelError: this `onnx` package comes without it.
    """
    return packaged.topology_path("resnet50")


def build(seed: int = 0) -> onnx.ModelProto:
    """The network as ONNX, input (1, 3, 224, 224), output softmax over 1000 classes."""
    return packaged.build("resnet50", seed)
