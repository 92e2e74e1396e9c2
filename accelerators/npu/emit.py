"""A convolution as descriptors: tiles in order, each operand loaded when the tile in its buffer is another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from accelerators.npu.layer import ConvLayer
from accelerators.npu.stream import Draft, Stream
from accelerators.npu.tiles import Tiling, WeightTile, input_extent
from accelerators.npu.timing import DIAGONAL, SPARSE
from accelerators.npu.weights import parameter_bytes
from dse.program.tile.isa import MemoryId, Opcode
from dse.program.tile.program import TensorPlacement


@dataclass(frozen=True)
class ConvImage:
    """Where a layer finds its data: placements, address of every weight tile and of the parameters.

    `row_bytes` are the bytes from an input row to the next; `vector_fields` the arithmetic of its VECTORs.
    """

    input: TensorPlacement
    output: TensorPlacement
    residual: TensorPlacement | None
    weights: Mapping[WeightTile, int]
    parameters: int
    row_bytes: int
    vector_fields: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Loaded:
    """The tile in an operand's buffer: what it is, where, whether someone has waited for it, who read it last."""

    key: object = None
    base: int = 0
    fresh: bool = False
    last: Draft | None = None


@dataclass(frozen=True)
class _Tile:
    """A matmul: weight tile, image, output rows and columns; whether it begins or ends the reduction."""

    weights: WeightTile
    image: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    first: bool
    last: bool


