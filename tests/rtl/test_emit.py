"""The emitted Verilog and testbench, run in a real simulator, agree with Amaranth's simulator and can fail."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tile_bench import FakeEngine, small_machine, sync

from accelerators.systolic.rtl import MatmulEngine
from dse.core.errors import InfeasibleError, UsageError
from dse.ir.requantize import add_q31, encode_scale, requantize
from dse.program.tile.encode import decode_descriptor, encode_descriptor
from dse.program.tile.isa import ENGINES, Descriptor, MemoryId, Opcode
from dse.program.tile.program import Machine, TileStep
from dse.rtl import verilog_sim
from dse.rtl.emit import StepVectors, emit, queue_words
from dse.rtl.harness import TileSimulation
from dse.rtl.machine import TileMachine
from dse.rtl.verilog_sim import SimulatorError, VerilogSimulator, available_simulators, find_simulator, run_testbench

COLUMNS, LANES, BLOCKS, ROWS, PASSES = 4, 2, 2, 3, 2
WORDS = BLOCKS * ROWS
PARAM_AT, RES_AT, OUT_AT, MEMORY_BYTES = 16, 150, 256, 320
LOADED, COMPUTED, WRITTEN = 3, 5, 6
ACT_AT, WEIGHT_AT, PIXELS = 64, 128, 7
FACTORS = (9_000_001, 12_345_678, 24)


def transfer(op: Opcode, ext: int, run_bytes: int, count: int, **more: int) -> Descriptor:
    """A LOAD or STORE of `count` consecutive words of `run_bytes` bytes."""
    shape = {"n0": 1, "n1": 1, "n2": count, "run_bytes": run_bytes, "ext_base": ext}
    strides = {"ext_stride2": run_bytes, "local_stride2": 1}
    return Descriptor(op, {**shape, **strides, **more})


def vector_step(mode: str) -> TileStep:
    """Two passes: load parameters and residuals, requantize the biases (and add in q31), store."""
    again = {"ext_inc0": WORDS * COLUMNS, "local_inc0": WORDS}
    signal = sync(signals=[(LOADED, 1)])
    loads = (
        Descriptor(Opcode.LOOP, {"count": PASSES, "body": 2}),
        transfer(Opcode.LOAD, PARAM_AT, 9 * LANES, 4, memory=int(MemoryId.PARAMETER), **signal),
        transfer(Opcode.LOAD, RES_AT, COLUMNS, WORDS, memory=int(MemoryId.RESIDUAL), **again, **signal),
    )
    added = dict(zip(("multiplier_y", "multiplier_res", "add_shift"), FACTORS, strict=True))
    fields = {"n_blocks": BLOCKS, "rows_count": ROWS, "out_inc0": WORDS, "zero_point": -4, "low": -100, "high": 110}
    fields |= {"add": int(mode == "q31"), "zero_point_res": 9, "zero_point_add": -7, **added}
    meet = sync([(LOADED, 2)], [(COMPUTED, 1)])
    store = {**sync([(COMPUTED, 1)]), **again}
    halt = Descriptor(Opcode.HALT)
    loop = Descriptor(Opcode.LOOP, {"count": PASSES, "body": 1})
    queues = {
        "load": (*loads, halt),
        "matmul": (halt,),
        "vector": (loop, Descriptor(Opcode.VECTOR, {**fields, **meet}), halt),
        "store": (loop, transfer(Opcode.STORE, OUT_AT, COLUMNS, WORDS, **store), halt),
    }
    return TileStep(f"requantize/{mode} only", ("requantize",), queues, useful_macs=0, layer=0)


def put_parameters(memory: npt.NDArray[np.uint8], *columns: npt.NDArray[np.int64]) -> None:
    """Bias, multiplier and shift of each channel at PARAM_AT, 4 + 4 + 1 bytes."""
    packed = b"".join(struct.pack("<iIb", *map(int, channel)) for channel in zip(*columns, strict=True))
    memory[PARAM_AT : PARAM_AT + len(packed)] = np.frombuffer(packed, np.uint8)


def memory_and_output(mode: str, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A random memory image and, from the arithmetic alone, the bytes that the step stores at OUT_AT."""
    rng = np.random.default_rng(seed)
    memory = rng.integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
    channels = BLOCKS * COLUMNS
    bias = rng.integers(-(2**26), 2**26, channels)
    multiplier, shift = encode_scale(2.0 ** rng.uniform(-21, -18, channels), mode)
    put_parameters(memory, bias, multiplier, shift)
    limits = (-128, 127) if mode == "q31" else (-100, 110)
    blocks = requantize(bias, multiplier, shift, -4, *limits, mode).reshape(BLOCKS, 1, COLUMNS)
    y = np.broadcast_to(blocks, (PASSES, BLOCKS, ROWS, COLUMNS))
    if mode == "q31":
        residual = memory[RES_AT : RES_AT + y.size].view(np.int8).reshape(y.shape)
        y = add_q31(y, residual, -4, 9, FACTORS, -7, -100, 110)
    return memory, np.ascontiguousarray(y).ravel().view(np.uint8)


