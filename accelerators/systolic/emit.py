"""From a layer and a tiling to descriptors: the tile loops as a tree, one queue per engine out of it.

Tiles of every operand alternate between the two halves of their memory; which half follows from the tile's running
number, whose parity is a function of the loop indices (`phase` and `toggle` of the descriptor).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from accelerators.systolic.layer import Layer
from accelerators.systolic.nodes import Loop, Node, make_descriptor, queues, sync_fields
from accelerators.systolic.reduction import block_channel_words, direct_runs, gather_runs
from accelerators.systolic.tiling import Segment, TileGrid, input_extent
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TensorPlacement


@dataclass(frozen=True)
class Position:
    """Where in a dimension the emitter stands: in a loop at `level` over a segment, or at a fixed tile."""

    level: int | None
    segment: Segment


@dataclass(frozen=True)
class LayerImage:
    """Where a layer finds its data in memory: placements and byte addresses.

    `weight_base[(n, k)]` is the address of the weights of the tile with those starts; consecutive tiles of a
    segment are `weight_words` x word bytes apart. `requant` holds the vector fields of the layer.
    """

    input: TensorPlacement
    output: TensorPlacement
    residual: TensorPlacement | None
    weight_base: Mapping[tuple[int, int], int]
    parameter_base: int
    vector_fields: Mapping[str, int] = field(default_factory=dict)


class LayerEmitter:
    """Emits the descriptors of one layer; `emit()` is the only entry."""

    def __init__(self, grid: TileGrid, machine: Machine, image: LayerImage, layer_index: int) -> None:
        self.grid, self.machine, self.image = grid, machine, image
        self.layer: Layer = grid.layer
        self.layer_index = layer_index
        self.order = grid.order
        self.fused_add = self.layer.residual is not None
        tiling = grid.tiling
        self.reduction = tiling.reduction
        self.columns = machine.columns

    def emit(self) -> dict[str, tuple[Descriptor, ...]]:
        """Queues of the layer, HALT included."""
        nodes: list[Node] = [*self._credits(), ("load", self._load_parameters())]
        nodes += self._loads_at(0, {})
        nodes += self._nest(0, {}, 0)
        return queues(nodes)

    # -- structure -------------------------------------------------------------------------------------------

    def _credits(self) -> list[Node]:
        """Empty buffers at the start: both halves of every memory are free."""
        grid = self.grid
        matmul = {"signal a_free": 2 * grid.reuse("a"), "signal w_free": 2 * grid.reuse("w")}
        vector = {"signal acc_free": 2} | ({"signal res_free": 2} if self.fused_add else {})
        return [
            ("matmul", self._make(Opcode.SYNC, sync_fields(matmul))),
            ("vector", self._make(Opcode.SYNC, sync_fields(vector))),
            ("store", self._make(Opcode.SYNC, sync_fields({"signal out_free": 2}))),
        ]

    def _nest(self, depth: int, at: dict[str, Position], level: int) -> list[Node]:
        if depth == len(self.order):
            return [("matmul", self._matmul(at))]
        dim = self.order[depth]
        nodes: list[Node] = []
        for segment in self.grid.segments[dim]:
            looped = segment.count > 1
            here = {**at, dim: Position(level if looped else None, segment)}
            body = self._loads_at(depth + 1, here) + self._nest(depth + 1, here, level + looped)
            if depth == len(self.order) - 2:
                body += self._finish(here)
            nodes += [Loop(segment.count, tuple(body))] if looped else body
        return nodes

    def _loads_at(self, depth: int, at: dict[str, Position]) -> list[Node]:
        nodes: list[Node] = []
        if self.grid.position("w") == depth:
            nodes.append(("load", self._load_weights(self._with_first(at))))
        if self.grid.position("a") == depth:
            nodes += [("load", descriptor) for descriptor in self._load_activations(self._with_first(at))]
        return nodes

    def _with_first(self, at: dict[str, Position]) -> dict[str, Position]:
        """Positions with every open dimension at its (only) first tile."""
        return {dim: at.get(dim, Position(None, self.grid.segments[dim][0])) for dim in self.order}

    def _finish(self, at: dict[str, Position]) -> list[Node]:
        nodes: list[Node] = []
        if self.fused_add:
            nodes += [("load", descriptor) for descriptor in self._move_output(at, store=False)]
        nodes.append(("vector", self._vector(at)))
        nodes += [("store", descriptor) for descriptor in self._move_output(at, store=True)]
        return nodes

    # -- addresses -------------------------------------------------------------------------------------------

    def _affine(self, name: str, base: int, at: Mapping[str, Position], steps: Mapping[str, int]) -> dict[str, int]:
        """base and inc fields of an operand that moves `steps[dim]` per tile of a dimension."""
        fields = {f"{name}_base": base}
        for dim, step in steps.items():
            position = at[dim]
            if position.level is not None and step:
                fields[f"{name}_inc{position.level}"] = step
        return fields

    def _half(self, name: str, at: Mapping[str, Position], dims: Sequence[str]) -> dict[str, int]:
        """phase and toggle of the tile numbered over `dims` (outermost first)."""
        phase = toggle = 0
        for i, dim in enumerate(dims):
            stride = math.prod(self.grid.totals[inner] for inner in dims[i + 1 :])
            if stride % 2 == 0:
                continue
            position = at[dim]
            phase ^= position.segment.first & 1
            if position.level is not None:
                toggle |= 1 << position.level
        return {f"{name}_phase": phase, f"{name}_toggle": toggle}

    def _operand_half(self, name: str, operand: str, at: Mapping[str, Position]) -> dict[str, int]:
        return self._half(name, at, self.order[: self.grid.position(operand)])

    def _output_half(self, name: str, at: Mapping[str, Position]) -> dict[str, int]:
        return self._half(name, at, self.order[:-1])

    def _make(self, op: Opcode, fields: Mapping[str, int]) -> Descriptor:
        return make_descriptor(op, fields, self.layer_index)

    # -- descriptors -----------------------------------------------------------------------------------------

    def _load_parameters(self) -> Descriptor:
        blocks = -(-self.layer.out_channels // self.columns)
        words = blocks * (self.columns // self.machine.vector_lanes)
        run = self.machine.word_bytes[MemoryId.PARAMETER]
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_base": self.image.parameter_base,
            "ext_stride2": run, "local_stride2": 1, "memory": MemoryId.PARAMETER,
        }  # fmt: skip
        return self._make(Opcode.LOAD, fields)

    def _fold_words(self, at: Mapping[str, Position]) -> int:
        """Activation words that a matmul of this tile reduces over, per kernel position."""
        if self.grid.grouped:
            return block_channel_words(self.layer, at["n"].segment.start, self.machine.rows, self.columns)[1]
        return at["k"].segment.size

    def _weight_words(self, at: Mapping[str, Position]) -> int:
        kernel = self.reduction.kernel[0] * self.reduction.kernel[1]
        return at["n"].segment.size * kernel * self._fold_words(at) * self.machine.rows

    def _load_weights(self, at: Mapping[str, Position]) -> Descriptor:
        run = self.machine.word_bytes[MemoryId.WEIGHT]
        words = self._weight_words(at)
        base = self.image.weight_base[at["n"].segment.start, at["k"].segment.start]
        kernel = self.reduction.kernel[0] * self.reduction.kernel[1]
        total_k = self.reduction.words
        n_step = at["n"].segment.size * kernel * total_k * self.machine.rows * run
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_stride2": run, "local_stride2": 1,
            "memory": MemoryId.WEIGHT,
            **self._affine("ext", base, at, {"n": n_step, "k": words * run}),
            **self._operand_half("local", "w", at),
            **sync_fields({"wait w_free": self.grid.reuse("w"), "signal w_ready": self.grid.reuse("w")}),
        }  # fmt: skip
        return self._make(Opcode.LOAD, fields)

    def _load_activations(self, at: Mapping[str, Position]) -> list[Descriptor]:
        layer, rows, place = self.layer, self.machine.rows, self.image.input
        y, x, k = at["y"].segment, at["x"].segment, at["k"].segment
        gather = self.reduction.gather
        first = k.start
        if self.grid.grouped:
            first = block_channel_words(layer, at["n"].segment.start, rows, self.columns)[0]
        words = self._fold_words(at)
        runs = (gather_runs if gather else direct_runs)(layer, rows, first, words)
        row_step = self._row_step(place, layer.in_channels)
        origin = self._pixel(place, y.start * layer.strides[0] - layer.pads[0],
                             x.start * layer.strides[1] - layer.pads[1], at["b"].segment.start)  # fmt: skip
        steps = {
            "b": place.image_bytes,
            "y": y.size * layer.strides[0] * row_step,
            "x": x.size * layer.strides[1] * layer.in_channels,
            "k": 0 if gather or self.grid.grouped else words * rows,
        }
        if gather:
            height, width = y.size, x.size
            pixel_steps = (layer.strides[0] * row_step, layer.strides[1] * layer.in_channels)
        else:
            height, width = input_extent(layer, y.size, 0), input_extent(layer, x.size, 1)
            pixel_steps = (row_step, layer.in_channels)
        descriptors = []
        for i, run in enumerate(runs):
            base = origin + run.source + run.kernel_row * row_step
            sync = {"wait a_free": self.grid.reuse("a")} if i == 0 else {}
            if i == len(runs) - 1:
                sync["signal a_ready"] = self.grid.reuse("a")
            fields = {
                "n0": height, "n1": width, "n2": run.words, "run_bytes": run.bytes, "byte_offset": run.byte_offset,
                "ext_stride0": pixel_steps[0], "ext_stride1": pixel_steps[1],
                "ext_stride2": run.source_step + run.row_step * row_step,
                "local_stride0": width * words, "local_stride1": words, "local_stride2": 1,
                "memory": MemoryId.ACTIVATION,
                **self._affine("ext", base, at, steps),
                **self._operand_half("local", "a", at),
                **sync_fields(sync),
            }  # fmt: skip
            fields["local_base"] = run.first
            descriptors.append(self._make(Opcode.LOAD, fields))
        return descriptors

    def _pixel(self, place: TensorPlacement, y: int, x: int, image: int) -> int:
        """Address of a pixel; rows of a dense layer are images of the placement."""
        if self.layer.image_step:
            channels = self.layer.out_channels if place is self.image.output else self.layer.in_channels
            return place.address() + y * self._row_step(place, channels)
        return place.address(y, x, 0, image)

    def _row_step(self, place: TensorPlacement, channels: int) -> int:
        """Bytes from an image row to the next; rows of a dense layer that a reshape made lie without gaps."""
        if not self.layer.image_step:
            return place.row_bytes
        return place.image_bytes if place.channels == channels else channels

    def _matmul(self, at: Mapping[str, Position]) -> Descriptor:
        layer = self.layer
        n, y, x, k = (at[dim].segment for dim in ("n", "y", "x", "k"))
        words = self._fold_words(at)
        if self.reduction.gather:
            width = x.size
            strides = {"y": width * words, "x": words, "r": 0, "s": 0}
        else:
            width = input_extent(layer, x.size, 1)
            strides = {
                "y": layer.strides[0] * width * words,
                "x": layer.strides[1] * words,
                "r": layer.dilations[0] * width * words,
                "s": layer.dilations[1] * words,
            }
        last_k = k.first + k.count == self.grid.totals["k"] and k.count == 1
        first_k = k.first == 0
        sync = {"wait a_ready": 1, "wait w_ready": 1}
        if first_k:
            sync["wait acc_free"] = 1
        sync |= {"signal a_free": 1, "signal w_free": 1}
        if last_k:
            sync["signal acc_ready"] = 1
        fields = {
            "n_blocks": n.size, "n_rows": self.reduction.kernel[0], "n_columns": self.reduction.kernel[1],
            "n_channels": words, "height": y.size, "width": x.size,
            **{f"a_stride_{dim}": step for dim, step in strides.items()},
            **self._operand_half("a", "a", at),
            **self._operand_half("w", "w", at),
            **self._output_half("acc", at),
            "accumulate": 0 if first_k else 1,
            **sync_fields(sync),
        }  # fmt: skip
        return self._make(Opcode.MATMUL, fields)

    def _vector(self, at: Mapping[str, Position]) -> Descriptor:
        n, y, x = (at[dim].segment for dim in ("n", "y", "x"))
        per_block = self.columns // self.machine.vector_lanes
        sync = {"wait acc_ready": 1, "wait out_free": 1}
        if self.fused_add:
            sync["wait res_ready"] = 1
        sync |= {"signal acc_free": 1, "signal out_ready": 1}
        if self.fused_add:
            sync["signal res_free"] = 1
        fields = {
            "n_blocks": n.size, "rows_count": y.size * x.size,
            **self._output_half("acc", at),
            **self._output_half("out", at),
            **(self._output_half("res", at) if self.fused_add else {}),
            **self._affine("param", n.start * per_block, at, {"n": n.size * per_block}),
            **self.image.vector_fields,
            **sync_fields(sync),
        }  # fmt: skip
        return self._make(Opcode.VECTOR, fields)

    def _move_output(self, at: Mapping[str, Position], *, store: bool) -> list[Descriptor]:
        """Store the output tile, or load the residual tile: full channel blocks, then the ragged last one."""
        place = self.image.output if store else self.image.residual
        assert place is not None
        layer, columns = self.layer, self.columns
        n, y, x = (at[dim].segment for dim in ("n", "y", "x"))
        row_step = self._row_step(place, layer.out_channels)
        tail = layer.out_channels - (n.start + n.size - 1) * columns
        # only the tile that ends at the last block can be ragged, and it is a segment of its own
        ragged = n.count == 1 and tail < columns
        parts = [(0, n.size - ragged, columns)] + ([(n.size - 1, 1, tail)] if ragged else [])
        parts = [part for part in parts if part[1] > 0]
        origin = self._pixel(place, y.start, x.start, at["b"].segment.start) + n.start * columns
        steps = {
            "n": n.size * columns,
            "b": place.image_bytes,
            "y": y.size * row_step,
            "x": x.size * place.channels,
        }
        ready, free = ("out_ready", "out_free") if store else ("res_free", "res_ready")
        half = self._output_half("local", at)
        descriptors = []
        for i, (block, count, run) in enumerate(parts):
            sync = {f"wait {ready}": 1} if i == 0 else {}
            if i == len(parts) - 1:
                sync[f"signal {free}"] = 1
            fields = {
                "n0": count, "n1": y.size, "n2": x.size, "run_bytes": run,
                "ext_stride0": columns, "ext_stride1": row_step, "ext_stride2": place.channels,
                "local_stride0": y.size * x.size, "local_stride1": x.size, "local_stride2": 1,
                **self._affine("ext", origin + block * columns, at, steps),
                **half,
                **sync_fields(sync),
            }  # fmt: skip
            fields["local_base"] = block * y.size * x.size
            if not store:
                fields["memory"] = MemoryId.RESIDUAL
            descriptors.append(self._make(Opcode.STORE if store else Opcode.LOAD, fields))
        return descriptors


EmitterFactory = Callable[[TileGrid, Machine, LayerImage, int], LayerEmitter]
