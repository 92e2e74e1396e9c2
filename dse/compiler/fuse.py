"""Passes that leave fewer ops: identities dropped, activations fused, pools named for what they do; and `prepare`."""

from __future__ import annotations

import math
from dataclasses import replace

from dse.compiler.fold import fold_batch_norm, fold_constants, fuse_bias
from dse.compiler.rewrite import rebuild, renamed, use_counts
from dse.ir.graph import Graph, Op


def remove_identity(graph: Graph) -> Graph:
    """Drop identities; graph inputs and outputs keep their names (an identity between two of them stays)."""
    names: dict[str, str] = {}
    kept_names = {*graph.inputs, *graph.outputs}
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind != "identity":
            ops.append(op)
            continue
        source, target = names.get(op.inputs[0], op.inputs[0]), op.outputs[0]
        if target not in graph.outputs:
            names[target] = source
        elif source in kept_names or graph[source].data is not None:
            ops.append(op)
        else:
            # the output's name wins: whoever made or read the source now uses it
            names = {name: target if old == source else old for name, old in names.items()} | {source: target}
            kept_names.add(source)
    return rebuild(graph, [renamed(op, names) for op in ops]) if len(ops) < len(graph.ops) else graph


def fuse_activation(graph: Graph) -> Graph:
    """Fuse relu, and clip to [0, 6] or [0, infinity), into the conv, gemm or add that alone feeds it."""
    uses = use_counts(graph)
    producers = {op.outputs[0]: op for op in graph.ops}
    fused: dict[str, Op] = {}
    gone: set[str] = set()
    for op in graph.ops:
        activation = _as_activation(op)
        layer = producers.get(op.inputs[0]) if activation else None
        if layer is None or layer.kind not in ("conv", "gemm", "add") or uses[op.inputs[0]] != 1:
            continue
        if layer.attributes.get("activation", "none") != "none":
            continue
        fused[op.inputs[0]] = replace(layer.with_attributes(activation=activation), outputs=op.outputs)
        gone.add(op.outputs[0])
    ops = [fused.get(op.outputs[0], op) for op in graph.ops if op.outputs[0] not in gone]
    return rebuild(graph, ops) if fused else graph


def _as_activation(op: Op) -> str | None:
    if op.kind == "relu":
        return "relu"
    if op.kind != "clip" or op.attributes["low"] != 0:
        return None
    high = float(op.attributes["high"])
    # exporters write "no upper bound" as the largest float32
    return "relu6" if high == 6 else "relu" if math.isinf(high) or high > 3e38 else None


def name_global_pools(graph: Graph) -> Graph:
    """An unpadded average pool over the whole map is a global average pool."""

    def rename(op: Op) -> Op:
        if op.kind != "average_pool" or any(op.attributes["pads"]):
            return op
        if tuple(op.attributes["kernel"]) != graph[op.inputs[0]].shape[2:]:
            return op
        return Op(op.name, "global_average_pool", op.inputs, op.outputs)

    return replace(graph, ops=tuple(rename(op) for op in graph.ops))


def prepare(graph: Graph) -> Graph:
    """All passes in order: the graph that quantization, mapping and lowering take.

    What remains: conv and gemm with bias and activation, add with activation, pools, softmax, flatten and reshape,
    and relu or clip where no layer could take them.
    """
    for step in (
        remove_identity, fold_constants, fuse_bias, fold_batch_norm, fuse_bias, fuse_activation, name_global_pools,
    ):  # fmt: skip
        graph = step(graph)
    return graph
