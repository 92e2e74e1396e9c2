"""A recurrent layer as a step of a program: its plan, its constants in memory, its queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accelerators.systolic.image import pack_words
from accelerators.systolic.recurrent import RecurrentLayer
from accelerators.systolic.recurrent_emit import RecurrentImage, emit_recurrent
from accelerators.systolic.recurrent_plan import RecurrentPlan, plans
from accelerators.systolic.timing_graph import program_graph
from dse.core.errors import InfeasibleError, ModelError, Violation
from dse.ir import Graph
from dse.ir.recurrent_int8 import RecurrentParameters, recurrent_parameters
from dse.program.tile.isa import PARAMETER_BYTES, Descriptor, MemoryId
from dse.program.tile.isa_element import TABLE_BYTES, TABLE_ENTRIES
from dse.program.tile.program import Machine, TensorPlacement, TileProgram, TileStep
from dse.sim import simulate_a

#: Steps that a plan is timed on: the pipeline of a loop over time repeats after two.
_TRIAL_STEPS = 4
_EXTRA_BITS = 8
#: Shifts that stand in where a graph has no values: they take no time.
_SHAPE_CELL = {"cell_fraction": 0, "cell_shift": 0, "hidden_exponent": 7}


@dataclass(frozen=True)
class RecurrentCode:
    """A planned layer and the addresses of its constants."""

    plan: RecurrentPlan
    weights: int
    parameters: int
    tables: int
    first_hidden: int
    first_state: int

    @property
    def layer(self) -> RecurrentLayer:
        return self.plan.layer


def plan_recurrent(layer: RecurrentLayer, machine: Machine, take: Callable[[str, str, int], int]) -> RecurrentCode:
    """The fastest plan of a layer, by level A on a few steps, and addresses for its constants from `take`.

    Parameters
    ----------
    take
        (layer name, what, bytes) -> address of fresh memory.

    Raises
    ------
    InfeasibleError: the layer fits in no way (which memory, by how much).
    """
    candidates = plans(layer, machine)
    timed = [(_steady_cycles(plan), -plan.units, plan) for plan in candidates]
    fitting = [entry for entry in timed if entry[0] is not None]
    if not fitting:
        longest = max(len(queue) for queue in _trial_queues(candidates[-1], 1).values())
        raise InfeasibleError(
            f"layer {layer.name!r}", [Violation("descriptors", longest, machine.descriptors, "descriptors")]
        )
    plan = min(fitting, key=lambda entry: entry[:2])[2]
    sizes = _sizes(plan)
    addresses = {what: take(layer.name, what, size) for what, size in sizes.items()}
    return RecurrentCode(plan, *(addresses[what] for what in sizes))


def _sizes(plan: RecurrentPlan) -> dict[str, int]:
    machine, batch = plan.machine, plan.layer.batch
    parameters = plan.layer.parameter_slots * plan.blocks * machine.columns * PARAMETER_BYTES
    return {
        "weights": plan.weight_words * machine.word_bytes[MemoryId.WEIGHT],
        "parameters": parameters,
        "tables": plan.tables * TABLE_BYTES,
        "first hidden state": batch * plan.record * machine.rows,
        "first cell state": plan.blocks * batch * 2 * machine.columns if "state" in plan.state_bases else 0,
    }


def _trial_queues(plan: RecurrentPlan, steps: int) -> dict[str, tuple[Descriptor, ...]]:
    short = replace(plan, layer=replace(plan.layer, steps=steps))
    place = TensorPlacement("trial", 0, steps, plan.layer.inputs, 1, 1)
    output = place if plan.layer.output else None
    image = RecurrentImage(place, output, place if plan.layer.last else None, 0, 0, 0, 0, 0)
    return emit_recurrent(short, image, _SHAPE_CELL, 0)


def _steady_cycles(plan: RecurrentPlan) -> int | None:
    """Cycles that one more time step takes; None when the queues outgrow descriptor memory."""
    totals = []
    for steps in (_TRIAL_STEPS, 2 * _TRIAL_STEPS):
        queues = _trial_queues(plan, steps)
        if max(len(queue) for queue in queues.values()) > plan.machine.descriptors:
            return None
        step = TileStep("trial", (), queues, 0, 0)
        totals.append(simulate_a(program_graph(TileProgram(plan.machine, (step,), {}, 0, None))).total_cycles)
    return totals[1] - totals[0]


def recurrent_step(
    code: RecurrentCode, graph: Graph, placements: Mapping[str, TensorPlacement], index: int, *, quantized: bool
) -> TileStep:
    """The step of a planned layer; `quantized` graphs give its shifts, others only its time."""
    layer, plan = code.layer, code.plan
    cell = _SHAPE_CELL
    if quantized:
        p = recurrent_parameters(graph, layer.op, plan.machine.requantize)
        cell = {
            "cell_fraction": p.cell_fraction, "cell_shift": p.cell_shift, "hidden_exponent": p.hidden_exponent,
        }  # fmt: skip
        _check_shifts(layer, cell)
    image = RecurrentImage(
        placements[layer.input],
        placements[layer.output] if layer.output else None,
        placements[layer.last] if layer.last else None,
        code.weights, code.parameters, code.tables, code.first_hidden, code.first_state,
    )  # fmt: skip
    queues = emit_recurrent(plan, image, cell, index)
    return TileStep(layer.name, (layer.op.name,), queues, layer.macs, index, {"mapping": plan.describe()})


def _check_shifts(layer: RecurrentLayer, cell: Mapping[str, int]) -> None:
    exponents = {"lstm": (0, 30), "gru": (0, 15)}.get(layer.kind, (cell["hidden_exponent"], cell["hidden_exponent"]))
    limits = {"cell_fraction": (0, 15), "cell_shift": (0, 15), "hidden_exponent": exponents}
    for name, (low, high) in limits.items():
        if not low <= cell[name] <= high:
            raise ModelError(f"layer {layer.name!r} has {name} {cell[name]}; the element unit takes {low} to {high}")


# -- constants in memory -------------------------------------------------------------------------------------------


def write_recurrent(memory: npt.NDArray[np.uint8], code: RecurrentCode, graph: Graph) -> None:
    """Write a layer's weights, channel parameters, tables and first states into a memory image.

    Raises
    ------
    ModelError: weights of more bits than the array has, or sums that may leave their 32 bits.
    """
    layer, plan = code.layer, code.plan
    p = recurrent_parameters(graph, layer.op, plan.machine.requantize)
    weights = {"x": p.weight[layer.direction], "h": p.recurrent[layer.direction]}
    _check_values(layer, plan.machine, weights, p)
    for base, data in (
        (code.weights, pack_words(_weight_words(plan, weights), plan.machine.weight_bits)),
        (code.parameters, _parameters(plan, p)),
        (code.tables, _tables(plan, p)),
        (code.first_hidden, _first_hidden(plan, graph)),
        (code.first_state, _first_state(plan, graph, p)),
    ):
        memory[base : base + data.size] = data


def _check_values(
    layer: RecurrentLayer, machine: Machine, weights: Mapping[str, npt.NDArray[np.int8]], p: RecurrentParameters
) -> None:
    most = max(int(np.abs(values.astype(np.int64)).max(initial=0)) for values in weights.values())
    if most >= 1 << (machine.weight_bits - 1):
        raise ModelError(
            f"layer {layer.name!r} has weights up to {most}; the array multiplies {machine.weight_bits}-bit weights"
        )
    sums = (
        np.abs(weights["x"].astype(np.int64)).sum(axis=1) * 255
        + np.abs(weights["h"].astype(np.int64)).sum(axis=1) * 128
    )
    sums = sums + np.abs(p.bias_x[layer.direction]) + np.abs(p.bias_h[layer.direction])
    if int(sums.max()) >= 1 << 31:
        raise ModelError(
            f"layer {layer.name!r}: the sum of row {int(sums.argmax())} may reach {int(sums.max())}, beyond the "
            "32 bits of an accumulator"
        )


def _blocked(plan: RecurrentPlan, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Values per gate row, shape (G * H, ...), as (G, units of whole blocks, ...), zeros behind the last unit."""
    gates, hidden = plan.layer.gates, plan.layer.hidden
    shaped = rows.reshape(gates, hidden, *rows.shape[1:])
    padding = [(0, 0), (0, plan.blocks * plan.machine.columns - hidden)] + [(0, 0)] * (shaped.ndim - 2)
    return np.pad(shaped, padding)


