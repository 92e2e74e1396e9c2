"""The shape of a NIR graph: nested graphs taken apart, loops cut at neurons, nodes in an order that can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dse.core.errors import ModelError, nearest

Edge = tuple[str, str]
#: Node types by what they do. Stateful ones may be where a loop is cut.
NEURONS = ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Threshold")
STATEFUL = (*NEURONS, "Delay")
OTHERS = ("Input", "Output", "Affine", "Linear", "Conv1d", "Conv2d", "Scale", "Flatten", "SumPool2d", "AvgPool2d")
SUPPORTED = (*OTHERS, *STATEFUL)


@dataclass(frozen=True)
class FlatGraph:
    """Nodes by full name (`outer.inner`) in an order that can be run, with who feeds whom.

    `sources` lists the nodes whose outputs add up to a node's input; `delayed` the edges that carry the value of
    the step before.
    """

    nodes: Mapping[str, Mapping[str, Any]]
    order: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]
    delayed: frozenset[Edge]


def flatten_graph(container: Mapping[str, Any], source: str) -> FlatGraph:
    """Take nested graphs apart, check every edge, and order the nodes.

    Raises
    ------
    ModelError: an unsupported node, an edge to nowhere, an unfed node, or a loop without a neuron.
    """
    nodes, edges = _expand(container, source, "")
    for edge in edges:
        for end in edge:
            if end not in nodes:
                raise ModelError(f"{source}: edge {edge[0]!r} -> {edge[1]!r} names no node{nearest(end, nodes)}")
    if not any(node["type"] == "Input" for node in nodes.values()):
        raise ModelError(f"{source}: the graph has no Input node")
    if not any(node["type"] == "Output" for node in nodes.values()):
        raise ModelError(f"{source}: the graph has no Output node")
    # the same edge twice means the same connection, as the NIR tools read it
    unique = list(dict.fromkeys(edges))
    delayed: set[Edge] = set()
    while (loop := _find_loop(nodes, [edge for edge in unique if edge not in delayed])) is not None:
        delayed.add(_cut(loop, nodes, source))
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in unique:
        sources[end].append(start)
    for name, feeding in sources.items():
        if not feeding and nodes[name]["type"] != "Input":
            raise ModelError(f"{source}: node {name!r} ({nodes[name]['type']}) has no edge into it")
        if feeding and nodes[name]["type"] == "Input":
            raise ModelError(f"{source}: edge into the Input node {name!r}")
    order = _topological(nodes, [edge for edge in unique if edge not in delayed])
    return FlatGraph(nodes, order, {name: tuple(feed) for name, feed in sources.items()}, frozenset(delayed))


def _expand(container: Mapping[str, Any], source: str, prefix: str) -> tuple[dict[str, Mapping[str, Any]], list[Edge]]:
    """Nodes and edges of a graph and of the graphs in it. An inner graph's Input and Output nodes become joints."""
    inner, edges = container.get("nodes"), container.get("edges", [])
    where = prefix.rstrip(".") or "the graph"
    if not isinstance(inner, dict) or not isinstance(edges, list):
        raise ModelError(f"{source}: {where} needs groups 'nodes' and 'edges'")
    nodes: dict[str, Mapping[str, Any]] = {}
    found: list[Edge] = []
    entries: dict[str, list[str]] = {}
    exits: dict[str, list[str]] = {}
    for name, fields in inner.items():
        kind = fields.get("type") if isinstance(fields, dict) else None
        full = f"{prefix}{name}"
        if kind == "NIRGraph":
            below, links = _expand(fields, source, f"{full}.")
            entries[name] = [key for key, node in below.items() if _joint(key, node, full, "Input")]
            exits[name] = [key for key, node in below.items() if _joint(key, node, full, "Output")]
            nodes.update({key: _as_joint(node) if _is_own(key, full) else node for key, node in below.items()})
            found += links
        elif kind not in SUPPORTED:
            raise ModelError(f"{source}: node {full!r} has the unsupported type {kind!r}; supported: "
                             f"{', '.join(SUPPORTED)} and NIRGraph")  # fmt: skip
        else:
            nodes[full] = fields
    for edge in edges:
        if len(edge) != 2:
            raise ModelError(f"{source}: an edge of {where} has {len(edge)} ends")
        starts = _ends(edge[0], exits, prefix, "Output", source)
        found += [(start, end) for start in starts for end in _ends(edge[1], entries, prefix, "Input", source)]
    return nodes, found


def _is_own(key: str, full: str) -> bool:
    """Whether `key` is a node of graph `full` itself and not of one nested deeper."""
    return "." not in key.removeprefix(f"{full}.") or key.rpartition(".")[0] == full


def _joint(key: str, node: Mapping[str, Any], full: str, kind: str) -> bool:
    return node["type"] == kind and _is_own(key, full)


def _as_joint(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**node, "type": "joint"} if node["type"] in ("Input", "Output") else node


def _ends(name: str, joints: Mapping[str, list[str]], prefix: str, kind: str, source: str) -> list[str]:
    if name not in joints:
        return [f"{prefix}{name}"]
    if len(joints[name]) != 1:
        raise ModelError(
            f"{source}: nested graph {prefix + name!r} has {len(joints[name])} {kind} nodes; an edge needs exactly one"
        )
    return joints[name]


def _find_loop(nodes: Mapping[str, Any], edges: Sequence[Edge]) -> list[str] | None:
    """The nodes of one loop in order, or None. Depth first without recursion; Input nodes first."""
    following: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in edges:
        following[start].append(end)
    done: set[str] = set()
    for root in sorted(nodes, key=lambda name: nodes[name]["type"] != "Input"):
        if root in done:
            continue
        path, position = [root], {root: 0}
        pending = [iter(following[root])]
        while pending:
            step = next(pending[-1], None)
            if step is None:
                pending.pop()
                left = path.pop()
                del position[left]
                done.add(left)
            elif step in position:
                return path[position[step] :]
            elif step not in done:
                position[step] = len(path)
                path.append(step)
                pending.append(iter(following[step]))
    return None


def _cut(loop: Sequence[str], nodes: Mapping[str, Any], source: str) -> Edge:
    """The edge of a loop that carries the value of the step before: the one out of its last neuron."""
    for index in range(len(loop) - 1, -1, -1):
        if nodes[loop[index]]["type"] in STATEFUL:
            return loop[index], loop[(index + 1) % len(loop)]
    raise ModelError(f"{source}: the loop {' -> '.join([*loop, loop[0]])} holds no neuron that could delay it")


def _topological(nodes: Mapping[str, Any], edges: Sequence[Edge]) -> tuple[str, ...]:
    waiting = dict.fromkeys(nodes, 0)
    following: dict[str, list[str]] = {name: [] for name in nodes}
    for start, end in edges:
        waiting[end] += 1
        following[start].append(end)
    ready = [name for name in nodes if not waiting[name]]
    order = []
    while ready:
        name = ready.pop(0)
        order.append(name)
        for step in following[name]:
            waiting[step] -= 1
            if not waiting[step]:
                ready.append(step)
    return tuple(order)
