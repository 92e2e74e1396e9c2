"""What every part of a fused group's emitter shares: where it stands, which halves its tiles use, its loads.

Everything that the load engine does for a group, residuals left out, is here; the tiles are in `fusion_emit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accelerators.systolic.fusion import Buffer, GroupPlan
from accelerators.systolic.nodes import make_descriptor, sync_fields
from accelerators.systolic.reduction import direct_runs, gather_runs
from accelerators.systolic.stripes import Stripe, StripeRun
from accelerators.systolic.tiling import Segment, input_extent
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TensorPlacement


@dataclass(frozen=True)
class GroupImage:
    """Where a group finds its data in memory: per layer its weights and vector fields, one block of parameters.

    `zero_words` gives per layer the address of `rows` bytes of its input's zero point (0: no border).
    """

    input: TensorPlacement
    output: TensorPlacement
    residual: TensorPlacement | None
    weight_base: Sequence[int]
    parameter_base: int
    zero_words: Sequence[int]
    vector_fields: Sequence[Mapping[str, int]]


@dataclass
class Count:
    """Tiles seen so far, which give the ping-pong half of the next."""

    acc: int = 0
    w: int = 0
    out: int = 0


#: Block and row segments of a layer in a stripe.
Tiles = tuple[tuple[Segment, ...], tuple[Segment, ...]]


@dataclass(frozen=True)
class At:
    """Where the emitter stands: stripe run, stripe, level of the run's loop, tile segments and their levels."""

    run: StripeRun
    stripe: Stripe
    stripe_level: int | None
    n: Segment = field(default_factory=lambda: Segment(0, 1, 1, 0))
    n_level: int | None = None
    y: Segment = field(default_factory=lambda: Segment(0, 1, 1, 0))
    y_level: int | None = None


