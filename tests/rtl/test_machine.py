"""The whole tile machine: values against NumPy, every start, end and the total against the rules of timing."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from tile_bench import FakeEngine, executed, expected_times, small_machine, sync

from accelerators.systolic.rtl import MatmulEngine
from accelerators.systolic.timing import matmul_cycles
from dse.core.errors import InfeasibleError
from dse.ir.requantize import add_q31, encode_add, encode_scale, requantize
from dse.program.tile.encode import encode_descriptor
from dse.program.tile.isa import ENGINES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TileStep
from dse.program.tile.timing import FINAL_CYCLES, ISSUE_CYCLES, SYNC_CYCLES, beats_per_run, load_cycles, store_cycles
from dse.program.tile.timing_vector import vector_cycles
from dse.rtl.harness import RtlRun, RtlRunError, TileSimulation, run_step
from dse.rtl.machine import TileMachine
from dse.rtl.sequencer import WORDS

HALT = Descriptor(Opcode.HALT)
ZERO_POINT, ZERO_RES, ZERO_ADD, LOW, HIGH = -3, 5, 11, -120, 99

# Semaphores, by what they announce; "free" ones carry two credits, one a ping-pong half.
LOADED, INPUT_FREE, ACC_READY, ACC_FREE, RES_READY, RES_FREE, OUT_READY, OUT_FREE, PARAM_READY = range(9)


@dataclass(frozen=True)
class Tiles:
    """outer x inner tiles in a loop nest; each multiplies `pixels` rows by `folds` folds of weights."""

    machine: Machine
    outer: int
    inner: int
    pixels: int
    folds: int
    add: bool

    @property
    def count(self) -> int:
        return self.outer * self.inner

    def sizes(self) -> dict[str, int]:
        """Bytes of each tensor of one tile."""
        m = self.machine
        return {
            "input": self.pixels * self.folds * m.rows,
            "weight": self.folds * m.rows * m.word_bytes[MemoryId.WEIGHT],
            "res": self.pixels * m.columns,
            "out": self.pixels * m.columns,
        }

    def bases(self) -> dict[str, int]:
        """Byte address of each tensor; tiles follow one another."""
        position = 5 + 9 * self.machine.columns
        bases = {"param": 5}
        for name, size in self.sizes().items():
            bases[name] = position
            position += self.count * size + 3
        return bases | {"end": position}


def transfer(tiles: Tiles, opcode: Opcode, tensor: str, memory: MemoryId, words: int, header: Any) -> Descriptor:
    """LOAD or STORE of one tile's tensor: consecutive memory, consecutive words, ping-pong by tile."""
    word_bytes, size = tiles.machine.word_bytes[memory], tiles.sizes()[tensor]
    values = dict(header) | {"n0": 1, "n1": 1, "n2": words, "run_bytes": word_bytes}
    values |= {"ext_base": tiles.bases()[tensor], "ext_inc0": tiles.inner * size, "ext_inc1": size}
    values |= {"ext_stride2": word_bytes, "local_stride2": 1, "local_toggle": toggle(tiles)}
    if opcode == Opcode.LOAD:
        values["memory"] = memory
    return Descriptor(opcode, values)


def toggle(tiles: Tiles) -> int:
    """Levels whose parities alternate the buffers from tile to tile."""
    return 0b11 if tiles.inner % 2 else 0b10


