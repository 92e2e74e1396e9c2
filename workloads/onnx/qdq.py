"""Quantize-dequantize graphs to integer graphs: dequantize, op, quantize become one op on integers.

The rules of the integers are those of `dse.ir.reference_int8`: layers and adds round as onnxruntime does when it fuses
the same ops, averages and everything else as the graph is written.
What has no integer form stays in float between its dequantize and quantize ops; when nothing stays, the graph's
inputs and outputs become int8 (and a final softmax is left to the host), as `dse.ir.quantized` describes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dse.compiler.rewrite import rebuild, renamed
from dse.ir.graph import Graph, Op, Quantization, Tensor
from dse.ir.kinds import BINARY_KINDS, COMPARISON_KINDS, KEEPS_QUANTIZATION, UNARY_KINDS

_LAYERS = ("conv", "gemm")
#: Kinds with an integer form.
_FUSABLE = frozenset((
    *_LAYERS, "matmul", "max_pool", "average_pool", "global_average_pool", "concat", "softmax", "resize",
    "layer_norm", "reduce_mean", *KEEPS_QUANTIZATION, *UNARY_KINDS, *BINARY_KINDS,
)) - frozenset(COMPARISON_KINDS)  # fmt: skip


def to_integers(graph: Graph, tensors: Mapping[str, Tensor], dequantized: Mapping[str, str]) -> Graph:
    """The graph with every fusable stretch on integers.

    Parameters
    ----------
    tensors
        All tensors that were read, integer constants included.
    dequantized
        For each constant that came out of a DequantizeLinear, the integer constant it was.
    """
    if not any(op.kind in ("quantize", "dequantize") for op in graph.ops):
        return graph
    fused = _Fuser(graph, tensors, dequantized).run()
    return _integer_ends(fused) or fused


class _Fuser:
    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], dequantized: Mapping[str, str]) -> None:
        self.graph, self.tensors = graph, tensors
        self.readers: dict[str, list[Op]] = defaultdict(list)
        for op in graph.ops:
            for name in dict.fromkeys(op.inputs):
                self.readers[name].append(op)
        #: Real tensor -> the integers it stands for.
        self.integers = {**dequantized, **{op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "dequantize"}}

    def run(self) -> Graph:
        """The graph with integer ops in place; what nothing reads any more is dropped."""
        ops: list[Op] = []
        names: dict[str, str] = {}
        replaced: set[str] = set()
        for op in self.graph.ops:
            if op.outputs[0] in replaced:
                continue
            found = self._integer_op(op) if op.kind in _FUSABLE else None
            if found is None:
                ops.append(renamed(op, names))
                continue
            fused, quantized = found
            ops.append(renamed(fused, names))
            replaced.update(quantized)
            names.update(dict.fromkeys(quantized[1:], quantized[0]))
        outputs = tuple(names.get(name, name) for name in self.graph.outputs)
        return rebuild(self.graph, ops, self.tensors, outputs=outputs)

    def _integer_op(self, op: Op) -> tuple[Op, list[str]] | None:
        """The op on integers and the names of the quantized tensors it makes, or None."""
        activation, result = self._activation(op)
        readers = self.readers[result]
        if not readers or result in self.graph.outputs or any(reader.kind != "quantize" for reader in readers):
            return None
        quantized = [reader.outputs[0] for reader in readers]
        target = self.tensors[quantized[0]].quantization
        if target is None or any(self.tensors[name].quantization != target for name in quantized):
            return None
        inputs = self._layer_inputs(op) if op.kind in _LAYERS else self._inputs(op)
        if inputs is None:
            return None
        moves = op.kind in KEEPS_QUANTIZATION and op.kind not in UNARY_KINDS
        if moves and self.tensors[inputs[0]].quantization != target:
            return None
        changes: dict[str, object] = {"activation": activation} if activation != "none" else {}
        if op.kind in ("average_pool", "global_average_pool") and target.bits == 8:
            changes["between_reals"] = True
        return replace(op.with_attributes(**changes), inputs=inputs, outputs=(quantized[0],)), quantized

    def _activation(self, op: Op) -> tuple[str, str]:
        """(activation, its output) when a relu or relu6 alone reads a layer or an add, else the op's own."""
        own, result = str(op.attributes.get("activation", "none")), op.outputs[0]
        readers = self.readers[result]
        if op.kind not in (*_LAYERS, "add") or own != "none" or len(readers) != 1 or result in self.graph.outputs:
            return own, result
        after = readers[0]
        if after.kind == "relu":
            return "relu", after.outputs[0]
        if after.kind == "clip" and after.attributes["low"] == 0:
            high = float(after.attributes["high"])
            if high == 6 or math.isinf(high):
                return ("relu6" if high == 6 else "relu"), after.outputs[0]
        return own, result

    def _inputs(self, op: Op) -> tuple[str, ...] | None:
        """Integers of every operand; scales, biases and indices stay what they are."""
        names = []
        for place, name in enumerate(op.inputs):
            if name in self.integers:
                quantization = self.tensors[self.integers[name]].quantization
                if quantization is None or quantization.axis is not None:
                    return None
                names.append(self.integers[name])
            elif place and op.kind in ("layer_norm", "gather") and self.tensors[name].data is not None:
                names.append(name)
            else:
                return None
        shapes = {self.tensors[name].shape for name in names}
        return None if op.kind in ("add", "mul") and len(shapes) > 1 else tuple(names)

    def _layer_inputs(self, op: Op) -> tuple[str, ...] | None:
        """Integers of x, symmetric weights and bias."""
        names = [self.integers.get(name, "") for name in op.inputs]
        if "" in names:
            return None
        x, weight, *bias = (self.tensors[name] for name in names)
        of_x, of_w = x.quantization, weight.quantization
        if of_x is None or of_w is None or of_x.axis is not None or of_w.zero_point or of_w.axis not in (None, 0):
            return None
        if x.dtype not in ("int8", "int16") or weight.dtype != "int8" or (bias and not _fits(bias[0], of_x, of_w)):
            return None
        return tuple(names)


