"""The hardware-free representation of a network: graph, ops, tensors, loop nests, reference execution."""

from dse.ir.graph import Graph, Op, Quantization, Tensor
from dse.ir.loopnest import Access, LoopNest, loop_nest, op_macs

__all__ = ["Access", "Graph", "LoopNest", "Op", "Quantization", "Tensor", "loop_nest", "op_macs"]