def program(tiles: Tiles) -> dict[str, Sequence[Descriptor]]:
    """Queues with double-buffered scratchpads, the tile's transfers inside two nested loops."""
    m, flip, words = tiles.machine, toggle(tiles), tiles.pixels * tiles.folds
    groups = m.columns // m.vector_lanes
    param = {"n0": 1, "n1": 1, "n2": groups, "run_bytes": 9 * m.vector_lanes, "ext_base": tiles.bases()["param"]}
    param |= {"ext_stride2": 9 * m.vector_lanes, "local_stride2": 1, "memory": MemoryId.PARAMETER}
    loads = [
        transfer(tiles, Opcode.LOAD, "weight", MemoryId.WEIGHT, tiles.folds * m.rows, sync([(INPUT_FREE, 1)])),
        transfer(tiles, Opcode.LOAD, "input", MemoryId.ACTIVATION, words, sync(signals=[(LOADED, 1)])),
    ]
    if tiles.add:
        header = sync([(RES_FREE, 1)], [(RES_READY, 1)])
        loads.append(transfer(tiles, Opcode.LOAD, "res", MemoryId.RESIDUAL, tiles.pixels, header))
    matmul = sync([(LOADED, 1), (ACC_FREE, 1)], [(INPUT_FREE, 1), (ACC_READY, 1)])
    matmul |= {"n_blocks": 1, "n_rows": 1, "n_columns": 1, "n_channels": tiles.folds, "height": 1}
    matmul |= {"width": tiles.pixels, "a_stride_x": tiles.folds}
    matmul |= {f"{name}_toggle": flip for name in ("a", "w", "acc")}
    residual = [(RES_READY, 1)] if tiles.add else []
    freed = [(RES_FREE, 1)] if tiles.add else []
    vector = sync([(ACC_READY, 1), (OUT_FREE, 1), *residual], [(ACC_FREE, 1), (OUT_READY, 1), *freed])
    vector |= {"n_blocks": 1, "rows_count": tiles.pixels, "zero_point": ZERO_POINT, "low": LOW, "high": HIGH}
    vector |= {f"{name}_toggle": flip for name in ("acc", "out", "res")}
    if tiles.add:
        multipliers = encode_add(0.03, 0.05, 0.06)
        vector |= {"add": 1, "zero_point_res": ZERO_RES, "zero_point_add": ZERO_ADD, "multiplier_y": multipliers[0]}
        vector |= {"multiplier_res": multipliers[1], "add_shift": multipliers[2]}
    store_header = sync([(OUT_READY, 1)], [(OUT_FREE, 1)])
    bodies = {
        "load": loads,
        "matmul": [Descriptor(Opcode.MATMUL, matmul)],
        "vector": [Descriptor(Opcode.VECTOR, vector)],
        "store": [transfer(tiles, Opcode.STORE, "out", MemoryId.OUTPUT, tiles.pixels, store_header)],
    }
    starts = {
        "load": [Descriptor(Opcode.LOAD, param | sync(signals=[(PARAM_READY, 1)]))],
        "matmul": [Descriptor(Opcode.SYNC, sync(signals=[(INPUT_FREE, 2)]))],
        "vector": [Descriptor(Opcode.SYNC, sync([(PARAM_READY, 1)], [(ACC_FREE, 2), (RES_FREE, 2)]))],
        "store": [Descriptor(Opcode.SYNC, sync(signals=[(OUT_FREE, 2)]))],
    }
    return {engine: (*starts[engine], *looped(tiles, body), HALT) for engine, body in bodies.items()}


def looped(tiles: Tiles, body: list[Descriptor]) -> list[Descriptor]:
    """Both loops end at the body's last descriptor."""
    inner = Descriptor(Opcode.LOOP, {"count": tiles.inner, "body": len(body)})
    return [Descriptor(Opcode.LOOP, {"count": tiles.outer, "body": len(body) + 1}), inner, *body]


def unpack_weights(words: np.ndarray, columns: int, bits: int) -> np.ndarray:
    """Weight words (n, bytes) as signed weights (n, columns), column 0 in the lowest bits."""
    flat = np.unpackbits(words, axis=1, bitorder="little")[:, : columns * bits].reshape(-1, columns, bits)
    value = flat.astype(np.int64) @ (1 << np.arange(bits))
    return np.where(value >= 1 << (bits - 1), value - (1 << bits), value)


def memory_image(tiles: Tiles, rng: np.random.Generator) -> np.ndarray:
    """Random tensors; parameters with scales that leave most outputs unsaturated."""
    m = tiles.machine
    image = rng.integers(0, 256, tiles.bases()["end"], dtype=np.uint8)
    spread = 2.0 ** (m.weight_bits + 4) * np.sqrt(tiles.folds * m.rows)
    multiplier, shift = encode_scale(rng.uniform(0.5, 2, m.columns) * 60 / spread, m.requantize)
    table = np.zeros((m.columns, 9), np.uint8)
    table[:, :4] = rng.integers(-2000, 2000, m.columns).astype("<i4").view(np.uint8).reshape(-1, 4)
    table[:, 4:8] = multiplier.astype("<u4").view(np.uint8).reshape(-1, 4)
    table[:, 8] = shift
    image[5 : 5 + table.size] = table.ravel()
    return image


