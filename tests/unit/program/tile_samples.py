"""What the tests of tile programs share: small machines, a hand-made pipeline, slow oracles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dse.ir.requantize import add_q31, encode_scale, requantize
from dse.program.tile.isa import ENGINES, PARAMETER_BYTES, Descriptor, Field, MemoryId, Opcode, fields
from dse.program.tile.isa_element import TABLE_BYTES
from dse.program.tile.program import Machine, TileStep

SEMAPHORE = {name: i for i, name in enumerate(("a_ready", "a_free", "w_ready", "w_free", "acc_ready", "acc_free",
                                                "out_ready", "out_free"))}  # fmt: skip


def small_machine(
    *, rows: int = 3, columns: int = 4, weight_bits: int = 8, lanes: int = 2, requantize: str = "q31", words: int = 64
) -> Machine:
    """A machine of a few words; every memory has a depth of its own, so that no mix-up of two goes unseen."""
    depth = {memory: words + 2 * int(memory) for memory in MemoryId}
    word_bytes = {
        MemoryId.ACTIVATION: rows,
        MemoryId.WEIGHT: (columns * weight_bits + 7) // 8,
        MemoryId.PARAMETER: PARAMETER_BYTES * lanes,
        MemoryId.RESIDUAL: columns,
        MemoryId.ACCUMULATOR: 4 * columns,
        MemoryId.OUTPUT: columns,
        MemoryId.STATE: 2 * columns,
        MemoryId.TABLE: TABLE_BYTES,
    }
    depth[MemoryId.TABLE] = 6
    return Machine(rows, columns, "ws", weight_bits, lanes, requantize, 4, 3, depth, word_bytes, 64)


def sync(values: Mapping[str, int]) -> dict[str, int]:
    """Wait and signal fields from names like {"wait a_free": 1}."""
    result: dict[str, int] = {}
    slots = {"wait": 0, "signal": 0}
    for key, amount in values.items():
        verb, name = key.split()
        result[f"{verb}{slots[verb]}_id"] = SEMAPHORE[name]
        result[f"{verb}{slots[verb]}_amount"] = amount
        slots[verb] += 1
    return result


def op(opcode: Opcode, values: Mapping[str, int] | None = None, **semaphores: int) -> Descriptor:
    """A descriptor; semaphores as `wait_a_free=1`."""
    named = {key.replace("_", " ", 1): amount for key, amount in semaphores.items()}
    return Descriptor(opcode, {**(values or {}), **sync(named)})


HALT = Descriptor(Opcode.HALT)
IDLE: dict[str, tuple[Descriptor, ...]] = dict.fromkeys(ENGINES, (HALT,))


def loop(count: int, *body: Descriptor) -> tuple[Descriptor, ...]:
    return (Descriptor(Opcode.LOOP, {"count": count, "body": len(body)}), *body)


def step(**queues: Sequence[Descriptor]) -> TileStep:
    """A step of the given queues without their HALT; the other engines do nothing."""
    return TileStep("sample", ("op",), {**IDLE, **{name: (*queue, HALT) for name, queue in queues.items()}}, 0, 0)


def mutated(sample: TileStep, engine: str, position: int, **changes: int) -> TileStep:
    """The step with some fields of one descriptor changed."""
    queue = list(sample.queues[engine])
    queue[position] = Descriptor(queue[position].op, {**queue[position].values, **changes})
    return replace(sample, queues={**sample.queues, engine: tuple(queue)})


def value_range(item: Field) -> tuple[int, int]:
    """Values of a field, written apart from the encoder."""
    return (-(2 ** (item.bits - 1)), 2 ** (item.bits - 1) - 1) if item.signed else (0, 2**item.bits - 1)


def random_descriptor(rng: np.random.Generator, opcode: Opcode) -> Descriptor:
    """A descriptor with every field anywhere in its range, ends included often."""
    values = {}
    for item in fields(opcode)[1:]:
        low, high = value_range(item)
        values[item.name] = int(rng.choice([low, high, rng.integers(low, high + 1)]))
    return Descriptor(opcode, values)


# -- oracles -------------------------------------------------------------------------------------------------------


def executed(queue: Sequence[Descriptor]) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Position, loop indices and LOOPs fetched before it of every task, by walking the queue as hardware does."""
    position, fetched = 0, 0
    stack: list[list[int]] = []  # begin, end, count, index
    while queue[position].op != Opcode.HALT:
        d = queue[position]
        if d.op == Opcode.LOOP:
            fetched += 1
            stack.append([position + 1, position + d["body"], d["count"], 0])
            position += 1
            continue
        indices = [entry[3] for entry in stack]
        yield position, tuple(indices + [0] * (4 - len(indices))), fetched
        fetched = 0
        while stack and stack[-1][1] == position:
            stack[-1][3] += 1
            if stack[-1][3] < stack[-1][2]:
                position = stack[-1][0] - 1
                break
            stack.pop()
        position += 1


