"""From a fused group's plan to descriptors: stripe by stripe, layer by layer, tile by tile.

Order inside a stripe: every layer runs over blocks (outer) and rows (inner). Accumulators, weights in transit, output
and residual alternate between halves of their memories over all tiles of the group; activation regions do not, the
order of the matmul engine keeps them apart. The input of the next stripe comes when the last result of this one is
forwarded: the scratchpad has one write port a half. What a layer waits for is as little as its inputs need: a
depthwise layer for the block it reads, a 1 x 1 layer for the rows it reads, any other for the whole layer before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from accelerators.systolic.fusion import LayerPlan
from accelerators.systolic.fusion_loads import At, Count, GroupLoads, Tiles, total_tiles
from accelerators.systolic.nodes import Loop, Node, queues, sync_fields
from accelerators.systolic.stripes import Stripe, StripeRun
from accelerators.systolic.tiling import split
from dse.program.tile.isa import Descriptor, MemoryId, Opcode


class GroupEmitter(GroupLoads):
    """Emits the descriptors of one fused group; `emit()` is the only entry."""

    def emit(self) -> dict[str, tuple[Descriptor, ...]]:
        """Queues of the group, HALT included."""
        nodes: list[Node] = [*self._credits(), ("load", self.load_parameters())]
        nodes += [("load", d) for d in self.side_borders()]
        first = self.plan.runs[0]
        nodes += [("load", d) for d in self.row_borders(first.stripes[0], {})]
        for run in self.plan.runs:
            nodes += self._run(run)
        return queues(nodes)

    # -- structure -------------------------------------------------------------------------------------------

    def _credits(self) -> list[Node]:
        vector = {"signal acc_free": 2, "signal a_free": 1} | ({"signal res_free": 2} if self.image.residual else {})
        weights = [] if self.plan.resident else [("matmul", self.make(Opcode.SYNC, sync_fields({"signal w_free": 2})))]
        return [
            *weights,
            ("vector", self.make(Opcode.SYNC, sync_fields(vector))),
            ("store", self.make(Opcode.SYNC, sync_fields({"signal out_free": 2}))),
        ]

    def _run(self, run: StripeRun) -> list[Node]:
        """All stripes of a run: a LOOP over its repetitions, or a single one."""
        tiles = [
            [self._tiles(plan, run, stripe, i) for i, plan in enumerate(self.plan.layers)] for stripe in run.stripes
        ]
        counts = [[total_tiles(blocks) * total_tiles(rows) for blocks, rows in layers] for layers in tiles]
        streamed = 0 if self.plan.resident else sum(total_tiles(blocks) for layers in tiles for blocks, _ in layers)
        self.per_turn = Count(sum(map(sum, counts)), streamed, sum(layers[-1] for layers in counts))
        start, turn = Count(self.seen.acc, self.seen.w, self.seen.out), self.per_turn
        body: list[Node] = []
        for stripe, layers in zip(run.stripes, tiles, strict=True):
            body += self._stripe(At(run, stripe, 0 if run.count > 1 else None), layers)
        self.seen = Count(
            start.acc + run.count * turn.acc, start.w + run.count * turn.w, start.out + run.count * turn.out
        )
        return [Loop(run.count, tuple(body))] if run.count > 1 else body

    def _stripe(self, at: At, tiles: Sequence[Tiles]) -> list[Node]:
        """One stripe, with the border rows and the weights that come with it."""
        first = at.run.first == 0
        bordered = not first and at.stripe.bordered
        arriving = first and self.plan.resident
        nodes: list[Node] = []
        if bordered:
            nodes.append(("matmul", self.make(Opcode.SYNC, sync_fields({"signal fill_free": 1}))))
        nodes += [("load", self.load_weights(0, None, at))] if arriving else []
        nodes += [("load", d) for d in self.load_input(at, ready=not bordered)]
        if bordered:
            nodes += [("load", d) for d in self.row_borders(at.stripe, sync_fields({"wait fill_free": 1}))]
            nodes.append(("load", self.make(Opcode.SYNC, sync_fields({"signal a_ready": 1}))))
        for index in range(len(self.plan.layers)):
            if index and arriving:
                nodes.append(("load", self.load_weights(index, None, at)))
            nodes += self._layer(index, at, tiles[index])
        return nodes

    def _tiles(self, plan: LayerPlan, run: StripeRun, stripe: Stripe, index: int) -> Tiles:
        """Block and row segments of a layer; first and last stand alone where something is awaited or signalled."""
        last = index == len(self.plan.layers) - 1
        ragged = last and plan.layer.out_channels % self.columns != 0
        awaits = "" if index == 0 else self._edge(index)
        gives = "" if last else self._edge(index + 1)
        # in the first stripe the first tile waits for the weights too
        arriving = run.first == 0 and self.plan.resident
        n_first = index == 0 or arriving or awaits in ("rows", "all")
        # the last tile that is forwarded in a stripe lets the next stripe's input come
        final = index == len(self.plan.layers) - 2
        n_last = ragged or final or gives in ("rows", "all")
        y_first = index == 0 or arriving or awaits in ("blocks", "all") or not self.plan.resident
        y_last = final or gives in ("blocks", "all") or not self.plan.resident or self._handed(stripe, index) > 0
        blocks = split(plan.blocks, plan.n, peel_first=n_first, peel_last=n_last)
        return blocks, split(stripe.rows[index].count, plan.y, peel_first=y_first, peel_last=y_last)

    def _handed(self, stripe: Stripe, index: int) -> int:
        """Rows of a layer that the vector unit writes a second time, for the next stripe."""
        if index == len(self.plan.layers) - 1 or stripe.region == 0 or not stripe.followed:
            return 0
        return self.plan.layers[index + 1].buffer.kept

    def _edge(self, index: int) -> str:
        """What tiles of a layer wait for: "blocks" or "rows" of the layer before it, or "all" of it."""
        producer, consumer = self.plan.layers[index - 1], self.plan.layers[index]
        layer, rows, columns = consumer.layer, self.machine.rows, self.columns
        if layer.groups > 1 and producer.n == consumer.n and consumer.a_step * rows == columns:
            inside = consumer.a_first == 0 and consumer.words * rows <= columns
            if inside:
                return "blocks"
        same = layer.kernel[0] == 1 and layer.strides[0] == 1 and layer.pads[0] == layer.pads[2] == 0
        if same and layer.groups == 1 and producer.y == consumer.y:
            return "rows"
        return "all"

    def _layer(self, index: int, at: At, tiles: Tiles) -> list[Node]:
        """The tile loops of one layer in one stripe."""
        plan = self.plan.layers[index]
        blocks, rows = tiles
        nodes: list[Node] = []
        level = 0 if at.stripe_level is None else 1
        for n in blocks:
            n_level = level if n.count > 1 else None
            inner: list[Node] = []
            if not self.plan.resident:
                inner.append(("load", self.load_weights(index, n, At(at.run, at.stripe, at.stripe_level, n, n_level))))
            for y in rows:
                y_level = level + (n.count > 1) if y.count > 1 else None
                here = At(at.run, at.stripe, at.stripe_level, n, n_level, y, y_level)
                body = self._tile(index, plan, here, tiles)
                inner += [Loop(y.count, tuple(body))] if y.count > 1 else body
            nodes += [Loop(n.count, tuple(inner))] if n.count > 1 else inner
        total_n, total_y = total_tiles(blocks), total_tiles(rows)
        self.seen.acc += total_n * total_y
        self.seen.w += 0 if self.plan.resident else total_n
        if index == len(self.plan.layers) - 1:
            self.seen.out += total_n * total_y
        return nodes

    def _tile(self, index: int, plan: LayerPlan, at: At, tiles: Tiles) -> list[Node]:
        nodes: list[Node] = [("matmul", self._matmul(index, plan, at, tiles))]
        if index < len(self.plan.layers) - 1:
            return nodes + [("vector", d) for d in self._forwards(index, plan, at, tiles)]
        if self.image.residual is not None:
            nodes += [("load", d) for d in self._move(plan, at, tiles, store=False)]
        nodes.append(("vector", self._vector(plan, at, tiles)))
        return nodes + [("store", d) for d in self._move(plan, at, tiles, store=True)]

    # -- compute ---------------------------------------------------------------------------------------------

    def _matmul(self, index: int, plan: LayerPlan, at: At, tiles: Tiles) -> Descriptor:
        layer, buffer = plan.layer, plan.buffer
        pitch, pixel = buffer.pitch, buffer.pixel_words
        step = (1, 1) if plan.reduction.gather else layer.strides
        per_block = plan.block_weight_words
        first = buffer.window(at.stripe.region) + plan.a_first
        fields = {
            "n_blocks": at.n.size, "n_rows": plan.reduction.kernel[0], "n_columns": plan.reduction.kernel[1],
            "n_channels": plan.words, "height": at.y.size, "width": layer.out_width,
            "a_stride_n": plan.a_step, "a_stride_y": step[0] * pitch, "a_stride_x": step[1] * pixel,
            "a_stride_r": layer.dilations[0] * pitch, "a_stride_s": layer.dilations[1] * pixel,
            "a_base": first + at.y.start * step[0] * pitch + at.n.start * plan.a_step,
            **self.increments("a", at, at.n.size * plan.a_step, at.y.size * step[0] * pitch, 0),
            **self.acc_half(at, tiles),
            **sync_fields(self._matmul_sync(index, at, tiles)),
        }  # fmt: skip
        if self.plan.resident:
            fields["w_base"] = plan.weight_base + at.n.start * per_block
            fields |= self.increments("w", at, at.n.size * per_block, 0, 0)
        else:
            weights = At(at.run, at.stripe, at.stripe_level, at.n, at.n_level)
            fields |= self.half("w", weights, self.seen.w, 1, self.per_turn.w)
        return self.make(Opcode.MATMUL, fields)

    def _matmul_sync(self, index: int, at: At, tiles: Tiles) -> dict[str, int]:
        first_n, first_y = at.n.first == 0, at.y.first == 0
        last_y = at.y.first + at.y.count == total_tiles(tiles[1])
        edge = "" if index == 0 else self._edge(index)
        sync = {"wait acc_free": 1}
        if index == 0 and first_n and first_y:
            sync["wait a_ready"] = 1
        if (edge == "blocks" and first_y) or (edge == "rows" and first_n) or (edge == "all" and first_n and first_y):
            sync["wait mid_ready"] = 1
        if first_y and (not self.plan.resident or (first_n and at.run.first == 0)):
            sync["wait w_ready"] = 1
        sync["signal acc_ready"] = 1
        if last_y and not self.plan.resident:
            sync["signal w_free"] = 1
        return sync

    def _forwards(self, index: int, plan: LayerPlan, at: At, tiles: Tiles) -> list[Descriptor]:
        """A tile into the next layer's buffer, and the rows the next stripe keeps into their second place."""
        target = self.plan.layers[index + 1].buffer
        begin = at.stripe.rows[index + 1].low_of_input(at.stripe.rows[index])
        last_n, last_y = (s.first + s.count == total_tiles(t) for s, t in ((at.n, tiles[0]), (at.y, tiles[1])))
        edge = self._edge(index + 1)
        final = index == len(self.plan.layers) - 2 and last_n and last_y
        gives = (edge == "blocks" and last_y) or (edge == "rows" and last_n) or (edge == "all" and last_n and last_y)
        row = target.window(at.stripe.region) + (begin + at.y.start) * target.pitch
        handed = self._handed(at.stripe, index) if last_y else 0
        width = plan.layer.out_width
        # a copy reads its rows out of each block of the tile on its own
        parts = [(0, at.n.size, 0, at.y.size, row)]
        parts += [(block, 1, at.y.size - handed, handed, target.base) for block in range(at.n.size) if handed]
        result = []
        for i, (block, count, first, height, words) in enumerate(parts):
            sync = {"wait acc_ready": 1} if i == 0 else {}
            if i == len(parts) - 1:
                sync |= {"signal acc_free": 1} | ({"signal mid_ready": 1} if gives else {})
                sync |= {"signal a_free": 1} if final else {}
            channel = (at.n.start + block) * self.columns // self.machine.rows
            per_tile = at.n.size * self.columns // self.machine.rows
            fields = {
                "n_blocks": count, "height": height, "width": width,
                "acc_base": (block * at.y.size + first) * width, **self.acc_half(at, tiles),
                "out_base": words + target.left * target.pixel_words + channel,
                **self.increments("out", at, per_tile, at.y.size * target.pitch, 0),
                "out_stride_y": target.pitch, "out_stride_x": target.pixel_words,
                **self._parameters(plan, at, block),
                **self.image.vector_fields[index], **sync_fields(sync),
            }  # fmt: skip
            result.append(self.make(Opcode.FORWARD, fields))
        return result

    def _parameters(self, plan: LayerPlan, at: At, block: int = 0) -> dict[str, int]:
        per_block = self.columns // self.machine.vector_lanes
        base = plan.parameter_base + (at.n.start + block) * per_block
        return {"param_base": base, **self.increments("param", at, at.n.size * per_block, 0, 0)}

    def _vector(self, plan: LayerPlan, at: At, tiles: Tiles) -> Descriptor:
        add = self.image.residual is not None
        sync = {"wait acc_ready": 1, "wait out_free": 1, "signal acc_free": 1, "signal out_ready": 1}
        if add:
            sync |= {"wait res_ready": 1, "signal res_free": 1}
        fields = {
            "n_blocks": at.n.size, "rows_count": at.y.size * plan.layer.out_width,
            **self.acc_half(at, tiles),
            **self.out_half("out", at, tiles),
            **(self.out_half("res", at, tiles) if add else {}),
            **self._parameters(plan, at),
            **self.image.vector_fields[-1],
            **sync_fields(sync),
        }  # fmt: skip
        return self.make(Opcode.VECTOR, fields)

    def _move(self, plan: LayerPlan, at: At, tiles: Tiles, *, store: bool) -> list[Descriptor]:
        """Store an output tile or load its residual: full channel blocks, then the ragged last one."""
        place = self.image.output if store else self.image.residual
        assert place is not None
        layer, columns, pixels = plan.layer, self.columns, at.y.size * plan.layer.out_width
        tail = layer.out_channels - (at.n.start + at.n.size - 1) * columns
        ragged = at.n.count == 1 and tail < columns
        parts = [(0, at.n.size - ragged, columns)] + ([(at.n.size - 1, 1, tail)] if ragged else [])
        parts = [part for part in parts if part[1] > 0]
        origin = place.address(at.stripe.rows[-1].low + at.y.start, 0) + at.n.start * columns
        ready, free = ("out_ready", "out_free") if store else ("res_free", "res_ready")
        row = place.row_bytes
        descriptors = []
        for i, (block, count, run) in enumerate(parts):
            sync = {f"wait {ready}": 1} if i == 0 else {}
            if i == len(parts) - 1:
                sync[f"signal {free}"] = 1
            fields = {
                "n0": count, "n1": at.y.size, "n2": layer.out_width, "run_bytes": run,
                "ext_stride0": columns, "ext_stride1": row, "ext_stride2": place.channels,
                "local_stride0": pixels, "local_stride1": layer.out_width, "local_stride2": 1,
                "ext_base": origin + block * columns,
                **self.increments("ext", at, at.n.size * columns, at.y.size * row, at.run.output_step * row),
                **self.out_half("local", at, tiles),
                "local_base": block * pixels,
                **sync_fields(sync),
                **({} if store else {"memory": MemoryId.RESIDUAL}),
            }  # fmt: skip
            descriptors.append(self.make(Opcode.STORE if store else Opcode.LOAD, fields))
        return descriptors
