"""Passes that compute what is known before any input arrives: constants, biases, batch normalization."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.compiler.rewrite import fresh_name, rebuild, use_counts
from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op, Tensor
from dse.ir.reference import run_op_float

Array = npt.NDArray[Any]

#: Ops worth computing ahead; a conv of constants is not a network.
_FOLDABLE = ("identity", "reshape", "flatten", "add", "relu", "clip", "batch_norm", "softmax")


def fold_constants(graph: Graph) -> Graph:
    """Replace every data-moving or elementwise op whose inputs are all constants by its value."""
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    folded: dict[str, Tensor] = {}
    for op in graph.ops:
        if op.kind in _FOLDABLE and all(not name or tensors[name].data is not None for name in op.inputs):
            known = replace(graph, ops=(), outputs=(), tensors=tensors)
            name = op.outputs[0]
            with np.errstate(all="ignore"):
                folded[name] = tensors[name] = replace(tensors[name], data=run_op_float(known, op, {})[name])
        else:
            ops.append(op)
    return rebuild(graph, ops, folded) if folded else graph


def fuse_bias(graph: Graph) -> Graph:
    """Turn `conv or gemm, then add of a constant per output channel` into the bias of that conv or gemm."""
    uses = use_counts(graph)
    producers = {op.outputs[0]: op for op in graph.ops}
    tensors: dict[str, Tensor] = {}
    replaced: dict[str, Op] = {}
    dropped: set[str] = set()
    for op in graph.ops:
        if op.kind != "add":
            continue
        for layer_side in (0, 1):
            source, constant = op.inputs[layer_side], op.inputs[1 - layer_side]
            layer = replaced.get(source) or producers.get(source)
            if layer is None or not _plain_layer(layer) or uses[source] != 1:
                continue
            bias = _as_bias(graph, constant, source)
            if bias is None or graph[op.outputs[0]].shape != graph[source].shape:
                continue
            fused, tensor = _with_bias(graph, tensors, layer, bias + _bias_of(graph, tensors, layer))
            tensors[tensor.name] = tensor
            replaced[op.outputs[0]] = replace(
                fused, outputs=op.outputs, attributes={**fused.attributes, "activation": _activation(op)}
            )
            dropped.add(layer.outputs[0])
            break
    ops = [replaced.get(op.outputs[0], op) for op in graph.ops if op.outputs[0] not in dropped]
    return rebuild(graph, ops, tensors) if replaced else graph


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold each batch normalization, and each product with a constant per channel, into the conv or gemm before it.

    A batch norm without such a layer becomes a depthwise 1x1 conv (rank 4) so that every later stage sees only conv
    and gemm; a product without one stays what it is.

    Raises
    ------
    ModelError: statistics without data, or a batch norm of rank 2 that no gemm precedes.
    """
    uses = use_counts(graph)
    producers = {op.outputs[0]: op for op in graph.ops}
    tensors: dict[str, Tensor] = {}
    replaced: dict[str, Op] = {}
    dropped: set[str] = set()
    for op in graph.ops:
        affine = _affine(graph, op) if op.kind == "batch_norm" else _product(graph, op) if op.kind == "mul" else None
        if affine is None:
            continue
        source, factor, offset = affine
        layer = replaced.get(source) or producers.get(source)
        known = {**graph.tensors, **tensors}
        follows = layer is not None and _plain_layer(layer) and uses[source] == 1
        if op.kind == "mul" and not follows:
            continue
        if layer is not None and follows:
            weight = _data(known, layer.inputs[1], graph)
            name = fresh_name(known, f"{layer.inputs[1]}.folded")
            # weights that are not finite stay so, and are named by the quantizer
            with np.errstate(all="ignore"):
                scaled = weight * factor.astype(np.float32).reshape((-1,) + (1,) * (weight.ndim - 1))
                bias = _bias_of(graph, tensors, layer) * factor + offset
            tensors[name] = Tensor(name, weight.shape, data=scaled)
            layer = replace(layer, inputs=(layer.inputs[0], name, *layer.inputs[2:]))
            dropped.add(source)
        else:
            layer, weight_tensor = _depthwise(graph, op, known, factor)
            tensors[weight_tensor.name] = weight_tensor
            bias = offset
        fused, tensor = _with_bias(graph, tensors, layer, bias)
        tensors[tensor.name] = tensor
        replaced[op.outputs[0]] = replace(fused, outputs=op.outputs)
    ops = [replaced.get(op.outputs[0], op) for op in graph.ops if op.outputs[0] not in dropped]
    return rebuild(graph, ops, tensors) if replaced else graph


