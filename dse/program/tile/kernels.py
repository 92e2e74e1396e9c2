"""What LOAD, STORE, MATMUL and VECTOR do to memories: one NumPy function a descriptor, called per instance.

Everything that does not depend on addresses is worked out once; an instance then costs a few array operations on
views. Addresses must lie inside their memories: the interpreter checks them beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.ir.requantize import add_q31, requantize
from dse.program.tile.errors import TileProgramError
from dse.program.tile.isa import PARAMETER_BYTES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine

ByteArray = npt.NDArray[np.uint8]
#: Executes one instance, given its effective address by operand.
Kernel = Callable[[Mapping[str, int]], None]

#: Sums of this many int8 products are exact in float32: 2**10 * 2**14 = 2**24.
_FLOAT32_DEPTH = 1024


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
            shape = (machine.words[memory], machine.word_bytes[memory])
            contents[memory] = np.zeros(shape, np.uint8) if rng is None else rng.integers(0, 256, shape, np.uint8)
        return Scratchpads(machine, contents)

    def int8(self, memory: MemoryId) -> npt.NDArray[np.int8]:
        """A view as int8, shape (words, word_bytes)."""
        return self.bytes[memory].view(np.int8)

    def accumulators(self) -> npt.NDArray[np.int32]:
        """A view as int32, shape (words, columns)."""
        return self.bytes[MemoryId.ACCUMULATOR].view("<i4")


def kernel(d: Descriptor, pads: Scratchpads, memory: ByteArray) -> Kernel:
    """The function that executes a descriptor; SYNC does nothing."""
    if d.op in (Opcode.LOAD, Opcode.STORE):
        return _transfer(d, pads, memory)
    if d.op == Opcode.MATMUL:
        return _matmul(d, pads)
    if d.op == Opcode.VECTOR:
        return _vector(d, pads)
    return lambda address: None


# -- LOAD, STORE ---------------------------------------------------------------------------------------------------


def _transfer(d: Descriptor, pads: Scratchpads, memory: ByteArray) -> Kernel:
    load = d.op == Opcode.LOAD
    local = MemoryId(d["memory"]) if load else MemoryId.OUTPUT
    scratchpad, word = pads.bytes[local], pads.machine.word_bytes[local]
    shape = (d["n0"], d["n1"], d["n2"], d["run_bytes"])
    external_strides = [d[f"ext_stride{i}"] for i in range(3)]
    local_strides = [d[f"local_stride{i}"] * word for i in range(3)]
    offset = d["byte_offset"]
    capacity = scratchpad.size if load else memory.size
    in_order = _overlap(shape, local_strides if load else external_strides, capacity)

    def execute(address: Mapping[str, int]) -> None:
        outside = np.ndarray(shape, np.uint8, memory, address["ext"], (*external_strides, 1))
        inside = np.ndarray(shape, np.uint8, scratchpad, address["local"] * word + offset, (*local_strides, 1))
        target, source = (inside, outside) if load else (outside, inside)
        if in_order:
            for run in np.ndindex(shape[:3]):
                target[run] = source[run]
        else:
            target[...] = source

    return execute


def _overlap(shape: tuple[int, ...], strides: list[int], capacity: int) -> bool:
    """Whether runs hit bytes of earlier runs: then their order counts."""
    if shape[0] * shape[1] * shape[2] > capacity:
        return True
    steps = [np.arange(size) * stride for size, stride in zip(shape, strides, strict=False)]
    offsets = np.sort((steps[0][:, None, None] + steps[1][:, None] + steps[2]).ravel())
    return bool((np.diff(offsets) < shape[3]).any())


# -- MATMUL --------------------------------------------------------------------------------------------------------


def _matmul(d: Descriptor, pads: Scratchpads) -> Kernel:
    machine = pads.machine
    rows, columns = machine.rows, machine.columns
    blocks, pixels = d["n_blocks"], d["height"] * d["width"]
    depth = d["n_rows"] * d["n_columns"] * d["n_channels"] * rows
    # without a stride along n all blocks read the same activations: gather them once
    gathered = blocks if d["a_stride_n"] else 1
    shape = (gathered, d["height"], d["width"], d["n_rows"], d["n_columns"], d["n_channels"] * rows)
    strides = (*(d[f"a_stride_{dim}"] * rows for dim in ("n", "y", "x", "r", "s")), 1)
    activations = pads.bytes[MemoryId.ACTIVATION]
    weights = pads.bytes[MemoryId.WEIGHT]
    accumulators = pads.accumulators()
    exact: Any = np.float32 if depth <= _FLOAT32_DEPTH else np.float64
    accumulate = bool(d["accumulate"])

    def execute(address: Mapping[str, int]) -> None:
        a = np.ndarray(shape, np.int8, activations, address["a"] * rows, strides)
        words = weights[address["w"] : address["w"] + blocks * depth]
        w = unpack_weights(words, columns, machine.weight_bits).reshape(blocks, depth, columns)
        product = np.matmul(a.reshape(gathered, pixels, depth).astype(exact), w.astype(exact))
        result = product.astype(np.int64).astype(np.int32).reshape(blocks * pixels, columns)
        target = accumulators[address["acc"] : address["acc"] + blocks * pixels]
        if accumulate:
            target += result
        else:
            target[...] = result

    return execute


def unpack_weights(words: ByteArray, columns: int, weight_bits: int) -> npt.NDArray[np.int8]:
    """Weight words as int8, shape (words, columns); 4-bit weights lie two a byte, column 0 in the lowest bits."""
    if weight_bits == 8:
        return words.view(np.int8)
    signed = words.view(np.int8)
    nibbles = np.empty((len(words), words.shape[1], 2), np.int8)
    nibbles[:, :, 0] = (signed << 4) >> 4
    nibbles[:, :, 1] = signed >> 4
    return nibbles.reshape(len(words), -1)[:, :columns]


# -- VECTOR --------------------------------------------------------------------------------------------------------


def _vector(d: Descriptor, pads: Scratchpads) -> Kernel:
    machine = pads.machine
    blocks, rows = d["n_blocks"], d["rows_count"]
    groups = machine.columns // machine.vector_lanes
    accumulators, output = pads.accumulators(), pads.int8(MemoryId.OUTPUT)
    residual = pads.int8(MemoryId.RESIDUAL)
    low, high = (-128, 127) if d["add"] else (d["low"], d["high"])
    shape = (blocks, rows, machine.columns)

    def execute(address: Mapping[str, int]) -> None:
        words = pads.bytes[MemoryId.PARAMETER][address["param"] : address["param"] + blocks * groups]
        bias, multiplier, shift = channel_parameters(words, blocks)
        acc = accumulators[address["acc"] : address["acc"] + blocks * rows].reshape(shape)
        # the hardware's adder has 32 bits: the sum wraps
        total = (acc + bias).astype(np.int64)
        y = requantize(total, multiplier, shift, d["zero_point"], low, high, machine.requantize)
        if d["add"]:
            other = residual[address["res"] : address["res"] + blocks * rows].reshape(shape)
            factors = (d["multiplier_y"], d["multiplier_res"], d["add_shift"])
            zeros = (d["zero_point"], d["zero_point_res"])
            y = add_q31(y, other, *zeros, factors, d["zero_point_add"], d["low"], d["high"])
        output[address["out"] : address["out"] + blocks * rows] = y.reshape(blocks * rows, machine.columns)

    return execute


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
