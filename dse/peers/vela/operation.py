"""An NPU operation as Vela schedules it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "depthwise", "pool", "reduce_sum", "elementwise"]
Layout = Literal["NHWC", "NHCWB16"]
Activation = Literal["table", "clamp", "none"]

#: Channels of one brick of the NHCWB16 layout.
BRICK_CHANNELS = 16


@dataclass(frozen=True)
class FeatureMap:
    """A tensor as the NPU sees it: (height, width, channels), bits of an element, layout in memory.

    `constant` ones lie with the weights. `external` ones are inputs or outputs of the network.
    """

    height: int
    width: int
    channels: int
    bits: int = 8
    layout: Layout = "NHCWB16"
    constant: bool = False
    external: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels

    @property
    def stored_elements(self) -> int:
        """Elements with the channels that the layout pads."""
        if self.layout == "NHWC":
            return self.elements
        return self.height * self.width * round_up(self.channels, BRICK_CHANNELS)

    @property
    def bytes(self) -> int:
        return self.stored_elements * self.bits // 8


@dataclass(frozen=True)
class Weights:
    """Encoded weights and the scales beside them, in bytes: read once each time that they are fetched."""

    encoded_bytes: int
    scale_bytes: int

    @property
    def bytes(self) -> int:
        return self.encoded_bytes + self.scale_bytes


@dataclass(frozen=True)
class VelaOperation:
    """One scheduled operation with the activation fused behind it.

    `operator` is Vela's name (its tables tell Mul, Add, Sub and MaxPool apart); `kernel` and `stride` are
    (height, width), `kernel` before dilation.
    """

    name: str
    operator: str
    kind: Kind
    ifm: FeatureMap
    ofm: FeatureMap
    ifm2: FeatureMap | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    activation: Activation = "none"
    table_bytes: int = 0
    weights: Weights | None = None

    @property
    def dilated_kernel(self) -> tuple[int, int]:
        """Height and width that the kernel spans."""
        (height, width), (down, across) = self.kernel, self.dilation
        return (height - 1) * down + 1, (width - 1) * across + 1

    @property
    def uses_macs(self) -> bool:
        return self.kind != "elementwise"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, as Vela counts them: pooling too, elementwise none."""
        if not self.uses_macs:
            return 0
        deep = 1 if self.kind in ("depthwise", "pool") else self.ifm.channels
        return math.prod(self.kernel) * self.ofm.elements * deep


def round_up(size: int, granule: int) -> int:
    """The next multiple."""
    return -(-size // granule) * granule
