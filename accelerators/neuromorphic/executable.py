"""A network on a mesh of cores: its values, its time, its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.binding import binding_text
from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.convert import Converted
from accelerators.neuromorphic.cost import Cost, cost_of
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapping import message_table
from accelerators.neuromorphic.network import CLASSES
from accelerators.neuromorphic.prepared import PreparedNetwork, shown_images
from accelerators.neuromorphic.prices import area_um2, prices_of, static_mw
from accelerators.neuromorphic.simulate import (
    Activity,
    Compiled,
    output_spikes,
    potentials_of,
    run_network,
)
from dse.core.errors import UsageError
from dse.metrics import LayerMetrics, Metrics
from dse.program.executable import Executable
from dse.program.taskgraph import TaskGraph, Timeline

if TYPE_CHECKING:
    from accelerators.neuromorphic.emitted import MeshProgram

#: Metrics count cycles; here one is a picosecond, the unit of the cost model.
CLOCK_MHZ = 1e6


@dataclass(frozen=True)
class Evaluation:
    """A converted network on labelled samples: accuracy 0..1, and means per sample of what it took."""

    accuracy: float
    spikes: float
    synaptic_events: float
    energy_uj: float
    latency_us: float


class NeuromorphicExecutable(Executable):
    """A mapped network.

    Attributes
    ----------
    network, compiled, mapping, messages
        The integer network, its flat form, where its neurons lie, and the messages that follow.
    converted
        How activations became spikes, for a network that was trained without; else None.
    sample
        Events by input that `estimate` and `task_graph` use: a stimulus, or one encoded sample.
    prepared
        Where the network came from, with its accuracy; None when it was put together by hand.
    """

    def __init__(
        self,
        compiled: Compiled,
        hw: NeuromorphicHardware,
        mapping: NeuronMapping,
        sample: Mapping[str, npt.NDArray[Any]],
        converted: Converted | None = None,
        *,
        prepared: PreparedNetwork | None = None,
    ) -> None:
        self.prepared = prepared
        self.network, self.compiled, self.hw, self.mapping = compiled.network, compiled, hw, mapping
        self.messages = message_table(compiled, mapping, int(mapping.core.max()) + 1)
        self.sample, self.converted = sample, converted

    # -- values ----------------------------------------------------------------------------------------------

    def activity(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Activity:
        """Simulate: integer events by input, shape (steps, *shape)."""
        return run_network(self.compiled, inputs)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Spikes (int8) or potentials (float64, real units) of every output, shape (steps, *shape), lag removed.

        Inputs are events, shape (steps, *shape); a converted network takes one sample of real values, (1, *shape),
        and gives its outputs as the network before conversion would, (1, *shape).
        """
        if self.converted is not None:
            events = self.encoded(inputs)
            activity = self.activity(events)
            steps = self.converted.conversion.steps
            return {
                name.removesuffix(".potential"): potentials_of(self.network, activity, name)[-1:] / steps
                for name, _, _ in self.network.outputs
            }
        activity = self.activity(inputs)
        steps = max(len(values) for values in inputs.values())
        results: dict[str, npt.NDArray[Any]] = {}
        for name, index, lag in self.network.outputs:
            spiking = self.network.populations[index].spiking
            whole = output_spikes(self.network, activity, name).astype(np.int8) if spiking else potentials_of(
                self.network, activity, name
            )  # fmt: skip
            results[name] = whole[lag : lag + steps]
        return results

    def encoded(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.int32]]:
        """One sample of real values, (1, *shape) by input, as events."""
        assert self.converted is not None
        return {
            name: self.converted.encode(name, np.asarray(inputs[name])[0], self.hw.payload_bits)
            for name in self.converted.graph.inputs
        }

    def verification_events(self, count: int) -> list[tuple[str, dict[str, npt.NDArray[Any]]]]:
        """Named events to verify hardware on: the first test samples, or the stimulus."""
        if self.converted is None or self.prepared is None:
            return [("stimulus", dict(self.sample))]
        images = shown_images(self.prepared)
        available = min(count, len(next(iter(images.values()))))
        return [
            (f"sample {index}", self.encoded({name: values[index : index + 1] for name, values in images.items()}))
            for index in range(available)
        ]

    # -- time and cost ---------------------------------------------------------------------------------------

    def cost(self, activity: Activity) -> Cost:
        """Counts, energy and time of an activity on this chip."""
        cost = cost_of(self.network, activity, self.mapping, self.messages, self.hw, prices_of(self.hw))
        if self.hw.messages != "emitted":
            return cost
        from accelerators.neuromorphic.emitted import emitted_cost

        return emitted_cost(cost, self.mesh, activity)

    @cached_property
    def mesh(self) -> MeshProgram:
        """The network in the memories of the mesh that is emitted.

        Raises
        ------
        InfeasibleError: the emitted mesh cannot take it.
        """
        # with Amaranth, which is heavy: only for those who ask for hardware or its cycles
        from accelerators.neuromorphic.emitted import mesh_program

        return mesh_program(self.network, self.mapping, self.hw)

    @cached_property
    def _cost(self) -> Cost:
        return self.cost(self.activity(self.sample) if self.prepared is None else self.prepared.activity)

    def evaluate(
        self, samples: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[np.int64], priced: int = 32
    ) -> Evaluation:
        """Classify every sample of a converted network with one output, and price the first `priced` of them.

        `samples` by input, (samples, *shape); the class is the largest real potential after the last step.

        Raises
        ------
        UsageError: the network was not converted, or has several outputs.
        """
        if self.converted is None or len(self.network.outputs) != 1:
            raise UsageError(
                f"{self.network.name}: only a converted network with one output can be evaluated on labels"
            )
        name = self.network.outputs[0][0]
        correct = spikes = events = energy = time = 0
        for index, label in enumerate(labels):
            activity = self.activity(self.encoded({key: values[index : index + 1] for key, values in samples.items()}))
            correct += int(np.argmax(potentials_of(self.network, activity, name)[-1]) == label)
            spikes += len(activity.spikes)
            events += activity.synaptic_events
            if index < priced:
                cost = self.cost(activity)
                energy += cost.total_fj
                time += cost.total_ps
        count, few = len(labels), max(1, min(priced, len(labels)))
        return Evaluation(correct / count, spikes / count, events / count, energy * 1e-9 / few, time * 1e-6 / few)

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        """Time steps on engine `mesh`, and what each core does in them; a cycle is a picosecond.

        `activity` may hold the events of every input; without it the executable's sample runs. How long a step takes
        is the cost model's answer; tasks of cores are placed at its start.
        """
        cost = self._cost if activity is None else self.cost(self.activity(activity))
        return step_tasks(cost)

    def metrics(self, timeline: Timeline) -> Metrics:
        """Metrics of the sample, over the time of `timeline`."""
        return self.metrics_of(self._cost, timeline.level, timeline.total_cycles)

    def estimate(self) -> Metrics:
        """Metrics of the sample."""
        return self.metrics_of(self._cost, "A", self._cost.total_ps)

    def metrics_of(self, cost: Cost, level: str, cycles: int) -> Metrics:
        """Metrics of any priced activity; MACs are synaptic events."""
        events = sum(cost.counts[f"synapse_{kind}"] for kind in CLASSES)
        energy = {name: value * 1e-3 for name, value in cost.energy_fj.items()}
        static = static_mw(self.hw)
        leaked = sum(static.values()) * cycles * 1e-3
        fastest = min(prices_of(self.hw).synapse_time)
        peak = self.hw.cores / fastest if fastest else max(1.0, events / max(cycles, 1))
        moved = events * self.hw.weight_bits // 8
        binding = binding_text(cost, self.network, self.mapping, self.hw)
        layer = LayerMetrics(
            self.network.name, "spiking", cycles, events, events, energy, moved, 0, {}, mapping=binding
        )
        return Metrics(
            level=level,
            cycles=cycles,
            clock_mhz=CLOCK_MHZ,
            energy_pj={**energy, "static": leaked},
            area_um2=area_um2(self.hw),
            static_mw=static,
            peak_macs_per_cycle=peak,
            layers=(layer,),
            accuracy={} if self.prepared is None else self.prepared.quality(),
        )


