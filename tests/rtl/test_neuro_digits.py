"""The digits perceptron whole on a 2 x 2 mesh of RTL cores: spikes, potentials, outputs and cycles of real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.executable import NeuromorphicExecutable
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.rtl.run import run_mesh
from accelerators.neuromorphic.simulate import potentials_of, run_network
from accelerators.neuromorphic.verify import MeshRun
from dse.backend import Decisions, RtlUnavailable, Samples
from dse.core.errors import InfeasibleError, ModelError, UsageError
from dse.flow.verify import verify_case
from dse.ir import Graph
from dse.rtl.verilog_sim import available_simulators, run_testbench
from dse.sim import simulate_c
from workloads.onnx import read_model
from workloads.zoo.digits import MLP, build_mlp, dataset

CHIP = NeuromorphicHardware(
    mesh_columns=2, mesh_rows=2, neurons_per_core=36, synapse_kib=4, axons_in=64, axons_out=128, lanes=4, profiles=4,
    max_delay=1, charge_bits=16, state_bits=20, messages="emitted", link_buffer=4,
)  # fmt: skip
DECISIONS = Decisions({"time_steps": 4})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[NeuromorphicAccelerator, Graph]:
    path = tmp_path_factory.mktemp("digits") / "mlp.onnx"
    path.write_bytes(build_mlp(0).SerializeToString())
    graph, data = read_model(path), dataset(MLP)
    name = graph.inputs[0]
    samples = Samples(32, 0, {name: data.train_images[:300]}, {name: data.test_images[:120]}, data.test_labels[:120])
    return NeuromorphicAccelerator(samples), graph


@pytest.fixture(scope="module")
def executable(digits: tuple[NeuromorphicAccelerator, Graph]) -> NeuromorphicExecutable:
    family, graph = digits
    return family.lower(graph, CHIP, DECISIONS)


def test_three_images_on_the_mesh_equal_simulation_and_prediction(
    digits: tuple[NeuromorphicAccelerator, Graph], executable: NeuromorphicExecutable
) -> None:
    family, _ = digits
    data = dataset(MLP)
    cases = family.verification_cases(executable, {})
    assert len(cases) == 3
    for index, case in enumerate(cases):
        result = verify_case(family, case)
        assert result.passed, result
        assert result.mismatches_rtl == 0
        run = case.executable
        assert isinstance(run, MeshRun)
        # what the hardware's potentials say is what the network says
        name, population, _ = run.mesh.network.outputs[0]
        first, size = (getattr(run.mesh.network.populations[population], key) for key in ("first", "size"))
        logits = family.run_rtl(run, case.inputs).outputs["potentials"][-1, first : first + size]
        activity = run_network(executable.compiled, case.inputs)
        scale = run.mesh.network.populations[population].scale
        assert np.allclose(logits / scale, potentials_of(run.mesh.network, activity, name)[-1].reshape(-1))
        assert int(logits.argmax()) == int(data.test_labels[index])
        assert case.expected["spikes"].sum() > 50


def test_time_to_the_first_image_is_the_time_of_the_rtl(executable: NeuromorphicExecutable) -> None:
    """Level A of the whole network, in picoseconds, is the RTL's cycles; cores the network lets go keep closed form."""
    run = MeshRun(executable, dict(executable.sample))
    mesh = run.mesh
    found = run_mesh(mesh.configuration.cores, mesh.shape, 2, 2, CHIP.link_buffer, mesh.given(run.activity))
    cycles = sum(step.given_cycles + step.run_cycles for step in found)
    assert executable.estimate().cycles == cycles * round(1e6 / CHIP.clock_mhz)
    assert simulate_c(executable.task_graph()).total_cycles == executable.estimate().cycles
    idle = np.array([step.idle_after for step in found])
    free = ~run.timing.held_up
    assert free.sum() > 0.5 * free.size
    assert (idle == run.timing.closed_form)[free].all()
    assert (idle >= run.timing.closed_form).all()