def _fits(bias: Tensor, of_x: Quantization, of_w: Quantization) -> bool:
    """Whether a bias is int32 on the scale of the products it is added to."""
    if bias.dtype != "int32" or bias.quantization is None:
        return False
    wanted = of_x.scale[0] * np.asarray(of_w.scale)
    return bool(np.allclose(np.asarray(bias.quantization.scale), wanted, rtol=1e-3, atol=0))


def _integer_ends(graph: Graph) -> Graph | None:
    """The graph on integers from input to output, or None when some op needs real values."""
    tensors = dict(graph.tensors)
    stripped = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "softmax" and not _integer(tensors, op)}
    ends = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "dequantize"}
    starts = {op.outputs[0]: op.inputs[0] for op in graph.ops if op.kind == "quantize"}
    outputs = tuple(stripped.get(name, name) for name in graph.outputs)
    names: dict[str, str] = {}
    for name in outputs:
        integers = ends.get(name, "")
        if integers in (*graph.inputs, *names, *graph.outputs, *starts):
            return None
        if integers:
            names[integers] = name
    for made, source in starts.items():
        kinds = {tensors[other].quantization for other, begin in starts.items() if begin == source}
        if source not in graph.inputs or len(kinds) > 1 or made in graph.outputs:
            return None
        names[made] = source
    for old, new in names.items():
        tensors[new] = replace(tensors[old], name=new)
    gone = {*ends, *starts, *stripped}
    kept = tuple(renamed(op, names) for op in graph.ops if op.outputs[0] not in gone)
    used = {*graph.inputs, *outputs, *(name for op in kept for name in (*op.inputs, *op.outputs) if name)}
    real = gone.difference(names.values())
    if not kept or used & real or not all(_integer(tensors, op) for op in kept):
        return None
    if any(tensors[name].quantization is None for name in (*graph.inputs, *outputs)):
        return None
    remaining = {name: tensor for name, tensor in tensors.items() if name in used}
    return Graph(graph.name, remaining, kept, graph.inputs, outputs, graph.source)


def _integer(tensors: Mapping[str, Tensor], op: Op) -> bool:
    return all(tensors[name].quantization is not None for name in (op.inputs[0], *op.outputs))
