"""A compiled tile program: queues of descriptors, the memory image, the machine it was compiled for.

The program of a network is a list of steps: a `TileStep` runs on the hardware from `start` to `done`;
a `HostStep` is a named operation that the host executes between two tile steps, with the bytes it moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.program.tile.isa import Descriptor, MemoryId


@dataclass(frozen=True)
class Machine:
    """What interpreter, checker, simulator and RTL must agree on: sizes of the array and of its memories.

    `words[m]` and `word_bytes[m]` per `MemoryId`; ping-pong halves are `words // 2`. Weight words hold
    `columns` weights of `weight_bits` bits, column 0 in the lowest bits. Accumulator words hold `columns`
    int32. Parameter words hold `vector_lanes` channels of 9 bytes. A machine with an element unit has two more
    memories: STATE, words of `columns` int16, and TABLE, words of 256 int16, one table each (a copy for every lane).
    """

    rows: int
    columns: int
    dataflow: str  # "ws" or "os"
    weight_bits: int  # 4 or 8
    vector_lanes: int  # divides columns
    requantize: str  # "ort" or "q31"
    memory_bytes_per_cycle: int  # width of the memory port: bytes per beat, power of two
    memory_latency_cycles: int  # cycles from an accepted request to its data or acknowledgement
    words: Mapping[MemoryId, int]
    word_bytes: Mapping[MemoryId, int]
    descriptors: int  # capacity of each queue's descriptor memory

    def has(self, memory: MemoryId) -> bool:
        """Whether the machine has a memory; STATE and TABLE come with an element unit."""
        return memory in self.words and memory in self.word_bytes

    def half(self, memory: MemoryId) -> int:
        """Words of one ping-pong half."""
        return self.words[memory] // 2


@dataclass(frozen=True)
class TensorPlacement:
    """Where a tensor lies in memory: NHWC bytes with a border of `halo` (top, left, bottom, right) pixels.

    Byte of element (n, c, y, x) = base + n*image_bytes + (y + top)*row_bytes + (x + left)*channels + c.
    The border holds `zero_point` and is written once, before the program starts. A vector (N, C) has
    height = width = 1 and one image per row.
    """

    name: str
    base: int
    batch: int
    channels: int
    height: int
    width: int
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    zero_point: int = 0

    @property
    def row_bytes(self) -> int:
        return (self.width + self.halo[1] + self.halo[3]) * self.channels

    @property
    def image_bytes(self) -> int:
        return (self.height + self.halo[0] + self.halo[2]) * self.row_bytes

    @property
    def bytes(self) -> int:
        return self.batch * self.image_bytes

    def address(self, y: int = 0, x: int = 0, channel: int = 0, image: int = 0) -> int:
        """Byte address of an element; y and x may reach into the border."""
        top, left = self.halo[0], self.halo[1]
        return self.base + image * self.image_bytes + (y + top) * self.row_bytes + (x + left) * self.channels + channel


@dataclass(frozen=True)
class TileStep:
    """One run of the hardware: a queue of descriptors per engine, each ended by HALT.

    `ops` names the graph ops it computes, the first the one that gives the step its name.
    """

    name: str
    ops: tuple[str, ...]
    queues: Mapping[str, tuple[Descriptor, ...]]
    useful_macs: int
    layer: int
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HostStep:
    """An operation left to the host: op name, kind, the bytes it reads and writes in memory, and why it is there."""

    name: str
    op: str
    kind: str
    read_bytes: int
    write_bytes: int
    layer: int
    reason: str = ""


@dataclass(frozen=True)
class TileProgram:
    """A compiled network.

    Parameters
    ----------
    machine
        What it was compiled for.
    steps
        In order of execution.
    placements
        Activation tensors by name.
    image
        Initial contents of memory, uint8, shape (memory_bytes,); constants placed, borders filled.
        None when the network was compiled from shapes only (timing and energy, no values).
    """

    machine: Machine
    steps: tuple[TileStep | HostStep, ...]
    placements: Mapping[str, TensorPlacement]
    memory_bytes: int
    image: npt.NDArray[np.uint8] | None
    constants_bytes: int = 0

    @property
    def tile_steps(self) -> tuple[TileStep, ...]:
        return tuple(step for step in self.steps if isinstance(step, TileStep))