def _weight_words(plan: RecurrentPlan, weights: Mapping[str, npt.NDArray[np.int8]]) -> npt.NDArray[np.int8]:
    """Weight words in the order the array takes them: phase, chunk, part, gate, block, reduction word, row."""
    machine = plan.machine
    columns, rows, units = machine.columns, machine.rows, plan.units
    tiles = {}
    for source, words in (("x", plan.input_words), ("h", plan.hidden_words)):
        values = _blocked(plan, weights[source].astype(np.int64))
        padded = np.pad(values, ((0, 0), (0, 0), (0, words * rows - values.shape[2])))
        # gate, block, column, word, row -> gate, block, word, row, column
        split = padded.reshape(plan.layer.gates, plan.blocks, columns, words, rows)
        tiles[source] = split.transpose(0, 1, 3, 4, 2).astype(np.int8)
    pieces = []
    for phase in plan.layer.phases():
        for chunk in range(plan.chunks):
            blocks = slice(chunk * units, (chunk + 1) * units)
            for part in phase.parts:
                tile = tiles["x" if part.source == "x" else "h"]
                pieces += [tile[gate, blocks].reshape(-1, columns) for gate in part.gates]
    return np.concatenate(pieces)


def _parameters(plan: RecurrentPlan, p: RecurrentParameters) -> npt.NDArray[np.uint8]:
    """Channel parameters slot by slot: the gates; then, where a GRU keeps its products apart, the recurrent one."""
    layer = plan.layer
    d = layer.direction
    bias_x = p.bias_x[d] - p.zero_x * p.weight[d].astype(np.int64).sum(axis=1)
    apart = layer.parameter_slots > layer.gates
    candidate = np.arange(layer.gates * layer.hidden) >= 2 * layer.hidden
    bias = bias_x + np.where(candidate & apart, 0, p.bias_h[d])
    shift = p.shift[d] - np.where(candidate & apart, _EXTRA_BITS, 0)
    slots = [_blocked(plan, values) for values in (bias, p.multiplier[d], shift)]
    if apart:
        recurrent = _blocked(plan, p.bias_h[d])[2:]
        slots = [np.concatenate([slots[0], recurrent])] + [np.concatenate([values, values[2:]]) for values in slots[1:]]
    if int(np.abs(slots[0]).max()) >= 1 << 31:
        raise ModelError(f"layer {layer.name!r}: a bias corrected for the input zero point leaves int32")
    table = np.zeros(slots[0].size, np.dtype([("bias", "<i4"), ("multiplier", "<u4"), ("shift", "i1")]))
    for name, values in zip(("bias", "multiplier", "shift"), slots, strict=True):
        table[name] = values.ravel()
    # channels that the layer does not have are neutral
    table["shift"][table["multiplier"] == 0] = 1
    return table.view(np.uint8)


