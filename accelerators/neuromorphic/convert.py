"""A trained network of ReLUs as a spiking network: rates stand for activations.

Each ReLU becomes integrate-and-fire neurons whose threshold lambda is the activation that a spike in every step stands
for (threshold balancing; Diehl et al. 2015, Rueckauer et al. 2017): soft reset keeps what exceeds the threshold, a
potential of lambda / 2 at the start rounds instead of truncating, and a spike is worth lambda to the layer behind it,
a factor that is multiplied into weights. Biases are constant currents. The last layer integrates and never fires;
its potential after T steps is T times the logits.

lambda is a percentile of the layer's activations on calibration data, or the value with the least squared error of
activations rounded to T + 1 levels. What remains differs layer by layer in the mean (spikes come early or late). With
`compensate`, each neuron's mean error on the calibration data is added to its bias (Li et al. 2021, a free lunch from
ANN).

A max pool is no sum of its inputs. It is refused, or with `max_pool="relu"` built from ReLUs,
max(a, b) = b + relu(a - b), two stages for a 2 x 2 window, or with `max_pool="average"` replaced by an average, which
changes the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.maxpool import average_instead, relu_instead
from dse.compiler import prepare, strip_softmax
from dse.core.errors import ModelError
from dse.ir import Graph, Op, Tensor
from dse.ir.kinds import RECURRENT_KINDS
from dse.ir.reference import run_float, run_op_float
from dse.ir.spiking import run_neuron

Floats = npt.NDArray[np.float64]
#: Ops a converted network may hold; what else there is ends with its name.
CONVERTIBLE = ("conv", "gemm", "add", "relu", "clip", "average_pool", "global_average_pool", "flatten", "reshape",
               "identity", "mul", "batch_norm", "softmax")  # fmt: skip
_SHARES = np.linspace(0.2, 1.0, 33)
#: Rounds of compensation per layer: a shifted bias moves the rate by less than itself.
_ROUNDS = 2


@dataclass(frozen=True)
class Conversion:
    """How activations become spikes.

    Parameters
    ----------
    steps
        T, the time steps an input is shown.
    normalization
        "percentile": lambda is `percentile` of the positive activations; "error": least squared error at T steps.
    coding
        Of the input: "direct", its value as payload of an event in every step (needs payload bits); "rate", spikes.
    max_pool
        "refuse", "relu" or "average".
    compensate
        Whether mean errors are taken out through the biases.
    """

    steps: int = 8
    normalization: Literal["percentile", "error"] = "error"
    percentile: float = 99.9
    coding: Literal["rate", "direct"] = "rate"
    max_pool: Literal["refuse", "relu", "average"] = "refuse"
    compensate: bool = True


@dataclass(frozen=True, eq=False)
class Converted:
    """A spiking graph with what its inputs mean: `amplitude` is the real value of a spike in every step, by input."""

    graph: Graph
    conversion: Conversion
    amplitude: Mapping[str, float]
    thresholds: Mapping[str, float]

    def encode(self, name: str, sample: npt.ArrayLike, payload_bits: int) -> npt.NDArray[np.int32]:
        """Events of one sample of an input, int32 (steps, *shape): payloads each step, or spikes at its rate.

        Raises
        ------
        ModelError: a negative value cannot be a rate.
        """
        share = np.asarray(sample, np.float64) / self.amplitude[name]
        steps = self.conversion.steps
        if self.conversion.coding == "direct":
            top = (1 << payload_bits) - 1
            payload = np.clip(np.rint(share * top), -top, top).astype(np.int32)
            return np.broadcast_to(payload, (steps, *payload.shape)).copy()
        if (share < 0).any():
            raise ModelError(f"{self.graph.name}: input {name!r} holds negative values, which no rate can be; "
                             "use direct coding")  # fmt: skip
        # an integrate-and-fire neuron per element, from half its threshold
        counts = np.floor(np.minimum(share, 1.0) * np.arange(1, steps + 1).reshape(-1, *[1] * share.ndim) + 0.5)
        return np.asarray(np.diff(counts, axis=0, prepend=0.0), np.int32)

    def input_scale(self, payload_bits: int) -> dict[str, float]:
        """Payload of one real unit, by input."""
        top = (1 << payload_bits) - 1 if self.conversion.coding == "direct" else 1
        return {name: top / amplitude for name, amplitude in self.amplitude.items()}


def convert(graph: Graph, conversion: Conversion, calibration: Mapping[str, npt.ArrayLike]) -> Converted:
    """Make a spiking network of a float network of ReLUs.

    Parameters
    ----------
    calibration
        Samples by input name, shape (samples, ...).

    Raises
    ------
    ModelError: an op without conversion, by name; a max pool while it is refused.
    """
    graph = strip_softmax(prepare(graph))
    if conversion.max_pool == "relu":
        graph = relu_instead(graph)
    elif conversion.max_pool == "average":
        graph = average_instead(graph)
    _check(graph)
    values = run_float(graph, calibration, keep=True)
    thresholds = {name: _threshold(values[name], conversion) for name in _rectified(graph)}
    amplitude = {name: float(np.abs(np.asarray(calibration[name])).max()) or 1.0 for name in graph.inputs}
    spiking = _with_neurons(graph, thresholds)
    result = Converted(spiking, conversion, amplitude, thresholds)
    return replace(result, graph=_compensated(result, graph, calibration, values)) if conversion.compensate else result


def least_neurons(graph: Graph) -> int:
    """Neurons that a spiking graph has, or that a float one has at least when converted: its rectified values.

    Known from shapes alone, so that a network far larger than a chip is refused before it is simulated.
    """
    if any(op.kind == "neuron" for op in graph.ops):
        return sum(math.prod(graph[op.outputs[0]].shape[1:]) for op in graph.ops if op.kind == "neuron")
    prepared = prepare(graph)
    return sum(math.prod(prepared[name].shape[1:]) for name in _rectified(prepared))


def _check(graph: Graph) -> None:
    where = graph.source or graph.name
    gated = next((op for op in graph.ops if op.kind in RECURRENT_KINDS), None)
    if gated is not None:
        raise ModelError(f"{where}: op {gated.name!r} ({gated.kind}) has gates that rates cannot express; recurrent "
                         "networks are trained as spiking ones and read from .nir")  # fmt: skip
    for op in graph.ops:
        if op.kind == "max_pool":
            raise ModelError(
                f"{where}: op {op.name!r} is a max pool, which sums of spikes cannot express; set max_pool to 'relu' "
                "(exact, more neurons) or 'average' (changes the network)"
            )
        if op.kind not in CONVERTIBLE:
            raise ModelError(f"{where}: op {op.name!r} ({op.kind}) has no spiking form; convertible: "
                             f"{', '.join(CONVERTIBLE)}")  # fmt: skip
        if op.kind == "clip" and op.attributes["low"] != 0:
            raise ModelError(f"{where}: op {op.name!r} clips below {op.attributes['low']:g}; a rate starts at 0")
    producers = {op.outputs[0]: op for op in graph.ops}
    for name in graph.outputs:
        last = producers.get(name)
        if last is not None and _activation(last) != "none":
            raise ModelError(f"{where}: output {name!r} is rectified; a converted network ends in a linear layer")


def _activation(op: Op) -> str:
    if op.kind in ("relu", "clip"):
        return op.kind
    return str(op.attributes.get("activation", "none"))


def _rectified(graph: Graph) -> list[str]:
    return [op.outputs[0] for op in graph.ops if _activation(op) != "none"]


def _threshold(values: npt.NDArray[Any], conversion: Conversion) -> float:
    positive = np.asarray(values, np.float64)
    positive = positive[positive > 0]
    if not positive.size:
        return 1.0
    top = float(np.percentile(positive, conversion.percentile))
    if conversion.normalization == "percentile":
        return top
    sample = positive[:: positive.size // 50_000 + 1]
    errors = []
    for share in _SHARES:
        unit = share * top / conversion.steps
        rounded = np.clip(np.floor(sample / unit + 0.5), 0, conversion.steps) * unit
        errors.append(float(np.square(rounded - sample).sum()))
    return float(_SHARES[int(np.argmin(errors))]) * top


def _constant(name: str, values: npt.ArrayLike) -> Tensor:
    data = np.asarray(values, np.float32)
    return Tensor(name, data.shape, data=data)


def _with_neurons(graph: Graph, thresholds: Mapping[str, float]) -> Graph:
    """Neurons in place of ReLUs, and behind every output."""
    tensors, ops = dict(graph.tensors), []
    for op in graph.ops:
        name = op.outputs[0]
        if name not in thresholds:
            ops.append(op)
            continue
        shape, level = graph[name].shape, thresholds[name]
        before = f"{name}.current"
        if op.kind in ("relu", "clip"):
            before = op.inputs[0]
        else:
            tensors[before] = Tensor(before, shape)
            ops.append(replace(op.with_attributes(activation="none"), outputs=(before,)))
        ops += _neuron(tensors, name, before, shape, level)
    outputs = []
    for name in graph.outputs:
        outputs.append(f"{name}.potential")
        ops.append(_membrane(tensors, outputs[-1], name, graph[name].shape))
    return replace(graph, tensors=tensors, ops=tuple(ops), outputs=tuple(outputs))


def _neuron(tensors: dict[str, Tensor], name: str, before: str, shape: tuple[int, ...], level: float) -> tuple[Op, Op]:
    names = {key: f"{name}.{key}" for key in ("keep", "gain", "offset", "threshold", "reset")}
    for key, value in (("keep", 1.0), ("gain", 1.0), ("offset", 0.0), ("threshold", level), ("reset", level)):
        tensors[names[key]] = _constant(names[key], np.full(shape[1:], value))
    spikes, amplitude = f"{name}.spikes", f"{name}.amplitude"
    tensors[spikes] = Tensor(spikes, shape)
    tensors[amplitude] = _constant(amplitude, level)
    attributes = {"subtract": True, "inclusive": True, "initial": level / 2, "model": "IF"}
    return (
        Op(f"{name}.neurons", "neuron", (before, *names.values()), (spikes,), attributes),
        Op(f"{name}.worth", "mul", (spikes, amplitude), (name,)),
    )


def _membrane(tensors: dict[str, Tensor], name: str, before: str, shape: tuple[int, ...]) -> Op:
    names = {key: f"{name}.{key}" for key in ("keep", "gain", "offset")}
    for key, value in (("keep", 1.0), ("gain", 1.0), ("offset", 0.0)):
        tensors[names[key]] = _constant(names[key], np.full(shape[1:], value))
    tensors[name] = Tensor(name, shape)
    return Op(name, "neuron", (before, *names.values(), "", ""), (name,), {"model": "I"})


def _compensated(
    converted: Converted, original: Graph, calibration: Mapping[str, npt.ArrayLike], values: Mapping[str, Any]
) -> Graph:
    """The spiking graph with mean errors taken out through the neurons' offsets, layer by layer.

    A converted network has no loops, so each op runs over all steps at once before the next one does.
    """
    graph, steps = converted.graph, converted.conversion.steps
    held = {name: _driven(converted, name, calibration[name]) for name in original.inputs}
    last_use = {name: index for index, op in enumerate(graph.ops) for name in op.inputs}
    tensors = dict(graph.tensors)
    for index, op in enumerate(graph.ops):
        name = op.outputs[0]
        if op.kind == "neuron":
            x = held[op.inputs[0]].reshape(steps, -1, *tensors[name].shape[1:])
            wanted = np.asarray(values[name.removesuffix(".potential").removesuffix(".spikes")], np.float64)
            for _ in range(_ROUNDS):
                graph = replace(graph, tensors=tensors)
                result = _integrated(graph, op, x)
                old = tensors[op.inputs[3]].data
                assert old is not None
                tensors[op.inputs[3]] = _constant(op.inputs[3], old + _shift(wanted, _mean_rate(graph, op, result)))
            held[name] = _integrated(replace(graph, tensors=tensors), op, x).reshape(-1, *x.shape[2:])
        else:
            read = {item: held[item] for item in op.inputs if item in held}
            held[name] = run_op_float(graph, op, read)[name]
        for item in op.inputs:
            if last_use[item] == index:
                held.pop(item, None)
    return replace(graph, tensors=tensors)


def _driven(converted: Converted, name: str, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """What an input carries in all steps of all samples, shape (steps * samples, ...)."""
    conversion, array = converted.conversion, np.asarray(samples, np.float32)
    if conversion.coding == "direct":
        return np.tile(array, (conversion.steps, *[1] * (array.ndim - 1)))
    spikes = np.stack([converted.encode(name, sample, 0) for sample in array], axis=1)
    return np.asarray(spikes.reshape(-1, *array.shape[1:]) * converted.amplitude[name], np.float32)


def _integrated(graph: Graph, op: Op, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Spikes or potentials of one neuron op over all steps, from x (steps, samples, ...)."""
    state: dict[str, Floats] = {}
    return np.asarray([run_neuron(graph, op, frame, state) for frame in x], np.float32)


def _mean_rate(graph: Graph, op: Op, result: npt.NDArray[np.float32]) -> Floats:
    """What a layer has put out on average, in units of the activation, shape (samples, ...)."""
    if not op.inputs[4]:
        return np.asarray(result[-1] / len(result), np.float64)
    threshold = graph[op.inputs[4]].data
    assert threshold is not None
    return np.asarray(result.mean(axis=0) * threshold, np.float64)


def _shift(wanted: Floats, seen: Floats) -> Floats:
    """Mean error of each neuron, shape of one sample."""
    return np.asarray((wanted - seen).mean(axis=0))
