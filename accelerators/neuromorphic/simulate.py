"""Functional simulation: which neurons fire in which step, bit for bit as `semantics` says, in compiled code.

Event driven: a spike walks the synapses of its source and adds to the charges of the step in which it is due. The
result, `Activity`, holds all that a cost model needs and nothing of the mapping: simulated once, priced under many.

A charge and the number of synapses that made it travel in one 64-bit word, sum above count, so that an addition
per synapse keeps both: a neuron whose inputs cancel still has been touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.network import Csr, Network
from accelerators.neuromorphic.semantics import DECAY_BITS, state_range
from dse.core.errors import ModelError

Ints = npt.NDArray[np.int64]

#: Bits of the synapse count below the charge.
_COUNT_BITS = 24
_COUNT_MASK = (1 << _COUNT_BITS) - 1
#: Columns of the projection table.
_KIND, _TARGET, _DELAY, _START, _GEOMETRY = range(5)
_CSR, _CONV = 0, 1


@dataclass(frozen=True, eq=False)
class Activity:
    """What happened in a run; events of step t are those between `start[t]` and `start[t + 1]`.

    Parameters
    ----------
    steps
        Time steps.
    input_start, input_events, input_payloads
        int64 (steps + 1,), int32 and int32: input elements that carried an event, numbered through all inputs.
    spike_start, spikes
        int64 (steps + 1,) and int32: neurons that fired, ascending within a step.
    touched
        uint8 (steps, (neurons + 7) // 8), bit n % 8 of byte n // 8: neurons that had an input, a bias or a potential.
    synaptic_events
        Synapses that events have walked.
    potentials
        By graph output of neurons that never fire: int64 (steps, size), units of the state.
    """

    steps: int
    input_start: Ints
    input_events: npt.NDArray[np.int32]
    input_payloads: npt.NDArray[np.int32]
    spike_start: Ints
    spikes: npt.NDArray[np.int32]
    touched: npt.NDArray[np.uint8]
    synaptic_events: int
    potentials: Mapping[str, Ints]

    def raster(self, first: int, size: int) -> npt.NDArray[np.uint8]:
        """Spikes of neurons first..first + size as 0 and 1, shape (steps, size)."""
        step = np.repeat(np.arange(self.steps), np.diff(self.spike_start))
        mine = (self.spikes >= first) & (self.spikes < first + size)
        result = np.zeros((self.steps, size), np.uint8)
        result[step[mine], self.spikes[mine] - first] = 1
        return result


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network as flat arrays for the compiled loop. Make it once for many runs.

    `projections` int64 (projections, 5): kind, first target neuron, delay, first entry of `starts` or of `kernels`, row
    of `geometry`. `groups` bounds the projections of each source; `sources` bounds the elements of each source.
    """

    network: Network
    sources: Ints
    groups: Ints
    projections: Ints
    starts: Ints
    targets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int16]
    kernels: npt.NDArray[np.int16]
    geometry: Ints
    neurons: Ints
    population_flags: Ints

    @property
    def synapse_bytes(self) -> int:
        """Memory of all synapses."""
        return self.starts.nbytes + self.targets.nbytes + self.weights.nbytes + self.kernels.nbytes


def compile_network(network: Network) -> Compiled:
    """Flatten a network for `run_network`."""
    inputs = len(network.inputs)
    count = sum(item.size for item in network.inputs)
    bounds = [item.first for item in network.inputs] + [count + p.first for p in network.populations]
    found = network.projections
    order = sorted(range(len(found)), key=lambda i: (found[i].source, found[i].delay))
    rows, starts, targets, weights, kernels = [], [], [], [], []
    geometry: list[tuple[int, ...]] = []
    entries = synapses = taps = 0
    for index in order:
        projection = network.projections[index]
        first = network.populations[projection.target].first
        weight = projection.weights
        if isinstance(weight, Csr):
            rows.append((_CSR, first, projection.delay, entries, 0))
            starts.append(weight.start + synapses)
            targets.append(weight.targets + np.int32(first))
            weights.append(weight.weights)
            entries += len(weight.start)
            synapses += len(weight.targets)
        else:
            rows.append((_CONV, first, projection.delay, taps, len(geometry)))
            geometry.append(_geometry(weight))
            kernels.append(_by_source(weight))
            taps += kernels[-1].size
    owners = [network.projections[index].source for index in order]
    return Compiled(
        network=network,
        sources=np.array([*bounds, count + network.neurons], np.int64),
        groups=np.searchsorted(owners, np.arange(inputs + len(network.populations) + 1)).astype(np.int64),
        projections=np.array(rows, np.int64).reshape(-1, 5),
        starts=np.concatenate([*starts, np.zeros(0, np.int64)]),
        targets=np.concatenate([*targets, np.zeros(0, np.int32)]),
        weights=np.concatenate([*weights, np.zeros(0, np.int16)]),
        kernels=np.concatenate([*kernels, np.zeros(0, np.int16)]),
        geometry=np.array(geometry, np.int64).reshape(-1, 15),
        neurons=_neuron_table(network),
        population_flags=np.array(
            [(p.first, p.size, p.subtract, p.refractory, bool(p.keep_current.any())) for p in network.populations],
            np.int64,
        ),
    )  # fmt: skip