def vectors_of(machine: Machine, seed: int) -> StepVectors:
    """The step with its expected bytes from the arithmetic and its cycles from Amaranth's simulator."""
    step = vector_step(machine.requantize)
    memory, output = memory_and_output(machine.requantize, seed)
    run = TileSimulation(TileMachine(machine, FakeEngine("matmul", machine)), machine).run(step, memory)
    assert np.array_equal(run.memory[OUT_AT : OUT_AT + len(output)], output)
    return StepVectors(step, memory, ((OUT_AT, output),), run.cycles)


def gemm_vectors(machine: Machine, rng: np.random.Generator) -> StepVectors:
    """PIXELS x (2 folds of 4) activations times 8 x 4 weights, requantized: values from NumPy, cycles from pysim."""
    activations, weights = rng.integers(-128, 128, (PIXELS, 8)), rng.integers(-128, 128, (8, COLUMNS))
    bias, (multiplier, shift) = rng.integers(-5000, 5000, COLUMNS), encode_scale(np.full(COLUMNS, 2**-9.3), "q31")
    memory = np.zeros(MEMORY_BYTES, np.uint8)
    put_parameters(memory, bias, multiplier, shift)
    for base, values in ((ACT_AT, activations), (WEIGHT_AT, weights)):
        memory[base : base + values.size] = values.astype(np.int8).view(np.uint8).ravel()
    loaded = sync(signals=[(LOADED, 1)])
    halt = Descriptor(Opcode.HALT)
    loads = [(ACT_AT, 4, 2 * PIXELS, 0), (WEIGHT_AT, COLUMNS, 8, 1), (PARAM_AT, 9 * LANES, COLUMNS // LANES, 2)]
    matmul = {
        "n_blocks": 1,
        "n_rows": 1,
        "n_columns": 1,
        "n_channels": 2,
        "height": 1,
        "width": PIXELS,
        "a_stride_x": 2,
    }
    vector = {"n_blocks": 1, "rows_count": PIXELS, "low": -128, "high": 127, "zero_point": 3}
    queues = {
        "load": (*(transfer(Opcode.LOAD, *where, memory=to, **loaded) for *where, to in loads), halt),
        "matmul": (Descriptor(Opcode.MATMUL, {**matmul, **sync([(LOADED, 3)], [(COMPUTED, 1)])}), halt),
        "vector": (Descriptor(Opcode.VECTOR, {**vector, **sync([(COMPUTED, 1)], [(WRITTEN, 1)])}), halt),
        "store": (transfer(Opcode.STORE, OUT_AT, COLUMNS, PIXELS, **sync([(WRITTEN, 1)])), halt),
    }
    step = TileStep(f"gemm {machine.dataflow}", ("gemm",), queues, useful_macs=0, layer=0)
    run = TileSimulation(TileMachine(machine, MatmulEngine(machine)), machine).run(step, memory)
    output = requantize(activations @ weights + bias, multiplier, shift, 3, -128, 127, "q31").view(np.uint8).ravel()
    return StepVectors(step, memory, ((OUT_AT, output),), run.cycles)


def simulator_or_skip(kind: str | None = None) -> VerilogSimulator:
    try:
        return find_simulator(kind)
    except SimulatorError as error:
        pytest.skip(f"NOT VERIFIED IN A VERILOG SIMULATOR: {error}")


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TileMachine, list[StepVectors]]:
    """Two steps on one machine in mode q31: the folder, the machine's component, the vectors."""
    machine = small_machine(lanes=LANES, descriptors=8)
    vectors = [vectors_of(machine, seed) for seed in (1, 2)]
    folder = tmp_path_factory.mktemp("emitted")
    component = TileMachine(machine, FakeEngine("matmul", machine))
    emit(component, machine, folder, name="small", steps_with_vectors=vectors)
    return folder, component, vectors


@pytest.mark.parametrize("kind", ["iverilog", "verilator"])
def test_emitted_verilog_passes_its_testbench_with_the_cycles_of_pysim(emitted: Any, kind: str) -> None:
    simulator = simulator_or_skip(kind)
    folder, _, vectors = emitted
    before = sorted(folder.rglob("*"))
    result = run_testbench(folder, simulator=simulator)
    assert result.passed, result.output
    assert result.cycles == sum(v.cycles for v in vectors)
    assert list(result.step_cycles.values()) == [v.cycles for v in vectors]
    assert result.simulator == kind
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("latency", "beat_bytes"), [(1, 1), (33, 16)])
def test_ort_machine_passes_for_any_memory_port(tmp_path: Path, latency: int, beat_bytes: int) -> None:
    simulator = simulator_or_skip("iverilog")
    machine = small_machine(lanes=LANES, requantize="ort", latency=latency, beat_bytes=beat_bytes)
    component = TileMachine(machine, FakeEngine("matmul", machine))
    emit(component, machine, tmp_path, name="ort", steps_with_vectors=[vectors_of(machine, latency)])
    result = run_testbench(tmp_path, simulator=simulator)
    assert result.passed, result.output


