"""Queues of an op on maps: tiles through residual and output memory, loads and stores in the shadow of each other.

A word holds `columns` channels of a pixel. A tile is some blocks of channels, rows and columns of the output with the
windows under them; padding of a window is loaded from one word of constants. Tiles of all parts of an op are numbered
through: a tile's number gives its halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelerators.systolic.maps import MapLayer, reach, tile_sizes
from accelerators.systolic.nodes import Loop, Node, make_descriptor, queues, sync_fields
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import Function, Pool, Spread
from dse.program.tile.program import Machine, TensorPlacement


@dataclass(frozen=True)
class MapImage:
    """Where an op finds its data: placements, byte addresses of its tables (one a part) and of a word of padding.

    `looked_up` tells per part whether its values go through the part's table.
    """

    inputs: tuple[TensorPlacement, ...]
    output: TensorPlacement
    tables: int
    looked_up: tuple[bool, ...]
    padding: int


@dataclass(frozen=True)
class _Span:
    """`count` tiles along one axis, each `size` outputs: input from `low` on, `before` and `after` of it padding.

    `first` is the number of the first tile, `start` its first output.
    """

    first: int
    count: int
    size: int
    start: int
    low: int
    before: int = 0
    after: int = 0
    extent: int = 1


@dataclass(frozen=True)
class _At:
    """Where the emitter stands: a part, its spans (image, blocks, rows, columns) and the loop level of each."""

    part: int
    spans: tuple[_Span, _Span, _Span, _Span]
    levels: tuple[int | None, int | None, int | None, int | None]
    totals: tuple[int, int, int, int]
    seen: int


class MapEmitter:
    """Emits one op on maps; `emit()` is the only entry."""

    def __init__(self, item: MapLayer, machine: Machine, image: MapImage, step: int) -> None:
        self.item, self.machine, self.image, self.step = item, machine, image, step
        self.columns = machine.columns

    def emit(self) -> dict[str, tuple[Descriptor, ...]]:
        """Queues of the op, HALT included."""
        nodes: list[Node] = [
            ("vector", self._make(Opcode.SYNC, sync_fields({"signal res_free": 2}))),
            ("store", self._make(Opcode.SYNC, sync_fields({"signal out_free": 2}))),
        ]
        if any(self.image.looked_up):
            nodes.append(("load", self._load_tables()))
        seen = 0
        for part in range(len(self.item.channels) if self.item.what == "concat" else 1):
            axes = self._axes(part)
            totals = tuple(sum(span.count for span in axis) for axis in axes)
            assert len(totals) == 4
            nodes += self._nest(part, axes, (), (), totals, seen)
            seen += totals[0] * totals[1] * totals[2] * totals[3]
        return queues(nodes)

    # -- structure -------------------------------------------------------------------------------------------

    def _axes(self, part: int) -> tuple[list[_Span], ...]:
        item = self.item
        sizes = tile_sizes(item, item.channels[part], self.machine)
        assert sizes is not None
        n, y, x = sizes
        blocks, ragged = -(-item.channels[part] // self.columns), item.channels[part] % self.columns > 0
        return (
            [_Span(0, item.batch, 1, 0, 0)],
            _blocks(blocks, n, ragged),
            _windows(item, 0, item.out_height, y, item.height),
            _windows(item, 1, item.out_width, x, item.width),
        )

    def _nest(
        self,
        part: int,
        axes: Sequence[list[_Span]],
        spans: tuple[_Span, ...],
        levels: tuple[int | None, ...],
        totals: tuple[int, int, int, int],
        seen: int,
    ) -> list[Node]:
        depth = len(spans)
        if depth == 4:
            return self._tile(_At(part, spans, levels, totals, seen))  # type: ignore[arg-type]
        nodes: list[Node] = []
        level = sum(item is not None for item in levels)
        for span in axes[depth]:
            looped = span.count > 1
            body = self._nest(
                part, axes, (*spans, span), (*levels, level if looped else None), totals, seen
            )  # fmt: skip
            nodes += [Loop(span.count, tuple(body))] if looped else body
        return nodes

    def _tile(self, at: _At) -> list[Node]:
        loads = self._loads(at)
        nodes: list[Node] = []
        for number, fields in enumerate(loads):
            sync = {"wait res_free": 1} if number == 0 else {}
            if number == len(loads) - 1:
                sync["signal res_ready"] = 1
            nodes.append(("load", self._make(Opcode.LOAD, {**fields, **sync_fields(sync)})))
        ends = {"wait res_ready": 1, "wait out_free": 1, "signal res_free": 1, "signal out_ready": 1}
        op, fields = self._compute(at)
        nodes.append(("vector", self._make(op, {**fields, **sync_fields(ends)})))
        stores = self._stores(at)
        for number, fields in enumerate(stores):
            sync = {"wait out_ready": 1} if number == 0 else {}
            if number == len(stores) - 1:
                sync["signal out_free"] = 1
            nodes.append(("store", self._make(Opcode.STORE, {**fields, **sync_fields(sync)})))
        return nodes

    def _make(self, op: Opcode, fields: Mapping[str, int]) -> Descriptor:
        return make_descriptor(op, fields, self.step)

    def _half(self, name: str, at: _At) -> dict[str, int]:
        """Phase and toggle of the tile numbered `seen` + image, block, row and column tile in this order."""
        phase, toggle, stride = at.seen, 0, 1
        for span, level, total in zip(reversed(at.spans), reversed(at.levels), reversed(at.totals), strict=True):
            phase += span.first * stride
            if level is not None and stride % 2:
                toggle |= 1 << level
            stride *= total
        return {f"{name}_phase": phase & 1, f"{name}_toggle": toggle}

    # -- transfers -------------------------------------------------------------------------------------------

    def _load_tables(self) -> Descriptor:
        run = self.machine.word_bytes[MemoryId.TABLE]
        fields = {
            "n0": 1, "n1": 1, "n2": len(self.image.looked_up), "run_bytes": run, "ext_base": self.image.tables,
            "ext_stride2": run, "local_stride2": 1, "memory": MemoryId.TABLE,
        }  # fmt: skip
        return self._make(Opcode.LOAD, fields)

    def _runs(self, at: _At) -> list[tuple[int, int, int]]:
        """First block, blocks and bytes of a run: whole blocks, then the ragged one."""
        span = at.spans[1]
        tail = self.item.channels[at.part] - (span.start + span.size - 1) * self.columns
        ragged = span.count == 1 and tail < self.columns
        runs = [(0, span.size - ragged, self.columns)] + ([(span.size - 1, 1, tail)] if ragged else [])
        return [run for run in runs if run[1]]

    def _loads(self, at: _At) -> list[dict[str, int]]:
        item, result = self.item, []
        operands = [at.part] if item.what == "concat" else list(range(len(item.inputs)))
        base = 0
        for operand in operands:
            single = item.broadcast[operand]
            result += self._input(at, operand, base, single=single)
            rows, columns = (1, 1) if single else (at.spans[2].extent, at.spans[3].extent)
            base += at.spans[1].size * rows * columns
        return result

    def _input(self, at: _At, operand: int, base: int, *, single: bool) -> list[dict[str, int]]:
        """Loads of an operand's window, padding first."""
        image, blocks, y, x = at.spans
        place = self.image.inputs[operand]
        rows, columns = (1, 1) if single else (y.extent, x.extent)
        local = {"local_stride0": rows * columns, "local_stride1": columns, "local_stride2": 1,
                 "memory": MemoryId.RESIDUAL, **self._half("local", at)}  # fmt: skip
        loads = [
            {"n0": blocks.size, "n1": height, "n2": width, "run_bytes": self.columns, "ext_base": self.image.padding,
             "local_base": base + top * columns + left, **local}
            for top, left, height, width in ([] if single else _borders(y, x))
        ]  # fmt: skip
        top, left = (0, 0) if single else (y.before, x.before)
        height, width = (1, 1) if single else (y.extent - y.before - y.after, x.extent - x.before - x.after)
        origin = place.address(0 if single else y.low, 0 if single else x.low, 0, image.start)
        origin += blocks.start * self.columns
        steps = (place.image_bytes, blocks.size * self.columns,
                 0 if single else y.size * self.item.strides[0] * place.row_bytes,
                 0 if single else x.size * self.item.strides[1] * place.channels)  # fmt: skip
        for block, count, run in self._runs(at):
            loads.append({
                "n0": count, "n1": height, "n2": width, "run_bytes": run,
                "ext_base": origin + block * self.columns, **_increments(at, steps),
                "ext_stride0": self.columns, "ext_stride1": place.row_bytes, "ext_stride2": place.channels,
                "local_base": base + block * rows * columns + top * columns + left, **local,
            })  # fmt: skip
        return loads

    def _stores(self, at: _At) -> list[dict[str, int]]:
        image, blocks, y, x = at.spans
        place = self.image.output
        offset = sum(self.item.channels[: at.part]) + blocks.start * self.columns
        origin = place.address(y.start, x.start, offset, image.start)
        steps = (place.image_bytes, blocks.size * self.columns, y.size * place.row_bytes, x.size * place.channels)
        pixels = y.size * x.size
        return [
            {
                "n0": count, "n1": y.size, "n2": x.size, "run_bytes": run,
                "ext_base": origin + block * self.columns, **_increments(at, steps),
                "ext_stride0": self.columns, "ext_stride1": place.row_bytes, "ext_stride2": place.channels,
                "local_base": block * pixels, "local_stride0": pixels, "local_stride1": x.size, "local_stride2": 1,
                **self._half("local", at),
            }
            for block, count, run in self._runs(at)
        ]  # fmt: skip

    # -- arithmetic ------------------------------------------------------------------------------------------

    def _compute(self, at: _At) -> tuple[Opcode, dict[str, int]]:
        item, (_, blocks, y, x) = self.item, at.spans
        ends = {"a_memory": MemoryId.RESIDUAL, "dst_memory": MemoryId.OUTPUT, **self._half("a", at),
                **self._half("dst", at), **(item.fields or {})}  # fmt: skip
        if item.what in ("largest", "average"):
            return Opcode.POOL, {
                "n_blocks": blocks.size, "height": y.size, "width": x.size,
                "kernel_rows": item.kernel[0], "kernel_columns": item.kernel[1],
                "a_stride_n": y.extent * x.extent, "a_stride_r": x.extent, "a_stride_s": 1,
                "a_stride_y": item.strides[0] * x.extent, "a_stride_x": item.strides[1],
                "function": Pool.LARGEST if item.what == "largest" else Pool.AVERAGE, **ends,
            }  # fmt: skip
        shape = {"n_blocks": blocks.size, "rows_count": y.size * x.size, **ends}
        if item.what in ("table", "concat"):
            look_up = {"look_up": 1, "table_base": at.part} if self.image.looked_up[at.part] else {}
            return Opcode.ELEMENT, {"multiplier_a": 1, **shape, "function": Function.COPY, **look_up}
        spreads = [Spread.BLOCK if single else Spread.FULL for single in item.broadcast]
        second = blocks.size * (1 if item.broadcast[0] else y.size * x.size)
        return Opcode.ELEMENT, {
            "multiplier_a": 1, "multiplier_b": 1 if item.what == "add" else 0, **shape,
            "function": Function.ADD if item.what == "add" else Function.MUL,
            "a_spread": spreads[0], "b_spread": spreads[1], "b_memory": MemoryId.RESIDUAL, "b_base": second,
            **self._half("b", at),
        }  # fmt: skip


