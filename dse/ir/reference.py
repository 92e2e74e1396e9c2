"""Reference execution of a graph in NumPy: the values every program and every hardware must reproduce.

`run_float` computes in float32 (`dse.ir.reference_float`), and the integer stretches of a partly quantized graph in
integers. `run_quantized` computes the integers of a quantized graph (`dse.ir.reference_int8`) in one of the
requantization modes; mode `ort` equals onnxruntime's QLinear operators bit for bit. Graphs have fixed shapes, but the
leading (batch) dimension of the inputs may differ from the graph's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError, UsageError
from dse.ir.accumulate import accumulate
from dse.ir.graph import Graph, Op
from dse.ir.reference_float import Operands, float_op
from dse.ir.reference_int8 import quantized_op
from dse.ir.requantize import REFERENCE_MODES
from dse.ir.windows import Array

__all__ = ["accumulate", "run_float", "run_op_float", "run_op_quantized", "run_quantized"]


def run_float(graph: Graph, inputs: Mapping[str, npt.ArrayLike], *, keep: bool = False) -> dict[str, Array]:
    """Execute a float graph, or one that is quantized in part (its integers in mode `ort`).

    Parameters
    ----------
    inputs
        By name, shaped like the graph's inputs except for the leading dimension.
    keep
        Return every tensor an op produces (and the inputs), not only the graph's outputs.

    Raises
    ------
    ModelError: an input is missing or misshapen, or a constant has no data.
    """
    values = {name: np.asarray(array, graph[name].dtype) for name, array in _checked(graph, inputs).items()}
    return _execute(graph, values, lambda op, read: _mixed_op(graph, op, read), keep=keep)


def run_quantized(
    graph: Graph, inputs: Mapping[str, npt.NDArray[Any]], mode: str, *, keep: bool = False
) -> dict[str, Array]:
    """Execute a quantized graph on int8 (or int16) inputs, requantizing in `mode` ("ort", "q31" or "tflite").

    Parameters and `keep` as in `run_float`; results are int8 (or int16).

    Raises
    ------
    ModelError: as `run_float`, or an input that is not of the graph's integers, or an op without an integer rule.
    UsageError: unknown mode.
    """
    _check_mode(mode)
    values = _checked(graph, inputs)
    for name, array in values.items():
        wanted = "int16" if graph[name].dtype == "int16" else "int8"
        if array.dtype != wanted and graph[name].dtype in ("float32", "int8", "int16"):
            raise ModelError(
                f"{graph.source or graph.name}: quantized input {name!r} must be {wanted}, got {array.dtype}; "
                "quantize_input() converts real values"
            )
    return _execute(graph, values, lambda op, read: quantized_op(graph, op, read, mode), keep=keep)


def run_op_quantized(graph: Graph, op: Op, values: Mapping[str, npt.NDArray[Any]], mode: str) -> dict[str, Array]:
    """One op of a quantized graph: its non-constant inputs by name -> its outputs by name."""
    _check_mode(mode)
    return dict(zip(op.outputs, quantized_op(graph, op, _operands(graph, op, values), mode), strict=True))


def run_op_float(graph: Graph, op: Op, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """One op of a float graph: its non-constant inputs by name -> its outputs by name."""
    return dict(zip(op.outputs, _mixed_op(graph, op, _operands(graph, op, values)), strict=True))


# -- walking the graph -----------------------------------------------------------------------------------------


def _check_mode(mode: str) -> None:
    if mode not in REFERENCE_MODES:
        raise UsageError(f"{mode!r} is not a requantization mode; choose one of {', '.join(REFERENCE_MODES)}")


def _checked(graph: Graph, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for name in graph.inputs:
        if name not in inputs:
            raise ModelError(f"{graph.source or graph.name}: no value for input {name!r}")
        array, shape = np.asarray(inputs[name]), graph[name].shape
        if array.ndim != len(shape) or array.shape[1:] != shape[1:]:
            raise ModelError(
                f"{graph.source or graph.name}: input {name!r} has shape {list(array.shape)}, "
                f"the network takes {list(shape)} (the first dimension is free)"
            )
        values[name] = array
    return values


def _mixed_op(graph: Graph, op: Op, operands: Operands) -> tuple[Array, ...]:
    """Integers where the op reads and writes quantized int8 or int16, float elsewhere."""
    result, first = graph[op.outputs[0]], graph[op.inputs[0]]
    if result.quantization is not None and {result.dtype, first.dtype} <= {"int8", "int16"}:
        return quantized_op(graph, op, operands, "ort")
    return float_op(graph, op, operands)


def _operands(graph: Graph, op: Op, values: Mapping[str, Array]) -> Operands:
    """Input arrays of `op` in order; None for an absent optional input."""
    operands: Operands = []
    for name in op.inputs:
        data = None if not name else values[name] if name in values else graph[name].data
        if name and data is None:
            raise ModelError(f"{graph.source or graph.name}: op {op.name!r} reads {name!r}, which has no values")
        operands.append(data)
    return operands


def _execute(
    graph: Graph, values: dict[str, Array], step: Callable[[Op, Operands], tuple[Array, ...]], *, keep: bool
) -> dict[str, Array]:
    last_use = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    for index, op in enumerate(graph.ops):
        for name, array in zip(op.outputs, step(op, _operands(graph, op, values)), strict=True):
            if keep or name in last_use or name in graph.outputs:
                values[name] = array
        if not keep:
            for name in set(op.inputs):
                if name in values and last_use[name] == index and name not in graph.outputs:
                    del values[name]
    if keep:
        return values
    return {name: values[name] if name in values else _constant(graph, name) for name in graph.outputs}


def _constant(graph: Graph, name: str) -> Array:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: tensor {name!r} has no values")
    return data
