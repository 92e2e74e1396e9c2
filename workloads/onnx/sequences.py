"""LSTM, GRU and RNN, kept whole as one op over the sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dse.ir.graph import Tensor
from dse.ir.loopnest import GATES
from dse.ir.recurrent import DEFAULT_FUNCTIONS, GATE_FUNCTIONS
from workloads.onnx.node import Array, Node

#: ONNX writes function names in CamelCase, in any case.
_FUNCTIONS = {name.replace("_", ""): name for name in GATE_FUNCTIONS}
_MAX_STEPS = 1 << 20


def recurrent(node: Node) -> None:
    """LSTM, GRU, RNN with constant weights; batch-first layout is turned into time-first."""
    weights = node.constant(1, "W"), node.constant(2, "R")
    emit_recurrent(node, node.op_type.lower(), weights, (node.inputs[1], node.inputs[2]), node.inputs[3:8])


def dynamic_quantize_lstm(node: Node) -> None:
    """com.microsoft.DynamicQuantizeLSTM: its weights dequantized; the input and, step by step, the hidden states are
    rounded to 8 bits over the range they have."""
    names = []
    weights = []
    for index, what, scale_at in ((1, "W", 8), (2, "R", 10)):
        values = node.constant(index, what)
        scale: Array = node.constant(scale_at, f"{what} scale").astype(np.float32)
        zero: Array = np.zeros(1, np.int32)
        if node.has(scale_at + 1):
            zero = node.constant(scale_at + 1, f"{what} zero point").astype(np.int32)
        if values.ndim != 3:
            node.fail(f"{what} must have three dimensions, got {list(values.shape)}")
        # (directions,) or (directions, gates * hidden): the stored matrices are (directions, inputs, gates * hidden)
        scale = scale.reshape(len(values), 1, -1) if scale.size > 1 else scale.reshape(())
        zero = zero.reshape(len(values), 1, -1) if zero.size > 1 else zero.reshape(())
        real = ((values.astype(np.int32) - zero) * scale).astype(np.float32).transpose(0, 2, 1)
        weights.append(real)
        names.append(node.set_constant(real, node.internal(what)))
    emit_recurrent(node, "lstm", (weights[0], weights[1]), (names[0], names[1]), node.inputs[3:8], dynamic_range=True)


def emit_recurrent(
    node: Node,
    kind: str,
    weights: tuple[Array, Array],
    names: tuple[str, str],
    rest: tuple[str, ...],
    *,
    dynamic_range: bool = False,
) -> None:
    """Emit the op from weights already decoded; `rest` are bias, lengths and states, then peepholes."""
    direction = node.choice("direction", "forward", ("forward", "reverse", "bidirectional"))
    directions = 2 if direction == "bidirectional" else 1
    first, second = weights
    gates = GATES[kind]
    hidden = node.integer("hidden_size", second.shape[-1] if second.ndim == 3 else 0)
    x = node.tensor(0)
    batch_first = bool(node.integer("layout", 0))
    if len(x.shape) != 3:
        node.fail(f"its input must be (steps, batch, features), got {list(x.shape)}")
    source = x.name
    if batch_first:
        source = _turned(node, source, (1, 0, 2))
    steps, batch, features = node.builder.tensors[source].shape
    if steps > _MAX_STEPS:
        node.fail(f"{steps} steps are above the limit of {_MAX_STEPS}")
    wanted = (directions, gates * hidden, features), (directions, gates * hidden, hidden)
    if (first.shape, second.shape) != wanted or hidden < 1:
        found = f"{list(first.shape)} and {list(second.shape)}"
        node.fail(f"W and R must be {list(wanted[0])} and {list(wanted[1])}, got {found}")
    inputs = _further_inputs(node, rest, kind, (directions, batch, hidden), batch_first=batch_first)
    extra = {"dynamic_range": True} if dynamic_range else {}
    _emit(node, kind, (source, *names, *inputs), (steps, directions, batch, hidden), direction, batch_first, extra)


def _emit(
    node: Node,
    kind: str,
    inputs: tuple[str, ...],
    shape: tuple[int, int, int, int],
    direction: str,
    batch_first: bool,
    extra: dict[str, Any],
) -> None:
    _, directions, batch, hidden = shape
    wanted = [*node.outputs, "", ""][: 3 if kind == "lstm" else 2]
    perms = ((2, 0, 1, 3), (1, 0, 2), (1, 0, 2))
    produced: list[Tensor] = []
    turns: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = []
    for place, name in enumerate(wanted):
        size: tuple[int, ...] = shape if place == 0 else (directions, batch, hidden)
        own = name if name and not batch_first else node.internal(("sequence", "last_h", "last_c")[place])
        produced.append(Tensor(own, size))
        if name and batch_first:
            turns.append((own, name, perms[place], tuple(size[axis] for axis in perms[place])))
    attributes: dict[str, Any] = {
        "hidden": hidden,
        "direction": direction,
        "activations": _functions(node, kind, directions),
        **extra,
    }
    attributes["clip"] = node.number("clip", 0.0)
    if kind == "gru":
        attributes["linear_before_reset"] = bool(node.integer("linear_before_reset", 0))
    if kind == "lstm":
        attributes["input_forget"] = bool(node.integer("input_forget", 0))
    node.emit_many(kind, inputs, produced, **attributes)
    for own, name, perm, size in turns:
        node.emit("transpose", (own,), size, output=name, perm=perm)


def _functions(node: Node, kind: str, directions: int) -> tuple[str, ...]:
    names = node.texts("activations")
    if not names:
        return DEFAULT_FUNCTIONS[kind] * directions
    if "activation_alpha" in node.attributes or "activation_beta" in node.attributes:
        node.fail("activation_alpha and activation_beta are not supported, only the functions' default parameters")
    if len(names) != len(DEFAULT_FUNCTIONS[kind]) * directions:
        node.fail(f"{len(names)} activations for {directions} directions of {node.op_type}")
    for name in names:
        if name.lower() not in _FUNCTIONS:
            node.fail(f"activation {name!r} is not supported; supported: {', '.join(sorted(_FUNCTIONS))}")
    return tuple(_FUNCTIONS[name.lower()] for name in names)


def _further_inputs(
    node: Node, rest: tuple[str, ...], kind: str, state: tuple[int, int, int], *, batch_first: bool
) -> tuple[str, ...]:
    """Bias, sequence lengths, first h, for an lstm first c and peepholes; '' where absent, none behind the last."""
    directions, batch, hidden = state
    shapes = [(directions, 2 * GATES[kind] * hidden), (batch,), state, state, (directions, 3 * hidden)]
    names = list(rest[: 5 if kind == "lstm" else 3])
    for place, name in enumerate(names):
        if not name:
            continue
        tensor = node.builder.tensors.get(name)
        if tensor is None:
            node.fail(f"reads {name!r}, which nothing before it produces")
        if batch_first and place in (2, 3):
            if len(tensor.shape) != 3:
                node.fail(f"the first state must have three dimensions, got {list(tensor.shape)}")
            names[place] = _turned(node, name, (1, 0, 2))
            tensor = node.builder.tensors[names[place]]
        if tensor.shape != shapes[place]:
            what = ("B", "sequence_lens", "initial_h", "initial_c", "P")[place]
            node.fail(f"{what} must have the shape {list(shapes[place])}, got {list(tensor.shape)}")
    while names and not names[-1]:
        names.pop()
    return tuple(names)


def _turned(node: Node, name: str, perm: tuple[int, ...]) -> str:
    tensor = node.builder.tensors[name]
    if tensor.data is not None:
        turned = replace(tensor, name=node.internal("turned"))
        return node.set_constant(tensor.data.transpose(perm), turned.name)
    shape = tuple(tensor.shape[axis] for axis in perm)
    return node.emit("transpose", (name,), shape, output=node.internal("turned"), perm=perm)
