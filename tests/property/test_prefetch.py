"""Weight prefetch across steps: values, safety and time of random networks, and the rewrite of queues by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from designs import FAMILY, compile_random, random_hardware
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import random_network, random_values

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.prefetch import TAKEN
from accelerators.systolic.prefetch_queues import (
    first_loads,
    parameter_span,
    swapped,
    take_loads,
    waits_for,
    with_parameters_at,
)
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, UsageError
from dse.ir import Graph
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.expand import effective, expand
from dse.program.tile.isa import Descriptor, MemoryId, Opcode
from dse.program.tile.program import HostStep, Machine, TileStep
from dse.sim import simulate_a, simulate_c

seeds = st.integers(0, 2**32 - 1)


def both(seed: int) -> tuple[Graph, SystolicExecutable, SystolicExecutable] | None:
    """A random network without and with prefetch on a random design, fused or not; None when it does not fit."""
    rng = np.random.default_rng(seed)
    hw = random_hardware(
        rng,
        activation_kib=float(rng.choice([2, 8])),
        weight_kib=float(rng.choice([1, 2, 8])),
        state_kib=float(rng.choice([0, 4])),
        parameter_channels=int(rng.choice([32, 64, 256])),
    )
    graph = random_network(seed, weight_bits=hw.weight_bits)
    fuse = str(rng.choice(["off", "auto"]))
    try:
        found = [FAMILY.lower(graph, hw, Decisions({"fuse_layers": fuse, "prefetch": p})) for p in ("off", "auto")]
    except InfeasibleError:
        return None
    return graph, found[0], found[1]


@settings(max_examples=50, deadline=None)
@given(seed=seeds, order=seeds)
def test_prefetched_networks_equal_the_reference_in_any_legal_order_and_check_clean(seed: int, order: int) -> None:
    found = both(seed)
    assume(found is not None)
    assert found is not None
    graph, _, executable = found
    inputs = random_values(np.random.default_rng(order), graph)
    expected = run_quantized(graph, inputs, executable.hw.requantize)
    result = executable.run(inputs, order_seed=order)
    for name in graph.outputs:
        np.testing.assert_array_equal(result[name], expected[name])
    for step in executable.program.tile_steps:
        assert check(step, executable.program.machine, executable.program.memory_bytes) == []


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_prefetch_is_never_slower_moves_the_same_bytes_and_levels_agree(seed: int) -> None:
    found = both(seed)
    assume(found is not None)
    assert found is not None
    _, plain, prefetched = found
    before, after = simulate_c(plain.task_graph()), simulate_c(prefetched.task_graph())
    assert after.total_cycles <= before.total_cycles
    fast = simulate_a(prefetched.task_graph())
    np.testing.assert_array_equal(fast.start, after.start)
    np.testing.assert_array_equal(fast.end, after.end)
    rows, moved = plain.metrics(before), prefetched.metrics(after)
    assert moved.memory_bytes == rows.memory_bytes
    assert all(layer.memory_bytes >= layer.compulsory_bytes for layer in moved.layers)
    assert moved.executed_macs == rows.executed_macs


def test_random_networks_cover_every_way_to_prefetch() -> None:
    """Weights and parameters, weights alone, behind a wait, in the other half, out of a loop, across a host op."""
    seen: Counter[str] = Counter()
    for seed in range(120):
        found = both(seed)
        if found is None:
            continue
        _, plain, prefetched = found
        steps = prefetched.program.steps
        for index, step in enumerate(steps):
            if not isinstance(step, TileStep) or TAKEN not in step.notes:
                continue
            seen["boundary"] += 1
            seen["across a host operation"] += isinstance(steps[index - 1], HostStep)
            before = plain.program.steps[index]
            assert isinstance(before, TileStep)
            loads = first_loads(before.queues)
            assert loads is not None
            kept = any(d.op == Opcode.LOAD and d["memory"] == MemoryId.PARAMETER for d in step.queues["load"])
            seen["parameters stay"] += kept
            seen["parameters moved"] += not kept
            sync = [d for d in step.queues["load"] if d.op == Opcode.SYNC]
            seen["weights moved"] += bool(sync)
            seen["out of a loop"] += any(
                d.op == Opcode.LOOP for d in before.queues["load"][: len(loads.parameters) + 1]
            )
            halves = [d["w_phase"] for s in (before, step) for d in s.queues["matmul"] if d.op == Opcode.MATMUL]
            seen["other half"] += halves[0] != halves[len(halves) // 2]
            giver = next(s for s in reversed(steps[:index]) if isinstance(s, TileStep))
            last = [d for d in giver.queues["load"] if d.op == Opcode.LOAD and d["memory"] == MemoryId.WEIGHT][-1]
            seen["behind a wait"] += last["wait0_amount"] > 0 and not last["signal0_amount"]
    wanted = ("across a host operation", "parameters stay", "parameters moved", "weights moved", "out of a loop",
              "other half", "behind a wait")  # fmt: skip
    assert all(seen[name] >= 2 for name in wanted), seen


def loaded(queue: tuple[Descriptor, ...], machine: Machine) -> list[tuple[object, ...]]:
    """What a load queue does, task by task: opcode, memory, size, addresses and semaphores."""
    expanded = expand(queue)
    addresses = [iter(zip(*columns.values(), strict=True)) for columns in effective(expanded, queue, machine)]
    skipped = {"layer", *(f"{o}_{part}" for o in ("ext", "local") for part in ("base", "phase", "toggle")), "ext_down",
               *(f"{o}_inc{level}" for o in ("ext", "local") for level in range(4))}  # fmt: skip
    result: list[tuple[object, ...]] = []
    for position in expanded.descriptor.tolist():
        d = queue[position]
        fields = tuple(sorted((name, value) for name, value in d.values.items() if name not in skipped))
        where = tuple(int(value) for value in next(addresses[position], ()))
        result.append((d.op, fields, where))
    return result


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_taking_the_first_loads_leaves_every_other_task_as_it_was(seed: int) -> None:
    """Loops are peeled on the way: the tasks, their addresses and their order do not change."""
    _, _, _, executable = compile_random(seed)
    (step,) = executable.program.tile_steps
    machine = executable.program.machine
    rest, taken = take_loads(step.queues, parameters=True)
    before, after = loaded(step.queues["load"], machine), loaded(rest["load"], machine)
    gone = loaded((*taken, Descriptor(Opcode.HALT)), machine)
    syncs = [position for position, task in enumerate(after) if task[0] == Opcode.SYNC]
    assert len(syncs) == 1
    rest_of = list(before)
    for task in gone:
        rest_of.remove(task)
    assert len(gone) == 2
    assert rest_of == [task for task in after if task[0] != Opcode.SYNC]
    # the SYNC stands where the weights stood, behind the same loads of activations
    assert before.index(gone[0]) - 1 == syncs[0]
    # what the SYNC waits for and signals is what the weights waited for and signalled
    weights = next(d for d in taken if d["memory"] == MemoryId.WEIGHT)
    sync = next(d for d in rest["load"] if d.op == Opcode.SYNC)
    for verb in ("wait", "signal"):
        assert [sync[f"{verb}0_{part}"] for part in ("id", "amount")] == [
            weights[f"{verb}0_{part}"] for part in ("id", "amount")
        ]


@settings(max_examples=40, deadline=None)
@given(seed=seeds, word=st.integers(0, 40))
def test_swapped_halves_and_moved_parameters_compute_the_same(seed: int, word: int) -> None:
    rng, graph, hw, executable = compile_random(seed, parameter_channels=1024)
    (step,) = executable.program.tile_steps
    machine = executable.program.machine
    flipped = swapped(step.queues, machine)
    largest = max(d["n2"] for d in step.queues["load"] if d["memory"] == MemoryId.WEIGHT and d.op == Opcode.LOAD)
    assert (flipped is None) == (largest > machine.half(MemoryId.WEIGHT))
    assume(flipped is not None)
    assert flipped is not None
    span = parameter_span(flipped, machine)
    assert span is not None
    assert span[0] == 0
    moved = with_parameters_at(flipped, word, machine)
    assert parameter_span(moved, machine) == (word, word + span[1])
    changed = TileStep(step.name, step.ops, moved, step.useful_macs, step.layer)
    assert check(changed, machine, executable.program.memory_bytes) == []

    lowered = replace(executable._lowered, program=replace(executable.program, steps=(changed,)))
    other = SystolicExecutable(graph, hw, executable.decisions, lowered)
    inputs = random_values(rng, graph)
    for name, values in executable.run(inputs).items():
        np.testing.assert_array_equal(other.run(inputs, order_seed=seed % 1000)[name], values)


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_waits_are_as_long_as_the_last_matmul_that_reads_the_words(seed: int) -> None:
    """Counted task by task: the credits end with the last matmul that reads the half."""
    _, _, _, executable = compile_random(seed)
    (step,) = executable.program.tile_steps
    machine = executable.program.machine
    half = machine.half(MemoryId.WEIGHT)
    w_free = 3
    queue = step.queues["matmul"]
    expanded = expand(queue)
    loads = step.queues["load"]
    waited = sum(loads[i]["wait0_amount"] for i in expand(loads).descriptor.tolist() if loads[i]["wait0_id"] == w_free)
    for phase in (0, 1):
        probe = Descriptor(Opcode.LOAD, {"n0": 1, "n1": 1, "n2": half, "run_bytes": 1, "local_stride2": 1,
                                         "local_phase": phase, "memory": MemoryId.WEIGHT})  # fmt: skip
        needed = waits_for(step.queues, probe, machine)
        assert needed is not None
        given_credits = last = 0
        streams = [iter(c["w"].tolist()) if "w" in c else iter(()) for c in effective(expanded, queue, machine)]
        for position in expanded.descriptor.tolist():
            d = queue[position]
            given_credits += sum(d[f"signal{s}_amount"] for s in range(3) if d[f"signal{s}_id"] == w_free)
            if d.op != Opcode.MATMUL:
                continue
            # weights of a layer that fit no half begin in one and end in the other
            first = next(streams[position])
            folds = d["n_blocks"] * d["n_rows"] * d["n_columns"] * d["n_channels"]
            if first < (phase + 1) * half and first + folds * machine.rows > phase * half:
                last = given_credits
        assert needed == max(0, last - waited)


def test_the_decision_is_checked() -> None:
    graph = random_network(1)
    hw = random_hardware(np.random.default_rng(0), activation_kib=8.0)
    with pytest.raises(UsageError, match="prefetch 'on' is neither auto nor off"):
        FAMILY.lower(graph, hw, Decisions({"prefetch": "on"}))
