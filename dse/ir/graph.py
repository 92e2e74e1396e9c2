"""Graph, Op and Tensor: a network without any notion of hardware.

Layouts are ONNX's: activations NCHW (or N,C for vectors), convolution weights OIHW, dense weights
(out, in). Ops are kept in topological order; each tensor has at most one producer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.kinds import MAC_KINDS, OP_KINDS, PARAMETER_KINDS

#: Bytes of one element.
DTYPES = {
    "float32": 4, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (integer - zero_point).

    Parameters
    ----------
    scale
        float32 values: one, or one per slice along `axis`.
    zero_point
        One integer (weights per channel are symmetric: 0).
    axis
        None for per-tensor, else the axis of `scale`.
    bits
        Significant bits: 8, or 4 for weights of +-7 held in int8.
    """

    scale: tuple[float, ...]
    zero_point: int = 0
    axis: int | None = None
    bits: int = 8


@dataclass(frozen=True, eq=False)
class Tensor:
    """A named array: shape, dtype (a key of `DTYPES`), quantization, and data when it is constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    quantization: Quantization | None = None
    data: npt.NDArray[Any] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory; 4-bit weights count half a byte each (rounded up)."""
        bits = 4 if self.quantization is not None and self.quantization.bits == 4 else 8 * DTYPES[self.dtype]
        return (self.elements * bits + 7) // 8


@dataclass(frozen=True, eq=False)
class Op:
    """One operation: `kind` is one of `dse.ir.kinds.OP_KINDS`; inputs and outputs are tensor names ('' = absent)."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def with_attributes(self, **changes: Any) -> Op:
        """The same op with some attributes changed."""
        return replace(self, attributes={**self.attributes, **changes})


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: tensors by name, ops in topological order, names of its inputs and outputs.

    `source` says where it came from (file or builder), for messages and run folders.
    """

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str = ""

    def __post_init__(self) -> None:
        known = set(self.inputs) | {name for name, tensor in self.tensors.items() if tensor.data is not None}
        for op in self.ops:
            if op.kind not in OP_KINDS:
                raise ModelError(f"{self.source or self.name}: op {op.name!r} has the unknown kind {op.kind!r}")
            for name in op.inputs:
                if name and name not in known:
                    raise ModelError(
                        f"{self.source or self.name}: op {op.name!r} reads {name!r}, which nothing before it produces"
                    )
            for name in op.outputs:
                if name in known:
                    raise ModelError(f"{self.source or self.name}: tensor {name!r} is produced twice")
                if name not in self.tensors:
                    raise ModelError(f"{self.source or self.name}: tensor {name!r} has no shape")
                known.add(name)
        for name in self.outputs:
            if name not in known:
                raise ModelError(f"{self.source or self.name}: output {name!r} is not produced")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def producer(self, name: str) -> Op | None:
        """The op that writes tensor `name`, or None for inputs and constants."""
        return next((op for op in self.ops if name in op.outputs), None)

    def consumers(self, name: str) -> list[Op]:
        """The ops that read tensor `name`, in order."""
        return [op for op in self.ops if name in op.inputs]

    def constants(self) -> Iterator[Tensor]:
        """Tensors with data, in name order."""
        return (self.tensors[name] for name in sorted(self.tensors) if self.tensors[name].data is not None)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers (`op_macs`): no bias, no pooling, no gate functions."""
        from dse.ir.loopnest import op_macs

        return sum(op_macs(self, op) for op in self.ops if op.kind in MAC_KINDS)

    @property
    def parameters(self) -> int:
        """Elements of constants: weights, biases and statistics of layers and norms, tables that are looked up, and
        constant operands of elementwise ops unless they are a single number."""
        names: set[str] = set()
        for op in self.ops:
            layer = op.kind in PARAMETER_KINDS
            for name in op.inputs[1:] if layer else op.inputs:
                tensor = self.tensors[name] if name else None
                if tensor is None or tensor.data is None or tensor.dtype in ("int64", "bool"):
                    continue
                if layer or tensor.elements > 1:
                    names.add(name)
        return sum(self.tensors[name].elements for name in names)


def scalar_scale(quantization: Quantization) -> np.float32:
    """The one scale of a per-tensor quantization, as float32."""
    return np.float32(quantization.scale[0])
