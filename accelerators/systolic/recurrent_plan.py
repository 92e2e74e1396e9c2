"""How a recurrent layer is cut: units a chunk, weights resident or streamed, and where everything lies on chip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from accelerators.systolic.recurrent import Part, RecurrentLayer
from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import SEMAPHORE_MAX, MemoryId
from dse.program.tile.program import Machine

#: Vectors in STATE that hold all hidden units; the others are scratch of a chunk.
_SPANNING = frozenset({"z", "kept", "state", "hidden"})


@dataclass(frozen=True)
class Piece:
    """One MATMUL (and, streamed, one LOAD): blocks [block, block + blocks) of a part, words [k, k + words).

    `offset` is its first weight word within its chunk's weights.
    """

    part: Part
    block: int
    blocks: int
    k: int
    words: int
    offset: int


@dataclass(frozen=True)
class RecurrentPlan:
    """A recurrent layer on a machine: `units` blocks of `columns` hidden units are updated at once.

    `resident`: all weights stay in the weight scratchpad over all time steps; else each step streams them.
    """

    layer: RecurrentLayer
    machine: Machine
    units: int
    resident: bool

    @property
    def blocks(self) -> int:
        """Blocks of `columns` hidden units."""
        return -(-self.layer.hidden // self.machine.columns)

    @property
    def chunks(self) -> int:
        return self.blocks // self.units

    @property
    def input_words(self) -> int:
        return -(-self.layer.inputs // self.machine.rows)

    @property
    def hidden_words(self) -> int:
        """Activation words of a hidden state that a MATMUL reduces over."""
        return -(-self.layer.hidden // self.machine.rows)

    @property
    def record(self) -> int:
        """Activation words of a hidden state as the element unit writes it: whole blocks."""
        return -(-self.blocks * self.machine.columns // self.machine.rows)

    @property
    def activation_bases(self) -> dict[str, int]:
        """First word of x, h and r * h in their halves of the activation scratchpad."""
        x, h = self.layer.batch * self.input_words, self.layer.batch * self.record
        return {"x": 0, "h": x, "reset": x + h, "end": x + h * (2 if self.resets else 1)}

    @property
    def resets(self) -> bool:
        return any(part.source == "reset" for phase in self.layer.phases() for part in phase.parts)

    def words(self, part: Part) -> int:
        """Reduction words of a part."""
        return self.input_words if part.source == "x" else self.hidden_words

    def part_words(self, part: Part) -> int:
        """Weight words of a part in one chunk."""
        return len(part.gates) * self.units * self.words(part) * self.machine.rows

    def chunk_words(self, phase: int) -> int:
        """Weight words of a phase in one chunk."""
        return sum(self.part_words(part) for part in self.layer.phases()[phase].parts)

    def phase_base(self, phase: int) -> int:
        """First weight word of a phase; its chunks follow each other."""
        return sum(self.chunks * self.chunk_words(before) for before in range(phase))

    @property
    def weight_words(self) -> int:
        return self.phase_base(len(self.layer.phases()))

    def pieces(self, phase: int) -> tuple[Piece, ...]:
        """The MATMULs of a chunk: whole parts when weights are resident, else what a half of the scratchpad holds."""
        return tuple(self._pieces(phase))

    def _pieces(self, phase: int) -> Iterator[Piece]:
        offset = 0
        rows = self.machine.rows
        for part in self.layer.phases()[phase].parts:
            blocks, words = len(part.gates) * self.units, self.words(part)
            most = blocks if self.resident else min(blocks, self.machine.half(MemoryId.WEIGHT) // (words * rows))
            if most >= 1:
                for block in range(0, blocks, most):
                    count = min(most, blocks - block)
                    yield Piece(part, block, count, 0, words, offset + block * words * rows)
            else:
                held = self.machine.half(MemoryId.WEIGHT) // rows
                for block in range(blocks):
                    for k in range(0, words, held):
                        size = min(held, words - k)
                        yield Piece(part, block, 1, k, size, offset + (block * words + k) * rows)
            offset += self.part_words(part)

    @cached_property
    def state_bases(self) -> dict[str, int]:
        """First STATE word of each vector; chunk-sized scratch, or all blocks of a state. "end" is the first free."""
        chunk, full = self.units * self.layer.batch, self.blocks * self.layer.batch
        gru = ("z", "r", "n", "state") + (("inner", "outer", "both") if self.layer.linear_before_reset else ("kept",))
        names = {"lstm": ("i", "o", "f", "g", "shown", "state"), "gru": gru, "rnn": ()}[self.layer.kind]
        bases, position = {}, 0
        for name in (*names, "hidden"):
            bases[name] = position
            position += full if self.spans(name) else chunk
        return bases | {"end": position}

    def spans(self, name: str) -> bool:
        """Whether a vector holds all chunks rather than the present one."""
        return name in _SPANNING

    def accumulator_half(self, operand: str, phase: int, time: int, units: int) -> dict[str, int]:
        """Phase and toggle of a chunk's accumulators; chunks of all phases take turns. `time`, `units`: loop levels."""
        toggle = (1 << units) if self.chunks > 1 else 0
        if self.chunks * len(self.layer.phases()) % 2:
            toggle |= 1 << time
        return {f"{operand}_phase": self.chunks * phase & 1, f"{operand}_toggle": toggle}

    @property
    def tables(self) -> int:
        return self.layer.gates + (self.layer.kind == "lstm")

    def describe(self) -> str:
        """Compact form for tables."""
        weights = "weights resident" if self.resident else "weights streamed every step"
        return f"loop over {self.layer.steps} steps, {self.units * self.machine.columns} units a chunk, {weights}"


