"""Which ops run on the array, which on the host, and what is only a change of view.

Convolutions and dense layers go to the array, with the residual add that consumes them when the vector unit can do
it (mode `q31`, decision `fuse_residual`). Reshapes move nothing. Of the rest, the element unit takes what it computes
exactly; what remains is a host operation with its name and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accelerators.systolic.attention import VectorLayer
from accelerators.systolic.layer import Layer, layer_of
from accelerators.systolic.maps import MapLayer
from accelerators.systolic.recurrent import RecurrentLayer, recurrent_layers, sequence_outputs
from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.kinds import MAC_KINDS, OP_KINDS, RECURRENT_KINDS

VIEWS = ("flatten", "reshape", "identity")
#: Everything that is no product of matrices; a reshape that is no view is a copy.
#: A product of two activations is left to the host too: the array takes its weights from constants.
HOST_KINDS = (
    *(kind for kind in OP_KINDS if kind not in (*MAC_KINDS, *VIEWS, "dynamic_quantize")),
    "matmul",
)


@dataclass(frozen=True)
class HostOp:
    """An op left to the host, and why."""

    op: Op
    reads: tuple[str, ...]
    output: str
    reason: str = ""


@dataclass(frozen=True)
class Partition:
    """Work in execution order, and for every tensor the tensor whose data it shares."""

    work: tuple[Layer | RecurrentLayer | VectorLayer | MapLayer | HostOp, ...]
    source: dict[str, str]


#: The work item of an op that the element unit computes, given where tensors lie; for other ops why it does not.
VectorRule = Callable[[Op, Mapping[str, str]], VectorLayer | MapLayer | str]
#: Of ops on a design without an element unit.
NO_UNIT = "the design has no element unit (hardware.state_kib is 0)"


def partition(graph: Graph, *, fuse_residual: bool, vector: VectorRule | None = None) -> Partition:
    """Assign every op of a prepared graph; `vector` says what the element unit takes, if there is one.

    Raises
    ------
    ModelError: an op kind that neither array nor host knows, or a reshape that is more than a view.
    """
    source: dict[str, str] = {name: name for name in graph.inputs}
    adds = _fusable_adds(graph) if fuse_residual else {}
    fused = {add.outputs[0] for add, _ in adds.values()}
    work: list[Layer | RecurrentLayer | VectorLayer | MapLayer | HostOp] = []
    for op in graph.ops:
        if op.kind in ("conv", "gemm"):
            add_and_other = adds.get(op.outputs[0])
            residual = source[add_and_other[1]] if add_and_other else None
            add = add_and_other[0] if add_and_other else None
            layer = layer_of(graph, op, source[op.inputs[0]], residual=residual, add=add)
            work.append(layer)
            source[op.outputs[0]] = layer.output
            source[layer.output] = layer.output
        elif op.outputs[0] in fused:
            continue
        elif op.kind in RECURRENT_KINDS:
            work += (found := recurrent_layers(graph, op, source[op.inputs[0]]))
            source |= {name: name for item in found for name in item.outputs}
        elif op.kind in VIEWS and _is_view(graph, op, source[op.inputs[0]]):
            source[op.outputs[0]] = source[op.inputs[0]]
        elif op.kind in HOST_KINDS or op.kind in VIEWS:
            item = _element_or_host(graph, op, source, vector)
            work.append(item)
            source[item.output] = item.output
        else:
            raise ModelError(
                f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) runs neither on the array nor on the host"
            )
    return Partition(tuple(work), source)


def _element_or_host(
    graph: Graph, op: Op, source: Mapping[str, str], vector: VectorRule | None
) -> VectorLayer | MapLayer | HostOp:
    found = NO_UNIT if vector is None else vector(op, source)
    if not isinstance(found, str):
        return found
    reads = tuple(source[name] for name in op.inputs if name and graph[name].data is None)
    return HostOp(op, reads, op.outputs[0], found)


def _is_view(graph: Graph, op: Op, data: str) -> bool:
    """Whether a reshape shares the bytes of `data`, which its input has.

    Tensors that are no maps lie row by row, maps as NHWC. A map flattened to (batch, features) is a view for dense
    layers, which undo the flattening (see `layer_of`).
    """
    before, after = graph[data].shape, graph[op.outputs[0]].shape
    if op.kind == "identity" or graph[op.inputs[0]].shape == after:
        return True
    if len(before) == 4 and data not in sequence_outputs(graph):
        readers = graph.consumers(op.outputs[0])
        flat = len(after) == 2 and after[0] == before[0]
        return flat and (before[2:] == (1, 1) or all(reader.kind in ("gemm", "softmax") for reader in readers))
    return len(after) != 4


def _fusable_adds(graph: Graph) -> dict[str, tuple[Op, str]]:
    """output of a conv -> (add op, other operand): adds that the vector unit can do behind that conv.

    The conv must come last of the two producers, feed only the add, and have no activation of its own.
    """
    # tensors have unique names, ops need not
    position = {op.outputs[0]: index for index, op in enumerate(graph.ops)}
    result: dict[str, tuple[Op, str]] = {}
    for add in graph.ops:
        if add.kind != "add" or len(add.inputs) != 2 or add.inputs[0] == add.inputs[1]:
            continue
        if any(graph[name].data is not None or len(graph[name].shape) != 4 for name in add.inputs):
            continue
        if graph[add.inputs[0]].shape != graph[add.inputs[1]].shape:
            continue
        producers = [graph.producer(name) for name in add.inputs]
        ranked = sorted(
            (position[producer.outputs[0]], side) for side, producer in enumerate(producers) if producer is not None
        )
        if not ranked:
            continue
        last, side = ranked[-1]
        conv = graph.ops[last]
        own, other = add.inputs[side], add.inputs[1 - side]
        other_position = position[p.outputs[0]] if (p := producers[1 - side]) is not None else -1
        if (
            conv.kind == "conv"
            and conv.attributes.get("activation", "none") == "none"
            and len(graph.consumers(own)) == 1
            and own not in graph.outputs
            and other_position < last
        ):
            result[conv.outputs[0]] = (add, other)
    return result
