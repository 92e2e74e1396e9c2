"""One convolution on NVDLA's pipeline (nv_small): cycles and bytes from its mechanism, no fit to the recorded runs.

CDMA fills the convolution buffer over one memory interface; CSC starts when the input and the weights that fit beside
it are there, and from then on CMAC does one stripe pixel a cycle for each channel atom, kernel element and kernel
atom; weights that did not fit arrive meanwhile. SDP hands out `sdp_bytes_per_cycle` bytes a cycle beside it.

    cycles = launch + latency + fill + max(stripes, remaining weights, SDP) + drain

Bytes are those of whole atoms: channels round up to the atom, the weights of a layer to 128 bytes.

Sources. Atoms, buffer and SDP rate: nvdla/hw, spec/defs/nv_small.spec (8 x 8, 32 banks x 512 x 8 bytes, 1). Latency of
32 cycles, and a request accepted every other cycle: the memory of verif/verilator/nvdla.cpp; that a request carries one
beat is inferred from the recorded runs. Launch 28 and drain 77 cycles: measured by NPUsim (validation/nvdla), the
launch equal on all of its traces, the drain on the trace of a single product.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dse.core.errors import UsageError

_NAME = re.compile(r"dc_(\d+)x(\d+)x(\d+)_(\d+)x(\d+)x(\d+)x(\d+)(?:_dilation)?_int8(?:_\d+)?")


@dataclass(frozen=True)
class NvdlaPipeline:
    """The convolution pipeline and its memory; defaults are nv_small under its Verilator testbench."""

    channel_atom: int = 8
    kernel_atom: int = 8
    buffer_bytes: int = 32 * 512 * 8
    bank_bytes: int = 512 * 8
    beat_bytes: int = 8
    cycles_per_beat: int = 2
    latency_cycles: int = 32
    launch_cycles: int = 28
    drain_cycles: int = 77
    sdp_bytes_per_cycle: int = 1


@dataclass(frozen=True)
class NvdlaConvolution:
    """Input width x height x channels, kernel width x height, output channels and output pixels."""

    width: int
    height: int
    channels: int
    kernel: int  # kernel elements
    outputs: int
    pixels: int


@dataclass(frozen=True)
class NvdlaTime:
    """Cycles, and what they consist of; bytes over the memory interface by stream."""

    cycles: int
    fill_cycles: int
    stripe_cycles: int
    sdp_cycles: int
    input_bytes: int
    weight_bytes: int
    output_bytes: int


def parse_trace(name: str, output_bytes: int, pipeline: NvdlaPipeline | None = None) -> NvdlaConvolution:
    """The convolution that a trace's name lists: dc_WxHxC_kWxkHxCxK; its pixels follow from its output bytes.

    Raises
    ------
    UsageError: the name is no convolution's, or the bytes are no whole pixels.
    """
    atom = (pipeline or NvdlaPipeline()).channel_atom
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"{name!r} is no convolution trace; they read dc_WxHxC_kWxkHxCxK_int8_N")
    width, height, channels, kernel_w, kernel_h, _, outputs = (int(value) for value in found.groups())
    stored = _round_up(outputs, atom)
    if output_bytes % stored:
        raise UsageError(f"{name}: {output_bytes} output bytes are no whole pixels of {stored} bytes")
    return NvdlaConvolution(width, height, channels, kernel_w * kernel_h, outputs, output_bytes // stored)


def run_time(layer: NvdlaConvolution, pipeline: NvdlaPipeline | None = None) -> NvdlaTime:
    """Cycles and bytes of a convolution."""
    p = pipeline or NvdlaPipeline()
    groups = math.ceil(layer.channels / p.channel_atom)
    input_bytes = layer.width * layer.height * groups * p.channel_atom
    weight_bytes = _round_up(layer.kernel * layer.channels * layer.outputs, 128)
    output_bytes = layer.pixels * _round_up(layer.outputs, p.channel_atom)
    free = max(p.bank_bytes, p.buffer_bytes - _round_up(input_bytes, p.bank_bytes))
    first = min(weight_bytes, free)
    fill = (input_bytes + first) // p.beat_bytes * p.cycles_per_beat
    later = (weight_bytes - first) // p.beat_bytes * p.cycles_per_beat
    stripes = layer.pixels * layer.kernel * groups * math.ceil(layer.outputs / p.kernel_atom)
    sdp = output_bytes // p.sdp_bytes_per_cycle
    total = p.launch_cycles + p.latency_cycles + fill + max(stripes, later, sdp) + p.drain_cycles
    return NvdlaTime(total, fill, stripes, sdp, input_bytes, weight_bytes, output_bytes)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
