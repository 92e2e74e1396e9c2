"""Rewriting a Graph: passes return new graphs and share what they do not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dse.ir.graph import Graph, Op, Tensor


def rebuild(
    graph: Graph,
    ops: Iterable[Op],
    tensors: Mapping[str, Tensor] | None = None,
    *,
    outputs: tuple[str, ...] | None = None,
) -> Graph:
    """The graph with other ops, `tensors` added or replaced; ops and tensors that no output needs are dropped."""
    merged = {**graph.tensors, **(tensors or {})}
    ops = tuple(ops)
    wanted = set(graph.outputs if outputs is None else outputs)
    # what a later step reads comes behind its reader
    wanted.update(op.attributes["source"] for op in ops if op.kind == "previous")
    kept: list[Op] = []
    for op in reversed(ops):
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(name for name in op.inputs if name)
    wanted.update(graph.inputs, *(op.outputs for op in kept))
    return replace(
        graph,
        ops=tuple(reversed(kept)),
        tensors={name: tensor for name, tensor in merged.items() if name in wanted},
        outputs=graph.outputs if outputs is None else outputs,
    )


def use_counts(graph: Graph) -> Counter[str]:
    """How often each tensor is read: by ops, and once more when it is an output of the graph."""
    counts: Counter[str] = Counter(graph.outputs)
    for op in graph.ops:
        counts.update(name for name in op.inputs if name)
    return counts


def fresh_name(taken: Mapping[str, object], wish: str) -> str:
    """`wish`, or `wish` with the first free number behind it."""
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name


def renamed(op: Op, names: Mapping[str, str]) -> Op:
    """`op` with tensor names replaced."""
    return replace(
        op,
        inputs=tuple(names.get(name, name) for name in op.inputs),
        outputs=tuple(names.get(name, name) for name in op.outputs),
    )
