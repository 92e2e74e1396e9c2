"""A quantized graph with the float inputs and outputs of its original, for programs that know nothing of int8."""

from __future__ import annotations

from dataclasses import replace

from dse.compiler.rewrite import fresh_name, rebuild, renamed
from dse.ir.graph import Graph, Op, Tensor


def with_float_boundary(graph_int: Graph, graph_float: Graph) -> Graph:
    """`graph_int` between quantize and dequantize ops, under the input and output names of `graph_float`.

    A softmax that `strip_softmax` left out follows the dequantized logits, in float.
    """
    taken: dict[str, Tensor] = {**graph_float.tensors, **graph_int.tensors}
    names: dict[str, str] = {}
    tensors = dict(graph_int.tensors)
    for name in dict.fromkeys((*graph_int.inputs, *graph_int.outputs)):
        inner = names[name] = fresh_name(taken, f"{name}.int8")
        taken[inner] = tensors[inner] = replace(graph_int[name], name=inner)
        tensors[name] = replace(graph_int[name], dtype="float32", quantization=None)
    before = [Op(f"{name}.quantize", "quantize", (name,), (names[name],)) for name in graph_int.inputs]
    after = [Op(f"{name}.dequantize", "dequantize", (names[name],), (name,)) for name in graph_int.outputs]
    softmax = [op for op in graph_float.ops if op.kind == "softmax" and op.outputs[0] in graph_float.outputs]
    for op in softmax:
        tensors[op.outputs[0]] = graph_float[op.outputs[0]]
    ops = [*before, *(renamed(op, names) for op in graph_int.ops), *after, *softmax]
    return rebuild(graph_int, ops, tensors, outputs=graph_float.outputs)
