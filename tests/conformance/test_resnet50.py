"""ResNet-50 on the presets: known MACs, energy from independently counted accesses, cycles within their bounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.cost import unit_energies
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare
from dse.ir import Graph
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TileStep
from workloads.zoo import ZooFrontend

PRESETS = ("gemmini_16x16", "tpu_v1")


@pytest.fixture(scope="module")
def network() -> Graph:
    return prepare(ZooFrontend().load("resnet50", Path("."), {}))


@pytest.fixture(scope="module", params=PRESETS)
def executable(request: pytest.FixtureRequest, network: Graph) -> SystolicExecutable:
    family = SystolicAccelerator()
    hw = SystolicHardware.model_validate(family.presets()[request.param])
    assert not family.check(hw)
    return family.lower(network, hw, Decisions())


def executed(queue: tuple[Descriptor, ...], low: int, high: int) -> Iterator[Descriptor]:
    """Descriptors in the order of their fetch, one by one, LOOP and HALT included."""
    i = low
    while i < high:
        yield queue[i]
        if queue[i].op == Opcode.LOOP:
            body = queue[i]["body"]
            for _ in range(queue[i]["count"]):
                yield from executed(queue, i + 1, i + 1 + body)
            i += body
        i += 1


def count(step: TileStep, machine: Machine) -> Counter[str]:
    """Accesses of a step, counted task by task from what the ISA says each does."""
    total: Counter[str] = Counter()
    scratchpad = {0: "activation", 1: "weight", 2: "parameter", 3: "residual"}
    for queue in step.queues.values():
        for d in executed(queue, 0, len(queue)):
            total["descriptors_fetched"] += 1
            if d.op in (Opcode.LOAD, Opcode.STORE):
                beats = (
                    sum(
                        -(-d["run_bytes"] // machine.memory_bytes_per_cycle)
                        for _ in range(d["n0"])
                        for _ in range(d["n1"])
                    )
                    * d["n2"]
                )
                side = "read" if d.op == Opcode.LOAD else "write"
                total[f"memory_{side}_bytes"] += beats * machine.memory_bytes_per_cycle
                if d.op == Opcode.LOAD:
                    total[f"{scratchpad[d['memory']]}_writes"] += beats
                else:
                    total["output_reads"] += beats
            elif d.op == Opcode.MATMUL:
                pixels = d["height"] * d["width"]
                for _ in range(d["n_blocks"]):
                    for fold in range(d["n_rows"] * d["n_columns"] * d["n_channels"]):
                        total["weight_reads"] += machine.rows
                        total["activation_reads"] += pixels
                        total["accumulator_writes"] += pixels
                        total["accumulator_reads"] += pixels if fold or d["accumulate"] else 0
                        total["macs_executed"] += pixels * machine.rows * machine.columns
            elif d.op == Opcode.VECTOR:
                rows = d["n_blocks"] * d["rows_count"]
                groups = rows * machine.columns // machine.vector_lanes
                for name in ("accumulator_reads", "parameter_reads", "output_writes"):
                    total[name] += groups
                total["requantized"] += rows * machine.columns
                if d["add"]:
                    total["residual_reads"] += groups
                    total["adds"] += rows * machine.columns
    return total


def test_macs_are_those_of_the_network(network: Graph, executable: SystolicExecutable) -> None:
    assert network.macs == 4_089_184_256
    assert executable.estimate().useful_macs == network.macs


def test_energy_equals_independently_counted_accesses(executable: SystolicExecutable) -> None:
    assert executable.hw.dataflow == "ws"
    units = unit_energies(executable.hw)
    metrics = executable.estimate()
    total = 0.0
    for step, layer in zip(executable.program.steps, metrics.layers, strict=True):
        if isinstance(step, TileStep):
            counts = count(step, executable.program.machine)
        else:
            port = executable.program.machine.memory_bytes_per_cycle
            moved = {"read": step.read_bytes, "write": step.write_bytes}
            counts = Counter({f"memory_{side}_bytes": -(-size // port) * port for side, size in moved.items()})
        energy = math.fsum(amount * units[name] for name, amount in counts.items())
        assert energy == pytest.approx(math.fsum(layer.energy_pj.values()), rel=1e-9)
        total += energy
    dynamic = metrics.total_energy_pj - metrics.energy_pj["static"]
    assert total == pytest.approx(dynamic, rel=1e-9)


def test_cycles_lie_within_their_bounds(executable: SystolicExecutable) -> None:
    metrics = executable.estimate()
    machine = executable.program.machine
    assert metrics.cycles >= metrics.useful_macs / executable.hw.pes
    for layer, counts in zip(metrics.layers, executable.counts, strict=True):
        assert layer.cycles >= layer.executed_macs / executable.hw.pes
        assert layer.cycles >= counts["memory_read_bytes"] / machine.memory_bytes_per_cycle
        assert layer.cycles >= counts["memory_write_bytes"] / machine.memory_bytes_per_cycle
        assert layer.memory_bytes >= layer.compulsory_bytes
        # nothing is slower than all engines one after the other
        assert layer.utilization(executable.hw.pes) <= 1


def test_scratchpads_hold_what_is_placed_in_them(executable: SystolicExecutable) -> None:
    machine = executable.program.machine
    for step in executable.program.tile_steps:
        for d in step.queues["load"]:
            if d.op == Opcode.LOAD:
                last = d["local_base"] + sum(d[f"local_stride{i}"] * (d[f"n{i}"] - 1) for i in range(3))
                assert last < machine.words[MemoryId(d["memory"])]
