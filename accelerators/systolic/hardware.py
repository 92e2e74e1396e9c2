"""Hardware parameters of the systolic family and the machine geometry they imply."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dse.arch import Prices
from dse.program.tile.isa import PARAMETER_BYTES, MemoryId
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.program import Machine
from dse.tech import Device, Technology


class SystolicHardware(BaseModel):
    """A rows x columns systolic array with its scratchpads, vector unit and memory port.

    Rows lie along the reduction dimension (ws) or along output pixels (os); columns along output channels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(8, ge=2, le=256, description="processing elements along the reduction (ws) or the pixels (os)")
    columns: int = Field(8, ge=2, le=256, description="processing elements along the output channels")
    dataflow: Literal["ws", "os"] = Field("ws", description="weight stationary or output stationary")
    weight_bits: Literal[4, 8] = Field(8, description="bits of a weight in scratchpad and multiplier")
    activation_kib: float = Field(16, gt=0, le=65536, description="activation scratchpad, both ping-pong halves")
    weight_kib: float = Field(16, gt=0, le=65536, description="weight scratchpad, both ping-pong halves")
    accumulator_kib: float = Field(8, gt=0, le=65536, description="int32 accumulators, both ping-pong halves")
    vector_lanes: int = Field(4, ge=1, le=256, description="requantizer lanes; must divide columns")
    parameter_channels: int = Field(256, ge=4, le=65536, description="channels whose bias and scale fit on chip")
    requantize: Literal["ort", "q31"] = Field("q31", description="requantization arithmetic of the vector unit")
    state_kib: float = Field(0, ge=0, le=65536, description="int16 state memory of the element unit; 0: no such unit")
    tables: int = Field(8, ge=2, le=64, description="256-entry look-up tables of the element unit, if there is one")
    memory_bytes_per_cycle: int = Field(8, ge=1, le=256, description="width of the memory port, a power of two")
    memory_latency_ns: float = Field(60, ge=0, le=10000, description="request to first data")
    memory_standard: Literal["ddr3", "ddr4", "lpddr4", "lpddr4x", "lpddr5", "hbm2", "hbm2e", "hbm3"] = Field(
        "lpddr4", description="prices PHY and bits"
    )
    clock_mhz: float = Field(500, gt=0, le=4000, description="clock of array, memories and port")
    descriptors: int = Field(256, ge=8, le=65536, description="capacity of each queue's descriptor memory")
    node_nm: float = Field(45, ge=7, le=180, description="technology node; between published ones interpolated")
    device: Device = Field("HP", description="high performance or low power devices")
    vdd: float | None = Field(None, gt=0, le=2, description="supply in V; null: the lowest that reaches the clock")
    prices: Prices = Field((), description="prices that replace those of dse show tech, by name")

    @property
    def memory_latency_cycles(self) -> int:
        """At least one cycle: a request is answered on a later clock edge."""
        return max(1, math.ceil(self.memory_latency_ns * self.clock_mhz * 1e-3))

    @property
    def memory_gb_per_s(self) -> float:
        return self.memory_bytes_per_cycle * self.clock_mhz * 1e-3

    @property
    def technology(self) -> Technology:
        """Where the prices of `dse.tech` are taken."""
        return Technology(self.node_nm, self.device, self.vdd, self.prices)

    @property
    def pes(self) -> int:
        return self.rows * self.columns


def machine(hw: SystolicHardware) -> Machine:
    """Geometry that interpreter, simulator and RTL share. Depths are even: two ping-pong halves."""
    weight_word = (hw.columns * hw.weight_bits + 7) // 8
    word_bytes = {
        MemoryId.ACTIVATION: hw.rows,
        MemoryId.WEIGHT: weight_word,
        MemoryId.PARAMETER: PARAMETER_BYTES * hw.vector_lanes,
        MemoryId.RESIDUAL: hw.columns,
        MemoryId.ACCUMULATOR: 4 * hw.columns,
        MemoryId.OUTPUT: hw.columns,
    }
    accumulator_words = _even(hw.accumulator_kib * 1024 / word_bytes[MemoryId.ACCUMULATOR])
    words = {
        MemoryId.ACTIVATION: _even(hw.activation_kib * 1024 / hw.rows),
        MemoryId.WEIGHT: _even(hw.weight_kib * 1024 / weight_word),
        MemoryId.PARAMETER: _even(math.ceil(hw.parameter_channels / hw.vector_lanes) + 1),
        MemoryId.RESIDUAL: accumulator_words,
        MemoryId.ACCUMULATOR: accumulator_words,
        MemoryId.OUTPUT: accumulator_words,
    }
    if hw.state_kib > 0:
        word_bytes |= {MemoryId.STATE: 2 * hw.columns, MemoryId.TABLE: TABLE_BYTES}
        words |= {MemoryId.STATE: _even(hw.state_kib * 1024 / (2 * hw.columns)), MemoryId.TABLE: _even(hw.tables + 1)}
    return Machine(
        rows=hw.rows,
        columns=hw.columns,
        dataflow=hw.dataflow,
        weight_bits=hw.weight_bits,
        vector_lanes=hw.vector_lanes,
        requantize=hw.requantize,
        memory_bytes_per_cycle=hw.memory_bytes_per_cycle,
        memory_latency_cycles=hw.memory_latency_cycles,
        words=words,
        word_bytes=word_bytes,
        descriptors=hw.descriptors,
    )


def _even(words: float) -> int:
    return max(2, 2 * int(words // 2))
