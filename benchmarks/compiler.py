"""The compiler on whole networks: speed, bits against onnxruntime, fusion on against off.

    python benchmarks/compiler.py [speed] [fusion] [prefetch] [bits] [NETWORK...]

`speed`: CPU seconds of compiling ResNet-50 and of simulating it at levels A and C. `fusion`: cycles and memory traffic
of every network of the zoo without and with `fuse_layers: auto`, simulated at level C; `prefetch`: the same without and
with `prefetch: auto`. `bits`: the compiled program,
executed by the interpreter, against onnxruntime on the exported integer network, on three sizes of hardware.
Figures depend on the machine; only equality of bits and of levels A and C is asserted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import calibration_images, prepare, quantize
from dse.core.errors import DseError
from dse.sim import simulate_a, simulate_c
from workloads.zoo import ZooFrontend
from workloads.zoo.table import networks

FAMILY = SystolicAccelerator()
FUSED = Decisions({"fuse_layers": "auto"})
PREFETCHED = Decisions({"prefetch": "auto"})
BOTH = Decisions({"fuse_layers": "auto", "prefetch": "auto"})

#: Whole networks whose bits are compared.
NETWORKS = (
    "resnet8", "ds_cnn", "mobilenet_v1_025_96", "autoencoder", "mobilenet_v2", "resnet18", "squeezenet1_1", "resnet50",
)  # fmt: skip

#: Three sizes of hardware, both dataflows; buffers that force tiling, and one that fuses much.
SIZES = {
    "8x8 os": SystolicHardware(
        rows=8, columns=8, dataflow="os", activation_kib=64, weight_kib=128, accumulator_kib=16,
        parameter_channels=4096, requantize="ort", descriptors=4096, clock_mhz=200,
    ),
    "16x16 ws": SystolicHardware(
        rows=16, columns=16, activation_kib=256, weight_kib=128, accumulator_kib=64, vector_lanes=16,
        parameter_channels=4096, requantize="ort", memory_bytes_per_cycle=16, descriptors=1024, clock_mhz=200,
    ),
    "32x16 ws": SystolicHardware(
        rows=32, columns=16, activation_kib=512, weight_kib=256, accumulator_kib=128, vector_lanes=8,
        parameter_channels=8192, requantize="ort", memory_bytes_per_cycle=16, descriptors=1024, clock_mhz=200,
    ),
}  # fmt: skip


def cpu_seconds(action: Callable[[], object], repeats: int = 5) -> float:
    """Least CPU time of some repetitions, after one to warm compiled code."""
    action()
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        action()
        best = min(best, time.process_time() - begin)
    return best


def say(text: str) -> None:
    """Print a line at once: some take minutes."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def speed() -> None:
    """Compile, level A and level C of ResNet-50 on the Gemmini-like preset."""
    hw = SystolicHardware.model_validate(FAMILY.presets()["gemmini_16x16"])
    graph = prepare(ZooFrontend().load("resnet50", Path(), {}))
    for name, decisions in (("as is", Decisions()), ("fuse_layers: auto", FUSED), ("prefetch: auto", PREFETCHED)):
        begin = time.process_time()
        program = FAMILY.lower(graph, hw, decisions)
        compiled = time.process_time() - begin
        view = program.task_graph()
        level_a = cpu_seconds(lambda view=view: simulate_a(view), 20)  # type: ignore[misc]
        level_c = cpu_seconds(lambda view=view: simulate_c(view), 2)  # type: ignore[misc]
        say(
            f"ResNet-50, {name}: compile {compiled:.2f} s, {view.tasks} tasks, level A {level_a * 1e3:.2f} ms, "
            f"level C {level_c:.3f} s ({level_c / level_a:.0f} x level A)"
        )


def compared(names: Sequence[str], changed: Decisions) -> None:
    """Cycles at level C and memory traffic, a decision off against auto, 256 KiB of activations."""
    base = SystolicHardware.model_validate(FAMILY.presets()["gemmini_16x16"])
    hw = base.model_copy(
        update={"activation_kib": 256, "parameter_channels": 4096, "descriptors": 2048, "clock_mhz": 400}
    )
    for name in names:
        try:
            graph = prepare(ZooFrontend().load(name, Path(), {}))
            found = []
            for decisions in (Decisions(), changed):
                program = FAMILY.lower(graph, hw, decisions)
                view = program.task_graph()
                timeline = simulate_c(view)
                assert timeline.total_cycles == simulate_a(view).total_cycles
                traffic = sum(layer.memory_bytes for layer in program.metrics(timeline).layers)
                found.append((timeline.total_cycles, traffic))
        except DseError as error:
            say(f"{name:20s} {error}")
            continue
        (cycles, traffic), (fused_cycles, fused_traffic) = found
        say(
            f"{name:20s} cycles {cycles:>11,} -> {fused_cycles:>11,} ({fused_cycles / cycles - 1:+.2%})  "
            f"traffic {traffic / 1e6:7.2f} -> {fused_traffic / 1e6:7.2f} MB ({traffic / fused_traffic:.2f} x less)",
        )


def bits(names: Sequence[str], images: int = 1) -> None:
    """Outputs that differ between program and onnxruntime, per network and size."""
    import onnxruntime

    from workloads.onnx.export import export_quantized

    for name in names:
        graph = prepare(ZooFrontend().load(name, Path(), {}))
        network = quantize(graph, calibration_images(graph, 4, 0))
        session = onnxruntime.InferenceSession(
            export_quantized(network).SerializeToString(), providers=["CPUExecutionProvider"]
        )
        source = network.inputs[0]
        rng = np.random.default_rng(7)
        for size, hw in SIZES.items():
            for label, decisions in (("off", Decisions()), ("auto", BOTH)):
                program = FAMILY.lower(network, hw, decisions)
                begin = time.process_time()
                differ = total = 0
                for _ in range(images):
                    image = rng.integers(-128, 128, network[source].shape).astype(np.int8)
                    expected = session.run(list(network.outputs), {source: image})
                    got = program.run({source: image})
                    for output, want in zip(network.outputs, expected, strict=True):
                        differ += int((got[output] != want).sum())
                        total += want.size
                spent = (time.process_time() - begin) / images
                say(
                    f"{name:20s} {size:9s} fuse {label:4s} {differ} of {total} outputs differ, {spent:.1f} s",
                )
                assert differ == 0


def main(arguments: Sequence[str]) -> None:
    """Run the parts named on the command line; all without any."""
    known = ("speed", "fusion", "prefetch", "bits")
    parts = [item for item in arguments if item in known] or list(known)
    chosen = [item for item in arguments if item not in known]
    if "speed" in parts:
        speed()
    if "fusion" in parts:
        compared(chosen or tuple(networks()), FUSED)
    if "prefetch" in parts:
        compared(chosen or tuple(networks()), PREFETCHED)
    if "bits" in parts:
        bits(chosen or NETWORKS)


if __name__ == "__main__":
    main(sys.argv[1:])