def _increments(at: _At, steps: Sequence[int]) -> dict[str, int]:
    return {f"ext_inc{level}": step for level, step in zip(at.levels, steps, strict=True) if level is not None and step}


def _blocks(total: int, size: int, ragged: bool) -> list[_Span]:
    """Spans over blocks of channels; a last tile that is smaller or ragged stands alone."""
    whole = total // size
    alone = ragged or total % size > 0
    last = -(-total // size) - 1
    spans = [_Span(0, last if alone else whole, size, 0, 0)] if (last if alone else whole) else []
    if alone:
        spans.append(_Span(last, 1, total - last * size, last * size, 0))
    return spans


def _windows(item: MapLayer, axis: int, outputs: int, size: int, extent: int) -> list[_Span]:
    """Spans over rows or columns of the output: equal tiles without padding together, the others alone."""
    stride, kernel = item.strides[axis], item.kernel[axis]
    pad = (item.top, item.left)[axis]
    spans: list[_Span] = []
    for number, start in enumerate(range(0, outputs, size)):
        count = min(size, outputs - start)
        low, high = start * stride - pad, (start + count - 1) * stride - pad + kernel
        span = _Span(number, 1, count, start, max(low, 0), max(0, -low), max(0, high - extent), high - low)
        last = spans[-1] if spans else None
        plain = span.before == span.after == 0
        if last is not None and plain and last.before == last.after == 0 and last.size == span.size:
            spans[-1] = _Span(last.first, last.count + 1, last.size, last.start, last.low, 0, 0, last.extent)
        else:
            spans.append(span)
    return spans


def _borders(y: _Span, x: _Span) -> list[tuple[int, int, int, int]]:
    """Rectangles of padding in a window: top, left, height, width; rows whole, columns between them."""
    inside = y.extent - y.before - y.after
    found = [
        (0, 0, y.before, x.extent),
        (y.extent - y.after, 0, y.after, x.extent),
        (y.before, 0, inside, x.before),
        (y.before, x.extent - x.after, inside, x.after),
    ]
    return [item for item in found if item[2] > 0 and item[3] > 0]


def padded(item: MapLayer) -> bool:
    """Whether some window reaches over the border of its map."""
    return bool(item.top or item.left or reach(item, 0) > item.height or reach(item, 1) > item.width)
