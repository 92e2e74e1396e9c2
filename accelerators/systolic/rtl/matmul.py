"""The matmul engine: executes MATMUL descriptors on a weight- or output-stationary array."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from accelerators.systolic.rtl.accumulate import Accumulate, DrainedRows, StreamedRows
from accelerators.systolic.rtl.agu import WeightWalker
from accelerators.systolic.rtl.array_os import OutputStationaryArray
from accelerators.systolic.rtl.array_ws import WeightStationaryArray
from accelerators.systolic.rtl.issue import OutputStationaryIssue, WeightStationaryIssue
from accelerators.systolic.rtl.pe import ACCUMULATOR_BITS, ACTIVATION_BITS
from accelerators.systolic.rtl.skew import delay_control
from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import MemoryId, Opcode
from dse.program.tile.program import Machine
from dse.rtl.fields import descriptor_field
from dse.rtl.interfaces import READ_LATENCY, EngineControl, ReadPort, WritePort

#: From a slot to the scratchpad's word: the port's address register, then the memory.
_SLOT_TO_WORD = 1 + READ_LATENCY


class MatmulEngine(wiring.Component):
    """Executes MATMUL: issue, array, accumulate, at fixed distances from each other.

    Parameters
    ----------
    machine
        Gives rows, columns, dataflow and weight bits.

    Members
    -------
    control : EngineControl, addresses (a, w, acc)
    a : Out(ReadPort(rows * 8)), w : Out(ReadPort(8 * bytes of a weight word))
    acc_read : Out(ReadPort(columns * 32)), acc_write : Out(WritePort(columns * 32))

    Raises
    ------
    InfeasibleError: fewer than 2 rows or columns, or weights of neither 4 nor 8 bits.
    ValueError: the dataflow is neither "ws" nor "os".

    Duration: `accelerators.systolic.timing.matmul_cycles`, exactly.
    """

    def __init__(self, machine: Machine) -> None:
        for name, value in (("rows", machine.rows), ("columns", machine.columns)):
            if value < 2:
                raise InfeasibleError("matmul engine", [Violation(name, value, 2, "elements", "at least 2")])
        if machine.weight_bits not in (4, 8):
            raise InfeasibleError("matmul engine", [Violation("weight_bits", machine.weight_bits, 8, "bits", "4 or 8")])
        if machine.dataflow not in ("ws", "os"):
            raise ValueError(f"{machine.dataflow!r} is not a dataflow of the systolic family; one of ('ws', 'os')")
        self.machine = machine
        super().__init__(
            {
                "control": Out(EngineControl()),
                "a": Out(ReadPort(ACTIVATION_BITS * machine.rows)),
                "w": Out(ReadPort(8 * machine.word_bytes[MemoryId.WEIGHT])),
                "acc_read": Out(ReadPort(ACCUMULATOR_BITS * machine.columns)),
                "acc_write": Out(WritePort(ACCUMULATOR_BITS * machine.columns)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.machine.dataflow == "ws":
            self._weight_stationary(m)
        else:
            self._output_stationary(m)
        return m

    def _weight_stationary(self, m: Module) -> None:
        """A fold's weight words come in the slots of its first pixels."""
        machine = self.machine
        m.submodules.issue = issue = WeightStationaryIssue(machine.rows)
        m.submodules.array = array = WeightStationaryArray(machine.rows, machine.columns, machine.weight_bits)
        m.submodules.rows = rows = StreamedRows()
        m.submodules.weights = weights = WeightWalker()
        self._connect(m, issue, rows, weights, array.psums, array.psum_bits)
        m.d.comb += [
            weights.step.eq(delay_control(m, issue.weight, 1, "weight")),
            array.pixel.eq(self.a.data),
            array.weights.eq(self.w.data),
            array.fold.eq(delay_control(m, issue.fold, _SLOT_TO_WORD, "fold")),
            # a row's old value is requested so that it arrives with the row's result
            rows.tag.eq(delay_control(m, issue.tag, _SLOT_TO_WORD + array.latency - READ_LATENCY, "tag")),
        ]

    def _output_stationary(self, m: Module) -> None:
        """Weight words come one slot late: activations pass the transposer's register first."""
        machine = self.machine
        m.submodules.issue = issue = OutputStationaryIssue(machine.rows)
        m.submodules.array = array = OutputStationaryArray(machine.rows, machine.columns, machine.weight_bits)
        m.submodules.rows = rows = DrainedRows(machine.rows)
        m.submodules.weights = weights = WeightWalker()
        self._connect(m, issue, rows, weights, array.sums, ACCUMULATOR_BITS)
        to_rows = _SLOT_TO_WORD + array.latency - READ_LATENCY - 1  # a block's rows come one cycle behind its tag
        m.d.comb += [
            weights.step.eq(delay_control(m, issue.running, 2, "weight")),
            weights.again.eq(delay_control(m, issue.again, 2, "again")),
            weights.keep.eq(delay_control(m, issue.keep, 2, "keep")),
            array.word.eq(self.a.data),
            array.weights.eq(self.w.data),
            array.fold.eq(delay_control(m, issue.fold, _SLOT_TO_WORD, "fold")),
            array.swap.eq(delay_control(m, issue.swap, _SLOT_TO_WORD, "swap")),
            rows.tag.eq(delay_control(m, issue.block, to_rows, "block")),
            rows.tail.eq(issue.tail),
        ]

    def _connect(self, m: Module, issue: Any, rows: Any, weights: Any, results: Any, result_bits: int) -> None:
        """What both dataflows share: control, ports, accumulation."""
        control = self.control
        m.submodules.accumulate = accumulate = Accumulate(self.machine.columns, result_bits)
        wiring.connect(m, accumulate.read, wiring.flipped(self.acc_read))
        wiring.connect(m, accumulate.write, wiring.flipped(self.acc_write))
        m.d.comb += [
            issue.start.eq(control.start),
            issue.descriptor.eq(control.descriptor),
            issue.base.eq(control.address[0]),
            weights.start.eq(control.start),
            weights.base.eq(control.address[1]),
            rows.start.eq(control.start),
            rows.base.eq(control.address[2]),
            rows.accumulate.eq(descriptor_field(control.descriptor, Opcode.MATMUL, "accumulate")),
            self.a.en.eq(issue.a_en),
            self.a.addr.eq(issue.a_addr),
            self.w.en.eq(weights.step),
            self.w.addr.eq(weights.address),
            accumulate.row.eq(rows.row),
            accumulate.results.eq(results),
            control.done.eq(accumulate.done),
        ]
