"""The front end for `.onnx` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dse.ir.frontend import Frontend
from dse.ir.graph import Graph
from workloads.onnx.export import export_quantized
from workloads.onnx.reader import read_model


class OnnxFrontend(Frontend):
    """Reads ONNX models (opset 7 and newer) whose weights are constants."""

    name = "onnx"
    suffixes = (".onnx",)
    writes = True

    def load(self, reference: str, folder: Path, dims: Mapping[str, int]) -> Graph:
        """Read the model file `reference`, a path taken relative to `folder`; `dims` binds symbolic dimensions.

        Raises
        ------
        ModelError: missing, damaged or oversized file, unsupported op, unbound dimension, external data elsewhere.
        """
        return read_model(folder / reference, dims, source=reference)

    def write(self, graph: Graph, path: Path) -> None:
        """Write a quantized graph with QLinear operators, which onnxruntime runs.

        Raises
        ------
        ModelError: an op without QLinear form.
        """
        path.write_bytes(export_quantized(graph).SerializeToString())
