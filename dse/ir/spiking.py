"""Reference execution of a spiking graph in float64, step by step: slow, and the word on what its ops mean.

The graph describes one time step. Ops run in order, so a spike crosses a whole feed-forward network within one step;
what a loop carries back arrives one step later (`previous`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op
from dse.ir.kinds import SPIKING_KINDS
from dse.ir.reference import run_op_float
from dse.ir.windows import windows

FloatArray = npt.NDArray[np.float64]


def is_spiking(graph: Graph) -> bool:
    """Whether the graph describes one time step of a spiking network."""
    return any(op.kind in SPIKING_KINDS for op in graph.ops)


def run_spiking(graph: Graph, inputs: Mapping[str, npt.ArrayLike], *, keep: bool = False) -> dict[str, FloatArray]:
    """Run a spiking network from rest.

    Parameters
    ----------
    inputs
        By name, shape (steps, batch, ...): what each input carries in every step, spikes or currents.
    keep
        Return every tensor that an op produces, not only the outputs.

    Returns
    -------
    By name, shape (steps, batch, ...): spikes as 0 and 1, or potentials of neurons that never fire.

    Raises
    ------
    ModelError: an input is missing or misshapen, inputs differ in steps or batch, or a constant has no data.
    """
    given = {name: _checked(graph, name, inputs) for name in graph.inputs}
    extents = {array.shape[:2] for array in given.values()}
    if len(extents) != 1:
        raise ModelError(f"{graph.source or graph.name}: inputs differ in steps and batch: {sorted(extents)}")
    steps, batch = extents.pop()
    states: dict[str, dict[str, FloatArray]] = {}
    names = [name for op in graph.ops for name in op.outputs] if keep else list(graph.outputs)
    traces: dict[str, list[FloatArray]] = {name: [] for name in names}
    values: dict[str, FloatArray] = {}
    for step in range(steps):
        before, values = values, {name: array[step] for name, array in given.items()}
        for op in graph.ops:
            values[op.outputs[0]] = _run_op(graph, op, values, before, states, batch)
        for name, trace in traces.items():
            trace.append(values[name])
    return {name: np.array(trace) for name, trace in traces.items()}


def _checked(graph: Graph, name: str, inputs: Mapping[str, npt.ArrayLike]) -> FloatArray:
    shape = graph[name].shape[1:]
    array = np.asarray(inputs[name], np.float64) if name in inputs else None
    if array is None or array.ndim < 2 or array.shape[2:] != shape:
        given = "nothing" if array is None else list(array.shape)
        wanted = ", ".join(["steps", "batch", *map(str, shape)])
        raise ModelError(f"{graph.source or graph.name}: input {name!r} needs shape ({wanted}), got {given}")
    return array


def _run_op(
    graph: Graph,
    op: Op,
    values: Mapping[str, FloatArray],
    before: Mapping[str, FloatArray],
    states: dict[str, dict[str, FloatArray]],
    batch: int,
) -> FloatArray:
    if op.kind == "previous":
        source = op.attributes["source"]
        return before[source] if source in before else np.zeros((batch, *graph[source].shape[1:]))
    if op.kind == "neuron":
        return run_neuron(graph, op, values[op.inputs[0]], states.setdefault(op.name, {}))
    if op.kind == "delay":
        return _delay(_constant(graph, op.inputs[1]), values[op.inputs[0]], states.setdefault(op.name, {}))
    if op.kind == "sum_pool":
        view = windows(
            values[op.inputs[0]], op.attributes["kernel"], op.attributes["strides"], op.attributes["pads"], 0.0
        )
        return np.asarray(view.sum(axis=(4, 5)))
    read = {name: values[name] for name in op.inputs if name in values}
    return np.asarray(run_op_float(_doubled(graph, op), op, read)[op.outputs[0]], np.float64)


def _doubled(graph: Graph, op: Op) -> Graph:
    """The constants of one op in float64: steps add up, and rounding with them."""
    tensors = dict(graph.tensors)
    for name in op.inputs:
        tensor = tensors[name] if name else None
        if tensor is not None and tensor.data is not None and tensor.dtype == "float32":
            tensors[name] = replace(tensor, data=tensor.data.astype(np.float64))
    return replace(graph, ops=(), outputs=(), tensors=tensors)


def run_neuron(graph: Graph, op: Op, x: npt.NDArray[Any], state: dict[str, FloatArray]) -> FloatArray:
    """One step of a neuron op on its input x (batch, ...): spikes, or the potential of neurons that never fire.

    `state` holds the potentials between steps and is changed; empty before the first.
    """
    keep, gain, offset = (_constant(graph, name) for name in op.inputs[1:4])
    if not state:
        state["u"], state["waiting"] = np.zeros_like(x), np.zeros_like(x)
        state["v"] = np.zeros(x.shape) + op.attributes.get("initial", 0.0)
    keep_current = _constant(graph, op.inputs[6]) if len(op.inputs) > 6 and op.inputs[6] else 0.0
    state["u"] = keep_current * state["u"] + gain * x
    held = state["waiting"] > 0
    state["v"] = np.where(held, state["v"], keep * state["v"] + state["u"] + offset)
    state["waiting"] = np.maximum(state["waiting"] - 1, 0)
    if not op.inputs[4]:
        return state["v"]
    threshold, reset = _constant(graph, op.inputs[4]), _constant(graph, op.inputs[5])
    above = state["v"] >= threshold if op.attributes.get("inclusive", False) else state["v"] > threshold
    fired = above & ~held
    after = state["v"] - reset if op.attributes.get("subtract", False) else np.broadcast_to(reset, x.shape)
    state["v"] = np.where(fired, after, state["v"])
    state["waiting"] = np.where(fired, float(op.attributes.get("refractory", 0)), state["waiting"])
    return fired.astype(np.float64)


def _delay(steps: FloatArray, x: FloatArray, state: dict[str, FloatArray]) -> FloatArray:
    depth = int(steps.max(initial=0)) + 1
    line = state.get("line", np.zeros((depth, *x.shape)))
    line = np.concatenate([x[None], line[:-1]])
    state["line"] = line
    index = np.broadcast_to(steps.astype(np.int64), x.shape)[None]
    return np.asarray(np.take_along_axis(line, index, axis=0)[0])


def _constant(graph: Graph, name: str) -> npt.NDArray[Any]:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: constant {name!r} has no values")
    return data.astype(np.float64)
