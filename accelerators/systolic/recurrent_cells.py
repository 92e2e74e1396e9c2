"""The vector queue of a recurrent layer: gates out of the accumulators, cell update, hidden state back to the array.

Every vector stands in STATE as [block][batch] words; names are those of `RecurrentPlan.state_bases`.
"""

from __future__ import annotations

from collections.abc import Mapping

from accelerators.systolic.recurrent_plan import RecurrentPlan
from accelerators.systolic.recurrent_queue import TIME, UNITS, loop, make, sync
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import Function, Rounding

_ONE = 1 << 15
_INT8, _INT16 = (-128, 127), (-32768, 32767)
#: int16 pre-activations have 8 bits more than a table index.
_EXTRA_BITS = 8


class CellEmitter:
    """Emits the vector queue of a plan; `queue()` is the only entry."""

    def __init__(self, plan: RecurrentPlan, cell: Mapping[str, int], index: int, *, last: bool) -> None:
        self.plan, self.cell, self.index, self.last = plan, cell, index, last
        self.layer = plan.layer
        self.rows = plan.layer.batch
        self.chunk = plan.units * plan.layer.batch

    def queue(self) -> list[Descriptor]:
        """Credits, the loop over time, and the last hidden state once more where it is read."""
        chunks = self.plan.chunks
        body = {"lstm": self._lstm, "gru": self._gru, "rnn": self._rnn}[self.layer.kind]()
        body.append(
            self._back("hidden", "h", signal_h_ready=chunks, **({} if self.plan.resets else {"wait_next_here": 1}))
        )
        if self.layer.output:
            body.append(self._out({"dst_toggle": 1 << TIME}))
        # the first hidden state is there before the first input
        result = [sync(self.index, signal_acc_free=2, signal_h_ready=chunks), *loop(self.layer.steps, body)]
        if self.last:
            result.append(self._out({"dst_phase": self.layer.steps & 1 if self.layer.output else 0}))
        return result

    # -- cells -----------------------------------------------------------------------------------------------

    def _lstm(self) -> list[Descriptor]:
        exponent = self.cell["hidden_exponent"]
        body = [self._gate(slot, name, table=slot, first=slot == 0) for slot, name in enumerate(("i", "o", "f", "g"))]
        body += [
            # i * g needs more than 16 bits: it stays in the accumulators, which the gates no longer need
            self._element(Function.MUL, "i", "g", "acc", 15 - self.cell["cell_fraction"], rounding=Rounding.FLOOR),
            self._element(Function.MULADD, "f", "acc", "state", 15, signal_acc_free=1),
            self._element(Function.COPY, "state", "", "shown", self.cell["cell_shift"], table=4),
            self._element(Function.MUL, "o", "shown", "hidden", 30 - exponent, narrow=True),
        ]
        return self._chunked(body)

    def _gru(self) -> list[Descriptor]:
        exponent = self.cell["hidden_exponent"]
        candidate = [
            # (z - 1) * n, negative, so that z * s - (z - 1) * n is the new state
            self._element(Function.MUL, "z", "n", "acc", 0, zero_a=_ONE, phase=-1),
            self._element(Function.MULSUB, "z", "acc", "state", 15, phase=-1, signal_acc_free=1),
            self._element(Function.COPY, "state", "", "hidden", 15 - exponent, narrow=True),
        ]
        if self.layer.linear_before_reset:
            return self._chunked([
                self._gate(0, "z", table=0, first=True),
                self._gate(1, "r", table=1),
                self._gate(2, "outer"),
                self._gate(3, "inner"),
                self._element(Function.MUL, "r", "inner", "both", 15),
                self._element(Function.ADD, "both", "outer", "inner", 0),
                self._element(Function.COPY, "inner", "", "n", _EXTRA_BITS, table=2),
                *candidate,
            ])  # fmt: skip
        first = self._chunked([
            self._gate(0, "z", table=0, first=True),
            self._gate(1, "r", table=1, signal_acc_free=1),
            self._element(Function.MUL, "r", "state", "kept", 30 - exponent, narrow=True),
        ])  # fmt: skip
        reset = self._back("kept", "reset", signal_reset_ready=self.plan.chunks, wait_next_here=1)
        second = self._chunked([self._gate(0, "n", table=2, first=True, phase=1), *candidate])
        return [*first, reset, *second]

    def _rnn(self) -> list[Descriptor]:
        return self._chunked([self._gate(0, "hidden", table=0, first=True, signal_acc_free=1)])

    # -- descriptors -----------------------------------------------------------------------------------------

    def _chunked(self, body: list[Descriptor]) -> list[Descriptor]:
        return loop(self.plan.chunks, body) if self.plan.chunks > 1 else body

    def _vector(self, operand: str, name: str) -> dict[str, int]:
        """Base and increment of a vector in STATE: states and what spans phases move with the chunk."""
        fields = {f"{operand}_base": self.plan.state_bases[name]}
        if self.plan.chunks > 1 and self.plan.spans(name):
            fields[f"{operand}_inc{UNITS}"] = self.chunk
        return fields

    def _gate(
        self, slot: int, name: str, *, table: int | None = None, first: bool = False, phase: int = 0, **semaphores: int
    ) -> Descriptor:
        """A gate's accumulators through its channel parameters, and through its table where it has one."""
        plan, machine = self.plan, self.plan.machine
        groups = machine.columns // machine.vector_lanes
        low, high = _INT16 if table is None else _INT8
        # the parameters of a GRU's candidate follow those of its gates
        slots = 2 * phase + slot
        fields = {
            "n_blocks": plan.units, "rows_count": self.rows, "acc_base": slot * self.chunk,
            **plan.accumulator_half("acc", phase, TIME, UNITS),
            "param_base": slots * plan.blocks * groups, "dst_memory": MemoryId.STATE, **self._vector("dst", name),
            "low": low, "high": high,
        }  # fmt: skip
        if plan.chunks > 1:
            fields[f"param_inc{UNITS}"] = plan.units * groups
        if table is not None:
            fields |= {"look_up": 1, "table_base": table}
        return make(Opcode.SCALE, fields, self.index, **({"wait_acc_ready": 1} if first else {}), **semaphores)

    def _element(
        self,
        function: Function,
        a: str,
        b: str,
        dst: str,
        shift: int,
        *,
        rounding: Rounding = Rounding.HALF_UP,
        zero_a: int = 0,
        narrow: bool = False,
        table: int | None = None,
        phase: int = 0,
        **semaphores: int,
    ) -> Descriptor:
        """An operation on vectors of a chunk; "acc" is the chunk's accumulators in the phase (-1: the last)."""
        fields = {
            "n_blocks": self.plan.units, "rows_count": self.rows, "function": function, "shift": shift,
            "rounding": rounding, "zero_a": zero_a, "narrow": narrow,
        }  # fmt: skip
        if function in (Function.COPY, Function.MUL, Function.ADD):
            fields["multiplier_a"] = 1
        if function == Function.ADD:
            fields["multiplier_b"] = 1
        for operand, name in (("a", a), ("b", b), ("dst", dst)):
            if name == "acc":
                phases = len(self.layer.phases())
                half = self.plan.accumulator_half(operand, phase % phases, TIME, UNITS)
                fields |= {f"{operand}_memory": MemoryId.ACCUMULATOR, **half}
            elif name:
                fields |= {f"{operand}_memory": MemoryId.STATE, **self._vector(operand, name)}
        if table is not None:
            fields |= {"look_up": 1, "table_base": table}
        return make(Opcode.ELEMENT, fields, self.index, **semaphores)

    def _copy(self, name: str, memory: MemoryId, fields: Mapping[str, int], **semaphores: int) -> Descriptor:
        """A state of all blocks, already int8, into another memory."""
        values = {
            "n_blocks": self.plan.blocks, "rows_count": self.rows, "function": Function.COPY, "multiplier_a": 1,
            "a_memory": MemoryId.STATE, "a_base": self.plan.state_bases[name], "dst_memory": memory, **fields,
        }  # fmt: skip
        return make(Opcode.ELEMENT, values, self.index, **semaphores)

    def _back(self, name: str, target: str, **semaphores: int) -> Descriptor:
        """Into the half of the activation scratchpad that the array reads next."""
        fields = {"dst_base": self.plan.activation_bases[target], "dst_phase": 1, "dst_toggle": 1 << TIME}
        return self._copy(name, MemoryId.ACTIVATION, fields, **semaphores)

    def _out(self, half: Mapping[str, int]) -> Descriptor:
        return self._copy("hidden", MemoryId.OUTPUT, half, wait_out_free=1, signal_out_ready=1)