def step_tasks(cost: Cost) -> TaskGraph:
    """One task a step on engine `mesh`; one task a step for each core that has something to do, at its start."""
    cores = cost.core_gaps.shape[1]
    begin = np.concatenate([[0], np.cumsum(cost.step_ps)[:-1]]).astype(np.int64)
    rows = [(0, 0, int(length), 0) for length in cost.step_ps]
    rows += _core_rows(begin, cost.core_gaps, 1, 1) + _core_rows(begin, cost.core_receives, 1 + cores, 2)
    engines = ("mesh", *(f"core{i} neurons" for i in range(cores)), *(f"core{i} messages" for i in range(cores)))
    return _graph(engines, rows)


def step_graph(cycles: npt.NDArray[np.int64]) -> TaskGraph:
    """One task a step on engine `mesh`, of so many cycles, int64 (steps,)."""
    return _graph(("mesh",), [(0, 0, int(length), 0) for length in cycles])


def _graph(engines: tuple[str, ...], rows: list[tuple[int, int, int, int]]) -> TaskGraph:
    """Tasks of (engine, issue, duration, kind) that meet nowhere."""
    engine, issue, duration, kind = np.array(rows, np.int64).reshape(-1, 4).T
    empty = np.zeros((0, 3), np.int64)
    zeros = np.zeros(len(engine), np.int64)
    none = np.zeros(0, np.int64)
    kinds = ("step", "neurons", "messages")
    final = np.zeros(len(engines), np.int64)
    return TaskGraph(engines, engine, issue, duration, empty, empty, none, zeros, kind, kinds, zeros - 1, zeros, (),
                     final)  # fmt: skip


def _core_rows(
    begin: npt.NDArray[np.int64], busy: npt.NDArray[np.int64], first: int, kind: int
) -> list[tuple[int, int, int, int]]:
    """(engine, issue, duration, kind) of each core's work, from the start of each step."""
    rows = []
    for core in range(busy.shape[1]):
        end = 0
        for step in np.flatnonzero(busy[:, core]):
            start = max(end, int(begin[step]))
            rows.append((first + core, start - end, int(busy[step, core]), kind))
            end = start + int(busy[step, core])
    return rows
