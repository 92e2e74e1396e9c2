"""Fronts of the element unit: they walk a descriptor's groups of lanes, a read of each memory a cycle.

A group of ELEMENT takes as many slots as it reads words of its busiest memory: an operand whose memory another one
already reads in the slot waits for the next. A group of POOL takes a slot for each word of its window. In the group's
last slot it *fires*: its lanes compute once the words of that slot have come.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from dse.program.tile.isa import DESCRIPTOR_BYTES, Opcode
from dse.program.tile.isa_element import READS_DESTINATION, UNARY, Spread
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import ADDRESS_BITS

COUNT_BITS = 16
#: ELEMENT reads three words of a memory at most: both sources and the destination.
SLOTS = 3


class GroupCounter(wiring.Component):
    """Counts the groups of a descriptor: parts of a group, groups of a row, rows of a block, blocks.

    Parameters
    ----------
    groups
        Lane groups of a row.
    parts
        How often a group is taken when its lanes go into the destination in parts.

    Members
    -------
    load : In(1); step : In(1): the current (part of a) group is left
    divided : In(1): groups are taken `parts` times
    rows, blocks : In(16)
    group : Out(groups), part : Out(parts), one-hot
    row_ends, block_ends, last : Out(1): the current one is the last of its row, its block, the descriptor
    """

    def __init__(self, groups: int, parts: int) -> None:
        self.groups, self.parts = groups, parts
        super().__init__(
            {
                **{name: In(1) for name in ("load", "step", "divided")},
                "rows": In(COUNT_BITS),
                "blocks": In(COUNT_BITS),
                "group": Out(groups, init=1),
                "part": Out(parts, init=1),
                **{name: Out(1) for name in ("row_ends", "block_ends", "last")},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows_left, blocks_left = Signal(COUNT_BITS), Signal(COUNT_BITS)
        last_row, last_block, group_ends = Signal(), Signal(), Signal()
        m.d.comb += [
            group_ends.eq(self.part[-1] | ~self.divided),
            self.row_ends.eq(group_ends & self.group[-1]),
            self.block_ends.eq(self.row_ends & last_row),
            self.last.eq(self.block_ends & last_block),
        ]
        with m.If(self.load):
            m.d.sync += [self.group.eq(1), self.part.eq(1)]
            m.d.sync += [blocks_left.eq(self.blocks), last_block.eq(self.blocks == 1)]
        with m.Elif(self.step):
            with m.If(self.divided):
                m.d.sync += self.part.eq(self.part.rotate_left(1))
            with m.If(group_ends):
                m.d.sync += self.group.eq(self.group.rotate_left(1))
            with m.If(self.block_ends):
                m.d.sync += [blocks_left.eq(blocks_left - 1), last_block.eq(blocks_left == 2)]
        with m.If(self.load | (self.step & self.block_ends)):
            m.d.sync += [rows_left.eq(self.rows), last_row.eq(self.rows == 1)]
        with m.Elif(self.step & self.row_ends):
            m.d.sync += [rows_left.eq(rows_left - 1), last_row.eq(rows_left == 2)]
        return m


class SourceWalker(wiring.Component):
    """Word address of an operand of ELEMENT, by its spread.

    Members
    -------
    load : In(1), base : In(16); row_ends, block_ends : In(1): what ends with the group that is left in this cycle
    spread : In(2)
    addr : Out(16)
    """

    def __init__(self) -> None:
        super().__init__(
            {
                **{name: In(1) for name in ("load", "row_ends", "block_ends")},
                "base": In(ADDRESS_BITS),
                "spread": In(2),
                "addr": Out(ADDRESS_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full, row, block = (self.spread == item for item in (Spread.FULL, Spread.ROW, Spread.BLOCK))
        with m.If(self.load | (self.block_ends & row)):
            m.d.sync += self.addr.eq(self.base)
        with m.Elif((self.row_ends & (full | row)) | (self.block_ends & block)):
            m.d.sync += self.addr.eq(self.addr + 1)
        return m


class WindowWalker(wiring.Component):
    """Word addresses of POOL's windows: s fastest, then r; x, y and n move from row to row and block to block.

    Members
    -------
    load : In(1), base : In(16), descriptor : In(512)
    step : In(1): the current word is read in this cycle
    row_ends, block_ends : In(1): what ends with the current group
    begins, ends : Out(1): the current word is the first, the last of its window
    addr : Out(16)
    """

    _LEVELS = ("n", "y", "x", "r", "s")

    def __init__(self) -> None:
        super().__init__(
            {
                **{name: In(1) for name in ("load", "step", "row_ends", "block_ends")},
                "base": In(ADDRESS_BITS),
                "descriptor": In(8 * DESCRIPTOR_BYTES),
                "begins": Out(1),
                "ends": Out(1),
                "addr": Out(ADDRESS_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = {"y": "height", "x": "width", "r": "kernel_rows", "s": "kernel_columns"}
        field = {name: descriptor_field(self.descriptor, Opcode.POOL, name) for name in counts.values()}
        left = {name: Signal(COUNT_BITS, name=f"{name}_left") for name in counts}
        final = {name: Signal(name=f"{name}_final") for name in counts}
        m.d.comb += [final[name].eq(left[name] == 1) for name in counts]
        m.d.comb += [self.ends.eq(final["r"] & final["s"])]
        # where the current n, y, x and r begin; the level that moves is the innermost that is not at its end
        origins = [Signal(ADDRESS_BITS, name=f"origin_{name}") for name in self._LEVELS[:-1]] + [self.addr]
        strides = [descriptor_field(self.descriptor, Opcode.POOL, f"a_stride_{name}") for name in self._LEVELS]
        outer = Mux(self.block_ends, 0, Mux(final["x"], 1, 2))
        level = Mux(~final["s"], 4, Mux(~final["r"], 3, outer))
        again = self.ends & ~self.row_ends
        moved = Signal(ADDRESS_BITS)
        # the next group of a row has the same window
        m.d.comb += moved.eq(Mux(again, origins[2], Array(origins)[level] + Array(strides)[level]))
        leaves = Mux(again, 2, level)
        with m.If(self.load):
            m.d.sync += [origin.eq(self.base) for origin in origins]
            m.d.sync += [left[name].eq(field[counts[name]]) for name in counts]
            m.d.sync += self.begins.eq(1)
        with m.Elif(self.step):
            m.d.sync += self.begins.eq(self.ends)
            for index, origin in enumerate(origins):
                with m.If(leaves <= index):
                    m.d.sync += origin.eq(moved)
            self._count(m, left, final, {name: field[counts[name]] for name in counts})
        return m

    def _count(self, m: Module, left: dict[str, Signal], final: dict[str, Signal], size: dict[str, Value]) -> None:
        """A word is left: what it ends begins anew, what is around that goes on."""
        moves: Value = Const(1)
        for name in ("s", "r", "x", "y"):
            if name == "x":
                moves = moves & self.row_ends
            with m.If(moves):
                m.d.sync += left[name].eq(Mux(final[name], size[name], left[name] - 1))
            moves = moves & final[name]


def reads_slots(descriptor: Value) -> tuple[dict[str, Value], dict[str, Value], Value]:
    """Of an ELEMENT: by operand (a, b, dst) whether it is read, its slot, and the last slot of a group."""

    def field(name: str) -> Value:
        return descriptor_field(descriptor, Opcode.ELEMENT, name)

    function = field("function")
    used: dict[str, Value] = {"a": Const(1)}
    used["b"] = ~_among(function, UNARY)
    used["dst"] = _among(function, READS_DESTINATION)
    a, b, dst = (field(f"{name}_memory") for name in ("a", "b", "dst"))
    second = b == a
    third = (dst == a) + ((dst == b) & used["b"])
    slots: dict[str, Value] = {"a": Const(0, 2), "b": second, "dst": third}
    last = Mux(used["dst"] & (third > second), third, Mux(used["b"] & second, 1, Mux(used["dst"], third, 0)))
    return used, slots, last


def _among(value: Value, choices: tuple[Any, ...]) -> Value:
    found: Value = Const(0)
    for choice in choices:
        found = found | (value == choice)
    return found
