"""Which core holds which neuron, what messages follow from it, and which limits it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.blocks import BlockPlan, NeuronMapping, block_mapping, plan_mapping
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.network import CLASSES, Network, Projection
from accelerators.neuromorphic.prices import address_bits
from accelerators.neuromorphic.simulate import Compiled
from dse.core.errors import InfeasibleError, Violation

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Messages:
    """What each source element sends when it is active, inputs first, then neurons.

    start int64 (elements + 1,); core int32, delay int32 and synapses int64 (messages, 3) by class of `CLASSES`.
    Messages of an element are in order of delay, then destination core.
    """

    start: Ints
    core: npt.NDArray[np.int32]
    delay: npt.NDArray[np.int32]
    synapses: Ints


def fitting_mapping(
    network: Network, compiled: Compiled, hw: NeuromorphicHardware, order: str = "channel", spread: float = 1.0
) -> NeuronMapping:
    """Layers in blocks, as `fitting_plan` cuts them."""
    return plan_mapping(network, fitting_plan(network, compiled, hw, order, spread))


def fitting_plan(
    network: Network, compiled: Compiled, hw: NeuromorphicHardware, order: str = "channel", spread: float = 1.0
) -> BlockPlan:
    """Layers in blocks, each on the fewest cores whose limits hold, or `spread` times as many while cores last.

    Raises
    ------
    InfeasibleError: no number of cores fits; names every limit and the excess.
    """
    slices = [max(1, -(-p.size // hw.neurons_per_core)) for p in network.populations]
    for _ in range(64):
        mapping = block_mapping(network, slices, order)
        messages = message_table(compiled, mapping, sum(slices))
        crowded = _crowded(network, mapping, messages, hw, slices)
        if not crowded:
            break
        for index in crowded:
            slices[index] = min(network.populations[index].size, slices[index] + max(1, slices[index] // 4))
        if sum(slices) > 4 * hw.cores:
            break
    room = hw.cores - sum(slices)
    if spread > 1 and room > 0:
        wished = [min(p.size, round(s * spread)) - s for p, s in zip(network.populations, slices, strict=True)]
        share = min(1.0, room / max(1, sum(wished)))
        slices = [s + int(w * share) for s, w in zip(slices, wished, strict=True)]
    plan = BlockPlan(tuple(slices), (order,) * len(slices))
    mapping = plan_mapping(network, plan)
    violations = check_mapping(network, mapping, message_table(compiled, mapping, sum(slices)), hw)
    if violations:
        raise InfeasibleError(f"{network.name} does not fit this chip", violations)
    return plan


def _crowded(
    network: Network, mapping: NeuronMapping, messages: Messages, hw: NeuromorphicHardware, slices: Sequence[int]
) -> list[int]:
    """Populations that sit on a core whose limits are broken and can still be spread."""
    used = core_usage(network, mapping, messages, hw, sum(slices))
    broken = np.zeros(sum(slices), bool)
    for name, (values, bound) in used.items():
        if name not in ("fan_in", "fan_out"):
            broken |= values > bound
    return [
        index
        for index, p in enumerate(network.populations)
        if slices[index] < p.size and broken[np.unique(mapping.core[p.first : p.first + p.size])].any()
    ]


def core_usage(
    network: Network, mapping: NeuronMapping, messages: Messages, hw: NeuromorphicHardware, cores: int
) -> dict[str, tuple[Ints, int]]:
    """What each core holds of what is limited: by limit the amounts (cores,) and the bound."""
    inputs = sum(item.size for item in network.inputs)
    sender = np.repeat(np.arange(len(messages.start) - 1), np.diff(messages.start))
    inside = sender >= inputs
    out = np.bincount(mapping.core[sender[inside] - inputs], minlength=cores)
    return {
        "neurons_per_core": (np.bincount(mapping.core, minlength=cores), hw.neurons_per_core),
        "synapse_bits": (_synapse_bits(network, mapping, messages, hw, cores), hw.synapse_bits),
        "axons_in": (np.bincount(messages.core, minlength=cores), hw.axons_in),
        "axons_out": (out, hw.axons_out),
        "profiles": (_profiles(network, mapping, cores), hw.profiles),
    }


def slot_bits(hw: NeuromorphicHardware) -> int:
    """Bits of a synapse: its weight and its target's row in the lane."""
    return hw.weight_bits + address_bits(-(-hw.neurons_per_core // hw.lanes))


def _synapse_bits(
    network: Network, mapping: NeuronMapping, messages: Messages, hw: NeuromorphicHardware, cores: int
) -> Ints:
    """Weights with their target rows; shared kernels once for each core that holds part of their layer."""
    slot = slot_bits(hw)
    counts = np.zeros((cores, len(CLASSES)), np.int64)
    np.add.at(counts, messages.core, messages.synapses)
    if not hw.weight_sharing:
        return np.asarray(counts.sum(axis=1) * slot)
    bits = counts[:, :2].sum(axis=1) * slot
    for projection in network.projections:
        if isinstance(projection.weights, ConvLayer):
            p = network.populations[projection.target]
            present = np.unique(mapping.core[p.first : p.first + p.size])
            bits[present] += projection.weights.weight.size * hw.weight_bits
    return np.asarray(bits)


def _profiles(network: Network, mapping: NeuronMapping, cores: int) -> Ints:
    pairs: set[tuple[int, int, int]] = set()
    for index, population in enumerate(network.populations):
        _, which = population.profiles
        core = mapping.core[population.first : population.first + population.size]
        pairs.update((int(c), index, int(k)) for c, k in np.unique(np.stack([core, which]), axis=1).T)
    return np.bincount([core for core, _, _ in pairs], minlength=cores).astype(np.int64)


def check_mapping(
    network: Network, mapping: NeuronMapping, messages: Messages, hw: NeuromorphicHardware
) -> list[Violation]:
    """Every limit that a mapped network breaks, with how far."""
    cores = int(mapping.core.max(initial=0)) + 1
    found = []
    if cores > hw.cores:
        found.append(Violation("cores", cores, hw.cores, "cores", f"{network.neurons:,} neurons, "
                               f"{network.synapses:,} synapses; a larger mesh or larger cores"))  # fmt: skip
    for name, (values, bound) in core_usage(network, mapping, messages, hw, cores).items():
        worst = int(values.argmax())
        if values[worst] > bound:
            found.append(Violation(name, float(values[worst]), bound, "of core " + str(worst)))
    inputs = sum(item.size for item in network.inputs)
    sent = np.diff(messages.start)[inputs:]
    if sent.size and sent.max() > hw.fan_out:
        found.append(Violation("fan_out", float(sent.max()), hw.fan_out, f"packets of neuron {int(sent.argmax())}"))
    fan_in, charge = incoming(network, hw.payload_bits)
    if fan_in.max(initial=0) > hw.fan_in:
        found.append(Violation("fan_in", float(fan_in.max()), hw.fan_in, f"synapses of neuron {int(fan_in.argmax())}"))
    bits = int(charge.max(initial=0)).bit_length() + 1
    if bits > hw.charge_bits:
        found.append(Violation("charge_bits", bits, hw.charge_bits, "bits", "all synapses of a neuron active at once"))
    if network.largest_delay > hw.max_delay:
        found.append(Violation("max_delay", network.largest_delay, hw.max_delay, "steps"))
    return found


def incoming(network: Network, payload_bits: int) -> tuple[Ints, Ints]:
    """Per neuron: synapses onto it, and a bound of the magnitude of one step's charge."""
    count, charge = np.zeros(network.neurons, np.int64), np.zeros(network.neurons, np.int64)
    top = max(1, (1 << payload_bits) - 1)
    for projection in network.projections:
        p, weights = network.populations[projection.target], projection.weights
        part = slice(p.first, p.first + p.size)
        payload = top if projection.source < len(network.inputs) else 1
        if isinstance(weights, ConvLayer):
            # every output has at most a whole kernel
            m, inside, r, s = weights.weight.shape
            area = p.size // m
            count[part] += inside * r * s
            charge[part] += (
                np.repeat(np.abs(weights.weight.astype(np.int64)).reshape(m, -1).sum(axis=1), area) * payload
            )
        else:
            count[part] += np.bincount(weights.targets, minlength=p.size)
            size = np.abs(weights.weights.astype(np.int64))
            charge[part] += np.bincount(weights.targets, size, p.size).astype(np.int64) * payload
    return count, charge


def message_table(compiled: Compiled, mapping: NeuronMapping, cores: int) -> Messages:
    """What every source element sends under a mapping, shared kernels walked as they are simulated."""
    network = compiled.network
    classes = np.array([CLASSES.index(network.projections[i].synapse_class) for i in _by_source(network)], np.int64)
    start, core, delay, synapses = _messages(
        compiled.sources, compiled.groups, compiled.projections, classes, compiled.starts, compiled.targets,
        compiled.geometry, mapping.core, cores,
    )  # fmt: skip
    return Messages(start, core, delay, synapses)


def messages_from(
    compiled: Compiled, source: int, projections: Sequence[Projection], core: npt.NDArray[np.int32], cores: int
) -> tuple[Ints, npt.NDArray[np.int32], Ints]:
    """What one source (an input or a population) sends through some of its projections, all of one delay.

    Parameters
    ----------
    core
        int32 (neurons,): where targets lie.

    Returns
    -------
    start (elements + 1,), core (messages,), synapses (messages, 3), as of `Messages`.
    """
    network = compiled.network
    order = _by_source(network)
    rows = [row for row, index in enumerate(order) if network.projections[index] in projections]
    classes = np.array([CLASSES.index(network.projections[order[row]].synapse_class) for row in rows], np.int64)
    elements = np.array([0, compiled.sources[source + 1] - compiled.sources[source]], np.int64)
    start, where, _, synapses = _messages(
        elements, np.array([0, len(rows)], np.int64), compiled.projections[rows], classes, compiled.starts,
        compiled.targets, compiled.geometry, core, cores,
    )  # fmt: skip
    return start, where, synapses


def _by_source(network: Network) -> list[int]:
    """Projections in the order of the compiled table: by source, then delay."""
    found = network.projections
    return sorted(range(len(found)), key=lambda i: (found[i].source, found[i].delay))


@numba.njit(cache=True)
def _count_conv(counts, column, core_of, first, element, g):  # type: ignore[no-untyped-def]  # pragma: no cover
    area = g[1] * g[2]
    channel, place = element // area, element % area
    y, x = place // g[2] + g[10], place % g[2] + g[11]
    outputs = g[3] // g[14]
    base = first + (channel // (g[0] // g[14])) * outputs * g[4] * g[5]
    for r in range(g[6]):
        dy = y - r * g[12]
        if dy < 0 or dy % g[8] or dy // g[8] >= g[4]:
            continue
        for s in range(g[7]):
            dx = x - s * g[13]
            if dx < 0 or dx % g[9] or dx // g[9] >= g[5]:
                continue
            target = base + (dy // g[8]) * g[5] + dx // g[9]
            for _ in range(outputs):
                counts[core_of[target], column] += 1
                target += g[4] * g[5]


@numba.njit(cache=True)
def _messages(sources, groups, projections, classes, starts, targets, geometry, core_of, cores):  # type: ignore[no-untyped-def]  # pragma: no cover
    elements = sources[len(sources) - 1]
    start = np.zeros(elements + 1, np.int64)
    room = max(1024, 2 * elements)
    core, delay = np.empty(room, np.int32), np.empty(room, np.int32)
    synapses = np.empty((room, 3), np.int64)
    counts = np.zeros((cores, 3), np.int64)
    used = 0
    for source in range(len(sources) - 1):
        for element in range(sources[source + 1] - sources[source]):
            p = groups[source]
            while p < groups[source + 1]:
                now = projections[p, 2]
                while p < groups[source + 1] and projections[p, 2] == now:
                    offset = projections[p, 3]
                    if projections[p, 0] == 0:
                        for index in range(starts[offset + element], starts[offset + element + 1]):
                            counts[core_of[targets[index]], classes[p]] += 1
                    else:
                        _count_conv(
                            counts, classes[p], core_of, projections[p, 1], element, geometry[projections[p, 4]]
                        )
                    p += 1
                if used + cores > room:
                    room = 2 * (used + cores)
                    core, delay = _grown(core, room), _grown(delay, room)
                    larger = np.empty((room, 3), np.int64)
                    larger[:used] = synapses[:used]
                    synapses = larger
                for c in range(cores):
                    if counts[c, 0] + counts[c, 1] + counts[c, 2]:
                        core[used], delay[used] = c, now
                        synapses[used] = counts[c]
                        counts[c] = 0
                        used += 1
            start[sources[source] + element + 1] = used
    return start, core[:used].copy(), delay[:used].copy(), synapses[:used].copy()


@numba.njit(cache=True)
def _grown(array, room):  # type: ignore[no-untyped-def]  # pragma: no cover
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger
