# amaranth: UnusedElaboratable=no
"""Machines with an element unit as a whole: state and tables loaded and stored, maps pooled, layers through Icarus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from recurrent_networks import recurrent_graph
from tile_bench import FakeEngine, small_machine, sync

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.partition import HostOp
from accelerators.systolic.timing_graph import durations
from accelerators.systolic.verify import run_rtl
from dse.backend import Decisions
from dse.compiler import quantize
from dse.ir import Graph, Op, Quantization, Tensor
from dse.ir.reference import run_quantized
from dse.program.tile.checker import check
from dse.program.tile.interpreter import run_step
from dse.program.tile.isa import ENGINES, Descriptor, MemoryId, Opcode
from dse.program.tile.isa_element import TABLE_BYTES, Function
from dse.program.tile.program import Machine, TileStep
from dse.rtl.activation_walker import ActivationWalker
from dse.rtl.harness import TileSimulation
from dse.rtl.machine import TileMachine
from dse.rtl.verilog_sim import available_simulators, run_testbench
from dse.sim import simulate_a, simulate_c

FAMILY = SystolicAccelerator()
HALT = Descriptor(Opcode.HALT)
LOADED, TAKEN, DONE = range(3)


# -- state and tables ----------------------------------------------------------------------------------------------


def element_machine(beat_bytes: int) -> Machine:
    machine = small_machine(beat_bytes=beat_bytes, columns=4, lanes=2)
    words = {**machine.words, MemoryId.STATE: 12, MemoryId.TABLE: 4}
    word_bytes = {**machine.word_bytes, MemoryId.STATE: 8, MemoryId.TABLE: TABLE_BYTES}
    fields: dict[str, Any] = {**machine.__dict__, "words": words, "word_bytes": word_bytes}
    return Machine(**fields)


def state_program(passes: int) -> TileStep:
    """Tables once; then, pass by pass, a state word from descending addresses, through a table, back upwards."""
    run = {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 8, "local_toggle": 1}
    tables = {"n0": 1, "n1": 1, "n2": 3, "run_bytes": TABLE_BYTES, "ext_base": 512, "ext_stride2": TABLE_BYTES,
              "local_stride2": 1, "memory": MemoryId.TABLE}  # fmt: skip
    load = {**run, "ext_base": 8 * (passes - 1), "ext_inc0": 8, "ext_down": 1, "memory": MemoryId.STATE}
    element = {"n_blocks": 1, "rows_count": 1, "function": Function.COPY, "multiplier_a": 1, "shift": 8,
               "a_memory": MemoryId.STATE, "dst_memory": MemoryId.STATE, "a_toggle": 1, "dst_toggle": 1, "dst_base": 3,
               "look_up": 1, "table_base": 2}  # fmt: skip
    store = {**run, "ext_base": 4096 - 8, "ext_inc0": 8, "ext_down": 1, "local_base": 3, "from_state": 1}
    loop = Descriptor(Opcode.LOOP, {"count": passes, "body": 1})
    queues = {
        "load": (Descriptor(Opcode.LOAD, tables), loop,
                 Descriptor(Opcode.LOAD, load | sync([(DONE, 1)], [(LOADED, 1)])), HALT),
        "matmul": (HALT,),
        "vector": (loop, Descriptor(Opcode.ELEMENT, element | sync([(LOADED, 1)], [(TAKEN, 1)])), HALT),
        "store": (Descriptor(Opcode.SYNC, sync(signals=[(DONE, 1)])), loop,
                  Descriptor(Opcode.STORE, store | sync([(TAKEN, 1)], [(DONE, 1)])), HALT),
    }  # fmt: skip
    return TileStep("state", ("state",), queues, useful_macs=0, layer=0)


@pytest.mark.parametrize("beat_bytes", [1, 4, 16])
def test_states_pass_a_table_and_walk_memory_downwards(beat_bytes: int) -> None:
    machine, step = element_machine(beat_bytes), state_program(5)
    memory = np.random.default_rng(beat_bytes).integers(0, 256, 4096, dtype=np.uint8)
    assert check(step, machine, memory.size) == []
    wanted = memory.copy()
    run_step(step, machine, wanted)
    assert (wanted != memory).any()
    simulation = TileSimulation(TileMachine(machine, FakeEngine("matmul", machine)), machine)
    run = simulation.run(step, memory)
    np.testing.assert_array_equal(run.memory, wanted)
    for engine in ENGINES:
        cycles, _ = durations(step.queues[engine], machine)
        taken = (run.ends[engine] - run.starts[engine]).tolist()
        assert set(taken) <= set(cycles.tolist()), engine


def test_two_readers_or_two_writers_of_a_bank_are_refused_by_the_checker() -> None:
    """LOAD and ELEMENT may fill different halves of the state at once, not different words of one half."""
    machine = element_machine(4)
    run = {"n0": 1, "n1": 1, "n2": 1, "run_bytes": 8, "memory": MemoryId.STATE}
    element = {"n_blocks": 1, "rows_count": 1, "multiplier_a": 1, "a_memory": MemoryId.OUTPUT,
               "dst_memory": MemoryId.STATE, "dst_base": 3}  # fmt: skip
    for phase, wanted in ((1, 0), (0, 1)):
        queues = dict.fromkeys(ENGINES, (HALT,))
        queues["load"] = (Descriptor(Opcode.LOAD, run), HALT)
        queues["vector"] = (Descriptor(Opcode.ELEMENT, {**element, "dst_phase": phase}), HALT)
        found = check(TileStep("banks", ("banks",), queues, useful_macs=0, layer=0), machine, 64)
        assert len(found) == wanted, found
        assert all("may use one bank at once" in text for text in found)


@pytest.mark.parametrize(
    ("rows", "columns", "lanes"), [(4, 4, 2), (6, 4, 2), (3, 6, 3), (2, 8, 2), (5, 5, 1), (4, 4, 4)]
)
def test_activation_walker_equals_its_formula(rows: int, columns: int, lanes: int) -> None:
    walker = ActivationWalker(rows, columns, lanes)
    rng = np.random.default_rng(rows * columns + lanes)

    async def drive(ctx: Any) -> None:
        for _ in range(8):
            blocks, height, width = (int(v) for v in rng.integers(1, 4, 3))
            base, stride_y, stride_x = (int(v) for v in rng.integers(0, 40, 3))
            for name, value in (("height", height), ("width", width), ("stride_y", stride_y), ("stride_x", stride_x)):
                ctx.set(getattr(walker, name), value)
            ctx.set(walker.base, base)
            ctx.set(walker.step, 0)
            ctx.set(walker.load, 1)
            await ctx.tick()
            ctx.set(walker.load, 0)
            ctx.set(walker.step, 1)
            for n, y, x, j in np.ndindex(blocks, height, width, columns // lanes):
                byte = n * columns + j * lanes
                wanted = base + y * stride_y + x * stride_x + byte // rows
                assert (ctx.get(walker.addr), ctx.get(walker.part)) == (wanted, 1 << (byte % rows // lanes))
                await ctx.tick()

    simulator = Simulator(walker)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()


# -- maps ----------------------------------------------------------------------------------------------------------


def map_graph(rng: np.random.Generator, kind: str) -> Graph:
    """A pool or a sum of small int8 maps, and a pool of one pixel behind it that keeps their layout."""
    channels, size = int(rng.integers(1, 8)), int(rng.integers(3, 6))
    scale = lambda: Quantization((float(np.float32(rng.uniform(0.02, 0.1))),), int(rng.integers(-128, 128)))  # noqa: E731
    x = Tensor("x", (1, channels, size, size), "int8", scale())
    names, attributes, out = ["x"], {"kernel": (2, 2), "strides": (1, 1), "pads": (0, 0, 0, 0)}, size - 1
    if kind == "add":
        names, attributes, out = ["x", "b"], {"activation": "none"}, size
    if kind == "average_pool":
        attributes["count_include_pad"] = False
    y = Tensor("y", (1, channels, out, out), "int8", x.quantization if kind == "max_pool" else scale())
    tensors = {
        "x": x,
        "b": Tensor("b", x.shape, "int8", scale()),
        "y": y,
        "z": Tensor("z", y.shape, "int8", y.quantization),
    }
    if kind != "add":
        del tensors["b"]
    one = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0)}
    ops = (Op("op", kind, tuple(names), ("y",), attributes), Op("end", "max_pool", ("y",), ("z",), one))
    return Graph("maps", tensors, ops, tuple(names), ("z",))


@pytest.mark.parametrize("kind", ["max_pool", "average_pool", "add"])
@pytest.mark.parametrize("seed", range(2))
def test_maps_on_rtl_equal_reference_and_predicted_cycles(kind: str, seed: int) -> None:
    rng = np.random.default_rng(7 * seed + len(kind))
    graph = map_graph(rng, kind)
    hw = SystolicHardware(rows=4, columns=4, vector_lanes=2, state_kib=0.5, activation_kib=1, weight_kib=1,
                          accumulator_kib=0.5, tables=2, parameter_channels=16)  # fmt: skip
    executable = FAMILY.lower(graph, hw, Decisions())
    assert not any(isinstance(item, HostOp) for item in executable.work)
    used = {d.op for step in executable.program.tile_steps for d in step.queues["vector"]}
    assert Opcode.POOL in used
    inputs = {name: rng.integers(-128, 128, graph[name].shape).astype(np.int8) for name in graph.inputs}
    expected = run_quantized(graph, inputs, hw.requantize)
    hardware = run_rtl(executable, inputs)
    np.testing.assert_array_equal(hardware.outputs["z"], expected["z"])
    view = executable.task_graph()
    assert simulate_a(view).total_cycles == simulate_c(view).total_cycles == hardware.cycles


# -- through a Verilog simulator -----------------------------------------------------------------------------------


def lstm_piece() -> tuple[Graph, SystolicExecutable, dict[str, Any]]:
    rng = np.random.default_rng(4)
    float_graph = recurrent_graph(rng, "lstm", (2, 1, 3, 4), outputs=("y", "yh"))
    graph = quantize(float_graph, {"x": rng.normal(0, 1, (2, 1, 3)).astype(np.float32)})
    hw = SystolicHardware(rows=4, columns=4, vector_lanes=2, state_kib=0.5, activation_kib=0.5, weight_kib=1,
                          accumulator_kib=0.5, tables=5, parameter_channels=32)  # fmt: skip
    executable = FAMILY.lower(graph, hw, Decisions())
    values = {"x": rng.integers(-128, 128, (2, 1, 3)).astype(np.int8)}
    return graph, executable, values | run_quantized(graph, values, hw.requantize, keep=True)


def test_emitted_recurrent_layer_passes_its_testbench(tmp_path: Path) -> None:
    simulators = [item for item in available_simulators() if item.kind == "iverilog"]
    if not simulators:
        pytest.skip("Icarus Verilog is not installed")
    _, executable, values = lstm_piece()
    cases = FAMILY.verification_cases(executable, values)
    (case,) = cases
    FAMILY.emit(executable, cases, tmp_path)
    result = run_testbench(tmp_path, simulator=simulators[0])
    assert result.passed, result.output
    assert result.cycles == simulate_a(case.executable.task_graph()).total_cycles
    # the testbench can fail: one expected byte of one region changed
    (expected,) = (tmp_path / "vectors").glob("*_expected.hex")
    first, rest = expected.read_text().split(maxsplit=1)
    expected.write_text(f"{int(first, 16) ^ 1:02x} {rest}")
    assert not run_testbench(tmp_path, simulator=simulators[0]).passed
