"""An LSTM as descriptors: one pass over the time steps with weights that stay on chip, bit for bit `dse.ir`.

Per step: x comes in while the step before computes; x and h are multiplied with all gates at once; the vector unit
looks up the gates, updates the cell in the state memory and writes h back beside the next x. The queues are written
step by step and then rolled, so that the program is a loop whatever the length of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.npu.layer import LstmLayer
from accelerators.npu.stream import Stream
from accelerators.npu.weights import PARAMETER_TYPE, parameter_bytes
from dse.core.errors import InfeasibleError, ModelError, Violation
from dse.ir import Graph
from dse.ir.recurrent_int8 import recurrent_parameters
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import TABLE_BYTES, Function, Rounding
from dse.program.tile.program import Machine, TensorPlacement

_GATES = 4
_TABLES = 5
_VECTORS = ("i", "o", "f", "g", "shown", "state", "hidden")
#: Shifts that stand in where a graph has no values: they take no time.
_SHAPE_CELL = (0, 0, 7)


@dataclass(frozen=True)
class LstmCode:
    """A layer on a machine and the addresses of its constants; `zeros` is the first state."""

    layer: LstmLayer
    machine: Machine
    weights: int
    parameters: int
    tables: int
    zeros: int

    @property
    def blocks(self) -> int:
        return -(-self.layer.hidden // self.machine.columns)

    @property
    def input_words(self) -> int:
        return -(-self.layer.inputs_per_step // self.machine.rows)

    @property
    def hidden_words(self) -> int:
        """Channel words of h that a product reduces over."""
        return -(-self.layer.hidden // self.machine.rows)

    @property
    def record(self) -> int:
        """Activation words of h as the vector unit writes it: whole blocks."""
        return -(-self.blocks * self.machine.columns // self.machine.rows)

    @property
    def weight_words(self) -> tuple[int, int]:
        """Weight words of the products with x and with h."""
        per = _GATES * self.blocks * self.machine.rows
        return per * self.input_words, per * self.hidden_words

    def base(self, name: str) -> int:
        """First STATE word of a vector."""
        return _VECTORS.index(name) * self.blocks * self.layer.batch


def plan_lstm(layer: LstmLayer, machine: Machine, take: Callable[[str, str, int], int]) -> LstmCode:
    """Addresses for a layer's constants from `take(layer name, what, bytes)`.

    Raises
    ------
    InfeasibleError: no state memory, or a memory is too small (which, by how much).
    """
    if not machine.has(MemoryId.STATE):
        raise InfeasibleError(
            f"layer {layer.name!r}", [Violation("state_kib", 0, 1, "KiB", "an lstm needs the state memory")]
        )
    code = LstmCode(layer, machine, 0, 0, 0, 0)
    rows = code.blocks * layer.batch
    used = [
        ("weight_spad words", sum(code.weight_words), machine.words[MemoryId.WEIGHT]),
        ("accumulator words", _GATES * rows, machine.half(MemoryId.ACCUMULATOR)),
        ("activation_spad words", layer.batch * (code.input_words + code.record), machine.half(MemoryId.ACTIVATION)),
        ("output_buffer words", rows, machine.half(MemoryId.OUTPUT)),
        ("parameter_channels", _GATES * code.blocks * machine.columns,
         machine.words[MemoryId.PARAMETER] * machine.vector_lanes),
        ("state_memory words", len(_VECTORS) * rows, machine.words[MemoryId.STATE]),
        ("tables", _TABLES, machine.words[MemoryId.TABLE]),
    ]  # fmt: skip
    broken = [Violation(name, need, limit, "") for name, need, limit in used if need > limit]
    if broken:
        raise InfeasibleError(f"layer {layer.name!r}", broken)
    state = max(rows * 2 * machine.columns, layer.batch * code.record * machine.rows)
    return LstmCode(
        layer, machine,
        take(layer.name, "weights", sum(code.weight_words) * machine.columns),
        take(layer.name, "parameters", parameter_bytes(_GATES * code.blocks * machine.columns, machine)),
        take(layer.name, "tables", _TABLES * TABLE_BYTES),
        take(layer.name, "first state", state),
    )  # fmt: skip


def emit_lstm(
    code: LstmCode, graph: Graph, placements: Mapping[str, TensorPlacement], index: int, *, quantized: bool
) -> dict[str, tuple[Descriptor, ...]]:
    """Straight queues of a planned layer without HALT; `quantized` graphs give its shifts, others only its time."""
    cell = _SHAPE_CELL
    if quantized:
        p = recurrent_parameters(graph, code.layer.op, code.machine.requantize)
        cell = (p.cell_fraction, p.cell_shift, p.hidden_exponent)
        if not (0 <= cell[0] <= 15 and 0 <= cell[1] <= 15 and 0 <= cell[2] <= 30):
            raise ModelError(f"layer {code.layer.name!r}: shifts {cell} leave those of the vector unit (15, 15, 30)")
    return _Emitter(code, placements, index, cell).emit()


class _Emitter:
    def __init__(
        self, code: LstmCode, placements: Mapping[str, TensorPlacement], index: int, cell: tuple[int, int, int]
    ) -> None:
        self.code, self.layer, self.machine = code, code.layer, code.machine
        self.placements, self.cell = placements, cell
        self.stream = Stream(code.machine, 2, index)
        self.rows = code.layer.batch

    def emit(self) -> dict[str, tuple[Descriptor, ...]]:
        self._constants()
        # the first h lies there before the first step
        self.stream.queues["vector"][0].signals["h_ready"] = 1
        for step in range(self.layer.steps):
            self._input(step)
            self._products(step)
            self._cell(step)
            if step + 1 < self.layer.steps:
                target = {"dst_base": self._half(step + 1, MemoryId.ACTIVATION) + self._hidden_base()}
                # the next x goes into the same bank, so it must be there
                self._copy(MemoryId.ACTIVATION, target, {"next_here": 1}, {"h_ready": 1})
            if self.layer.output:
                self._store(self.layer.output, step)
        if self.layer.last:
            self._store(self.layer.last, 0)
        return self.stream.final()

    def _half(self, step: int, memory: MemoryId) -> int:
        return step % 2 * self.machine.half(memory)

    def _hidden_base(self) -> int:
        return self.rows * self.code.input_words

    def _bulk(self, memory: MemoryId, address: int, words: int, local: int, **signals: int) -> None:
        run = self.machine.word_bytes[memory]
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_base": address, "ext_stride2": run,
            "local_base": local, "local_stride2": 1, "memory": memory,
        }  # fmt: skip
        self.stream.add("load", Opcode.LOAD, fields, None, signals)

    def _constants(self) -> None:
        code, machine = self.code, self.machine
        parameters = _GATES * code.blocks * (machine.columns // machine.vector_lanes)
        self._bulk(MemoryId.PARAMETER, code.parameters, parameters, 0)
        self._bulk(MemoryId.TABLE, code.tables, _TABLES, 0)
        self._bulk(MemoryId.WEIGHT, code.weights, sum(code.weight_words), 0, w_ready=1)
        self._bulk(MemoryId.STATE, code.zeros, code.blocks * self.rows, code.base("state"))
        self._bulk(MemoryId.ACTIVATION, code.zeros, self.rows * code.record, self._hidden_base())

    def _input(self, step: int) -> None:
        layer, rows, words = self.layer, self.machine.rows, self.code.input_words
        place = self.placements[layer.input]
        tail = layer.inputs_per_step % rows
        parts = [(0, words - bool(tail), rows)] + ([(words - 1, 1, tail)] if tail else [])
        parts = [part for part in parts if part[1]]
        for number, (word, count, run) in enumerate(parts):
            fields = {
                "n0": 1, "n1": layer.batch, "n2": count, "run_bytes": run,
                "ext_base": place.base + step * layer.batch * layer.inputs_per_step + word * rows,
                "ext_stride1": layer.inputs_per_step, "ext_stride2": rows,
                "local_base": self._half(step, MemoryId.ACTIVATION) + word, "local_stride1": words, "local_stride2": 1,
                "memory": MemoryId.ACTIVATION,
            }  # fmt: skip
            waits = {"a_free": 1} if number == 0 else {}
            signals = {}
            if number == len(parts) - 1:
                signals = {"a_ready": 1, **({"next_here": 1} if step else {})}
            self.stream.add("load", Opcode.LOAD, fields, waits, signals)

    def _products(self, step: int) -> None:
        code = self.code
        activation = self._half(step, MemoryId.ACTIVATION)
        for part, (words, record, offset) in enumerate(
            ((code.input_words, code.input_words, 0), (code.hidden_words, code.record, self._hidden_base()))
        ):
            fields = {
                "n_blocks": _GATES * code.blocks, "n_rows": 1, "n_columns": 1, "n_channels": words,
                "height": self.rows, "width": 1, "a_base": activation + offset, "a_stride_y": record,
                "w_base": code.weight_words[0] if part else 0,
                "acc_base": self._half(step, MemoryId.ACCUMULATOR), "accumulate": part,
            }  # fmt: skip
            waits = {"h_ready": 1} if part else {"a_ready": 1, "acc_free": 1}
            if part == 0 and step == 0:
                waits["w_ready"] = 1
            self.stream.add("matmul", Opcode.MATMUL, fields, waits, {"a_free": 1, "acc_ready": 1} if part else {})

    def _cell(self, step: int) -> None:
        fraction, shift, exponent = self.cell
        accumulators = self._half(step, MemoryId.ACCUMULATOR)
        chunk = self.code.blocks * self.rows
        per_gate = self.code.blocks * (self.machine.columns // self.machine.vector_lanes)
        for gate, name in enumerate(_VECTORS[:_GATES]):
            fields = {
                "n_blocks": self.code.blocks, "rows_count": self.rows, "acc_base": accumulators + gate * chunk,
                "param_base": gate * per_gate, "dst_memory": MemoryId.STATE, "dst_base": self.code.base(name),
                "low": -128, "high": 127, "look_up": 1, "table_base": gate,
            }  # fmt: skip
            self.stream.add("vector", Opcode.SCALE, fields, {"acc_ready": 1} if gate == 0 else {})
        # i * g needs more than 16 bits: it stays in the accumulators, which the gates no longer need
        self._element(Function.MUL, ("i", "g", accumulators), 15 - fraction, rounding=Rounding.FLOOR, multiplier_a=1)
        self._element(Function.MULADD, ("f", accumulators, "state"), 15, signals={"acc_free": 1})
        self._element(Function.COPY, ("state", None, "shown"), shift, multiplier_a=1, look_up=1, table_base=4)
        self._element(Function.MUL, ("o", "shown", "hidden"), 30 - exponent, narrow=1, multiplier_a=1)

    def _element(
        self,
        function: Function,
        operands: tuple[str | int | None, str | int | None, str | int | None],
        shift: int,
        signals: Mapping[str, int] | None = None,
        **fields: int,
    ) -> None:
        """An operation on STATE vectors by name or accumulators by address."""
        values = {"n_blocks": self.code.blocks, "rows_count": self.rows, "function": function, "shift": shift, **fields}
        for name, operand in zip(("a", "b", "dst"), operands, strict=True):
            if isinstance(operand, str):
                values |= {f"{name}_memory": MemoryId.STATE, f"{name}_base": self.code.base(operand)}
            elif operand is not None:
                values |= {f"{name}_memory": MemoryId.ACCUMULATOR, f"{name}_base": operand}
        self.stream.add("vector", Opcode.ELEMENT, values, None, signals)

    def _copy(
        self,
        memory: MemoryId,
        target: Mapping[str, int],
        waits: Mapping[str, int] | None = None,
        signals: Mapping[str, int] | None = None,
    ) -> None:
        """h, already int8, into another memory."""
        fields = {
            "n_blocks": self.code.blocks, "rows_count": self.rows, "function": Function.COPY, "multiplier_a": 1,
            "a_memory": MemoryId.STATE, "a_base": self.code.base("hidden"), "dst_memory": memory, **target,
        }  # fmt: skip
        self.stream.add("vector", Opcode.ELEMENT, fields, waits, signals)

    def _store(self, name: str, step: int) -> None:
        layer, columns, blocks = self.layer, self.machine.columns, self.code.blocks
        out = self.stream.buffer("out", MemoryId.OUTPUT)
        self._copy(MemoryId.OUTPUT, {"dst_base": out}, {"out_free": 1}, {"out_ready": 1})
        tail = layer.hidden % columns
        parts = [(0, blocks - bool(tail), columns)] + ([(blocks - 1, 1, tail)] if tail else [])
        parts = [part for part in parts if part[1]]
        base = self.placements[name].base + step * layer.batch * layer.hidden
        for number, (block, count, run) in enumerate(parts):
            fields = {
                "n0": 1, "n1": count, "n2": layer.batch, "run_bytes": run, "ext_base": base + block * columns,
                "ext_stride1": columns, "ext_stride2": layer.hidden, "local_base": out + block * layer.batch,
                "local_stride1": layer.batch, "local_stride2": 1,
            }  # fmt: skip
            waits = {"out_ready": 1} if number == 0 else {}
            self.stream.add("store", Opcode.STORE, fields, waits, {"out_free": 1} if number == len(parts) - 1 else {})


def write_lstm(memory: npt.NDArray[np.uint8], code: LstmCode, graph: Graph) -> None:
    """Write a layer's weights, parameters and tables into a memory image; its first state is zero already.

    Raises
    ------
    ModelError: a sum may leave the 32 bits of an accumulator, or a scale cannot be encoded.
    """
    layer, machine = code.layer, code.machine
    p = recurrent_parameters(graph, layer.op, machine.requantize)
    x, h = p.weight[0].astype(np.int64), p.recurrent[0].astype(np.int64)
    bias = p.bias_x[0] + p.bias_h[0] - p.zero_x * x.sum(axis=1)
    most = np.abs(x).sum(axis=1) * 255 + np.abs(h).sum(axis=1) * 128 + np.abs(p.bias_x[0]) + np.abs(p.bias_h[0])
    if int(most.max()) >= 1 << 31:
        raise ModelError(f"layer {layer.name!r}: a gate's sum may reach {int(most.max())}, beyond 32 bits")
    padded = code.blocks * machine.columns
    pieces = []
    for values, words in ((x, code.input_words), (h, code.hidden_words)):
        table = np.zeros((_GATES, padded, words * machine.rows), np.int8)
        table[:, : layer.hidden, : values.shape[1]] = values.reshape(_GATES, layer.hidden, -1)
        split = table.reshape(_GATES, code.blocks, machine.columns, words, machine.rows)
        pieces.append(np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2)).view(np.uint8).ravel())
    _write(memory, code.weights, np.concatenate(pieces))
    if (np.abs(bias) >= 1 << 31).any():
        raise ModelError(f"layer {layer.name!r}: a bias corrected for the input zero point leaves int32")
    channels = np.zeros((_GATES, padded), PARAMETER_TYPE)
    channels["shift"] = 1
    for field, rows in (("bias", bias), ("multiplier", p.multiplier[0]), ("shift", p.shift[0])):
        channels[field][:, : layer.hidden] = rows.reshape(_GATES, layer.hidden)
    _write(memory, code.parameters, channels.view(np.uint8).ravel())
    tables = np.asarray([*p.tables[0], p.cell_table[0]]).astype("<i2")
    _write(memory, code.tables, tables.view(np.uint8).ravel())


def _write(memory: npt.NDArray[np.uint8], address: int, data: npt.NDArray[np.uint8]) -> None:
    memory[address : address + data.size] = data
