"""What the opcodes of the element unit do to memories (`dse.program.tile.isa_element`): one function a descriptor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from dse.ir.requantize import scale_accumulator
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import RECIPROCAL_BITS, ROOT_BITS, UNARY, Function, Normalize, Pool, Rounding, Spread
from dse.program.tile.pads import Kernel, Scratchpads, channel_parameters

IntArray = npt.NDArray[np.int64]

#: Of results before their zero point of 9 bits; every destination has fewer.
_WIDEST_BITS = 34

_TYPES = {MemoryId.ACCUMULATOR: "<i4", MemoryId.STATE: "<i2"}


def element_kernel(d: Descriptor, pads: Scratchpads) -> Kernel:
    """The function that executes a descriptor of the element unit."""
    return {Opcode.SCALE: _scale, Opcode.ELEMENT: _element, Opcode.POOL: _pool, Opcode.NORMALIZE: _normalize}[d.op](
        d, pads
    )


def words_of(pads: Scratchpads, memory: MemoryId) -> npt.NDArray[np.generic]:
    """A memory in the type of its lanes, shape (words, lanes); a view."""
    return pads.bytes[memory].view(_TYPES.get(memory, "i1"))


def round_shift(value: IntArray, shift: int, rounding: int) -> IntArray:
    """value >> shift (0..62), rounded by a `Rounding`; shift 0 changes nothing."""
    if shift == 0:
        return value
    if rounding == Rounding.FLOOR:
        return np.asarray(value >> shift, np.int64)
    if rounding == Rounding.HALF_UP:
        # the highest dropped bit decides; a sum with one half could leave 64 bits
        return np.asarray((value >> shift) + ((value >> np.int64(shift - 1)) & 1), np.int64)
    half = np.int64(1) << np.int64(shift - 1)
    quotient = value >> shift
    rest = value - (quotient << shift)
    return np.asarray(quotient + ((rest > half) | ((rest == half) & ((quotient & 1) == 1))), np.int64)


def saturate(value: IntArray, bits: int) -> IntArray:
    """Values clipped to signed integers of some bits."""
    return np.clip(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def _offset(value: IntArray, zero_point: int) -> IntArray:
    """value + zero_point without leaving 64 bits: what saturates to int32 behind it is cut off before."""
    return saturate(value, _WIDEST_BITS) + zero_point


def _put(d: Descriptor, pads: Scratchpads, memory: MemoryId, rows: int) -> Callable[[int, IntArray], None]:
    """Writes values of shape (n_blocks, rows, columns) to a destination address: saturation, look-up and layout."""
    machine = pads.machine
    blocks, columns = d["n_blocks"], machine.columns
    target = words_of(pads, memory)
    bits = 8 * target.dtype.itemsize

    def put(address: int, values: IntArray) -> None:
        if d["narrow"]:
            values = saturate(values, 8)
        if d["look_up"]:
            table = pads.bytes[MemoryId.TABLE].view("<i2")[d["table_base"]]
            values = table[saturate(values, 8) + 128].astype(np.int64)
        stored = saturate(values, bits)
        if memory != MemoryId.ACTIVATION:
            target[address : address + blocks * rows] = stored.reshape(blocks * rows, columns)
            return
        record = -(-blocks * columns // machine.rows)
        flat = target[address : address + rows * record].reshape(rows, record * machine.rows)
        flat[:, : blocks * columns] = stored.transpose(1, 0, 2).reshape(rows, blocks * columns)

    return put


# -- SCALE ---------------------------------------------------------------------------------------------------------


def _scale(d: Descriptor, pads: Scratchpads) -> Kernel:
    machine = pads.machine
    blocks, rows = d["n_blocks"], d["rows_count"]
    groups = machine.columns // machine.vector_lanes
    accumulators = pads.accumulators()
    put = _put(d, pads, MemoryId(d["dst_memory"]), rows)

    def execute(address: Mapping[str, int]) -> None:
        words = pads.bytes[MemoryId.PARAMETER][address["param"] : address["param"] + blocks * groups]
        bias, multiplier, shift = channel_parameters(words, blocks)
        acc = accumulators[address["acc"] : address["acc"] + blocks * rows].reshape(blocks, rows, machine.columns)
        # the hardware's adder has 32 bits: the sum wraps
        total = (acc + bias).astype(np.int64)
        value = scale_accumulator(total, multiplier, shift, machine.requantize) + d["zero_point"]
        put(address["dst"], np.clip(value, d["low"], d["high"]))

    return execute


# -- ELEMENT -------------------------------------------------------------------------------------------------------


def _element(d: Descriptor, pads: Scratchpads) -> Kernel:
    blocks, rows = d["n_blocks"], d["rows_count"]
    function = Function(d["function"])
    into = MemoryId(d["dst_memory"])
    first = _source(pads, MemoryId(d["a_memory"]), Spread(d["a_spread"]), (blocks, rows))
    second = _source(pads, MemoryId(d["b_memory"]), Spread(d["b_spread"]), (blocks, rows))
    old = _source(pads, into, Spread.FULL, (blocks, rows))
    put = _put(d, pads, into, rows)

    def execute(address: Mapping[str, int]) -> None:
        x = first(address["a"]) - d["zero_a"]
        y = x if function in UNARY else second(address["b"]) - d["zero_b"]
        if function in (Function.MAX, Function.MIN):
            result = np.maximum(x, y) if function == Function.MAX else np.minimum(x, y)
        else:
            result = round_shift(_before_rounding(d, function, x, y, lambda: old(address["dst"])), d["shift"],
                                 d["rounding"])  # fmt: skip
        put(address["dst"], np.broadcast_to(_offset(result, d["zero_point"]), (blocks, rows, pads.machine.columns)))

    return execute


def _before_rounding(
    d: Descriptor, function: Function, x: IntArray, y: IntArray, old: Callable[[], IntArray]
) -> IntArray:
    first = np.int64(d["multiplier_a"])
    if function == Function.COPY:
        return np.asarray(x * first)
    if function == Function.MUL:
        return np.asarray(x * y * first)
    if function in (Function.ADD, Function.SUB):
        sign = 1 if function == Function.ADD else -1
        return np.asarray(x * first + sign * y * np.int64(d["multiplier_b"]))
    return np.asarray(x * old() + (y if function == Function.MULADD else -y))


def _source(pads: Scratchpads, memory: MemoryId, spread: Spread, shape: tuple[int, int]) -> Callable[[int], IntArray]:
    """Reads an operand at an address: int64, of a shape that broadcasts to (blocks, rows, columns)."""
    blocks, rows = shape
    words = words_of(pads, memory)
    kept = {
        Spread.FULL: (blocks, rows), Spread.ROW: (1, rows), Spread.BLOCK: (blocks, 1), Spread.ONE: (1, 1),
    }[spread]  # fmt: skip
    count = kept[0] * kept[1]
    return lambda address: words[address : address + count].astype(np.int64).reshape(*kept, -1)


# -- POOL ----------------------------------------------------------------------------------------------------------


def _pool(d: Descriptor, pads: Scratchpads) -> Kernel:
    height, width = d["height"], d["width"]
    words = words_of(pads, MemoryId(d["a_memory"]))
    sizes = ("n_blocks", "height", "width", "kernel_rows", "kernel_columns")
    strides = [d[f"a_stride_{dim}"] for dim in ("n", "y", "x", "r", "s")]
    offsets = sum(
        np.arange(d[size]).reshape([-1 if axis == i else 1 for axis in range(5)]) * stride
        for i, (size, stride) in enumerate(zip(sizes, strides, strict=True))
    )
    put = _put(d, pads, MemoryId(d["dst_memory"]), height * width)

    def execute(address: Mapping[str, int]) -> None:
        window = words[address["a"] + offsets].astype(np.int64)
        if d["function"] == Pool.LARGEST:
            result = window.max(axis=(3, 4))
        else:
            total = (window - d["zero_a"]).sum(axis=(3, 4)) * np.int64(d["multiplier_a"])
            result = _offset(round_shift(total, d["shift"], d["rounding"]), d["zero_point"])
        put(address["dst"], result.reshape(d["n_blocks"], height * width, -1))

    return execute


# -- NORMALIZE -----------------------------------------------------------------------------------------------------


def _normalize(d: Descriptor, pads: Scratchpads) -> Kernel:
    blocks, rows, channels = d["n_blocks"], d["rows_count"], d["channels"]
    read = _source(pads, MemoryId(d["a_memory"]), Spread.FULL, (blocks, rows))
    put = _put(d, pads, MemoryId(d["dst_memory"]), rows)
    columns = pads.machine.columns
    softmax = d["function"] == Normalize.SOFTMAX

    def execute(address: Mapping[str, int]) -> None:
        values = read(address["a"]).transpose(1, 0, 2).reshape(rows, blocks * columns)[:, :channels]
        if softmax:
            table = pads.bytes[MemoryId.TABLE].view("<i2")[d["table_base"]].astype(np.int64)
            result = softmax_rows(values, table, d["multiplier_a"], d["shift"])
        else:
            epsilon = d["epsilon"] << d["epsilon_shift"]
            result = centre_rows(values, d["multiplier_a"], d["shift"], epsilon)
        full = np.zeros((rows, blocks * columns), np.int64)
        full[:, :channels] = result
        put(address["dst"], (full + d["zero_point"]).reshape(rows, blocks, columns).transpose(1, 0, 2))

    return execute


def softmax_rows(values: IntArray, table: IntArray, multiplier: int, shift: int) -> IntArray:
    """SOFTMAX of NORMALIZE before its zero point: int64, shape (rows, channels) as `values`; table of 256 entries."""
    exponentials = table[np.minimum(values.max(axis=1, keepdims=True) - values, 255)]
    total = exponentials.sum(axis=1, keepdims=True)
    reciprocal = np.where(total == 0, 0, (np.int64(multiplier) << RECIPROCAL_BITS) // np.where(total == 0, 1, total))
    return round_shift(exponentials * reciprocal, shift, Rounding.HALF_UP)


def centre_rows(values: IntArray, multiplier: int, shift: int, epsilon: int) -> IntArray:
    """CENTRE of NORMALIZE before its zero point: int64, shape (rows, channels) as `values`."""
    count = values.shape[1]
    first = values.sum(axis=1, keepdims=True)
    second = (values * values).sum(axis=1, keepdims=True)
    # Python integers: an epsilon may lie beyond 64 bits
    spreads = (count * second - first * first)[:, 0].tolist()
    roots = [max(math.isqrt((spread + epsilon) << (2 * ROOT_BITS)), 1) for spread in spreads]
    reciprocal = np.array([[(multiplier << (RECIPROCAL_BITS + ROOT_BITS)) // root] for root in roots], np.int64)
    return round_shift((count * values - first) * reciprocal, shift, Rounding.HALF_UP)
