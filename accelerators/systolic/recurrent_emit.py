"""From a recurrent plan to queues: one hardware loop over time, whatever the number of steps.

Halves. x(t) and the hidden state that step t reads lie in half t % 2 of the activation scratchpad; the new hidden
state, and a GRU's r * h, go into the other half, after x(t + 1) has come there, so that a half has one user at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from accelerators.systolic.recurrent_cells import CellEmitter
from accelerators.systolic.recurrent_plan import Piece, RecurrentPlan
from accelerators.systolic.recurrent_queue import TIME, UNITS, loop, make, queue
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import TensorPlacement


@dataclass(frozen=True)
class RecurrentImage:
    """Where a recurrent layer finds its data in memory: byte addresses.

    `output`, `last`: placements of the tensors it writes, rows of `hidden` bytes; None when nothing reads them.
    `first_hidden`: the first state as activation words; `first_state`: the first cell (lstm) or state (gru) as STATE
    words, 0 bytes for an rnn.
    """

    input: TensorPlacement
    output: TensorPlacement | None
    last: TensorPlacement | None
    weights: int
    parameters: int
    tables: int
    first_hidden: int
    first_state: int


def emit_recurrent(
    plan: RecurrentPlan, image: RecurrentImage, cell: Mapping[str, int], step_index: int
) -> dict[str, tuple[Descriptor, ...]]:
    """Queues of one direction, HALT included.

    `cell` holds the shifts of the layer's arithmetic: `cell_fraction`, `cell_shift`, `hidden_exponent`.
    """
    emitter = _Emitter(plan, image, step_index)
    return {
        "load": queue(emitter.load()),
        "matmul": queue(emitter.matmul()),
        "vector": queue(CellEmitter(plan, cell, step_index, last=image.last is not None).queue()),
        "store": queue(emitter.store()),
    }


class _Emitter:
    """Load, matmul and store queues of a plan."""

    def __init__(self, plan: RecurrentPlan, image: RecurrentImage, index: int) -> None:
        self.plan, self.image, self.index = plan, image, index
        self.layer, self.machine = plan.layer, plan.machine
        self.phases = range(len(self.layer.phases()))
        self.pieces = {phase: plan.pieces(phase) for phase in self.phases}
        self.tickets = plan.chunks * len(self.phases)

    def _make(self, op: Opcode, fields: Mapping[str, int], **semaphores: int) -> Descriptor:
        return make(op, fields, self.index, **semaphores)

    def _chunked(self, body: Sequence[Descriptor]) -> list[Descriptor]:
        return loop(self.plan.chunks, body) if self.plan.chunks > 1 else list(body)

    # -- load ------------------------------------------------------------------------------------------------

    def load(self) -> list[Descriptor]:
        """Constants once, then x step by step; streamed weights piece by piece."""
        steps = self.layer.steps
        result = [*self._constants(), *self._inputs(0)]
        if steps > 1:
            result += loop(steps - 1, self._step(self._inputs(1), last=False))
        # behind the last step no input follows, but its credit does
        return [*result, *self._step([self._make(Opcode.SYNC, {}, signal_next_here=1)], last=True)]

    def _step(self, next_input: Sequence[Descriptor], *, last: bool) -> list[Descriptor]:
        """A step's weights, if streamed, and the next input behind those of the first phase.

        The second phase of a GRU waits for r * h, which waits for the next input: that must not stand behind weights
        that the second phase has to consume first.
        """
        result: list[Descriptor] = []
        for phase in self.phases:
            result += self._streamed(phase, last=last)
            result += next_input if phase == 0 else []
        return result

    def _constants(self) -> list[Descriptor]:
        plan, machine, image = self.plan, self.machine, self.image
        groups = plan.blocks * (machine.columns // machine.vector_lanes)
        loads = [
            self._bulk(MemoryId.PARAMETER, image.parameters, self.layer.parameter_slots * groups),
            self._bulk(MemoryId.TABLE, image.tables, plan.tables),
            self._bulk(MemoryId.ACTIVATION, image.first_hidden, self.layer.batch * plan.record,
                       plan.activation_bases["h"]),
        ]  # fmt: skip
        if "state" in plan.state_bases:
            words = plan.blocks * self.layer.batch
            loads.append(self._bulk(MemoryId.STATE, image.first_state, words, plan.state_bases["state"]))
        if plan.resident:
            word = machine.word_bytes[MemoryId.WEIGHT]
            for phase in self.phases:
                base = plan.phase_base(phase)
                words = plan.chunk_words(phase)
                fields = {
                    "n0": 1, "n1": plan.chunks, "n2": words, "run_bytes": word, "ext_base": image.weights + base * word,
                    "ext_stride1": words * word, "ext_stride2": word, "local_base": base, "local_stride1": words,
                    "local_stride2": 1, "memory": MemoryId.WEIGHT,
                }  # fmt: skip
                loads.append(self._make(Opcode.LOAD, fields))
        return loads

    def _bulk(self, memory: MemoryId, base: int, words: int, local: int = 0) -> Descriptor:
        run = self.machine.word_bytes[memory]
        fields = {
            "n0": 1, "n1": 1, "n2": words, "run_bytes": run, "ext_base": base, "ext_stride2": run,
            "local_base": local, "local_stride2": 1, "memory": memory,
        }  # fmt: skip
        return self._make(Opcode.LOAD, fields)

    def _inputs(self, ahead: int) -> list[Descriptor]:
        """x of step 0, or within the loop of the step after it: whole words, then the ragged last one."""
        layer, rows, words = self.layer, self.machine.rows, self.plan.input_words
        step_bytes = layer.batch * layer.inputs
        first = (layer.steps - 1 - ahead if layer.backwards else ahead) * step_bytes
        tail = layer.inputs % rows
        runs = [(0, words - bool(tail), rows)] + ([(words - 1, 1, tail)] if tail else [])
        runs = [run for run in runs if run[1]]
        descriptors = []
        for number, (word, count, size) in enumerate(runs):
            semaphores = {"wait_x_free": self.tickets} if number == 0 else {}
            if number == len(runs) - 1:
                semaphores["signal_x_ready"] = self.tickets
                if ahead:
                    semaphores["signal_next_here"] = 1
            fields = {
                "n0": 1, "n1": layer.batch, "n2": count, "run_bytes": size,
                "ext_base": self.image.input.base + first + word * rows, "ext_stride1": layer.inputs,
                "ext_stride2": rows, "local_base": word, "local_stride1": words, "local_stride2": 1,
                "local_phase": ahead, "memory": MemoryId.ACTIVATION,
            }  # fmt: skip
            if ahead:
                fields |= {f"ext_inc{TIME}": step_bytes, "local_toggle": 1 << TIME}
                fields |= {"ext_down": 1 << TIME} if layer.backwards else {}
            descriptors.append(self._make(Opcode.LOAD, fields, **semaphores))
        return descriptors

    def _streamed(self, phase: int, *, last: bool) -> list[Descriptor]:
        """A phase's weights: in the loop over time, or behind it for the last step, whose number is fixed."""
        if self.plan.resident:
            return []
        level = 0 if last else UNITS
        word = self.machine.word_bytes[MemoryId.WEIGHT]
        base, step = self.plan.phase_base(phase), self.plan.chunk_words(phase) * word
        body = []
        for number, piece in enumerate(self.pieces[phase]):
            words = piece.blocks * piece.words * self.machine.rows
            fields = {
                "n0": 1, "n1": 1, "n2": words, "run_bytes": word, "ext_stride2": word, "local_stride2": 1,
                "ext_base": self.image.weights + (base + piece.offset) * word, "memory": MemoryId.WEIGHT,
                **({f"ext_inc{level}": step} if self.plan.chunks > 1 else {}),
                **self._weight_half("local", phase, number, last=last),
            }  # fmt: skip
            body.append(self._make(Opcode.LOAD, fields, wait_w_free=1, signal_w_ready=1))
        return self._chunked(body)

    def _weight_half(self, name: str, phase: int, number: int, *, last: bool = False) -> dict[str, int]:
        """Half of a streamed piece by its running number over steps, phases, chunks and pieces."""
        chunks = self.plan.chunks
        each = [len(self.pieces[other]) for other in self.phases]
        start = chunks * sum(each[:phase]) + number
        per_step = chunks * sum(each)
        level = 0 if last else UNITS
        toggle = (1 << level) if each[phase] % 2 and chunks > 1 else 0
        if last:
            start += (self.layer.steps - 1) * per_step
        elif per_step % 2:
            toggle |= 1 << TIME
        return {f"{name}_phase": start & 1, f"{name}_toggle": toggle}

    # -- matmul ----------------------------------------------------------------------------------------------

    def matmul(self) -> list[Descriptor]:
        """Credits, then for every step the phases, chunk by chunk."""
        credits = {"signal_x_free": 2 * self.tickets} | ({} if self.plan.resident else {"signal_w_free": 2})
        body: list[Descriptor] = []
        for phase in self.phases:
            pieces = self.pieces[phase]
            starts = {source: next((i for i, p in enumerate(pieces) if p.part.source == source), None)
                      for source in ("x", "h", "reset")}  # fmt: skip
            chunk = [
                self._matmul(phase, number, [source for source, at in starts.items() if at == number])
                for number in range(len(pieces))
            ]
            body += self._chunked(chunk)
        return [self._make(Opcode.SYNC, {}, **credits), *loop(self.layer.steps, body)]

    def _matmul(self, phase: int, number: int, begins: Sequence[str]) -> Descriptor:
        plan, layer = self.plan, self.layer
        piece: Piece = self.pieces[phase][number]
        part = piece.part
        final = number == len(self.pieces[phase]) - 1
        semaphores = {f"wait_{source}_ready": 1 for source in begins}
        semaphores |= {} if plan.resident else {"wait_w_ready": 1, "signal_w_free": 1}
        if number == 0:
            semaphores["wait_acc_free"] = 1
        if final:
            semaphores |= {"signal_x_free": 1, "signal_acc_ready": 1}
        words = plan.words(part)
        fields = {
            "n_blocks": piece.blocks, "n_rows": 1, "n_columns": 1, "n_channels": piece.words,
            "height": layer.batch, "width": 1,
            "a_base": plan.activation_bases[part.source] + piece.k,
            "a_stride_y": words if part.source == "x" else plan.record,
            # r * h was written into the other half
            "a_phase": part.source == "reset", "a_toggle": 1 << TIME,
            "acc_base": (part.slot * plan.units + piece.block) * layer.batch,
            **plan.accumulator_half("acc", phase, TIME, UNITS),
            "accumulate": part.accumulate or piece.k > 0,
        }  # fmt: skip
        if plan.resident:
            fields["w_base"] = plan.phase_base(phase) + piece.offset
            fields |= {f"w_inc{UNITS}": plan.chunk_words(phase)} if plan.chunks > 1 else {}
        else:
            fields |= self._weight_half("w", phase, number)
        if layer.batch == 1:
            del fields["a_stride_y"]
        return self._make(Opcode.MATMUL, fields, **semaphores)

    # -- store -----------------------------------------------------------------------------------------------

    def store(self) -> list[Descriptor]:
        """y step by step, then the last hidden state."""
        image, layer = self.image, self.layer
        result = [self._make(Opcode.SYNC, {}, signal_out_free=2)]
        row_bytes = layer.batch * layer.hidden
        if image.output is not None:
            step_bytes = layer.directions * row_bytes
            base = image.output.base + layer.direction * row_bytes
            if layer.backwards:
                base += (layer.steps - 1) * step_bytes
            motion = {f"ext_inc{TIME}": step_bytes, "local_toggle": 1 << TIME}
            motion |= {"ext_down": 1 << TIME} if layer.backwards else {}
            result += loop(layer.steps, self._rows(base, motion))
        if image.last is not None:
            half = layer.steps & 1 if image.output is not None else 0
            result += self._rows(image.last.base + layer.direction * row_bytes, {"local_phase": half})
        return result

    def _rows(self, base: int, motion: Mapping[str, int]) -> list[Descriptor]:
        """A hidden state out of the output buffer: whole blocks, then the ragged last one."""
        layer, columns, blocks = self.layer, self.machine.columns, self.plan.blocks
        tail = layer.hidden % columns
        parts = [(0, blocks - bool(tail), columns)] + ([(blocks - 1, 1, tail)] if tail else [])
        parts = [part for part in parts if part[1]]
        descriptors = []
        for number, (block, count, run) in enumerate(parts):
            semaphores = {"wait_out_ready": 1} if number == 0 else {}
            if number == len(parts) - 1:
                semaphores["signal_out_free"] = 1
            fields = {
                "n0": 1, "n1": count, "n2": layer.batch, "run_bytes": run, "ext_base": base + block * columns,
                "ext_stride1": columns, "ext_stride2": layer.hidden, "local_base": block * layer.batch,
                "local_stride1": layer.batch, "local_stride2": 1, **motion,
            }  # fmt: skip
            descriptors.append(self._make(Opcode.STORE, fields, **semaphores))
        return descriptors
