"""Graphs of one LSTM, GRU or RNN with seeded weights, for the tests of the integer reference and its quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from dse.ir import Graph, Op, Tensor
from dse.ir.loopnest import GATES
from dse.ir.recurrent import DEFAULT_FUNCTIONS

STEPS, BATCH, FEATURES, HIDDEN = 5, 2, 3, 4


def recurrent_layer(
    kind: str, direction: str, seed: int, options: set[str], spread: float = 0.5, **attributes: Any
) -> Graph:
    """x (5, 2, 3) through one op named `cell`; options: bias, lengths, state, before_reset."""
    rng = np.random.default_rng(seed)
    directions, rows = (2 if direction == "bidirectional" else 1), GATES[kind] * HIDDEN
    data: dict[str, Any] = {
        "w": rng.normal(0, spread, (directions, rows, FEATURES)),
        "r": rng.normal(0, spread, (directions, rows, HIDDEN)),
    }  # fmt: skip
    names = ["x", "w", "r", "", "", "", "", ""]
    if "bias" in options:
        names[3], data["b"] = "b", rng.normal(0, spread, (directions, 2 * rows))
    if "lengths" in options:
        names[4], data["lengths"] = "lengths", np.array([3, 5], np.int32)
    if "state" in options:
        names[5], data["h"] = "h", rng.uniform(-0.5, 0.5, (directions, BATCH, HIDDEN))
        if kind == "lstm":
            names[6], data["c"] = "c", rng.uniform(-0.5, 0.5, (directions, BATCH, HIDDEN))
    if "peepholes" in options:
        names[7], data["p"] = "p", rng.normal(0, spread, (directions, 3 * HIDDEN))
    while not names[-1]:
        names.pop()
    shapes = {"y": (STEPS, directions, BATCH, HIDDEN), "last_h": (directions, BATCH, HIDDEN)}
    if kind == "lstm":
        shapes["last_c"] = shapes["last_h"]
    tensors = {"x": Tensor("x", (STEPS, BATCH, FEATURES))}
    tensors |= {name: Tensor(name, shape) for name, shape in shapes.items()}
    for name, values in data.items():
        stored = values if values.dtype == np.int32 else values.astype(np.float32)
        tensors[name] = Tensor(name, values.shape, str(stored.dtype), data=stored)
    functions = DEFAULT_FUNCTIONS[kind] * directions
    own: dict[str, Any] = {"hidden": HIDDEN, "direction": direction, "activations": functions, "clip": 0.0}
    own |= {"lstm": {"input_forget": False}, "gru": {"linear_before_reset": "before_reset" in options}}.get(kind, {})
    op = Op("cell", kind, tuple(names), tuple(shapes), own | attributes)
    return Graph("net", tensors, (op,), ("x",), ("y",))
