"""LSTM, GRU and RNN in integers that hardware has: the reference for programs and RTL in modes `ort` and `q31`.

Formats. x, y and the hidden state that is multiplied: int8; y has zero point 0 and a power of two 2**-e as its scale.
Weights: int8, one scale an output row, shared by both directions, so chosen that s_x * s_w[row] = s_y * s_r[row]:
both products add up in one int32 accumulator. Bias: int32 in units of the accumulator, an input and a hidden half.
Gate values: Q15 (int16, 1 is 32767). LSTM cell: int16, 2**-cell_fraction a unit. GRU state: int16, Q15.

    rsh(v, n) = (v + 2**(n - 1)) >> n, halves up; v for n = 0.    sat8, sat16 saturate.
    index(acc) = sat8(requantize(acc)) with multiplier and shift of the row, in the mode of the program
    T(i): 256-entry table of the gate function, entry i + 128 = round(function(clip(i * s_gate)) * 32768), sat16

One step, x = x[t] - zero_x, h int8 from the step before; W, R rows of a gate; b = input half + hidden half of the bias:

LSTM  i, o, f, g = T_i, T_o, T_f, T_g of index(W x + R h + b)
      c = sat16(rsh(f * c + ((i * g) >> (15 - cell_fraction)), 15))
      h = sat8(rsh(o * T_c(sat8(rsh(c, cell_shift))), 30 - e))
GRU   z, r = T_z, T_r of index(W x + R h + b)
      n = T_h(index(W x + R sat8(rsh(r * s, 30 - e)) + b))                  linear_before_reset = 0
      n = T_h(sat8(rsh(sat16(p16(W x + b_x) + rsh(r * p16(R h + b_h), 15)), 8)))                  = 1
      s = sat16(rsh(z * s + (32768 - z) * n, 15)),   h = sat8(rsh(s, 15 - e))
RNN   h = T(index(W x + R h + b)), its table holding int8 on the scale of y

p16(acc) = sat16(requantize(acc)) with 256 times the scale: shift 8 less. Every product and sum fits int32. States
start at zero or at a constant. A sequence that ends early leaves its states and gives zeros; `reverse` walks each
sequence backwards within its own length. Directions and stacked layers are independent applications of these rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op, scalar_scale
from dse.ir.loopnest import GATES
from dse.ir.quantized import quantization_of
from dse.ir.recurrent import gate_function, ordered, walks_backwards
from dse.ir.requantize import encode_scale, scale_accumulator
from dse.ir.windows import Array

IntArray = npt.NDArray[np.int64]
States = tuple[IntArray, ...]

_ONE = 1 << 15
_INT8, _INT16 = (-128, 127), (-32768, 32767)
#: Index codes of a table, as real positions in units of its scale.
_CODES = np.arange(-128, 128)
#: int16 pre-activations have 8 bits more than an index.
_EXTRA_BITS = 8


@dataclass(frozen=True, eq=False)
class RecurrentParameters:
    """All integers of one recurrent layer, as hardware holds them; D directions, G gates, H units, I inputs.

    Parameters
    ----------
    weight, recurrent : int8, shapes (D, G * H, I) and (D, G * H, H)
    bias_x, bias_h : int64 holding int32, shape (D, G * H)
        Zero point of x not folded in.
    zero_x
        Zero point of x; that of h is 0.
    multiplier, shift : int64, shape (D, G * H)
        Of `index`, encoded for `mode`.
    tables : int64 holding int16 (rnn: int8), shape (D, G, 256)
        In gate order.
    cell_table : int64, shape (D, 256)
        Of an lstm's cell; zeros otherwise.
    cell_fraction, cell_shift
        Fraction bits of an lstm's cell; right shift that makes it an index.
    hidden_exponent
        e: y has the scale 2**-e.
    mode
        Requantization of `index` and `p16`.
    """

    kind: str
    weight: npt.NDArray[np.int8]
    recurrent: npt.NDArray[np.int8]
    bias_x: IntArray
    bias_h: IntArray
    zero_x: int
    multiplier: IntArray
    shift: IntArray
    tables: IntArray
    cell_table: IntArray
    cell_fraction: int
    cell_shift: int
    hidden_exponent: int
    linear_before_reset: bool
    mode: str


def recurrent_parameters(graph: Graph, op: Op, mode: str) -> RecurrentParameters:
    """The integers of a quantized lstm, gru or rnn (`dse.compiler.quantize_recurrent` makes its attributes).

    Raises
    ------
    ModelError: the op was not quantized for this arithmetic, or a scale cannot be encoded.
    """
    where = f"{graph.source or graph.name}: op {op.name!r} ({op.kind})"
    if "gate_scales" not in op.attributes:
        raise ModelError(f"{where} has no gate scales, as dse's quantizer sets them, for mode {mode!r}")
    weight, recurrent = (np.asarray(graph[name].data, np.int8) for name in op.inputs[1:3])
    directions, rows, _ = weight.shape
    bias = graph[op.inputs[3]].data if len(op.inputs) > 3 and op.inputs[3] else None
    halves = np.zeros((directions, 2 * rows), np.int64) if bias is None else bias.astype(np.int64)
    of_x, of_w = quantization_of(graph, op.inputs[0]), quantization_of(graph, op.inputs[1])
    units = (scalar_scale(of_x) * np.asarray(of_w.scale, np.float32)).astype(np.float32)
    gate_scales = np.asarray(op.attributes["gate_scales"], np.float32).reshape(directions, GATES[op.kind])
    try:
        multiplier, shift = encode_scale(units / np.repeat(gate_scales, recurrent.shape[2], axis=1), mode)
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from error
    if op.kind == "gru" and (shift <= _EXTRA_BITS).any():
        raise ModelError(f"{where}: a requantization shift of {int(shift.min())} is too short for int16 gates")
    exponent = hidden_exponent(graph, op)
    tables, cell_tables = _tables(op, gate_scales, exponent)
    return RecurrentParameters(
        op.kind, weight, recurrent, halves[:, :rows], halves[:, rows:], of_x.zero_point, multiplier, shift,
        tables, cell_tables, int(op.attributes.get("cell_fraction", 0)), int(op.attributes.get("cell_shift", 0)),
        exponent, bool(op.attributes.get("linear_before_reset", False)), mode,
    )  # fmt: skip


def hidden_exponent(graph: Graph, op: Op) -> int:
    """e of the scale 2**-e of a recurrent layer's int8 output.

    Raises
    ------
    ModelError: the output is not on a power of two with zero point 0.
    """
    of_y = quantization_of(graph, next(name for name in op.outputs if name))
    mantissa, exponent = np.frexp(scalar_scale(of_y))
    if mantissa != 0.5 or of_y.zero_point:
        raise ModelError(
            f"{graph.source or graph.name}: op {op.name!r} ({op.kind}) needs an output scale that is a power of two "
            f"and zero point 0, got {of_y.scale[0]:g} and {of_y.zero_point}"
        )
    return 1 - int(exponent)


def _tables(op: Op, gate_scales: npt.NDArray[np.float32], exponent: int) -> tuple[IntArray, IntArray]:
    """Gate tables (D, G, 256) and cell tables (D, 256)."""
    directions = len(gate_scales)
    names = np.asarray(op.attributes["activations"]).reshape(directions, -1)
    # which of a direction's functions each gate takes, in gate order
    of_gate = {"lstm": (0, 0, 0, 1), "gru": (0, 0, 1), "rnn": (0,)}[op.kind]
    unit, limits = (2.0**exponent, _INT8) if op.kind == "rnn" else (float(_ONE), _INT16)
    clip = float(op.attributes["clip"])
    cell_step = 2.0 ** (int(op.attributes.get("cell_shift", 0)) - int(op.attributes.get("cell_fraction", 0)))
    gates = [
        [_table(names[d, place], float(scale), unit, limits, clip) for place, scale in zip(of_gate, row, strict=True)]
        for d, row in enumerate(gate_scales)
    ]
    cells = [_table(row[-1], cell_step, unit, limits, 0.0) if op.kind == "lstm" else 0 * _CODES for row in names]
    return np.asarray(gates, np.int64), np.asarray(cells, np.int64)


def _table(name: str, step: float, unit: float, limits: tuple[int, int], clip: float) -> IntArray:
    """Entry i + 128 is function(i * step) in units of 1 / `unit`, rounded half to even and saturated to `limits`."""
    at = (_CODES * step).astype(np.float32)
    values = gate_function(name)(np.clip(at, -clip, clip) if clip else at)
    return np.clip(np.rint(values.astype(np.float64) * unit), *limits).astype(np.int64)


def run_recurrent_int8(graph: Graph, op: Op, operands: list[Array | None], mode: str) -> tuple[Array, ...]:
    """(y, last h) of a gru or rnn, (y, last h, last c) of an lstm: int8, int8, int16; shapes as in float.

    Parameters
    ----------
    operands
        As the inputs of `op`: x int8 (T, B, I), weights, bias, lengths, first h int8, first c int16.

    Raises
    ------
    ModelError: see `recurrent_parameters`.
    """
    p = recurrent_parameters(graph, op, mode)
    padded: list[Array | None] = [*operands, None, None, None, None]
    x, lengths = padded[0], padded[4]
    assert x is not None
    steps, batch, _ = x.shape
    ends = np.full(batch, steps) if lengths is None else np.clip(lengths.astype(np.int64), 0, steps)
    zero = np.zeros((batch, p.recurrent.shape[2]), np.int64)
    outputs: list[tuple[IntArray, ...]] = []
    for direction, backward in enumerate(walks_backwards(op)):
        first = [zero if item is None else item[direction].astype(np.int64) for item in padded[5:7]]
        states = _STATES[p.kind](p, *first)
        centred = ordered(x.astype(np.int64) - p.zero_x, ends, backward)
        outputs.append(_walk(p, direction, centred, ends, states, backward))
    y, h, *c = (np.stack(parts, 1 if place == 0 else 0) for place, parts in enumerate(zip(*outputs, strict=True)))
    return (y.astype(np.int8), h.astype(np.int8), *(part.astype(np.int16) for part in c))


def _walk(
    p: RecurrentParameters, direction: int, x: IntArray, ends: Array, states: tuple[IntArray, ...], backward: bool
) -> tuple[IntArray, ...]:
    """All steps of one direction: y (T, B, H), then last h and, of an lstm, last c; the first state is h."""
    projected = _product(x, p.weight[direction])
    y = np.zeros((*x.shape[:2], p.recurrent.shape[2]), np.int64)
    for step, row in enumerate(projected):
        active = (step < ends)[:, None]
        updated = _STEPS[p.kind](p, direction, row, states)
        states = tuple(np.where(active, new, old) for new, old in zip(updated, states, strict=True))
        y[step] = np.where(active, states[0], 0)
    return (ordered(y, ends, backward), *states[: 2 if p.kind == "lstm" else 1])


def _product(a: IntArray, weight: npt.NDArray[np.int8]) -> IntArray:
    """Exact integer product a @ weight.T: sums stay far below 2**53."""
    return np.asarray(np.rint(a.astype(np.float64) @ weight.T.astype(np.float64)), np.int64)


def shift_rounded(value: IntArray, bits: int) -> IntArray:
    """rsh: value / 2**bits, halves up; value itself for 0 bits."""
    return (value + (1 << (bits - 1))) >> bits if bits else value


def _index(p: RecurrentParameters, direction: int, rows: slice, acc: IntArray) -> IntArray:
    scaled = scale_accumulator(acc, p.multiplier[direction, rows], p.shift[direction, rows], p.mode)
    return np.clip(scaled, *_INT8)


def _wide(p: RecurrentParameters, direction: int, rows: slice, acc: IntArray) -> IntArray:
    """p16: a pre-activation with 8 bits more than an index."""
    shift = p.shift[direction, rows] - _EXTRA_BITS
    return np.clip(scale_accumulator(acc, p.multiplier[direction, rows], shift, p.mode), *_INT16)


def _looked_up(table: IntArray, index: IntArray) -> IntArray:
    return table[index + len(table) // 2]


def _lstm_step(p: RecurrentParameters, direction: int, row: IntArray, states: States) -> States:
    h, c = states
    tables = p.tables[direction]
    acc = row + _product(h, p.recurrent[direction]) + p.bias_x[direction] + p.bias_h[direction]
    codes = np.split(_index(p, direction, slice(None), acc), 4, axis=1)
    i, o, f, g = (_looked_up(table, code) for table, code in zip(tables, codes, strict=True))
    c = np.clip(shift_rounded(f * c + ((i * g) >> (15 - p.cell_fraction)), 15), *_INT16)
    shown = _looked_up(p.cell_table[direction], np.clip(shift_rounded(c, p.cell_shift), *_INT8))
    return np.clip(shift_rounded(o * shown, 30 - p.hidden_exponent), *_INT8), c


def _gru_step(p: RecurrentParameters, direction: int, row: IntArray, states: States) -> States:
    h, state = states
    hidden, tables, recurrent = h.shape[1], p.tables[direction], p.recurrent[direction]
    gates, candidate = slice(0, 2 * hidden), slice(2 * hidden, None)
    bias_x, bias_h = p.bias_x[direction], p.bias_h[direction]
    acc = row[:, gates] + _product(h, recurrent[gates]) + (bias_x + bias_h)[gates]
    codes = np.split(_index(p, direction, gates, acc), 2, axis=1)
    z, r = (_looked_up(table, code) for table, code in zip(tables[:2], codes, strict=True))
    if p.linear_before_reset:
        inner = _wide(p, direction, candidate, _product(h, recurrent[candidate]) + bias_h[candidate])
        outer = _wide(p, direction, candidate, row[:, candidate] + bias_x[candidate])
        both = np.clip(outer + shift_rounded(r * inner, 15), *_INT16)
        code = np.clip(shift_rounded(both, _EXTRA_BITS), *_INT8)
    else:
        kept = np.clip(shift_rounded(r * state, 30 - p.hidden_exponent), *_INT8)
        acc = row[:, candidate] + _product(kept, recurrent[candidate]) + (bias_x + bias_h)[candidate]
        code = _index(p, direction, candidate, acc)
    n = _looked_up(tables[2], code)
    state = np.clip(shift_rounded(z * state + (_ONE - z) * n, 15), *_INT16)
    return _hidden_of(p, state), state


def _rnn_step(p: RecurrentParameters, direction: int, row: IntArray, states: States) -> States:
    acc = row + _product(states[0], p.recurrent[direction]) + p.bias_x[direction] + p.bias_h[direction]
    return (_looked_up(p.tables[direction, 0], _index(p, direction, slice(None), acc)),)


def _hidden_of(p: RecurrentParameters, state: IntArray) -> IntArray:
    return np.clip(shift_rounded(state, 15 - p.hidden_exponent), *_INT8)


#: First states from the constants h (int8) and c (int16); a gru keeps h in int16 too.
_STATES: dict[str, Callable[..., tuple[IntArray, ...]]] = {
    "lstm": lambda p, h, c: (h, c),
    "gru": lambda p, h, c: (h, h << (15 - p.hidden_exponent)),
    "rnn": lambda p, h, c: (h,),
}
_STEPS: dict[str, Callable[..., tuple[IntArray, ...]]] = {"lstm": _lstm_step, "gru": _gru_step, "rnn": _rnn_step}
