"""Kernels: what a network becomes on a GPU, each with its shape and what it must move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dse.ir.graph import Op

#: gemm, conv, depthwise, rows (softmax, normalization), recurrent: the models of that name; stream: bytes and
#: arithmetic of elements (elementwise ops, pools, reductions, copies).
Form = Literal["gemm", "conv", "depthwise", "rows", "stream", "recurrent"]


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel, the batch multiplied in.

    Parameters
    ----------
    name
        Of its first op.
    ops
        What it computes, in order; those behind the first are fused into it.
    form, shape
        Which model estimates it, and that model's sizes: gemm m, n, k, batch; conv and depthwise the fields of
        `ConvProblems` and `groups`; rows rows, columns; stream read, written (elements), operations; recurrent
        hidden, batch, steps, inputs, directions.
    kind
        Of the first op: the cell of a recurrent kernel, "softmax" or "layer_norm" of a row-wise one.
    macs
        Multiply-accumulates that a direct computation needs.
    fused_elements
        Elements that fused ops read beside the kernel's own operands.
    weight_elements
        Elements of recurrent weights, which the model of a warm step leaves out.
    transposed
        A transposed convolution: the gradient of the convolution that `shape` describes.
    part
        "bare": a layer without its bias and activation, which a kernel "tail" adds behind it.
    """

    name: str
    ops: tuple[Op, ...]
    form: Form
    kind: str
    shape: Mapping[str, int]
    macs: int = 0
    fused_elements: int = 0
    weight_elements: int = 0
    transposed: bool = False
    part: Literal["whole", "bare", "tail"] = "whole"

    @property
    def output(self) -> str:
        """The tensor that its last op writes."""
        return self.ops[-1].outputs[0]

    @property
    def label(self) -> str:
        """Kinds of its ops, for tables."""
        kinds = [op.kind for op in self.ops]
        if self.part == "tail":
            return "+".join(["bias and activation", *kinds[1:]])
        activation = self.ops[0].attributes.get("activation", "none") if self.part == "whole" else "none"
        return "+".join([kinds[0], *([activation] if activation != "none" else []), *kinds[1:]])
