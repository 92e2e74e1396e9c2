"""Vector engine: accumulator rows to int8 words, one group of lanes a cycle, never stalling.

A VECTOR descriptor walks rows in order, so all its addresses are counters. Walkers stand along the pipeline: the
front reads accumulators and parameters, the middle reads residuals just before the requantized value meets them, the
back writes, VECTOR into the output buffer and FORWARD into the activation scratchpad. Only a valid bit travels with
the data and steps the walkers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import PARAMETER_BYTES, MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.program.tile.timing_element import written_lanes
from dse.rtl.activation_walker import COUNT_BITS, ActivationWalker
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import ADDRESS_BITS, READ_LATENCY, EngineControl, ReadPort, WritePort
from dse.rtl.requantize import AddQ31, RequantizeLane, RequantizeOrt, RequantizeQ31, delay

_PARAMETER_BITS = 8 * PARAMETER_BYTES

_LANES: dict[str, type[RequantizeLane]] = {"q31": RequantizeQ31, "ort": RequantizeOrt}


_INT8_BITS, _INT16_BITS = 8, 16
#: The opcode stands in the lowest bits.
OPCODE_BITS = 4


def _field(descriptor: Any, name: str) -> Any:
    return descriptor_field(descriptor, Opcode.VECTOR, name)


def delayed_strobe(m: Module, strobe: Any, cycles: int, name: str) -> Any:
    """`strobe` as it was `cycles` (>= 1) cycles ago, through registers with reset: at power-up nothing is in flight."""
    line = Signal(cycles, name=f"{name}_line")
    m.d.sync += line.eq(Cat(strobe, line))
    return line[-1]


class RowWalker(wiring.Component):
    """Word address and lane group in turn: every `step` moves to the next group, behind the last to the next row.

    Parameters
    ----------
    groups
        Lane groups of a row; >= 1.

    Members
    -------
    load : In(1), base : In(16): set the address, group 0
    step : In(1): the current group is used in this cycle
    addr : Out(16), group : Out(groups), one-hot
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        super().__init__(
            {
                "load": wiring.In(1),
                "base": wiring.In(ADDRESS_BITS),
                "step": wiring.In(1),
                "addr": Out(ADDRESS_BITS),
                "group": Out(groups, init=1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.load):
            m.d.sync += [self.addr.eq(self.base), self.group.eq(1)]
        with m.Elif(self.step):
            m.d.sync += self.group.eq(self.group.rotate_left(1))
            with m.If(self.group[-1]):
                m.d.sync += self.addr.eq(self.addr + 1)
        return m


class RowCounter(wiring.Component):
    """Counts the rows of a block, `pixels` in each of `lines`.

    Members
    -------
    load : In(1): begin a block; step : In(1): the current row ends, unless `load`
    pixels, lines : In(16), >= 1
    last : Out(1): the current row is the last of the block
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "load": wiring.In(1),
                "step": wiring.In(1),
                "pixels": wiring.In(COUNT_BITS),
                "lines": wiring.In(COUNT_BITS),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pixels_left, lines_left = Signal(COUNT_BITS), Signal(COUNT_BITS)
        last_pixel, last_line = Signal(), Signal()
        m.d.comb += self.last.eq(last_pixel & last_line)
        with m.If(self.load | (self.step & last_pixel)):
            m.d.sync += [pixels_left.eq(self.pixels), last_pixel.eq(self.pixels == 1)]
        with m.Elif(self.step):
            m.d.sync += [pixels_left.eq(pixels_left - 1), last_pixel.eq(pixels_left == 2)]
        with m.If(self.load):
            m.d.sync += [lines_left.eq(self.lines), last_line.eq(self.lines == 1)]
        with m.Elif(self.step & last_pixel):
            m.d.sync += [lines_left.eq(lines_left - 1), last_line.eq(lines_left == 2)]
        return m


class VectorEngine(wiring.Component):
    """Executes VECTOR: requantize in the machine's mode, clamp, and in `q31` the residual add; FORWARD without it.

    With an element unit it also requantizes for SCALE, to 16 bits.

    Parameters
    ----------
    machine
        Gives rows, columns, vector lanes and mode. A machine of mode `ort` has no residual adder: its programs hold
        no VECTOR with the `add` flag, and its residual port is never read. One whose lanes do not divide its rows
        has no FORWARD: its activation port is never written.

    Members
    -------
    control : EngineControl, addresses (acc, out, param, res)
    acc : Out(ReadPort(columns * 32)), param : Out(ReadPort(lanes * 72)), res : Out(ReadPort(columns * 8))
    out : Out(WritePort(columns * 8, lanes * 8)), act : Out(WritePort(rows * 8, 8))
    scaled : Out(ArrayLayout(signed(16), lanes)), scaled_due, scaled_last : Out(1): with an element unit, the results
        of SCALE, which that unit writes; a group is there, and it is the last

    Raises
    ------
    InfeasibleError: the lanes do not divide the columns. ValueError: the mode is unknown.

    Duration: `dse.program.tile.timing_vector.vector_cycles`, exactly.
    """

    def __init__(self, machine: Machine) -> None:
        columns, lanes = machine.columns, machine.vector_lanes
        if lanes < 1 or columns % lanes:
            divisors = ", ".join(str(d) for d in range(1, columns + 1) if columns % d == 0)
            limit = f"vector_lanes must divide {columns} columns"
            raise InfeasibleError("vector engine", [Violation(limit, lanes, columns, "lanes", f"one of {divisors}")])
        if machine.requantize not in _LANES:
            raise ValueError(f"{machine.requantize!r} is not a requantization mode; one of {tuple(_LANES)}")
        self.machine = machine
        self.groups = columns // lanes
        self.lane_type = _LANES[machine.requantize]
        self.adds = machine.requantize == "q31"
        self.forwards = machine.rows % lanes == 0
        self.scales = machine.has(MemoryId.STATE)
        #: cycles from a read of the accumulator to the write of its result
        self.depth = READ_LATENCY + 1 + self.lane_type.latency + (AddQ31.latency if self.adds else 0)
        scaled = {
            "scaled": Out(data.ArrayLayout(signed(_INT16_BITS), lanes)),
            "scaled_due": Out(1),
            "scaled_last": Out(1),
        }
        super().__init__(
            {
                **(scaled if self.scales else {}),
                "control": Out(EngineControl()),
                "acc": Out(ReadPort(32 * columns)),
                "param": Out(ReadPort(_PARAMETER_BITS * lanes)),
                "res": Out(ReadPort(8 * columns)),
                "out": Out(WritePort(8 * columns, 8 * lanes)),
                "act": Out(WritePort(8 * machine.rows, 8)),
            }
        )

    def _of(self, name: str, others: Mapping[Opcode, str | int] | None = None) -> Any:
        """A field of VECTOR; in other opcodes the field of that name, or what `others` says: a field, a constant."""
        descriptor = self.control.descriptor
        chosen = descriptor_field(descriptor, Opcode.VECTOR, name)
        for opcode, present in ((Opcode.FORWARD, self.forwards), (Opcode.SCALE, self.scales)):
            if present:
                other = name if others is None else others.get(opcode, name)
                value = descriptor_field(descriptor, opcode, other) if isinstance(other, str) else other
                chosen = Mux(self._is(opcode), value, chosen)
        return chosen

    def _is(self, opcode: Opcode) -> Any:
        return self.control.descriptor[:OPCODE_BITS] == opcode

    def elaborate(self, platform: object) -> Module:
        m = Module()
        issued, group, last = self._issue(m)
        arrived = delay(m, group, READ_LATENCY, "group")
        accumulators = self._selected(m, self.acc.data, arrived, 32, "acc")
        results = self._requantize(m, accumulators)
        if self.scales:
            scaling = self._is(Opcode.SCALE)
            depth = READ_LATENCY + 1 + self.lane_type.latency
            m.d.comb += [
                self.scaled.eq(Cat(results)),
                self.scaled_due.eq(delayed_strobe(m, issued & scaling, depth, "scaled")),
                self.scaled_last.eq(delayed_strobe(m, last & scaling, depth, "scaled_last")),
            ]
            issued, last = issued & ~scaling, last & ~scaling
        if self.adds:
            results = self._add_residual(m, issued, results)
        self._write(m, delayed_strobe(m, issued, self.depth, "write"), results)
        m.d.comb += self.control.done.eq(delayed_strobe(m, last, self.depth, "done"))
        return m

    def _issue(self, m: Module) -> tuple[Any, Any, Any]:
        """The front walker: reads one accumulator and one parameter word a cycle.

        Returns the strobe of an issued group, its one-hot number, and the strobe of the last group of all.
        The flags `last_row` and `last_block` are registered, one step ahead of the counters they summarise; a row of
        FORWARD is a pixel, so that its rows are counted line by line.
        """
        control = self.control
        m.submodules.front = front = RowWalker(self.groups)
        blocks = _field(control.descriptor, "n_blocks")
        forward_height = descriptor_field(control.descriptor, Opcode.FORWARD, "height")
        m.submodules.rows = rows = RowCounter()
        running, leaves = Signal(), Signal()
        blocks_left = Signal.like(blocks)
        last_block = Signal()
        param, param_base = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        last = Signal()
        row_ends, block_ends = Signal(), Signal()
        m.d.comb += [
            front.load.eq(control.start),
            front.base.eq(control.address[0]),
            leaves.eq(running & self._leaves(m, running)),
            front.step.eq(leaves),
            row_ends.eq(leaves & front.group[-1]),
            block_ends.eq(row_ends & rows.last),
            rows.load.eq(control.start | block_ends),
            rows.step.eq(row_ends),
            rows.pixels.eq(self._of("rows_count", {Opcode.FORWARD: "width"})),
            rows.lines.eq(Mux(self._is(Opcode.FORWARD), forward_height, 1) if self.forwards else 1),
            last.eq(block_ends & last_block),
            self.acc.en.eq(running),
            self.acc.addr.eq(front.addr),
            self.param.en.eq(running),
            self.param.addr.eq(param),
        ]
        with m.If(control.start):
            m.d.sync += [
                running.eq(1),
                blocks_left.eq(blocks),
                last_block.eq(blocks == 1),
                param.eq(control.address[2]),
                param_base.eq(control.address[2]),
            ]
        with m.Elif(leaves):
            m.d.sync += param.eq(param + 1)
            with m.If(row_ends & ~rows.last):
                m.d.sync += param.eq(param_base)
            with m.If(block_ends):
                m.d.sync += [
                    param_base.eq(param + 1),
                    blocks_left.eq(blocks_left - 1),
                    last_block.eq(blocks_left == 2),
                ]
            with m.If(last):
                m.d.sync += running.eq(0)
        return running, front.group, last

    def _leaves(self, m: Module, running: Signal) -> Any:
        """Whether a group is left: at once, or when SCALE has taken it once for each of its parts in ACTIVATION."""
        parts = self.machine.vector_lanes // written_lanes(MemoryId.ACTIVATION, self.machine)
        if not self.scales or parts == 1:
            return 1
        part = Signal(parts, init=1)
        into = descriptor_field(self.control.descriptor, Opcode.SCALE, "dst_memory")
        divided = self._is(Opcode.SCALE) & (into == MemoryId.ACTIVATION)
        with m.If(self.control.start):
            m.d.sync += part.eq(1)
        with m.Elif(running & divided):
            m.d.sync += part.eq(part.rotate_left(1))
        return part[-1] | ~divided

    def _selected(self, m: Module, word: Any, group: Any, bits: int, name: str) -> list[Any]:
        """The lanes of the one-hot `group` out of a row of `columns` elements, registered."""
        lanes = self.machine.vector_lanes
        width = lanes * bits
        chosen = Signal(width, name=f"{name}_group", reset_less=True)
        candidates = [Mux(group[index], word[index * width : (index + 1) * width], 0) for index in range(self.groups)]
        merged = candidates[0]
        for candidate in candidates[1:]:
            merged = merged | candidate
        m.d.sync += chosen.eq(merged)
        return [chosen[lane * bits : (lane + 1) * bits].as_signed() for lane in range(lanes)]

    def _requantize(self, m: Module, accumulators: list[Any]) -> list[Any]:
        """One requantizer a lane, its channel's bias, multiplier and shift beside the accumulator."""
        low, high = self._of("low"), self._of("high")
        if self.adds:
            # before a residual add the value is only saturated to int8; the clamp follows the sum
            add = self._of("add", {Opcode.FORWARD: 0, Opcode.SCALE: 0})
            low, high = Mux(add, -128, low), Mux(add, 127, high)
        words = delay(m, self.param.data, 1, "param")
        results = []
        for index, accumulator in enumerate(accumulators):
            word = words[index * _PARAMETER_BITS : (index + 1) * _PARAMETER_BITS]
            m.submodules[f"requantize_{index}"] = lane = self.lane_type(_INT16_BITS if self.scales else _INT8_BITS)
            m.d.comb += [
                lane.acc.eq(accumulator),
                lane.bias.eq(word[:32].as_signed()),
                lane.multiplier.eq(word[32:64]),
                lane.shift.eq(word[64:70]),
                lane.zero_point.eq(self._of("zero_point")),
                lane.low.eq(low),
                lane.high.eq(high),
            ]
            results.append(lane.result)
        return results

    def _add_residual(self, m: Module, issued: Any, values: list[Any]) -> list[Any]:
        """One residual adder a lane. Without the `add` flag its operands make it hand the value on."""
        descriptor = self.control.descriptor
        add = self._of("add", {Opcode.FORWARD: 0, Opcode.SCALE: 0})
        m.submodules.middle = middle = RowWalker(self.groups)
        # a residual's read and selection take READ_LATENCY + 1 cycles, as an accumulator's do
        due = delayed_strobe(m, issued, self.lane_type.latency, "residual")
        m.d.comb += [
            middle.load.eq(self.control.start),
            middle.base.eq(self.control.address[3]),
            middle.step.eq(due),
            self.res.en.eq(due & add),
            self.res.addr.eq(middle.addr),
        ]
        # without `add` nothing is read: what stands at the port, perhaps never defined, must not enter
        arrived = Mux(add, delay(m, middle.group, READ_LATENCY, "residual_group"), 0)
        residuals = self._selected(m, self.res.data, arrived, 8, "residual")
        results = []
        for index, (value, residual) in enumerate(zip(values, residuals, strict=True)):
            m.submodules[f"add_{index}"] = lane = AddQ31()
            m.d.comb += [
                lane.y.eq(value),
                lane.residual.eq(residual),
                lane.zero_y.eq(Mux(add, _field(descriptor, "zero_point"), 0)),
                lane.zero_residual.eq(_field(descriptor, "zero_point_res")),
                lane.multiplier_y.eq(Mux(add, _field(descriptor, "multiplier_y"), 1)),
                lane.multiplier_residual.eq(Mux(add, _field(descriptor, "multiplier_res"), 0)),
                lane.shift.eq(Mux(add, _field(descriptor, "add_shift"), 0)),
                lane.zero_out.eq(Mux(add, _field(descriptor, "zero_point_add"), 0)),
                lane.low.eq(self._of("low")),
                lane.high.eq(self._of("high")),
            ]
            results.append(lane.result)
        return results

    def _write(self, m: Module, due: Any, results: list[Any]) -> None:
        """The back walkers: every group is offered the same lanes, only the due group's are enabled."""
        m.submodules.back = back = RowWalker(self.groups)
        forwarding = self._is(Opcode.FORWARD) if self.forwards else 0
        m.d.comb += [
            back.load.eq(self.control.start),
            back.base.eq(self.control.address[1]),
            back.step.eq(due & ~forwarding),
            self.out.en.eq(Mux(back.step, back.group, 0)),
            self.out.addr.eq(back.addr),
            self.out.data.eq(Cat(results).replicate(self.groups)),
        ]
        if self.forwards:
            self._forward(m, due & forwarding, results)

    def _forward(self, m: Module, due: Any, results: list[Any]) -> None:
        """The lanes of the due group into their bytes of an activation word."""
        lanes, descriptor = self.machine.vector_lanes, self.control.descriptor
        m.submodules.forward = walker = ActivationWalker(self.machine.rows, self.machine.columns, lanes)
        for port, name in (
            (walker.height, "height"),
            (walker.width, "width"),
            (walker.stride_y, "out_stride_y"),
            (walker.stride_x, "out_stride_x"),
        ):
            m.d.comb += port.eq(descriptor_field(descriptor, Opcode.FORWARD, name))
        enables = Cat(part.replicate(lanes) for part in walker.part)
        m.d.comb += [
            walker.load.eq(self.control.start),
            walker.base.eq(self.control.address[1]),
            walker.step.eq(due),
            self.act.en.eq(Mux(due, enables, 0)),
            self.act.addr.eq(walker.addr),
            self.act.data.eq(Cat(results).replicate(walker.parts)),
        ]