class ConvEmitter:
    """Appends a layer to a stream; `emit()` is the only entry."""

    def __init__(self, stream: Stream, tiling: Tiling, image: ConvImage) -> None:
        self.stream, self.tiling, self.image = stream, tiling, image
        self.layer: ConvLayer = tiling.layer
        self.machine = stream.machine
        self.loaded = {"a": _Loaded(), "w": _Loaded()}
        self.accumulator = 0

    def emit(self) -> None:
        """All descriptors of the layer."""
        parameters = self._load_parameters()
        final: Draft | None = None
        for tile in self._tiles():
            self._load_weights(tile)
            self._load_inputs(tile)
            self._matmul(tile)
            if tile.last:
                final = self._finish(tile, parameters)
                if self.stream.buffers == 1:
                    final.signals["done"] = 1
                    self.stream.undone += 1
        for name, loaded in self.loaded.items():
            self._release(name, loaded)
        assert final is not None
        if self.stream.buffers > 1:
            final.signals["done"] = 1
            self.stream.undone += 1
        self.stream.add("vector", Opcode.SYNC, {}, signals={"p_free": 1})

    def _tiles(self) -> Iterator[_Tile]:
        tiling, layer = self.tiling, self.layer
        by_block: dict[int, list[WeightTile]] = {}
        for tile in tiling.weight_tiles():
            by_block.setdefault(tile.block, []).append(tile)
        pixels = [
            (image, rows, columns)
            for image in range(layer.batch)
            for rows in tiling.spans(layer.out_height, tiling.y)
            for columns in tiling.spans(layer.out_width, tiling.x)
        ]
        if tiling.order == "weights_outer":
            pairs = [(chunks, pixel) for chunks in by_block.values() for pixel in pixels]
        else:
            pairs = [(chunks, pixel) for pixel in pixels for chunks in by_block.values()]
        for chunks, (image, rows, columns) in pairs:
            for number, weights in enumerate(chunks):
                yield _Tile(weights, image, rows, columns, number == 0, number == len(chunks) - 1)

    # -- operands --------------------------------------------------------------------------------------------

    def _release(self, name: str, loaded: _Loaded) -> None:
        """The buffer is free behind the last descriptor that read it."""
        if loaded.last is not None:
            loaded.last.signals[f"{name}_free"] = 1

    def _replace(self, name: str, key: object, memory: MemoryId) -> int | None:
        """The buffer for a new tile; None when the tile is there already."""
        loaded = self.loaded[name]
        if loaded.key == key:
            return None
        self._release(name, loaded)
        base = self.stream.buffer(name, memory)
        self.loaded[name] = _Loaded(key, base, True)
        return base

    def _load_parameters(self) -> int:
        """Load bias and scales of all channels; first word of their half."""
        word = self.machine.word_bytes[MemoryId.PARAMETER]
        base = self.stream.buffer("p", MemoryId.PARAMETER)
        words = parameter_bytes(self.layer.out_channels, self.machine) // word
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": word, "ext_base": self.image.parameters, "ext_stride2": word,
            "local_base": base, "local_stride2": 1, "memory": MemoryId.PARAMETER,
        }  # fmt: skip
        self.stream.add("load", Opcode.LOAD, fields, {"p_free": 1})
        return base

    def _load_weights(self, tile: _Tile) -> None:
        base = self._replace("w", tile.weights, MemoryId.WEIGHT)
        if base is None:
            return
        kernel, word = self.layer.kernel[0] * self.layer.kernel[1], self.machine.columns
        words = tile.weights.blocks * kernel * tile.weights.words * self.machine.rows
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": word, "ext_base": self.image.weights[tile.weights],
            "ext_stride2": word, "local_base": base, "local_stride2": 1, "memory": MemoryId.WEIGHT,
        }  # fmt: skip
        waits = {"w_free": 1, **self.stream.after_results(weights=True)}
        self.stream.add("load", Opcode.LOAD, fields, waits, {"w_ready": 1})

    def _input_words(self, tile: _Tile) -> int:
        """Channel words of a pixel in the activation tile."""
        return tile.weights.words * (tile.weights.blocks if self.tiling.diagonal_blocks else 1)

    def _load_inputs(self, tile: _Tile) -> None:
        key = (tile.weights.word, self._input_words(tile), tile.image, tile.rows, tile.columns)
        base = self._replace("a", key, MemoryId.ACTIVATION)
        if base is None:
            return
        layer, place, rows = self.layer, self.image.input, self.machine.rows
        words = self._input_words(tile)
        height, width = input_extent(layer, tile.rows[1], 0), input_extent(layer, tile.columns[1], 1)
        y = tile.rows[0] * layer.strides[0] - layer.pads[0]
        x = tile.columns[0] * layer.strides[1] - layer.pads[1]
        top, left = place.halo[0], place.halo[1]
        origin = place.base + tile.image * place.image_bytes + (y + top) * self.image.row_bytes
        origin += (x + left) * layer.in_channels + tile.weights.word * rows
        tail = max(0, (tile.weights.word + words) * rows - layer.in_channels)
        parts = [(0, words - bool(tail), rows)] + ([(words - 1, 1, rows - tail)] if tail else [])
        parts = [part for part in parts if part[1]]
        for number, (word, count, run) in enumerate(parts):
            waits = {"a_free": 1, **self.stream.after_results(weights=False)} if number == 0 else {}
            signals = {"a_ready": 1} if number == len(parts) - 1 else {}
            fields = {
                "n0": height, "n1": width, "n2": count, "run_bytes": run, "ext_base": origin + word * rows,
                "ext_stride0": self.image.row_bytes, "ext_stride1": layer.in_channels, "ext_stride2": rows,
                "local_base": base + word, "local_stride0": width * words, "local_stride1": words, "local_stride2": 1,
                "memory": MemoryId.ACTIVATION,
            }  # fmt: skip
            self.stream.add("load", Opcode.LOAD, fields, waits, signals)

    # -- compute ---------------------------------------------------------------------------------------------

    def _matmul(self, tile: _Tile) -> None:
        layer, tiling = self.layer, self.tiling
        words = self._input_words(tile)
        width = input_extent(layer, tile.columns[1], 1)
        waits, signals = {}, {}
        for name in ("a", "w"):
            if self.loaded[name].fresh:
                waits[f"{name}_ready"] = 1
        if tile.first:
            waits["acc_free"] = 1
            self.accumulator = self.stream.buffer("acc", MemoryId.ACCUMULATOR)
        if tile.last:
            signals["acc_ready"] = 1
        fields = {
            "n_blocks": tile.weights.blocks, "n_rows": layer.kernel[0], "n_columns": layer.kernel[1],
            "n_channels": tile.weights.words, "height": tile.rows[1], "width": tile.columns[1],
            "a_base": self.loaded["a"].base, "w_base": self.loaded["w"].base, "acc_base": self.accumulator,
            "a_stride_n": tile.weights.words if tiling.diagonal_blocks else 0,
            "a_stride_r": layer.dilations[0] * width * words, "a_stride_s": layer.dilations[1] * words,
            "a_stride_y": layer.strides[0] * width * words, "a_stride_x": layer.strides[1] * words,
            "accumulate": not tile.first, "flags": DIAGONAL * tiling.diagonal + SPARSE * tiling.sparse,
        }  # fmt: skip
        draft = self.stream.add("matmul", Opcode.MATMUL, fields, waits, signals)
        for loaded in self.loaded.values():
            loaded.fresh, loaded.last = False, draft

    def _finish(self, tile: _Tile, parameters: int) -> Draft:
        """Requantize the accumulators, add the residual, store; the last STORE."""
        stream, machine = self.stream, self.machine
        outputs = tile.rows[1] * tile.columns[1]
        waits, signals = {"acc_ready": 1, "out_free": 1}, {"acc_free": 1, "out_ready": 1}
        out = stream.buffer("out", MemoryId.OUTPUT)
        residual = 0
        if self.image.residual is not None:
            residual = stream.buffer("res", MemoryId.RESIDUAL)
            self._move(tile, self.image.residual, residual, store=False)
            waits["res_ready"] = 1
            signals["res_free"] = 1
        fields = {
            "n_blocks": tile.weights.blocks, "rows_count": outputs, "acc_base": self.accumulator, "out_base": out,
            "res_base": residual,
            "param_base": parameters + tile.weights.block * (machine.columns // machine.vector_lanes),
            **self.image.vector_fields,
        }  # fmt: skip
        stream.add("vector", Opcode.VECTOR, fields, waits, signals)
        return self._move(tile, self.image.output, out, store=True)

    def _move(self, tile: _Tile, place: TensorPlacement, local: int, *, store: bool) -> Draft:
        """Store a tile of outputs, or load the residual's: whole blocks, then the ragged last one."""
        layer, columns = self.layer, self.machine.columns
        first, blocks = tile.weights.block, tile.weights.blocks
        left = layer.out_channels - (first + blocks - 1) * columns
        ragged = left < columns
        parts = [(0, blocks - ragged, columns)] + ([(blocks - 1, 1, left)] if ragged else [])
        parts = [part for part in parts if part[1]]
        # rows of a dense layer are images of one pixel
        row_bytes = place.row_bytes if layer.out_height > 1 and place.height > 1 else place.image_bytes
        origin = place.address(0, 0, first * columns, tile.image)
        origin += tile.rows[0] * row_bytes + tile.columns[0] * place.channels
        outputs = tile.rows[1] * tile.columns[1]
        draft: Draft | None = None
        for number, (block, count, run) in enumerate(parts):
            begins, ends = number == 0, number == len(parts) - 1
            waits = {"out_ready" if store else "res_free": 1} if begins else {}
            signals = {"out_free" if store else "res_ready": 1} if ends else {}
            fields = {
                "n0": count, "n1": tile.rows[1], "n2": tile.columns[1], "run_bytes": run,
                "ext_base": origin + block * columns, "ext_stride0": columns, "ext_stride1": row_bytes,
                "ext_stride2": place.channels, "local_base": local + block * outputs, "local_stride0": outputs,
                "local_stride1": tile.columns[1], "local_stride2": 1,
                **({} if store else {"memory": MemoryId.RESIDUAL}),
            }  # fmt: skip
            draft = self.stream.add(
                "store" if store else "load", Opcode.STORE if store else Opcode.LOAD, fields, waits, signals
            )
        assert draft is not None
        return draft