@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_emitted_arrays_compute_a_matrix_product_in_the_cycles_of_pysim(tmp_path: Path, dataflow: str) -> None:
    simulator = simulator_or_skip()
    machine = small_machine(lanes=LANES, dataflow=dataflow)
    rng = np.random.default_rng(11)
    vectors = [gemm_vectors(machine, rng) for _ in range(2)]
    component = TileMachine(machine, MatmulEngine(machine))
    emit(component, machine, tmp_path, name="array", steps_with_vectors=vectors)
    result = run_testbench(tmp_path, simulator=simulator)
    assert result.passed, result.output
    assert result.cycles == vectors[0].cycles + vectors[1].cycles


def _damage_expected(folder: Path) -> None:
    path = next((folder / "vectors").glob("01_*_expected.hex"))
    text = path.read_text()
    path.write_text(("0" if text[0] != "0" else "1") + text[1:])


def _damage_prediction(folder: Path, vectors: list[StepVectors]) -> None:
    path = folder / "tb" / "tb_small.v"
    cycles = vectors[0].cycles
    path.write_text(path.read_text().replace(f"run({cycles});", f"run({cycles + 1});", 1))


def _damage_region(folder: Path) -> None:
    path = folder / "tb" / "tb_small.v"
    size = PASSES * WORDS * COLUMNS
    allowed = f"allow_writes({OUT_AT}, {size});"
    assert allowed in path.read_text()
    path.write_text(path.read_text().replace(allowed, f"allow_writes({OUT_AT}, {size - 1});", 1))


def _damage_queue(folder: Path) -> None:
    # a vector queue that waits for one signal more than comes
    path = next((folder / "vectors").glob("00_*_vector.hex"))
    words = path.read_text().split()
    waiting = int(words[8], 16)
    assert waiting >> 28 & 0xFF == 2
    words[8] = f"{waiting + (7 << 28):016x}"
    path.write_text("\n".join(words) + "\n")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("expected", "bytes differ"),
        ("prediction", "predicted"),
        ("region", "outside the expected regions"),
        ("queue", "not done after"),
        ("missing", "FAIL"),
    ],
)
def test_testbench_fails_on_a_seeded_fault(emitted: Any, tmp_path: Path, damage: str, complaint: str) -> None:
    simulator = simulator_or_skip("iverilog")
    folder, _, vectors = emitted
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    if damage == "prediction":
        _damage_prediction(copy, vectors)
    elif damage == "missing":
        next((copy / "vectors").glob("00_*_load.hex")).unlink()
    else:
        {"expected": _damage_expected, "region": _damage_region, "queue": _damage_queue}[damage](copy)
    result = run_testbench(copy, simulator=simulator)
    assert not result.passed
    assert result.cycles is None
    assert complaint in result.output


def test_emission_is_reproducible_and_holds_no_source_paths(emitted: Any, tmp_path: Path) -> None:
    folder, used, vectors = emitted
    fresh = TileMachine(used.machine, FakeEngine("matmul", used.machine))
    written = emit(fresh, used.machine, tmp_path, name="small", steps_with_vectors=vectors)
    assert set(written) == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    for path, target in written.items():
        text = target.read_text()
        assert text == (folder / path).read_text(), path
        assert str(Path(__file__).parents[2]) not in text
        assert str(tmp_path) not in text