def _tables(plan: RecurrentPlan, p: RecurrentParameters) -> npt.NDArray[np.uint8]:
    d = plan.layer.direction
    tables = [*p.tables[d], *([p.cell_table[d]] if plan.layer.kind == "lstm" else [])]
    values = np.asarray(tables).astype("<i2")
    assert values.shape == (plan.tables, TABLE_ENTRIES)
    return values.view(np.uint8).ravel()


def _constant(plan: RecurrentPlan, graph: Graph, place: int) -> npt.NDArray[np.int64]:
    """A first state, zero unless the op names one: int64, shape (batch, hidden)."""
    layer = plan.layer
    names = layer.op.inputs
    data = graph[names[place]].data if len(names) > place and names[place] else None
    if data is None:
        return np.zeros((layer.batch, layer.hidden), np.int64)
    return np.asarray(data[layer.direction], np.int64)


def _first_hidden(plan: RecurrentPlan, graph: Graph) -> npt.NDArray[np.uint8]:
    """Activation words of the first hidden state: a record for each sequence of the batch."""
    words = np.zeros((plan.layer.batch, plan.record * plan.machine.rows), np.int8)
    words[:, : plan.layer.hidden] = _constant(plan, graph, 5)
    return words.view(np.uint8).ravel()


def _first_state(plan: RecurrentPlan, graph: Graph, p: RecurrentParameters) -> npt.NDArray[np.uint8]:
    """STATE words of an lstm's first cell, or of a gru's first state, which is its hidden state in Q15."""
    layer, columns = plan.layer, plan.machine.columns
    if layer.kind == "rnn":
        return np.zeros(0, np.uint8)
    values = (
        _constant(plan, graph, 6) if layer.kind == "lstm" else _constant(plan, graph, 5) << (15 - p.hidden_exponent)
    )
    padded = np.zeros((layer.batch, plan.blocks * columns), np.int64)
    padded[:, : layer.hidden] = values
    blocks = padded.reshape(layer.batch, plan.blocks, columns).transpose(1, 0, 2)
    return np.ascontiguousarray(blocks.astype("<i2")).view(np.uint8).ravel()
