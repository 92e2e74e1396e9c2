"""The slow, obvious way to simulate a spiking network and to price it: plain Python, integers, dictionaries.

Nothing here is shared with the fast path but the definition of a neuron (`semantics.update`) and the records it reads.
Written from the rules in words (module docstrings of `semantics` and `cost`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.network import Network
from accelerators.neuromorphic.prices import Prices
from accelerators.neuromorphic.semantics import NeuronProfile, NeuronState, update

WHOLE = 720720


@dataclass
class Synapse:
    """One synapse: target neuron, weight, steps, and the class that prices it."""

    target: int
    weight: int
    delay: int
    kind: str


@dataclass
class Run:
    """What happened: per step the active input elements with payloads, spikes, and touched neurons."""

    inputs: list[dict[int, int]]
    spikes: list[list[int]]
    touched: list[set[int]]
    events: int


def synapse_lists(network: Network) -> list[list[Synapse]]:
    """Synapses of every source element, inputs first; those of a kernel include taps of weight zero."""
    inputs = sum(item.size for item in network.inputs)
    firsts = [item.first for item in network.inputs] + [inputs + p.first for p in network.populations]
    lists: list[list[Synapse]] = [[] for _ in range(inputs + network.neurons)]
    for projection in network.projections:
        base, first = firsts[projection.source], network.populations[projection.target].first
        kind = projection.synapse_class
        if isinstance(projection.weights, ConvLayer):
            for source, target, weight in _kernel(projection.weights):
                lists[base + source].append(Synapse(first + target, weight, projection.delay, kind))
            continue
        start, targets, weights = projection.weights.start, projection.weights.targets, projection.weights.weights
        for source in range(len(start) - 1):
            for index in range(int(start[source]), int(start[source + 1])):
                synapse = Synapse(first + int(targets[index]), int(weights[index]), projection.delay, kind)
                lists[base + source].append(synapse)
    return lists


def _kernel(layer: ConvLayer) -> list[tuple[int, int, int]]:
    """(source, target, weight) of a convolution, by its definition."""
    (_, height, width), (outputs, rows, columns) = layer.input_shape, layer.output_shape
    inside, across = layer.weight.shape[1], outputs // layer.groups
    found = []
    for m in range(outputs):
        for p in range(rows):
            for q in range(columns):
                for c in range(inside):
                    for r in range(layer.weight.shape[2]):
                        for s in range(layer.weight.shape[3]):
                            y = p * layer.strides[0] - layer.pads[0] + r * layer.dilations[0]
                            x = q * layer.strides[1] - layer.pads[1] + s * layer.dilations[1]
                            if 0 <= y < height and 0 <= x < width:
                                channel = m // across * inside + c
                                source = (channel * height + y) * width + x
                                target = (m * rows + p) * columns + q
                                found.append((source, target, int(layer.weight[m, c, r, s])))
    return found


def simulate(network: Network, inputs: dict[str, Any], steps: int) -> Run:
    """Run a network step by step."""
    lists = synapse_lists(network)
    outside = sum(item.size for item in network.inputs)
    profiles, biases, states = [], [], []
    for p in network.populations:
        for i in range(p.size):
            profiles.append(NeuronProfile(int(p.threshold[i]), int(p.reset[i]), p.subtract, int(p.keep_current[i]),
                                          int(p.keep_voltage[i]), p.refractory))  # fmt: skip
            biases.append(int(p.bias[i]))
            states.append(NeuronState(0, int(p.initial[i]), p.lag))
    due: dict[int, list[tuple[int, int]]] = {}
    run = Run([], [], [], 0)
    for step in range(steps):
        active: dict[int, int] = {}
        for item in network.inputs:
            values = np.asarray(inputs[item.name]).reshape(len(inputs[item.name]), -1)
            if step < len(values):
                active |= {item.first + int(i): int(values[step, i]) for i in np.flatnonzero(values[step])}
        for element, payload in active.items():
            for synapse in lists[element]:
                due.setdefault(step + synapse.delay, []).append((synapse.target, synapse.weight * payload))
                run.events += 1
        charges, reached = Counter(), set()
        for target, charge in due.pop(step, []):
            charges[target] += charge
            reached.add(target)
        spikes, touched = [], set()
        for n in range(network.neurons):
            if n in reached or states[n].voltage or biases[n] or (profiles[n].keep_current and states[n].current):
                touched.add(n)
            states[n], fired = update(
                profiles[n], biases[n], states[n], charges[n], network.state_bits, network.fraction_bits
            )
            if fired:
                spikes.append(n)
                for synapse in lists[outside + n]:
                    due.setdefault(step + synapse.delay, []).append((synapse.target, synapse.weight))
                    run.events += 1
        run.inputs.append(active)
        run.spikes.append(spikes)
        run.touched.append(touched)
    return run


@dataclass
class Message:
    """One packet in a step: gap since its core's last, where from and to, and its receiver's time."""

    gap: int
    origin: int
    destination: int
    receive: int


class Pricer:
    """Counts, energy and step times of a run under a mapping."""

    def __init__(self, network: Network, core: list[int], hw: NeuromorphicHardware, prices: Prices) -> None:
        self.core, self.hw, self.prices = core, hw, prices
        self.outside = sum(item.size for item in network.inputs)
        self.lists = synapse_lists(network)
        self.counts: Counter[str] = Counter()
        self.energy: Counter[str] = Counter()
        self.members = [[n for n, c in enumerate(core) if c == k] for k in range(hw.cores)]

    def spend(self, event: str, times: int = 1) -> int:
        """Count an event and return its time."""
        self.counts[event] += times
        kinds = {"synapse_dense": 0, "synapse_sparse": 1, "synapse_conv": 2}
        if event in kinds:
            self.energy[event] += times * self.prices.synapse_energy[kinds[event]]
            return times * self.prices.synapse_time[kinds[event]]
        self.energy[event] += times * self.prices.energy[event]
        return times * self.prices.time[event]

    def packets(self, element: int) -> list[tuple[int, Counter[str]]]:
        """Destination core and synapses by class, in order of delay and core."""
        groups: dict[tuple[int, int], Counter[str]] = {}
        for synapse in self.lists[element]:
            groups.setdefault((synapse.delay, self.core[synapse.target]), Counter())[synapse.kind] += 1
        return [(key[1], groups[key]) for key in sorted(groups)]

    def receive(self, synapses: Counter[str]) -> int:
        total = self.spend("axon_in")
        for kind, count in synapses.items():
            total += self.spend(f"synapse_{kind}", count) + self.spend("dendrite", count)
        return total

    def step(self, run: Run, step: int) -> tuple[int, list[int], list[int]]:
        """Time of one step without synchronization, and each core's sending and receiving time."""
        receiving = [0] * self.hw.cores
        for element in run.inputs[step]:
            for core, synapses in self.packets(element):
                receiving[core] += self.receive(synapses)
                self.counts["external"] += 1
        waiting = list(receiving)
        queues: list[list[Message]] = []
        tails = []
        for core, members in enumerate(self.members):
            queue: list[Message] = []
            gap = 0
            for n in members:
                gap += self.spend("soma_access")
                if n in run.touched[step]:
                    gap += self.spend("soma_update")
                if n in run.spikes[step]:
                    gap += self.spend("spike_out")
                    for destination, synapses in self.packets(self.outside + n):
                        gap += self.spend("axon_out")
                        time = self.receive(synapses)
                        receiving[destination] += time
                        queue.append(Message(gap, core, destination, time))
                        gap = 0
                        (x0, y0), (x1, y1) = self.hw.place(core), self.hw.place(destination)
                        self.spend("hop_east_west", abs(x1 - x0))
                        self.spend("hop_north_south", abs(y1 - y0))
            queues.append(queue)
            tails.append(gap)
        sending = [sum(m.gap for m in queue) + tail for queue, tail in zip(queues, tails, strict=True)]
        if self.hw.messages == "simple":
            return max(max(s, r) for s, r in zip(sending, receiving, strict=True)), sending, receiving
        return self.queued(queues, tails, waiting), sending, receiving

    def path(self, origin: int, destination: int) -> list[Any]:
        """Injection link, then every link between tiles, first along x and then along y."""
        (x, y), (x1, y1) = self.hw.place(origin), self.hw.place(destination)
        links: list[Any] = [("inject", origin)]
        while (x, y) != (x1, y1):
            there = (x + (x1 > x) - (x1 < x), y) if x != x1 else (x, y + (y1 > y) - (y1 < y))
            links.append(((x, y), there))
            x, y = there
        return links

    def queued(self, queues: list[list[Message]], tails: list[int], free: list[int]) -> int:
        """Messages in order of sending, links occupied by those in flight."""
        free = list(free)
        end = max(free)
        clock = {core: (queue[0].gap if queue else tails[core]) for core, queue in enumerate(queues)}
        sent = dict.fromkeys(clock, 0)
        flying: list[tuple[int, Message]] = []
        while clock:
            core = min(clock, key=lambda c: (clock[c], c))
            send = clock.pop(core)
            flying = [item for item in flying if item[0] > send]
            queue = queues[core]
            if sent[core] == len(queue):
                end = max(end, send)
                continue
            message = queue[sent[core]]
            mine = self.path(core, message.destination)
            occupied = 0
            for _, other in flying:
                theirs = self.path(other.origin, other.destination)
                occupied += len(set(mine) & set(theirs)) * (WHOLE // (len(theirs) + 1))
            mean = sum(other.receive for _, other in flying) // len(flying) if flying else 0
            excess = occupied - len(mine) * self.hw.link_buffer * WHOLE
            if excess > 0:
                send += excess * mean // WHOLE
            (x0, y0), (x1, y1) = self.hw.place(core), self.hw.place(message.destination)
            hops = abs(x1 - x0) * self.prices.time["hop_east_west"] + abs(y1 - y0) * self.prices.time["hop_north_south"]
            arrival = send + max(hops, occupied * mean // (WHOLE * len(mine)))
            begin = max(free[message.destination], arrival)
            free[message.destination] = begin + message.receive
            flying.append((begin, message))
            end = max(end, free[message.destination])
            sent[core] += 1
            clock[core] = send + (queue[sent[core]].gap if sent[core] < len(queue) else tails[core])
        return end

    def run(self, run: Run) -> list[int]:
        """Time of every step, synchronization included."""
        found = [self.step(run, step) for step in range(len(run.spikes))]
        if self.hw.synchronization == "barrier":
            tiles = len({self.hw.place(core) for core in self.core})
            sync = [time for count, time in self.prices.sync if count <= tiles]
            return [time + (sync[-1] if sync else 0) for time, _, _ in found]
        if self.hw.synchronization == "tick":
            return [max(time, round(self.hw.tick_us * 1e6)) for time, _, _ in found]
        return self.asynchronous(found)

    def asynchronous(self, found: list[tuple[int, list[int], list[int]]]) -> list[int]:
        """Each core goes on when those that can send to it have sent."""
        senders: dict[int, set[int]] = {core: {core} for core in range(self.hw.cores)}
        for n, core in enumerate(self.core):
            for destination, _ in self.packets(self.outside + n):
                senders[destination].add(core)
        ready, ends = [0] * self.hw.cores, [0]
        for _, sending, receiving in found:
            sent = [begin + time for begin, time in zip(ready, sending, strict=True)]
            for core in range(self.hw.cores):
                begin = sent[core]
                for other in senders[core]:
                    (x0, y0), (x1, y1) = self.hw.place(other), self.hw.place(core)
                    hops = (abs(x1 - x0) * self.prices.time["hop_east_west"]
                            + abs(y1 - y0) * self.prices.time["hop_north_south"])  # fmt: skip
                    begin = max(begin, sent[other] + hops)
                ready[core] = begin + receiving[core]
            ends.append(max(ends[-1], *ready))
        return [after - before for before, after in pairwise(ends)]