def _plain_layer(op: Op) -> bool:
    return op.kind in ("conv", "gemm") and _activation(op) == "none"


def _activation(op: Op) -> str:
    return str(op.attributes.get("activation", "none"))


def _data(tensors: dict[str, Tensor], name: str, graph: Graph) -> Array:
    data = tensors[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: constant {name!r} has no values to fold")
    return data


def _bias_of(graph: Graph, tensors: dict[str, Tensor], layer: Op) -> npt.NDArray[np.float64]:
    """The bias of a layer, shape (M,), zeros when it has none; float64 so that folds do not pile up rounding."""
    if len(layer.inputs) > 2 and layer.inputs[2]:
        return _data({**graph.tensors, **tensors}, layer.inputs[2], graph).astype(np.float64)
    return np.zeros(graph[layer.outputs[0]].shape[1])


def _with_bias(graph: Graph, tensors: dict[str, Tensor], layer: Op, bias: npt.NDArray[np.float64]) -> tuple[Op, Tensor]:
    name = fresh_name({**graph.tensors, **tensors}, f"{layer.name}.bias")
    with np.errstate(over="ignore"):
        tensor = Tensor(name, bias.shape, data=bias.astype(np.float32))
    return replace(layer, inputs=(*layer.inputs[:2], name)), tensor


def _as_bias(graph: Graph, constant: str, layer_output: str) -> npt.NDArray[np.float64] | None:
    """A constant that is one value per channel (axis 1) of the layer's output, as shape (M,); else None."""
    data, shape = graph[constant].data, graph[layer_output].shape
    if data is None or data.ndim > len(shape) or graph[constant].quantization is not None:
        return None
    aligned = (1,) * (len(shape) - data.ndim) + data.shape
    if any(size != 1 for axis, size in enumerate(aligned) if axis != 1):
        return None
    with np.errstate(invalid="ignore"):
        # as in `_affine`: signalling NaNs
        return np.broadcast_to(data.reshape(aligned[1]), (shape[1],)).astype(np.float64)


#: A tensor, and what it becomes per channel: y = x * factor + offset.
_Affine = tuple[str, npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _product(graph: Graph, op: Op) -> _Affine | None:
    """A product with one constant per channel of the other side; else None."""
    for side in (0, 1):
        source, constant = op.inputs[side], op.inputs[1 - side]
        if graph[source].data is None and graph[source].shape == graph[op.outputs[0]].shape:
            # of rank 2 or more, as layers give
            factor = _as_bias(graph, constant, source) if len(graph[source].shape) > 1 else None
            if factor is not None:
                return source, factor, np.zeros_like(factor)
    return None


def _affine(graph: Graph, op: Op) -> _Affine:
    """A batch norm from (scale, bias, mean, variance)."""
    tensors = dict(graph.tensors)
    with np.errstate(invalid="ignore"):
        # constants of a damaged file may be signalling NaNs
        scale, bias, mean, variance = (_data(tensors, name, graph).astype(np.float64) for name in op.inputs[1:5])
    epsilon = float(op.attributes["epsilon"])
    if (variance + epsilon <= 0).any():
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r}: variance {variance.min():g} + epsilon {epsilon:g} "
            "must be positive"
        )
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + epsilon)
        return op.inputs[0], factor, bias - mean * factor


def _depthwise(graph: Graph, op: Op, known: dict[str, Tensor], factor: npt.NDArray[np.float64]) -> tuple[Op, Tensor]:
    shape = graph[op.inputs[0]].shape
    if len(shape) != 4:
        raise ModelError(
            f"{graph.source or graph.name}: batch norm {op.name!r} works on shape {list(shape)} without a dense "
            "layer right before it; it can be folded only there, or on NCHW maps"
        )
    channels = shape[1]
    name = fresh_name(known, f"{op.name}.weight")
    weight = Tensor(name, (channels, 1, 1, 1), data=factor.reshape(-1, 1, 1, 1).astype(np.float32))
    attributes = {
        "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": channels, "activation": "none",
    }  # fmt: skip
    return Op(op.name, "conv", (op.inputs[0], name), op.outputs, attributes), weight
