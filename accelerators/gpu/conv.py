"""Convolutions on a GPU: implicit GEMM, Winograd F(2x2) fused and F(4x4) staged, depthwise; forward and both gradients.

Winograd F(e x e, 3 x 3) computes an output tile of e x e pixels from (e + 2)^2 inputs with one multiplication each per
pair of channels: 2.25 times fewer multiplications than direct for e = 2, 4 times for e = 4 (Lavin and Gray, CVPR 2016).
Fused, the transforms happen inside the kernel; staged, three kernels write the transformed tiles to memory and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from accelerators.gpu.constants import constants
from accelerators.gpu.estimate import Estimate, choose
from accelerators.gpu.gemm import gemm
from accelerators.gpu.gemm_kernel import IntArray
from accelerators.gpu.hardware import DTYPES, GpuHardware

Direction = Literal["forward", "backward_data", "backward_weights"]
#: What estimates the products: `gemm`, or a function of the same parameters that restricts the choice of tiles.
Product = Callable[..., Estimate]
#: Matrix instructions multiply whole groups of channels: fewer input channels are padded to this many.
MATRIX_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class ConvProblems:
    """Convolutions as arrays, each int64 (problems,); `height` and `width` are the input's."""

    batch: IntArray
    channels: IntArray
    height: IntArray
    width: IntArray
    filters: IntArray
    kernel_height: IntArray
    kernel_width: IntArray
    stride_height: IntArray
    stride_width: IntArray
    pad_height: IntArray
    pad_width: IntArray

    @property
    def output(self) -> tuple[IntArray, IntArray]:
        """Output height and width."""
        return (
            (self.height + 2 * self.pad_height - self.kernel_height) // self.stride_height + 1,
            (self.width + 2 * self.pad_width - self.kernel_width) // self.stride_width + 1,
        )


def convolution(
    hw: GpuHardware,
    problems: ConvProblems,
    *,
    dtype: str = "fp16",
    direction: Direction = "forward",
    winograd: bool = True,
    values: Mapping[str, float] | None = None,
    product: Product = gemm,
) -> Estimate:
    """The fastest algorithm for every convolution (dense, one group).

    `direction` "backward_data" is the gradient of the input, "backward_weights" that of the filters. `winograd` off
    leaves implicit GEMM only. Matrix units run implicit GEMM: cuDNN of their time had no Winograd for them.

    Raises
    ------
    UsageError: unknown type or one the GPU lacks, sizes that are not positive.
    """
    held = constants(hw, "conv", dtype) if values is None else values
    matrix = hw.tensor_cores and DTYPES[dtype][2] != "fp32"
    options = {"implicit_gemm": _implicit(hw, problems, dtype, direction, held, matrix, product)}
    if winograd and not matrix:
        options["winograd_2x2"] = _winograd(hw, problems, dtype, direction, held, product, edge=2, fused=True)
        options["winograd_4x4"] = _winograd(hw, problems, dtype, direction, held, product, edge=4, fused=False)
    return choose(options)


def depthwise(
    hw: GpuHardware, problems: ConvProblems, *, dtype: str = "fp16", values: Mapping[str, float] | None = None
) -> Estimate:
    """Depthwise convolutions (a filter a channel), computed directly on the SIMD lanes."""
    held = constants(hw, "conv", dtype) if values is None else values
    element, output, _ = DTYPES[dtype]
    out_height, out_width = problems.output
    planes = (problems.batch * problems.channels).astype(np.float64)
    pixels = planes * out_height * out_width
    flops = 2.0 * pixels * problems.kernel_height * problems.kernel_width
    moved = planes * problems.height * problems.width * element + pixels * output
    rate = hw.rates.fp32 * hw.sms * hw.clock_hz
    bound = np.maximum(flops / rate, moved / hw.dram_bytes_s)
    compute = flops / (rate * held["depthwise_efficiency"])
    memory = moved / (hw.dram_bytes_s * held["dram_efficiency"])
    longest = np.maximum(compute, memory)
    seconds = longest + held["exposure"] * (compute + memory - longest) + held["fill_cycles"] / hw.clock_hz
    ones = np.ones_like(flops)
    return Estimate(seconds, flops, moved, moved, bound, ones, ("depthwise",) * flops.size)