def _geometry(layer: ConvLayer) -> tuple[int, ...]:
    """C, H, W, M, P, Q, R, S, strides, pads top and left, dilations, groups."""
    c, h, w = layer.input_shape
    m, p, q = layer.output_shape
    r, s = layer.weight.shape[2:]
    return (c, h, w, m, p, q, r, s, *layer.strides, layer.pads[0], layer.pads[1], *layer.dilations, layer.groups)


def _by_source(layer: ConvLayer) -> npt.NDArray[np.int16]:
    """Kernel as (C, R, S, M / groups): what one input element walks lies together."""
    m, inside, r, s = layer.weight.shape
    grouped = layer.weight.reshape(layer.groups, m // layer.groups, inside, r, s)
    return np.ascontiguousarray(grouped.transpose(0, 2, 3, 4, 1)).reshape(-1).astype(np.int16)


def _neuron_table(network: Network) -> Ints:
    """threshold, reset, bias, initial, keep_current, keep_voltage, lag; shape (7, neurons)."""
    fields = ("threshold", "reset", "bias", "initial", "keep_current", "keep_voltage")
    columns = [[getattr(p, name) for p in network.populations] for name in fields]
    columns.append([np.full(p.size, p.lag, np.int64) for p in network.populations])
    return np.array([np.concatenate([*column, np.zeros(0, np.int64)]) for column in columns], np.int64)


def run_network(compiled: Compiled, inputs: Mapping[str, npt.NDArray[Any]], steps: int | None = None) -> Activity:
    """Simulate a network from its initial state.

    Parameters
    ----------
    inputs
        Integer payloads by input name, shape (steps, *shape of the input); 0 is no event.
    steps
        Steps to run; without it, those of the inputs and the steps until their effect has reached the outputs.

    Raises
    ------
    ModelError: an input is missing, misshapen, not of integers, or beyond the payload bits.
    """
    activity, potentials = _simulated(compiled, inputs, steps, _watched(compiled.network))
    return replace(activity, potentials=_named(compiled.network, potentials))


def all_potentials(compiled: Compiled, inputs: Mapping[str, npt.NDArray[Any]], steps: int | None = None) -> Ints:
    """Potential of every neuron after every step, int64 (steps, neurons); as of `run_network`."""
    everyone = np.arange(compiled.network.neurons, dtype=np.int64)
    return _simulated(compiled, inputs, steps, everyone)[1]


def _simulated(
    compiled: Compiled, inputs: Mapping[str, npt.NDArray[Any]], steps: int | None, watched: Ints
) -> tuple[Activity, Ints]:
    """What happened, and the potentials of the watched neurons, (steps, watched)."""
    network = compiled.network
    given = [_payloads(network, index, inputs) for index in range(len(network.inputs))]
    length = max((len(item) for item in given), default=0)
    steps = length + network.latency_steps if steps is None else steps
    flat = np.zeros((steps, sum(item.size for item in network.inputs)), np.int32)
    for item, values in zip(network.inputs, given, strict=True):
        used = min(steps, len(values))
        flat[:used, item.first : item.first + item.size] = values[:used]
    step_of, events = np.nonzero(flat)
    payloads = flat[step_of, events]
    starts = np.searchsorted(step_of, np.arange(steps + 1)).astype(np.int64)
    touched = np.zeros((steps, (network.neurons + 7) // 8), np.uint8)
    potentials = np.zeros((steps, len(watched)), np.int64)
    low, high = state_range(network.state_bits)
    spike_start, spikes, walked = _run(
        steps, starts, events.astype(np.int32), payloads, compiled.sources, compiled.groups, compiled.projections,
        compiled.starts, compiled.targets, compiled.weights, compiled.kernels, compiled.geometry, compiled.neurons,
        compiled.population_flags, network.largest_delay + 1, network.fraction_bits, low, high, touched, watched,
        potentials,
    )  # fmt: skip
    activity = Activity(steps, starts, events.astype(np.int32), payloads, spike_start, spikes, touched, int(walked), {})
    return activity, potentials


def _watched(network: Network) -> Ints:
    """Neurons whose potential is an output."""
    silent = [network.populations[i] for _, i, _ in network.outputs if not network.populations[i].spiking]
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(p.first, p.first + p.size) for p in silent)])


