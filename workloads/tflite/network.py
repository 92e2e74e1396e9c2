"""The graph under construction, and one operator of the file as its converter sees it.

TFLite stores four-dimensional tensors channels last (NHWC), a Graph channels first (NCHW). Every four-dimensional
tensor is turned, all others keep their order; where memory order matters (reshape, flatten) the turn is made explicit
with transpose ops, and a dense layer behind a flattened map gets its weight columns turned instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Op, Quantization, Tensor
from workloads.tflite.flat import RawOperator, RawSubgraph, RawTensor

Array = npt.NDArray[Any]

#: Elements of one tensor, and bytes of all constants together, that a network may ask for.
MAX_ELEMENTS = (1 << 31) - 1
MAX_CONSTANT_BYTES = 1 << 30
#: Strides, dilations, kernel sizes and single dimensions beyond this are damage.
MAX_EXTENT = 1 << 24

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_DTYPES = {"INT8": "int8", "UINT8": "uint8", "INT16": "int16", "INT32": "int32"}
#: Operators whose rule on int16 is known (`dse.ir.reference_int16`).
_INT16_OPS = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN",
    "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CONCATENATION", "PAD", "PADV2", "STRIDED_SLICE", "QUANTIZE",
)  # fmt: skip
_ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}
_ACTIVATION_NAMES = {2: "RELU_N1_TO_1", 4: "TANH", 5: "SIGN_BIT"}


def nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of the file in the order of the Graph."""
    return tuple(shape[axis] for axis in TO_NCHW) if len(shape) == 4 else shape


def nchw_axis(axis: int, rank: int) -> int:
    """An axis of a tensor of the file as an axis of the Graph's tensor."""
    return TO_NCHW.index(axis) if rank == 4 else axis


@dataclass(frozen=True)
class Variable:
    """A variable of a streaming network: its initial values (NCHW) and the tensors that hold it now and at first."""

    name: str
    initial: Array
    quantization: Quantization
    current: str = ""
    first: str = ""


@dataclass
class Network:
    """What has been built so far: tensors, ops, and which Graph tensor each tensor of the file became."""

    source: str
    subgraph: RawSubgraph
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    #: file index -> Graph tensor
    names: dict[int, str] = field(default_factory=dict)
    #: two-dimensional Graph tensor -> the NCHW tensor that it flattens in NHWC order
    flattened: dict[str, str] = field(default_factory=dict)
    #: padded tensor -> (its source, pads) where only rows and columns are padded
    padded: dict[str, tuple[str, tuple[int, int, int, int]]] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    #: file index of a resource -> variable
    handles: dict[int, str] = field(default_factory=dict)
    constant_bytes: int = 0

    def unique(self, wish: str) -> str:
        """A free tensor name."""
        name, number = wish, 1
        while name in self.tensors:
            number += 1
            name = f"{wish}_{number}"
        return name

    def declare(self, raw: RawTensor) -> str:
        """Make a Graph tensor for a tensor of the file that has no values, and return its name."""
        name = self.unique(raw.name or f"tensor_{raw.index}")
        tensor = Tensor(name, nchw(self.shape_of(raw)), self.dtype_of(raw), self.quantization_of(raw))
        self.tensors[name] = tensor
        self.names[raw.index] = name
        return name

    def constant(self, wish: str, data: Array, quantization: Quantization | None) -> str:
        """Add a constant (in Graph order) and return its name.

        Raises
        ------
        ModelError: all constants together exceed `MAX_CONSTANT_BYTES`.
        """
        self.constant_bytes += data.nbytes
        if self.constant_bytes > MAX_CONSTANT_BYTES:
            raise ModelError(f"{self.source}: constants above {MAX_CONSTANT_BYTES:,} bytes in total (at {wish!r})")
        name = self.unique(wish)
        data = np.ascontiguousarray(data)
        self.tensors[name] = Tensor(name, data.shape, str(data.dtype), quantization, data)
        return name

    def shape_of(self, raw: RawTensor) -> tuple[int, ...]:
        """The checked shape of a tensor, in the file's order."""
        if any(not 1 <= size <= MAX_EXTENT for size in raw.shape) or np.prod(raw.shape, dtype=float) > MAX_ELEMENTS:
            raise ModelError(
                f"{self.source}: tensor {raw.name!r} of shape {list(raw.shape)} must have 1 to {MAX_ELEMENTS:,} "
                f"elements and no dimension above {MAX_EXTENT:,}"
            )
        return raw.shape

    def dtype_of(self, raw: RawTensor) -> str:
        """The Graph's element type of a tensor."""
        if raw.dtype not in _DTYPES:
            raise ModelError(
                f"{self.source}: tensor {raw.name!r} has the type {raw.dtype}; supported are {', '.join(_DTYPES)} "
                "(a float network must be quantized to int8 first)"
            )
        return _DTYPES[raw.dtype]

    def quantization_of(self, raw: RawTensor) -> Quantization:
        """The one scale and zero point of an activation."""
        if len(raw.scale) != 1 or raw.scale[0] <= 0:
            raise ModelError(
                f"{self.source}: tensor {raw.name!r} needs one positive quantization scale, it has "
                f"{len(raw.scale) if len(raw.scale) != 1 else raw.scale[0]}"
            )
        bits = 16 if raw.dtype == "INT16" else 8
        if bits == 16 and raw.zero_point[0]:
            raise ModelError(f"{self.source}: tensor {raw.name!r} is INT16 and must have the zero point 0")
        return Quantization(raw.scale, raw.zero_point[0], None, bits)


