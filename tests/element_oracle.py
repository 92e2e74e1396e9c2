"""The element unit of the tile machine, lane by lane in Python integers: written from its text, sharing no code."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine

Memories = Mapping[MemoryId, np.ndarray]
_BYTES = {MemoryId.STATE: 2, MemoryId.ACCUMULATOR: 4}


def lane(memories: Memories, memory: int, word: int, j: int) -> int:
    """Lane j of a word."""
    size = _BYTES.get(MemoryId(memory), 1)
    return int.from_bytes(memories[MemoryId(memory)][word].tobytes()[size * j : size * (j + 1)], "little", signed=True)


def saturated(value: int, bits: int) -> int:
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, value))


def rounded(value: int, shift: int, rounding: int) -> int:
    """value / 2**shift by the rule's words; what leaves 64 bits wraps before."""
    value = (value + 2**63) % 2**64 - 2**63
    if shift == 0:
        return value
    whole, rest = divmod(value, 2**shift)
    half = 2 ** (shift - 1)
    if rounding == 0:
        return whole + (rest >= half)
    if rounding == 1:
        return whole
    return whole + (rest > half or (rest == half and whole % 2 == 1))


def put(memories: Memories, d: Descriptor, machine: Machine, at: tuple[int, int, int], value: int) -> None:
    """Value of lane j of block n, row m, into the destination."""
    n, m, j = at
    rows = d["height"] * d["width"] if d.op == Opcode.POOL else d["rows_count"]
    if d["narrow"]:
        value = saturated(value, 8)
    if d["look_up"]:
        entry = saturated(value, 8) + 128
        raw = memories[MemoryId.TABLE][d["table_base"]].tobytes()
        value = int.from_bytes(raw[2 * entry : 2 * entry + 2], "little", signed=True)
    memory = MemoryId(d["dst_memory"])
    if memory == MemoryId.ACTIVATION:
        record = math.ceil(d["n_blocks"] * machine.columns / machine.rows)
        word, byte = divmod(n * machine.columns + j, machine.rows)
        memories[memory][d["dst_base"] + m * record + word, byte] = saturated(value, 8) % 256
        return
    size = _BYTES.get(memory, 1)
    data = saturated(value, 8 * size).to_bytes(size, "little", signed=True)
    memories[memory][d["dst_base"] + n * rows + m, size * j : size * (j + 1)] = np.frombuffer(data, np.uint8)


def source_word(d: Descriptor, operand: str, n: int, m: int) -> int:
    """The word of a source of ELEMENT."""
    step = {0: n * d["rows_count"] + m, 1: m, 2: n, 3: 0}[d[f"{operand}_spread"]]
    return d[f"{operand}_base"] + step


def slow_element(d: Descriptor, machine: Machine, memories: Memories) -> None:
    """ELEMENT."""
    for n, m, j in np.ndindex(d["n_blocks"], d["rows_count"], machine.columns):
        x = lane(memories, d["a_memory"], source_word(d, "a", n, m), j) - d["zero_a"]
        y = 0
        if d["function"] != 0:
            y = lane(memories, d["b_memory"], source_word(d, "b", n, m), j) - d["zero_b"]
        shift, how = d["shift"], d["rounding"]
        if d["function"] in (4, 5):
            old = lane(memories, d["dst_memory"], d["dst_base"] + n * d["rows_count"] + m, j)
            value = rounded(x * old + (y if d["function"] == 4 else -y), shift, how)
        elif d["function"] in (6, 7):
            value = max(x, y) if d["function"] == 6 else min(x, y)
        elif d["function"] == 3:
            value = rounded(x * y * d["multiplier_a"], shift, how)
        else:
            sign = {0: 0, 1: 1, 2: -1}[d["function"]]
            value = rounded(x * d["multiplier_a"] + sign * y * d["multiplier_b"], shift, how)
        put(memories, d, machine, (n, m, j), value + d["zero_point"])


def slow_pool(d: Descriptor, machine: Machine, memories: Memories) -> None:
    """POOL."""
    for n, y, x, j in np.ndindex(d["n_blocks"], d["height"], d["width"], machine.columns):
        window = []
        for r, s in np.ndindex(d["kernel_rows"], d["kernel_columns"]):
            word = d["a_base"] + n * d["a_stride_n"] + r * d["a_stride_r"] + s * d["a_stride_s"]
            word += y * d["a_stride_y"] + x * d["a_stride_x"]
            window.append(lane(memories, d["a_memory"], word, j))
        value = max(window)
        if d["function"] == 1:
            total = sum(item - d["zero_a"] for item in window) * d["multiplier_a"]
            value = rounded(total, d["shift"], d["rounding"]) + d["zero_point"]
        put(memories, d, machine, (n, y * d["width"] + x, j), value)


def slow_normalize(d: Descriptor, machine: Machine, memories: Memories) -> None:
    """NORMALIZE."""
    blocks, rows, columns, shift = d["n_blocks"], d["rows_count"], machine.columns, d["shift"]
    for m in range(rows):
        values = [lane(memories, d["a_memory"], d["a_base"] + n * rows + m, j) for n in range(blocks)
                  for j in range(columns)][: d["channels"]]  # fmt: skip
        if d["function"] == 0:
            raw = memories[MemoryId.TABLE][d["table_base"]].tobytes()
            table = [int.from_bytes(raw[2 * i : 2 * i + 2], "little", signed=True) for i in range(256)]
            parts = [table[min(max(values) - v, 255)] for v in values]
            divisor = sum(parts)
        else:
            count = len(values)
            spread = count * sum(v * v for v in values) - sum(values) ** 2 + (d["epsilon"] << d["epsilon_shift"])
            divisor = max(1, math.isqrt(spread * 65536))
            parts = [count * v - sum(values) for v in values]
        quotient = (d["multiplier_a"] << (24 if d["function"] == 0 else 32)) // divisor if divisor else 0
        results = [rounded(part * quotient, shift, 0) for part in parts]
        results += [0] * (blocks * columns - len(results))
        for place, value in enumerate(results):
            put(memories, d, machine, (place // columns, m, place % columns), value + d["zero_point"])
