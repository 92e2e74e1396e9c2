"""NVDLA's open performance sheet: cycles and DRAM traffic of a layer, and the rate of a network.

The sheet takes, layer by layer, the larger of the MAC cycles and the cycles of the DRAM traffic; nothing else costs.
It is a bound that silicon does not reach: a user measured AlexNet in RTL at 2,093,882 cycles against the sheet's
895,443 (nvdla/hw#202).

Source: nvdla/hw, perf/NVDLA_OpenSource_Performance.xlsx, and the ResNet-50 table of nvdla.org's primer. The formulas
are re-derived from the sheet's figures; the re-read rule is the one of a searched family of rules that meets all seven
published rates (tests/conformance/test_nvdla_sheet.py prints how near).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.core.errors import UsageError

#: Channels are rounded up to this in memory and for the MAC array; the sheet does it for every size of the array.
CHANNEL_GRANULE = 16
#: F(2x2, 3x3) takes 16 products for 36, and its transformed weights are 16 for 9.
WINOGRAD_SPEEDUP = 2.25
WINOGRAD_WEIGHTS = 16 / 9
#: Kernels of the least slice of the weights that the convolution buffer must hold.
SLICE_KERNELS = 16
#: A picture of three channels is stored with four.
PICTURE_CHANNELS = {3: 4}


@dataclass(frozen=True)
class SheetLayer:
    """A row of the sheet: a convolution or dense layer with what is fused behind it.

    `channels` x `height` x `width` inputs, `kernels` outputs of `kernel_height` x `kernel_width` windows; `padded`
    rows have as many outputs as inputs over the stride. `pool_window` and `pool_stride` are 1 without pooling.
    `dense_batch` images share the weights of a dense layer. `transformed_weights`: whether a Winograd layer's weights
    are counted as transformed; eight GoogLeNet rows of the sheet leave it out.
    """

    name: str
    channels: int
    height: int
    width: int
    kernels: int
    kernel_height: int
    kernel_width: int
    padded: bool
    stride_height: int = 1
    stride_width: int = 1
    pool_window: int = 1
    pool_stride: int = 1
    dense: bool = False
    dense_batch: int = 1
    elementwise: bool = False
    transformed_weights: bool = True

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width before pooling."""
        if self.padded:
            return -(-self.height // self.stride_height), -(-self.width // self.stride_width)
        rows = (self.height - self.kernel_height) // self.stride_height + 1
        return rows, (self.width - self.kernel_width) // self.stride_width + 1

    @property
    def stored_pixels(self) -> int:
        """Pixels of an output channel behind the pooling; a window over the whole map leaves one."""
        return math.prod(1 if self.pool_window >= size else size // self.pool_stride for size in self.output_size)

    @property
    def winograd(self) -> bool:
        """Whether the sheet takes the layer as a Winograd convolution: 3x3 of stride 1."""
        return (self.kernel_height, self.kernel_width, self.stride_height, self.stride_width) == (3, 3, 1, 1)


@dataclass(frozen=True)
class NvdlaConfiguration:
    """A size of NVDLA: int8 MACs, convolution buffer in KiB, DRAM GB/s, clock; `kernel_granule` rounds up kernels."""

    macs: int
    buffer_kib: float
    dram_gb_per_s: float
    clock_mhz: float = 1000.0
    kernel_granule: int = 128


@dataclass(frozen=True)
class SheetResult:
    """What the sheet gives for a layer: traffic in KiB and cycles."""

    dram_kib: float
    dram_cycles: float
    mac_cycles: float

    @property
    def cycles(self) -> float:
        return max(self.dram_cycles, self.mac_cycles)


#: The seven sizes of the primer's ResNet-50 table, largest first.
PRIMER: tuple[NvdlaConfiguration, ...] = tuple(
    NvdlaConfiguration(macs, buffer, rate)
    for macs, buffer, rate in (
        (2048, 512, 20), (1024, 256, 15), (512, 256, 10), (256, 256, 5), (128, 256, 2), (64, 128, 1), (32, 128, 0.5)
    )
)  # fmt: skip


def layer_cycles(layer: SheetLayer, configuration: NvdlaConfiguration) -> SheetResult:
    """A layer in the sheet's closed form.

    Raises
    ------
    UsageError: a size of the configuration is not positive.
    """
    for name in ("macs", "buffer_kib", "dram_gb_per_s", "clock_mhz", "kernel_granule"):
        if getattr(configuration, name) <= 0:
            raise UsageError(f"{name} = {getattr(configuration, name)} must be positive")
    traffic = _dram_kib(layer, configuration.buffer_kib)
    # the sheet takes a KiB as 1000 bytes here
    dram_cycles = traffic / configuration.dram_gb_per_s * configuration.clock_mhz
    return SheetResult(traffic, dram_cycles, _mac_cycles(layer, configuration))


def images_per_s(layers: Sequence[SheetLayer], configuration: NvdlaConfiguration) -> float:
    """Images a second of a network: one layer after the other."""
    cycles = math.fsum(layer_cycles(layer, configuration).cycles for layer in layers)
    return configuration.clock_mhz * 1e6 / cycles


def _mac_cycles(layer: SheetLayer, configuration: NvdlaConfiguration) -> float:
    strides = layer.stride_height * layer.stride_width
    rows, columns = layer.output_size
    # a strided window is unfolded into channels, which fills the array's depth for pictures
    depth = _round_up(layer.channels * strides, CHANNEL_GRANULE)
    kernels = layer.kernels if layer.dense else _round_up(layer.kernels, configuration.kernel_granule)
    macs = depth * rows * columns * kernels * layer.kernel_height * layer.kernel_width / strides
    return macs / configuration.macs / (WINOGRAD_SPEEDUP if layer.winograd else 1)


def _dram_kib(layer: SheetLayer, buffer_kib: float) -> float:
    """Inputs, weights, outputs (after pooling) and the second operand of an elementwise add, each at least once."""
    channels = layer.channels
    if layer.padded:
        channels = PICTURE_CHANNELS.get(channels) or _round_up(channels, CHANNEL_GRANULE)
    inputs = channels * layer.height * layer.width / 1024
    window = _round_up(layer.kernel_height, layer.stride_height) * _round_up(layer.kernel_width, layer.stride_width)
    weights = channels * layer.kernels * window / 1024
    if layer.winograd and layer.transformed_weights:
        weights *= WINOGRAD_WEIGHTS
    if layer.dense:
        weights /= layer.dense_batch
    stored = layer.kernels if layer.dense else _round_up(layer.kernels, CHANNEL_GRANULE)
    outputs = stored * layer.stored_pixels / 1024
    least_weights = channels * window * min(layer.kernels, SLICE_KERNELS) / 1024
    # rows under a window and two more steps of it
    least_inputs = channels * layer.width * (layer.kernel_height + 2 * layer.stride_height) / 1024
    # the smaller operand passes in parts through what the least slices leave of the buffer; the larger is read
    # again for every part
    parts = _parts(min(inputs, weights), buffer_kib - least_weights - least_inputs)
    if inputs < weights:
        weights *= parts
    else:
        inputs *= parts
    return inputs + weights + outputs * (2 if layer.elementwise else 1)


def _parts(size: float, room: float) -> int:
    """Parts in which an operand passes through `room` KiB; where nothing is left the sheet's rates show no re-read."""
    return max(1, math.ceil(size / room)) if room > 0 else 1


def _round_up(size: int, granule: int) -> int:
    return -(-size // granule) * granule