def expected_memory(tiles: Tiles, image: np.ndarray) -> np.ndarray:
    """The image after the program: each tile by plain matrix arithmetic."""
    m, result, bases, sizes = tiles.machine, image.copy(), tiles.bases(), tiles.sizes()
    table = image[5 : 5 + 9 * m.columns].reshape(m.columns, 9)
    bias = table[:, :4].copy().view("<i4").ravel().astype(np.int64)
    multiplier = table[:, 4:8].copy().view("<u4").ravel().astype(np.int64)
    shift = table[:, 8].astype(np.int64)
    for tile in range(tiles.count):
        raw = {name: image[bases[name] + tile * size :][:size] for name, size in sizes.items()}
        inputs = raw["input"].view(np.int8).reshape(tiles.pixels, tiles.folds * m.rows).astype(np.int64)
        words = raw["weight"].reshape(tiles.folds * m.rows, -1)
        acc = inputs @ unpack_weights(words, m.columns, m.weight_bits) + bias
        if tiles.add:
            first = requantize(acc, multiplier, shift, ZERO_POINT, -128, 127, m.requantize)
            res = raw["res"].view(np.int8).reshape(first.shape)
            multipliers = encode_add(0.03, 0.05, 0.06)
            out = add_q31(first, res, ZERO_POINT, ZERO_RES, multipliers, ZERO_ADD, LOW, HIGH)
        else:
            out = requantize(acc, multiplier, shift, ZERO_POINT, LOW, HIGH, m.requantize)
        start = bases["out"] + tile * sizes["out"]
        result[start : start + sizes["out"]] = out.ravel().view(np.uint8)
    return result


def durations(queues: Mapping[str, Sequence[Descriptor]], machine: Machine) -> dict[str, list[int]]:
    """Cycles of every executed task by the closed forms."""

    def cycles(d: Descriptor) -> int:
        if d.op == Opcode.SYNC:
            return SYNC_CYCLES
        if d.op == Opcode.VECTOR:
            return int(vector_cycles(d["n_blocks"], d["rows_count"], machine))
        if d.op == Opcode.MATMUL:
            folds = d["n_rows"] * d["n_columns"] * d["n_channels"]
            one = np.int64(1)
            return int(matmul_cycles(one * d["n_blocks"], one * folds, one * d["height"] * d["width"], machine))
        runs, beats = d["n0"] * d["n1"] * d["n2"], beats_per_run(d["run_bytes"], machine)
        return int((load_cycles if d.op == Opcode.LOAD else store_cycles)(runs, beats, machine))

    return {engine: [cycles(d) for d, _, _ in executed(queue)] for engine, queue in queues.items()}


def step_of(queues: Mapping[str, Sequence[Descriptor]]) -> TileStep:
    full = {engine: tuple(queues.get(engine, (HALT,))) for engine in ENGINES}
    return TileStep("step", ("op",), full, useful_macs=0, layer=0)


def build(machine: Machine) -> TileMachine:
    return TileMachine(machine, MatmulEngine(machine))


def machine_for(rng: random.Random, dataflow: str) -> Machine:
    rows, columns, lanes = rng.choice([(2, 2, 1), (4, 4, 2), (3, 5, 5), (5, 6, 3), (4, 3, 1)])
    return small_machine(
        rows=rows,
        columns=columns,
        lanes=lanes,
        dataflow=dataflow,
        weight_bits=rng.choice([4, 8]),
        requantize=rng.choice(["ort", "q31"]),
        beat_bytes=rng.choice([1, 2, 4, 8]),
        latency=rng.choice([1, 2, 5, 20]),
    )


