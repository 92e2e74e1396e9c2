"""Parameters of a mesh of neuromorphic cores."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class NeuromorphicHardware(BaseModel):
    """Tiles on a mesh, `cores_per_tile` behind each router; tile i lies at column i // rows, row i % rows.

    Limits of a core: neurons, synapse memory, table rows. `prices` names who says what an event costs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mesh_columns: int = Field(4, ge=1, le=256, description="tiles from west to east")
    mesh_rows: int = Field(4, ge=1, le=256, description="tiles from north to south")
    cores_per_tile: int = Field(1, ge=1, le=64, description="cores behind one router")
    neurons_per_core: int = Field(256, ge=1, le=65536, description="neurons whose state a core holds")
    synapse_kib: float = Field(32, gt=0, le=65536, description="synapse memory of a core")
    axons_in: int = Field(4096, ge=1, le=1 << 20, description="rows of a core's axon table: sources it listens to")
    axons_out: int = Field(
        4096, ge=1, le=1 << 20, description="rows of a core's fan-out table: packets its neurons send"
    )
    fan_in: int = Field(65536, ge=1, le=1 << 24, description="synapses onto one neuron")
    fan_out: int = Field(256, ge=1, le=65536, description="packets of one neuron: cores (and delays) it reaches")
    profiles: int = Field(256, ge=1, le=65536, description="distinct neuron parameter sets of a core")
    weight_bits: int = Field(8, ge=2, le=16, description="signed bits of a weight")
    state_bits: int = Field(24, ge=8, le=32, description="signed bits of potential and current")
    charge_bits: int = Field(24, ge=8, le=40, description="signed bits of the sum of a step's inputs")
    fraction_bits: int = Field(6, ge=0, le=12, description="bits of the state below the unit of a weight")
    payload_bits: int = Field(0, ge=0, le=8, description="bits of an input event's value; 0: binary spikes only")
    decay: Literal["multiplier", "shift"] = Field("multiplier", description="how states decay")
    weight_sharing: bool = Field(False, description="whether a core stores a convolution's kernel once")
    lanes: int = Field(1, ge=1, le=64, description="synapses a core handles at once (prices: model)")
    max_delay: int = Field(63, ge=1, le=255, description="longest axon delay in steps")
    link_buffer: int = Field(16, ge=1, le=4096, description="messages a link holds before senders wait")
    synchronization: Literal["barrier", "tick", "asynchronous"] = Field("barrier", description="when a step ends")
    tick_us: float = Field(1000, gt=0, le=1e6, description="length of a step under `tick`")
    messages: Literal["simple", "detailed", "emitted"] = Field(
        "detailed", description="timing: unlimited links, queued messages, or the cycles of the RTL we emit"
    )
    prices: Literal["model", "loihi", "loihi_calibrated", "truenorth", "spinnaker2", "odin", "tinyodin"] = Field(
        "model", description="who says what an event costs: our 45 nm model, or a published chip"
    )
    clock_mhz: float = Field(100, gt=0, le=4000, description="clock of the cores, where prices count cycles")

    @property
    def tiles(self) -> int:
        return self.mesh_columns * self.mesh_rows

    @property
    def cores(self) -> int:
        return self.tiles * self.cores_per_tile

    @property
    def synapse_bits(self) -> int:
        """Synapse memory of a core in bits."""
        return int(self.synapse_kib * 8192)

    def place(self, core: int) -> tuple[int, int]:
        """Column and row of a core's tile."""
        return divmod(core // self.cores_per_tile, self.mesh_rows)
