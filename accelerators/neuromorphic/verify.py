"""Verification of a winner: whole samples on its mesh, spikes and potentials bit for bit, cycles one for one.

A case runs the same events through the tables step by step (`tables.run_step`, plain Python), through the RTL, and
through the compiled simulator, whose spikes and potentials are the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.emitted import MeshProgram, mesh_timing
from accelerators.neuromorphic.executable import NeuromorphicExecutable, step_graph
from accelerators.neuromorphic.simulate import all_potentials, run_network
from accelerators.neuromorphic.tables import initial_state, run_step
from dse.backend import RtlRun, VerificationCase
from dse.core.errors import ModelError
from dse.metrics import Metrics
from dse.program.executable import Executable
from dse.program.taskgraph import TaskGraph, Timeline

#: Samples a winner is verified on.
IMAGES = 3
Values = Mapping[str, npt.NDArray[Any]]


class MeshRun(Executable):
    """One run of a mapped network on the emitted mesh: events in, spikes and potentials of every neuron out.

    A cycle of its task graph is a clock cycle of the hardware.
    """

    def __init__(self, parent: NeuromorphicExecutable, events: Values) -> None:
        self.parent, self.mesh, self.events = parent, parent.mesh, events
        self.activity = run_network(parent.compiled, events)
        self.timing = mesh_timing(self.mesh, self.activity)

    def run(self, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        """`spikes` int8 and `potentials` int64, (steps, neurons), by the tables of every core."""
        cores, network = self.mesh.configuration.cores, self.mesh.network
        state = initial_state(cores)
        spikes = np.zeros((self.activity.steps, network.neurons), np.int8)
        potentials = np.zeros(spikes.shape, np.int64)
        for step, events in enumerate(self.mesh.given(run_network(self.parent.compiled, inputs))):
            due: dict[int, list[tuple[int, int]]] = {}
            for core, axon in events:
                due.setdefault(core, []).append((axon, 1))
            fired = [set(found) for found in run_step(cores, state, due, network.state_bits, network.fraction_bits)]
            for neuron, (core, index) in enumerate(self.mesh.configuration.local):
                spikes[step, neuron] = index in fired[core]
                potentials[step, neuron] = state.states[core][index].voltage
        return {"spikes": spikes, "potentials": potentials}

    def expected(self) -> dict[str, npt.NDArray[Any]]:
        """The same, by the compiled simulator."""
        network = self.mesh.network
        raster = self.activity.raster(0, network.neurons).astype(np.int8)
        return {"spikes": raster, "potentials": all_potentials(self.parent.compiled, self.events)}

    def outputs(self) -> list[list[int]]:
        """Axons of the packets that leave the mesh, by step."""
        place, found = 0, [[] for _ in range(self.activity.steps)]  # type: ignore[var-annotated]
        raster = self.activity.raster(0, self.mesh.network.neurons)
        for _, index, _ in self.mesh.network.outputs:
            p = self.mesh.network.populations[index]
            for step, neuron in zip(*np.nonzero(raster[:, p.first : p.first + p.size]), strict=True):
                found[int(step)].append(place + int(neuron))
            place += p.size
        return found

    def task_graph(self, activity: Mapping[str, Any] | None = None) -> TaskGraph:
        """One task a step on engine `mesh`, in clock cycles."""
        timing = self.timing if activity is None else mesh_timing(
            self.mesh, run_network(self.parent.compiled, activity)
        )  # fmt: skip
        return step_graph(timing.cycles)

    def metrics(self, timeline: Timeline) -> Metrics:
        """Metrics of the run, over the time of `timeline`."""
        picoseconds = round(timeline.total_cycles * 1e6 / self.mesh.hw.clock_mhz)
        return self.parent.metrics_of(self.parent.cost(self.activity), timeline.level, picoseconds)

    def estimate(self) -> Metrics:
        """Metrics of the run."""
        cost = self.parent.cost(self.activity)
        return self.parent.metrics_of(cost, "A", cost.total_ps)


def verification_cases(executable: NeuromorphicExecutable) -> list[VerificationCase]:
    """The first test samples of a converted network, or the stimulus of a spiking one."""
    cases = []
    for name, events in executable.verification_events(IMAGES):
        run = MeshRun(executable, events)
        cases.append(VerificationCase(name, run, events, run.expected()))
    return cases


def run_rtl(run: MeshRun, inputs: Values) -> RtlRun:
    """Simulate the mesh's RTL on events; outputs as of `MeshRun.run`, cycles of all steps."""
    from accelerators.neuromorphic.rtl.run import run_mesh

    program, hw = run.mesh, run.mesh.hw
    given = program.given(run_network(run.parent.compiled, inputs))
    found = run_mesh(
        program.configuration.cores, program.shape, hw.mesh_columns, hw.mesh_rows, hw.link_buffer, given
    )  # fmt: skip
    spikes = np.zeros((len(found), program.network.neurons), np.int8)
    potentials = np.zeros(spikes.shape, np.int64)
    for step, done in enumerate(found):
        for neuron, (core, index) in enumerate(program.configuration.local):
            spikes[step, neuron] = index in done.fired[core]
            potentials[step, neuron] = done.states[core][index].voltage
    return RtlRun(
        {"spikes": spikes, "potentials": potentials}, sum(done.given_cycles + done.run_cycles for done in found)
    )


def emit(program: MeshProgram, cases: Sequence[VerificationCase], folder: Path) -> list[Path]:
    """Verilog of the mesh with the network in its memories, and a testbench that runs every case on it.

    Raises
    ------
    ModelError: a case is not a run of an emitted mesh. DseError: Yosys is missing.
    """
    from accelerators.neuromorphic.testbench import MeshVectors, emit_mesh

    vectors = []
    for case in cases:
        run = case.executable
        if not isinstance(run, MeshRun):
            raise ModelError(f"case {case.name!r} is no run of an emitted mesh")
        given = program.given(run.activity)
        vectors.append(MeshVectors(case.name, given, run.outputs(), case.expected["potentials"], run.timing))
    return emit_mesh(program, vectors, folder, "neuromorphic")