def _implicit(
    hw: GpuHardware,
    p: ConvProblems,
    dtype: str,
    direction: Direction,
    held: Mapping[str, float],
    matrix: bool,
    product: Product,
) -> Estimate:
    """Convolution as a GEMM whose left operand is gathered on the fly."""
    out_height, out_width = p.output
    window = p.kernel_height * p.kernel_width
    # matrix kernels read channels in groups
    channels = np.maximum(p.channels, MATRIX_CHANNELS) if matrix else p.channels
    pixels, inputs = p.batch * out_height * out_width, p.batch * p.height * p.width
    if direction == "forward":
        m, n, k, distinct = pixels, p.filters, channels * window, inputs * channels
    elif direction == "backward_data":
        # a strided gradient is computed as a dense one over an input spread with zeros
        m, n, k, distinct = inputs, p.channels, p.filters * window, pixels * p.filters
    else:
        m, n, k, distinct = channels * window, p.filters, pixels, inputs * channels
    return product(
        hw, m, n, k, dtype=dtype, a_elements=np.minimum(distinct, m * k), kernel="conv",
        efficiency=held["implicit_efficiency"], library="" if matrix else "simt", values=held,
    )  # fmt: skip


def _winograd(
    hw: GpuHardware,
    p: ConvProblems,
    dtype: str,
    direction: Direction,
    held: Mapping[str, float],
    product: Product,
    *,
    edge: int,
    fused: bool,
) -> Estimate:
    """Winograd F(edge x edge, 3 x 3): (edge + 2)^2 GEMMs over output tiles; infinite time where it does not apply."""
    element = DTYPES[dtype][0]
    applies = (p.kernel_height == 3) & (p.kernel_width == 3) & (p.stride_height == 1) & (p.stride_width == 1)
    out_height, out_width = p.output
    source, target = p.channels, p.filters
    if direction == "backward_data":
        source, target, out_height, out_width = p.filters, p.channels, p.height, p.width
    points = (edge + 2) ** 2
    tiles = p.batch * -(-out_height // edge) * -(-out_width // edge)
    pixels = p.batch * out_height * out_width
    m, n, k = (source, target, tiles) if direction == "backward_weights" else (tiles, target, source)
    if fused:
        # a thread block does all points of a small tile of output tiles x filters: input pixels come in once
        core = product(
            hw, m, n, k, points=points, dtype=dtype, a_elements=np.minimum(m * k, pixels * source / points),
            kernel="conv", efficiency=held["fused_efficiency"], library="winograd_fused", values=held,
        )  # fmt: skip
    else:
        core = product(
            hw, m, n, k, batch=points, dtype=dtype, kernel="conv", efficiency=held["staged_efficiency"],
            library="simt", values=held,
        )  # fmt: skip
    stages = np.zeros(core.seconds.shape)
    if not fused:
        moved = (
            pixels * (source + target) + tiles * points * (source + target) + 2 * points * source * target
        ) * element
        stages = moved * held["transform_passes"] / (hw.dram_bytes_s * held["dram_efficiency"])
        stages += 2 * held["fill_cycles"] / hw.clock_hz
    seconds = np.where(applies, core.seconds + stages, np.inf)
    return Estimate(
        seconds=seconds,
        flops=core.flops,
        dram_bytes=core.dram_bytes + stages * hw.dram_bytes_s * held["dram_efficiency"],
        l2_bytes=core.l2_bytes,
        bound_s=np.minimum(core.bound_s, seconds),
        launches=core.launches + (0.0 if fused else 3.0),
        terms=core.terms,
        grid=core.grid,
    )