def slow_address(d: Descriptor, name: str, increments: str, half: int, index: Sequence[int]) -> int:
    """The effective address as the text of the instruction set defines it."""
    signs = [-1 if name == "ext" and d["ext_down"] >> level & 1 else 1 for level in range(4)]
    address = d[f"{name}_base"] + sum(index[level] * signs[level] * d[f"{increments}_inc{level}"] for level in range(4))
    parity = sum(index[level] & 1 for level in range(4) if d[f"{name}_toggle"] >> level & 1) % 2
    return address + half * (d[f"{name}_phase"] ^ parity)


def slow_weight(words: np.ndarray, word: int, column: int, bits: int) -> int:
    """A weight out of its word, bit by bit from the lowest."""
    value = int.from_bytes(words[word].tobytes(), "little") >> (column * bits) & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


def slow_matmul(d: Descriptor, machine: Machine, a: np.ndarray, w: np.ndarray, acc: np.ndarray) -> None:
    """MATMUL scalar by scalar on int8 activations, weight words and int32 accumulators; all bases as given."""
    fold = 0
    for n in range(d["n_blocks"]):
        first = True
        for r, s, c in np.ndindex(d["n_rows"], d["n_columns"], d["n_channels"]):
            for y, x in np.ndindex(d["height"], d["width"]):
                word = d["a_base"] + n * d["a_stride_n"] + r * d["a_stride_r"] + s * d["a_stride_s"] + c
                word += y * d["a_stride_y"] + x * d["a_stride_x"]
                target = d["acc_base"] + (n * d["height"] + y) * d["width"] + x
                for column in range(machine.columns):
                    total = 0 if first and not d["accumulate"] else int(acc[target, column])
                    for row in range(machine.rows):
                        weight = slow_weight(w, d["w_base"] + fold * machine.rows + row, column, machine.weight_bits)
                        total += int(a[word, row]) * weight
                    acc[target, column] = (total + 2**31) % 2**32 - 2**31
            first = False
            fold += 1


