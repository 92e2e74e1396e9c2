"""The on-chip memories of a running program, and what all kernels share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import PARAMETER_BYTES, MemoryId
from dse.program.tile.program import Machine

ByteArray = npt.NDArray[np.uint8]
#: Executes one instance, given its effective address by operand.
Kernel = Callable[[Mapping[str, int]], None]


@dataclass(frozen=True, eq=False)
class Scratchpads:
    """On-chip memories as bytes, uint8, shape (words, word_bytes) each."""

    machine: Machine
    bytes: Mapping[MemoryId, ByteArray]

    @staticmethod
    def fresh(machine: Machine, rng: np.random.Generator | None) -> Scratchpads:
        """Memories as power-up leaves them: random bytes, or zeros without a generator."""
        contents = {}
        for memory in MemoryId:
            if not machine.has(memory):
                continue
            shape = (machine.words[memory], machine.word_bytes[memory])
            contents[memory] = np.zeros(shape, np.uint8) if rng is None else rng.integers(0, 256, shape, np.uint8)
        return Scratchpads(machine, contents)

    def int8(self, memory: MemoryId) -> npt.NDArray[np.int8]:
        """A view as int8, shape (words, word_bytes)."""
        return self.bytes[memory].view(np.int8)

    def accumulators(self) -> npt.NDArray[np.int32]:
        """A view as int32, shape (words, columns)."""
        return self.bytes[MemoryId.ACCUMULATOR].view("<i4")


def channel_parameters(
    words: ByteArray, blocks: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Bias, multiplier and shift of the channels in parameter words, each of shape (blocks, 1, columns).

    Channels that a layer does not have hold zeros; they get shift 1, with which multiplier 0 gives 0.

    Raises
    ------
    TileProgramError: a shift outside 1..62 (nothing was loaded there, or something else).
    """
    channels = np.ascontiguousarray(words).reshape(blocks, 1, -1, PARAMETER_BYTES)
    bias = channels[..., 0:4].copy().view("<i4")[..., 0]
    multiplier = channels[..., 4:8].copy().view("<u4")[..., 0].astype(np.int64)
    shift = channels[..., 8].view(np.int8).astype(np.int64)
    shift = np.where((multiplier == 0) & (shift == 0), 1, shift)
    if (shift < 1).any() or (shift > 62).any():
        wrong = int(shift[(shift < 1) | (shift > 62)][0])
        raise TileProgramError(f"VECTOR reads channel parameters with a shift of {wrong}; 1 to 62 are valid")
    return bias, multiplier, shift