@dataclass(frozen=True)
class Call:
    """One operator: its operands by position, its options, and how to append ops for it."""

    network: Network
    operator: RawOperator

    def fail(self, message: str) -> NoReturn:
        """Raise a ModelError that names this operator."""
        raise ModelError(f"{self.network.source}: op {self.operator.index} ({self.operator.kind}): {message}")

    # -- operands

    def has(self, position: int) -> bool:
        """Whether input `position` is given."""
        return position < len(self.operator.inputs) and self.operator.inputs[position] >= 0

    def raw(self, position: int) -> RawTensor:
        """Input `position` as the file has it."""
        if not self.has(position):
            self.fail(f"input {position} is missing")
        return self.network.subgraph.tensors[self.operator.inputs[position]]

    def raw_output(self, position: int = 0) -> RawTensor:
        """Output `position` as the file has it."""
        if not position < len(self.operator.outputs) or self.operator.outputs[position] < 0:
            self.fail(f"output {position} is missing")
        return self.network.subgraph.tensors[self.operator.outputs[position]]

    def option(self, name: str) -> Any:
        """An option of the operator's options table."""
        return self.operator.options[name]

    def values(self, position: int, what: str) -> Array:
        """Values of a constant input in the file's order; `what` names it in the message."""
        raw = self.raw(position)
        if raw.data is None:
            self.fail(f"{what} {raw.name!r} must be constant, of a supported type")
        return raw.data

    def integers(self, position: int, what: str) -> tuple[int, ...]:
        """A constant input that lists integers."""
        values = self.values(position, what)
        if values.ndim > 2 or values.dtype.kind not in "iu" or values.size > MAX_EXTENT:
            self.fail(f"{what} must be a list of integers, got {values.dtype} of shape {list(values.shape)}")
        return tuple(int(value) for value in values.ravel())

    def activation_input(self, position: int) -> Tensor:
        """Input `position` as a Graph tensor of int8 or int16: produced before, an input, or a constant."""
        raw, network = self.raw(position), self.network
        if raw.index not in network.names:
            if raw.data is None:
                self.fail(f"reads tensor {raw.name!r}, which nothing before it produces")
            shape = network.shape_of(raw)
            data = raw.data.transpose(TO_NCHW) if len(shape) == 4 else raw.data
            name = network.constant(raw.name or f"tensor_{raw.index}", data, network.quantization_of(raw))
            network.names[raw.index] = name
        tensor = network.tensors[network.names[raw.index]]
        known = ("int8", "int16") if self.operator.kind in _INT16_OPS else ("int8",)
        if tensor.dtype not in known:
            self.fail(f"input {raw.name!r} has the type {tensor.dtype}, only {' and '.join(known)} is supported here")
        return tensor

    def activation(self) -> str:
        """The fused activation by its Graph name."""
        code = self.option("FusedActivationFunction")
        if code not in _ACTIVATIONS:
            name = _ACTIVATION_NAMES.get(code, code)
            self.fail(f"the fused activation {name} is not supported; supported: NONE, RELU, RELU6")
        return _ACTIVATIONS[code]

    def check(self, what: str, value: int, low: int = 1, high: int = MAX_EXTENT) -> int:
        """`value` within bounds."""
        if not low <= value <= high:
            self.fail(f"{what} is {value}, it must be {low} to {high:,}")
        return value

    # -- results

    def emit(
        self,
        kind: str,
        inputs: tuple[str, ...],
        attributes: Mapping[str, Any],
        shape: tuple[int, ...],
        *,
        position: int = 0,
        dtype: str | None = None,
    ) -> str:
        """Append the op that produces output `position`, whose shape (file order) must come out as `shape`; its type
        is that of the first input unless given."""
        raw = self.raw_output(position)
        if raw.shape != shape:
            self.fail(f"its output {raw.name!r} is declared as {list(raw.shape)}, but comes out as {list(shape)}")
        if raw.index in self.network.names or raw.data is not None:
            self.fail(f"writes tensor {raw.name!r}, which has values already")
        output = self.network.declare(raw)
        wanted = self.network.tensors[inputs[0]].dtype if dtype is None else dtype
        if self.network.tensors[output].dtype != wanted:
            self.fail(f"its output {raw.name!r} has the type {raw.dtype}, only {wanted.upper()} is supported here")
        self._append(kind, inputs, output, attributes)
        return output

    def emit_internal(self, kind: str, source: str, shape: tuple[int, ...], /, **attributes: Any) -> str:
        """Append an op between the file's tensors: its output (Graph order) has the quantization of `source`."""
        before = self.network.tensors[source]
        name = self.network.unique(f"{source}.{kind}")
        self.network.tensors[name] = Tensor(name, shape, before.dtype, before.quantization)
        self._append(kind, (source,), name, attributes)
        return name

    def emit_before_output(
        self, kind: str, inputs: tuple[str, ...], attributes: Mapping[str, Any], shape: tuple[int, ...]
    ) -> str:
        """Append an op whose result (Graph order) still takes another op to become the file's output."""
        raw = self.raw_output()
        name = self.network.unique(f"{raw.name or f'tensor_{raw.index}'}.{kind}")
        self.network.tensors[name] = Tensor(
            name, shape, self.network.tensors[inputs[0]].dtype, self.network.quantization_of(raw)
        )
        self._append(kind, inputs, name, attributes)
        return name

    def _append(self, kind: str, inputs: tuple[str, ...], output: str, attributes: Mapping[str, Any]) -> None:
        name = f"{self.operator.kind.lower()}_{self.operator.index}"
        self.network.ops.append(Op(name, kind, inputs, (output,), dict(attributes)))

    def same_quantization(self, tensor: Tensor, other: RawTensor) -> None:
        """Fail unless both hold integers of the same scale and zero point (ops that only move data)."""
        if tensor.quantization != self.network.quantization_of(other):
            self.fail(f"{tensor.name!r} and {other.name!r} have different quantizations, which it cannot convert")
