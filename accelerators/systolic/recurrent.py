"""LSTM, GRU and RNN layers in the terms of the tile machine: what is multiplied with what, gate by gate.

One work item is one direction of one layer: the whole sequence, a hardware loop over its time steps. The arithmetic
is that of `dse.ir.recurrent_int8`, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.kinds import POOL_KINDS, RECURRENT_KINDS
from dse.ir.loopnest import GATES
from dse.ir.recurrent import walks_backwards

#: Ops that take tensors of rank 4 for maps of channels.
_MAP_KINDS = ("conv", "conv_transpose", "conv_integer", *POOL_KINDS)
#: Inputs of a recurrent op: x, weights, recurrent weights, bias, lengths, first h, first c, peepholes.
_LENGTHS, _FIRST_H, _FIRST_C, _PEEPHOLES = 4, 5, 6, 7


@dataclass(frozen=True)
class Part:
    """One product of a phase: operand `source` (x, h, or reset: r * h) times the weights of `gates`.

    Its sums go to gate slots `slot`, `slot` + 1, ... of the accumulators, on top of what is there if `accumulate`.
    """

    source: str
    gates: tuple[int, ...]
    slot: int
    accumulate: bool


@dataclass(frozen=True)
class Phase:
    """Products that the cell update needs at once; `slots` gate slots of accumulators."""

    parts: tuple[Part, ...]
    slots: int


@dataclass(frozen=True)
class RecurrentLayer:
    """One direction of a recurrent layer.

    `steps` x `batch` x `inputs` are the sizes of its input, `hidden` its units. `output` names the sequence of
    hidden states, `last` the last one; either may be absent (""). `direction` counts from 0 among `directions`.
    """

    name: str
    op: Op
    input: str
    output: str
    last: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    direction: int
    directions: int
    backwards: bool

    @property
    def kind(self) -> str:
        return self.op.kind

    @property
    def gates(self) -> int:
        return GATES[self.op.kind]

    @property
    def linear_before_reset(self) -> bool:
        return bool(self.op.attributes.get("linear_before_reset", False))

    @property
    def add(self) -> None:
        """Nothing is fused behind it."""
        return None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Tensors it writes (with the other directions)."""
        return tuple(name for name in (self.output, self.last) if name)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, without any padding of the array."""
        return self.steps * self.batch * self.gates * self.hidden * (self.inputs + self.hidden)

    def phases(self) -> tuple[Phase, ...]:
        """The products of a time step in order; a GRU's candidate follows its reset gate."""
        if self.kind != "gru":
            every = tuple(range(self.gates))
            return (Phase((Part("x", every, 0, False), Part("h", every, 0, True)), self.gates),)
        gates = (Part("x", (0, 1), 0, False), Part("h", (0, 1), 0, True))
        if self.linear_before_reset:
            return (Phase((*gates, Part("x", (2,), 2, False), Part("h", (2,), 3, False)), 4),)
        return Phase(gates, 2), Phase((Part("x", (2,), 0, False), Part("reset", (2,), 0, True)), 1)

    @property
    def parameter_slots(self) -> int:
        """Sets of channel parameters: one a gate, two for a candidate whose products stay apart."""
        return 4 if self.kind == "gru" and self.linear_before_reset else self.gates

    def compulsory_bytes(self, weight_bits: int) -> int:
        """Bytes any schedule must move: input, weights and outputs once."""
        weights = (self.gates * self.hidden * (self.inputs + self.hidden) * weight_bits + 7) // 8
        outputs = self.batch * self.hidden * (self.steps * bool(self.output) + bool(self.last))
        return self.steps * self.batch * self.inputs + weights + outputs


def recurrent_layers(graph: Graph, op: Op, source: str) -> list[RecurrentLayer]:
    """The work items of an lstm, gru or rnn whose input lies in tensor `source`, one a direction.

    Raises
    ------
    ModelError: what the element unit's programs do not cover: sequence lengths, first states that are computed,
    peepholes, coupled gates, a cell state that something reads.
    """
    where = f"{graph.source or graph.name}: op {op.name!r} ({op.kind})"
    named = {place: name for place, name in enumerate(op.inputs) if name}
    if _LENGTHS in named and not _all_full(graph, op, named[_LENGTHS]):
        raise ModelError(f"{where} has sequence lengths; the systolic family takes sequences of full length only")
    for place in (_FIRST_H, _FIRST_C):
        if place in named and graph[named[place]].data is None:
            raise ModelError(f"{where} starts from the computed state {named[place]!r}; first states must be constants")
    if _PEEPHOLES in named or op.attributes.get("input_forget"):
        raise ModelError(f"{where} has peepholes or coupled gates; the systolic family has plain cells")
    outputs = (*op.outputs, "", "", "")
    if outputs[2] and (graph.consumers(outputs[2]) or outputs[2] in graph.outputs):
        raise ModelError(f"{where}: its last cell state {outputs[2]!r} is read; the systolic family keeps it on chip")
    used = [name if name and (graph.consumers(name) or name in graph.outputs) else "" for name in outputs[:2]]
    steps, batch, inputs = graph[op.inputs[0]].shape
    directions, _, hidden = graph[op.inputs[2]].shape
    suffix = [""] if directions == 1 else [".forward", ".reverse"]
    return [
        RecurrentLayer(
            op.name + suffix[direction],
            op,
            source,
            used[0],
            used[1],
            steps,
            batch,
            inputs,
            hidden,
            direction,
            directions,
            backwards,
        )
        for direction, backwards in enumerate(walks_backwards(op))
    ]


def _all_full(graph: Graph, op: Op, name: str) -> bool:
    data = graph[name].data
    return data is not None and bool((data >= graph[op.inputs[0]].shape[0]).all())


def sequence_outputs(graph: Graph) -> frozenset[str]:
    """Tensors that lie row by row whatever their rank: outputs of recurrent ops; all, where nothing reads maps."""
    if not any(op.kind in _MAP_KINDS for op in graph.ops):
        return frozenset(graph.tensors)
    return frozenset(name for op in graph.ops if op.kind in RECURRENT_KINDS for name in op.outputs if name)
