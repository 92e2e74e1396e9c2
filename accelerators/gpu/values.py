"""Values of a compiled network: products and convolutions tile by tile, everything else as in the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.gpu.interpreter import TileGrid, run_conv, run_gemm, run_winograd
from accelerators.gpu.kernels import Kernel
from accelerators.gpu.lower import VIEWS
from accelerators.gpu.timing import KernelTimes
from dse.core.errors import ModelError
from dse.ir import Graph
from dse.ir.graph import Op
from dse.ir.reference import run_op_float

Array = npt.NDArray[Any]
#: Types a product can be run in here, with the mantissa bits that operands keep.
_MANTISSA: Mapping[str, int] = {"fp32": 23, "fp16_fp32math": 10, "fp16": 10, "bf16": 7, "tf32": 10}


def run_kernels(
    graph: Graph, kernels: Sequence[Kernel], times: KernelTimes, dtype: str, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Outputs of the graph by name.

    Raises
    ------
    ModelError: an input is missing or misshapen, a constant has no data, or the type has no arithmetic here.
    """
    if dtype not in _MANTISSA:
        raise ModelError(
            f"{graph.source or graph.name}: values are computed in {', '.join(_MANTISSA)}; {dtype} is for time and "
            "energy only, since scales of a quantized GPU network are not modelled"
        )
    values = _inputs(graph, inputs)
    for index, kernel in enumerate(kernels):
        for place, op in enumerate(kernel.ops):
            _views(graph, op.inputs, values)
            if kernel.part == "tail" and place == 0:
                _finish(graph, op, values)
            elif place == 0 and kernel.form in ("gemm", "conv") and op.kind in ("conv", "gemm", "matmul"):
                values[op.outputs[0]] = _product(graph, op, values, times, index, dtype)
                if kernel.part == "whole":
                    _finish(graph, op, values)
            elif kernel.part == "bare":
                stripped = Op(op.name, op.kind, op.inputs[:2], op.outputs, {**op.attributes, "activation": "none"})
                values.update(run_op_float(graph, stripped, _operands(graph, stripped, values)))
            else:
                values.update(run_op_float(graph, op, _operands(graph, op, values)))
    _views(graph, graph.outputs, values)
    return {name: values[name] for name in graph.outputs}


def rounded(x: Array, dtype: str) -> npt.NDArray[np.float32]:
    """float32 values with as many mantissa bits as an operand of the type keeps, ties to even.

    The exponent range of float32 is kept: values that overflow or vanish in 16 bits are not what this is about.
    """
    bits = _MANTISSA[dtype]
    words = np.ascontiguousarray(x, np.float32).view(np.uint32)
    if bits == 23:
        return words.view(np.float32)
    drop = np.uint32(23 - bits)
    half = (np.uint32(1) << (drop - np.uint32(1))) - np.uint32(1)
    odd = (words >> drop) & np.uint32(1)
    return (((words + half + odd) >> drop) << drop).view(np.float32)


def _inputs(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for name in graph.inputs:
        shape = graph[name].shape
        given = np.asarray(inputs[name]) if name in inputs else None
        if given is None or given.ndim != len(shape) or given.shape[1:] != shape[1:]:
            found = "nothing" if given is None else list(given.shape)
            raise ModelError(
                f"{graph.source or graph.name}: input {name!r} takes {list(shape)} (the first dimension is free), "
                f"got {found}"
            )
        values[name] = given.astype(graph[name].dtype, copy=False)
    return values


def _views(graph: Graph, names: Sequence[str], values: dict[str, Array]) -> None:
    """Make tensors that are views of computed ones."""
    for name in names:
        if name and name not in values and graph[name].data is None:
            op = graph.producer(name)
            assert op is not None
            assert op.kind in VIEWS
            _views(graph, op.inputs, values)
            values.update(run_op_float(graph, op, _operands(graph, op, values)))


def _operands(graph: Graph, op: Op, values: Mapping[str, Array]) -> dict[str, Array]:
    return {name: values[name] for name in op.inputs if name and graph[name].data is None}


def _read(graph: Graph, name: str, values: Mapping[str, Array]) -> Array:
    data = values[name] if name in values else graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: {name!r} has no values")
    return data


def _product(graph: Graph, op: Op, values: Mapping[str, Array], times: KernelTimes, index: int, dtype: str) -> Array:
    """A layer without bias and activation, as the grid of tiles that was timed."""
    rows, columns, depth, split, _, _ = (int(value) for value in times.grid[index])
    grid = TileGrid(rows, columns, depth, split)
    left, right = (rounded(_read(graph, name, values), dtype) for name in op.inputs[:2])
    if op.kind == "matmul":
        flat = right.ndim == 1
        found = run_gemm(np.atleast_2d(left), right[:, None] if flat else right, grid)
        found = found[..., 0] if flat else found
        return found[0] if left.ndim == 1 else found
    if op.kind == "gemm":
        return run_gemm(left, np.ascontiguousarray(right.T), grid)
    pads, groups = tuple(op.attributes["pads"]), int(op.attributes["groups"])
    if times.algorithm[index].startswith("winograd"):
        return run_winograd(left, right, grid, edge=int(times.algorithm[index][-1]), pads=pads)
    return run_conv(
        left, right, grid, strides=tuple(op.attributes["strides"]), pads=pads,
        dilations=tuple(op.attributes["dilations"]), groups=groups,
    )  # fmt: skip


def _finish(graph: Graph, op: Op, values: dict[str, Array]) -> None:
    """Bias and activation of a layer, in place of its output."""
    name = op.outputs[0]
    result = values[name]
    if op.kind in ("conv", "conv_transpose", "gemm") and len(op.inputs) > 2 and op.inputs[2]:
        bias = _read(graph, op.inputs[2], values)
        result = result + (bias if op.kind == "gemm" else bias[:, None, None])
    activation = op.attributes.get("activation", "none")
    if activation != "none":
        result = np.clip(result, np.float32(0), np.float32(6) if activation == "relu6" else None)
    values[name] = result