def test_verilog_has_no_block_that_may_sleep_through_its_inputs(emitted: Any) -> None:
    # `always @*` waits for a change: inputs constant from time 0 on leave its outputs undefined
    assert "always @*" not in (emitted[0] / "rtl" / "small.v").read_text()


def test_vector_files_hold_the_encoded_queues_and_listings_the_same_descriptors(emitted: Any) -> None:
    folder, component, (first, _) = emitted
    machine = component.machine
    listing = json.loads((folder / "descriptors" / "00_requantize_q31_only.json").read_text())
    assert listing["step"] == first.step.name
    assert listing["predicted_cycles"] == first.cycles
    for engine in ENGINES:
        queue = first.step.queues[engine]
        words = [
            int(line, 16) for line in (folder / f"vectors/00_requantize_q31_only_{engine}.hex").read_text().split()
        ]
        assert words == queue_words(queue, machine, engine)
        decoded = []
        for start in range(0, len(words), 8):
            raw = sum(word << (64 * part) for part, word in enumerate(words[start : start + 8]))
            decoded.append(encode_descriptor(decode_descriptor(raw)))
        assert decoded == [encode_descriptor(descriptor) for descriptor in queue]
        entries = [dict(entry) for entry in listing["queues"][engine]]
        rebuilt = [Descriptor(Opcode[entry.pop("op")], entry) for entry in entries]
        assert [encode_descriptor(d) for d in rebuilt] == decoded


def test_memory_file_restores_the_image_that_the_testbench_clears_first(emitted: Any) -> None:
    folder, _, (first, _) = emitted
    image = np.zeros(MEMORY_BYTES, np.uint8)
    address = 0
    for token in (folder / "vectors/00_requantize_q31_only_memory.hex").read_text().split():
        if token.startswith("@"):
            address = int(token[1:], 16)
        else:
            image[address] = int(token, 16)
            address += 1
    assert np.array_equal(image, first.memory)


@pytest.mark.parametrize(
    ("regions", "complaint"),
    [
        ((), "could not fail"),
        (((MEMORY_BYTES - 3, 4),), "leave the memory"),
        (((0, 8), (7, 2)), "overlap"),
        (((5, 0),), "empty"),
    ],
)
def test_expected_bytes_that_prove_nothing_or_leave_the_memory_are_refused(
    emitted: Any, tmp_path: Path, regions: tuple[tuple[int, int], ...], complaint: str
) -> None:
    _, component, _ = emitted
    expected = tuple((base, np.zeros(length, np.uint8)) for base, length in regions)
    vectors = StepVectors(vector_step("q31"), np.zeros(MEMORY_BYTES, np.uint8), expected, 100)
    with pytest.raises(UsageError, match=complaint):
        emit(component, component.machine, tmp_path, name="small", steps_with_vectors=[vectors])
    assert list(tmp_path.iterdir()) == []


def test_bad_names_missing_steps_and_long_queues_are_refused(emitted: Any, tmp_path: Path) -> None:
    _, component, (first, _) = emitted
    machine = component.machine
    with pytest.raises(UsageError, match="'8x8-ws' cannot name a Verilog module"):
        emit(component, machine, tmp_path, name="8x8-ws", steps_with_vectors=[first])
    with pytest.raises(UsageError, match="without a step"):
        emit(component, machine, tmp_path, name="small", steps_with_vectors=[])
    tiny = replace(machine, descriptors=3)
    with pytest.raises(InfeasibleError, match=r"load queue of requantize.*4 descriptors against a bound of 3"):
        emit(component, tiny, tmp_path, name="small", steps_with_vectors=[first])


def test_simulator_errors_name_the_tool_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="0 testbenches"):
        run_testbench(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'verilator'"):
        find_simulator("verilater")
    monkeypatch.setattr(verilog_sim.shutil, "which", lambda name: None)
    assert available_simulators() == ()
    with pytest.raises(SimulatorError, match=r"iverilog.*silicon-dse\[rtl\]"):
        find_simulator()


def test_verilog_that_does_not_compile_is_an_error_with_the_tools_words(emitted: Any, tmp_path: Path) -> None:
    simulator = simulator_or_skip()
    copy = tmp_path / "copy"
    shutil.copytree(emitted[0], copy)
    (copy / "rtl" / "small.v").write_text("module small(input clk;\nendmodule\n")
    with pytest.raises(SimulatorError, match=r"cannot compile tb_small(.|\n)*small\.v"):
        run_testbench(copy, simulator=simulator)
