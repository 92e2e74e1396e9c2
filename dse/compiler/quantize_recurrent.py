"""Quantizing LSTM, GRU and RNN layers to the integers of `dse.ir.recurrent_int8`.

Both weight matrices share one accumulator: row by row, the scale of an accumulator is the larger of what the input
weights and what the recurrent weights need for their largest value, over both directions. A gate's pre-activations
span what calibration saw of them, at most up to where the function has saturated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.compiler.quantize_weights import ACCUMULATOR_HALF, bias_integers
from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op, Quantization, Tensor
from dse.ir.loopnest import GATES
from dse.ir.recurrent import run_recurrent, walks_backwards
from dse.ir.windows import Array

Reals = npt.NDArray[np.float64]

#: Where a bounded function differs from its limit by less than 2**-10 (tanh, sigmoid), or has reached it.
_SATURATES = {"sigmoid": 7.0, "tanh": 3.5, "hard_sigmoid": 2.5}
#: What states and gates may be made of: values in -1 .. 1, as Q15 holds.
_BOUNDED = ("sigmoid", "tanh", "hard_sigmoid", "softsign")
#: Exponents of the output scale that `dse.ir.recurrent_int8` shifts by.
_EXPONENTS = {"lstm": (7, 29), "gru": (7, 15), "rnn": (-8, 15)}
_LIMIT = 127


def check_recurrent(graph: Graph, op: Op) -> None:
    """Nothing when a lstm, gru or rnn has an integer form.

    Raises
    ------
    ModelError: peepholes, a coupled forget gate, an unbounded gate function, states or weights that are no constants.
    """
    where = f"{graph.source or graph.name}: op {op.name!r} ({op.kind})"
    if len(op.inputs) > 7 and op.inputs[7]:
        raise ModelError(f"{where} has peepholes, which have no int8 form; quantizable are recurrent layers without")
    if op.attributes.get("input_forget"):
        raise ModelError(f"{where} couples its forget gate (input_forget), which has no int8 form")
    for name in (*op.inputs[1:4], *op.inputs[5:7]):
        if name and graph[name].data is None:
            raise ModelError(f"{where} reads {name!r}, computed at run time; weights and first states must be constant")
    unbounded = [name for name in op.attributes["activations"] if name not in _BOUNDED]
    if op.kind != "rnn" and unbounded:
        raise ModelError(f"{where} has the gate function {unbounded[0]!r}; int8 takes one of {', '.join(_BOUNDED)}")
    used = {item for other in graph.ops for item in other.inputs} | set(graph.outputs)
    if len(op.outputs) > 2 and op.outputs[2] in used:
        raise ModelError(f"{where}: its last cell state {op.outputs[2]!r} is read, which int8 networks cannot hand on")


def observe_recurrent(op: Op, operands: list[Array | None]) -> dict[str, float]:
    """Largest magnitude of everything inside a recurrent layer by `inner_name`, running it in float."""
    seen: dict[str, float] = {}

    def observe(direction: int, what: str, values: Array) -> None:
        key = inner_name(op, direction, what)
        seen[key] = max(seen.get(key, 0.0), float(np.abs(values).max()))

    run_recurrent(op, operands, observe)
    return seen


def inner_name(op: Op, direction: int, what: str) -> str:
    """The name of the range of a value inside a recurrent layer."""
    return f"{op.name}:{direction}:{what}"


def output_quantization(op: Op, observed: tuple[float, float]) -> Quantization:
    """int8 on the smallest power of two that spans what was seen; zero point 0."""
    largest = max(abs(observed[0]), abs(observed[1]))
    if not math.isfinite(largest):
        raise ModelError(f"op {op.name!r} ({op.kind}) gives values that are not finite during calibration")
    low, high = _EXPONENTS[op.kind]
    exponent = high if largest == 0 else math.floor(math.log2(_LIMIT + 0.5) - math.log2(largest))
    return Quantization((2.0 ** -min(max(exponent, low), high),), 0)


def quantize_recurrent(
    graph: Graph, op: Op, of_x: Quantization, of_y: Quantization, ranges: Mapping[str, tuple[float, float]]
) -> tuple[Op, dict[int, Tensor]]:
    """The integer op and its constants by input position; tensors carry names of their float originals.

    Raises
    ------
    ModelError: a constant without values or not finite.
    """
    weight, recurrent = (_values(graph, op, name) for name in op.inputs[1:3])
    bias = _values(graph, op, op.inputs[3]) if len(op.inputs) > 3 and op.inputs[3] else None
    units = _units(weight, recurrent, bias, of_x.scale[0], of_y.scale[0])
    constants: dict[int, Tensor] = {}
    for place, values, scale in ((1, weight, of_x.scale[0]), (2, recurrent, of_y.scale[0])):
        scales = (units / scale).astype(np.float32)
        integers = np.clip(np.rint(values / scales[:, None]), -_LIMIT, _LIMIT).astype(np.int8)
        constants[place] = Tensor("", values.shape, "int8", Quantization(tuple(map(float, scales)), 0, 1), integers)
    if bias is not None:
        both = np.tile(units, 2).astype(np.float32)
        kept = Quantization(tuple(map(float, both)), 0, 1, 32)
        constants[3] = Tensor("", bias.shape, "int32", kept, bias_integers(bias, both))
    attributes: dict[str, Any] = {"gate_scales": _gate_scales(op, ranges)}
    if op.kind == "lstm":
        attributes |= _cell_format(op, ranges)
    states = ((5, of_y.scale[0], np.int8), (6, 2.0 ** -attributes.get("cell_fraction", 0), np.int16))
    for place, unit, dtype in states:
        if len(op.inputs) > place and op.inputs[place]:
            values, limits = _values(graph, op, op.inputs[place]), np.iinfo(dtype)
            integers = np.clip(np.rint(values / unit), limits.min, limits.max).astype(dtype)
            constants[place] = Tensor("", values.shape, np.dtype(dtype).name, Quantization((float(unit),), 0), integers)
    return op.with_attributes(**attributes), constants


def _values(graph: Graph, op: Op, name: str) -> Reals:
    data = graph[name].data
    if data is None or not np.isfinite(data).all():
        raise ModelError(f"{graph.source or graph.name}: op {op.name!r}: constant {name!r} has no finite values")
    return data.astype(np.float64)


def _units(weight: Reals, recurrent: Reals, bias: Reals | None, scale_x: float, scale_h: float) -> Reals:
    """Real value of one accumulator unit, by row (G * H,)."""
    of_x, of_h = (
        np.abs(values).max(axis=(0, 2)) * scale / _LIMIT for values, scale in ((weight, scale_x), (recurrent, scale_h))
    )
    # a row of zeros may have any scale that neither bias nor requantization overflow
    units = np.maximum(np.maximum(of_x, of_h), 2.0**-24 * min(scale_x, scale_h))
    if bias is None:
        return np.asarray(units)
    halves = np.abs(bias).max(axis=0).reshape(2, -1).max(axis=0)
    return np.asarray(np.maximum(units, 2 * halves / ACCUMULATOR_HALF))


def _gate_scales(op: Op, ranges: Mapping[str, tuple[float, float]]) -> tuple[float, ...]:
    """Step of each gate's table: direction by direction, in gate order."""
    directions = len(walks_backwards(op))
    names = np.asarray(op.attributes["activations"]).reshape(directions, -1)
    of_gate = {"lstm": (0, 0, 0, 1), "gru": (0, 0, 1), "rnn": (0,)}[op.kind]
    scales = []
    for direction in range(directions):
        for gate in range(GATES[op.kind]):
            seen = ranges[inner_name(op, direction, f"gate{gate}")][1]
            limit = min(seen, _SATURATES.get(str(names[direction, of_gate[gate]]), math.inf))
            scales.append(float(np.float32(max(limit, 2.0**-10) / _LIMIT)))
    return tuple(scales)


def _cell_format(op: Op, ranges: Mapping[str, tuple[float, float]]) -> dict[str, int]:
    """Fraction bits of the int16 cell, and the shift that makes it an index of its function's table."""
    directions = range(len(walks_backwards(op)))
    seen = max(ranges[inner_name(op, direction, "cell")][1] for direction in directions)
    # twice what was seen: a cell adds up, and saturates in silence
    whole = max(0, math.ceil(math.log2(max(2 * seen, 2.0**-10))))
    fraction = max(15 - whole, 0)
    reach = min(seen, _SATURATES["tanh"])
    step = math.floor(math.log2(max(reach, 2.0**-10) / _LIMIT * 2.0**fraction) + 0.999999)
    return {"cell_fraction": fraction, "cell_shift": max(0, step)}
