"""Random recurrent layers, quantized, and designs with an element unit to run them."""

from __future__ import annotations

import numpy as np

from accelerators.systolic.hardware import SystolicHardware
from dse.compiler import quantize
from dse.ir import Graph, Op, Tensor

_FUNCTIONS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def recurrent_graph(
    rng: np.random.Generator,
    kind: str,
    sizes: tuple[int, int, int, int],
    *,
    direction: str = "forward",
    linear_before_reset: int = 0,
    outputs: tuple[str, ...] = ("y", "yh"),
) -> Graph:
    """A float layer over (steps, batch, inputs) with `hidden` units; `sizes` are those four."""
    steps, batch, inputs, hidden = sizes
    directions, rows = 2 if direction == "bidirectional" else 1, _GATES[kind] * hidden
    tensors = {"x": Tensor("x", (steps, batch, inputs))}
    for name, shape in (("w", (directions, rows, inputs)), ("r", (directions, rows, hidden)),
                        ("b", (directions, 2 * rows))):  # fmt: skip
        tensors[name] = Tensor(name, shape, "float32", None, rng.normal(0, 0.4, shape).astype(np.float32))
    tensors["y"] = Tensor("y", (steps, directions, batch, hidden))
    states = {"yh": (directions, batch, hidden), "yc": (directions, batch, hidden)}
    tensors |= {name: Tensor(name, shape) for name, shape in states.items()}
    attributes = {"hidden": hidden, "direction": direction, "activations": _FUNCTIONS[kind] * directions, "clip": 0.0}
    attributes |= {"gru": {"linear_before_reset": linear_before_reset}, "lstm": {"input_forget": 0}}.get(kind, {})
    names = ("y", "yh", "yc") if kind == "lstm" else ("y", "yh")
    op = Op("cell", kind, ("x", "w", "r", "b"), names, attributes)
    return Graph("recurrent", tensors, (op,), ("x",), outputs)


def random_recurrent(rng: np.random.Generator) -> Graph:
    """A quantized LSTM, GRU or RNN of up to 7 steps, 3 sequences, 19 inputs and 23 units, in any direction."""
    kind = str(rng.choice(["lstm", "gru", "rnn"]))
    sizes = tuple(int(v) for v in (rng.integers(1, 8), rng.integers(1, 4), rng.integers(1, 20), rng.integers(1, 24)))
    graph = recurrent_graph(
        rng, kind, sizes, direction=str(rng.choice(["forward", "reverse", "bidirectional"])),
        linear_before_reset=int(rng.integers(0, 2)), outputs=[("y", "yh"), ("y",), ("yh",)][int(rng.integers(0, 3))],
    )  # fmt: skip
    return quantize(graph, {"x": rng.normal(0, 1, graph["x"].shape).astype(np.float32)})


def element_hardware(rng: np.random.Generator) -> SystolicHardware:
    """A small design with an element unit; memories small enough to force chunks and streamed weights."""
    columns = int(rng.choice([2, 3, 4, 8]))
    return SystolicHardware(
        rows=int(rng.choice([2, 3, 4, 8])), columns=columns, dataflow=str(rng.choice(["ws", "os"])),
        vector_lanes=int(rng.choice([lane for lane in (1, 2, 3, 4) if columns % lane == 0])), state_kib=8,
        weight_kib=float(rng.choice([0.25, 0.5, 1, 8])), activation_kib=2,
        accumulator_kib=float(rng.choice([0.5, 1, 4])), requantize=str(rng.choice(["ort", "q31"])), descriptors=1024,
        memory_bytes_per_cycle=int(rng.choice([1, 4, 16])), memory_latency_ns=float(rng.integers(0, 40)),
    )  # fmt: skip
