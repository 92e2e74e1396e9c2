"""Descriptors on their way into queues: trees of loops, semaphores by name, fields without effect left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.program.tile.isa import ENGINES, Descriptor, Opcode

SEMAPHORE_NAMES = ("a_ready", "a_free", "w_ready", "w_free", "acc_ready", "acc_free", "out_ready", "out_free",
                   "res_ready", "res_free", "mid_ready", "fill_free")  # fmt: skip
_SEMAPHORE = {name: index for index, name in enumerate(SEMAPHORE_NAMES)}
#: By opcode, each count field with the strides that its iterations take.
_TRANSFER_STRIDES = {f"n{i}": (f"ext_stride{i}", f"local_stride{i}") for i in range(3)}
_STRIDES: Mapping[Opcode, Mapping[str, tuple[str, ...]]] = {
    Opcode.SYNC: {},
    Opcode.LOAD: _TRANSFER_STRIDES,
    Opcode.STORE: _TRANSFER_STRIDES,
    Opcode.MATMUL: {
        "n_rows": ("a_stride_r",), "n_columns": ("a_stride_s",), "height": ("a_stride_y",), "width": ("a_stride_x",),
    },
    Opcode.VECTOR: {},
    Opcode.ELEMENT: {},
    Opcode.POOL: {
        "n_blocks": ("a_stride_n",), "kernel_rows": ("a_stride_r",), "kernel_columns": ("a_stride_s",),
        "height": ("a_stride_y",), "width": ("a_stride_x",),
    },
    Opcode.FORWARD: {"height": ("out_stride_y",), "width": ("out_stride_x",)},
}  # fmt: skip


@dataclass(frozen=True)
class Loop:
    """`count` repetitions of a body."""

    count: int
    body: tuple[Node, ...]


Node = Loop | tuple[str, Descriptor]


def queues(nodes: Sequence[Node]) -> dict[str, tuple[Descriptor, ...]]:
    """One descriptor queue per engine, each ended by HALT; loops without descriptors of an engine vanish."""
    result = {}
    for engine in ENGINES:
        flat = _linear(nodes, engine)
        result[engine] = (*flat, Descriptor(Opcode.HALT))
    return result


def _linear(nodes: Sequence[Node], engine: str) -> list[Descriptor]:
    flat: list[Descriptor] = []
    for node in nodes:
        if isinstance(node, Loop):
            body = _linear(node.body, engine)
            if body:
                flat += [Descriptor(Opcode.LOOP, {"count": node.count, "body": len(body)}), *body]
        elif node[0] == engine:
            flat.append(node[1])
    return flat


def sync_fields(values: Mapping[str, int]) -> dict[str, int]:
    """Wait or signal fields from names like {"wait a_free": 3}; at most three of each."""
    fields: dict[str, int] = {}
    counters = {"wait": 0, "signal": 0}
    for key, amount in values.items():
        verb, name = key.split()
        slot = counters[verb]
        counters[verb] += 1
        fields[f"{verb}{slot}_id"] = _SEMAPHORE[name]
        fields[f"{verb}{slot}_amount"] = amount
    return fields


def make_descriptor(op: Opcode, fields: Mapping[str, int], step: int) -> Descriptor:
    """A descriptor of step `step` without fields that are 0 or have no effect."""
    # the stride of a single iteration is never taken, and may be too large for its field
    unused = {stride for count, strides in _STRIDES[op].items() if fields[count] == 1 for stride in strides}
    used = {name: value for name, value in fields.items() if value and name not in unused}
    return Descriptor(op, {"layer": step & 0xFFF, **used})
