"""Events are counted as they happen: against a walk of every executed descriptor, and against the RTL's enables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from builders import random_inputs
from designs import compile_random
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.systolic.events import ROLES, step_counts
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.rtl import MatmulEngine
from dse.program.tile.expand import effective, expand
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TileStep
from dse.rtl.harness import TileSimulation
from dse.rtl.machine import TileMachine

LOADED = ("activation", "weight", "parameter", "residual")


def walk_transfer(d: Descriptor, machine: Machine, seen: Counter[str]) -> None:
    """Run by run, beat by beat."""
    for _ in range(d["n0"] * d["n1"] * d["n2"]):
        left = d["run_bytes"]
        while left > 0:
            left -= machine.memory_bytes_per_cycle
            if d.op == Opcode.STORE:
                seen["output_reads"] += 1
                seen["memory_write_bytes"] += machine.memory_bytes_per_cycle
                seen["memory_bytes:output"] += machine.memory_bytes_per_cycle
            else:
                memory = MemoryId(d["memory"])
                seen[f"{memory.name.lower()}_writes"] += 1
                seen["memory_read_bytes"] += machine.memory_bytes_per_cycle
                seen[f"memory_bytes:{ROLES[memory]}"] += machine.memory_bytes_per_cycle


def walk_matmul(d: Descriptor, machine: Machine, seen: Counter[str]) -> None:
    """Fold by fold: a pixel a cycle (ws), or blocks of `rows` pixels that take `rows` steps each (os)."""
    pixels = [(y, x) for y in range(d["height"]) for x in range(d["width"])]
    folds = d["n_rows"] * d["n_columns"] * d["n_channels"]
    rows = machine.rows
    for _ in range(d["n_blocks"]):
        if machine.dataflow == "ws":
            for fold in range(folds):
                seen["weight_reads"] += rows
                for _ in pixels:
                    seen["activation_reads"] += 1
                    seen["macs_executed"] += rows * machine.columns
                    seen["accumulator_writes"] += 1
                    seen["accumulator_reads"] += 1 if fold > 0 or d["accumulate"] else 0
            continue
        for first in range(0, len(pixels), rows):
            block = pixels[first : first + rows]
            for _ in range(folds):
                for step in range(rows):
                    seen["weight_reads"] += 1
                    seen["activation_reads"] += step < len(block)
                    seen["macs_executed"] += rows * machine.columns
            seen["accumulator_writes"] += len(block)
            seen["accumulator_reads"] += len(block) if d["accumulate"] else 0


def walk_vector(d: Descriptor, machine: Machine, seen: Counter[str]) -> None:
    """Row by row, lane group by lane group."""
    for _ in range(d["n_blocks"] * d["rows_count"]):
        for _ in range(0, machine.columns, machine.vector_lanes):
            for name in ("accumulator_reads", "parameter_reads", "output_writes"):
                seen[name] += 1
            seen["requantized"] += machine.vector_lanes
            seen["residual_reads"] += d["add"]
            seen["adds"] += machine.vector_lanes * d["add"]


def walked(step: TileStep, machine: Machine) -> Counter[str]:
    """Events of a step, one executed descriptor after the other."""
    seen: Counter[str] = Counter()
    walkers = {
        Opcode.LOAD: walk_transfer, Opcode.STORE: walk_transfer, Opcode.MATMUL: walk_matmul, Opcode.VECTOR: walk_vector,
    }  # fmt: skip
    for queue in step.queues.values():
        expanded = expand(queue)
        seen["descriptors_fetched"] += expanded.instances + int(expanded.loops_before.sum()) + 1  # and HALT
        for position in expanded.descriptor.tolist():
            walker = walkers.get(queue[position].op)
            if walker is not None:
                walker(queue[position], machine, seen)
    return seen


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_counts_equal_a_walk_of_the_executed_descriptors(seed: int) -> None:
    _, _, _, executable = compile_random(seed)
    for step in executable.program.tile_steps:
        expected = walked(step, executable.program.machine)
        assert +step_counts(step, executable.program.machine) == +expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_every_result_is_written_and_stored_once(seed: int) -> None:
    """Addresses unrolled: each output byte is stored by exactly one run, and nothing else in memory is touched."""
    _, graph, _, executable = compile_random(seed)
    (step,) = executable.program.tile_steps
    queue = step.queues["store"]
    written = np.zeros(executable.program.memory_bytes, np.int64)
    for d, columns in zip(queue, effective(expand(queue), queue, executable.program.machine), strict=True):
        for base in columns.get("ext", np.zeros(0, np.int64)).tolist():
            for i, j, k in np.ndindex(d["n0"], d["n1"], d["n2"]):
                at = base + i * d["ext_stride0"] + j * d["ext_stride1"] + k * d["ext_stride2"]
                written[at : at + d["run_bytes"]] += 1
    place = executable.program.placements[graph.outputs[0]]
    assert written[place.base : place.base + place.bytes].tolist() == [1] * place.bytes
    assert written.sum() == graph[graph.outputs[0]].elements


class CountingMachine(TileMachine):
    """The machine, with a counter on every enable of a scratchpad port."""

    def elaborate(self, platform: Any) -> Module:
        m = super().elaborate(platform)
        load, matmul, vector, store = (self.engines[name] for name in ("load", "matmul", "vector", "store"))
        enables = {
            "activation_reads": [matmul.a.en], "weight_reads": [matmul.w.en],
            "accumulator_reads": [matmul.acc_read.en, vector.acc.en], "accumulator_writes": [matmul.acc_write.en],
            "parameter_reads": [vector.param.en], "residual_reads": [vector.res.en], "output_writes": [vector.out.en],
            "output_reads": [store.output.en],
            **{f"{memory}_writes": [getattr(load, memory).en] for memory in LOADED},
        }  # fmt: skip
        self.counters = {}
        for name, signals in enables.items():
            self.counters[name] = [Signal(32, name=f"{name}_{i}") for i in range(len(signals))]
            for counter, enable in zip(self.counters[name], signals, strict=True):
                with m.If(enable.any()):
                    m.d.sync += counter.eq(counter + 1)
        return m


class CountingSimulation(TileSimulation):
    """Reads the counters when the run has ended."""

    component: CountingMachine

    async def _drive(self, ctx: Any) -> None:
        await super()._drive(ctx)
        await ctx.tick()
        self.counts = {name: sum(ctx.get(c) for c in parts) for name, parts in self.component.counters.items()}


def rtl_counts(executable: SystolicExecutable, inputs: dict[str, np.ndarray]) -> dict[str, int]:
    machine = executable.program.machine
    simulation = CountingSimulation(CountingMachine(machine, MatmulEngine(machine)), machine)
    simulation.run(executable.program.tile_steps[0], executable.load_inputs(inputs))
    return simulation.counts


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("seed", range(6))
def test_counts_equal_the_enables_of_the_rtl(seed: int, dataflow: str) -> None:
    """What energy is paid for is what the hardware does: words of every memory, read and written."""
    rng, graph, _, executable = compile_random(9100 + seed, dataflow=dataflow)
    found = rtl_counts(executable, random_inputs(rng, graph))
    expected = step_counts(executable.program.tile_steps[0], executable.program.machine)
    assert found == {name: expected[name] for name in found}