@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("seed", range(6))
def test_double_buffered_tiles_equal_numpy_and_the_predicted_timeline(dataflow: str, seed: int) -> None:
    rng = random.Random(1000 * seed + len(dataflow) + ord(dataflow[0]))
    machine = machine_for(rng, dataflow)
    add = machine.requantize == "q31" and rng.random() < 0.7
    tiles = Tiles(machine, rng.randint(1, 3), rng.randint(1, 3), rng.randint(1, 12), rng.randint(1, 3), add)
    image = memory_image(tiles, np.random.default_rng(seed))
    queues = program(tiles)
    run = run_step(build(machine), machine, step_of(queues), image)
    np.testing.assert_array_equal(run.memory, expected_memory(tiles, image))
    starts, ends, total = expected_times(queues, durations(queues, machine))
    for engine in ENGINES:
        assert run.starts[engine].tolist() == starts[engine], engine
        assert run.ends[engine].tolist() == ends[engine], engine
    assert run.cycles == total
    beats = tiles.count * tiles.pixels * -(-machine.columns // machine.memory_bytes_per_cycle)
    assert run.write_beats == beats


def test_values_do_not_depend_on_the_latency_of_the_memory() -> None:
    """One simulation, several runs: fixed, replayed and slow latencies; only the time differs."""
    machine = small_machine(latency=2)
    tiles = Tiles(machine, 2, 2, 5, 2, add=True)
    image = memory_image(tiles, np.random.default_rng(1))
    expected = expected_memory(tiles, image)
    simulation = TileSimulation(build(machine), machine)
    rng = random.Random(5)
    step = step_of(program(tiles))
    first = simulation.run(step, image)
    replayed = simulation.run(step, image, read_latency=[2] * first.read_beats, write_latency=[2])
    jittery = [rng.choice([1, 3, 30]) for _ in range(first.read_beats)]
    slow = simulation.run(step, image, read_latency=jittery, write_latency=jittery)
    for run in (first, replayed, slow):
        np.testing.assert_array_equal(run.memory, expected)
    assert first.cycles == replayed.cycles < slow.cycles
    assert first.read_beats == slow.read_beats


SMALL = small_machine(latency=4)


@pytest.fixture(scope="module")
def small() -> TileSimulation:
    """Fake compute engines, built once: for programs that need no arithmetic."""
    return TileSimulation(TileMachine(SMALL, FakeEngine("matmul", SMALL), FakeEngine("vector", SMALL)), SMALL)


def run_small(
    small: TileSimulation, queues: Mapping[str, Sequence[Descriptor]], size: int = 64, **options: Any
) -> RtlRun:
    return small.run(step_of(queues), np.zeros(size, np.uint8), **options)


def test_an_empty_program_takes_the_final_cycles(small: TileSimulation) -> None:
    assert run_small(small, {}).cycles == FINAL_CYCLES


def test_deadlock_is_reported_not_simulated_forever(small: TileSimulation) -> None:
    waiting = Descriptor(Opcode.SYNC, sync(waits=[(3, 1)]))
    with pytest.raises(RtlRunError, match="deadlocks: no queue moved after cycle 0"):
        run_small(small, {"vector": (waiting, HALT)})


def test_a_task_that_takes_too_long_is_given_up(small: TileSimulation) -> None:
    long = Descriptor(Opcode.MATMUL, {"n_blocks": 5000})
    with pytest.raises(RtlRunError, match="after 300 cycles"):
        run_small(small, {"matmul": (long, HALT)}, max_cycles=300)
    assert run_small(small, {"matmul": (long, HALT)}).cycles == ISSUE_CYCLES + 5000 + FINAL_CYCLES


@pytest.mark.parametrize(
    ("engine", "opcode", "message"),
    [("load", Opcode.LOAD, "LOAD reads byte 64"), ("store", Opcode.STORE, "STORE writes bytes 62 to 65")],
)
def test_access_beyond_the_memory_is_named(small: TileSimulation, engine: str, opcode: Opcode, message: str) -> None:
    values = {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 4, "ext_base": 64 if engine == "load" else 62}
    with pytest.raises(RtlRunError, match=message):
        run_small(small, {engine: (Descriptor(opcode, values), HALT)})


def test_queue_longer_than_its_memory_is_infeasible(small: TileSimulation) -> None:
    with pytest.raises(InfeasibleError, match=r"store queue of step: 33 descriptors.*32"):
        run_small(small, {"store": (HALT,) * 33})


def test_semaphore_named_twice_is_refused(small: TileSimulation) -> None:
    twice = Descriptor(Opcode.SYNC, sync(signals=[(3, 1), (3, 2)]))
    with pytest.raises(RtlRunError, match=r"load\[0\] names a semaphore twice"):
        run_small(small, {"load": (twice, HALT)})


@pytest.mark.parametrize("latency", [0, [], [3, 0]])
def test_latency_below_one_cycle_is_refused(small: TileSimulation, latency: Any) -> None:
    with pytest.raises(RtlRunError, match="at least one cycle"):
        run_small(small, {}, read_latency=latency)


def test_store_beats_are_visible_to_a_load_that_waits_for_them(small: TileSimulation) -> None:
    """The round trip through memory: a STORE of zeros over ones, then a LOAD of them, then their STORE."""
    run = {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 4}
    store = Descriptor(Opcode.STORE, run | {"ext_base": 8} | sync(signals=[(1, 1)]))
    load = Descriptor(Opcode.LOAD, run | {"ext_base": 8, "memory": 0} | sync([(1, 1)]))
    ones = np.ones(16, np.uint8)
    result = small.run(step_of({"store": (store, HALT), "load": (load, HALT)}), ones)
    assert result.memory.tolist() == [1] * 8 + [0] * 4 + [1] * 4
    assert result.starts["load"] == result.ends["store"] + 1


def test_host_port_programs_the_queues_and_done_and_cycles_hold_until_the_next_start(small: TileSimulation) -> None:
    """No harness: words go in through the port, `cycles` counts from start to done, twice the same."""
    fakes = (FakeEngine("matmul", SMALL), FakeEngine("vector", SMALL))
    top = TileMachine(SMALL, *fakes)
    task = Descriptor(Opcode.VECTOR, {"n_blocks": 9} | sync(signals=[(2, 1)]))
    waiting = Descriptor(Opcode.SYNC, sync(waits=[(2, 1)]))
    queues = step_of({"vector": (task, HALT), "matmul": (waiting, HALT)}).queues
    expected = ISSUE_CYCLES + 9 + 1 + SYNC_CYCLES + FINAL_CYCLES
    counts: list[int] = []

    async def drive(ctx: Any) -> None:
        ctx.set(top.program.en, 1)
        for number, engine in enumerate(ENGINES):
            for position, descriptor in enumerate(queues[engine]):
                for part in range(WORDS):
                    ctx.set(top.program.queue, number)
                    ctx.set(top.program.addr, WORDS * position + part)
                    ctx.set(top.program.data, encode_descriptor(descriptor) >> 64 * part & (2**64 - 1))
                    await ctx.tick()
        ctx.set(top.program.en, 0)
        for _ in range(2):
            await ctx.tick().repeat(2)
            ctx.set(top.start, 1)
            await ctx.tick()
            ctx.set(top.start, 0)
            cycle = 1
            while not ctx.get(top.done):
                await ctx.tick()
                cycle += 1
            counts.append(cycle)
            await ctx.tick().repeat(5)
            assert ctx.get(top.done)
            assert ctx.get(top.cycles) == cycle

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert counts == [expected] * 2


def test_machines_of_other_geometry_are_compared_by_what_they_compute() -> None:
    """Beat width and lanes change the time and nothing else."""
    base = small_machine()
    tiles = Tiles(base, 1, 2, 6, 2, add=True)
    image = memory_image(tiles, np.random.default_rng(9))
    cycles = set()
    for beat_bytes in (1, 8):
        machine = replace(base, memory_bytes_per_cycle=beat_bytes)
        run = run_step(build(machine), machine, step_of(program(replace(tiles, machine=machine))), image)
        np.testing.assert_array_equal(run.memory, expected_memory(tiles, image))
        cycles.add(run.cycles)
    assert len(cycles) == 2
