"""Counting where a quantized graph, run by us and by onnxruntime, differs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from dse.ir import Graph
from dse.ir.reference import run_quantized
from workloads.onnx import export_quantized

LEVELS = {
    "unoptimised": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "optimised": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def session(model: onnx.ModelProto, level: str) -> Any:
    """A session on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = 1
    # the C++ side spins on threads of its own otherwise
    options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.onnx")
        path.write_bytes(model.SerializeToString())
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def every_tensor(graph: Graph) -> Graph:
    """The graph with the int8 output of every op as an output of the graph."""
    names = tuple(name for op in graph.ops for name in op.outputs if graph[name].dtype == "int8")
    return Graph(graph.name, graph.tensors, graph.ops, graph.inputs, names)


def differences(graph: Graph, inputs: dict[str, Any], level: str) -> dict[str, tuple[int, int]]:
    """(values that differ, values) of every output over a batch, one sample at a time."""
    runner = session(export_quantized(graph), level)
    found = dict.fromkeys(graph.outputs, (0, 0))
    for index in range(len(next(iter(inputs.values())))):
        one = {name: array[index : index + 1] for name, array in inputs.items()}
        expected = runner.run(list(graph.outputs), one)
        got = run_quantized(graph, one, "ort")
        for name, values in zip(graph.outputs, expected, strict=True):
            wrong, total = found[name]
            found[name] = wrong + int((values != got[name]).sum()), total + values.size
    return found
