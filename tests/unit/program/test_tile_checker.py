"""The checker accepts what is right, and rejects exactly what some legal order breaks."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_samples import HALT, SEMAPHORE, Sample, loop, mutated, op, pipeline, small_machine, step

from dse.program.tile.checker import check
from dse.program.tile.errors import TileProgramError
from dse.program.tile.footprint import semaphore_slots
from dse.program.tile.interpreter import run_step
from dse.program.tile.isa import ENGINES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TileStep

MEMORY_BYTES = 64


def problems(sample: Sample, changed: TileStep) -> list[str]:
    return check(changed, sample.machine, sample.memory.size)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_correct_pipelines_pass(seed: int) -> None:
    sample = pipeline(seed)
    assert problems(sample, sample.step) == []


# -- seeded faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "position", "changes", "message"),
    [
        ("matmul", 4, {"wait0_amount": 0}, r"load\[4\] LOAD .* and matmul\[4\] MATMUL .* not ordered: activation"),
        ("matmul", 4, {"wait1_amount": 0}, r"matmul\[4\] .* and vector\[3\] .* one bank at once: accumulator"),
        ("matmul", 4, {"signal0_amount": 2}, "not ordered: activation"),
        ("matmul", 4, {"a_toggle": 0}, "not ordered: activation"),
        ("matmul", 0, {"signal0_amount": 3}, "not ordered: activation"),
        ("vector", 3, {"wait0_amount": 0}, "one bank at once: accumulator"),
        ("vector", 3, {"wait1_amount": 0}, r"vector\[3\] .* and store\[3\] .* not ordered: output"),
        ("vector", 0, {"signal0_amount": 3}, "one bank at once: accumulator"),
        ("store", 3, {"wait0_amount": 0}, "not ordered: output"),
        ("load", 4, {"wait0_amount": 0}, "not ordered: activation"),
        ("load", 4, {"signal0_amount": 0}, r"deadlock: .*matmul\[4\] MATMUL \(its task 2\) waits for semaphore 0"),
        ("store", 0, {"signal0_amount": 0}, r"deadlock: .*vector\[3\] VECTOR \(its task 1\) waits for semaphore 7"),
        ("store", 3, {"ext_base": 60_000}, r"store\[3\] STORE: ext reaches bytes"),
        ("load", 2, {"local_base": 60}, r"load\[2\] LOAD: local reaches words"),
        ("matmul", 4, {"n_channels": 40}, r"matmul\[4\] MATMUL: a reaches words"),
        ("vector", 3, {"param_inc1": 30}, r"vector\[3\] VECTOR: param reaches words"),
        ("load", 1, {"body": 9}, "load: LOOP at 1 has a body of 9"),
        ("load", 1, {"count": 0}, "load: LOOP at 1 has count 0"),
        ("load", 4, {"run_bytes": 0}, "run_bytes is 0"),
        ("load", 4, {"memory": 4}, "LOAD into memory 4"),
        ("store", 3, {"wait0_id": 0}, "semaphore 0 is consumed by matmul and store; one engine may"),
        ("store", 3, {"signal0_id": 0}, "semaphore 0 is produced by load and store"),
    ],
)
def test_seeded_faults_are_found_and_named(engine: str, position: int, changes: dict[str, int], message: str) -> None:
    sample = pipeline(5, blocks=3, tiles=4)
    found = problems(sample, mutated(sample.step, engine, position, **changes))
    assert any(re.search(message, text) for text in found), found


def test_queues_must_be_complete_fit_and_hold_their_own_opcodes() -> None:
    machine = small_machine()
    assert check(step(), machine, 0) == []
    without = replace(step(), queues={"load": (HALT,)})
    assert check(without, machine, 0) == ["a step has the queues load, matmul, vector, store; this one load"]
    long = step(load=[op(Opcode.SYNC)] * 64)
    assert check(long, machine, 0) == ["load: 65 descriptors; the descriptor memory holds 64"]
    alien = step(store=[Descriptor(Opcode.MATMUL)])
    assert check(alien, machine, 0) == ["store[0] MATMUL: MATMUL does not belong into the store queue (matmul)"]


def test_semaphores_that_may_overflow_are_found() -> None:
    machine = small_machine()
    give, take = op(Opcode.SYNC, signal_a_ready=2), op(Opcode.SYNC, wait_a_ready=2)
    assert check(step(load=loop(127, give), matmul=loop(127, take)), machine, 0) == []
    found = check(step(load=loop(128, give), matmul=loop(128, take)), machine, 0)
    assert found == ["semaphore 0 may hold 256 after load[1] SYNC (its task 127); the limit is 255"]
    # a credit that comes back bounds it again
    give = op(Opcode.SYNC, wait_a_free=2, signal_a_ready=2)
    take = op(Opcode.SYNC, wait_a_ready=2, signal_a_free=2)
    credit = op(Opcode.SYNC, signal_a_free=100)
    assert check(step(load=loop(500, give), matmul=(credit, *loop(500, take))), machine, 0) == []
    # an engine that waits for its own signals never holds more than it has not taken
    own = (op(Opcode.SYNC, signal_a_ready=200), op(Opcode.SYNC, wait_a_ready=200))
    assert check(step(load=loop(9, *own)), machine, 0) == []


def test_a_redundant_wait_may_go() -> None:
    # weights are loaded before the activations that the matmul awaits
    sample = pipeline(5, blocks=3, tiles=4)
    changed = mutated(sample.step, "matmul", 2, wait0_amount=0)
    assert problems(sample, changed) == []
    for order in range(10):
        memory = sample.memory.copy()
        run_step(changed, sample.machine, memory, order_seed=order)
        np.testing.assert_array_equal(memory, sample.expected)


# -- mutations: rejected, or harmless ------------------------------------------------------------------------------


def mutants(sample: Sample, rng: np.random.Generator) -> TileStep:
    """One change to the semaphores of one descriptor."""
    engine = str(rng.choice(ENGINES))
    queue = sample.step.queues[engine]
    synced = [i for i, d in enumerate(queue) if semaphore_slots(d, "wait") or semaphore_slots(d, "signal")]
    position = int(rng.choice(synced))
    d = queue[position]
    verb = str(rng.choice([v for v in ("wait", "signal") if semaphore_slots(d, v)]))
    slot = int(rng.integers(0, len(semaphore_slots(d, verb))))
    name = f"{verb}{slot}_amount"
    if rng.random() < 0.2:
        return mutated(sample.step, engine, position, **{f"{verb}{slot}_id": int(rng.integers(0, len(SEMAPHORE)))})
    amount = int(rng.choice([0, d[name] - 1, d[name] + 1, d[name] + 2]))
    return mutated(sample.step, engine, position, **{name: amount})


def outcome(sample: Sample, changed: TileStep, order: int) -> str:
    memory = sample.memory.copy()
    try:
        run_step(changed, sample.machine, memory, order_seed=order)
    except TileProgramError:
        return "error"
    return "same" if np.array_equal(memory, sample.expected) else "different"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_mutants_are_rejected_or_give_the_same_result(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = pipeline(int(rng.integers(0, 1000)))
    changed = mutants(sample, rng)
    if not problems(sample, changed):
        assert {outcome(sample, changed, order) for order in range(4)} == {"same"}


def test_both_kinds_of_mutants_occur_and_rejection_is_for_cause() -> None:
    rng = np.random.default_rng(11)
    accepted = rejected = failing = 0
    for _ in range(150):
        sample = pipeline(int(rng.integers(0, 1000)), blocks=2, tiles=3)
        changed = mutants(sample, rng)
        if problems(sample, changed):
            rejected += 1
            failing += any(outcome(sample, changed, order) != "same" for order in range(12))
        else:
            accepted += 1
    assert accepted >= 5
    # most of what is rejected can be seen to fail within a dozen orders
    assert failing >= 0.6 * rejected >= 50


# -- small programs against all their executions -------------------------------------------------------------------


def small_queue(rng: np.random.Generator, engine: str, machine: Machine) -> list[Descriptor]:
    """Up to three tasks of one engine on very few words, so that they meet."""
    one = {"n0": 1, "n1": 1, "n2": int(rng.integers(1, 3)), "run_bytes": 1, "ext_stride2": 1, "local_stride2": 1}
    word = lambda: int(rng.integers(0, 4))  # noqa: E731
    queue = []
    for _ in range(int(rng.integers(0, 4))):
        if rng.random() < 0.3:
            queue.append(op(Opcode.SYNC))
        elif engine == "load":
            memory = int(rng.choice([MemoryId.ACTIVATION, MemoryId.PARAMETER, MemoryId.STATE]))
            queue.append(op(Opcode.LOAD, {**one, "ext_base": word(), "local_base": word(), "memory": memory}))
        elif engine == "matmul":
            half = {"acc_phase": int(rng.integers(0, 2))}
            sizes = dict.fromkeys(("n_blocks", "n_rows", "n_columns", "n_channels", "height", "width"), 1)
            queue.append(op(Opcode.MATMUL, {**sizes, **half, "a_base": word(), "w_base": 0}))
        elif engine == "vector" and rng.random() < 0.5:
            into = int(rng.choice([MemoryId.ACTIVATION, MemoryId.OUTPUT, MemoryId.STATE]))
            sizes = {"n_blocks": 1, "rows_count": 1, "multiplier_a": 1, "a_memory": MemoryId.STATE, "dst_memory": into}
            queue.append(op(Opcode.ELEMENT, {**sizes, "a_base": word(), "dst_base": word()}))
        elif engine == "vector":
            half = {"acc_phase": int(rng.integers(0, 2))}
            sizes = {"n_blocks": 1, "rows_count": 1}
            queue.append(op(Opcode.VECTOR, {**sizes, **half, "out_base": word(), "param_base": word()}))
        else:
            state = int(rng.integers(0, 2))
            queue.append(op(Opcode.STORE, {**one, "ext_base": word(), "local_base": word(), "from_state": state}))
    return queue


def small_step(rng: np.random.Generator, machine: Machine) -> TileStep:
    """Random tasks with random semaphores, each with one producing and one consuming engine."""
    queues = {engine: small_queue(rng, engine, machine) for engine in ENGINES}
    for semaphore in range(int(rng.integers(1, 6))):
        for verb in ("signal", "wait"):
            engine = str(rng.choice(ENGINES))
            for position, d in enumerate(queues[engine]):
                slot = len(semaphore_slots(d, verb))
                if slot < 3 and rng.random() < (0.7 if verb == "signal" else 0.5):
                    amount = int(rng.choice([1, 2, 90, 170])) if verb == "signal" else int(rng.choice([1, 1, 2, 90]))
                    used = {f"{verb}{slot}_id": semaphore, f"{verb}{slot}_amount": amount}
                    queues[engine][position] = Descriptor(d.op, {**d.values, **used})
    return step(**queues)


def ports(words: set[tuple[str, int, bool]], machine: Machine) -> set[tuple[str, int, bool]]:
    """Ports of halves that two engines share, which only one may use at a time: as words that are written."""
    shared = {("ACTIVATION", True), ("STATE", True), ("STATE", False)}
    return {
        (f"{memory} {'write' if writes else 'read'} port", word // machine.half(MemoryId[memory]), True)
        for memory, word, writes in words
        if (memory, writes) in shared
    }


def touched(d: Descriptor, machine: Machine) -> set[tuple[str, int, bool]]:
    """(memory, word, writes) of every word and shared port of a task of `small_queue`; of accumulators, the half."""
    words = touched_words(d, machine)
    return words if d.op == Opcode.MATMUL else words | ports(words, machine)


def touched_words(d: Descriptor, machine: Machine) -> set[tuple[str, int, bool]]:
    if d.op in (Opcode.LOAD, Opcode.STORE):
        load = d.op == Opcode.LOAD
        local = MemoryId(d["memory"]).name if load else "STATE" if d["from_state"] else "OUTPUT"
        inside = {(local, d["local_base"] + i, load) for i in range(d["n2"])}
        return inside | {("memory", d["ext_base"] + i, not load) for i in range(d["n2"])}
    if d.op == Opcode.MATMUL:
        weights = {("WEIGHT", d["w_base"] + i, False) for i in range(machine.rows)}
        return weights | {("ACTIVATION", d["a_base"], False), ("ACCUMULATOR", d["acc_phase"], True)}
    if d.op == Opcode.VECTOR:
        groups = machine.columns // machine.vector_lanes
        parameters = {("PARAMETER", d["param_base"] + i, False) for i in range(groups)}
        return parameters | {("ACCUMULATOR", d["acc_phase"], False), ("OUTPUT", d["out_base"], True)}
    if d.op == Opcode.ELEMENT:
        into = MemoryId(d["dst_memory"])
        words = -(-machine.columns // machine.rows) if into == MemoryId.ACTIVATION else 1
        return {("STATE", d["a_base"], False)} | {(into.name, d["dst_base"] + i, True) for i in range(words)}
    return set()


def collide(a: Descriptor, b: Descriptor, machine: Machine) -> bool:
    return any(
        memory == other and word == place and (writes or also)
        for memory, word, writes in touched(a, machine)
        for other, place, also in touched(b, machine)
    )


def all_executions(sample: TileStep, machine: Machine) -> tuple[bool, bool, bool]:
    """Whether some legal execution deadlocks, overflows a semaphore, runs two colliding tasks at once."""
    queues = [sample.queues[engine][:-1] for engine in ENGINES]
    first = ((0, False),) * len(ENGINES), (0,) * len(SEMAPHORE)
    seen, todo = {first}, [first]
    stuck = overflow = race = False
    while todo:
        engines, counts = todo.pop()
        active = [queues[e][position] for e, (position, running) in enumerate(engines) if running]
        race |= any(collide(a, b, machine) for i, a in enumerate(active) for b in active[:i])
        following = []
        for e, (position, running) in enumerate(engines):
            if position == len(queues[e]):
                continue
            d, held = queues[e][position], list(counts)
            if running:
                for semaphore, amount in semaphore_slots(d, "signal"):
                    held[semaphore] += amount
                overflow |= max(held) > 255
            else:
                waits = semaphore_slots(d, "wait")
                if any(held[semaphore] < amount for semaphore, amount in waits):
                    continue
                for semaphore, amount in waits:
                    held[semaphore] -= amount
            state = (position + 1, False) if running else (position, True)
            following.append(((*engines[:e], state, *engines[e + 1 :]), tuple(held)))
        if not following and any(position < len(queues[e]) for e, (position, _) in enumerate(engines)):
            stuck = True
        for state in following:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return stuck, overflow, race


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_verdict_equals_the_exploration_of_all_executions(seed: int) -> None:
    machine = small_machine()
    sample = small_step(np.random.default_rng(seed), machine)
    stuck, overflow, race = all_executions(sample, machine)
    found = check(sample, machine, MEMORY_BYTES)
    assert any(text.startswith("deadlock") for text in found) == stuck
    if not stuck:
        assert any("may hold" in text for text in found) == overflow
        assert any("not ordered" in text or "one bank" in text for text in found) == race


def test_exploration_meets_every_verdict() -> None:
    machine = small_machine()
    verdicts = [all_executions(small_step(np.random.default_rng(seed), machine), machine) for seed in range(120)]
    for number in range(3):
        assert {verdict[number] for verdict in verdicts} == {False, True}
    assert verdicts.count((False, False, False)) >= 10