class GroupLoads:
    """Addresses and loads of a fused group under emission."""

    def __init__(self, plan: GroupPlan, machine: Machine, image: GroupImage, step_index: int) -> None:
        self.plan, self.machine, self.image, self.step_index = plan, machine, image, step_index
        self.columns = machine.columns
        self.seen = self.per_turn = Count()

    def make(self, op: Opcode, fields: Mapping[str, int]) -> Descriptor:
        return make_descriptor(op, fields, self.step_index)

    def half(self, name: str, at: At, base: int, y_total: int, per_stripe: int) -> dict[str, int]:
        """Phase and toggle of the tile numbered `base` + blocks * y_total + rows, `per_stripe` tiles a stripe."""
        phase, toggle = (base + at.n.first * y_total + at.y.first) & 1, 0
        for level, step in ((at.y_level, 1), (at.n_level, y_total), (at.stripe_level, per_stripe)):
            if level is not None and step % 2:
                toggle |= 1 << level
        return {f"{name}_phase": phase, f"{name}_toggle": toggle}

    def acc_half(self, at: At, tiles: Tiles) -> dict[str, int]:
        return self.half("acc", at, self.seen.acc, total_tiles(tiles[1]), self.per_turn.acc)

    def out_half(self, name: str, at: At, tiles: Tiles) -> dict[str, int]:
        return self.half(name, at, self.seen.out, total_tiles(tiles[1]), self.per_turn.out)

    def increments(self, name: str, at: At, n: int, y: int, stripe: int) -> dict[str, int]:
        """Loop increments of an operand that moves so far per tile of blocks, of rows, and per stripe."""
        steps = ((at.n_level, n), (at.y_level, y), (at.stripe_level, stripe))
        return {f"{name}_inc{level}": step for level, step in steps if level is not None and step}

    # -- loads -----------------------------------------------------------------------------------------------

    def load_parameters(self) -> Descriptor:
        """Bias and scale of all layers, which lie one behind the other."""
        last = self.plan.layers[-1]
        words = last.parameter_base + last.blocks * (self.columns // self.machine.vector_lanes)
        run = self.machine.word_bytes[MemoryId.PARAMETER]
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_base": self.image.parameter_base,
            "ext_stride2": run, "local_stride2": 1, "memory": MemoryId.PARAMETER,
        }  # fmt: skip
        return self.make(Opcode.LOAD, fields)

    def _fill(self, index: int, buffer: Buffer, first: int, rows: int, columns: int, extra: Mapping[str, int]
              ) -> Descriptor:  # fmt: skip
        """Zero points of a layer's input over a rectangle of its buffer, `first` words behind its base."""
        words = self.plan.layers[index].reduction.words
        fields = {
            "n0": rows, "n1": columns, "n2": words, "run_bytes": self.machine.rows,
            "ext_base": self.image.zero_words[index], "local_base": buffer.base + first,
            "local_stride0": buffer.pitch, "local_stride1": buffer.pixel_words, "local_stride2": 1,
            "memory": MemoryId.ACTIVATION, **extra,
        }  # fmt: skip
        return self.make(Opcode.LOAD, fields)

    def side_borders(self) -> list[Descriptor]:
        """Left and right columns of every buffer, written once: no layer writes them."""
        result = []
        for index, plan in enumerate(self.plan.layers[1:], start=1):
            buffer = plan.buffer
            right = buffer.width - buffer.left - buffer.map_width
            if buffer.left:
                result.append(self._fill(index, buffer, 0, buffer.rows, buffer.left, {}))
            if right:
                first = (buffer.left + buffer.map_width) * buffer.pixel_words
                result.append(self._fill(index, buffer, first, buffer.rows, right, {}))
        return result

    def row_borders(self, stripe: Stripe, sync: Mapping[str, int]) -> list[Descriptor]:
        """Rows above and below the maps in a stripe; the first descriptor carries `sync`."""
        result: list[Descriptor] = []
        for index, plan in enumerate(self.plan.layers[1:], start=1):
            rows, buffer = stripe.rows[index], plan.buffer
            end = input_extent(plan.layer, rows.count, 0)
            for first, count in ((0, rows.above), (end - rows.below, rows.below)):
                if count:
                    extra = {} if result else sync
                    start = buffer.window(stripe.region) - buffer.base + first * buffer.pitch
                    result.append(self._fill(index, buffer, start, count, buffer.width, extra))
        return result

    def load_weights(self, index: int, n: Segment | None, at: At) -> Descriptor:
        """All weights of a layer into their place, or one tile of them into a half."""
        run = self.machine.word_bytes[MemoryId.WEIGHT]
        plan = self.plan.layers[index]
        blocks, start = (plan.blocks, 0) if n is None else (n.size, n.start)
        words = blocks * plan.block_weight_words
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_stride2": run, "local_stride2": 1,
            "memory": MemoryId.WEIGHT,
            "ext_base": self.image.weight_base[index] + start * plan.block_weight_words * run,
        }  # fmt: skip
        if n is None:
            return self.make(
                Opcode.LOAD, {**fields, "local_base": plan.weight_base, **sync_fields({"signal w_ready": 1})}
            )
        fields |= self.increments("ext", at, words * run, 0, 0)
        fields |= self.half("local", at, self.seen.w, 1, self.per_turn.w)
        return self.make(Opcode.LOAD, {**fields, **sync_fields({"wait w_free": 1, "signal w_ready": 1})})

    def load_input(self, at: At, *, ready: bool) -> list[Descriptor]:
        """The rows of the group's input that a stripe needs; `ready`: nothing else is loaded before its first tile."""
        plan, place = self.plan.layers[0], self.image.input
        layer, buffer, rows = plan.layer, plan.buffer, at.stripe.rows[0]
        gather = plan.reduction.gather
        words = plan.reduction.words
        runs = (gather_runs if gather else direct_runs)(layer, self.machine.rows, 0, words)
        row_bytes = place.row_bytes
        height, width = rows.count, layer.out_width
        steps = (layer.strides[0] * row_bytes, layer.strides[1] * layer.in_channels)
        if not gather:
            height, width = input_extent(layer, height, 0), input_extent(layer, width, 1)
            steps = (row_bytes, layer.in_channels)
        origin = place.address(rows.window, -layer.pads[1])
        descriptors = []
        for i, run in enumerate(runs):
            sync = {"wait a_free": 1} if i == 0 else {}
            if ready and i == len(runs) - 1:
                sync["signal a_ready"] = 1
            fields = {
                "n0": height, "n1": width, "n2": run.words, "run_bytes": run.bytes, "byte_offset": run.byte_offset,
                "ext_base": origin + run.source + run.kernel_row * row_bytes,
                **self.increments("ext", at, 0, 0, at.run.input_step * row_bytes),
                "ext_stride0": steps[0], "ext_stride1": steps[1],
                "ext_stride2": run.source_step + run.row_step * row_bytes,
                "local_base": buffer.base + run.first,
                "local_stride0": buffer.pitch, "local_stride1": buffer.pixel_words, "local_stride2": 1,
                "memory": MemoryId.ACTIVATION, **sync_fields(sync),
            }  # fmt: skip
            descriptors.append(self.make(Opcode.LOAD, fields))
        return descriptors


def total_tiles(segments: Sequence[Segment]) -> int:
    return sum(segment.count for segment in segments)
