"""Reading an int8 or 16x8 TFLite file, untrusted, into a normalised Graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir.graph import Graph, Op
from workloads.tflite import layers, movement, recurrent, streams
from workloads.tflite.flat import RawOperator, RawSubgraph, decode_file
from workloads.tflite.network import Call, Network

_CONVERTERS: Mapping[str, Callable[[Call], None]] = {
    "CONV_2D": layers.convolution,
    "DEPTHWISE_CONV_2D": layers.convolution,
    "FULLY_CONNECTED": layers.dense,
    "ADD": layers.arithmetic,
    "MUL": layers.arithmetic,
    "AVERAGE_POOL_2D": layers.pool,
    "MAX_POOL_2D": layers.pool,
    "MEAN": layers.mean,
    "SOFTMAX": layers.softmax,
    "LOGISTIC": layers.unary("sigmoid"),
    "TANH": layers.unary("tanh"),
    "RELU": layers.unary("requantize", activation="relu"),
    "RELU6": layers.unary("requantize", activation="relu6"),
    "QUANTIZE": layers.quantize,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": recurrent.lstm,
    "RESHAPE": movement.reshape,
    "SQUEEZE": movement.reshape,
    "EXPAND_DIMS": movement.reshape,
    "TRANSPOSE": movement.transpose,
    "CONCATENATION": movement.concatenation,
    "STRIDED_SLICE": movement.strided_slice,
    "SLICE": movement.slice_box,
    "SPLIT": movement.split,
    "SPLIT_V": movement.split,
    "PAD": movement.pad,
    "VAR_HANDLE": streams.handle,
    "READ_VARIABLE": streams.read,
    "ASSIGN_VARIABLE": streams.assign,
}
SUPPORTED_OPS = tuple(sorted((*_CONVERTERS, "CALL_ONCE", "DEQUANTIZE")))


@dataclass(frozen=True)
class State:
    """A value that a streaming network hands from one step to the next.

    Parameters
    ----------
    input, output
        Graph input that takes the value before a step, Graph output that gives the value after it.
    initial : int8
        Value before the first step.
    """

    input: str
    output: str
    initial: npt.NDArray[np.int8]


@dataclass(frozen=True)
class TfliteModel:
    """A network and the state it carries; `states` is empty for a network without memory.

    The Graph's first inputs and outputs are the file's; those of the states follow in the order of `states`.
    """

    graph: Graph
    states: tuple[State, ...]


def read_model(path: Path, dims: Mapping[str, int] | None = None, *, source: str | None = None) -> Graph:
    """The Graph of a TFLite file; the state of a streaming network is an input and an output (`read_streaming`).

    Parameters
    ----------
    dims
        Must be empty: a TFLite file fixes its shapes. Taken for the message's sake.
    source
        How messages call the model; the file's name when not given.

    Raises
    ------
    ModelError: anything that keeps the file from being read.
    """
    return read_streaming(path, dims, source=source).graph


def read_streaming(path: Path, dims: Mapping[str, int] | None = None, *, source: str | None = None) -> TfliteModel:
    """The Graph of a TFLite file together with the initial values of its state; parameters as `read_model`.

    Raises
    ------
    ModelError: anything that keeps the file from being read.
    """
    source = path.name if source is None else source
    if dims:
        raise ModelError(f"{source}: has no dimension {next(iter(dims))!r} to bind; a TFLite file fixes its shapes")
    subgraphs = decode_file(path, source)
    main = subgraphs[0]
    network = Network(source, main)
    fed = {operator.inputs[0]: operator for operator in main.operators if _is_host_quantize(operator, main)}
    inputs = [_declare_input(network, index, fed) for index in main.inputs]
    if len(set(inputs)) != len(inputs):
        raise ModelError(f"{source}: an input appears twice")
    aliases: dict[int, int] = {}
    for operator in main.operators:
        _convert(Call(network, operator), subgraphs, aliases)
    outputs = [_output(network, aliases.get(index, index)) for index in main.outputs]
    return _finish(network, path.stem, inputs, outputs)


def _is_host_quantize(operator: RawOperator, graph: RawSubgraph) -> bool:
    """A QUANTIZE of a float input of the network: the host's work, as with every quantized Graph."""
    return (
        operator.kind == "QUANTIZE"
        and len(operator.inputs) == len(operator.outputs) == 1
        and operator.inputs[0] in graph.inputs
        and operator.outputs[0] >= 0
        and graph.tensors[operator.inputs[0]].dtype == "FLOAT32"
    )


