"""A mapped network as the RTL runs it: tables of every core, memory images, events of every step, and exact cycles.

The emitted mesh numbers its cores row by row, has one core behind each router, hands spikes on in the next step with
payload 1, and is quiet when all cores are done. `emission_limits` names what goes beyond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.configure import Configuration, configure
from accelerators.neuromorphic.cost import Cost
from accelerators.neuromorphic.emission_limits import emission_limits
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.network import Network
from accelerators.neuromorphic.rtl.cycles import deliver_cycles, emit_cycles, update_cycles
from accelerators.neuromorphic.rtl.mesh_cycles import NO_PACKET, mesh_cycles
from accelerators.neuromorphic.rtl.shape import CoreShape, capacity_violations, hardware_shape, rtl_violations
from accelerators.neuromorphic.simulate import Activity
from accelerators.neuromorphic.tables import OUTSIDE
from dse.core.errors import InfeasibleError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MeshProgram:
    """A network in the memories of an emitted mesh.

    Attributes
    ----------
    network, hw
        What it was made from.
    configuration
        Tables by core of the mesh, row by row; cores without neurons have empty ones.
    shape
        Of every core.
    """

    network: Network
    hw: NeuromorphicHardware
    configuration: Configuration
    shape: CoreShape

    @property
    def cores(self) -> int:
        return self.hw.cores

    def given(self, activity: Activity) -> list[list[tuple[int, int]]]:
        """(core, axon) of the events from outside for every step, in the order in which they are given."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(activity.steps)]
        for step in range(activity.steps):
            for element in activity.input_events[activity.input_start[step] : activity.input_start[step + 1]]:
                for core, axon, delay in self.configuration.entries[int(element)]:
                    if step + delay < activity.steps:
                        found[step + delay].append((core, axon))
        return found


@dataclass(frozen=True, eq=False)
class MeshTiming:
    """Cycles of a run on the emitted mesh.

    Parameters
    ----------
    given_cycles, run_cycles
        int64 (steps,): giving the events of a step until the mesh is quiet; from `go` until it is quiet again.
    idle_after
        int64 (steps, cores): from `go` until each core is idle.
    held_up
        bool (steps, cores): whether the network made the core wait.
    closed_form
        int64 (steps, cores): `cycles.step_cycles`, equal to `idle_after` where nothing was held up.
    link_packets
        int64 (cores, 4): packets from each router north, east, south and west, events from outside included.
    """

    given_cycles: Ints
    run_cycles: Ints
    idle_after: Ints
    held_up: npt.NDArray[np.bool_]
    closed_form: Ints
    link_packets: Ints

    @property
    def cycles(self) -> Ints:
        """Cycles of each step."""
        return self.given_cycles + self.run_cycles


def mesh_program(network: Network, mapping: NeuronMapping, hw: NeuromorphicHardware) -> MeshProgram:
    """Configure an emitted mesh.

    Raises
    ------
    InfeasibleError: the design or the network needs what the RTL lacks, or a memory is too small for what it holds;
    names limits and excess.
    """
    broken = emission_limits(network, hw)
    if not broken:
        places = [hw.place(core) for core in range(hw.cores)]
        numbers = np.array([y * hw.mesh_columns + x for x, y in places], np.int32)
        renumbered = NeuronMapping(numbers[mapping.core])
        configuration = configure(network, renumbered, lanes=hw.lanes, cores=hw.cores)
        outputs = sum(network.populations[index].size for _, index, _ in network.outputs)
        shape = hardware_shape(hw, outputs)
        broken = rtl_violations(configuration.cores) + capacity_violations(configuration.cores, shape)
        if not broken:
            return MeshProgram(network, hw, configuration, shape)
    raise InfeasibleError(f"{network.name} does not run on the emitted mesh", broken)


def mesh_timing(program: MeshProgram, activity: Activity) -> MeshTiming:
    """Exact cycles of a run, from its spikes."""
    hw, cores, steps = program.hw, program.cores, activity.steps
    given = program.given(activity)
    events: list[list[list[int]]] = [[[] for _ in range(cores)] for _ in range(steps + 1)]
    for step, items in enumerate(given):
        for core, axon in items:
            events[step][core].append(axon)
    emit_at, closed = np.zeros((steps, cores), np.int64), np.zeros((steps, cores), np.int64)
    bounds, units = [0], []
    for step in range(steps):
        fired = _fired(program, activity, step)
        for core, tables in enumerate(program.configuration.cores):
            runs = [int(tables.axon_words[axon]) for axon in events[step][core]]
            emit_at[step, core] = 1 + deliver_cycles(runs) + update_cycles(program.shape.neurons)
            walk = []
            for neuron in fired[core]:
                first, last = int(tables.fanout_start[neuron]), int(tables.fanout_start[neuron + 1])
                walk.append(last - first)
                units += [int(goal) for goal in tables.fanout_core[first:last]] or [NO_PACKET]
                for packet in range(first, last):
                    destination = int(tables.fanout_core[packet])
                    if destination != OUTSIDE:
                        events[step + 1][destination].append(int(tables.fanout_axon[packet]))
            closed[step, core] = emit_at[step, core] + emit_cycles(walk)
            bounds.append(len(units))
    links = np.zeros((cores, 4), np.int64)
    flat = np.array([core for items in given for core, _ in items], np.int64)
    spent, idle, held = mesh_cycles(
        hw.mesh_columns, hw.mesh_rows, hw.link_buffer, steps, np.cumsum([0, *map(len, given)]), flat, emit_at,
        np.array(bounds, np.int64), np.array(units, np.int64), links,
    )  # fmt: skip
    return MeshTiming(spent[:, 0], spent[:, 1], idle, held, closed, links)


def emitted_cost(cost: Cost, program: MeshProgram, activity: Activity) -> Cost:
    """A priced run with the time that the emitted mesh takes: steps, cores that end last, links."""
    hw, timing = program.hw, mesh_timing(program, activity)
    cycle_ps = 1e6 / hw.clock_mhz
    step_ps = np.rint(timing.cycles * cycle_ps).astype(np.int64)
    if hw.synchronization == "tick":  # whoever gives `go` waits for the tick
        step_ps = np.maximum(step_ps, round(hw.tick_us * 1e6))
    last = np.bincount(timing.idle_after.argmax(axis=1), minlength=hw.cores)
    binding, links = np.zeros(hw.cores, np.int64), np.zeros((hw.tiles, 4), np.int64)
    for core in range(hw.cores):
        x, y = hw.place(core)
        number = y * hw.mesh_columns + x
        binding[core] = last[number]
        # routers count north, east, south, west; costs east, west, south, north
        links[x * hw.mesh_rows + y] = timing.link_packets[number][[1, 3, 2, 0]]
    return replace(cost, step_ps=step_ps, binding_core=binding, link_messages=links)


def _fired(program: MeshProgram, activity: Activity, step: int) -> list[list[int]]:
    """Neurons of each core that fired, in order."""
    found: list[list[int]] = [[] for _ in range(program.cores)]
    for neuron in activity.spikes[activity.spike_start[step] : activity.spike_start[step + 1]]:
        core, index = program.configuration.local[int(neuron)]
        found[core].append(index)
    return found
