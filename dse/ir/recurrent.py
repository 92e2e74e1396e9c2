"""LSTM, GRU and RNN over whole sequences in float32, as ONNX defines them.

Shapes as in `dse.ir.kinds`: x (T, B, I), weights (D, gates * H, I) and (D, gates * H, H), states (D, B, H).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.ir.elementwise import UNARY
from dse.ir.graph import Op
from dse.ir.loopnest import GATES
from dse.ir.windows import Array

FloatArray = npt.NDArray[np.float32]

#: Parameters of the functions that have some, the defaults of ONNX.
_PARAMETERS: dict[str, dict[str, float]] = {
    "hard_sigmoid": {"alpha": 0.2, "beta": 0.5}, "leaky_relu": {"alpha": 0.01}, "elu": {"alpha": 1.0},
}  # fmt: skip
#: Functions a gate may have, by op kind.
GATE_FUNCTIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "leaky_relu", "elu", "softsign", "softplus")
#: Gate functions of one direction where the file names none.
DEFAULT_FUNCTIONS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}


#: Is told what a step computes: the direction, what it is ("gate0", ... before its function; "cell"), the values.
Observer = Callable[[int, str, FloatArray], None]


@dataclass(frozen=True)
class _Cell:
    """One direction's parameters."""

    recurrent: FloatArray
    input_bias: FloatArray
    hidden_bias: FloatArray
    peepholes: FloatArray
    functions: tuple[Callable[[FloatArray], FloatArray], ...]
    clip: float
    attributes: dict[str, Any]
    observe: Callable[[str, FloatArray], None]


def run_recurrent(
    op: Op, operands: list[Array | None], observe: Observer = lambda direction, what, values: None
) -> tuple[FloatArray, ...]:
    """(y, last h) of a gru or rnn, (y, last h, last c) of an lstm.

    Steps beyond a sequence's length give zeros in y; the last states are those at its own last step.
    """
    padded: list[Array | None] = [*operands, None, None, None, None, None]
    x, weight, recurrent, bias, lengths, first_h, first_c, peepholes = padded[:8]
    assert x is not None
    assert weight is not None
    assert recurrent is not None
    steps, batch, _ = x.shape
    hidden, gates, attributes = recurrent.shape[2], GATES[op.kind], dict(op.attributes)
    ends = np.full(batch, steps) if lengths is None else np.clip(lengths.astype(np.int64), 0, steps)
    backwards = walks_backwards(op)
    each = len(attributes["activations"]) // len(backwards)
    outputs: list[tuple[FloatArray, ...]] = []
    for index, backward in enumerate(backwards):
        both = np.zeros(2 * gates * hidden, np.float32) if bias is None else bias[index]
        cell = _Cell(
            recurrent[index], both[: gates * hidden], both[gates * hidden :],
            np.zeros(3 * hidden, np.float32) if peepholes is None else peepholes[index],
            tuple(gate_function(name) for name in attributes["activations"][index * each : (index + 1) * each]),
            float(attributes["clip"]), attributes, partial(observe, index),
        )  # fmt: skip
        states = [
            np.zeros((batch, hidden), np.float32) if first is None else first[index].astype(np.float32)
            for first in ((first_h, first_c) if op.kind == "lstm" else (first_h,))
        ]
        seen = _rounded(cell, ordered(x, ends, backward))
        outputs.append(_walk(op.kind, cell, seen @ weight[index].T, ends, states, backward))
    return tuple(np.stack(parts, 1 if place == 0 else 0) for place, parts in enumerate(zip(*outputs, strict=True)))


def walks_backwards(op: Op) -> tuple[bool, ...]:
    """Of each direction of a recurrent op, whether it walks the sequence from its end."""
    return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[op.attributes["direction"]]


def gate_function(name: str) -> Callable[[FloatArray], FloatArray]:
    """A function of `GATE_FUNCTIONS` with the parameters ONNX gives it by default."""
    rule, parameters = UNARY[name], _PARAMETERS.get(name, {})
    return lambda x: rule(x, parameters)


