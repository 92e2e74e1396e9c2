"""ONNX: reading networks into a Graph, and writing quantized graphs as QLinear operators."""

from workloads.onnx.export import export_quantized
from workloads.onnx.frontend import OnnxFrontend
from workloads.onnx.reader import read_model

__all__ = ["OnnxFrontend", "export_quantized", "read_model"]
