"""The integer LSTM, GRU and RNN equal a slow reading of their definition, one number after the other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_layers import recurrent_layer

from dse.compiler import quantize
from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.quantized import quantize_inputs
from dse.ir.recurrent_int8 import recurrent_parameters
from dse.ir.reference import run_op_quantized, run_quantized
from dse.ir.requantize import requantize

KINDS = ("lstm", "gru", "rnn")


def sat(value: int, bits: int) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, value))


def rsh(value: int, bits: int) -> int:
    return math.floor((value + (1 << (bits - 1))) / (1 << bits)) if bits else value


class Slow:
    """One direction of a quantized layer in Python integers; remembers the largest of every product and sum."""

    def __init__(self, graph: Graph, op: Op, mode: str, direction: int) -> None:
        p = recurrent_parameters(graph, op, mode)
        self.p, self.d, self.mode, self.hidden = p, direction, mode, p.recurrent.shape[2]
        self.largest = 0

    def fits(self, value: int) -> int:
        self.largest = max(self.largest, abs(value))
        return value

    def dot(self, matrix: Any, row: int, values: list[int]) -> int:
        return self.fits(sum(int(w) * v for w, v in zip(matrix[self.d, row], values, strict=True)))

    def scaled(self, row: int, acc: int, bits: int) -> int:
        shift = np.array([self.p.shift[self.d, row] - (bits - 8)])
        multiplier = np.array([self.p.multiplier[self.d, row]])
        if bits == 8:
            return int(requantize(np.array([self.fits(acc)]), multiplier, shift, 0, -128, 127, self.mode)[0])
        from dse.ir.requantize import scale_accumulator

        return sat(int(scale_accumulator(np.array([acc]), multiplier, shift, self.mode)[0]), bits)

    def gate(self, gate: int, unit: int, x: list[int], h: list[int]) -> int:
        row = gate * self.hidden + unit
        bias = int(self.p.bias_x[self.d, row]) + int(self.p.bias_h[self.d, row])
        acc = self.dot(self.p.weight, row, x) + self.dot(self.p.recurrent, row, h) + bias
        return int(self.p.tables[self.d, gate][self.scaled(row, acc, 8) + 128])

    def lstm(self, x: list[int], h: list[int], c: list[int]) -> tuple[list[int], list[int]]:
        p, after_h, after_c = self.p, [], []
        for unit in range(self.hidden):
            i, o, f, g = (self.gate(gate, unit, x, h) for gate in range(4))
            kept = self.fits(f * c[unit] + math.floor(self.fits(i * g) / (1 << (15 - p.cell_fraction))))
            cell = sat(rsh(kept, 15), 16)
            shown = int(p.cell_table[self.d][sat(rsh(cell, p.cell_shift), 8) + 128])
            after_c.append(cell)
            after_h.append(sat(rsh(self.fits(o * shown), 30 - p.hidden_exponent), 8))
        return after_h, after_c

    def gru(self, x: list[int], h: list[int], s: list[int]) -> tuple[list[int], list[int]]:
        p, n, after = self.p, self.hidden, []
        z = [self.gate(0, unit, x, h) for unit in range(n)]
        r = [self.gate(1, unit, x, h) for unit in range(n)]
        reset = [sat(rsh(self.fits(r[unit] * s[unit]), 30 - p.hidden_exponent), 8) for unit in range(n)]
        for unit in range(n):
            row = 2 * n + unit
            if p.linear_before_reset:
                outer = self.scaled(row, self.dot(p.weight, row, x) + int(p.bias_x[self.d, row]), 16)
                inner = self.scaled(row, self.dot(p.recurrent, row, h) + int(p.bias_h[self.d, row]), 16)
                code = sat(rsh(sat(outer + rsh(self.fits(r[unit] * inner), 15), 16), 8), 8)
                new = int(p.tables[self.d, 2][code + 128])
            else:
                new = self.gate(2, unit, x, reset)
            after.append(sat(rsh(self.fits(z[unit] * s[unit] + (32768 - z[unit]) * new), 15), 16))
        return [sat(rsh(value, 15 - p.hidden_exponent), 8) for value in after], after

    def rnn(self, x: list[int], h: list[int], unused: list[int]) -> tuple[list[int], list[int]]:
        return [self.gate(0, unit, x, h) for unit in range(self.hidden)], unused


def slow_run(graph: Graph, op: Op, x: Any, mode: str) -> tuple[Any, int]:
    """y (T, D, B, H), and the largest number met."""
    directions = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[op.attributes["direction"]]
    steps, batch, _ = x.shape
    lengths = graph[op.inputs[4]].data if len(op.inputs) > 4 and op.inputs[4] else [steps] * batch
    hidden = op.attributes["hidden"]
    y, largest = np.zeros((steps, len(directions), batch, hidden), np.int64), 0
    for d, backward in enumerate(directions):
        slow = Slow(graph, op, mode, d)
        for b in range(batch):
            first = [
                [int(v) for v in graph[op.inputs[place]].data[d, b]]
                if len(op.inputs) > place and op.inputs[place]
                else [0] * hidden
                for place in (5, 6)
            ]
            h, other = first
            if op.kind == "gru":
                other = [value << (15 - slow.p.hidden_exponent) for value in h]
            order = range(int(lengths[b]))
            for t in reversed(order) if backward else order:
                row = [int(v) - slow.p.zero_x for v in x[t, b]]
                h, other = getattr(slow, op.kind)(row, h, other)
                y[t, d, b] = h
        largest = max(largest, slow.largest)
    return y, largest


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    mode=st.sampled_from(["ort", "q31"]),
    seed=st.integers(0, 10_000),
    options=st.sets(st.sampled_from(["bias", "lengths", "state", "before_reset"])),
    loud=st.booleans(),
)
def test_layers_equal_their_definition_and_stay_within_32_bits(
    kind: str, direction: str, mode: str, seed: int, options: set[str], loud: bool
) -> None:
    graph = recurrent_layer(kind, direction, seed, options, spread=4.0 if loud else 0.5)
    rng = np.random.default_rng(seed)
    quantized = quantize(graph, {"x": rng.standard_normal((5, 2, 3)).astype(np.float32)})
    (op,) = quantized.ops
    x = rng.integers(-128, 128, (5, 2, 3)).astype(np.int8)
    got = run_op_quantized(quantized, op, {"x": x}, mode)
    wanted, largest = slow_run(quantized, op, x, mode)
    np.testing.assert_array_equal(got[op.outputs[0]], wanted)
    assert got[op.outputs[0]].dtype == np.int8
    assert largest < 1 << 31


@pytest.mark.parametrize("kind", KINDS)
def test_last_states_are_the_outputs_of_each_sequences_own_last_step(kind: str) -> None:
    graph = recurrent_layer(kind, "bidirectional", 3, {"bias", "lengths"})
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    quantized = quantize(graph, {"x": x})
    (op,) = quantized.ops
    y, last = list(run_op_quantized(quantized, op, quantize_inputs(quantized, {"x": x}), "q31").values())[:2]
    lengths = quantized[op.inputs[4]].data
    assert lengths is not None
    for b, length in enumerate(lengths):
        np.testing.assert_array_equal(last[0, b], y[length - 1, 0, b])
        np.testing.assert_array_equal(last[1, b], y[0, 1, b])
        assert not y[length:, :, b].any()


@pytest.mark.parametrize("kind", KINDS)
def test_tables_hold_the_gate_functions_to_half_a_unit(kind: str) -> None:
    graph = recurrent_layer(kind, "forward", 0, {"bias"})
    quantized = quantize(graph, {"x": np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)})
    p = recurrent_parameters(quantized, quantized.ops[0], "ort")
    scales = quantized.ops[0].attributes["gate_scales"]
    unit = 2.0**p.hidden_exponent if kind == "rnn" else 32768
    for gate, scale in enumerate(scales):
        tanh = kind == "rnn" or gate == len(scales) - 1
        for code in range(-128, 128):
            real = math.tanh(code * scale) if tanh else 1 / (1 + math.exp(-code * scale))
            top = 127 if kind == "rnn" else 32767
            assert abs(min(real * unit, top) - p.tables[0, gate, code + 128]) <= 0.51


def test_both_modes_agree_but_for_ties_of_their_roundings() -> None:
    graph = recurrent_layer("lstm", "forward", 1, {"bias"})
    x = np.random.default_rng(1).standard_normal((200, 2, 3)).astype(np.float32)
    quantized = quantize(graph, {"x": x})
    integers = quantize_inputs(quantized, {"x": x})
    ort, q31 = (run_quantized(quantized, integers, mode)["y"].astype(int) for mode in ("ort", "q31"))
    assert np.abs(ort - q31).max() <= 1
    assert (ort != q31).mean() < 0.01


def test_what_is_not_made_for_this_arithmetic_is_named() -> None:
    graph = recurrent_layer("lstm", "forward", 0, {"bias"})
    quantized = quantize(graph, {"x": np.ones((5, 2, 3), np.float32)})
    (op,) = quantized.ops
    bare = replace(op, attributes={key: value for key, value in op.attributes.items() if key != "gate_scales"})
    with pytest.raises(ModelError, match=r"'cell' \(lstm\) has no gate scales.*mode 'q31'"):
        recurrent_parameters(quantized, bare, "q31")
    of_y = quantized[op.outputs[0]]
    assert of_y.quantization is not None
    odd = replace(of_y, quantization=replace(of_y.quantization, scale=(0.01,)))
    other = replace(quantized, tensors={**quantized.tensors, of_y.name: odd})
    with pytest.raises(ModelError, match=r"power of two and zero point 0, got 0\.01"):
        recurrent_parameters(other, op, "ort")