def _named(network: Network, potentials: Ints) -> dict[str, Ints]:
    named, column = {}, 0
    for name, index, _ in network.outputs:
        population = network.populations[index]
        if not population.spiking:
            named[name] = potentials[:, column : column + population.size]
            column += population.size
    return named


def _payloads(network: Network, index: int, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
    item = network.inputs[index]
    values = np.asarray(inputs[item.name]) if item.name in inputs else None
    if values is None or values.shape[1:] != item.shape:
        given = "nothing" if values is None else list(values.shape)
        wanted = ", ".join(["steps", *map(str, item.shape)])
        raise ModelError(f"{network.name}: input {item.name!r} needs shape ({wanted}), got {given}")
    if values.dtype.kind not in "iub":
        raise ModelError(f"{network.name}: input {item.name!r} must hold integers (events), got {values.dtype}")
    top = max(1, (1 << network.payload_bits) - 1)
    low = -top if network.payload_bits else 0
    if values.size and not low <= int(values.min()) <= int(values.max()) <= top:
        raise ModelError(
            f"{network.name}: input {item.name!r} holds payloads {values.min()}..{values.max()}; events of "
            f"{network.payload_bits} payload bits carry {low}..{top}"
        )
    return values.reshape(len(values), -1).astype(np.int32)


def potentials_of(network: Network, activity: Activity, name: str) -> npt.NDArray[np.float64]:
    """Potentials of an output that never fires in real units, shape (steps, *shape)."""
    population = next(network.populations[i] for output, i, _ in network.outputs if output == name)
    return (activity.potentials[name] / population.scale).reshape(-1, *population.shape)


def output_spikes(network: Network, activity: Activity, name: str) -> npt.NDArray[np.uint8]:
    """Spikes of an output, shape (steps, *shape)."""
    population = next(network.populations[i] for output, i, _ in network.outputs if output == name)
    return activity.raster(population.first, population.size).reshape(-1, *population.shape)


@numba.njit(cache=True)
def _walk_csr(charges, start, end, targets, weights, payload):  # type: ignore[no-untyped-def]  # pragma: no cover
    for index in range(start, end):
        charges[targets[index]] += (np.int64(weights[index]) * payload << _COUNT_BITS) + 1
    return end - start


@numba.njit(cache=True)
def _walk_conv(charges, first, element, kernels, offset, g, payload):  # type: ignore[no-untyped-def]  # pragma: no cover
    area = g[1] * g[2]
    channel, place = element // area, element % area
    y, x = place // g[2] + g[10], place % g[2] + g[11]
    rows, columns, kernel_rows, kernel_columns = g[4], g[5], g[6], g[7]
    outputs = g[3] // g[14]
    base = first + (channel // (g[0] // g[14])) * outputs * rows * columns
    walked = 0
    for r in range(kernel_rows):
        dy = y - r * g[12]
        if dy < 0 or dy % g[8] or dy // g[8] >= rows:
            continue
        for s in range(kernel_columns):
            dx = x - s * g[13]
            if dx < 0 or dx % g[9] or dx // g[9] >= columns:
                continue
            target = base + (dy // g[8]) * columns + dx // g[9]
            tap = offset + ((channel * kernel_rows + r) * kernel_columns + s) * outputs
            for m in range(outputs):
                charges[target] += (np.int64(kernels[tap + m]) * payload << _COUNT_BITS) + 1
                target += rows * columns
            walked += outputs
    return walked


@numba.njit(cache=True)
def _deliver(  # type: ignore[no-untyped-def]  # pragma: no cover
    ring, now, source, element, payload, groups, projections, starts, targets, weights, kernels, geometry
):
    walked = 0
    for p in range(groups[source], groups[source + 1]):
        charges = ring[(now + projections[p, _DELAY]) % ring.shape[0]]
        offset = projections[p, _START]
        if projections[p, _KIND] == _CSR:
            walked += _walk_csr(
                charges, starts[offset + element], starts[offset + element + 1], targets, weights, payload
            )
        else:
            shape = geometry[projections[p, _GEOMETRY]]
            walked += _walk_conv(charges, projections[p, _TARGET], element, kernels, offset, shape, payload)
    return walked


@numba.njit(cache=True)
def _decayed(value, keep):  # type: ignore[no-untyped-def]  # pragma: no cover
    # truncates toward zero: the magnitude is shifted, as `semantics.decay` does
    return (value * keep) >> DECAY_BITS if value >= 0 else -((-value * keep) >> DECAY_BITS)


@numba.njit(cache=True)
def _update(charges, flags, table, current, voltage, waiting, touched, fraction, low, high, fired, count):  # type: ignore[no-untyped-def]  # pragma: no cover
    for population in range(flags.shape[0]):
        first, size, subtract, refractory, cuba = flags[population]
        for n in range(first, first + size):
            charge, v = charges[n], voltage[n]
            if charge or v or table[2, n] or (cuba and current[n]):
                touched[n >> 3] |= np.uint8(1 << (n & 7))
            charges[n] = 0
            u = (charge >> _COUNT_BITS) << fraction
            if cuba:
                u += _decayed(current[n], table[4, n])
            if waiting[n]:
                waiting[n] -= 1
                current[n] = min(max(u, low), high)
                continue
            u = min(max(u + table[2, n], low), high)
            current[n] = u
            v = min(max(_decayed(v, table[5, n]) + u, low), high)
            if v > table[0, n]:
                v = min(max(v - table[1, n], low), high) if subtract else table[1, n]
                waiting[n] = refractory
                fired[count] = n
                count += 1
            voltage[n] = v
    return count


@numba.njit(cache=True)
def _run(  # type: ignore[no-untyped-def]  # pragma: no cover
    steps, input_start, events, payloads, sources, groups, projections, starts, targets, weights, kernels, geometry,
    table, flags, slots, fraction, low, high, touched, watched, potentials,
):  # fmt: skip
    neurons = table.shape[1]
    inputs = len(sources) - 1 - flags.shape[0]
    ring = np.zeros((slots, neurons), np.int64)
    current = np.zeros(neurons, np.int64)
    voltage, waiting = table[3].copy(), table[6].copy()
    spike_start = np.zeros(steps + 1, np.int64)
    spikes = np.empty(max(1024, neurons), np.int32)
    count = walked = 0
    for now in range(steps):
        for index in range(input_start[now], input_start[now + 1]):
            source = np.searchsorted(sources, events[index], side="right") - 1
            walked += _deliver(ring, now, source, events[index] - sources[source], np.int64(payloads[index]),
                               groups, projections, starts, targets, weights, kernels, geometry)  # fmt: skip
        if len(spikes) < count + neurons:
            larger = np.empty(2 * (count + neurons), np.int32)
            larger[:count] = spikes[:count]
            spikes = larger
        before = count
        count = _update(ring[now % slots], flags, table, current, voltage, waiting, touched[now], fraction, low, high,
                        spikes, count)  # fmt: skip
        spike_start[now + 1] = count
        population = 0
        for index in range(before, count):
            neuron = spikes[index]
            while neuron >= flags[population, 0] + flags[population, 1]:
                population += 1
            element = neuron - flags[population, 0]
            walked += _deliver(ring, now, inputs + population, element, np.int64(1), groups, projections, starts,
                               targets, weights, kernels, geometry)  # fmt: skip
        for index in range(len(watched)):
            potentials[now, index] = voltage[watched[index]]
    return spike_start, spikes[:count].copy(), walked
