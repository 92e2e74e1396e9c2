"""Converter of UNIDIRECTIONAL_SEQUENCE_LSTM in its integer form (int8 activations and weights, int16 cell)."""

from __future__ import annotations

import math

import numpy as np

from dse.ir.graph import Quantization
from workloads.tflite.network import Array, Call

#: Positions of the operands by gate, in the gate order of the Graph's lstm: input, output, forget, cell.
_WEIGHTS, _RECURRENT, _BIAS = (1, 4, 2, 3), (5, 8, 6, 7), (12, 15, 13, 14)
_PEEPHOLES, _PROJECTION, _LAYER_NORM = (9, 10, 11), (16, 17), (20, 21, 22, 23)
_HIDDEN_STATE, _CELL_STATE = 18, 19
_TANH = 4
#: Exponents of the cell's scale for which the kernels have a tanh (15 + exponent integer bits).
_CELL_EXPONENTS = range(-15, -8)


def lstm(call: Call) -> None:
    """An LSTM without peepholes, projection, layer norm or coupled gates; its state starts at zero on every run."""
    for positions, what in ((_PEEPHOLES, "peepholes"), (_PROJECTION, "projection"), (_LAYER_NORM, "layer norm")):
        if any(call.has(position) for position in positions):
            call.fail(f"{what} is not supported; supported is the basic LSTM")
    if not call.has(_WEIGHTS[0]):
        call.fail("coupled input and forget gates are not supported; supported is the basic LSTM")
    if call.option("FusedActivationFunction") != _TANH:
        call.fail(f"activation {call.option('FusedActivationFunction')} is not supported, only TANH")
    x = call.activation_input(0)
    if len(x.shape) != 3:
        call.fail(f"input {x.name!r} must have 3 dimensions, it has the shape {list(x.shape)}")
    hidden = call.values(_WEIGHTS[0], "the weights").shape[0]
    _check_state(call)
    weight = _stacked(call, _WEIGHTS, (hidden, x.shape[2]))
    recurrent = _stacked(call, _RECURRENT, (hidden, hidden))
    bias = call.network.constant(f"{call.raw_output().name}.bias", _biases(call, hidden), None)
    attributes = {
        "hidden": hidden, "direction": "forward", "activations": ("sigmoid", "tanh", "tanh"),
        "clip": 0.0, "input_forget": False, **_cell(call),
    }  # fmt: skip
    time_major = bool(call.option("TimeMajor"))
    steps, batch = x.shape[:2] if time_major else (x.shape[1], x.shape[0])
    source = x.name
    if not time_major:
        source = call.emit_internal("transpose", x.name, (steps, batch, x.shape[2]), perm=(1, 0, 2))
    result = call.emit_before_output("lstm", (source, weight, recurrent, bias), attributes, (steps, 1, batch, hidden))
    shape = (*call.raw(0).shape[:2], hidden)
    if not time_major:
        result = call.emit_internal("transpose", result, (batch, 1, steps, hidden), perm=(2, 1, 0, 3))
    # not reshape_to: (batch, 1, steps, hidden) is no map in NCHW order
    call.emit("reshape", (result,), {"shape": shape}, shape)


def _stacked(call: Call, positions: tuple[int, ...], shape: tuple[int, int]) -> str:
    """The gates' matrices as one constant (1, 4 * hidden, columns) with one scale a row."""
    parts, scales = [], []
    for position in positions:
        raw, values = call.raw(position), call.values(position, "the weights")
        if values.dtype != np.int8 or values.shape != shape:
            call.fail(f"weights {raw.name!r} must be int8 of shape {list(shape)}, got {list(values.shape)}")
        quantization = call.network.quantization_of(raw)
        if quantization.zero_point:
            call.fail(f"weights {raw.name!r} must be quantized symmetrically (zero point 0)")
        parts.append(values)
        scales += [quantization.scale[0]] * shape[0]
    name = f"{call.raw(positions[0]).name or 'weights'}.gates"
    return call.network.constant(name, np.concatenate(parts)[None], Quantization(tuple(scales), 0, 1))


def _biases(call: Call, hidden: int) -> Array:
    """int32 of shape (1, 8 * hidden): the gates' biases, and zeros for the recurrent half."""
    parts = []
    for position in _BIAS:
        values = call.values(position, "the bias") if call.has(position) else np.zeros(hidden, np.int32)
        if values.dtype != np.int32 or values.shape != (hidden,):
            call.fail(f"bias must be int32 of shape [{hidden}], got {values.dtype} of shape {list(values.shape)}")
        parts.append(values)
    return np.concatenate([*parts, np.zeros(4 * hidden, np.int32)])[None]


def _check_state(call: Call) -> None:
    """Output, hidden state and hidden intermediate must have one quantization, with zero point 0."""
    network = call.network
    y = network.quantization_of(call.raw_output())
    others = [call.raw(_HIDDEN_STATE)]
    if len(call.operator.intermediates) > 4 and call.operator.intermediates[4] >= 0:
        others.append(network.subgraph.tensors[call.operator.intermediates[4]])
    else:
        call.fail("has no quantization of its hidden state (intermediate 4)")
    for other in others:
        if network.quantization_of(other) != y:
            call.fail(f"{other.name!r} must have the quantization of the output")
    if y.zero_point:
        call.fail(f"its output has zero point {y.zero_point}, only 0 is supported")


def _cell(call: Call) -> dict[str, int]:
    """Binary exponent of the cell state's scale, and the clip of the cell in its own units (0: none)."""
    raw = call.raw(_CELL_STATE)
    if raw.dtype != "INT16":
        call.fail(f"the cell state has the type {raw.dtype}, only INT16 is supported")
    quantization = call.network.quantization_of(raw)
    mantissa, exponent = math.frexp(quantization.scale[0])
    if mantissa != 0.5 or exponent - 1 not in _CELL_EXPONENTS or quantization.zero_point:
        call.fail(f"the cell state's scale {quantization.scale[0]:g} must be a power of two from 2**-15 to 2**-9")
    clip = float(call.option("CellClip"))
    if not clip >= 0 or call.option("ProjClip") != 0:
        call.fail(f"a cell clip of {clip:g} or a projection clip is not supported")
    return {
        "cell_exponent": exponent - 1,
        "cell_clip": int(min(clip / quantization.scale[0], 32767.0)),
    }
