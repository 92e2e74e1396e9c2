"""Hardware parameters of the NPU family and the tile machine they imply."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dse.arch import Prices
from dse.program.tile.isa import PARAMETER_BYTES, MemoryId
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.program import Machine
from dse.tech import Device, Technology

#: What holds feature maps or constants: memory on the chip, or an external standard of `dse.tech`.
Storage = Literal["sram", "ddr3", "ddr4", "lpddr4", "lpddr4x", "lpddr5", "hbm2", "hbm2e", "hbm3"]


class NpuHardware(BaseModel):
    """An array of `cores` x `output_channels` x `input_channels` x `pixels` multipliers and what feeds it.

    Every core computes blocks of `output_channels` of its own; all see the same activations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_channels: int = Field(8, ge=2, le=256, description="products that a dot product adds up in a cycle")
    output_channels: int = Field(8, ge=2, le=256, description="output channels of a core side by side")
    pixels: int = Field(2, ge=1, le=64, description="output pixels side by side; they share weights")
    cores: int = Field(1, ge=1, le=16, description="cores; blocks of output channels are dealt out to them")
    depthwise_taps: int = Field(4, ge=0, le=64, description="kernel elements a cycle in depthwise layers; 0: run dense")
    sparsity: Literal["none", "2:4"] = Field("none", description="2:4: weights with two zeros in four take half")
    weight_encoding: bool = Field(True, description="weights are read entropy coded and expanded on their way in")
    weights_decoded_per_cycle: int = Field(8, ge=1, le=1024, description="weights the decoder expands a cycle")
    requantize: Literal["ort", "q31"] = Field("q31", description="requantization arithmetic of the vector unit")
    activation_kib: float = Field(16, gt=0, le=65536, description="activation scratchpad, both halves")
    weight_kib: float = Field(16, gt=0, le=65536, description="weight scratchpad, both halves")
    accumulator_kib: float = Field(8, gt=0, le=65536, description="int32 accumulators, both halves")
    weight_banks: int = Field(8, ge=1, le=256, description="banks of the weight scratchpad: words read a cycle")
    vector_lanes: int = Field(2, ge=1, le=256, description="requantizer lanes a core; must divide output_channels")
    vector_passes: int = Field(1, ge=1, le=16, description="passes over the accumulators until a result is stored")
    shared_accumulators: bool = Field(False, description="array and vector unit take turns at the accumulators")
    parameter_channels: int = Field(1024, ge=4, le=65536, description="channels whose bias and scale fit in a half")
    state_kib: float = Field(0, ge=0, le=65536, description="int16 state memory for recurrent layers; 0: none")
    tables: int = Field(8, ge=2, le=64, description="256-entry look-up tables, if there is a state memory")
    dma_channels: Literal[1, 2] = Field(2, description="2: constants have a channel beside that of feature maps")
    feature_storage: Storage = Field("sram", description="what holds feature maps")
    feature_kib: float = Field(512, gt=0, le=1 << 22, description="size of feature_storage where it is sram")
    feature_bytes_per_cycle: int = Field(8, ge=1, le=256, description="port to feature maps, a power of two")
    feature_latency_cycles: int = Field(32, ge=1, le=100000, description="request to first data, feature maps")
    constant_storage: Storage = Field("lpddr4", description="what holds weights; sram: that of the feature maps")
    constant_bytes_per_cycle: float = Field(1, gt=0, le=256, description="rate of the constants' memory")
    constant_latency_cycles: int = Field(64, ge=1, le=100000, description="request to first data, constants")
    clock_mhz: float = Field(500, gt=0, le=4000, description="clock of array, memories and ports")
    descriptors: int = Field(1024, ge=8, le=65536, description="capacity of each queue's descriptor memory")
    node_nm: float = Field(28, ge=7, le=180, description="technology node; between published ones interpolated")
    device: Device = Field("HP", description="high performance or low power devices")
    vdd: float | None = Field(None, gt=0, le=2, description="supply in V; null: the lowest that reaches the clock")
    prices: Prices = Field((), description="prices that replace those of dse show tech, by name")

    @property
    def macs(self) -> int:
        """Multipliers of all cores."""
        return self.cores * self.output_channels * self.input_channels * self.pixels

    @property
    def peak_macs_per_cycle(self) -> float:
        """Useful multiply-accumulates a cycle at best; zeros that 2:4 skips count as done."""
        return float(self.macs * (2 if self.sparsity == "2:4" else 1))

    @property
    def constant_gb_per_s(self) -> float:
        """Rate of the constants' memory in 1e9 bytes a second."""
        return self.constant_bytes_per_cycle * self.clock_mhz * 1e-3

    @property
    def technology(self) -> Technology:
        """Where the prices of `dse.tech` are taken."""
        return Technology(self.node_nm, self.device, self.vdd, self.prices)


def machine(hw: NpuHardware) -> Machine:
    """Geometry that programs, interpreter and simulator share. Depths are even: two ping-pong halves."""
    columns, lanes = hw.output_channels, hw.vector_lanes
    word_bytes = {
        MemoryId.ACTIVATION: hw.input_channels,
        MemoryId.WEIGHT: columns,
        MemoryId.PARAMETER: PARAMETER_BYTES * lanes,
        MemoryId.RESIDUAL: columns,
        MemoryId.ACCUMULATOR: 4 * columns,
        MemoryId.OUTPUT: columns,
    }
    accumulators = _even(hw.accumulator_kib * 1024 / (4 * columns))
    words = {
        MemoryId.ACTIVATION: _even(hw.activation_kib * 1024 / hw.input_channels),
        MemoryId.WEIGHT: _even(hw.weight_kib * 1024 / columns),
        MemoryId.PARAMETER: 2 * math.ceil(math.ceil(hw.parameter_channels / columns) * columns / lanes),
        MemoryId.RESIDUAL: accumulators,
        MemoryId.ACCUMULATOR: accumulators,
        MemoryId.OUTPUT: accumulators,
    }
    if hw.state_kib > 0:
        word_bytes |= {MemoryId.STATE: 2 * columns, MemoryId.TABLE: TABLE_BYTES}
        words |= {MemoryId.STATE: _even(hw.state_kib * 1024 / (2 * columns)), MemoryId.TABLE: _even(hw.tables + 1)}
    return Machine(
        rows=hw.input_channels,
        columns=columns,
        # weights rest in the multipliers while pixels pass
        dataflow="ws",
        weight_bits=8,
        vector_lanes=lanes,
        requantize=hw.requantize,
        memory_bytes_per_cycle=hw.feature_bytes_per_cycle,
        memory_latency_cycles=hw.feature_latency_cycles,
        words=words,
        word_bytes=word_bytes,
        descriptors=hw.descriptors,
    )


def _even(words: float) -> int:
    return max(2, 2 * int(words // 2))
