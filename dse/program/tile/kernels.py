"""What LOAD, STORE, MATMUL, VECTOR and FORWARD do to memories: one NumPy function a descriptor, called per instance.

Everything that does not depend on addresses is worked out once; an instance then costs a few array operations on
views. Addresses must lie inside their memories: the interpreter checks them beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.ir.requantize import add_q31, requantize
from dse.program.tile.expand import store_source
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import ELEMENT_UNIT
from dse.program.tile.kernels_element import element_kernel
from dse.program.tile.pads import ByteArray, Kernel, Scratchpads, channel_parameters

#: Sums of this many int8 products are exact in float32: 2**10 * 2**14 = 2**24.
_FLOAT32_DEPTH = 1024


def kernel(d: Descriptor, pads: Scratchpads, memory: ByteArray) -> Kernel:
    """The function that executes a descriptor; SYNC does nothing."""
    if d.op in (Opcode.LOAD, Opcode.STORE):
        return _transfer(d, pads, memory)
    if d.op == Opcode.MATMUL:
        return _matmul(d, pads)
    if d.op == Opcode.VECTOR:
        return _vector(d, pads)
    if d.op == Opcode.FORWARD:
        return _forward(d, pads)
    if d.op in ELEMENT_UNIT:
        return element_kernel(d, pads)
    return lambda address: None


# -- LOAD, STORE ---------------------------------------------------------------------------------------------------


def _transfer(d: Descriptor, pads: Scratchpads, memory: ByteArray) -> Kernel:
    load = d.op == Opcode.LOAD
    local = MemoryId(d["memory"]) if load else store_source(d)
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


def _forward(d: Descriptor, pads: Scratchpads) -> Kernel:
    machine = pads.machine
    blocks, height, width = d["n_blocks"], d["height"], d["width"]
    groups, rows = machine.columns // machine.vector_lanes, blocks * height * width
    accumulators, activations = pads.accumulators(), pads.bytes[MemoryId.ACTIVATION]
    # channels of a pixel are consecutive bytes, whatever the width of a word
    target_shape = (height, width, blocks * machine.columns)
    strides = (d["out_stride_y"] * machine.rows, d["out_stride_x"] * machine.rows, 1)
    in_order = _overlap((1, height, width, target_shape[2]), [0, *strides[:2]], activations.size)

    def execute(address: Mapping[str, int]) -> None:
        words = pads.bytes[MemoryId.PARAMETER][address["param"] : address["param"] + blocks * groups]
        bias, multiplier, shift = channel_parameters(words, blocks)
        acc = accumulators[address["acc"] : address["acc"] + rows].reshape(blocks, height * width, machine.columns)
        total = (acc + bias).astype(np.int64)
        y = requantize(total, multiplier, shift, d["zero_point"], d["low"], d["high"], machine.requantize)
        pixels = y.transpose(1, 0, 2).reshape(target_shape)
        target = np.ndarray(target_shape, np.int8, activations, address["out"] * machine.rows, strides)
        if not in_order:
            target[...] = pixels
            return
        for n in range(blocks):
            lanes = slice(n * machine.columns, (n + 1) * machine.columns)
            for at in np.ndindex(height, width):
                target[at][lanes] = pixels[at][lanes]

    return execute
