"""Descriptors under construction: straight queues, buffers that alternate, semaphores one a tile.

Semaphores hold one count a tile everywhere, so that a program of many layers needs no resets between them: a buffer is
filled when its credit is there and freed by the last descriptor that reads it. `done` tells the load engine that a
layer's last result is in memory; weights and parameters do not wait for it, so they are fetched under the layer before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dse.core.errors import InfeasibleError, Violation
from dse.program.tile.isa import ENGINES, PAYLOAD, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine

SEMAPHORES = (
    "a_ready", "a_free", "w_ready", "w_free", "acc_ready", "acc_free", "out_ready", "out_free", "res_ready", "res_free",
    "done", "p_free", "next_here", "h_ready",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(SEMAPHORES)}
_LIMITS = {op: {f.name: 1 << f.bits for f in fields if not f.signed} for op, fields in PAYLOAD.items()}
#: Strides that a single iteration never takes; they may be too long for their field.
_UNUSED: Mapping[Opcode, Mapping[str, tuple[str, ...]]] = {
    **{op: {f"n{i}": (f"ext_stride{i}", f"local_stride{i}") for i in range(3)} for op in (Opcode.LOAD, Opcode.STORE)},
    Opcode.MATMUL: {
        "n_blocks": ("a_stride_n",), "n_rows": ("a_stride_r",), "n_columns": ("a_stride_s",),
        "height": ("a_stride_y",), "width": ("a_stride_x",),
    },
}  # fmt: skip


@dataclass
class Draft:
    """A descriptor whose semaphores are not all known yet."""

    op: Opcode
    fields: dict[str, int]
    waits: dict[str, int] = field(default_factory=dict)
    signals: dict[str, int] = field(default_factory=dict)

    def final(self) -> Descriptor:
        """The descriptor; fields that are zero or never used are left out."""
        values = {name: int(value) for name, value in self.fields.items() if value}
        for count, strides in _UNUSED.get(self.op, {}).items():
            if values.get(count, 0) == 1:
                for stride in strides:
                    values.pop(stride, None)
        for verb, semaphores in (("wait", self.waits), ("signal", self.signals)):
            for slot, (name, amount) in enumerate(semaphores.items()):
                values[f"{verb}{slot}_id"] = _NUMBER[name]
                values[f"{verb}{slot}_amount"] = amount
        limits = _LIMITS[self.op]
        broken = [
            Violation(f"{self.op.name} {name}", value, limits[name] - 1, "", "descriptor field")
            for name, value in values.items()
            if value >= limits.get(name, value + 1)
        ]
        if broken:
            raise InfeasibleError("a tile", broken)
        return Descriptor(self.op, values)


class Stream:
    """Queues of one step and the state of its buffers."""

    def __init__(self, machine: Machine, buffers: int, step: int, *, take_turns: bool = False) -> None:
        self.machine, self.buffers = machine, buffers
        self.undone = 0
        self.queues: dict[str, list[Draft]] = {engine: [] for engine in ENGINES}
        self.tiles = dict.fromkeys(("a", "w", "acc", "out", "res", "p"), 0)
        self.step = step
        self.add("matmul", Opcode.SYNC, {}, signals={"a_free": buffers, "w_free": buffers})
        # with one credit no matmul begins before the last tile's results are out of the accumulators
        self.add("vector", Opcode.SYNC, {}, signals={"acc_free": 1 if take_turns else buffers, "res_free": buffers})
        self.add("store", Opcode.SYNC, {}, signals={"out_free": buffers})
        # parameters alternate by layer, whatever tiles do
        self.add("vector", Opcode.SYNC, {}, signals={"p_free": 2})

    def add(
        self,
        engine: str,
        op: Opcode,
        fields: Mapping[str, int],
        waits: Mapping[str, int] | None = None,
        signals: Mapping[str, int] | None = None,
    ) -> Draft:
        """Append a descriptor of the present layer."""
        draft = Draft(op, {"layer": self.step & 0xFFF, **fields}, dict(waits or {}), dict(signals or {}))
        self.queues[engine].append(draft)
        return draft

    def buffer(self, name: str, memory: MemoryId) -> int:
        """First word of the buffer that the next tile of `name` fills; tiles take turns."""
        count = self.tiles[name]
        self.tiles[name] += 1
        turns = 2 if name == "p" else self.buffers
        return count % turns * self.machine.half(memory) if turns == 2 else 0

    def after_results(self, *, weights: bool) -> dict[str, int]:
        """What a LOAD waits for: results that a later tile must not overtake, none of them when it overlaps.

        A single buffer means that nothing overlaps: then loads of weights, which share a channel, wait too.
        """
        if not self.undone or (weights and self.buffers > 1):
            return {}
        count, self.undone = self.undone, 0
        return {"done": count}

    def final(self) -> dict[str, tuple[Descriptor, ...]]:
        """Straight queues without HALT."""
        return {engine: tuple(draft.final() for draft in drafts) for engine, drafts in self.queues.items()}
