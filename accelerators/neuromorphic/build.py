"""From the graph of one time step to an integer network: synapses composed, steps retimed, weights quantized.

**Time.** In the graph a spike crosses all layers within a step; cores hand it on in the step after. Each population
gets a lag behind the input so that every projection takes at least one step (from outside: none); projections that
skip layers get the difference as delay. A loop keeps its timing exactly, or is refused when it is shorter than its
neurons' hand-overs.

**Integers.** A neuron's states may be in any unit: with s units to 1, its incoming weights, threshold, reset and bias
are multiplied by s. One s for a layer (`layer`), or for each output channel (`channel`: more thresholds to store, finer
weights). s makes the largest weight fill the weight bits, or a fraction of it where clipping the largest leaves a
smaller squared error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from accelerators.neuromorphic.linear import ConvLayer, composed, offset_of, paths_into
from accelerators.neuromorphic.network import Csr, Input, Network, Population, Projection
from accelerators.neuromorphic.semantics import KEEP_ALL, MIN_DELAY, never, shift_of, state_range
from dse.core.errors import ModelError
from dse.ir import Graph, Op

Floats = npt.NDArray[np.float64]
_CLIP_SHARES = np.linspace(0.4, 1.0, 25)


@dataclass(frozen=True)
class Precision:
    """Widths of the integer network.

    Parameters
    ----------
    weight_bits, state_bits
        Signed; weights symmetric.
    fraction_bits
        Bits of the state below the unit of a weight.
    payload_bits
        Bits of an input event's payload; 0: binary spikes.
    decay
        "multiplier": any 12-bit factor; "shift": 1 - 2**-s, the nearest.
    granularity
        One unit for a layer, or for each output channel.
    clip
        Whether the largest weights may be clipped for a smaller squared error.
    """

    weight_bits: int = 8
    state_bits: int = 24
    fraction_bits: int = 6
    payload_bits: int = 0
    decay: Literal["multiplier", "shift"] = "multiplier"
    granularity: Literal["layer", "channel"] = "layer"
    clip: bool = True


@dataclass(frozen=True, eq=False)
class _Link:
    source: str
    steps: int
    weights: ConvLayer | sparse.csr_matrix


def build_network(graph: Graph, precision: Precision, input_scale: Mapping[str, float] | None = None) -> Network:
    """The integer network of a spiking graph.

    Parameters
    ----------
    input_scale
        Payload of one real unit by input name; 1 where not given (spikes).

    Raises
    ------
    ModelError: an output that is no neuron, an op that is not linear, a loop that is too short, missing constants.
    """
    neurons = [op for op in graph.ops if op.kind == "neuron"]
    where = graph.source or graph.name
    if not neurons:
        raise ModelError(f"{where}: has no neurons; convert it to spikes first")
    scales = dict(input_scale or {})
    links = {op.outputs[0]: _links(graph, op) for op in neurons}
    silent = {op.outputs[0] for op in neurons if not op.inputs[4]}
    for target, found in links.items():
        for link in found:
            if link.source in silent:
                raise ModelError(
                    f"{where}: neuron {link.source!r} never fires, yet feeds {target!r}; cores send spikes"
                )
    lags = _lags(links, graph.inputs, where)
    inputs, first = [], 0
    for name in graph.inputs:
        inputs.append(Input(name, graph[name].shape[1:], first, scales.get(name, 1.0)))
        first += inputs[-1].size
    populations: list[Population] = []
    projections: list[Projection] = []
    order = [*graph.inputs, *links]
    first = 0
    for index, op in enumerate(neurons):
        population, quantized = _quantized(graph, op, links[op.outputs[0]], precision, scales)
        population = replace(population, first=first, lag=lags[op.outputs[0]])
        populations.append(population)
        first += population.size
        for link, weights in zip(links[op.outputs[0]], quantized, strict=True):
            delay = link.steps + lags[op.outputs[0]] - lags[link.source]
            projections.append(Projection(order.index(link.source), index, delay, weights))
    names = [op.outputs[0] for op in neurons]
    outputs = []
    for name in graph.outputs:
        if name not in names:
            raise ModelError(f"{where}: output {name!r} is not a neuron's; cores put out spikes and potentials only")
        outputs.append((name, names.index(name), lags[name]))
    return Network(graph.name, tuple(inputs), tuple(populations), tuple(projections), tuple(outputs),
                   precision.weight_bits, precision.state_bits, precision.fraction_bits,
                   precision.payload_bits)  # fmt: skip


def _links(graph: Graph, op: Op) -> list[_Link]:
    """What feeds a neuron, paths of one source and delay added up."""
    found: dict[tuple[str, int], list[Any]] = {}
    for path in paths_into(graph, op.inputs[0]):
        for steps, weights in composed(graph, path):
            found.setdefault((path.source, steps), []).append(weights)
    links = []
    for (source, steps), parts in found.items():
        if len(parts) > 1:
            parts = [sum((p.matrix() if isinstance(p, ConvLayer) else p) for p in parts)]
        links.append(_Link(source, steps, parts[0]))
    return links


def _lags(links: Mapping[str, Sequence[_Link]], inputs: Sequence[str], where: str) -> dict[str, int]:
    """Steps each population lags the input, the least that every hand-over allows."""
    lags = dict.fromkeys([*inputs, *links], 0)
    for _ in range(len(lags) + 1):
        changed = False
        for target, found in links.items():
            for link in found:
                needed = lags[link.source] - link.steps + (0 if link.source in inputs else MIN_DELAY)
                if lags[target] < needed:
                    lags[target] = needed
                    changed = True
        if not changed:
            return lags
    loops = [name for name, found in links.items() if any(link.steps for link in found)]
    raise ModelError(
        f"{where}: a loop through {', '.join(map(repr, loops))} comes round in fewer steps than it has neurons; cores "
        f"hand a spike on in the step after, so a loop of n populations needs a delay of n steps"
    )


def _quantized(
    graph: Graph, op: Op, links: Sequence[_Link], precision: Precision, scales: Mapping[str, float]
) -> tuple[Population, list[Csr | ConvLayer]]:
    shape = graph[op.outputs[0]].shape[1:]
    size = math.prod(shape)
    keep, gain, offset = (_parameter(graph, name, size) for name in op.inputs[1:4])
    spiking = bool(op.inputs[4])
    threshold = _parameter(graph, op.inputs[4], size) if spiking else np.zeros(size)
    reset = _parameter(graph, op.inputs[5], size) if spiking else np.zeros(size)
    current = _parameter(graph, op.inputs[6], size) if len(op.inputs) > 6 and op.inputs[6] else np.zeros(size)
    # the bias drives the current; a leak potential of a neuron with a current of its own becomes a shifted potential
    rest = np.zeros(size)
    if current.any():
        if (offset[keep >= 1] != 0).any():
            raise ModelError(f"{graph.source or graph.name}: neuron {op.name!r} has an offset and loses no potential")
        rest = np.divide(offset, 1 - keep, out=np.zeros(size), where=offset != 0)
        offset = np.zeros(size)
    subtract = bool(op.attributes.get("subtract", False))
    threshold, reset = threshold - rest, reset if subtract else reset - rest
    offset = offset + gain * offset_of(graph, op.inputs[0])
    real = [_gained(link.weights, gain, scales.get(link.source, 1.0), shape) for link in links]
    unit = _units(real, shape, threshold if spiking else None, precision)
    state = unit * 2.0**precision.fraction_bits
    low, high = state_range(precision.state_bits)

    def held(values: Floats) -> npt.NDArray[np.int64]:
        return np.clip(np.rint(values * state), low, high).astype(np.int64)

    if not spiking:
        limit = np.full(size, never(precision.state_bits), np.int64)
    elif op.attributes.get("inclusive", False):
        limit = np.clip(np.ceil(_clean(threshold * state)) - 1, low, high).astype(np.int64)
    else:
        limit = np.clip(np.floor(_clean(threshold * state)), low, high).astype(np.int64)
    population = Population(
        name=op.outputs[0],
        shape=shape,
        first=0,
        threshold=limit,
        reset=held(reset),
        bias=held(offset),
        initial=held(np.asarray(op.attributes.get("initial", 0.0), np.float64).reshape(-1) - rest),
        keep_current=_keeps(current, precision),
        keep_voltage=_keeps(keep, precision),
        subtract=subtract,
        refractory=int(op.attributes.get("refractory", 0)),
        spiking=spiking,
        lag=0,
        scale=state,
    )
    return population, [_integers(weights, unit, precision) for weights in real]


def _clean(values: Floats) -> Floats:
    """Products that miss an integer by float rounding, put onto it."""
    near = np.rint(values)
    return np.asarray(np.where(np.abs(values - near) < 1e-6 * np.maximum(1.0, np.abs(near)), near, values))


def _parameter(graph: Graph, name: str, size: int) -> Floats:
    data = graph[name].data
    if data is None:
        raise ModelError(f"{graph.source or graph.name}: constant {name!r} has no values")
    return np.broadcast_to(np.asarray(data, np.float64).reshape(-1), (size,)).copy()


def _gained(
    weights: ConvLayer | sparse.csr_matrix, gain: Floats, input_scale: float, shape: tuple[int, ...]
) -> ConvLayer | sparse.csr_matrix:
    """Real weights as the neuron sees them, for one unit of payload."""
    if isinstance(weights, ConvLayer):
        by_channel = gain.reshape(shape[0], -1)
        if (by_channel == by_channel[:, :1]).all():
            factor = by_channel[:, 0] / input_scale
            return replace(weights, weight=weights.weight * factor[:, None, None, None])
        weights = weights.matrix()
    return sparse.csr_matrix(weights @ sparse.diags(gain / input_scale, format="csr"))


def _units(
    real: Sequence[ConvLayer | sparse.csr_matrix], shape: tuple[int, ...], threshold: Floats | None, p: Precision
) -> Floats:
    """Integer units of one real unit for each neuron."""
    size, channels = math.prod(shape), shape[0]
    groups = np.repeat(np.arange(channels), size // channels) if p.granularity == "channel" else np.zeros(size, int)
    top = (1 << (p.weight_bits - 1)) - 1
    members: list[list[Floats]] = [[] for _ in range(int(groups.max()) + 1)]
    for weights in real:
        if isinstance(weights, ConvLayer):
            rows = weights.weight.reshape(channels, -1)
            for group, found in enumerate(members):
                found.append(rows[group] if p.granularity == "channel" else rows.reshape(-1))
        else:
            coo = weights.tocoo()
            owner = groups[coo.col]
            order = np.argsort(owner, kind="stable")
            edges = np.searchsorted(owner[order], np.arange(len(members) + 1))
            for group, found in enumerate(members):
                found.append(coo.data[order[edges[group] : edges[group + 1]]])
    units = np.array([_unit(np.concatenate(found) if found else np.zeros(0), top, p.clip) for found in members])
    result: Floats = units[groups]
    if threshold is not None:
        # half the range is left above the threshold for what one step can add
        most = 2.0 ** (p.state_bits - 2 - p.fraction_bits)
        needed = np.abs(threshold).max(initial=0.0)
        result = np.asarray(np.minimum(result, most / needed)) if needed > 0 else result
    return result


def _unit(values: Floats, top: int, clip: bool) -> float:
    """Units that fit `values` into -top..top, the largest clipped where that lowers the squared error."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return 1.0
    if not clip or top < 1:
        return top / largest
    sample = values if values.size <= 1 << 16 else values[:: values.size // (1 << 16) + 1]
    best, unit = math.inf, top / largest
    for share in _CLIP_SHARES:
        candidate = top / (share * largest)
        error = float(np.square(np.clip(np.rint(sample * candidate), -top, top) / candidate - sample).sum())
        if error < best:
            best, unit = error, candidate
    return unit


def _integers(weights: ConvLayer | sparse.csr_matrix, unit: Floats, p: Precision) -> Csr | ConvLayer:
    top = (1 << (p.weight_bits - 1)) - 1
    if isinstance(weights, ConvLayer):
        by_channel = unit.reshape(weights.output_shape[0], -1)[:, 0]
        whole = np.clip(np.rint(weights.weight * by_channel[:, None, None, None]), -top, top)
        return replace(weights, weight=whole.astype(np.int16))
    scaled = sparse.csr_matrix(weights @ sparse.diags(unit, format="csr"))
    scaled.data = np.clip(np.rint(scaled.data), -top, top)
    # a synapse of weight zero does nothing and is not stored
    scaled.eliminate_zeros()
    scaled.sort_indices()
    return Csr(scaled.indptr.astype(np.int64), scaled.indices.astype(np.int32), scaled.data.astype(np.int16))


def _keeps(keep: Floats, p: Precision) -> npt.NDArray[np.int64]:
    if (keep < 0).any() or (keep > 1).any():
        raise ModelError(f"a neuron keeps {keep.min():g} to {keep.max():g} of its state; cores hold 0 to 1")
    factors = np.rint(keep * KEEP_ALL).astype(np.int64)
    if p.decay == "multiplier":
        return factors
    possible = np.array([k for k in range(KEEP_ALL + 1) if k == KEEP_ALL or shift_of(k) is not None])
    nearest = np.abs(possible[None, :] - factors.reshape(-1, 1)).argmin(axis=1)
    return np.asarray(possible[nearest], np.int64)
