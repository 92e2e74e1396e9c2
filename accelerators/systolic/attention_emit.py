"""Queues of a vector layer: tiles of rows through the element unit, loads and stores in the shadow of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelerators.systolic.attention import VectorLayer
from accelerators.systolic.recurrent_queue import TIME, loop, make, queue, sync
from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import Function, Normalize, Spread
from dse.program.tile.program import Machine

#: STATE vectors of a layer norm: centred rows, rows times the scale.
_STATE_VECTORS = 2


@dataclass(frozen=True)
class VectorImage:
    """Byte addresses of the operands, the result, the table, and a layer norm's scale and shift as STATE words."""

    operands: tuple[int, ...]
    output: int
    table: int
    scales: int


@dataclass(frozen=True)
class _Tile:
    """`count` tiles of `rows` rows of `width` values, the first at `byte` of every operand, tile number `first`."""

    count: int
    rows: int
    width: int
    byte: int
    first: int


def tile_rows(layer: VectorLayer, machine: Machine) -> tuple[int, int]:
    """Rows of a tile and values of a row as the element unit walks them.

    Tables and adds know no rows: they take words of `columns` values, one after the other.

    Raises
    ------
    InfeasibleError: one row does not fit on chip.
    """
    width = machine.columns if layer.what in ("table", "add") else layer.width
    blocks = -(-width // machine.columns)
    held = min(machine.half(MemoryId.RESIDUAL) // _operands(layer), machine.half(MemoryId.OUTPUT)) // blocks
    if layer.what == "layer_norm":
        held = min(held, (machine.words[MemoryId.STATE] - 2 * blocks) // (_STATE_VECTORS * blocks))
    if held < 1:
        words = machine.half(MemoryId.OUTPUT)
        hint = "a row of a softmax or layer norm must fit residual, output and state memories"
        raise InfeasibleError(f"layer {layer.name!r}", [Violation("row words", blocks, words, "words", hint)])
    return held, width


def _operands(layer: VectorLayer) -> int:
    return 2 if layer.what == "add" else 1


def emit_vector(
    layer: VectorLayer, machine: Machine, image: VectorImage, values: Mapping[str, int], index: int
) -> dict[str, tuple[Descriptor, ...]]:
    """Queues of a vector layer, HALT included; `values` are the fields of its arithmetic (`attention_lower`)."""
    emitter = _Emitter(layer, machine, image, values, index)
    return emitter.emit()


class _Emitter:
    """Emits one vector layer; `emit()` is the only entry."""

    def __init__(
        self, layer: VectorLayer, machine: Machine, image: VectorImage, values: Mapping[str, int], index: int
    ) -> None:
        self.layer, self.machine, self.image, self.values, self.index = layer, machine, image, values, index
        self.held, self.width = tile_rows(layer, machine)

    def emit(self) -> dict[str, tuple[Descriptor, ...]]:
        """All queues."""
        tiles = self._tiles()
        result: dict[str, list[Descriptor]] = {
            "load": self._constants(),
            "matmul": [],
            "vector": [sync(self.index, signal_x_free=2)],
            "store": [sync(self.index, signal_out_free=2)],
        }
        for tile in tiles:
            for engine, body in (("load", self._load(tile)), ("vector", self._compute(tile)),
                                 ("store", self._store(tile))):  # fmt: skip
                result[engine] += loop(tile.count, body) if tile.count > 1 else body
        return {engine: queue(items) for engine, items in result.items()}

    def _tiles(self) -> list[_Tile]:
        """Full tiles, the rows that are left, and, of a layer without rows, the values that fill no word."""
        whole, rest = divmod(self.layer.elements // self.width, self.held)
        tail = self.layer.elements % self.width
        tiles = [_Tile(whole, self.held, self.width, 0, 0)] if whole else []
        position = whole * self.held * self.width
        if rest:
            tiles.append(_Tile(1, rest, self.width, position, whole))
        if tail:
            position += rest * self.width
            tiles.append(_Tile(1, 1, tail, position, whole + bool(rest)))
        return tiles

    def _constants(self) -> list[Descriptor]:
        loads = []
        if self.layer.what in ("table", "softmax"):
            loads.append(self._bulk(MemoryId.TABLE, self.image.table, 1))
        if self.layer.what == "layer_norm":
            loads.append(self._bulk(MemoryId.STATE, self.image.scales, 2 * self._blocks(self.width)))
        return loads

    def _bulk(self, memory: MemoryId, base: int, words: int) -> Descriptor:
        run = self.machine.word_bytes[memory]
        fields = {"n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_base": base, "ext_stride2": run,
                  "local_stride2": 1, "memory": memory}  # fmt: skip
        return make(Opcode.LOAD, fields, self.index)

    def _blocks(self, width: int) -> int:
        return -(-width // self.machine.columns)

    # -- transfers -------------------------------------------------------------------------------------------

    def _half(self, name: str, tile: _Tile) -> dict[str, int]:
        return {f"{name}_phase": tile.first & 1, f"{name}_toggle": 1 << TIME if tile.count > 1 else 0}

    def _runs(self, tile: _Tile) -> Sequence[tuple[int, int, int]]:
        """First block, number of blocks and bytes of a run: whole blocks, then the ragged one."""
        columns, blocks = self.machine.columns, self._blocks(tile.width)
        tail = tile.width % columns
        runs = [(0, blocks - bool(tail), columns)] + ([(blocks - 1, 1, tail)] if tail else [])
        return [run for run in runs if run[1]]

    def _transfer(self, tile: _Tile, base: int, run: tuple[int, int, int], local: int) -> dict[str, int]:
        block, count, size = run
        columns = self.machine.columns
        fields = {
            "n0": 1, "n1": count, "n2": tile.rows, "run_bytes": size, "ext_base": base + tile.byte + block * columns,
            "ext_stride1": columns, "ext_stride2": tile.width, "local_base": local + block * tile.rows,
            "local_stride1": tile.rows, "local_stride2": 1, **self._half("local", tile),
        }  # fmt: skip
        if tile.count > 1:
            fields[f"ext_inc{TIME}"] = tile.rows * tile.width
        # the stride of a single run is never taken, and may be too large for its field
        return {name: value for name, value in fields.items() if name != "ext_stride2" or tile.rows > 1}

    def _load(self, tile: _Tile) -> list[Descriptor]:
        words = tile.rows * self._blocks(tile.width)
        parts = [
            (base, run, operand * words) for operand, base in enumerate(self.image.operands) for run in self._runs(tile)
        ]
        loads = []
        for number, (base, run, local) in enumerate(parts):
            semaphores = {"wait_x_free": 1} if number == 0 else {}
            semaphores |= {"signal_x_ready": 1} if number == len(parts) - 1 else {}
            fields = {**self._transfer(tile, base, run, local), "memory": MemoryId.RESIDUAL}
            loads.append(make(Opcode.LOAD, fields, self.index, **semaphores))
        return loads

    def _store(self, tile: _Tile) -> list[Descriptor]:
        runs = self._runs(tile)
        stores = []
        for number, run in enumerate(runs):
            semaphores = {"wait_out_ready": 1} if number == 0 else {}
            semaphores |= {"signal_out_free": 1} if number == len(runs) - 1 else {}
            stores.append(make(Opcode.STORE, self._transfer(tile, self.image.output, run, 0), self.index, **semaphores))
        return stores

    # -- arithmetic ------------------------------------------------------------------------------------------

    def _compute(self, tile: _Tile) -> list[Descriptor]:
        blocks = self._blocks(tile.width)
        shape = {"n_blocks": blocks, "rows_count": tile.rows}
        source = {**shape, "a_memory": MemoryId.RESIDUAL, **self._half("a", tile)}
        target = {"dst_memory": MemoryId.OUTPUT, **self._half("dst", tile)}
        ends = {"wait_x_ready": 1, "wait_out_free": 1, "signal_x_free": 1, "signal_out_ready": 1}
        if self.layer.what == "table":
            fields = {**source, **target, "function": Function.COPY, "multiplier_a": 1, "look_up": 1}
            return [make(Opcode.ELEMENT, fields, self.index, **ends)]
        if self.layer.what == "add":
            second = {"b_memory": MemoryId.RESIDUAL, "b_base": blocks * tile.rows, **self._half("b", tile)}
            fields = {**source, **second, **target, "function": Function.ADD, **self.values}
            return [make(Opcode.ELEMENT, fields, self.index, **ends)]
        if self.layer.what == "softmax":
            fields = {**source, **target, "function": Normalize.SOFTMAX, "channels": tile.width, **self.values}
            return [make(Opcode.NORMALIZE, fields, self.index, **ends)]
        return self._layer_norm(tile, source, target)

    def _layer_norm(self, tile: _Tile, source: Mapping[str, int], target: Mapping[str, int]) -> list[Descriptor]:
        """Centre and divide by the deviation, times the scale of each channel, plus its shift."""
        blocks, values = self._blocks(tile.width), self.values
        shape = {"n_blocks": blocks, "rows_count": tile.rows}
        first = 2 * blocks
        second = first + blocks * tile.rows
        centre = {
            **source, "dst_memory": MemoryId.STATE, "dst_base": first, "function": Normalize.CENTRE,
            "channels": tile.width, **{name: values[name] for name in ("multiplier_a", "epsilon", "epsilon_shift")},
            "shift": values["centre_shift"],
        }  # fmt: skip
        scaled = {
            **shape, "function": Function.MUL, "multiplier_a": 1, "a_memory": MemoryId.STATE, "a_base": first,
            "b_memory": MemoryId.STATE, "b_spread": Spread.BLOCK, "dst_memory": MemoryId.STATE, "dst_base": second,
            "shift": values["scale_shift"],
        }  # fmt: skip
        shifted = {
            **shape, **target, "function": Function.ADD, "multiplier_a": 1, "multiplier_b": 1,
            "a_memory": MemoryId.STATE, "a_base": second, "b_memory": MemoryId.STATE, "b_base": blocks,
            "b_spread": Spread.BLOCK, "shift": values["shift"], "zero_point": values["zero_point"],
        }  # fmt: skip
        return [
            make(Opcode.NORMALIZE, centre, self.index, wait_x_ready=1, signal_x_free=1),
            make(Opcode.ELEMENT, scaled, self.index),
            make(Opcode.ELEMENT, shifted, self.index, wait_out_free=1, signal_out_ready=1),
        ]