def slow_vector(
    d: Descriptor, machine: Machine, acc: np.ndarray, parameters: np.ndarray, residual: np.ndarray, out: np.ndarray
) -> None:
    """VECTOR lane by lane; parameters are the bytes of the parameter memory."""
    for n, m in np.ndindex(d["n_blocks"], d["rows_count"]):
        row = n * d["rows_count"] + m
        for j in range(machine.columns):
            word = d["param_base"] + n * (machine.columns // machine.vector_lanes) + j // machine.vector_lanes
            channel = parameters[word].tobytes()[9 * (j % machine.vector_lanes) :][:9]
            bias = int.from_bytes(channel[:4], "little", signed=True)
            multiplier, shift = int.from_bytes(channel[4:8], "little"), channel[8]
            low, high = (-128, 127) if d["add"] else (d["low"], d["high"])
            total = np.int64(int(acc[d["acc_base"] + row, j]) + bias)
            y = requantize(total, np.int64(multiplier), np.int64(shift), d["zero_point"], low, high, machine.requantize)
            if d["add"]:
                factors = (d["multiplier_y"], d["multiplier_res"], d["add_shift"])
                other = residual[d["res_base"] + row, j]
                zeros = (d["zero_point"], d["zero_point_res"], factors, d["zero_point_add"])
                y = add_q31(y, other, *zeros, d["low"], d["high"])
            out[d["out_base"] + row, j] = y


# -- a pipeline of all engines -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sample:
    """A correct step, its machine, memory before and after."""

    step: TileStep
    machine: Machine
    memory: np.ndarray
    expected: np.ndarray


def packed_channels(bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Channel parameters as bytes, nine a channel."""
    rows = [
        int(b).to_bytes(4, "little", signed=True) + int(q).to_bytes(4, "little") + int(s).to_bytes(1, "little")
        for b, q, s in zip(bias, multiplier, shift, strict=True)
    ]
    return np.frombuffer(b"".join(rows), np.uint8)


def pipeline(seed: int, *, blocks: int | None = None, tiles: int | None = None) -> Sample:
    """X @ W, requantized: column blocks (outer loop) of activation tiles (inner loop), all buffers ping-pong."""
    rng = np.random.default_rng(seed)
    lanes, mode = int(rng.choice([1, 2, 4])), str(rng.choice(["ort", "q31"]))
    machine = small_machine(rows=int(rng.integers(1, 5)), lanes=lanes, requantize=mode)
    blocks = blocks or int(rng.integers(1, 4))
    tiles = tiles or int(rng.integers(1, 5))
    height, depth = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    rows, columns = machine.rows, machine.columns
    x = rng.integers(-128, 128, (tiles * height, depth * rows)).astype(np.int8)
    w = rng.integers(-128, 128, (blocks, depth * rows, columns)).astype(np.int8)
    bias = rng.integers(-999, 999, blocks * columns)
    multiplier, shift = encode_scale(2.0 ** rng.uniform(-10, -6, blocks * columns), machine.requantize)
    channels = packed_channels(bias, multiplier, shift)
    acc = np.concatenate([x.astype(np.int64) @ block.astype(np.int64) for block in w], axis=1) + bias
    y = requantize(acc, multiplier, shift, 3, -100, 100, machine.requantize)
    parts = [x.view(np.uint8).ravel(), w.view(np.uint8).ravel(), channels, np.zeros(y.size, np.uint8)]
    starts = np.cumsum([0, *(part.size for part in parts)])
    memory = np.concatenate(parts)
    expected = np.concatenate([*parts[:3], y.view(np.uint8).ravel()])
    queues = _pipeline_queues(machine, (blocks, tiles, height, depth), [int(s) for s in starts])
    return Sample(step(**queues), machine, memory, expected)


def _pipeline_queues(
    machine: Machine, shape: tuple[int, int, int, int], starts: Sequence[int]
) -> dict[str, tuple[Descriptor, ...]]:
    blocks, tiles, height, depth = shape
    rows, columns = machine.rows, machine.columns
    # the running number of a tile is i0 * tiles + i1
    both = 2 | (tiles & 1)
    groups = blocks * columns // machine.vector_lanes
    parameter_bytes = machine.word_bytes[MemoryId.PARAMETER]
    one = {"n0": 1, "n1": 1}
    parameters = {**one, "n2": groups, "run_bytes": parameter_bytes, "ext_base": starts[2],
                  "ext_stride2": parameter_bytes, "local_stride2": 1, "memory": MemoryId.PARAMETER}  # fmt: skip
    weights = {**one, "n2": depth * rows, "run_bytes": columns, "ext_base": starts[1], "ext_stride2": columns,
               "ext_inc0": depth * rows * columns, "local_stride2": 1, "local_toggle": 1,
               "memory": MemoryId.WEIGHT}  # fmt: skip
    activations = {"n0": 1, "n1": height, "n2": depth, "run_bytes": rows, "ext_stride1": depth * rows,
                   "ext_stride2": rows, "ext_inc1": height * depth * rows, "local_stride1": depth,
                   "local_stride2": 1, "local_toggle": both, "memory": MemoryId.ACTIVATION}  # fmt: skip
    matmul = {"n_blocks": 1, "n_rows": 1, "n_columns": 1, "n_channels": depth, "height": height, "width": 1,
              "a_stride_y": depth, "a_toggle": both, "w_toggle": 1, "acc_toggle": both}  # fmt: skip
    vector = {"n_blocks": 1, "rows_count": height, "acc_toggle": both, "out_toggle": both, "param_inc0":
              columns // machine.vector_lanes, "zero_point": 3, "low": -100, "high": 100}  # fmt: skip
    store = {**one, "n2": height, "run_bytes": columns, "ext_base": starts[3], "ext_stride2": blocks * columns,
             "ext_inc0": columns, "ext_inc1": height * blocks * columns, "local_stride2": 1,
             "local_toggle": both}  # fmt: skip
    return {
        "load": (
            op(Opcode.LOAD, parameters),
            *loop(
                blocks,
                op(Opcode.LOAD, weights, wait_w_free=1, signal_w_ready=1),
                *loop(tiles, op(Opcode.LOAD, activations, wait_a_free=1, signal_a_ready=1)),
            ),
        ),
        "matmul": (
            op(Opcode.SYNC, signal_a_free=2, signal_w_free=2),
            *loop(
                blocks,
                op(Opcode.SYNC, wait_w_ready=1),
                *loop(
                    tiles,
                    op(Opcode.MATMUL, matmul, wait_a_ready=1, wait_acc_free=1, signal_a_free=1, signal_acc_ready=1),
                ),
                op(Opcode.SYNC, signal_w_free=1),
            ),
        ),
        "vector": (
            op(Opcode.SYNC, signal_acc_free=2),
            *loop(
                blocks,
                *loop(
                    tiles,
                    op(Opcode.VECTOR, vector, wait_acc_ready=1, wait_out_free=1, signal_acc_free=1, signal_out_ready=1),
                ),
            ),
        ),
        "store": (
            op(Opcode.SYNC, signal_out_free=2),
            *loop(blocks, *loop(tiles, op(Opcode.STORE, store, wait_out_ready=1, signal_out_free=1))),
        ),
    }
