"""One node of an ONNX graph with its attributes decoded, and the graph under construction around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import DTYPES, Op, Quantization, Tensor
from dse.ir.kinds import KEEPS_QUANTIZATION
from workloads.onnx.constants import MAX_ELEMENTS, ConstantLoader

Array = npt.NDArray[Any]


@dataclass
class GraphBuilder:
    """What has been read so far: tensors by name, ops in order, and where constants are charged.

    `aliases` renames tensors of the subgraph being read; `dequantized` gives for a constant that a DequantizeLinear
    made the integer constant it came from; `derived` holds constants already transposed or scaled, by their key.
    """

    source: str
    constants: ConstantLoader
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    op_names: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    dequantized: dict[str, str] = field(default_factory=dict)
    derived: dict[tuple[str, ...], str] = field(default_factory=dict)

    def unique_name(self, wish: str) -> str:
        """`wish`, numbered when an op of that name exists."""
        name, number = wish, 1
        while name in self.op_names:
            number += 1
            name = f"{wish}_{number}"
        self.op_names.add(name)
        return name


#: Characters of a value that an error shows.
_SHOWN = 60


def _shown(value: Any) -> str:
    """A value on one line, cut short: attributes may be whole tensors, whose text has a line per field."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Node:
    """A node: `attributes` as Python values, inputs by position ('' = absent)."""

    name: str
    op_type: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    builder: GraphBuilder

    def fail(self, message: str) -> NoReturn:
        """Raise a ModelError that names this node."""
        raise ModelError(f"{self.builder.source}: node {self.name!r} ({self.op_type}, opset {self.opset}): {message}")

    # -- inputs

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def tensor(self, index: int) -> Tensor:
        """Input `index`, which must have been produced already."""
        if not self.has(index):
            self.fail(f"input {index} is missing")
        tensor = self.builder.tensors.get(self.inputs[index])
        if tensor is None:
            self.fail(f"reads {self.inputs[index]!r}, which nothing before it produces")
        return tensor

    def constant(self, index: int, what: str) -> Array:
        """Values of input `index`, which must be constant; `what` names it in the message."""
        tensor = self.tensor(index)
        if tensor.data is None:
            self.fail(f"{what} {tensor.name!r} must be constant (an initializer or computed from constants)")
        return tensor.data

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """A constant input that lists integers."""
        values = self.constant(index, what)
        if values.ndim > 1 or values.dtype.kind not in "iu":
            self.fail(f"{what} must be a list of integers, got {values.dtype} of shape {list(values.shape)}")
        return tuple(int(value) for value in values.ravel())

    def all_constant(self) -> bool:
        """Whether every given input is constant."""
        return all(self.tensor(index).data is not None for index in range(len(self.inputs)) if self.has(index))

    # -- attributes

    def ints(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that lists integers."""
        value = self.attributes.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, int) for item in value):
            self.fail(f"attribute {key!r} must be a list of integers, got {_shown(value)}")
        return tuple(value)

    def integer(self, key: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, int):
            self.fail(f"attribute {key!r} must be an integer, got {_shown(value)}")
        return value

    def number(self, key: str, default: float) -> float:
        """A float attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, (int, float)):
            self.fail(f"attribute {key!r} must be a number, got {_shown(value)}")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(key, default)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if not isinstance(value, str):
            self.fail(f"attribute {key!r} must be a string, got {_shown(value)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """An attribute that lists strings; empty when absent."""
        value = self.attributes.get(key, ())
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, (bytes, str)) for item in value):
            self.fail(f"attribute {key!r} must be a list of strings, got {_shown(value)}")
        return tuple(item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in value)

    def choice(self, key: str, default: str, known: Sequence[str]) -> str:
        """A string attribute that must be one of `known`."""
        value = self.text(key, default)
        if value not in known:
            self.fail(f"{key} {value!r} is not supported; supported: {', '.join(known)}")
        return value

    def axis(self, value: int, rank: int) -> int:
        """A possibly negative axis of a tensor of `rank` dimensions, made non-negative."""
        if not -rank <= value < rank:
            self.fail(f"axis {value} does not exist in a tensor of {rank} dimensions")
        return value % rank

    # -- results

    def emit(
        self,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        /,
        *,
        output: str | None = None,
        dtype: str | None = None,
        quantization: Quantization | None = None,
        **attributes: Any,
    ) -> str:
        """Append an op that produces one tensor (this node's output unless named) and return its name.

        The dtype, and the quantization where the kind keeps it, are those of the first input unless given.
        """
        first = self.builder.tensors[inputs[0]]
        if dtype in (None, first.dtype) and quantization is None and kind in KEEPS_QUANTIZATION:
            quantization = first.quantization
        name = self.outputs[0] if output is None else output
        tensor = Tensor(name, shape, first.dtype if dtype is None else dtype, quantization)
        self.emit_many(kind, inputs, (tensor,), **attributes)
        return name

    def emit_many(self, kind: str, inputs: tuple[str, ...], outputs: Sequence[Tensor], /, **attributes: Any) -> None:
        """Append an op that produces `outputs`."""
        self._refuse_raw_integers(kind, inputs, outputs)
        for tensor in outputs:
            self._new_tensor(tensor)
            name, shape = tensor.name, list(tensor.shape)
            if any(size < 1 for size in shape):
                self.fail(f"its output {name!r} would have the empty shape {shape}")
            if np.prod(shape, dtype=np.float64) > MAX_ELEMENTS:
                self.fail(f"its output {name!r} of shape {shape} is above the limit of {MAX_ELEMENTS:,} elements")
        names = tuple(tensor.name for tensor in outputs)
        self.builder.ops.append(Op(self.builder.unique_name(self.name), kind, inputs, names, attributes))

    def _refuse_raw_integers(self, kind: str, inputs: tuple[str, ...], outputs: Sequence[Tensor]) -> None:
        """Quantized tensors may only meet ops that know what their integers stand for."""
        if kind == "dequantize" or any(tensor.quantization is not None for tensor in outputs):
            return
        for name in inputs:
            if name and self.builder.tensors[name].quantization is not None:
                self.fail(f"reads the quantized tensor {name!r} as plain integers; put a DequantizeLinear before it")

    def set_constant(self, values: Array, output: str | None = None) -> str:
        """Make this node's output (or a new tensor) a constant and return its name."""
        name = self.outputs[0] if output is None else output
        data = values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values
        if str(data.dtype) not in DTYPES:
            self.fail(f"its output {name!r} has the element type {data.dtype}; supported: {', '.join(DTYPES)}")
        self._new_tensor(Tensor(name, data.shape, str(data.dtype), data=data))
        return name

    def internal(self, suffix: str) -> str:
        """A free tensor name derived from this node's output."""
        name, number = f"{self.outputs[0]}.{suffix}", 1
        while name in self.builder.tensors:
            number += 1
            name = f"{self.outputs[0]}.{suffix}_{number}"
        return name

    def _new_tensor(self, tensor: Tensor) -> None:
        if tensor.name in self.builder.tensors:
            self.fail(f"writes {tensor.name!r}, which exists already")
        self.builder.tensors[tensor.name] = tensor
