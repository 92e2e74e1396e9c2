"""Ops that move values and never change them: shapes, slices, padding, lookup. In any number format.

The leading dimension may differ from the graph's (a larger batch): shapes that the graph fixes are adapted to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dse.ir.graph import Graph, Op
from dse.ir.quantized import quantize_array
from dse.ir.windows import Array

Operands = list[Array | None]


def _flatten(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    return x.reshape(math.prod(x.shape[: int(op.attributes["axis"])]), -1)


def _reshape(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    before, after = graph[op.inputs[0]].shape, graph[op.outputs[0]].shape
    return x.reshape(after if x.shape == before else _rebatched(x.shape, before, after))


def _rebatched(shape: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """The target of a reshape for a batch of another size, which lengthens one axis of `before`, wherever that is."""
    changed = [axis for axis, (new, old) in enumerate(zip(shape, before, strict=True)) if new != old]
    if len(changed) != 1 or changed[0] == 0:
        # an outermost batch stays outermost, whatever is split off or joined behind it
        return (-1, *after[1:])
    outer = math.prod(before[: changed[0]])
    places = [place for place in range(len(after)) if math.prod(after[:place]) == outer]
    same = next((place for place in places if after[place] == before[changed[0]]), None)
    # a batch axis that vanishes joins the axis before it: row-major order keeps them together
    place = same if same is not None else max(0, places[-1] - (outer > 1)) if places else 0
    return (*after[:place], -1, *after[place + 1 :])


def _expand(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    before, after = graph[op.inputs[0]].shape, graph[op.outputs[0]].shape
    batched = len(before) == len(after) and before[:1] == after[:1]
    return np.broadcast_to(x, (x.shape[0], *after[1:]) if batched and after else after)


def _slice(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    attributes = op.attributes
    return x[slices(x.shape, attributes["starts"], attributes["ends"], attributes["axes"], attributes["steps"])]


def slices(
    shape: tuple[int, ...],
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...],
    steps: tuple[int, ...],
) -> tuple[slice, ...]:
    """The NumPy index of an ONNX slice; axes are non-negative."""
    index = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # walking backwards, an end below the range means "through the first element"
        stop = None if step < 0 and end < -shape[axis] else end
        index[axis] = slice(start, stop, step)
    return tuple(index)


def _pad(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    pads, mode = op.attributes["pads"], op.attributes["mode"]
    # negative pads crop
    crop = tuple(
        slice(max(0, -before), size + min(0, after) if after < 0 else None)
        for size, before, after in zip(x.shape, pads[: x.ndim], pads[x.ndim :], strict=True)
    )
    width = [(max(0, b), max(0, a)) for b, a in zip(pads[: x.ndim], pads[x.ndim :], strict=True)]
    if mode == "constant":
        quantization = graph[op.inputs[0]].quantization
        fill = op.attributes["value"]
        if quantization is not None:
            fill = quantize_array(fill, quantization)
        return np.pad(x[crop], width, constant_values=fill)
    return np.pad(x[crop], width, mode=mode)


def _gather(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    indices = rest[0]
    assert indices is not None
    axis = int(op.attributes["axis"])
    return np.take(x, indices.astype(np.int64), axis=axis)


def _concat(graph: Graph, op: Op, x: Array, rest: Operands) -> Array:
    parts, axis = [x, *(part for part in rest if part is not None)], int(op.attributes["axis"])
    # constants have the graph's batch, not the one at hand
    sizes = [max(part.shape[place] for part in parts) for place in range(x.ndim)]
    return np.concatenate(
        [np.broadcast_to(part, (*sizes[:axis], part.shape[axis], *sizes[axis + 1 :])) for part in parts], axis=axis
    )


#: kind -> function(graph, op, x, further operands).
MOVES: dict[str, Callable[[Graph, Op, Array, Operands], Array]] = {
    "identity": lambda graph, op, x, rest: x,
    "flatten": _flatten,
    "reshape": _reshape,
    "transpose": lambda graph, op, x, rest: np.transpose(x, op.attributes["perm"]),
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "expand": _expand,
    "tile": lambda graph, op, x, rest: np.tile(x, op.attributes["repeats"]),
}