def plans(layer: RecurrentLayer, machine: Machine) -> list[RecurrentPlan]:
    """Every way to cut a layer that fits: resident weights where they do, chunks of a divisor of the blocks.

    Raises
    ------
    InfeasibleError: no element unit, or what does not fit even in the smallest chunks.
    """
    if not machine.has(MemoryId.STATE):
        raise InfeasibleError(
            f"layer {layer.name!r}",
            [Violation("state_kib", 0, 1, "KiB", "a recurrent layer needs the element unit: set hardware.state_kib")],
        )
    blocks = -(-layer.hidden // machine.columns)
    found, least = [], None
    for units in (size for size in range(1, blocks + 1) if blocks % size == 0):
        for resident in (True, False):
            plan = RecurrentPlan(layer, machine, units, resident)
            broken = violations(plan)
            if not broken:
                found.append(plan)
                break
            if not resident and least is None:
                least = broken
    if not found:
        raise InfeasibleError(f"layer {layer.name!r}", least or [])
    return found


def violations(plan: RecurrentPlan) -> list[Violation]:
    """What of a plan does not fit."""
    machine, layer = plan.machine, plan.layer
    batch, groups = layer.batch, machine.columns // machine.vector_lanes
    slots = max(phase.slots for phase in layer.phases())
    used = [
        ("accumulator words", slots * plan.units * batch, machine.half(MemoryId.ACCUMULATOR)),
        ("activation_spad words", plan.activation_bases["end"], machine.half(MemoryId.ACTIVATION)),
        ("output_buffer words", plan.blocks * batch, machine.half(MemoryId.OUTPUT)),
        ("parameter_memory words", layer.parameter_slots * plan.blocks * groups, machine.words[MemoryId.PARAMETER]),
        ("state_memory words", plan.state_bases["end"], machine.words[MemoryId.STATE]),
        ("tables", plan.tables, machine.words[MemoryId.TABLE]),
        ("chunks", plan.chunks * len(layer.phases()), SEMAPHORE_MAX // 2),
    ]
    if plan.resident:
        used.append(("weight_spad words", plan.weight_words, machine.words[MemoryId.WEIGHT]))
    else:
        used.append(("weight_spad words", machine.rows, machine.half(MemoryId.WEIGHT)))
    return [Violation(name, need, limit, "") for name, need, limit in used if need > limit]