def ordered(x: Array, ends: Array, backward: bool) -> Array:
    """(T, B, ...) -> the sequences in the order they are walked: reversed within their own length."""
    if not backward:
        return x
    steps = np.arange(len(x))[:, None]
    index = np.where(steps < ends, ends - 1 - steps, steps)
    return x[index, np.arange(x.shape[1])]


def _walk(
    kind: str, cell: _Cell, projected: FloatArray, ends: Array, states: list[FloatArray], backward: bool
) -> tuple[FloatArray, ...]:
    """All steps of one direction; `projected` is x times the input weights, (T, B, gates * H)."""
    step_of = _STEPS[kind]
    y = np.zeros((*projected.shape[:2], cell.recurrent.shape[1]), np.float32)
    for step, row in enumerate(projected):
        active = (step < ends)[:, None]
        updated = step_of(cell, row, *states)
        states = [np.where(active, new, old) for new, old in zip(updated, states, strict=True)]
        y[step] = np.where(active, states[0], np.float32(0))
    return (ordered(y, ends, backward), *states)


def _clipped(cell: _Cell, gate: int, values: FloatArray) -> FloatArray:
    cell.observe(f"gate{gate}", values)
    return np.clip(values, -cell.clip, cell.clip) if cell.clip else values


def _rounded(cell: _Cell, values: Array) -> Array:
    """What a matrix is multiplied with: of a dynamically quantized layer the values on 256 codes over their range.

    Ranges are those of onnxruntime's DynamicQuantizeLSTM: one of the whole input, one of each step's hidden states.
    """
    if not cell.attributes.get("dynamic_range"):
        return values
    low, high = np.float32(min(0, values.min())), np.float32(max(0, values.max()))
    if low == high:
        return values
    scale = np.float32((high - low) / np.float32(255))
    zero = np.rint(np.clip(-low / scale, 0, 255))
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale, np.float32)


def _lstm_step(cell: _Cell, row: FloatArray, h: FloatArray, c: FloatArray) -> tuple[FloatArray, ...]:
    gate, candidate, output = cell.functions
    total = row + _rounded(cell, h) @ cell.recurrent.T + (cell.input_bias + cell.hidden_bias)
    i, o, f, g = np.split(total, 4, axis=1)
    peep_i, peep_o, peep_f = np.split(cell.peepholes, 3)
    i = gate(_clipped(cell, 0, i + peep_i * c))
    f = 1 - i if cell.attributes["input_forget"] else gate(_clipped(cell, 2, f + peep_f * c))
    c = f * c + i * candidate(_clipped(cell, 3, g))
    cell.observe("cell", c)
    return gate(_clipped(cell, 1, o + peep_o * c)) * output(c), c


def _gru_step(cell: _Cell, row: FloatArray, h: FloatArray) -> tuple[FloatArray, ...]:
    gate, candidate = cell.functions
    x_z, x_r, x_h = np.split(row + cell.input_bias, 3, axis=1)
    w_z, w_r, w_h = np.split(cell.recurrent, 3)
    b_z, b_r, b_h = np.split(cell.hidden_bias, 3)
    z = gate(_clipped(cell, 0, x_z + h @ w_z.T + b_z))
    r = gate(_clipped(cell, 1, x_r + h @ w_r.T + b_r))
    if cell.attributes["linear_before_reset"]:
        inner = x_h + r * (h @ w_h.T + b_h)
    else:
        inner = x_h + (r * h) @ w_h.T + b_h
    return ((1 - z) * candidate(_clipped(cell, 2, inner)) + z * h,)


def _rnn_step(cell: _Cell, row: FloatArray, h: FloatArray) -> tuple[FloatArray, ...]:
    total = row + h @ cell.recurrent.T + (cell.input_bias + cell.hidden_bias)
    return (cell.functions[0](_clipped(cell, 0, total)),)


_STEPS: dict[str, Callable[..., tuple[FloatArray, ...]]] = {"lstm": _lstm_step, "gru": _gru_step, "rnn": _rnn_step}