@pytest.mark.skipif(not available_simulators(), reason="no Verilog simulator")
def test_the_emitted_testbench_passes_and_finds_a_wrong_potential_packet_or_cycle(
    digits: tuple[NeuromorphicAccelerator, Graph], executable: NeuromorphicExecutable, tmp_path: Path
) -> None:
    family, _ = digits
    cases = family.verification_cases(executable, {})[:2]
    written = family.emit(executable, cases, tmp_path)
    assert {path.suffix for path in written} == {".v", ".hex"}
    result = run_testbench(tmp_path)
    assert result.passed, result.output
    assert result.cycles == sum(int(case.executable.timing.cycles.sum()) for case in cases)  # type: ignore[attr-defined]
    for file, message in (("potentials", "potentials differ"), ("cycles", "predicted"), ("events", "FAIL")):
        path = tmp_path / "vectors" / f"01_sample_1_{file}.hex"
        original = path.read_text()
        lines = original.split()
        place = len(lines) // 2
        lines[place] = f"{int(lines[place], 16) ^ 1:x}"
        path.write_text("\n".join(lines) + "\n")
        spoiled = run_testbench(tmp_path)
        assert not spoiled.passed
        assert message in spoiled.output
        path.write_text(original)


def test_what_the_emitted_mesh_lacks_is_named(digits: tuple[NeuromorphicAccelerator, Graph]) -> None:
    family, graph = digits
    wanted = {
        "payload_bits": ({"payload_bits": 8, "charge_bits": 24}, "payload_bits: 8 bits against a bound of 1 bits"),
        "tiles": ({"cores_per_tile": 2}, "cores_per_tile: 2  against a bound of 1"),
        "async": ({"synchronization": "asynchronous"}, "asynchronous steps"),
        "sharing": ({"weight_sharing": True}, "weight_sharing"),
        "queue": ({"link_buffer": 1}, "link_buffer below 2"),
    }
    for change, message in wanted.values():
        hw = CHIP.model_copy(update=change)
        reason = family.rtl(hw)
        assert isinstance(reason, RtlUnavailable)
        assert message in reason.reason
        with pytest.raises(InfeasibleError, match="cannot be built"):
            family.lower(graph, hw, DECISIONS)
        detailed = family.lower(graph, hw.model_copy(update={"messages": "detailed"}), DECISIONS)
        gap = family.rtl_gap(detailed)
        assert gap is not None
        assert message in gap.reason


def test_synapses_that_lanes_pad_beyond_the_memory_are_refused(digits: tuple[NeuromorphicAccelerator, Graph]) -> None:
    """Weights of zero take no slot but leave a lane of a word empty; a memory counted in slots is then too small."""
    family, graph = digits
    refused = None
    for kib in np.arange(1.4, 4.0, 0.1):
        hw = CHIP.model_copy(update={"synapse_kib": float(kib), "weight_bits": 4, "lanes": 8, "neurons_per_core": 40})
        try:
            family.lower(graph, hw, DECISIONS)
        except InfeasibleError as error:
            refused = str(error) if "synapse words" in str(error) else refused
        else:
            break
    assert refused is not None
    assert "synapse words of an emitted core" in refused
    assert "lanes pad a word" in refused


def test_rtl_runs_take_verification_cases_only(
    digits: tuple[NeuromorphicAccelerator, Graph], executable: NeuromorphicExecutable, tmp_path: Path
) -> None:
    family, _ = digits
    with pytest.raises(UsageError, match="runs verification cases"):
        family.run_rtl(executable, {})
    case = family.verification_cases(executable, {})[0]
    foreign = type(case)("foreign", executable, {}, {"potentials": np.zeros((1, 1))})
    with pytest.raises(ModelError, match="case 'foreign' is no run"):
        family.emit(executable, [foreign], tmp_path)
    run = case.executable
    assert run.estimate().cycles == run.metrics(simulate_c(run.task_graph())).cycles
    assert simulate_c(run.task_graph(case.inputs)).total_cycles == int(run.timing.cycles.sum())  # type: ignore[attr-defined]