def _declare_input(network: Network, index: int, fed: Mapping[int, RawOperator]) -> str:
    raw = network.subgraph.tensors[index]
    if index in fed:
        raw = network.subgraph.tensors[fed[index].outputs[0]]
    if raw.data is not None or raw.index in network.names:
        raise ModelError(f"{network.source}: input {raw.name!r} is a constant or appears twice")
    if not raw.shape:
        raise ModelError(f"{network.source}: input {raw.name!r} is a scalar; it needs at least one dimension")
    name = network.declare(raw)
    if network.tensors[name].dtype not in ("int8", "int16"):
        raise ModelError(
            f"{network.source}: input {name!r} has the type {raw.dtype}, only INT8 and INT16 are supported"
        )
    return name


def _convert(call: Call, subgraphs: tuple[RawSubgraph, ...], aliases: dict[int, int]) -> None:
    kind, main = call.operator.kind, subgraphs[0]
    if kind == "CALL_ONCE":
        streams.call_once(call, subgraphs)
    elif kind == "DEQUANTIZE":
        if len(call.operator.outputs) != 1 or call.raw_output().index not in main.outputs:
            call.fail("is supported at the network's outputs only; floats inside a network are not")
        # the host reads the integers and their scale
        aliases[call.raw_output().index] = call.raw(0).index
    elif _is_host_quantize(call.operator, main):
        pass
    elif kind in _CONVERTERS:
        try:
            _CONVERTERS[kind](call)
        except (ValueError, IndexError, ArithmeticError) as error:
            # NumPy's word on operands that do not fit each other: the file's fault, not ours
            call.fail(f"is malformed: {error}")
    else:
        call.fail(f"this operator is not supported; supported: {', '.join(SUPPORTED_OPS)}")


def _output(network: Network, index: int) -> str:
    if index not in network.names:
        raise ModelError(f"{network.source}: output {network.subgraph.tensors[index].name!r} is produced by no op")
    return network.names[index]


def _finish(network: Network, name: str, inputs: list[str], outputs: list[str]) -> TfliteModel:
    states = tuple(
        State(variable.first, variable.current, np.ascontiguousarray(variable.initial))
        for variable in streams.close(network)
    )
    inputs += [state.input for state in states]
    outputs += [state.output for state in states]
    if not inputs or not outputs or len(set(outputs)) != len(outputs):
        raise ModelError(f"{network.source}: has {len(inputs)} inputs and {len(outputs)} different outputs; needs both")
    ops = _uniquely_named(_live(network.ops, outputs))
    used = {*inputs, *outputs, *(item for op in ops for item in (*op.inputs, *op.outputs))}
    tensors = {key: tensor for key, tensor in network.tensors.items() if key in used}
    return TfliteModel(Graph(name, tensors, ops, tuple(inputs), tuple(outputs), network.source), states)


def _live(ops: list[Op], outputs: list[str]) -> list[Op]:
    """Ops that an output depends on: turns that a later op made superfluous are gone."""
    needed, kept = set(outputs), []
    for op in reversed(ops):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    return kept[::-1]


def _uniquely_named(ops: list[Op]) -> tuple[Op, ...]:
    """An operator that became several ops has its last one named after it, the others numbered."""
    total: dict[str, int] = {}
    for op in ops:
        total[op.name] = total.get(op.name, 0) + 1
    seen: dict[str, int] = {}
    named = []
    for op in ops:
        seen[op.name] = seen.get(op.name, 0) + 1
        last = seen[op.name] == total[op.name]
        named.append(op if last else replace(op, name=f"{op.name}.{seen[op.name]}"))
    return tuple(named)
