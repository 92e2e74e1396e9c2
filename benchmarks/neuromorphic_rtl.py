"""The digits networks whole on a 2 x 2 mesh of emitted cores: `python benchmarks/neuromorphic_rtl.py mlp|cnn`.

Three test images run on the emitted Verilog, whose testbench compares packets, potentials of every neuron after every
step, and cycles. The convolutional network has average pools for its max pools, since delays of more than a step, which
exact max pools need, have no RTL.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.verify import MeshRun
from dse.backend import Decisions, Samples
from dse.rtl.verilog_sim import run_testbench
from workloads.onnx import read_model
from workloads.zoo.digits import CNN, MLP, build_cnn, build_mlp, dataset

CHIPS = {
    "mlp": NeuromorphicHardware(mesh_columns=2, mesh_rows=2, neurons_per_core=36, synapse_kib=4, axons_in=64,
                                axons_out=128, lanes=4, profiles=4, max_delay=1, charge_bits=16, state_bits=20,
                                messages="emitted", link_buffer=4),
    "cnn": NeuromorphicHardware(mesh_columns=2, mesh_rows=2, neurons_per_core=1024, synapse_kib=768, axons_in=1024,
                                axons_out=1024, lanes=8, profiles=16, max_delay=1, charge_bits=20, state_bits=20,
                                messages="emitted", link_buffer=4),
}  # fmt: skip


def main() -> None:
    """Print spikes, events and cycles of each image, and the testbench's verdict."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "mlp"
    topology, build = (CNN, build_cnn) if kind == "cnn" else (MLP, build_mlp)
    data = dataset(topology)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.onnx").write_bytes(build(0).SerializeToString())
        graph = read_model(folder / "net.onnx")
        source = graph.inputs[0]
        samples = Samples(
            32, 0, {source: data.train_images[:300]}, {source: data.test_images[:3]}, data.test_labels[:3]
        )
        family = NeuromorphicAccelerator(samples)
        executable = family.lower(graph, CHIPS[kind], Decisions({"time_steps": 4, "max_pool": "average"}))
        cases = family.verification_cases(executable, {})
        for case in cases:
            run = case.executable
            assert isinstance(run, MeshRun)
            found = run.run(case.inputs)
            same = all(np.array_equal(found[key], case.expected[key]) for key in case.expected)
            sys.stdout.write(
                f"{case.name}: {run.mesh.network.neurons:,} neurons, {len(run.activity.spikes):,} spikes, "
                f"{run.activity.synaptic_events:,} synaptic events, {int(run.timing.cycles.sum()):,} cycles predicted, "
                f"tables equal simulation: {same}; network held up {run.timing.held_up.sum()} of "
                f"{run.timing.held_up.size} core steps\n"
            )
        begin = time.monotonic()
        family.emit(executable, cases, folder)
        result = run_testbench(folder, timeout_s=1500)
        lines = [line for line in result.output.splitlines() if line.startswith(("STEP", "PASS", "FAIL"))]
        sys.stdout.write("\n".join(lines) + f"\n{result.simulator}: {time.monotonic() - begin:.0f} s\n")


if __name__ == "__main__":
    main()
