"""What a run costs under a mapping: counts, energy and time, from the activity alone.

A step has two phases, after the cost model that SANA-FE published (facts only; no code of it was used):

* **Neurons.** Each core walks its neurons in order. A neuron costs `soma_access`, `soma_update` when it was touched (it
  had an input, a bias or a potential), `spike_out` when it fires; then it sends its messages, one to each destination
  core and delay, each `axon_out`. A message's *gap* is the time of its core since its previous message. What the
  core does after its last message is a gap without a message.
* **Messages.** A message costs the receiving core `axon_in` and its synapses (and their `dendrite`), and the mesh its
  hops: |dx| east-west, then |dy| north-south. Events from outside cost their receivers the same and no hops.

Time of a step:

* `simple`: the longest sum of gaps, or of receiving, over all cores.
* `detailed`: messages in order of their sending time (then core). A receiver serves in order of sending. A link
  (the injection link of a core, or one direction between two tiles) is occupied by a share 1 / (hops + 2) of every
  message in flight over it, until its receiver starts on it. With O the occupancy summed over a new message's hops + 1
  links and m the mean receiving time of messages in flight, the sender waits (O - (hops + 1) * link_buffer) * m when
  that is positive, and the message takes the larger of its hop times and O * m / (hops + 1).

Then `barrier` adds the price of a barrier over the mapped tiles, `tick` fills the step up to its length, and
`asynchronous` lets each core go on when all that send to it have finished sending (gaps and receiving of each core add
up along the longest chain; messages do not queue).

Everything is in whole femtojoules and picoseconds, shares in whole parts of `SHARE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.cost_kernels import COUNTS, asynchronous_times, run_cost
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapping import Messages
from accelerators.neuromorphic.network import CLASSES, Network
from accelerators.neuromorphic.prices import EVENTS, Prices
from accelerators.neuromorphic.simulate import Activity

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cost:
    """A run under a mapping.

    Parameters
    ----------
    counts
        Events by name: those of `prices.EVENTS`, synapses by class, and external events.
    energy_fj
        By event name.
    step_ps
        int64 (steps,): time of each step.
    core_gaps, core_receives
        int64 (steps, cores): time each core spends in each phase.
    binding_core
        int64 (cores,): steps in which a core was the last to finish.
    link_messages
        int64 (tiles, 4): messages over the links east, west, south and north of each tile.
    overruns
        Steps that took longer than a tick.
    """

    counts: Mapping[str, int]
    energy_fj: Mapping[str, int]
    step_ps: Ints
    core_gaps: Ints
    core_receives: Ints
    binding_core: Ints
    link_messages: Ints
    overruns: int

    @property
    def total_ps(self) -> int:
        return int(self.step_ps.sum())

    @property
    def total_fj(self) -> int:
        return sum(self.energy_fj.values())


def cost_of(
    network: Network,
    activity: Activity,
    mapping: NeuronMapping,
    messages: Messages,
    hw: NeuromorphicHardware,
    prices: Prices,
) -> Cost:
    """Price a run. `messages` must be the table of `mapping`."""
    start, walk = mapping.walk(hw.cores)
    inputs = sum(item.size for item in network.inputs)
    places = np.array([hw.place(core) for core in range(hw.cores)], np.int64).reshape(-1, 2)
    unit = np.array([prices.time[event] for event in EVENTS] + list(prices.synapse_time), np.int64)
    counts, gaps, receives, step_ps, binding, links = run_cost(
        activity.steps, activity.input_start, activity.input_events, activity.spike_start, activity.spikes,
        activity.touched, inputs, start, walk, mapping.core, messages.start, messages.core, messages.synapses, places,
        hw.mesh_columns, hw.mesh_rows, unit, hw.link_buffer, hw.messages == "detailed",
    )  # fmt: skip
    tiles = len({hw.place(int(core)) for core in np.unique(mapping.core)})
    named = dict(zip(COUNTS, (int(count) for count in counts), strict=True))
    overruns = 0
    if hw.synchronization == "barrier":
        step_ps = step_ps + prices.sync_ps(tiles)
    elif hw.synchronization == "tick":
        tick = round(hw.tick_us * 1e6)
        overruns = int((step_ps > tick).sum())
        step_ps = np.maximum(step_ps, tick)
    else:
        step_ps = asynchronous_times(gaps, receives, _feeds(mapping, messages, inputs, hw, places, prices))
    return Cost(named, energy_of(named, prices), step_ps, gaps, receives, binding, links, overruns)


def energy_of(counts: Mapping[str, int], prices: Prices) -> dict[str, int]:
    """Energy in fJ by event, from the counts."""
    energy = {event: counts[event] * prices.energy[event] for event in EVENTS}
    for kind, price in zip(CLASSES, prices.synapse_energy, strict=True):
        energy[f"synapse_{kind}"] = counts[f"synapse_{kind}"] * price
    return energy


def _feeds(
    mapping: NeuronMapping, messages: Messages, inputs: int, hw: NeuromorphicHardware, places: Ints, prices: Prices
) -> Ints:
    """Hop time from core to core where messages can pass, -1 where none can; int64 (cores, cores)."""
    feeds = np.full((hw.cores, hw.cores), -1, np.int64)
    sender = np.repeat(np.arange(len(messages.start) - 1), np.diff(messages.start))
    inside = sender >= inputs
    origin, destination = mapping.core[sender[inside] - inputs], messages.core[inside]
    away = np.abs(places[origin] - places[destination])
    feeds[origin, destination] = away[:, 0] * prices.time["hop_east_west"] + away[:, 1] * prices.time["hop_north_south"]
    return feeds
